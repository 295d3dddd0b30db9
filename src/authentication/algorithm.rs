//! The signature algorithms by name, and which cryptography each stands for.

use crate::config::Algorithm;
use jsonwebtoken::Algorithm as Signature;

const ALL: [(Algorithm, &str, Signature); 12] = [
    (Algorithm::HS256, "HS256", Signature::HS256),
    (Algorithm::HS384, "HS384", Signature::HS384),
    (Algorithm::HS512, "HS512", Signature::HS512),
    (Algorithm::RS256, "RS256", Signature::RS256),
    (Algorithm::RS384, "RS384", Signature::RS384),
    (Algorithm::RS512, "RS512", Signature::RS512),
    (Algorithm::PS256, "PS256", Signature::PS256),
    (Algorithm::PS384, "PS384", Signature::PS384),
    (Algorithm::PS512, "PS512", Signature::PS512),
    (Algorithm::ES256, "ES256", Signature::ES256),
    (Algorithm::ES384, "ES384", Signature::ES384),
    (Algorithm::EdDSA, "EdDSA", Signature::EdDSA),
];

/// The algorithm of an `alg` member; names are case-sensitive (RFC 7515 §4.1.1).
pub(super) fn by_name(name: &str) -> Option<Algorithm> {
    // What RFC 9864 calls EdDSA with the one curve of it that is supported.
    let name = if name == "Ed25519" { "EdDSA" } else { name };
    ALL.iter().find(|(_, known, _)| *known == name).map(|(algorithm, ..)| *algorithm)
}

/// Its name in an `alg` member.
pub(super) fn name(algorithm: Algorithm) -> &'static str {
    ALL.iter().find(|(known, ..)| *known == algorithm).map_or("", |(_, name, _)| name)
}

/// What verifies it.
pub(super) fn signature(algorithm: Algorithm) -> Option<Signature> {
    ALL.iter().find(|(known, ..)| *known == algorithm).map(|(.., signature)| *signature)
}

/// All of `algorithms` for a message.
pub(super) fn names(algorithms: &[Algorithm]) -> String {
    algorithms.iter().map(|algorithm| name(*algorithm)).collect::<Vec<_>>().join(", ")
}
