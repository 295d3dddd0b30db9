//! Keys, tokens and configurations for the tests of this room.

use crate::authorization::Policy;
use crate::config::{
    self, Algorithm, Allowed, ApiKeys, Authentication, CertificateName, ClaimNames, ClaimPath, ClientCertificate, InputFile, JwtProvider,
    KeySource, Mode, Position, Trust,
};
use crate::identity_headers::IdentityHeaders;
use crate::secret::Secret;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderName;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::jwk::Jwk;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

pub(super) const NOW: u64 = 1_700_000_000;
pub(super) const ISSUER: &str = "https://auth.example.com/";
pub(super) const SECRET: &[u8] = b"a secret that is exactly sixty-four bytes long, for HS512, really";

macro_rules! key_file {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/keys/", $name)).as_slice()
    };
}
pub(super) use key_file;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Rsa,
    OtherRsa,
    P256,
    P384,
    Ed25519,
    Shared,
}

impl Key {
    pub(super) fn encoding(self) -> EncodingKey {
        match self {
            Key::Rsa => EncodingKey::from_rsa_pem(key_file!("rsa.pem")).unwrap(),
            Key::OtherRsa => EncodingKey::from_rsa_pem(key_file!("rsa-other.pem")).unwrap(),
            Key::P256 => EncodingKey::from_ec_pem(key_file!("p256.pem")).unwrap(),
            Key::P384 => EncodingKey::from_ec_pem(key_file!("p384.pem")).unwrap(),
            Key::Ed25519 => EncodingKey::from_ed_pem(key_file!("ed25519.pem")).unwrap(),
            Key::Shared => EncodingKey::from_secret(SECRET),
        }
    }

    /// The public JWK with `members` added.
    pub(super) fn jwk(self, members: Value) -> Value {
        let algorithm = match self {
            Key::Rsa | Key::OtherRsa => jsonwebtoken::Algorithm::RS256,
            Key::P256 => jsonwebtoken::Algorithm::ES256,
            Key::P384 => jsonwebtoken::Algorithm::ES384,
            Key::Ed25519 => jsonwebtoken::Algorithm::EdDSA,
            Key::Shared => jsonwebtoken::Algorithm::HS256,
        };
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.encoding(), algorithm).unwrap()).unwrap();
        jwk.as_object_mut().unwrap().remove("alg");
        merge(&mut jwk, members);
        jwk
    }
}

/// Sets the members of `changes` in `target`; null removes.
pub(super) fn merge(target: &mut Value, changes: Value) {
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(name);
        } else {
            target[name] = value.clone();
        }
    }
}

pub(super) fn set(keys: &[Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

/// A token over exactly these texts, signed with `key` as `algorithm`.
pub(super) fn sign_raw(header: &str, claims: &str, key: Key, algorithm: jsonwebtoken::Algorithm) -> String {
    sign_text(&format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims)), &key.encoding(), algorithm)
}

/// A token over exactly this text, encoded or not.
pub(super) fn sign_text(signed: &str, key: &EncodingKey, algorithm: jsonwebtoken::Algorithm) -> String {
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), key, algorithm).unwrap();
    format!("{signed}.{signature}")
}

/// A good token of the provider below, with `header` and `claims` changed.
pub(super) fn token(header: Value, claims: Value) -> String {
    token_by(Key::Rsa, jsonwebtoken::Algorithm::RS256, header, claims)
}

pub(super) fn token_by(key: Key, algorithm: jsonwebtoken::Algorithm, header: Value, claims: Value) -> String {
    let mut whole_header = json!({ "alg": algorithm, "typ": "JWT", "kid": "rsa" });
    merge(&mut whole_header, header);
    let mut whole_claims = json!({
        "iss": ISSUER, "aud": "users-api", "sub": "alice", "iat": NOW - 60, "nbf": NOW - 60, "exp": NOW + 600,
        "email": "alice@example.com", "email_verified": true, "name": "Alice", "roles": ["viewer", "admin"],
    });
    merge(&mut whole_claims, claims);
    sign_raw(&whole_header.to_string(), &whole_claims.to_string(), key, algorithm)
}

