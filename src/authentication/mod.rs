//! WHO IS CALLING: the credentials of a request, verified, as an `Identity`.
//!
//! `Authenticator::authenticate` is one authentication from start to finish. What is presented is read in `credentials`;
//! a token is taken apart in `jws` and verified by its `provider` (keys in `jwks` and `remote_key_set`, claims in
//! `claims`); an API key is looked up in the room `api_keys`; a client certificate, which TLS has verified, is matched in
//! `client_certificate`; what verified is kept in `cache`, and refused all the same once `revocations` names it. Each check
//! says what it found and expected to a `witness`, which is nobody but for `explain`; for `test` a caller is supposed
//! (`suppose`).

mod algorithm;
mod api_key;
mod cache;
mod claims;
mod client_certificate;
mod credentials;
mod failure;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod google;
mod jwks;
mod jwks_fetch;
mod jws;
mod provider;
mod providers;
mod remote_key_set;
mod revocations;
mod revocations_watch;
mod suppose;
#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, reason = "clippy knows tests by cfg(test) alone")]
#[cfg_attr(fuzzing, allow(dead_code, unused_imports, reason = "the fuzz targets need only some of it"))]
mod testing;
#[cfg(test)]
mod tests;
mod times;
mod verification_key;
mod weak_keys;
mod witness;

pub use credentials::TokenDigests;
pub use failure::{Failure, FailureKind};
pub use jwks_fetch::FetchOutcome;
pub use remote_key_set::RemoteKeySet;
pub use revocations::{Revocations, Standing};
pub use revocations_watch::RevocationsWatch;
pub use witness::{Outcome, Transcript};

use crate::api_keys::{ApiKeys, Record};
use crate::authorization::{Grants, Policy};
use crate::config::{self, ClaimPath, LongCall, LongCalls, Mode, Problems};
use crate::identity::Identity;
use crate::identity_headers::{IdentityHeaders, RenderedHeaders};
use crate::rate_limits::{Attempts, OwnBucket};
use crate::secret::Digest;
use crate::telemetry::AuthKind;
use crate::tls::PeerCertificate;
use api_key::API_KEYS;
use cache::{Verdict, Verdicts};
use client_certificate::{CLIENT_CERTIFICATES, ClientCertificates, Entry};
use credentials::Credentials;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName};
use jws::Jws;
use provider::{Validity, VerifiedToken};
use providers::Providers;
use revocations::{Known, TokenStanding};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use times::unix_seconds;
use witness::{NoWitness, Witness, hold};

/// A verified caller and what every call of it needs, computed once for its credentials.
#[derive(Debug)]
pub struct Caller {
    /// Who it is.
    pub identity: Identity,
    /// What it holds.
    pub grants: Grants,
    /// What the upstream is told.
    pub headers: RenderedHeaders,
    /// What may end a call of it while it runs.
    pub standing: Standing,
    /// How often it may still call.
    pub rate: OwnBucket,
}

/// The result of an authentication that refused nothing.
#[derive(Debug)]
pub struct Authenticated {
    /// `None`: anonymous.
    pub caller: Option<Arc<Caller>>,
    /// Whether the verdict was at hand.
    pub cache: CacheOutcome,
}

/// How the cache of verified credentials served a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheOutcome {
    /// The verdict was there and still held.
    Hit,
    /// The credentials had to be verified.
    Miss,
    /// There was nothing to verify.
    Unused,
}

/// Authenticates calls; one for each configuration generation, shared by all workers.
#[derive(Debug)]
pub struct Authenticator {
    mode: Mode,
    providers: Providers,
    api_keys: ApiKeys,
    api_key_header: Option<HeaderName>,
    client_certificates: ClientCertificates,
    policy: Arc<Policy>,
    headers: Arc<IdentityHeaders>,
    verdicts: Verdicts,
    revocations: Arc<Revocations>,
    /// API keys of the generation before that are revoked or gone in this one: calls with them may still run.
    withdrawn_api_keys: HashSet<Arc<str>>,
    long_calls: LongCalls,
}

