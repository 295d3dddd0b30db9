//! One provider of tokens: its keys, its algorithms, its checks, in the order that tells an attacker least.

use super::algorithm;
use super::claims::{Claims, Rules};
use super::failure::{Failure, FailureKind};
use super::google::{self, Accounts};
use super::jwks::{KeySet, Symmetric, Unusable};
use super::jws::Jws;
use super::remote_key_set::RemoteKeySet;
use super::revocations::TokenStanding;
use super::times::passed;
use super::verification_key::VerificationKey;
use super::witness::{Witness, hold};
use crate::config::{self, Algorithm, Google, InputFile, JwtProvider, KeySource, Problems};
use crate::identity::Identity;
use crate::quote;
use crate::secret::Digest;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// A provider of the configuration, or Google.
#[derive(Debug)]
pub(super) struct Provider {
    pub(super) name: Arc<str>,
    algorithms: Vec<Algorithm>,
    keys: Keys,
    pub(super) rules: Rules,
    google: Option<Accounts>,
}

#[derive(Debug)]
enum Keys {
    Fixed(Arc<KeySet>),
    Remote(Arc<RemoteKeySet>),
}

/// A verified token.
#[derive(Debug)]
pub(super) struct VerifiedToken {
    pub(super) identity: Identity,
    pub(super) validity: Validity,
    pub(super) standing: TokenStanding,
}

/// What a verdict about a token rests on, asked again whenever it is taken from the cache.
#[derive(Debug)]
pub(super) struct Validity {
    provider: Arc<Provider>,
    /// Seconds of Unix time, with leeway.
    until: f64,
    algorithm: Algorithm,
    key: Digest,
    /// The key set in which the key was last seen.
    seen_in: AtomicU64,
}

impl Provider {
    /// `None` after an error in `problems`.
    pub(super) fn load(config: &JwtProvider, forwarded: &Arc<[Arc<str>]>, problems: &mut Problems) -> Option<Provider> {
        let name: Arc<str> = config.name.as_str().into();
        let keys = match &config.keys {
            KeySource::Remote(remote) => {
                let set = RemoteKeySet::new(name.clone(), remote, config.issuer.clone(), &config.algorithms, config.readiness_required);
                Keys::Remote(Arc::new(set))
            }
            KeySource::JwksFile(file) => Keys::Fixed(Arc::new(jwks_file(file, &config.algorithms, problems)?)),
            KeySource::PublicKeyFile(file) => {
                let at = &file.at;
                let key = VerificationKey::pem(file.content.expose());
                let key = key.map_err(|reason| problems.error(at, format!("{}: {reason}", file.path.display()))).ok()?;
                Keys::Fixed(Arc::new(single(key, config, at, problems)?))
            }
            KeySource::Secret { at, secret } => {
                let key = VerificationKey::secret(secret.expose()).map_err(|reason| problems.error(at, reason)).ok()?;
                Keys::Fixed(Arc::new(single(key, config, at, problems)?))
            }
        };
        let rules = Rules {
            audiences: config.audiences.clone(),
            insecure_no_audience: config.insecure_no_audience,
            leeway: config.leeway,
            token_types: config.token_types.clone(),
            max_lifetime: config.max_lifetime,
            issued_at_required: false,
            required_claims: config.required_claims.clone(),
            names: config.claims.clone(),
            trust: config.trust.clone(),
            forwarded: forwarded.clone(),
        };
        Some(Provider { name, algorithms: config.algorithms.clone(), keys, rules, google: None })
    }

    /// Google.
    pub(super) fn google(config: &Google, forwarded: &Arc<[Arc<str>]>) -> Provider {
        let name: Arc<str> = google::NAME.into();
        let issuer = google::ISSUERS.first().map(|issuer| (*issuer).to_owned());
        let set = RemoteKeySet::new(name.clone(), &config.keys, issuer, &google::ALGORITHMS, true);
        Provider {
            name,
            algorithms: google::ALGORITHMS.to_vec(),
            keys: Keys::Remote(Arc::new(set)),
            rules: google::rules(config, forwarded.clone()),
            google: Some(Accounts::new(config)),
        }
    }

    pub(super) fn remote_keys(&self) -> Option<&Arc<RemoteKeySet>> {
        match &self.keys {
            Keys::Fixed(_) => None,
            Keys::Remote(set) => Some(set),
        }
    }

    /// Algorithm, key, signature, and only then claims: who cannot sign learns nothing about what is asked of claims.
    pub(super) async fn verify<W: Witness>(self: &Arc<Self>, token: &Jws<'_>, now: f64, witness: &mut W) -> Result<VerifiedToken, Failure> {
        self.verify_token(token, now, witness).await.map_err(|failure| failure.of_provider(&self.name))
    }

    async fn verify_token<W: Witness>(self: &Arc<Self>, token: &Jws<'_>, now: f64, witness: &mut W) -> Result<VerifiedToken, Failure> {
        let signed = hold(self.check_signature(token, witness).await, witness)?;
        let until = hold(self.rules.check(token.token_type.as_deref(), &token.claims, now, witness), witness)?;
        let identity = hold(self.identity(&token.claims, witness), witness)?;
        let (signed, until, identity) = (signed?, until?, identity?);
        let standing = self.rules.standing(&token.claims)?;
        let seen_in = AtomicU64::new(signed.seen_in);
        let validity = Validity { provider: self.clone(), until, algorithm: signed.algorithm, key: signed.key, seen_in };
        Ok(VerifiedToken { identity, validity, standing })
    }

