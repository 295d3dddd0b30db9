//! One key that can verify signatures: strong, well-formed, and bound to the algorithms of its kind.
//!
//! It is made ready once: parsing an RSA key anew for each token costs half as much again as the verification.

use super::algorithm;
use super::weak_keys;
use crate::config::Algorithm;
use crate::quote;
use crate::secret::Digest;
use aws_lc_rs::hmac::{self, HMAC_SHA256, HMAC_SHA384, HMAC_SHA512};
use aws_lc_rs::rsa::PublicKey;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    RsaPublicKeyComponents,
};
use jsonwebtoken::DecodingKey;
use std::fmt;

/// A key of a provider.
#[derive(Debug)]
pub(super) struct VerificationKey {
    /// `kid`, where the key comes from a set.
    pub(super) id: Option<String>,
    /// For operators.
    kind: &'static str,
    /// Every algorithm of the key's kind.
    verifiers: Vec<(Algorithm, Verifier)>,
    /// The key's own `alg`: it verifies nothing else.
    bound_to: Option<Algorithm>,
    thumbprint: Digest,
}

/// A key ready for one algorithm.
#[derive(Debug)]
enum Verifier {
    Signature(ParsedPublicKey),
    Hmac(Box<hmac::Key>),
}

/// The algorithms of an RSA key.
static RSA: [(Algorithm, &RsaParameters); 6] = [
    (Algorithm::RS256, &RSA_PKCS1_2048_8192_SHA256),
    (Algorithm::RS384, &RSA_PKCS1_2048_8192_SHA384),
    (Algorithm::RS512, &RSA_PKCS1_2048_8192_SHA512),
    (Algorithm::PS256, &RSA_PSS_2048_8192_SHA256),
    (Algorithm::PS384, &RSA_PSS_2048_8192_SHA384),
    (Algorithm::PS512, &RSA_PSS_2048_8192_SHA512),
];

/// The algorithms of a secret, and the bytes it needs for each: not fewer than the hash has (RFC 7518 §3.2).
static HMAC: [(Algorithm, hmac::Algorithm, usize); 3] =
    [(Algorithm::HS256, HMAC_SHA256, 32), (Algorithm::HS384, HMAC_SHA384, 48), (Algorithm::HS512, HMAC_SHA512, 64)];

