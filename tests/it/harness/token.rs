//! Tokens of every kind, also of those that no library makes.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// What `hmac.secret` of a site holds.
pub const SECRET: &str = "a secret of the tests, longer than the hash of HS512, which has sixty-four bytes";

/// An RSA key of 2048 bits for the whole run.
pub static RSA: LazyLock<RsaKey> = LazyLock::new(|| RsaKey::generate("first"));
/// Another one, which nobody trusts.
pub static OTHER_RSA: LazyLock<RsaKey> = LazyLock::new(|| RsaKey::generate("other"));

pub struct RsaKey {
    pub kid: &'static str,
    pub private_pem: String,
    pub public_pem: String,
    /// As it stands in a key set.
    pub jwk: Value,
}

impl RsaKey {
    /// A new one of 2048 bits.
    pub fn generate(kid: &'static str) -> RsaKey {
        let pair = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let public = pair.public_key();
        let spki: aws_lc_rs::encoding::PublicKeyX509Der<'_> = public.as_der().unwrap();
        let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (n, e) =
            (number(public.modulus().big_endian_without_leading_zero()), number(public.exponent().big_endian_without_leading_zero()));
        RsaKey {
            kid,
            private_pem: pem("PRIVATE KEY", private.as_ref()),
            public_pem: pem("PUBLIC KEY", spki.as_ref()),
            jwk: json!({"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": n, "e": e}),
        }
    }

    /// An RS256 token with this key's `kid`.
    pub fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": "RS256", "typ": "JWT", "kid": self.kid}).to_string(), &claims.to_string())
    }

    /// Signs any header and payload.
    pub fn sign(&self, header: &str, payload: &str) -> String {
        sign(header, payload, &EncodingKey::from_rsa_pem(self.private_pem.as_bytes()).unwrap(), Algorithm::RS256)
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Seconds since 1970.
pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// Claims that the standard configuration accepts (user alice, role viewer), with `changes` laid over; a null removes a claim.
pub fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": "https://issuer.test/", "aud": "users-api", "sub": "alice", "exp": now() + 600, "iat": now() - 1,
        "email": "alice@example.com", "email_verified": true, "name": "Alice", "roles": ["viewer"],
    });
    let whole = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            whole.remove(name);
        } else {
            whole.insert(name.clone(), value.clone());
        }
    }
    claims
}

/// An HS256 token of the standard configuration.
pub fn token(changes: Value) -> String {
    hs256(r#"{"alg":"HS256","typ":"JWT"}"#, &claims(changes).to_string())
}

/// `Bearer` and [`token`].
pub fn bearer(changes: Value) -> String {
    format!("Bearer {}", token(changes))
}

/// Any header and payload, signed with the site's secret.
pub fn hs256(header: &str, payload: &str) -> String {
    sign(header, payload, &EncodingKey::from_secret(SECRET.as_bytes()), Algorithm::HS256)
}

fn sign(header: &str, payload: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), key, algorithm).unwrap();
    format!("{signed}.{signature}")
}
