//! Tokens made by other people's libraries (jose, PyJWT, google-auth): every algorithm of each is accepted with its own
//! key and with no other, and every other shape that JOSE knows is refused.

use crate::harness::node::jose;
use crate::harness::python::foreign_tokens;
use crate::harness::token::SECRET;
use crate::harness::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const METHOD: &str = "/demo.v1.Echo/Unary";

/// The algorithms and the key each is signed with.
const ALGORITHMS: [(&str, &str); 12] = [
    ("HS256", "secret"),
    ("HS384", "secret"),
    ("HS512", "secret"),
    ("RS256", "rsa"),
    ("RS384", "rsa"),
    ("RS512", "rsa"),
    ("PS256", "rsa"),
    ("PS384", "rsa"),
    ("PS512", "rsa"),
    ("ES256", "p256"),
    ("ES384", "p384"),
    ("EdDSA", "ed25519"),
];

/// Those that google-auth signs with.
const OF_GOOGLE_AUTH: [(&str, &str); 3] = [("RS256", "rsa"), ("ES256", "p256"), ("ES384", "p384")];

/// Shared secrets and public keys never stand beside each other.
const CONFIGURATION: &str = "
authentication:
  jwt:
    - name: public
      issuer: https://issuer.test/
      audiences: [users-api]
      algorithms: [RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA]
      jwks_file: set-of-jose.json
      trust: { roles: ['*'], email_domains: ['*'] }
    - name: shared
      issuer: https://shared.test/
      audiences: [users-api]
      algorithms: [HS256, HS384, HS512]
      secret_file: hmac.secret
      trust: { roles: ['*'], email_domains: ['*'] }
authorization: { default: authenticated }
";

/// An order for one token; `sub` will be its name.
fn token(library: &str, name: &str, (alg, kid): (&str, &str), more: Value) -> Value {
    let issuer = if kid == "secret" { "https://shared.test/" } else { "https://issuer.test/" };
    let mut order = json!({"name": name, "library": library, "alg": alg, "kid": kid, "claims": {"iss": issuer}});
    order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    order
}

/// Makes the tokens, calls with each, and compares `(code, reason)`; decided with the key set that jose makes of the keys.
#[track_caller]
fn holds(expected: (u64, &str), tokens: &[Value]) -> BTreeMap<String, Answer> {
    let (site, upstream) = (Site::new(), PythonUpstream::start());
    let (of_jose, of_python): (Vec<&Value>, Vec<&Value>) = tokens.iter().partition(|token| token["library"] == "jose");
    let made = jose(&order(&of_jose));
    site.write("set-of-jose.json", made["jwks"].to_string());
    let doorward = site.start(&configuration(&upstream.url(), CONFIGURATION));
    let mut made: BTreeMap<String, String> = serde_json::from_value(made["tokens"].clone()).unwrap();
    made.extend(foreign_tokens(&order(&of_python)));
    assert_eq!(made.len(), tokens.len());
    let answers = doorward.calls(&made.values().map(|token| call(METHOD).bearer(token)).collect::<Vec<_>>());
    let answers: BTreeMap<String, Answer> = made.into_keys().zip(answers).collect();
    let wrong: Vec<String> = (answers.iter().filter(|(_, answer)| answer.refusal() != expected))
        .map(|(name, answer)| format!("{name}: expected {expected:?}, got {:?}", answer.refusal()))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    answers
}

fn order(tokens: &[&Value]) -> Value {
    let file = |name: &str| std::fs::read_to_string(format!("{}/tests/data/keys/{name}.pem", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let keys: BTreeMap<&str, String> = ["rsa", "p256", "p384", "p521", "ed25519", "secp256k1"].map(|kid| (kid, file(kid))).into();
    json!({"claims": claims(json!({})), "secret": SECRET, "keys": keys, "tokens": tokens})
}

#[test]
fn every_algorithm_of_every_library_is_accepted_and_names_its_user() {
    let by = |library: &str, algorithms: &[(&str, &str)]| -> Vec<Value> {
        algorithms.iter().map(|algorithm| token(library, &format!("{library}-{}", algorithm.0), *algorithm, json!({}))).collect()
    };
    // The name that RFC 9864 gives EdDSA with this curve.
    let renamed = by("jose", &[("Ed25519", "ed25519")]);
    let tokens = [by("jose", &ALGORITHMS), renamed, by("PyJWT", &ALGORITHMS), by("google-auth", &OF_GOOGLE_AUTH)].concat();
    for (name, answer) in holds((0, ""), &tokens) {
        assert_eq!(answer.upstream_saw("user_id"), [name]);
    }
}

#[test]
fn a_key_that_a_token_brings_along_verifies_nothing() {
    let asymmetric = ALGORITHMS.iter().filter(|(_, kid)| *kid != "secret");
    let tokens: Vec<Value> = asymmetric.map(|algorithm| token("jose", algorithm.0, *algorithm, json!({"strange": true}))).collect();
    holds((16, "TOKEN_SIGNATURE"), &tokens);
}

#[test]
fn what_is_not_the_compact_form_of_one_signed_set_of_claims_is_malformed() {
    let shapes = [
        ["encrypted", "encrypted_directly", "encrypted_jwt", "signed_encrypted", "signed_jwt", "text"].as_slice(),
        &["flattened", "flattened_in_base64url", "unprotected_header", "general", "general_encrypted"],
        &["detached", "detached_unencoded", "unencoded", "b64_true", "critical"],
    ];
    let of_jose = shapes.concat().into_iter().map(|shape| token("jose", shape, ("ES256", "p256"), json!({"shape": shape})));
    let of_pyjwt = ["crit", "detached"].map(|shape| token("PyJWT", &format!("PyJWT {shape}"), ("ES256", "p256"), json!({"shape": shape})));
    holds((16, "TOKEN_MALFORMED"), &of_jose.chain(of_pyjwt).collect::<Vec<_>>());
}

#[test]
fn no_signature_or_an_algorithm_that_is_not_the_providers_is_refused_as_such() {
    let tokens = [
        token("jose", "unsecured", ("none", "rsa"), json!({"shape": "unsecured"})),
        token("PyJWT", "PyJWT none", ("none", "none"), json!({})),
        token("jose", "ES512", ("ES512", "p521"), json!({})),
        token("PyJWT", "PyJWT ES512", ("ES512", "p521"), json!({})),
        token("PyJWT", "PyJWT ES256K", ("ES256K", "secp256k1"), json!({})),
        token("jose", "the other provider's secret", ("HS256", "secret"), json!({"claims": {"iss": "https://issuer.test/"}})),
        token("PyJWT", "the other provider's key", ("RS256", "rsa"), json!({"claims": {"iss": "https://shared.test/"}})),
    ];
    holds((16, "TOKEN_ALGORITHM"), &tokens);
}
