//! One key that can verify signatures: strong, well-formed, and bound to the algorithms of its kind.

use super::algorithm;
use super::weak_keys;
use crate::config::Algorithm;
use crate::quote;
use crate::secret::Digest;
use aws_lc_rs::rsa::PublicKey;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ParsedPublicKey, RsaPublicKeyComponents};
use jsonwebtoken::DecodingKey;
use std::fmt;

/// A key of a provider.
#[derive(Debug)]
pub(super) struct VerificationKey {
    /// `kid`, where the key comes from a set.
    pub(super) id: Option<String>,
    kind: Kind,
    /// The key's own `alg`: it verifies nothing else.
    bound_to: Option<Algorithm>,
    decoding: DecodingKey,
    thumbprint: Digest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
    Secret { bytes: usize },
}

impl VerificationKey {
    /// From modulus and exponent, big-endian (RFC 7518 §6.3.1).
    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<VerificationKey, &'static str> {
        let (modulus, exponent) = (without_leading_zeros(modulus), without_leading_zeros(exponent));
        weak_keys::rsa(modulus, exponent)?;
        let thumbprint = Digest::of_parts(&[b"RSA", &modulus.len().to_be_bytes(), modulus, exponent]);
        Ok(VerificationKey::new(Kind::Rsa, DecodingKey::from_rsa_raw_components(modulus, exponent), thumbprint))
    }

    /// From an uncompressed point (SEC 1 §2.3.3), whose length tells the curve.
    pub(super) fn ec(point: &[u8]) -> Result<VerificationKey, &'static str> {
        let (kind, parsed) = match point.len() {
            65 => (Kind::P256, ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)),
            97 => (Kind::P384, ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point)),
            _ => return Err("an elliptic-curve key that is neither P-256 nor P-384"),
        };
        parsed.map_err(|_| "not a point of its curve")?;
        Ok(VerificationKey::new(kind, DecodingKey::from_ec_der(point), Digest::of_parts(&[b"EC", point])))
    }

    /// From the 32 bytes of a public key (RFC 8032 §5.1.5).
    pub(super) fn ed25519(point: &[u8]) -> Result<VerificationKey, &'static str> {
        let point: &[u8; 32] = point.try_into().map_err(|_| "an Ed25519 key that is not 32 bytes long")?;
        weak_keys::ed25519(point)?;
        Ok(VerificationKey::new(Kind::Ed25519, DecodingKey::from_ed_der(point), Digest::of_parts(&[b"Ed25519", point])))
    }

    /// From a shared secret. It verifies only algorithms whose hash is not longer (RFC 7518 §3.2).
    pub(super) fn secret(secret: &[u8]) -> Result<VerificationKey, &'static str> {
        if secret.len() < 32 {
            return Err("a secret shorter than the hash of any HS algorithm (32 bytes)");
        }
        let kind = Kind::Secret { bytes: secret.len() };
        Ok(VerificationKey::new(kind, DecodingKey::from_secret(secret), Digest::of_parts(&[b"secret", secret])))
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

    fn new(kind: Kind, decoding: DecodingKey, thumbprint: Digest) -> VerificationKey {
        VerificationKey { id: None, kind, bound_to: None, decoding, thumbprint }
    }

    /// The key with the `kid` and `alg` of its set.
    pub(super) fn named(self, id: Option<String>, bound_to: Option<Algorithm>) -> VerificationKey {
        VerificationKey { id, bound_to, ..self }
    }

    /// Whether the key may verify signatures of `algorithm`.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
        let kind_fits = match algorithm {
            HS256 => matches!(self.kind, Kind::Secret { bytes: 32.. }),
            HS384 => matches!(self.kind, Kind::Secret { bytes: 48.. }),
            HS512 => matches!(self.kind, Kind::Secret { bytes: 64.. }),
            RS256 | RS384 | RS512 | PS256 | PS384 | PS512 => self.kind == Kind::Rsa,
            ES256 => self.kind == Kind::P256,
            ES384 => self.kind == Kind::P384,
            EdDSA => self.kind == Kind::Ed25519,
        };
        kind_fits && self.bound_to.is_none_or(|bound| bound == algorithm)
    }

    /// Whether `signature` (base64url) over `signed` is this key's.
    pub(super) fn verify(&self, algorithm: Algorithm, signed: &str, signature: &str) -> bool {
        // Asked again here, so that no caller can verify RS256 with what is somebody's public key as an HMAC secret.
        self.fits(algorithm)
            && algorithm::signature(algorithm).is_some_and(|algorithm| {
                jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &self.decoding, algorithm).unwrap_or(false)
            })
    }

    /// The key material's digest: the same in every set that holds the key.
    pub(super) fn thumbprint(&self) -> Digest {
        self.thumbprint
    }
}

/// For operators: `kid`, kind and the algorithm it is bound to; nothing of the key itself.
impl fmt::Display for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Rsa => "RSA",
            Kind::P256 => "P-256",
            Kind::P384 => "P-384",
            Kind::Ed25519 => "Ed25519",
            Kind::Secret { .. } => "secret",
        };
        let id = self.id.as_ref().map_or_else(|| "one without kid".to_owned(), |id| quote::text(id));
        let bound_to = self.bound_to.map(|bound| format!(", {} only", algorithm::name(bound))).unwrap_or_default();
        write!(f, "{id} ({kind}{bound_to})")
    }
}

fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.split_at(zeros).1
}
