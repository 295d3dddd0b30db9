//! WHO IS CALLING: the credentials of a request, verified, as an `Identity`.
//!
//! `Authenticator::authenticate` is one authentication from start to finish. What is presented is read in `credentials`;
//! a token is taken apart in `jws` and verified by its `provider` (keys in `jwks` and `remote_key_set`, claims in
//! `claims`); an API key is looked up in the room `api_keys`; a client certificate, which TLS has verified, is matched in
//! `client_certificate`; what verified is kept in `cache`, and refused all the same once `revocations` names it.

mod algorithm;
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
#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, reason = "clippy knows tests by cfg(test) alone")]
#[cfg_attr(fuzzing, allow(dead_code, unused_imports, reason = "the fuzz targets need only some of it"))]
mod testing;
#[cfg(test)]
mod tests;
mod verification_key;
mod weak_keys;

pub use failure::{Failure, FailureKind};
pub use jwks_fetch::FetchOutcome;
pub use remote_key_set::RemoteKeySet;
pub use revocations::{Revocations, Standing};
pub use revocations_watch::RevocationsWatch;

use crate::api_keys::{ApiKeys, Record, Refused};
use crate::authorization::{Grants, Policy};
use crate::config::{self, ClaimPath, LongCall, LongCalls, Mode, Position, Problems};
use crate::identity::Identity;
use crate::identity_headers::{IdentityHeaders, RenderedHeaders};
use crate::telemetry::AuthKind;
use crate::tls::PeerCertificate;
use cache::{Verdict, Verdicts};
use client_certificate::{CLIENT_CERTIFICATES, ClientCertificates, Entry};
use credentials::Credentials;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName};
use jws::Jws;
use provider::{Validity, VerifiedToken};
use providers::Providers;
use revocations::Known;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

