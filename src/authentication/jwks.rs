//! A provider's keys: a JWK set (RFC 7517) reduced to those that may verify tokens, or the one key of a file.
//!
//! One strange key does not lose the set: what is weak, private, symmetric where it must not be, for another use or of
//! an unknown kind is left out, with the reason for the operator.

use super::algorithm;
use super::verification_key::VerificationKey;
use crate::config::Algorithm;
use crate::quote;
use crate::secret::Digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::sync::atomic::{AtomicU64, Ordering};

/// Keys of a set that are looked at.
const MOST_KEYS: usize = 100;
/// Keys tried for one token: each try costs a signature check, and who sends the token chooses how many fit.
const MOST_TRIES: usize = 16;

/// Keys to verify tokens with. Never empty.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<VerificationKey>,
    /// The one key of a file has no `kid`; a token's is then not looked at.
    any_id: bool,
    /// Different for every set ever made, so that a cached verdict knows whether it has seen this one.
    version: u64,
}

/// Whether a set may hold shared secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Symmetric {
    /// From a file of ours.
    Accepted,
    /// From a URL: a secret that is published is none.
    Ignored,
}

impl KeySet {
    /// The one key of a file.
    pub(super) fn single(key: VerificationKey) -> KeySet {
        KeySet { keys: vec![key], any_id: true, version: next_version() }
    }

    /// The usable keys of a JWK set and, for each other one, why it is left out. Usable is what fits one of `algorithms`.
    pub(super) fn parse(json: &[u8], symmetric: Symmetric, algorithms: &[Algorithm]) -> Result<(KeySet, Vec<String>), Unusable> {
        let document: Document<'_> = serde_json::from_slice(json).map_err(|_| Unusable::Malformed)?;
        let (mut keys, mut left_out) = (Vec::new(), Vec::new());
        if document.keys.len() > MOST_KEYS {
            left_out.push(format!("keys after the first {MOST_KEYS} are ignored"));
        }
        for (index, jwk) in document.keys.iter().take(MOST_KEYS).enumerate() {
            match read(jwk).and_then(|jwk| usable(&jwk, symmetric, algorithms)) {
                Ok(key) => keys.push(key),
                Err(reason) => left_out.push(format!("key {index} is ignored: {reason}")),
            }
        }
        if keys.is_empty() {
            return Err(Unusable::NoKey(left_out));
        }
        Ok((KeySet { keys, any_id: false, version: next_version() }, left_out))
    }

    /// The keys a token of this `alg` and `kid` may have been signed with: of that id where it names one, else any that fits.
    pub(super) fn candidates(&self, algorithm: Algorithm, id: Option<&str>) -> impl Iterator<Item = &VerificationKey> {
        let id = id.filter(|_| !self.any_id);
        let named = move |key: &&VerificationKey| id.is_none() || key.id.as_deref() == id;
        self.keys.iter().filter(named).filter(move |key| key.fits(algorithm)).take(MOST_TRIES)
    }

    /// Which keys a token names, and how many of them it may have been signed with; `origin` says where they are from.
    pub(super) fn words(&self, algorithm: Algorithm, id: Option<&str>, origin: &str) -> String {
        let kid = id.map_or_else(|| "missing".to_owned(), quote::text);
        let have_it = if id.is_none() || self.any_id { "are" } else { "have it and are" };
        let (fit, all) = (self.candidates(algorithm, id).count(), self.keys.len());
        let (algorithm, keys) = (algorithm::name(algorithm), quote::list(&self.keys));
        format!("kid is {kid}; {fit} of {all} keys {origin} {have_it} for {algorithm}: {keys}")
    }

    /// Whether a key seen earlier is still there for this algorithm.
    pub(super) fn holds(&self, thumbprint: Digest, algorithm: Algorithm) -> bool {
        self.keys.iter().any(|key| key.thumbprint() == thumbprint && key.fits(algorithm))
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }
}