    async fn check_signature<W: Witness>(&self, token: &Jws<'_>, witness: &mut W) -> Result<Signed, Failure> {
        let id = token.key_id.as_deref();
        let algorithm = algorithm::by_name(&token.algorithm).filter(|algorithm| self.algorithms.contains(algorithm));
        let algorithm = witness.found(FailureKind::TokenAlgorithm, algorithm, |_| {
            format!("alg is {}, expected one of {}", quote::text(&token.algorithm), algorithm::names(&self.algorithms))
        })?;
        let keys = self.keys_for(id, algorithm, witness).await?;
        let mut candidates = keys.candidates(algorithm, id).peekable();
        let words = || keys.words(algorithm, id, &self.keys_origin());
        witness.check(FailureKind::TokenKeyUnknown, candidates.peek().is_some(), words)?;
        let key = candidates.find(|key| key.verify(algorithm, token.signed, &token.signature));
        let key = witness.found(FailureKind::TokenSignature, key, |key| match key {
            Some(key) => format!("the signature verifies with {key}"),
            None => {
                format!("the signature does not verify with any of the keys it may be of: {}", quote::list(keys.candidates(algorithm, id)))
            }
        })?;
        Ok(Signed { algorithm, key: key.thumbprint(), seen_in: keys.version() })
    }

    async fn keys_for<W: Witness>(&self, id: Option<&str>, algorithm: Algorithm, witness: &mut W) -> Result<Arc<KeySet>, Failure> {
        match &self.keys {
            Keys::Fixed(keys) => Ok(keys.clone()),
            Keys::Remote(set) => {
                let keys = set.keys(|keys| keys.candidates(algorithm, id).next().is_some()).await;
                keys.map_err(|_| witness.fail(Failure::new(FailureKind::KeysUnavailable, set.why_unavailable())))
            }
        }
    }

    fn keys_origin(&self) -> String {
        match &self.keys {
            Keys::Fixed(_) => "of the configuration".to_owned(),
            Keys::Remote(set) => format!("of the set fetched {} ago", passed(set.age().unwrap_or_default())),
        }
    }

    /// Who the claims say the caller is.
    pub(super) fn identity<W: Witness>(&self, claims: &Claims, witness: &mut W) -> Result<Identity, Failure> {
        let identity = self.rules.identity(&self.name, claims, witness)?;
        if let Some(accounts) = &self.google {
            accounts.check(claims, identity.user_email.as_deref(), witness)?;
        }
        Ok(identity)
    }
}

/// What a signature was verified with.
struct Signed {
    algorithm: Algorithm,
    key: Digest,
    seen_in: u64,
}

impl Validity {
    /// Whether the verdict still holds: the token has not expired and its key has not been withdrawn.
    pub(super) fn holds_at(&self, now: f64) -> bool {
        now < self.until && self.key_is_current()
    }

    /// When the token expires, with leeway; `None` when that is farther than a clock can tell.
    pub(super) fn ends(&self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(self.until).ok()?)
    }

    fn key_is_current(&self) -> bool {
        let Keys::Remote(set) = &self.provider.keys else { return true };
        let seen_in = self.seen_in.load(Ordering::Relaxed);
        set.with_current(|keys| {
            let current = keys.version() == seen_in || keys.holds(self.key, self.algorithm);
            if current {
                self.seen_in.store(keys.version(), Ordering::Relaxed);
            }
            current
        })
    }
}

fn jwks_file(file: &InputFile, algorithms: &[Algorithm], problems: &mut Problems) -> Option<KeySet> {
    let path = file.path.display();
    match KeySet::parse(file.content.expose(), Symmetric::Accepted, algorithms) {
        Ok((keys, left_out)) => {
            for reason in left_out {
                problems.warning(&file.at, format!("{path}: {reason}"));
            }
            Some(keys)
        }
        Err(Unusable::Malformed) => {
            problems.error(&file.at, format!("{path}: not a JWK set: expected JSON with a list `keys`"));
            None
        }
        Err(Unusable::NoKey(reasons)) => {
            problems.error(&file.at, format!("{path}: no usable key: {}", reasons.join("; ")));
            None
        }
    }
}

/// A key of a file must serve every listed algorithm of its kind, and at least one.
fn single(key: VerificationKey, config: &JwtProvider, at: &config::Position, problems: &mut Problems) -> Option<KeySet> {
    use Algorithm::{HS256, HS384, HS512};
    let unfit = |algorithm: &&Algorithm| !key.fits(**algorithm);
    let is_hs = |algorithm: &&Algorithm| matches!(algorithm, HS256 | HS384 | HS512);
    if config.algorithms.iter().all(|algorithm| !key.fits(*algorithm)) {
        problems.error(at, format!("the key fits none of the algorithms {}", algorithm::names(&config.algorithms)));
        return None;
    }
    if let Some(algorithm) = config.algorithms.iter().filter(is_hs).find(unfit) {
        problems.error(at, format!("the key cannot be used with {}: a secret must be as long as the hash", algorithm::name(*algorithm)));
        return None;
    }
    Some(KeySet::single(key))
}
