//! The narrow way into this room for the fuzz targets (`fuzz/`), compiled for them only: one function a target, each
//! asserting what must hold of whatever comes in.

use super::credentials::Credentials;
use super::jwks::{KeySet, Symmetric, Unusable};
use super::jws::Jws;
use super::testing::*;
use super::witness::NoWitness;
use super::*;
use crate::config::{Algorithm, JwtProvider, KeySource};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value, json};
use std::fmt;
use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};

const ALGORITHMS: [Algorithm; 6] =
    [Algorithm::HS256, Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];

/// Takes tokens signed by our keys.
static OURS: LazyLock<Authenticator> = LazyLock::new(|| accepting(&[Key::Rsa, Key::P256, Key::P384, Key::Ed25519, Key::Shared]));
/// Of the same issuer, but with a key that has signed nothing.
static STRANGERS: LazyLock<Authenticator> = LazyLock::new(|| accepting(&[Key::OtherRsa]));

/// Seeds that our keys have signed, made by PyJWT and by jose.
const SIGNED: [&str; 5] = [
    include_str!("../../fuzz/seeds/token/whole-pyjwt-hs256"),
    include_str!("../../fuzz/seeds/token/whole-pyjwt-rs256"),
    include_str!("../../fuzz/seeds/token/whole-pyjwt-es256"),
    include_str!("../../fuzz/seeds/token/whole-pyjwt-eddsa"),
    include_str!("../../fuzz/seeds/token/whole-jose-ps256"),
];

fn accepting(keys: &[Key]) -> Authenticator {
    let keys: Vec<Value> = keys.iter().map(|key| key.jwk(json!({}))).collect();
    let provider = JwtProvider { algorithms: ALGORITHMS.to_vec(), keys: KeySource::JwksFile(file(&set(&keys))), ..provider() };
    let mut problems = Problems::default();
    let authenticator =
        Authenticator::load(&authentication(vec![provider]), &[], Arc::new(policy()), Arc::new(identity_headers()), &mut problems);
    assert!(!problems.has_errors());
    authenticator
}

fn verify(authenticator: &Authenticator, token: &str) -> Option<Identity> {
    let mut witness = NoWitness;
    let verified = pin!(authenticator.verify_token(token, now(), &mut witness));
    match verified.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result.ok().map(|verified| verified.identity),
        Poll::Pending => panic!("nothing is fetched"),
    }
}

/// A whole token; or, as two lines, a header and claims that are then signed by a key of ours, so that what comes after
/// the signature is reached.
pub fn token(input: &[u8]) {
    match input.iter().position(|byte| *byte == b'\n') {
        None => whole_token(input),
        Some(end) => signed_token(&input[..end], &input[end + 1..]),
    }
}

/// Nothing verifies that none of our keys has signed.
fn whole_token(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    assert!(verify(&STRANGERS, text).is_none(), "signed by nobody: {text}");
    if verify(&OURS, text).is_some() {
        let signed = |token: &str| token.rsplit_once('.').map(|(signed, _)| signed.to_owned());
        assert!(SIGNED.iter().any(|known| signed(known) == signed(text)), "never signed: {text}");
    }
}

/// What is accepted meets the rules also when it is read by somebody else, and the caller is whom it names.
fn signed_token(header: &[u8], claims: &[u8]) {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = EncodingKey::from_secret(SECRET);
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).expect("HMAC takes everything");
    let token = format!("{signed}.{signature}");
    let Ok(jws) = Jws::parse(&token) else { return };
    let claims_text = std::str::from_utf8(claims).expect("JSON is UTF-8");
    let (header, claims): (Value, Value) =
        (serde_json::from_slice(header).expect("JSON it was"), serde_json::from_str(claims_text).expect("JSON it was"));
    assert_eq!(Value::Object(jws.claims), claims);
    let FirstOfEach(first) = serde_json::from_str(claims_text).expect("an object it was");
    assert_eq!(Value::Object(first), claims, "whoever takes the first of two members reads the same");
    assert!(header.get("crit").is_none() && header.get("b64").is_none());
    let Some(identity) = verify(&OURS, &token) else { return };
    assert_eq!((&header["alg"], header.get("kid")), (&json!("HS256"), None), "our keys have no kid");
    let date = |name: &str| claims.get(name).map(|date| date.as_f64().expect("a date is a number"));
    let (now, leeway) = (NOW as f64, 30.0);
    assert!(date("exp").is_some_and(|expires| now < expires + leeway));
    assert!(["nbf", "iat"].into_iter().filter_map(date).all(|begins| begins <= now + leeway));
    let for_us = |audience: &Value| audience == "users-api";
    assert!(claims["iss"] == ISSUER && (for_us(&claims["aud"]) || claims["aud"].as_array().is_some_and(|all| all.iter().any(for_us))));
    let subject = claims["sub"].as_str().expect("a subject is text");
    assert!(!subject.is_empty() && identity.user_id.as_deref() == Some(subject));
    assert!(identity.user_email.is_none_or(|email| claims["email_verified"] == true && claims["email"] == *email));
    assert!(identity.api_key_id.is_none() && identity.permissions.is_empty() && identity.client_id.is_none());
}