/// Why a document gives no key set.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// Not JSON with a list `keys`.
    Malformed,
    /// Not one usable key; why each was left out.
    NoKey(Vec<String>),
}

fn next_version() -> u64 {
    static VERSIONS: AtomicU64 = AtomicU64::new(1);
    VERSIONS.fetch_add(1, Ordering::Relaxed)
}

/// Each key is read by itself: a number or text in one that JSON allows and nobody can represent is not the others' fault.
#[derive(Deserialize)]
struct Document<'j> {
    #[serde(borrow)]
    keys: Vec<&'j RawValue>,
}

fn read(jwk: &RawValue) -> Result<Value, &'static str> {
    serde_json::from_str(jwk.get()).map_err(|_| "it is nested too deeply, or holds a number or text that cannot be")
}

fn usable(jwk: &Value, symmetric: Symmetric, algorithms: &[Algorithm]) -> Result<VerificationKey, &'static str> {
    let Value::Object(jwk) = jwk else { return Err("not an object") };
    // A private key that anybody can read signs for anybody. (An `oct` key has no `d`.)
    if ["d", "p", "q", "dp", "dq", "qi", "oth"].iter().any(|member| jwk.contains_key(*member)) {
        return Err("it is a private key");
    }
    if text(jwk, "use")?.is_some_and(|usage| usage != "sig") {
        return Err("its `use` is not sig");
    }
    match jwk.get("key_ops") {
        None => {}
        Some(Value::Array(operations)) if operations.iter().any(|operation| operation == "verify") => {}
        Some(_) => return Err("its `key_ops` do not have verify"),
    }
    let bound_to = match text(jwk, "alg")? {
        None => None,
        Some(name) => Some(algorithm::by_name(name).ok_or("its `alg` is not a supported signature algorithm")?),
    };
    let key = match text(jwk, "kty")? {
        Some("RSA") => VerificationKey::rsa(&bytes(jwk, "n")?, &bytes(jwk, "e")?)?,
        Some("EC") => ec(jwk)?,
        Some("OKP") if text(jwk, "crv")? == Some("Ed25519") => VerificationKey::ed25519(&bytes(jwk, "x")?)?,
        Some("oct") if symmetric == Symmetric::Accepted => VerificationKey::secret(&bytes(jwk, "k")?)?,
        Some("oct") => return Err("a symmetric key in a published set"),
        _ => return Err("its `kty` or `crv` is not supported"),
    };
    let key = key.named(text(jwk, "kid")?.map(str::to_owned), bound_to);
    if !algorithms.iter().any(|algorithm| key.fits(*algorithm)) {
        return Err("it fits none of the provider's algorithms");
    }
    Ok(key)
}

fn ec(jwk: &Map<String, Value>) -> Result<VerificationKey, &'static str> {
    let size = match text(jwk, "crv")? {
        Some("P-256") => 32,
        Some("P-384") => 48,
        _ => return Err("its `crv` is not supported"),
    };
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    if x.len() != size || y.len() != size {
        return Err("its coordinates do not have the length of its curve");
    }
    VerificationKey::ec(&[&[4], x.as_slice(), y.as_slice()].concat())
}

fn text<'j>(jwk: &'j Map<String, Value>, member: &str) -> Result<Option<&'j str>, &'static str> {
    match jwk.get(member) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err("a member that should be text is not"),
    }
}