impl Authenticator {
    /// Builds it from the configuration; `claim_headers` are the claims that the upstream is told. Keys that are files
    /// are parsed, key sets behind URLs not yet fetched. Everything that is wrong is added to `problems`; with an error
    /// among them the result must not be used.
    pub fn load(
        config: &config::Authentication,
        claim_headers: &[ClaimPath],
        policy: Arc<Policy>,
        headers: Arc<IdentityHeaders>,
        problems: &mut Problems,
    ) -> Authenticator {
        let forwarded: Arc<[Arc<str>]> = claim_headers.iter().map(|path| Arc::from(path.0.as_str())).collect();
        let api_keys = config.api_keys.as_ref().map(|keys| ApiKeys::load(keys, problems)).unwrap_or_default();
        if let Some(file) = config.api_keys.as_ref().and_then(|keys| keys.file.as_ref()) {
            api_key::warn_of_undefined_roles(&api_keys, &policy, &file.at, problems);
        }
        let client_certificates = ClientCertificates::load(&config.client_certificates, |entry, identity| {
            let caller = caller(&policy, &headers, identity);
            caller.map_err(|failure| problems.error(&entry.at, failure.detail)).ok()
        });
        let providers = Providers::load(config, &forwarded, problems);
        let revocations = load_revocations(config, &providers, &api_keys, problems);
        Authenticator {
            mode: config.mode,
            client_certificates,
            providers,
            api_keys,
            api_key_header: config.api_keys.as_ref().map(|keys| keys.header.clone()),
            policy,
            headers,
            verdicts: Verdicts::new(config.memory),
            revocations: Arc::new(revocations),
            withdrawn_api_keys: HashSet::new(),
            long_calls: config.long_calls,
        }
    }

    /// Takes the place of `previous` in a reload, before its own tasks are started: takes over the key sets that were fetched
    /// from the same sources, so that an outage of a key server loses nothing, and learns which API keys are no more.
    pub fn succeed(&mut self, previous: &Authenticator) {
        for set in self.key_sets() {
            for previous in previous.key_sets() {
                set.adopt(previous);
            }
        }
        let valid: HashSet<&Arc<str>> =
            self.api_keys.records().filter(|record| record.revoked_at.is_none()).map(|record| &record.id).collect();
        let withdrawn = previous.api_keys.records().map(|record| &record.id).filter(|id| !valid.contains(id));
        self.withdrawn_api_keys = withdrawn.cloned().collect();
    }

    /// Who is calling, by the request and the verified certificate of its connection. Waits only while a key set has
    /// never been had, or for the one fetch that an unknown key is worth. What fails counts among the `attempts` of the
    /// peer; when there are too many only credentials that are known already are looked at. `digest` gives the SHA-256 of a token.
    ///
    /// # Errors
    /// A credential that is present and does not verify, or none where one is needed. The future may be dropped.
    pub async fn authenticate(
        &self,
        request: &HeaderMap,
        certificate: Option<&PeerCertificate>,
        attempts: &Attempts<'_>,
        digest: impl Fn(&[u8]) -> Digest,
        now: SystemTime,
    ) -> Result<Authenticated, Failure> {
        self.authenticate_before(&mut NoWitness, request, certificate, attempts, digest, now).await
    }

    /// The same, with every step in words; what is wrong beside the first failure, which is the answer, is among them.
    pub async fn explain(&self, request: &HeaderMap, now: SystemTime) -> (Transcript, Result<Authenticated, Failure>) {
        let mut transcript = Transcript::default();
        let verdict = self.authenticate_before(&mut transcript, request, None, &Attempts::default(), Digest::of, now).await;
        (transcript, verdict)
    }

    async fn authenticate_before<W: Witness>(
        &self,
        witness: &mut W,
        request: &HeaderMap,
        certificate: Option<&PeerCertificate>,
        attempts: &Attempts<'_>,
        digest: impl Fn(&[u8]) -> Digest,
        now: SystemTime,
    ) -> Result<Authenticated, Failure> {
        if self.mode == Mode::Disabled {
            return Ok(Authenticated { caller: None, cache: CacheOutcome::Unused });
        }
        let presented = witness.judged(Credentials::read(request, self.api_key_header.as_ref()), Credentials::words);
        let presented = presented.map_err(|failure| failure.counted(attempts))?;
        let known = certificate.and_then(|certificate| Some((certificate, self.client_certificates.entry_of(certificate)?)));
        let Some(fingerprint) = presented.fingerprint(known.map(|(certificate, _)| &certificate.digest), digest) else {
            return match (known, self.mode) {
                (Some((_, entry)), _) => Ok(Authenticated { caller: Some(entry.alone.clone()), cache: CacheOutcome::Unused }),
                (None, Mode::Required) => Err(witness.fail(Failure::missing(certificate))),
                (None, Mode::Optional | Mode::Disabled) => Ok(Authenticated { caller: None, cache: CacheOutcome::Unused }),
            };
        };
        let known_to_be = |caller: &Arc<Caller>| !W::THOROUGH && self.revocations.of(&caller.standing).is_none();
        if let Some(caller) = self.verdicts.caller(&fingerprint, now).filter(known_to_be) {
            return Ok(Authenticated { caller: Some(caller), cache: CacheOutcome::Hit });
        }
        // Before anything is verified: who guesses learns nothing more, and costs nothing more.
        attempts.check(Instant::now)?;
        // Boxed: most calls find their verdict above, and need not be as large as what makes one.
        let verdict = Box::pin(self.verify(&presented, known.map(|(_, entry)| entry), now, witness)).await;
        let verdict = verdict.map_err(|failure| failure.counted(attempts))?;
        let caller = verdict.caller.clone();
        self.verdicts.keep(fingerprint, verdict);
        Ok(Authenticated { caller: Some(caller), cache: CacheOutcome::Miss })
    }