/// What `from` and the metrics call an API key.
const API_KEYS: &str = "api_keys";
/// Undefined roles named in the one warning about them.
const NAMED_ROLES: usize = 10;

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
            warn_of_undefined_roles(&api_keys, &policy, &file.at, problems);
        }
        let client_certificates = ClientCertificates::load(&config.client_certificates, |entry, identity| {
            let caller = caller(&policy, &headers, identity);
            if caller.is_err() {
                problems.error(&entry.at, format!("this caller's identity {TOO_LARGE}"));
            }
            caller.ok()
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
            verdicts: Verdicts::new(),
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
    /// never been had, or for the one fetch that an unknown key is worth.
    ///
    /// # Errors
    /// A credential that is present and does not verify, or none where one is needed. The future may be dropped.
    pub async fn authenticate(
        &self,
        request: &HeaderMap,
        certificate: Option<&PeerCertificate>,
        now: SystemTime,
    ) -> Result<Authenticated, Failure> {
        if self.mode == Mode::Disabled {
            return Ok(Authenticated { caller: None, cache: CacheOutcome::Unused });
        }
        let presented = Credentials::read(request, self.api_key_header.as_ref())?;
        let known = certificate.and_then(|certificate| Some((certificate, self.client_certificates.entry_of(certificate)?)));
        let Some(digest) = presented.digest(known.map(|(certificate, _)| &certificate.digest)) else {
            return match (known, self.mode) {
                (Some((_, entry)), _) => Ok(Authenticated { caller: Some(entry.alone.clone()), cache: CacheOutcome::Unused }),
                (None, Mode::Required) => Err(missing(certificate)),
                (None, Mode::Optional | Mode::Disabled) => Ok(Authenticated { caller: None, cache: CacheOutcome::Unused }),
            };
        };
        if let Some(caller) = self.verdicts.caller(&digest, now).filter(|caller| self.revocations.of(&caller.standing).is_none()) {
            return Ok(Authenticated { caller: Some(caller), cache: CacheOutcome::Hit });
        }
        let verdict = self.verify(&presented, known.map(|(_, entry)| entry), now).await?;
        let caller = verdict.caller.clone();
        self.verdicts.keep(digest, verdict);
        Ok(Authenticated { caller: Some(caller), cache: CacheOutcome::Miss })
    }

    /// Why a running call of `caller` has to end now: its credentials are revoked, and `long_calls` does not let it go on.
    pub fn revoked(&self, caller: &Caller) -> Option<Failure> {
        match self.long_calls.on_revocation {
            LongCall::Continue => None,
            LongCall::End => {
                let withdrawn = caller.identity.api_key_id.as_ref().is_some_and(|id| self.withdrawn_api_keys.contains(id));
                let removed = || of_identity(&caller.identity, FailureKind::CredentialsRevoked, "the API key was revoked or removed");
                withdrawn.then(removed).or_else(|| self.check_revocations(&caller.identity, &caller.standing).err())
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
        let (kind, detail) = match caller.standing.expiry {
            Some(expiry) if expiry.of_api_key => (FailureKind::ApiKeyExpired, "the API key expired while the call was running"),
            _ => (FailureKind::TokenExpired, "exp and leeway passed while the call was running"),
        };
        of_identity(&caller.identity, kind, detail)
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
    async fn verify(&self, presented: &Credentials<'_>, certificate: Option<&Entry>, now: SystemTime) -> Result<Verdict, Failure> {
        let record = presented.api_key.map(|key| self.verify_api_key(key, now)).transpose()?;
        let token = match presented.token {
            Some(token) => Some(self.verify_token(token, now).await?),
            None => None,
        };
        let (mut identity, validity, standing) = match token {
            Some(VerifiedToken { identity, validity, standing }) => (identity, Some(validity), Some(standing)),
            None => (Identity::default(), None, None),
        };
        // Whose client_id wins comes last: the key's, else the certificate's, else the token's.
        if let Some(certificate) = certificate {
            certificate.add_to(&mut identity);
        }
        if let Some(record) = &record {
            add_api_key(&mut identity, record, presented.token.is_none());
        }
        let standing = Standing::new(standing, validity.as_ref().and_then(Validity::ends), record.as_deref());
        self.check_revocations(&identity, &standing)?;
        let caller = Arc::new(Caller { standing, ..caller(&self.policy, &self.headers, identity)? });
        Ok(Verdict { caller, token: validity, api_key: record })
    }

    async fn verify_token(&self, token: &str, now: SystemTime) -> Result<VerifiedToken, Failure> {
        let token = Jws::parse(token)?;
        let provider = self.providers.of(&token)?;
        provider.verify(&token, unix_seconds(now)).await
    }

    fn verify_api_key(&self, key: &[u8], now: SystemTime) -> Result<Arc<Record>, Failure> {
        let Some(record) = self.api_keys.find(key) else {
            return Err(Failure::new(FailureKind::ApiKeyUnknown, "no API key has this SHA-256"));
        };
        let (kind, detail) = match record.check(now) {
            Ok(()) => return Ok(record.clone()),
            Err(Refused::Revoked) => (FailureKind::CredentialsRevoked, "the API key is revoked"),
            Err(Refused::Expired) => (FailureKind::ApiKeyExpired, "the API key has expired"),
        };
        Err(Failure { api_key_id: Some(record.id.clone()), ..Failure::new(kind, detail) })
    }

    fn check_revocations(&self, identity: &Identity, standing: &Standing) -> Result<(), Failure> {
        let revoked = self.revocations.of(standing);
        revoked.map_or(Ok(()), |detail| Err(of_identity(identity, FailureKind::CredentialsRevoked, detail)))
    }
}

/// Why a caller can be too much for the upstream.
const TOO_LARGE: &str = "needs more than 4 KiB of headers";

/// With nothing that could end its calls.
fn caller(policy: &Policy, headers: &IdentityHeaders, identity: Identity) -> Result<Caller, Failure> {
    let grants = policy.grants(&identity);
    match headers.render(&identity, &grants) {
        Ok(headers) => Ok(Caller { identity, grants, headers, standing: Standing::default() }),
        Err(_) => Err(of_identity(&identity, FailureKind::TokenClaim, &format!("the identity {TOO_LARGE}"))),
    }
}

/// A refusal of somebody who is known.
fn of_identity(identity: &Identity, kind: FailureKind, detail: &str) -> Failure {
    Failure { provider: identity.provider.clone(), api_key_id: identity.api_key_id.clone(), ..Failure::new(kind, detail) }
}

fn missing(certificate: Option<&PeerCertificate>) -> Failure {
    let detail = match certificate {
        None => "no credential was presented".to_owned(),
        Some(certificate) => {
            let digest = certificate.digest.short();
            format!("no credential was presented but a client certificate, SHA-256 {digest}…, that matches no entry of client_certificates")
        }
    };
    Failure::new(FailureKind::CredentialsMissing, detail)
}

/// The token's user stays the user; the client is the key's; what both may do is united.
fn add_api_key(identity: &mut Identity, record: &Record, without_token: bool) {
    if without_token {
        identity.user_id.clone_from(&record.user_id);
    }
    identity.client_id = Some(record.client_id.clone());
    identity.roles.extend(record.roles.iter().cloned());
    identity.permissions.extend(record.permissions.iter().cloned());
    identity.api_key_id = Some(record.id.clone());
    identity.presented.push(API_KEYS.into());
}

/// Seconds of Unix time as claims count them.
fn unix_seconds(now: SystemTime) -> f64 {
    now.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
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

/// A role without a definition gives nothing; in a key's record that is most likely a slip.
fn warn_of_undefined_roles(api_keys: &ApiKeys, policy: &Policy, at: &Position, problems: &mut Problems) {
    let used: BTreeSet<&Arc<str>> = api_keys.records().flat_map(|record| &record.roles).collect();
    let defined = |role: &Arc<str>| {
        let identity = Identity { roles: vec![role.clone()], ..Identity::default() };
        policy.grants(&identity).roles().contains(role)
    };
    let undefined: Vec<&str> = used.into_iter().filter(|role| !defined(role)).map(|role| &**role).collect();
    if !undefined.is_empty() {
        let named = undefined.iter().take(NAMED_ROLES).copied().collect::<Vec<_>>().join(", ");
        let rest = if undefined.len() > NAMED_ROLES { " and more" } else { "" };
        problems.warning(at, format!("API keys have roles that authorization.roles does not define: {named}{rest}"));
    }
}
