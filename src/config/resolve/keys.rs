//! Where a provider's keys come from: exactly one source, and only the options and algorithms that go with it.

use crate::config::files::Content;
use crate::config::section::{Field, Section};
use crate::config::values::{A_URL, https_url};
use crate::config::{Algorithm, HttpsUrl, InputFile, KeyLocation, KeySource, Position, RemoteKeys};
use crate::secret::Secret;
use std::time::Duration;

const SOURCES: &str = "one of jwks_url, discovery: true, jwks_file, public_key_file, secret_file, secret_env";
/// Where HS algorithms have their secrets from.
const SECRETS: &str = "secret_file, secret_env or a jwks_file";
const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    JwksUrl,
    Discovery,
    JwksFile,
    PublicKeyFile,
    SecretFile,
    SecretEnv,
}

/// The keys of one `jwt` entry. `issuer` is where discovery begins.
pub(super) fn key_source(
    item: &Field,
    section: &mut Section,
    issuer: Option<&str>,
    algorithms: &[(Algorithm, Field)],
) -> Option<KeySource> {
    let candidates = [
        (Kind::JwksUrl, section.field("jwks_url").hiding_userinfo()),
        (Kind::Discovery, section.field("discovery")),
        (Kind::JwksFile, section.field("jwks_file")),
        (Kind::PublicKeyFile, section.field("public_key_file")),
        (Kind::SecretFile, section.field("secret_file")),
        (Kind::SecretEnv, section.field("secret_env")),
    ];
    let remote = RemoteOptions::of(section);
    // `discovery: false` is the same as none; what is no boolean at all was meant as a source.
    let mut chosen =
        candidates.iter().filter(|(kind, field)| field.is_set() && (*kind != Kind::Discovery || field.boolean().unwrap_or(true)));
    let Some((kind, source)) = chosen.next() else {
        item.error(format!("the source of its keys is missing; expected {SOURCES}"));
        return None;
    };
    for (_, other) in chosen {
        other.error(format!("found a second source of keys beside {}, expected {SOURCES}", source.path()));
    }
    check_algorithms(algorithms, *kind);
    if !matches!(kind, Kind::JwksUrl | Kind::Discovery) {
        remote.refuse(source);
    }
    match kind {
        Kind::JwksUrl => {
            let location = source.parse(A_URL, https_url).map(KeyLocation::Jwks);
            remote.read(location, source.position()).map(KeySource::Remote)
        }
        Kind::Discovery => {
            let location = discovery_url(source, issuer).map(KeyLocation::Discovery);
            remote.read(location, source.position()).map(KeySource::Remote)
        }
        Kind::JwksFile => source.input_file(Content::KeySet).map(KeySource::JwksFile),
        Kind::PublicKeyFile => source.input_file(Content::Public).map(KeySource::PublicKeyFile),
        Kind::SecretFile => source.secret_file().map(|secret| shared_secret(source, secret, algorithms)),
        Kind::SecretEnv => environment(source).map(|secret| shared_secret(source, secret, algorithms)),
    }
}

/// A key set at `location`, fetched as by default.
pub(super) fn default_remote(location: KeyLocation, ca: Option<InputFile>, at: Position) -> RemoteKeys {
    RemoteKeys {
        location,
        ca,
        bearer_file: None,
        refresh: Duration::from_secs(600),
        cooldown: Duration::from_secs(30),
        max_stale: Duration::from_secs(24 * 3600),
        timeout: Duration::from_secs(5),
        at,
    }
}

/// OpenID Connect Discovery 1.0 §4: one final slash of the issuer is not doubled.
fn discovery_url(discovery: &Field, issuer: Option<&str>) -> Option<HttpsUrl> {
    let Some(issuer) = issuer else {
        discovery.error("discovery begins at the issuer; without issuer name jwks_url");
        return None;
    };
    if let Err(reason) = https_url(issuer) {
        let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        discovery.error(format!("discovery needs an issuer that is {A_URL}{reason}"));
        return None;
    }
    https_url(&format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer))).ok()
}