/// An object as those read it who take the first of two members.
struct FirstOfEach(Map<String, Value>);

impl<'de> Deserialize<'de> for FirstOfEach {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FirstOfEach, D::Error> {
        deserializer.deserialize_map(FirstOfEach(Map::new()))
    }
}

impl<'de> Visitor<'de> for FirstOfEach {
    type Value = FirstOfEach;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<FirstOfEach, A::Error> {
        while let Some((name, value)) = members.next_entry::<String, Value>()? {
            self.0.entry(name).or_insert(value);
        }
        Ok(self)
    }
}

/// At most 100 keys are usable and 16 are tried; one strange key more changes nothing; symmetric keys that are
/// published never count; and no key verifies what it has not signed.
pub fn key_set(input: &[u8]) {
    let from_file = KeySet::parse(input, Symmetric::Accepted, &ALGORITHMS);
    let from_url = KeySet::parse(input, Symmetric::Ignored, &ALGORITHMS);
    let Ok((keys, left_out)) = from_file else {
        assert!(from_url.is_err());
        return;
    };
    let document: Value = serde_json::from_slice(input).expect("JSON it was");
    let listed = document["keys"].as_array().expect("a list it was");
    let looked_at = listed.len().min(100);
    let usable = |left_out: &[String]| looked_at - left_out.iter().filter(|reason| reason.contains(" is ignored: ")).count();
    assert!((1..=100).contains(&usable(&left_out)));
    let secrets = listed.iter().take(100).filter(|key| key["kty"] == "oct").count();
    match &from_url {
        Ok((_, left_out_of_url)) => assert!(usable(left_out_of_url) + secrets >= usable(&left_out)),
        Err(Unusable::NoKey(_)) => assert!(usable(&left_out) <= secrets),
        Err(Unusable::Malformed) => panic!("it was parsed before"),
    }
    for algorithm in ALGORITHMS {
        assert!(keys.candidates(algorithm, None).count() <= 16);
        for key in keys.candidates(algorithm, None) {
            assert!(key.fits(algorithm) && keys.holds(key.thumbprint(), algorithm));
            assert!(!key.verify(algorithm, "e30.e30", b"") && !key.verify(algorithm, "e30.e30", &[0; 64]));
        }
        assert!(from_url.iter().all(|(keys, _)| algorithm != Algorithm::HS256 || keys.candidates(algorithm, None).next().is_none()));
    }
    if let [key] = &listed[..]
        && let Some(bound) = key["alg"].as_str().map(|alg| alg.replace("Ed25519", "EdDSA"))
    {
        let mut others = ALGORITHMS.into_iter().filter(|algorithm| format!("{algorithm:?}") != bound);
        assert!(others.all(|other| keys.candidates(other, None).next().is_none()), "its alg binds it");
    }
    let mut with_a_strange_key = document.clone();
    with_a_strange_key["keys"] = listed.iter().take(99).cloned().chain([json!({ "kty": "strange" })]).collect();
    let strange = KeySet::parse(with_a_strange_key.to_string().as_bytes(), Symmetric::Accepted, &ALGORITHMS);
    if listed.len() < 100 {
        let (_, reasons) = strange.expect("it has the same keys");
        assert_eq!(reasons.len(), left_out.len() + 1);
    }
}

/// At most one field of each kind, and the whole of what follows the scheme.
pub fn credentials(request: &HeaderMap) {
    let api_key = HeaderName::from_static("x-api-key");
    let Ok(presented) = Credentials::read(request, Some(&api_key)) else { return };
    let only = |name: &HeaderName| {
        let values: Vec<&[u8]> = request.get_all(name).iter().map(|value| value.as_bytes()).collect();
        assert!(values.len() <= 1, "two of a kind");
        values.first().copied()
    };
    assert_eq!(presented.api_key, only(&api_key));
    let field = only(&AUTHORIZATION).map(|field| std::str::from_utf8(field).expect("visible ASCII"));
    assert_eq!(presented.token.is_some(), field.is_some());
    if let (Some(token), Some(field)) = (presented.token, field) {
        let (scheme, rest) = field.split_at("bearer".len());
        assert!(scheme.eq_ignore_ascii_case("bearer") && rest.starts_with(' ') && rest.trim_start_matches(' ').as_bytes() == token);
        assert!(token.iter().all(u8::is_ascii_graphic));
    }
}
