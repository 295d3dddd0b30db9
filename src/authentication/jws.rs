//! The compact form of a JWS (RFC 7515 §7.1) read strictly: what could be understood in two ways is no token.
//!
//! Nothing is trusted here. `jku`, `x5u`, `jwk` and `x5c` are never looked at: keys come from the configuration.

use super::failure::{Failure, FailureKind};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// More is no token anybody issues; header limits are usually below.
const LONGEST_TOKEN: usize = 64 << 10;

/// A token taken apart.
#[derive(Debug)]
pub(super) struct Jws<'t> {
    pub(super) algorithm: String,
    pub(super) key_id: Option<String>,
    pub(super) token_type: Option<String>,
    pub(super) claims: Map<String, Value>,
    /// What is signed.
    pub(super) signed: &'t str,
    /// base64url, without padding and trailing bits.
    pub(super) signature: &'t str,
}

/// A token whose payload is still no more than bytes.
#[derive(Debug)]
pub(super) struct Envelope<'t> {
    pub(super) algorithm: String,
    pub(super) key_id: Option<String>,
    pub(super) token_type: Option<String>,
    payload: Vec<u8>,
    pub(super) signed: &'t str,
    pub(super) signature: &'t str,
}

impl<'t> Jws<'t> {
    pub(super) fn parse(token: &'t str) -> Result<Jws<'t>, Failure> {
        Jws::read(token).map_err(|detail| Failure::new(FailureKind::TokenMalformed, detail))
    }

    fn read(token: &'t str) -> Result<Jws<'t>, &'static str> {
        let Envelope { algorithm, key_id, token_type, payload, signed, signature } = Envelope::read(token)?;
        let claims = object(&payload).ok_or("the token's payload is not a JSON object without duplicate members")?;
        Ok(Jws { algorithm, key_id, token_type, claims, signed, signature })
    }
}

impl<'t> Envelope<'t> {
    pub(super) fn read(token: &'t str) -> Result<Envelope<'t>, &'static str> {
        if token.len() > LONGEST_TOKEN {
            return Err("the token is longer than 64 KiB");
        }
        let (signed, signature) = token.rsplit_once('.').ok_or("the token has no dots")?;
        let (header, payload) = signed.split_once('.').ok_or("the token has only one dot")?;
        if payload.contains('.') {
            return Err("the token has more than two dots");
        }
        let header = decoded(header).ok_or("the token's header is not base64url")?;
        let header = object(&header).ok_or("the token's header is not a JSON object without duplicate members")?;
        let payload = decoded(payload).ok_or("the token's payload is not base64url")?;
        decoded(signature).ok_or("the token's signature is not base64url")?;
        if header.contains_key("crit") || header.contains_key("b64") {
            return Err("the token's header asks for extensions (crit or b64)");
        }
        let text = |name| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err("alg, kid, typ or cty in the token's header is not a string"),
        };
        // A nested token's claims are in the token within (RFC 7519 §5.2); which ones count must not be a matter of taste.
        if text("cty")?.is_some_and(|content| media_type(content).eq_ignore_ascii_case("JWT")) {
            return Err("the token's header says that another token is nested in it (cty)");
        }
        let algorithm = text("alg")?.ok_or("the token's header has no alg")?.to_owned();
        let (key_id, token_type) = (text("kid")?.map(str::to_owned), text("typ")?.map(str::to_owned));
        Ok(Envelope { algorithm, key_id, token_type, payload, signed, signature })
    }
}

/// Of the values of `typ` and `cty`, without the `application/` that may be left out (RFC 7515 §4.1.9 and §4.1.10).
pub(super) fn media_type(value: &str) -> &str {
    const PREFIX: &str = "application/";
    match value.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
        _ => value,
    }
}

/// Without padding, white space and trailing bits: every text has one spelling.
fn decoded(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

fn object(json: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(json).ok()? {
        Unambiguous(Value::Object(members)) => Some(members),
        Unambiguous(_) => None,
    }
}

/// JSON in which no object, at any depth, has two members of one name (RFC 7515 §4 lets parsers refuse them).
struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unambiguous, D::Error> {
        deserializer.deserialize_any(UnambiguousVisitor).map(Unambiguous)
    }
}