/// A secret must never come from where others read it, and a public key never be taken for one.
fn check_algorithms(algorithms: &[(Algorithm, Field)], kind: Kind) {
    for (algorithm, field) in algorithms {
        match (hmac_bytes(*algorithm), kind) {
            (Some(_), Kind::JwksUrl | Kind::Discovery) => {
                field.error(format!("found {algorithm:?} beside keys that are published, expected it only with {SECRETS}"))
            }
            (Some(_), Kind::PublicKeyFile) => {
                field.error(format!("found {algorithm:?} beside a public key, expected it only with {SECRETS}"))
            }
            (None, Kind::SecretFile | Kind::SecretEnv) => {
                field.error(format!("found {algorithm:?} beside a shared secret, expected only HS256, HS384 or HS512 with it"))
            }
            _ => {}
        }
    }
}

/// The size of an HMAC algorithm's hash, below which its secret is weak (RFC 7518 §3.2); `None` for signatures.
fn hmac_bytes(algorithm: Algorithm) -> Option<usize> {
    match algorithm {
        Algorithm::HS256 => Some(32),
        Algorithm::HS384 => Some(48),
        Algorithm::HS512 => Some(64),
        Algorithm::RS256
        | Algorithm::RS384
        | Algorithm::RS512
        | Algorithm::PS256
        | Algorithm::PS384
        | Algorithm::PS512
        | Algorithm::ES256
        | Algorithm::ES384
        | Algorithm::EdDSA => None,
    }
}

/// A secret that could not be had has been reported and is empty.
fn shared_secret(source: &Field, secret: Secret, algorithms: &[(Algorithm, Field)]) -> KeySource {
    let length = secret.expose().len();
    for (algorithm, _) in algorithms {
        if let Some(least) = hmac_bytes(*algorithm).filter(|least| length > 0 && length < *least) {
            source.error(format!("the secret is too short for {algorithm:?}, expected at least {least} bytes"));
        }
    }
    KeySource::Secret { at: source.position(), secret }
}

fn environment(field: &Field) -> Option<Secret> {
    let name = field.parse("the name of an environment variable", |text| {
        let is_name =
            text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !text.bytes().next().is_none_or(|b| b.is_ascii_digit());
        if is_name { Ok(text) } else { Err("not the secret itself") }
    })?;
    let value = (field.reader.env)(name).unwrap_or_default();
    if value.is_empty() {
        field.error(format!("the environment variable {name} is not set or empty"));
    }
    Some(Secret::new(value.into_encoded_bytes()))
}

/// The keys that only a fetched set has.
struct RemoteOptions<'a> {
    ca: Field<'a>,
    bearer_file: Field<'a>,
    refresh: Field<'a>,
    cooldown: Field<'a>,
    max_stale: Field<'a>,
    timeout: Field<'a>,
}

impl<'a> RemoteOptions<'a> {
    fn of(section: &mut Section<'a>) -> RemoteOptions<'a> {
        RemoteOptions {
            ca: section.field("jwks_ca"),
            bearer_file: section.field("jwks_bearer_file"),
            refresh: section.field("refresh"),
            cooldown: section.field("cooldown"),
            max_stale: section.field("max_stale"),
            timeout: section.field("timeout"),
        }
    }

    fn refuse(&self, source: &Field) {
        for field in [&self.ca, &self.bearer_file, &self.refresh, &self.cooldown, &self.max_stale, &self.timeout] {
            if field.is_set() {
                field.error(format!("only for keys that are fetched (jwks_url, discovery), not beside {}", source.path()));
            }
        }
    }

    fn read(&self, location: Option<KeyLocation>, at: Position) -> Option<RemoteKeys> {
        let ca = self.ca.input_file(Content::Public);
        // Read at each fetch again; now only to see that it can be.
        let bearer_file = self.bearer_file.followed_file(Content::Secret).map(|file| file.path);
        let refresh = self.refresh.duration(SECOND);
        let cooldown = self.cooldown.duration(SECOND);
        let max_stale = self.max_stale.duration(SECOND);
        let timeout = self.timeout.duration(Duration::from_millis(1));
        let default = default_remote(location?, ca, at);
        let keys = RemoteKeys {
            bearer_file,
            refresh: refresh.unwrap_or(default.refresh),
            cooldown: cooldown.unwrap_or(default.cooldown),
            max_stale: max_stale.unwrap_or(default.max_stale),
            timeout: timeout.unwrap_or(default.timeout),
            ..default
        };
        if keys.max_stale <= keys.cooldown {
            let field = if self.max_stale.is_set() { &self.max_stale } else { &self.cooldown };
            field.warning(format!(
                "keys are given up {:?} after their fetch, and the next may come only {:?} after it: in between no token of this provider can be checked",
                keys.max_stale, keys.cooldown
            ));
        }
        Some(keys)
    }
}