fn bytes(jwk: &Map<String, Value>, member: &str) -> Result<Vec<u8>, &'static str> {
    let text = text(jwk, member)?.ok_or("a member that its kind needs is missing")?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| "a member that should be base64url is not")
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use serde_json::json;

    const ALGORITHMS: [Algorithm; 5] = [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA, Algorithm::HS256];

    fn usable_in_url(jwk: Value) -> Result<(), &'static str> {
        usable(&jwk, Symmetric::Ignored, &ALGORITHMS).map(|_| ())
    }

    #[test]
    fn good_keys_of_every_kind_are_usable() {
        for key in [Key::Rsa, Key::P256, Key::P384, Key::Ed25519] {
            assert_eq!(usable_in_url(key.jwk(json!({ "kid": "1", "use": "sig", "key_ops": ["verify"], "x5c": ["…"] }))), Ok(()), "{key:?}");
        }
        assert_eq!(usable_in_url(Key::Ed25519.jwk(json!({ "alg": "Ed25519" }))), Ok(()));
        let secret = Key::Shared.jwk(json!({}));
        assert!(usable_in_url(secret.clone()).is_err());
        assert!(usable(&secret, Symmetric::Accepted, &ALGORITHMS).is_ok());
        let short = usable(&json!({ "kty": "oct", "k": "c2hvcnQ" }), Symmetric::Accepted, &ALGORITHMS);
        assert!(short.unwrap_err().contains("shorter than the hash"));
    }

    #[test]
    fn what_a_key_says_of_itself_binds_it() {
        for (members, reason) in [
            (json!({ "use": "enc" }), "`use`"),
            (json!({ "use": ["sig"] }), "text"),
            (json!({ "key_ops": ["sign"] }), "`key_ops`"),
            (json!({ "key_ops": "verify" }), "`key_ops`"),
            (json!({ "alg": "RSA-OAEP" }), "`alg`"),
            (json!({ "alg": "ES256" }), "fits none"),
            (json!({ "alg": "RS512" }), "fits none"),
            (json!({ "kid": 1 }), "text"),
            (json!({ "d": "AQAB" }), "private"),
            (json!({ "p": "AQAB" }), "private"),
            (json!({ "kty": "rsa" }), "`kty`"),
            (json!({ "e": "AQAB=" }), "base64url"),
        ] {
            let found = usable_in_url(Key::Rsa.jwk(members.clone())).unwrap_err();
            assert!(found.contains(reason), "{members} {found}");
        }
        let mut without_modulus = Key::Rsa.jwk(json!({}));
        merge(&mut without_modulus, json!({ "n": null }));
        assert!(usable_in_url(without_modulus).is_err());
    }

    #[test]
    fn a_key_that_is_bound_verifies_nothing_else() {
        let algorithms = [Algorithm::RS256, Algorithm::RS512];
        let key = |members| usable(&Key::Rsa.jwk(members), Symmetric::Ignored, &algorithms).unwrap();
        let token = sign_raw("{}", "{}", Key::Rsa, jsonwebtoken::Algorithm::RS256);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (free, bound) = (key(json!({})), key(json!({ "alg": "RS512" })));
        assert!(free.verify(Algorithm::RS256, signed, signature) && !bound.verify(Algorithm::RS256, signed, signature));
        let (set, _) = KeySet::parse(&set(&[Key::Rsa.jwk(json!({ "alg": "RS512" }))]), Symmetric::Ignored, &algorithms).unwrap();
        let holds = algorithms.map(|algorithm| set.holds(bound.thumbprint(), algorithm));
        assert_eq!((bound.thumbprint() == free.thumbprint(), holds), (true, [false, true]));
    }

    #[test]
    fn weak_and_malformed_keys_are_left_out() {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        for exponent in [&[1][..], &[2], &[1, 0, 0], &[0]] {
            assert!(usable_in_url(Key::Rsa.jwk(json!({ "e": encode(exponent) }))).is_err());
        }
        assert!(usable_in_url(Key::Rsa.jwk(json!({ "n": encode(&[0xff; 128]) }))).unwrap_err().contains("2048"));
        // Leading zeros do not make a modulus longer.
        assert!(usable_in_url(Key::Rsa.jwk(json!({ "n": encode(&[[0; 128], [0xff; 128]].concat()) }))).is_err());
        // Nor do they make another key.
        let jwk = Key::Rsa.jwk(json!({}));
        let modulus = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
        let padded = Key::Rsa.jwk(json!({ "n": encode(&[&[0], &modulus[..]].concat()), "e": encode(&[0, 1, 0, 1]) }));
        let [key, padded] = [jwk, padded].map(|jwk| usable(&jwk, Symmetric::Ignored, &ALGORITHMS).unwrap().thumbprint());
        assert_eq!(key, padded);
        let mut identity_point = [0; 32];
        identity_point[0] = 1;
        assert!(usable_in_url(Key::Ed25519.jwk(json!({ "x": encode(&identity_point) }))).unwrap_err().contains("small order"));
        assert!(usable_in_url(Key::Ed25519.jwk(json!({ "x": encode(&[7; 31]) }))).is_err());
        assert!(usable_in_url(Key::Ed25519.jwk(json!({ "crv": "X25519" }))).is_err());
        assert!(usable_in_url(Key::P256.jwk(json!({ "crv": "P-384" }))).is_err());
        assert!(usable_in_url(Key::P256.jwk(json!({ "crv": "secp256k1" }))).is_err());
        assert!(usable_in_url(Key::P256.jwk(json!({ "x": encode(&[7; 32]) }))).unwrap_err().contains("point"));
        assert!(usable_in_url(Key::P256.jwk(json!({ "x": encode(&[0; 33]) }))).is_err());
    }

    #[test]
    fn one_strange_key_does_not_lose_the_set() {
        let strange = [json!(null), json!("key"), json!({}), json!({ "kty": "RSA" }), json!({ "kty": 1 })];
        let keys: Vec<Value> = strange.into_iter().chain([Key::Rsa.jwk(json!({ "kid": "1" }))]).collect();
        let (parsed, left_out) = KeySet::parse(&set(&keys), Symmetric::Ignored, &ALGORITHMS).unwrap();
        assert_eq!((parsed.keys.len(), left_out.len()), (1, 5));
        assert!(
            matches!(KeySet::parse(&set(&keys[..5]), Symmetric::Ignored, &ALGORITHMS), Err(Unusable::NoKey(reasons)) if reasons.len() == 5)
        );
        // What only reading as a value finds: a number without limits, half a surrogate pair, and depth.
        for strange in [r#"{"kty": 1e999}"#, r#"{"kty": "\ud800"}"#, &format!("{}{}", "[".repeat(9999), "]".repeat(9999))] {
            let text = format!(r#"{{"keys": [{strange}, {}], "more": {strange}}}"#, Key::Rsa.jwk(json!({ "kid": "1" })));
            let (parsed, left_out) = KeySet::parse(text.as_bytes(), Symmetric::Ignored, &ALGORITHMS).unwrap();
            assert_eq!((parsed.keys.len(), left_out.len()), (1, 1));
        }
        for bad in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":null}"#, r#"{"keys":[],"keys":[]}"#, "<html>"] {
            assert_eq!(KeySet::parse(bad.as_bytes(), Symmetric::Ignored, &ALGORITHMS).unwrap_err(), Unusable::Malformed, "{bad}");
        }
        let many = vec![Key::Ed25519.jwk(json!({})); 150];
        let (parsed, left_out) = KeySet::parse(&set(&many), Symmetric::Ignored, &ALGORITHMS).unwrap();
        assert_eq!((parsed.keys.len(), left_out.len()), (100, 1));
        assert_eq!(parsed.candidates(Algorithm::EdDSA, None).count(), 16);
    }

    proptest::proptest! {
        #[test]
        fn no_document_panics(text in "\\PC{0,80}", n in ".{0,40}", x in "[A-Za-z0-9_-]{43}") {
            let _ = KeySet::parse(text.as_bytes(), Symmetric::Accepted, &ALGORITHMS);
            let keys = [json!({ "kty": "RSA", "n": n, "e": n }), json!({ "kty": "EC", "crv": "P-256", "x": x, "y": x }), json!({ "kty": "OKP", "crv": "Ed25519", "x": x })];
            let _ = KeySet::parse(&set(&keys), Symmetric::Accepted, &ALGORITHMS);
        }
    }
}