struct UnambiguousVisitor;

impl<'de> Visitor<'de> for UnambiguousVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is none"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        while let Some(Unambiguous(item)) = items.next_element()? {
            out.push(item);
        }
        Ok(Value::Array(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some((name, Unambiguous(value))) = members.next_entry::<String, _>()? {
            if out.insert(name, value).is_some() {
                return Err(A::Error::custom("a duplicate member"));
            }
        }
        Ok(Value::Object(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(header: &str, claims: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_token_is_taken_apart() {
        let token = token(r#"{"alg":"RS256","kid":"1","typ":"at+jwt","jku":"https://evil"}"#, r#"{"a":{"b":[1,-1,0.5,null,true,"x"]}}"#);
        let jws = Jws::parse(&token).unwrap();
        assert_eq!((jws.algorithm.as_str(), jws.key_id.as_deref(), jws.token_type.as_deref()), ("RS256", Some("1"), Some("at+jwt")));
        assert_eq!(Value::Object(jws.claims), serde_json::json!({"a": {"b": [1, -1, 0.5, null, true, "x"]}}));
        assert_eq!((jws.signed, jws.signature), token.rsplit_once('.').unwrap());
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_no_token() {
        let good = r#"{"alg":"RS256"}"#;
        for header in [
            r#"{"alg":"RS256","alg":"HS256"}"#,
            r#"{"alg":"RS256","a\u006cg":"HS256"}"#,
            r#"{"alg":"RS256","crit":["exp"]}"#,
            r#"{"alg":"RS256","crit":[]}"#,
            r#"{"alg":"RS256","b64":false}"#,
            r#"{"alg":"RS256","b64":true}"#,
            r#"{"alg":"RS256","kid":1}"#,
            r#"{"alg":"RS256","typ":null}"#,
            r#"{"alg":["RS256"]}"#,
            r#"{"typ":"JWT"}"#,
            r#"["alg"]"#,
            r#"{"alg":"RS256"}x"#,
            "\u{feff}{\"alg\":\"RS256\"}",
            "",
        ] {
            assert_eq!(Jws::parse(&token(header, "{}")).unwrap_err().kind, FailureKind::TokenMalformed, "{header}");
        }
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        for claims in
            [r#"{"a":1,"a":1}"#, r#"{"x":[{"y":{"a":1,"a":2}}]}"#, "[]", "null", r#"{"a":1e999}"#, r#"{"a":"\ud800"}"#, "{}{}", &deep]
        {
            assert!(Jws::parse(&token(good, claims)).is_err(), "{claims}");
        }
    }

    #[test]
    fn an_encrypted_token_is_told_apart_for_the_operator() {
        assert!(Jws::parse("a.b.c.d.e").unwrap_err().detail.contains("more than two dots"));
    }

    #[test]
    fn base64url_has_one_spelling() {
        let whole = token(r#"{"alg":"RS256"}"#, "{}");
        assert!(Jws::parse(&whole).is_ok());
        let (signed, _) = whole.rsplit_once('.').unwrap();
        // Padding, trailing bits, the other alphabet, white space.
        for signature in ["c2ln=", "c2k=", "c2l", "+/+/", "c2 n", "c2ln\n", "a"] {
            assert!(Jws::parse(&format!("{signed}.{signature}")).is_err(), "{signature:?}");
        }
        for bad in
            ["", ".", "..", "...", "a.b", &format!("{whole}.x"), &format!(".{whole}"), &format!("{whole}="), &"a".repeat(LONGEST_TOKEN + 1)]
        {
            assert!(Jws::parse(bad).is_err());
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(header in ".{0,60}", claims in ".{0,60}", raw in ".{0,60}") {
            let _ = Jws::parse(&token(&header, &claims));
            let _ = Jws::parse(&raw);
        }
    }
}