    /// Why a running call of `caller` has to end now: its credentials are revoked, and `long_calls` does not let it go on.
    pub fn revoked(&self, caller: &Caller) -> Option<Failure> {
        match self.long_calls.on_revocation {
            LongCall::Continue => None,
            LongCall::End => {
                let withdrawn = caller.identity.api_key_id.as_ref().is_some_and(|id| self.withdrawn_api_keys.contains(id));
                let words = "the record of the API key was revoked or removed while the call was running";
                let removed = || of_identity(&caller.identity, Failure::new(FailureKind::CredentialsRevoked, words));
                withdrawn.then(removed).or_else(|| self.check_revocations(&caller.identity, &caller.standing, &mut NoWitness).err())
            }
        }
    }

    /// When a running call of `caller` has to end as [`Self::expired`]; `None` also when `long_calls` lets it go on.
    pub fn expiry(&self, caller: &Caller) -> Option<SystemTime> {
        match self.long_calls.on_expiry {
            LongCall::Continue => None,
            LongCall::End => caller.standing.expiry.map(|expiry| expiry.at),
        }
    }

    /// As what a running call of `caller` ends at its expiry.
    pub fn expired(&self, caller: &Caller) -> Failure {
        let expiry = caller.standing.expiry;
        let ended = expiry.map_or_else(|| "has passed".to_owned(), |expiry| format!("was at {}", times::at(expiry.at)));
        let (kind, whose) = match expiry {
            Some(expiry) if expiry.of_api_key => (FailureKind::ApiKeyExpired, "expires_at of the API key's record"),
            _ => (FailureKind::TokenExpired, "exp of the token, with leeway,"),
        };
        of_identity(&caller.identity, Failure::new(kind, format!("{whose} {ended}, while the call was running")))
    }

    /// What is revoked: to be kept up to date by a [`RevocationsWatch`].
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// The key sets behind URLs: `run` of each belongs on the control runtime.
    pub fn key_sets(&self) -> impl Iterator<Item = &Arc<RemoteKeySet>> {
        self.providers.list.iter().filter_map(|provider| provider.remote_keys())
    }

    /// The names of the token providers, `google` included, for metrics labels.
    pub fn provider_names(&self) -> Vec<Arc<str>> {
        self.providers.list.iter().map(|provider| provider.name.clone()).collect()
    }

    /// What a rule's `from` may name: the token providers, `api_keys` and `client_certificates`.
    pub fn credential_names(&self) -> Vec<Arc<str>> {
        let mut names = self.provider_names();
        names.extend([API_KEYS, CLIENT_CERTIFICATES].map(Arc::from));
        names
    }

    /// Which kinds of credentials a call comes with, those of the request verified or not: for its record.
    pub fn presented(&self, request: &HeaderMap, certificate: Option<&PeerCertificate>) -> AuthKind {
        let mut kind = AuthKind::NONE;
        if request.contains_key(AUTHORIZATION) {
            kind = kind.and(AuthKind::JWT);
        }
        if self.api_key_header.as_ref().is_some_and(|header| request.contains_key(header)) {
            kind = kind.and(AuthKind::API_KEY);
        }
        if certificate.is_some_and(|certificate| self.client_certificates.entry_of(certificate).is_some()) {
            kind = kind.and(AuthKind::CLIENT_CERTIFICATE);
        }
        kind
    }