pub(super) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

pub(super) fn path(name: &str) -> ClaimPath {
    ClaimPath(name.to_owned())
}

pub(super) fn file(content: &[u8]) -> InputFile {
    InputFile { at: Position::default(), path: "some-file".into(), content: Secret::new(content.to_vec()) }
}

/// A provider whose one key is `Key::Rsa`, from a JWKS file, and that trusts everything a token says.
pub(super) fn provider() -> JwtProvider {
    JwtProvider {
        name: "corporate".to_owned(),
        issuer: Some(ISSUER.to_owned()),
        audiences: vec!["users-api".to_owned()],
        insecure_no_audience: false,
        algorithms: vec![Algorithm::RS256],
        keys: KeySource::JwksFile(file(&set(&[Key::Rsa.jwk(json!({ "kid": "rsa" }))]))),
        readiness_required: true,
        leeway: Duration::from_secs(30),
        token_types: Vec::new(),
        max_lifetime: None,
        required_claims: Vec::new(),
        claims: ClaimNames {
            user_id: path("sub"),
            email: path("email"),
            email_at: None,
            name: path("name"),
            roles: path("roles"),
            client_id: None,
            permissions: None,
        },
        trust: Trust { roles: Allowed::Any, email_domains: Allowed::Any, unverified_email: false, user_id_prefix: String::new() },
        at: Position::default(),
    }
}

pub(super) fn authentication(jwt: Vec<JwtProvider>) -> Authentication {
    Authentication {
        mode: Mode::Required,
        public_methods: Vec::new(),
        insecure_audit: false,
        jwt,
        google: None,
        api_keys: None,
        client_certificates: Vec::new(),
        revocations: None,
        long_calls: config::LongCalls::default(),
        memory: None,
    }
}

/// Roles `viewer` and `batch`, and no rules.
pub(super) fn policy() -> Policy {
    let role = |name: &str| config::Role { name: name.to_owned(), permissions: Vec::new(), at: Position::default() };
    let authorization = config::Authorization {
        default: config::DefaultRule::Deny,
        roles: vec![role("viewer"), role("batch")],
        users: Vec::new(),
        clients: Vec::new(),
        methods: Vec::new(),
        audit: false,
    };
    Policy::compile(&authorization, Mode::Required, &[])
}

pub(super) fn identity_headers() -> IdentityHeaders {
    IdentityHeaders::compile(&config::IdentityHeaders { user_id: Some(HeaderName::from_static("user_id")), ..no_headers() })
}

pub(super) fn no_headers() -> config::IdentityHeaders {
    config::IdentityHeaders {
        user_id: None,
        user_email: None,
        user_name: None,
        client_id: None,
        roles: None,
        permissions: None,
        api_key_id: None,
        provider: None,
        claims: Vec::new(),
    }
}

pub(super) fn api_keys(records: &str) -> ApiKeys {
    ApiKeys { header: HeaderName::from_static("x-api-key"), file: Some(file(records.as_bytes())), development_key: None }
}

pub(super) fn client_certificate(name: CertificateName, client_id: &str, roles: &[&str]) -> ClientCertificate {
    let roles = roles.iter().map(|role| (*role).to_owned()).collect();
    ClientCertificate { name, client_id: client_id.to_owned(), roles, at: Position::default() }
}

pub(super) fn remote_keys(url: &str) -> config::RemoteKeys {
    config::RemoteKeys {
        location: config::KeyLocation::Jwks(config::HttpsUrl(url.to_owned())),
        ca: None,
        bearer_file: None,
        refresh: Duration::from_secs(600),
        cooldown: Duration::from_secs(30),
        max_stale: Duration::from_secs(86_400),
        timeout: Duration::from_secs(5),
        at: Position::default(),
    }
}