impl VerificationKey {
    /// From modulus and exponent, big-endian (RFC 7518 §6.3.1).
    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<VerificationKey, &'static str> {
        let (modulus, exponent) = (without_leading_zeros(modulus), without_leading_zeros(exponent));
        weak_keys::rsa(modulus, exponent)?;
        let key = RsaPublicKeyComponents { n: modulus, e: exponent };
        let ready = |(algorithm, parameters): &(Algorithm, &'static RsaParameters)| {
            let parsed = key.to_parsed_public_key(parameters).map_err(|_| "not an RSA key")?;
            Ok((*algorithm, Verifier::Signature(parsed)))
        };
        let verifiers = RSA.iter().map(ready).collect::<Result<_, &'static str>>()?;
        Ok(VerificationKey::new("RSA", verifiers, Digest::of_parts(&[b"RSA", &modulus.len().to_be_bytes(), modulus, exponent])))
    }

    /// From an uncompressed point (SEC 1 §2.3.3), whose length tells the curve.
    pub(super) fn ec(point: &[u8]) -> Result<VerificationKey, &'static str> {
        let (kind, algorithm, parsed) = match point.len() {
            65 => ("P-256", Algorithm::ES256, ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)),
            97 => ("P-384", Algorithm::ES384, ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point)),
            _ => return Err("an elliptic-curve key that is neither P-256 nor P-384"),
        };
        let parsed = parsed.map_err(|_| "not a point of its curve")?;
        Ok(VerificationKey::new(kind, vec![(algorithm, Verifier::Signature(parsed))], Digest::of_parts(&[b"EC", point])))
    }

    /// From the 32 bytes of a public key (RFC 8032 §5.1.5).
    pub(super) fn ed25519(point: &[u8]) -> Result<VerificationKey, &'static str> {
        let point: &[u8; 32] = point.try_into().map_err(|_| "an Ed25519 key that is not 32 bytes long")?;
        weak_keys::ed25519(point)?;
        let parsed = ParsedPublicKey::new(&ED25519, point).map_err(|_| "not a point of Ed25519")?;
        Ok(VerificationKey::new("Ed25519", vec![(Algorithm::EdDSA, Verifier::Signature(parsed))], Digest::of_parts(&[b"Ed25519", point])))
    }

    /// From a shared secret. It verifies only algorithms whose hash is not longer (RFC 7518 §3.2).
    pub(super) fn secret(secret: &[u8]) -> Result<VerificationKey, &'static str> {
        if secret.len() < 32 {
            return Err("a secret shorter than the hash of any HS algorithm (32 bytes)");
        }
        let long_enough = HMAC.iter().filter(|(.., needed)| secret.len() >= *needed);
        let verifiers =
            long_enough.map(|(algorithm, hash, _)| (*algorithm, Verifier::Hmac(Box::new(hmac::Key::new(*hash, secret))))).collect();
        Ok(VerificationKey::new("secret", verifiers, Digest::of_parts(&[b"secret", secret])))
    }

    /// From one PEM public key: `PUBLIC KEY` (RFC 5280) or `RSA PUBLIC KEY` (RFC 8017).
    pub(super) fn pem(pem: &[u8]) -> Result<VerificationKey, &'static str> {
        let text = std::str::from_utf8(pem).map_err(|_| "not PEM")?;
        // Certificates and private keys would be taken for public keys by what parses below.
        let mut labels = text.match_indices("-----BEGIN ").map(|(at, begin)| text.split_at(at + begin.len()).1);
        let Some(label) = labels.next() else { return Err("not PEM") };
        if labels.next().is_some() || !(label.starts_with("PUBLIC KEY-----") || label.starts_with("RSA PUBLIC KEY-----")) {
            return Err("not exactly one PEM public key");
        }
        const UNREADABLE: &str = "not a PEM public key that can be read";
        if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
            let der = key.try_get_as_bytes().map_err(|_| UNREADABLE)?;
            let key = PublicKey::from_der(der).map_err(|_| "an RSA key that is malformed or not of 2048 to 8192 bits")?;
            let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(&key);
            return VerificationKey::rsa(&n, &e);
        }
        if let Ok(key) = DecodingKey::from_ec_pem(pem) {
            return VerificationKey::ec(key.try_get_as_bytes().map_err(|_| UNREADABLE)?);
        }
        let key = DecodingKey::from_ed_pem(pem).map_err(|_| UNREADABLE)?;
        VerificationKey::ed25519(key.try_get_as_bytes().map_err(|_| UNREADABLE)?)
    }

    fn new(kind: &'static str, verifiers: Vec<(Algorithm, Verifier)>, thumbprint: Digest) -> VerificationKey {
        VerificationKey { id: None, kind, verifiers, bound_to: None, thumbprint }
    }

    /// The key with the `kid` and `alg` of its set.
    pub(super) fn named(self, id: Option<String>, bound_to: Option<Algorithm>) -> VerificationKey {
        VerificationKey { id, bound_to, ..self }
    }

    /// Whether the key may verify signatures of `algorithm`.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        self.verifier(algorithm).is_some()
    }

    /// Whether `signature` over `signed` is this key's. A key has verifiers of its own kind only, so nobody can verify RS256
    /// with what is somebody's public key as an HMAC secret.
    pub(super) fn verify(&self, algorithm: Algorithm, signed: &str, signature: &[u8]) -> bool {
        match self.verifier(algorithm) {
            Some(Verifier::Signature(key)) => key.verify_sig(signed.as_bytes(), signature).is_ok(),
            Some(Verifier::Hmac(key)) => hmac::verify(key, signed.as_bytes(), signature).is_ok(),
            None => false,
        }
    }

    fn verifier(&self, algorithm: Algorithm) -> Option<&Verifier> {
        if self.bound_to.is_some_and(|bound| bound != algorithm) {
            return None;
        }
        self.verifiers.iter().find(|(of, _)| *of == algorithm).map(|(_, verifier)| verifier)
    }

    /// The key material's digest: the same in every set that holds the key.
    pub(super) fn thumbprint(&self) -> Digest {
        self.thumbprint
    }
}

/// For operators: `kid`, kind and the algorithm it is bound to; nothing of the key itself.
impl fmt::Display for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.id.as_ref().map_or_else(|| "one without kid".to_owned(), |id| quote::text(id));
        let bound_to = self.bound_to.map(|bound| format!(", {} only", algorithm::name(bound))).unwrap_or_default();
        write!(f, "{id} ({}{bound_to})", self.kind)
    }
}

fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.split_at(zeros).1
}