    /// The ids of all API keys, for metrics labels.
    pub fn api_key_ids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.api_keys.records().map(|record| &record.id)
    }

    /// Removes every field that credentials are read from.
    pub fn remove_credentials(&self, headers: &mut HeaderMap) {
        headers.remove(AUTHORIZATION);
        if let Some(header) = &self.api_key_header {
            headers.remove(header);
        }
    }

    /// Everything that is presented must verify; nothing makes up for something that does not.
    async fn verify<W: Witness>(
        &self,
        presented: &Credentials<'_>,
        certificate: Option<&Entry>,
        now: SystemTime,
        witness: &mut W,
    ) -> Result<Verdict, Failure> {
        let record = presented.api_key.map(|key| api_key::verify(&self.api_keys, key, now, witness)).transpose();
        let record = hold(record, witness)?;
        let token = match presented.token.map(|token| std::str::from_utf8(token).expect("visible ASCII")) {
            Some(token) => Some(self.verify_token(token, now, witness).await),
            None => None,
        };
        let token = hold(token.transpose(), witness)?;
        let (record, token) = (record?, token?);
        let (token, validity) = token.map(|VerifiedToken { identity, validity, standing }| ((identity, standing), validity)).unzip();
        let ends = validity.as_ref().and_then(Validity::ends);
        let caller = Arc::new(self.unite(token, ends, certificate, record.as_deref(), witness)?);
        Ok(Verdict { caller, token: validity, api_key: record })
    }

    /// One caller of everything that has verified; `token_ends` is with leeway.
    fn unite<W: Witness>(
        &self,
        token: Option<(Identity, TokenStanding)>,
        token_ends: Option<SystemTime>,
        certificate: Option<&Entry>,
        record: Option<&Record>,
        witness: &mut W,
    ) -> Result<Caller, Failure> {
        let without_token = token.is_none();
        let (identity, standing) = token.unzip();
        let mut identity = identity.unwrap_or_default();
        // Whose client_id wins comes last: the key's, else the certificate's, else the token's.
        if let Some(certificate) = certificate {
            certificate.add_to(&mut identity);
        }
        if let Some(record) = record {
            api_key::add(&mut identity, record, without_token);
        }
        let standing = Standing::new(standing, token_ends, record);
        self.check_revocations(&identity, &standing, witness)?;
        let caller = caller(&self.policy, &self.headers, identity).map_err(|failure| witness.fail(failure))?;
        Ok(Caller { standing, ..caller })
    }

    async fn verify_token<W: Witness>(&self, token: &str, now: SystemTime, witness: &mut W) -> Result<VerifiedToken, Failure> {
        let token = witness.judged(Jws::parse(token), |_| "the token is a signed JWT".to_owned())?;
        let provider = self.providers.of(&token, witness)?;
        provider.verify(&token, unix_seconds(now), witness).await
    }

    fn check_revocations<W: Witness>(&self, identity: &Identity, standing: &Standing, witness: &mut W) -> Result<(), Failure> {
        let revoked = self.revocations.of(standing);
        let passed = witness.check(FailureKind::CredentialsRevoked, revoked.is_none(), || self.revocations.words(standing, revoked));
        passed.map_err(|failure| of_identity(identity, failure))
    }
}

/// With nothing that could end its calls.
fn caller(policy: &Policy, headers: &IdentityHeaders, identity: Identity) -> Result<Caller, Failure> {
    let grants = policy.grants(&identity);
    match headers.render(&identity, &grants) {
        Ok(headers) => Ok(Caller { identity, grants, headers, standing: Standing::default(), rate: OwnBucket::new() }),
        Err(too_large) => Err(of_identity(&identity, Failure::new(FailureKind::TokenClaim, too_large.to_string()))),
    }
}

/// A refusal of somebody who is known.
fn of_identity(identity: &Identity, failure: Failure) -> Failure {
    Failure { provider: identity.provider.clone(), api_key_id: identity.api_key_id.clone(), ..failure }
}

fn load_revocations(config: &config::Authentication, providers: &Providers, api_keys: &ApiKeys, problems: &mut Problems) -> Revocations {
    let Some(file) = &config.revocations else { return Revocations::load(None, Known::default(), problems) };
    for provider in config.jwt.iter().filter(|provider| provider.issuer.is_none()) {
        problems.warning(&provider.at, "its tokens cannot be revoked: they have no iss, by which a revocation knows them");
    }
    let issuers = providers.by_issuer.keys().map(|issuer| google::one_spelling(issuer).to_owned()).collect();
    let known = Known { issuers, api_keys: api_keys.records().map(|record| record.id.clone()).collect() };
    Revocations::load(Some(file), known, problems)
}
