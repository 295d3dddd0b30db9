//! Project Wycheproof's vectors for JSON Web Signature, Key and Encryption, through the path of every token: envelope,
//! key set, signature. Their payloads are no claims, so that what is asked of claims stays out of it.

use super::super::jwks::{KeySet, Symmetric};
use super::super::jws::Envelope;
use super::super::witness::NoWitness;
use super::*;
use serde::Deserialize;

const SIGNATURES: &str = include_str!("../../../tests/data/wycheproof/json_web_signature.json");
const KEYS: &str = include_str!("../../../tests/data/wycheproof/json_web_key.json");
const ENCRYPTION: &str = include_str!("../../../tests/data/wycheproof/json_web_encryption.json");

/// Vectors that we judge otherwise, each with its reason: file, `tcId`, and whether we verify it.
const OTHERWISE: [(&str, u32, bool, &str); 10] = [
    ("signatures", 346, false, "the token says PS384, and its key that it is for PS256 only"),
    ("signatures", 347, false, "ES512 is not among our algorithms"),
    ("signatures", 350, false, "as 346"),
    ("signatures", 351, false, "ES512 is not among our algorithms"),
    ("signatures", 367, true, "byte for byte the valid 357: the padding that should be wrong was lost on the way"),
    ("signatures", 370, true, "as 367"),
    ("signatures", 372, false, "a character outside the alphabet in the header: some decoders skip it, so it has two readings"),
    ("signatures", 373, false, "the same in the payload"),
    ("keys", 1, true, "a set may mix secrets and public keys: each key verifies algorithms of its own type only"),
    ("keys", 4, true, "several keys may share a kid: the one that signed is found"),
];

const ALGORITHMS: [Algorithm; 12] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vectors {
    test_groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    keys: Vec<Value>,
    tests: Vec<Vector>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vector {
    tc_id: u32,
    comment: String,
    result: String,
    #[serde(alias = "jwe")]
    jws: String,
}

fn groups(vectors: &str) -> Vec<Group> {
    serde_json::from_str::<Vectors>(vectors).unwrap().test_groups
}

fn verifies(keys: &[Value], token: &str) -> bool {
    let Ok(envelope) = Envelope::read(token) else { return false };
    let Some(algorithm) = algorithm::by_name(&envelope.algorithm) else { return false };
    let Ok((keys, _)) = KeySet::parse(&set(keys), Symmetric::Accepted, &ALGORITHMS) else { return false };
    let mut candidates = keys.candidates(algorithm, envelope.key_id.as_deref());
    candidates.any(|key| key.verify(algorithm, envelope.signed, envelope.signature))
}

#[test]
fn every_signature_and_key_is_judged_as_wycheproof_does_or_for_a_reason() {
    let (mut judged, mut otherwise, mut wrong) = (0, 0, Vec::new());
    for (file, vectors) in [("signatures", SIGNATURES), ("keys", KEYS)] {
        for group in groups(vectors) {
            for Vector { tc_id, comment, result, jws } in &group.tests {
                let theirs = result == "valid";
                let exception = OTHERWISE.iter().find(|(in_file, id, ..)| *in_file == file && id == tc_id);
                let expected = exception.map_or(theirs, |(_, _, ours, _)| *ours);
                assert!(exception.is_none() || expected != theirs, "{file} {tc_id} is no exception");
                judged += 1;
                otherwise += usize::from(exception.is_some());
                if verifies(&group.keys, jws) != expected {
                    wrong.push(format!("{file} {tc_id} {comment}: should be {expected}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((judged, otherwise), (427, OTHERWISE.len()));
}

#[test]
fn no_encrypted_token_is_a_token() {
    let authenticator = provided(|_| {});
    let vectors: Vec<Vector> = groups(ENCRYPTION).into_iter().flat_map(|group| group.tests).collect();
    assert_eq!(vectors.len(), 139);
    for Vector { tc_id, comment, jws, .. } in vectors {
        let failure = block_on(authenticator.verify_token(&jws, now(), &mut NoWitness)).unwrap_err();
        assert_eq!(failure.kind, TokenMalformed, "{tc_id} {comment}");
    }
}
