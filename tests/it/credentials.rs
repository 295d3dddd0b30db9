//! Who is calling: every refusal of authentication with its code and reason, read by Google's own parsers, and what is
//! accepted beside each. Nothing that is refused here reaches the service.

use crate::harness::token::{OTHER_RSA, RSA, SECRET, bearer, hs256};
use crate::harness::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

const METHOD: &str = "/demo.v1.Echo/Unary";
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// Sends every call, compares `(code, reason)`, and sees to it that only the accepted ones reached the service.
#[track_caller]
fn holds(rest: &str, table: Vec<(&str, Call, &str)>) {
    let (site, upstream) = (Site::new(), PythonUpstream::start());
    site.write("keys.json", json!({"keys": [RSA.jwk]}).to_string());
    let secret = json!({"kty": "oct", "kid": "shared", "k": URL_SAFE_NO_PAD.encode(SECRET)});
    site.write("mixed-keys.json", json!({"keys": [RSA.jwk, secret]}).to_string());
    let doorward = site.start(&configuration(&upstream.url(), rest));
    let answers = doorward.calls(&table.iter().map(|(_, call, _)| call.clone()).collect::<Vec<_>>());
    let mut wrong = Vec::new();
    for ((what, _, reason), answer) in table.iter().zip(&answers) {
        let code = match *reason {
            "" => 0,
            "KEYS_UNAVAILABLE" => 14,
            "PERMISSION_MISSING" | "METHOD_NOT_ALLOWED" | "CREDENTIALS_NOT_ACCEPTED" => 7,
            _ => 16,
        };
        if answer.refusal() != (code, *reason) {
            wrong.push(format!("{what}: expected {code} {reason}, got {:?} {}", answer.refusal(), answer.details()));
        }
        if code != 0 {
            let request_id = answer.0["error_metadata"]["request_id"].as_str().unwrap_or_default();
            if answer.0["domain"] != "doorward" || request_id.is_empty() || answer.details().is_empty() {
                wrong.push(format!("{what}: incomplete answer {answer:?}"));
            }
        }
        if (code == 16) != (answer.trailing("www-authenticate") == ["Bearer"]) {
            wrong.push(format!("{what}: www-authenticate in {answer:?}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let accepted = table.iter().filter(|(_, _, reason)| reason.is_empty()).count();
    upstream.assert_calls(accepted);
}

fn with_token(changes: Value) -> Call {
    call(METHOD).bearer(&token(changes))
}

fn with_authorization(value: &str) -> Call {
    call(METHOD).metadata("authorization", value)
}

#[test]
fn the_authorization_field_is_bearer_spaces_and_one_token() {
    let good = token(json!({}));
    let table = vec![
        ("none", call(METHOD), "CREDENTIALS_MISSING"),
        ("Bearer", with_authorization(&format!("Bearer {good}")), ""),
        ("any case", with_authorization(&format!("bEARER {good}")), ""),
        ("several spaces", with_authorization(&format!("Bearer   {good}")), ""),
        ("another scheme", with_authorization("Basic dXNlcjpwYXNz"), "CREDENTIALS_MALFORMED"),
        ("no scheme", with_authorization(&good), "CREDENTIALS_MALFORMED"),
        ("scheme alone", with_authorization("Bearer"), "CREDENTIALS_MALFORMED"),
        ("two tokens", with_authorization(&format!("Bearer {good} {good}")), "CREDENTIALS_MALFORMED"),
        ("no space", with_authorization(&format!("Bearer{good}")), "CREDENTIALS_MALFORMED"),
        ("a comma list", with_authorization(&format!("Bearer {good}, Bearer {good}")), "CREDENTIALS_MALFORMED"),
        ("empty", with_authorization(""), "CREDENTIALS_MALFORMED"),
    ];
    holds(site::STANDARD, table);
}

#[tokio::test]
async fn two_of_a_kind_are_ambiguous_even_when_equal() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&standard(&upstream.url()));
    let mut wire = Wire::connect(&doorward).await;
    let good = bearer(json!({}));
    for fields in [
        vec![("authorization", good.as_str()), ("authorization", good.as_str())],
        vec![("authorization", good.as_str()), ("authorization", "Basic eA==")],
        vec![("x-api-key", API_KEY), ("x-api-key", API_KEY)],
        vec![("authorization", good.as_str()), ("x-api-key", API_KEY), ("x-api-key", "")],
    ] {
        let answer = wire.call(request(METHOD, &fields)).await;
        assert_eq!(answer.refusal(), (16, "CREDENTIALS_AMBIGUOUS".to_owned()), "{fields:?}");
        assert_eq!(answer.field("www-authenticate"), Some("Bearer"));
        assert!(answer.is_trailers_only(), "{answer:?}");
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_token_must_be_a_jwt() {
    let good = token(json!({}));
    let payload = claims(json!({})).to_string();
    let twice = payload.replacen('{', r#"{"sub":"mallory","#, 1);
    let parts: Vec<&str> = good.split('.').collect();
    let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let of = |token: &str| call(METHOD).bearer(token);
    let table = vec![
        ("good", of(&good), ""),
        ("a word", of("hello"), "TOKEN_MALFORMED"),
        ("two parts", of(&parts[..2].join(".")), "TOKEN_MALFORMED"),
        ("four parts", of(&format!("{good}.x")), "TOKEN_MALFORMED"),
        ("empty parts", of(".."), "TOKEN_MALFORMED"),
        ("no base64", of("a!b.c!d.e!f"), "TOKEN_MALFORMED"),
        ("padded", of(&format!("{good}=")), "TOKEN_MALFORMED"),
        ("header no JSON", of(&format!("{}.{}.{}", encoded("{"), parts[1], parts[2])), "TOKEN_MALFORMED"),
        ("crit", of(&hs256(r#"{"alg":"HS256","crit":["exp"],"exp":1}"#, &payload)), "TOKEN_MALFORMED"),
        ("b64", of(&hs256(r#"{"alg":"HS256","b64":false}"#, &payload)), "TOKEN_MALFORMED"),
        ("nested", of(&hs256(r#"{"alg":"HS256","cty":"JWT"}"#, &payload)), "TOKEN_MALFORMED"),
        ("encrypted", of(&format!("{good}.x.x")), "TOKEN_MALFORMED"),
        ("claims no object", of(&hs256(HEADER, "[]")), "TOKEN_MALFORMED"),
        ("duplicate claim", of(&hs256(HEADER, &twice)), "TOKEN_MALFORMED"),
        ("duplicate header member", of(&hs256(r#"{"alg":"none","alg":"HS256"}"#, &payload)), "TOKEN_MALFORMED"),
        ("no algorithm", of(&hs256(r#"{"typ":"JWT"}"#, &payload)), "TOKEN_MALFORMED"),
    ];
    holds(site::STANDARD, table);
}

#[test]
fn signature_and_algorithm_come_from_the_provider_never_from_the_token() {
    let payload = claims(json!({})).to_string();
    let good = token(json!({}));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    let hs512 =
        jsonwebtoken::encode(&Header::new(Algorithm::HS512), &claims(json!({})), &EncodingKey::from_secret(SECRET.as_bytes())).unwrap();
    let other =
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(json!({})), &EncodingKey::from_secret(b"x".repeat(64).as_slice()))
            .unwrap();
    let none = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode(&payload));
    let of = |token: &str| call(METHOD).bearer(token);
    let table = vec![
        ("good", of(&good), ""),
        ("a changed signature", of(&format!("{signed}.{flipped}{}", &signature[1..])), "TOKEN_SIGNATURE"),
        ("another secret", of(&other), "TOKEN_SIGNATURE"),
        ("no signature", of(&format!("{signed}.")), "TOKEN_SIGNATURE"),
        ("an algorithm not listed", of(&hs512), "TOKEN_ALGORITHM"),
        ("none", of(&none), "TOKEN_ALGORITHM"),
        ("RS256", of(&RSA.token(&claims(json!({})))), "TOKEN_ALGORITHM"),
        ("jwk in the header is not looked at", of(&hs256(r#"{"alg":"HS256","jwk":{"kty":"oct","k":"eA"}}"#, &payload)), ""),
    ];
    holds(site::STANDARD, table);
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let rest = "
authentication:
  jwt: [{ name: rsa, issuer: https://issuer.test/, audiences: [users-api], algorithms: [RS256], public_key_file: rsa.pub }]
authorization: { default: authenticated }
";
    let confused =
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(json!({})), &EncodingKey::from_secret(RSA.public_pem.as_bytes()));
    let table = vec![
        ("RS256", call(METHOD).bearer(&RSA.token(&claims(json!({})))), ""),
        ("the public key as an HMAC secret", call(METHOD).bearer(&confused.unwrap()), "TOKEN_ALGORITHM"),
        ("another RSA key", call(METHOD).bearer(&OTHER_RSA.sign(r#"{"alg":"RS256"}"#, &claims(json!({})).to_string())), "TOKEN_SIGNATURE"),
    ];
    holds(rest, table);
}

#[test]
fn a_key_set_file_may_hold_a_secret_beside_public_keys_and_takes_none_for_the_other() {
    let rest = "
authentication:
  jwt: [{ name: mixed, issuer: https://issuer.test/, audiences: [users-api], algorithms: [RS256, HS256], jwks_file: mixed-keys.json }]
authorization: { default: authenticated }
";
    let payload = claims(json!({})).to_string();
    let confused =
        |header: Header| jsonwebtoken::encode(&header, &claims(json!({})), &EncodingKey::from_secret(RSA.public_pem.as_bytes())).unwrap();
    let named = Header { kid: Some(RSA.kid.to_owned()), ..Header::new(Algorithm::HS256) };
    let of = |token: &str| call(METHOD).bearer(token);
    let table = vec![
        ("HS256", of(&hs256(HEADER, &payload)), ""),
        ("HS256 with its kid", of(&hs256(r#"{"alg":"HS256","kid":"shared"}"#, &payload)), ""),
        ("RS256", of(&RSA.token(&claims(json!({})))), ""),
        ("the public key as an HMAC secret", of(&confused(Header::new(Algorithm::HS256))), "TOKEN_SIGNATURE"),
        ("the same by the name of the public key", of(&confused(named)), "TOKEN_KEY_UNKNOWN"),
        (
            "the secret by the name of the public key",
            of(&hs256(&format!(r#"{{"alg":"HS256","kid":"{}"}}"#, RSA.kid), &payload)),
            "TOKEN_KEY_UNKNOWN",
        ),
    ];
    holds(rest, table);
}

#[test]
fn time_claims_hold() {
    let table = vec![
        ("expired", with_token(json!({"exp": now() - 2})), "TOKEN_EXPIRED"),
        ("not yet", with_token(json!({"nbf": now() + 60})), "TOKEN_NOT_YET_VALID"),
        ("issued in the future", with_token(json!({"iat": now() + 60})), "TOKEN_NOT_YET_VALID"),
        ("nbf in the past", with_token(json!({"nbf": now() - 60})), ""),
        ("no iat", with_token(json!({"iat": null})), ""),
        ("no exp", with_token(json!({"exp": null})), "TOKEN_CLAIM"),
        ("exp as text", with_token(json!({"exp": (now() + 60).to_string()})), "TOKEN_CLAIM"),
        ("nbf as text", with_token(json!({"nbf": "0"})), "TOKEN_CLAIM"),
        ("iat as text", with_token(json!({"iat": "0"})), "TOKEN_CLAIM"),
        ("exp negative", with_token(json!({"exp": -1})), "TOKEN_EXPIRED"),
    ];
    holds(site::STANDARD, table);
}

#[test]
fn leeway_is_allowed_for_clocks_that_differ() {
    let rest = site::STANDARD.replace("leeway: 0s", "leeway: 30s");
    let table = vec![
        ("just expired", with_token(json!({"exp": now() - 5})), ""),
        ("long expired", with_token(json!({"exp": now() - 40})), "TOKEN_EXPIRED"),
        ("about to begin", with_token(json!({"nbf": now() + 5})), ""),
        ("far from it", with_token(json!({"nbf": now() + 120})), "TOKEN_NOT_YET_VALID"),
    ];
    holds(&rest, table);
}

#[test]
fn issuer_audience_and_user_are_exact() {
    let table = vec![
        ("unknown issuer", with_token(json!({"iss": "https://elsewhere.test/"})), "TOKEN_ISSUER"),
        ("no final slash", with_token(json!({"iss": "https://issuer.test"})), "TOKEN_ISSUER"),
        ("issuer in capitals", with_token(json!({"iss": "HTTPS://ISSUER.TEST/"})), "TOKEN_ISSUER"),
        ("issuer as a list", with_token(json!({"iss": ["https://issuer.test/"]})), "TOKEN_CLAIM"),
        ("wrong audience", with_token(json!({"aud": "orders-api"})), "TOKEN_AUDIENCE"),
        ("audience in capitals", with_token(json!({"aud": "USERS-API"})), "TOKEN_AUDIENCE"),
        ("one of several", with_token(json!({"aud": ["orders-api", "users-api"]})), ""),
        ("none of several", with_token(json!({"aud": ["a", "b"]})), "TOKEN_AUDIENCE"),
        ("no audience", with_token(json!({"aud": null})), "TOKEN_CLAIM"),
        ("audience a number", with_token(json!({"aud": 1})), "TOKEN_CLAIM"),
        ("audiences not all text", with_token(json!({"aud": ["users-api", 1]})), "TOKEN_CLAIM"),
        ("no user", with_token(json!({"sub": null})), "TOKEN_CLAIM"),
        ("empty user", with_token(json!({"sub": ""})), "TOKEN_CLAIM"),
        ("sub a number", with_token(json!({"sub": 7})), "TOKEN_CLAIM"),
        (
            "other claims of a wrong type count as absent",
            with_token(json!({"email": 1, "name": [], "roles": {}, "email_verified": "true"})),
            "",
        ),
    ];
    holds(site::STANDARD, table);
}

#[test]
fn required_claims_types_and_lifetime() {
    let rest = site::STANDARD.replace(
        "leeway: 0s",
        "leeway: 0s\n      token_types: [at+jwt]\n      max_lifetime: 1h\n      required_claims: { azp: [web, cli] }",
    );
    let of = |typ: &str, changes: Value| {
        let mut whole = claims(changes);
        whole.as_object_mut().unwrap().entry("azp").or_insert(json!("web"));
        call(METHOD).bearer(&hs256(&json!({"alg": "HS256", "typ": typ}).to_string(), &whole.to_string()))
    };
    let table = vec![
        ("all there", of("at+jwt", json!({})), ""),
        ("as a media type in any case", of("application/AT+JWT", json!({})), ""),
        ("a list that holds it", of("at+jwt", json!({"azp": ["other", "cli"]})), ""),
        ("another type", of("JWT", json!({})), "TOKEN_CLAIM"),
        ("another value", of("at+jwt", json!({"azp": "mallory"})), "TOKEN_CLAIM"),
        ("lives too long", of("at+jwt", json!({"exp": now() + 7200})), "TOKEN_CLAIM"),
        ("lifetime unknown", of("at+jwt", json!({"iat": null})), "TOKEN_CLAIM"),
    ];
    holds(&rest, table);
}

#[test]
fn a_key_set_binds_its_keys() {
    let rest = "
authentication:
  jwt: [{ name: set, issuer: https://issuer.test/, audiences: [users-api], algorithms: [RS256, RS384], jwks_file: keys.json }]
authorization: { default: authenticated }
";
    let payload = claims(json!({})).to_string();
    let of = |header: Value| call(METHOD).bearer(&RSA.sign(&header.to_string(), &payload));
    let table = vec![
        ("by kid", of(json!({"alg": "RS256", "kid": "first"})), ""),
        ("without kid any key of the type", of(json!({"alg": "RS256"})), ""),
        ("unknown kid", of(json!({"alg": "RS256", "kid": "nobody"})), "TOKEN_KEY_UNKNOWN"),
        // The signature is RS256's: what counts is that the key's own `alg` forbids RS384 before it is looked at.
        ("an algorithm the key is not for", of(json!({"alg": "RS384", "kid": "first"})), "TOKEN_KEY_UNKNOWN"),
        ("signed by another key", call(METHOD).bearer(&OTHER_RSA.sign(r#"{"alg":"RS256","kid":"first"}"#, &payload)), "TOKEN_SIGNATURE"),
    ];
    holds(rest, table);
}

#[test]
fn api_keys_by_hash_with_expiry_and_revocation() {
    let of = |key: &str| call(METHOD).api_key(key);
    let table = vec![
        ("good", of(API_KEY), ""),
        ("unknown", of("key-of-nobody"), "API_KEY_UNKNOWN"),
        ("empty", of(""), "CREDENTIALS_MALFORMED"),
        ("its hash is not the key", of(&site::sha256_hex(API_KEY)), "API_KEY_UNKNOWN"),
        ("in capitals", of(&API_KEY.to_uppercase()), "API_KEY_UNKNOWN"),
        ("expired", of("key-that-expired"), "API_KEY_EXPIRED"),
        ("revoked", of("key-that-was-revoked"), "CREDENTIALS_REVOKED"),
        ("as a bearer token", call(METHOD).bearer(API_KEY), "TOKEN_MALFORMED"),
    ];
    holds(site::STANDARD, table);
}

#[test]
fn a_credential_that_does_not_verify_refuses_whatever_else_is_there() {
    let table = vec![
        ("both good", with_token(json!({})).api_key(API_KEY), ""),
        ("bad key beside a good token", with_token(json!({})).api_key("key-of-nobody"), "API_KEY_UNKNOWN"),
        ("expired token beside a good key", with_token(json!({"exp": 1})).api_key(API_KEY), "TOKEN_EXPIRED"),
        ("malformed beside a good key", with_authorization("Basic eA==").api_key(API_KEY), "CREDENTIALS_MALFORMED"),
    ];
    holds(site::STANDARD, table);
}

#[test]
fn optional_takes_no_credential_as_anonymous_but_a_bad_one_is_refused() {
    let rest = site::STANDARD
        .replace("authentication:", "authentication:\n  mode: optional")
        .replace("/demo.v1.Echo/*: authenticated", "/demo.v1.Echo/*: anyone\n    /demo.v1.Echo/Known: authenticated");
    let table = vec![
        ("anonymous", call(METHOD), ""),
        ("known", with_token(json!({})), ""),
        ("expired", with_token(json!({"exp": 1})), "TOKEN_EXPIRED"),
        ("malformed", with_authorization("Basic eA=="), "CREDENTIALS_MALFORMED"),
        ("bad key", call(METHOD).api_key("key-of-nobody"), "API_KEY_UNKNOWN"),
        ("anonymous where a caller is needed", call("/demo.v1.Echo/Known"), "CREDENTIALS_MISSING"),
        ("anonymous where a permission is needed", call("/demo.v1.Users/Get"), "CREDENTIALS_MISSING"),
        ("known where a caller is needed", call("/demo.v1.Echo/Known").bearer(&token(json!({}))), ""),
    ];
    holds(&rest, table);
}

#[test]
fn insecure_audit_lets_whom_optional_would_refuse_through_as_anonymous() {
    let rest = site::STANDARD.replace("authentication:", "authentication:\n  mode: optional\n  insecure_audit: true");
    let (site, upstream) = (Site::new(), RawUpstream::echo());
    let doorward = site.start(&configuration(&upstream.url(), &rest));
    // A rule that the caller would not meet, and a method without one, are not looked at.
    let calls = [
        ("CREDENTIALS_MISSING", call(METHOD)),
        ("TOKEN_EXPIRED", call("/demo.v1.Users/Delete").bearer(&token(json!({"exp": 1, "roles": []})))),
        ("TOKEN_MALFORMED", call("/demo.v1.Nothing/Ever").metadata("authorization", "Bearer x")),
        ("API_KEY_UNKNOWN", call(METHOD).api_key("key-of-nobody")),
    ];
    for (reason, call) in &calls {
        let spoofed = call.clone().metadata("user_id", "admin").metadata("roles", "admin");
        assert_eq!(doorward.call(spoofed).refusal(), (0, ""), "{reason}");
        assert_eq!(doorward.metric("doorward_audited_total", &[&format!("reason=\"{reason}\"")]), 1.0, "{reason}");
    }
    for seen in upstream.seen() {
        for name in ["user_id", "user_email", "client_id", "roles", "permissions", "authorization", "x-api-key"] {
            assert_eq!(seen.values(name), [""; 0], "anonymous: {name}");
        }
    }
    // Who is known is not audited: its rule counts.
    assert_eq!(doorward.call(call("/demo.v1.Users/Delete").bearer(&token(json!({})))).refusal(), (7, "PERMISSION_MISSING"));
    assert_eq!(upstream.seen().len(), calls.len());
    let audited: Vec<_> = doorward.access_lines(5).iter().map(|line| line["audited"].clone()).collect();
    assert_eq!(audited, [json!(calls[0].0), json!(calls[1].0), json!(calls[2].0), json!(calls[3].0), Value::Null]);
}

#[test]
fn disabled_checks_nothing() {
    let table = vec![
        ("anonymous", call("/demo.v1.Users/Delete"), ""),
        ("expired", with_token(json!({"exp": 1})), ""),
        ("malformed", with_authorization("Basic eA=="), ""),
        ("no rule", call("/some.Other/Method"), ""),
    ];
    holds(&site::STANDARD.replace("authentication:", "authentication:\n  mode: disabled"), table);
}

#[test]
fn public_methods_are_never_looked_at() {
    let method = "/demo.v1.Public/Unary";
    let table = vec![
        ("none", call(method), ""),
        ("expired", call(method).bearer(&token(json!({"exp": 1}))), ""),
        ("malformed", call(method).metadata("authorization", "Basic eA=="), ""),
        ("bad key", call(method).api_key("key-of-nobody"), ""),
        ("its neighbour is not public", call("/demo.v1.Publicity/Unary"), "CREDENTIALS_MISSING"),
    ];
    holds(site::STANDARD, table);
}

#[test]
fn providers_are_chosen_by_issuer_and_trusted_for_what_is_written() {
    let rest = "
authentication:
  jwt:
    - name: corporate
      issuer: https://issuer.test/
      audiences: [users-api]
      algorithms: [HS256]
      secret_file: hmac.secret
      trust: { roles: ['*'], email_domains: ['*'] }
    - name: partner
      issuer: https://partner.test/
      audiences: [users-api]
      algorithms: [RS256]
      public_key_file: rsa.pub
      trust: { roles: [viewer], email_domains: [partner.test], user_id_prefix: 'partner:' }
authorization:
  roles: { viewer: [users:read], admin: ['*:*'] }
  users: { alice: [admin], boss@example.com: [admin] }
  methods: { /demo.v1.Users/Get: users:read, /demo.v1.Users/Delete: users:delete }
";
    let partner = |changes: Value| {
        let mut whole = claims(changes);
        whole["iss"] = json!("https://partner.test/");
        RSA.token(&whole)
    };
    let delete = "/demo.v1.Users/Delete";
    let table = vec![
        ("corporate's alice is admin", call(delete).bearer(&token(json!({}))), ""),
        ("partner's alice is someone else", call(delete).bearer(&partner(json!({}))), "PERMISSION_MISSING"),
        ("partner may say viewer", call("/demo.v1.Users/Get").bearer(&partner(json!({}))), ""),
        ("partner may not say admin", call(delete).bearer(&partner(json!({"roles": ["admin"]}))), "PERMISSION_MISSING"),
        ("partner may not vouch for the boss", call(delete).bearer(&partner(json!({"email": "boss@example.com"}))), "PERMISSION_MISSING"),
        ("corporate may", call(delete).bearer(&token(json!({"sub": "b", "email": "Boss@example.com"}))), "PERMISSION_MISSING"),
        ("exactly", call(delete).bearer(&token(json!({"sub": "b", "email": "boss@example.com"}))), ""),
        (
            "not unverified",
            call(delete).bearer(&token(json!({"sub": "b", "email": "boss@example.com", "email_verified": false}))),
            "PERMISSION_MISSING",
        ),
        (
            "a sub that looks like an address",
            call(delete).bearer(&token(json!({"sub": "boss@example.com", "email": null}))),
            "PERMISSION_MISSING",
        ),
        ("partner's key does not sign for corporate", call(delete).bearer(&RSA.token(&claims(json!({})))), "TOKEN_ALGORITHM"),
    ];
    holds(rest, table);
}

#[test]
fn a_cached_verdict_does_not_outlive_the_tokens_expiry() {
    let upstream = PythonUpstream::start();
    let doorward = Site::new().start(&standard(&upstream.url()));
    // A client that is connected already: on a busy machine its start alone may take longer than the token lasts.
    let mut client = doorward.client();
    assert_eq!(client.calls(&[with_token(json!({}))])[0].code(), 0);
    let short = with_token(json!({"exp": now() + 4}));
    assert_eq!(client.calls(std::slice::from_ref(&short))[0].code(), 0);
    let refused = eventually("expiry", || Some(client.calls(std::slice::from_ref(&short)).remove(0)).filter(|answer| answer.code() != 0));
    assert_eq!(refused.refusal(), (16, "TOKEN_EXPIRED"));
}

/// Clients on h2 send a token in Huffman code with every call, which is decoded once; another is another wherever it differs.
#[tokio::test]
async fn a_token_in_huffman_code_is_told_from_one_with_two_letters_exchanged() {
    let (site, upstream) = (Site::new(), RawUpstream::echo());
    let doorward = site.start(&standard(&upstream.url()));
    let good = bearer(json!({}));
    // The same length, also in Huffman code, and the same end.
    let middle = good.rfind('.').unwrap() - 40;
    let at = (middle..).find(|at| good.as_bytes()[*at] != good.as_bytes()[at + 1]).unwrap();
    let forged = [&good[..at], &good[at + 1..at + 2], &good[at..=at], &good[at + 2..]].concat();
    let mut wire = Wire::connect(&doorward).await;
    for round in 0..20 {
        for (token, code) in [(&good, 0), (&forged, 16), (&forged, 16), (&good, 0), (&good, 0)] {
            let answer = wire.call(request(METHOD, &[("authorization", token)])).await;
            assert_eq!(answer.refusal().0, code, "{round}: {answer:?}");
        }
    }
    assert_eq!(upstream.seen().len(), 60);
}
