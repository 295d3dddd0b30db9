//! The signature algorithms by name.

use crate::config::Algorithm;

const ALL: [(Algorithm, &str); 12] = [
    (Algorithm::HS256, "HS256"),
    (Algorithm::HS384, "HS384"),
    (Algorithm::HS512, "HS512"),
    (Algorithm::RS256, "RS256"),
    (Algorithm::RS384, "RS384"),
    (Algorithm::RS512, "RS512"),
    (Algorithm::PS256, "PS256"),
    (Algorithm::PS384, "PS384"),
    (Algorithm::PS512, "PS512"),
    (Algorithm::ES256, "ES256"),
    (Algorithm::ES384, "ES384"),
    (Algorithm::EdDSA, "EdDSA"),
];

/// The algorithm of an `alg` member; names are case-sensitive (RFC 7515 §4.1.1).
pub(super) fn by_name(name: &str) -> Option<Algorithm> {
    // What RFC 9864 calls EdDSA with the one curve of it that is supported.
    let name = if name == "Ed25519" { "EdDSA" } else { name };
    ALL.iter().find(|(_, known)| *known == name).map(|(algorithm, _)| *algorithm)
}

/// Its name in an `alg` member.
pub(super) fn name(algorithm: Algorithm) -> &'static str {
    ALL.iter().find(|(known, _)| *known == algorithm).map_or("", |(_, name)| name)
}

/// All of `algorithms` for a message.
pub(super) fn names(algorithms: &[Algorithm]) -> String {
    algorithms.iter().map(|algorithm| name(*algorithm)).collect::<Vec<_>>().join(", ")
}
