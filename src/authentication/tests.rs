//! Whole authentications: every check of a token and a key has a test that fails without the check.

mod mutations;
mod wycheproof;

use super::testing::*;
use super::*;
use crate::config::{Algorithm, Allowed, Authentication, CertificateName, JwtProvider, KeySource, Position};
use crate::identity::{ClaimValue, Permission};
use crate::secret::{Digest, Secret};
use FailureKind::*;
use http::HeaderValue;
use jsonwebtoken::Algorithm as Jwa;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::time::Duration;

fn try_load(config: &Authentication, claims: &[&str]) -> (Authenticator, Problems) {
    let claims: Vec<ClaimPath> = claims.iter().map(|name| path(name)).collect();
    let mut problems = Problems::default();
    let (policy, headers) = (Arc::new(policy()), Arc::new(identity_headers()));
    let authenticator = Authenticator::load(config, &claims, policy, headers, &mut problems);
    (authenticator, problems)
}

fn load(config: &Authentication) -> Authenticator {
    let (authenticator, problems) = try_load(config, &[]);
    assert!(!problems.has_errors(), "{problems:?}");
    authenticator
}

fn provided(change: impl FnOnce(&mut JwtProvider)) -> Authenticator {
    let mut provider = provider();
    change(&mut provider);
    load(&authentication(vec![provider]))
}

fn request(token: Option<&str>, key: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        headers.append(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
    }
    if let Some(key) = key {
        headers.append("x-api-key", HeaderValue::from_str(key).unwrap());
    }
    headers
}

fn block_on<F: Future + Send>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn call(authenticator: &Authenticator, request: &HeaderMap, now: SystemTime) -> Result<Authenticated, Failure> {
    block_on(authenticator.authenticate(request, None, &Attempts::default(), Digest::of, now))
}

fn identity(authenticator: &Authenticator, token: &str) -> Result<Identity, Failure> {
    call(authenticator, &request(Some(token), None), now()).map(|authenticated| authenticated.caller.unwrap().identity.clone())
}

/// What kind of failure; an explanation finds the same one first, and nothing of the token itself is in any words.
#[track_caller]
fn refused(authenticator: &Authenticator, token: &str) -> FailureKind {
    let failure = identity(authenticator, token).unwrap_err();
    let steps = explained(authenticator, &request(Some(token), None));
    assert_eq!(steps.iter().find(|(outcome, _)| *outcome == Outcome::Failed).unwrap().1, failure.detail, "{steps:?}");
    for part in token.split('.').filter(|part| part.len() > 8) {
        assert!(steps.iter().all(|(_, words)| !words.contains(part) && words.len() < 2048), "{steps:?}");
    }
    failure.kind
}

/// Every step of an explanation, which refuses what a call refuses, with the same words.
#[track_caller]
fn explained(authenticator: &Authenticator, request: &HeaderMap) -> Vec<(Outcome, String)> {
    let (transcript, verdict) = block_on(authenticator.explain(request, now()));
    let caller = |verdict: Result<Authenticated, Failure>| verdict.map(|found| found.caller.map(|caller| caller.identity.clone()));
    assert_eq!(caller(verdict), caller(call(authenticator, request, now())));
    transcript.steps().map(|(outcome, words)| (outcome, words.to_owned())).collect()
}

#[track_caller]
fn claims_refused(authenticator: &Authenticator, claims: Value) -> FailureKind {
    refused(authenticator, &token(json!({}), claims))
}

#[test]
fn a_good_token_is_its_caller() {
    let identity = identity(&provided(|_| {}), &token(json!({}), json!({}))).unwrap();
    let expected = Identity {
        user_id: Some("alice".into()),
        user_email: Some("alice@example.com".into()),
        user_name: Some("Alice".into()),
        roles: vec!["viewer".into(), "admin".into()],
        provider: Some("corporate".into()),
        presented: vec!["corporate".into()],
        ..Identity::default()
    };
    assert_eq!(identity, expected);
}

#[test]
fn every_algorithm_verifies_with_its_key_and_only_when_listed() {
    let cases = [
        (Algorithm::HS256, Jwa::HS256, Key::Shared),
        (Algorithm::HS384, Jwa::HS384, Key::Shared),
        (Algorithm::HS512, Jwa::HS512, Key::Shared),
        (Algorithm::RS256, Jwa::RS256, Key::Rsa),
        (Algorithm::RS384, Jwa::RS384, Key::Rsa),
        (Algorithm::RS512, Jwa::RS512, Key::Rsa),
        (Algorithm::PS256, Jwa::PS256, Key::Rsa),
        (Algorithm::PS384, Jwa::PS384, Key::Rsa),
        (Algorithm::PS512, Jwa::PS512, Key::Rsa),
        (Algorithm::ES256, Jwa::ES256, Key::P256),
        (Algorithm::ES384, Jwa::ES384, Key::P384),
        (Algorithm::EdDSA, Jwa::EdDSA, Key::Ed25519),
    ];
    let keys: Vec<Value> =
        [Key::Shared, Key::Rsa, Key::P256, Key::P384, Key::Ed25519].map(|key| key.jwk(json!({ "kid": "shared by all" }))).into();
    for (algorithm, jwa, key) in cases {
        let token = token_by(key, jwa, json!({ "kid": "shared by all" }), json!({}));
        let listing = |algorithms: Vec<Algorithm>| {
            provided(|provider| {
                provider.algorithms = algorithms;
                provider.keys = KeySource::JwksFile(file(&set(&keys)));
            })
        };
        assert!(identity(&listing(vec![algorithm]), &token).is_ok(), "{algorithm:?}");
        let others: Vec<_> = cases.iter().map(|case| case.0).filter(|other| *other != algorithm).collect();
        assert_eq!(refused(&listing(others), &token), TokenAlgorithm, "{algorithm:?}");
    }
}

#[test]
fn the_token_does_not_choose_the_cryptography() {
    let rs = provided(|_| {});
    for alg in ["none", "None", "HS256", "rs256", "RS384", "RS256 ", ""] {
        assert_eq!(refused(&rs, &token(json!({ "alg": alg }), json!({}))), TokenAlgorithm, "{alg:?}");
    }
    let signed = token(json!({ "alg": "none" }), json!({}));
    let unsigned = format!("{}.", signed.rsplit_once('.').unwrap().0);
    assert_eq!(refused(&rs, &unsigned), TokenAlgorithm);
    // The public key as an HMAC secret, with HS256 listed beside RS256.
    let both = provided(|provider| provider.algorithms = vec![Algorithm::RS256, Algorithm::HS256]);
    assert_eq!(refused(&both, &token_by(Key::Shared, Jwa::HS256, json!({}), json!({}))), TokenKeyUnknown);
}

#[test]
fn a_signature_is_of_the_key_it_names() {
    let rs = provided(|_| {});
    assert_eq!(refused(&rs, &token_by(Key::OtherRsa, Jwa::RS256, json!({}), json!({}))), TokenSignature);
    let good = token(json!({}), json!({}));
    let (signed, _) = good.rsplit_once('.').unwrap();
    assert_eq!(refused(&rs, &format!("{signed}.")), TokenSignature);
    // The claims of one token under the signature of another.
    let other = token(json!({}), json!({ "sub": "evil" }));
    assert_eq!(refused(&rs, &format!("{signed}.{}", other.rsplit_once('.').unwrap().1)), TokenSignature);
    // Who cannot sign learns nothing about the claims.
    let wrong = token_by(Key::OtherRsa, Jwa::RS256, json!({}), json!({ "exp": 1, "aud": "evil", "sub": null }));
    assert_eq!(refused(&rs, &wrong), TokenSignature);
}

#[test]
fn keys_are_chosen_by_kid_type_and_algorithm() {
    let with = |keys: Vec<Value>| provided(|provider| provider.keys = KeySource::JwksFile(file(&set(&keys))));
    let named = with(vec![Key::Rsa.jwk(json!({ "kid": "rsa" }))]);
    assert_eq!(refused(&named, &token(json!({ "kid": "evil" }), json!({}))), TokenKeyUnknown);
    assert!(identity(&named, &token(json!({ "kid": null }), json!({}))).is_ok(), "without kid any fitting key is tried");
    let unnamed = with(vec![Key::Rsa.jwk(json!({}))]);
    assert_eq!(refused(&unnamed, &token(json!({}), json!({}))), TokenKeyUnknown);
    let shared = with(vec![
        Key::P256.jwk(json!({ "kid": "rsa" })),
        Key::OtherRsa.jwk(json!({ "kid": "rsa" })),
        Key::Rsa.jwk(json!({ "kid": "rsa" })),
    ]);
    assert!(identity(&shared, &token(json!({}), json!({}))).is_ok());
    // One key, one algorithm.
    let bound = provided(|provider| {
        provider.algorithms = vec![Algorithm::RS256, Algorithm::PS256];
        provider.keys = KeySource::JwksFile(file(&set(&[Key::Rsa.jwk(json!({ "kid": "rsa", "alg": "PS256" }))])));
    });
    assert_eq!(refused(&bound, &token(json!({}), json!({}))), TokenKeyUnknown);
    assert!(identity(&bound, &token_by(Key::Rsa, Jwa::PS256, json!({}), json!({}))).is_ok());
    // At most sixteen are tried.
    let crowd = |before: usize| {
        let mut keys = vec![Key::OtherRsa.jwk(json!({})); before];
        keys.push(Key::Rsa.jwk(json!({})));
        with(keys)
    };
    assert!(identity(&crowd(15), &token(json!({ "kid": null }), json!({}))).is_ok());
    assert_eq!(refused(&crowd(16), &token(json!({ "kid": null }), json!({}))), TokenSignature);
}

#[test]
fn times_are_kept() {
    let at = provided(|_| {});
    for (claims, kind) in [
        (json!({ "exp": null }), TokenClaim),
        (json!({ "exp": "1700000600" }), TokenClaim),
        (json!({ "exp": [1_700_000_600] }), TokenClaim),
        (json!({ "exp": NOW - 30 }), TokenExpired),
        (json!({ "exp": NOW as f64 - 30.5 }), TokenExpired),
        (json!({ "exp": 0 }), TokenExpired),
        (json!({ "exp": -1 }), TokenExpired),
        (json!({ "exp": -1e300 }), TokenExpired),
        (json!({ "nbf": NOW + 31 }), TokenNotYetValid),
        (json!({ "nbf": 1e300 }), TokenNotYetValid),
        (json!({ "nbf": true }), TokenClaim),
        (json!({ "iat": NOW + 31 }), TokenNotYetValid),
        (json!({ "iat": u64::MAX }), TokenNotYetValid),
        (json!({ "iat": "now" }), TokenClaim),
    ] {
        assert_eq!(claims_refused(&at, claims.clone()), kind, "{claims}");
    }
    for claims in [
        json!({ "exp": NOW - 29 }),
        json!({ "exp": NOW as f64 - 29.5 }),
        json!({ "exp": 1e300 }),
        json!({ "exp": u64::MAX }),
        json!({ "nbf": NOW + 30 }),
        json!({ "iat": NOW + 30 }),
        json!({ "nbf": null, "iat": null }),
        json!({ "nbf": -1e300, "iat": 0.5 }),
    ] {
        assert!(identity(&at, &token(json!({}), claims.clone())).is_ok(), "{claims}");
    }
    let short = provided(|provider| provider.max_lifetime = Some(Duration::from_secs(660)));
    assert!(identity(&short, &token(json!({}), json!({}))).is_ok());
    assert_eq!(claims_refused(&short, json!({ "exp": NOW + 601 })), TokenClaim);
    assert_eq!(claims_refused(&short, json!({ "iat": null })), TokenClaim);
}

#[test]
fn the_issuer_decides_byte_for_byte() {
    let named = provided(|_| {});
    assert_eq!(claims_refused(&named, json!({ "iss": "https://evil.example/" })), TokenIssuer);
    assert_eq!(claims_refused(&named, json!({ "iss": "https://auth.example.com" })), TokenIssuer);
    assert_eq!(claims_refused(&named, json!({ "iss": [ISSUER] })), TokenClaim);
    assert_eq!(claims_refused(&named, json!({ "iss": null })), TokenClaim);
    let null = sign_raw(
        r#"{"alg":"RS256","kid":"rsa"}"#,
        r#"{"iss":null,"exp":1700000600,"aud":"users-api","sub":"alice"}"#,
        Key::Rsa,
        Jwa::RS256,
    );
    assert_eq!(refused(&named, &null), TokenClaim);
    // The provider of tokens without issuer takes those and no others, not even unknown ones.
    let nameless = provided(|provider| provider.issuer = None);
    assert!(identity(&nameless, &token(json!({}), json!({ "iss": null }))).is_ok());
    assert_eq!(claims_refused(&nameless, json!({})), TokenIssuer);
    assert_eq!(refused(&nameless, &null), TokenClaim);
    // Each issuer's tokens are verified with that issuer's keys.
    let mut second = provider();
    second.name = "second".to_owned();
    second.issuer = Some("https://second.example/".to_owned());
    second.keys = KeySource::JwksFile(file(&set(&[Key::OtherRsa.jwk(json!({ "kid": "rsa" }))])));
    let two = load(&authentication(vec![provider(), second]));
    assert_eq!(claims_refused(&two, json!({ "iss": "https://second.example/" })), TokenSignature);
    let of_second = token_by(Key::OtherRsa, Jwa::RS256, json!({}), json!({ "iss": "https://second.example/" }));
    assert_eq!(identity(&two, &of_second).unwrap().provider.as_deref(), Some("second"));
    let (_, problems) = try_load(&authentication(vec![provider(), provider()]), &[]);
    assert!(problems.has_errors(), "two providers of one issuer");
}

#[test]
fn the_audience_is_ours() {
    let ours = provided(|_| {});
    assert!(identity(&ours, &token(json!({}), json!({ "aud": ["other", "users-api"] }))).is_ok());
    for (aud, kind) in [
        (json!("evil"), TokenAudience),
        (json!("Users-api"), TokenAudience),
        (json!(["evil"]), TokenAudience),
        (json!([]), TokenAudience),
        (json!(["users-api", 1]), TokenClaim),
        (json!({ "users-api": true }), TokenClaim),
        (json!(1), TokenClaim),
        (json!(null), TokenClaim),
    ] {
        assert_eq!(claims_refused(&ours, json!({ "aud": aud })), kind, "{aud}");
    }
    let lax = provided(|provider| provider.insecure_no_audience = true);
    assert!(identity(&lax, &token(json!({}), json!({ "aud": null }))).is_ok());
    assert_eq!(claims_refused(&lax, json!({ "aud": "evil" })), TokenAudience);
}

#[test]
fn required_claims_and_types_are_met() {
    let required = provided(|provider| provider.required_claims = vec![(path("ctx.azp"), vec!["web".to_owned(), "app".to_owned()])]);
    for good in [json!("web"), json!(["x", "app"])] {
        assert!(identity(&required, &token(json!({}), json!({ "ctx": { "azp": good } }))).is_ok());
    }
    for bad in [json!("evil"), json!(["evil"]), json!(null), json!(1), json!({ "web": 1 })] {
        assert_eq!(claims_refused(&required, json!({ "ctx": { "azp": bad } })), TokenClaim);
    }
    assert_eq!(claims_refused(&required, json!({})), TokenClaim);

    let typed = provided(|provider| provider.token_types = vec!["at+jwt".to_owned()]);
    for good in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"] {
        assert!(identity(&typed, &token(json!({ "typ": good }), json!({}))).is_ok(), "{good}");
    }
    for bad in [json!("JWT"), json!(null), json!("text/at+jwt"), json!("")] {
        assert_eq!(refused(&typed, &token(json!({ "typ": bad }), json!({}))), TokenClaim);
    }
}

#[test]
fn the_user_id_is_text_or_where_it_is_not_sub_a_whole_number() {
    let by_sub = provided(|_| {});
    for bad in [json!(""), json!(1), json!(null), json!(true), json!(["alice"]), json!({})] {
        assert_eq!(claims_refused(&by_sub, json!({ "sub": bad })), TokenClaim, "{bad}");
    }
    let by_uid = provided(|provider| {
        provider.claims.user_id = path("uid");
        provider.trust.user_id_prefix = "corp:".to_owned();
    });
    let user =
        |uid: Value| identity(&by_uid, &token(json!({}), json!({ "uid": uid }))).map(|identity| identity.user_id.unwrap().to_string());
    assert_eq!(user(json!("alice")).unwrap(), "corp:alice");
    assert_eq!(user(json!(42)).unwrap(), "corp:42");
    assert_eq!(user(json!(-7)).unwrap(), "corp:-7");
    for bad in [json!(1.5), json!(1e30), json!(""), json!(null), json!(false)] {
        assert_eq!(user(bad.clone()).unwrap_err().kind, TokenClaim, "{bad}");
    }
}

#[test]
fn a_provider_is_believed_as_far_as_it_is_trusted() {
    let trusting = |change: fn(&mut crate::config::Trust)| provided(|provider| change(&mut provider.trust));
    let email = |authenticator: &Authenticator, claims: Value| identity(authenticator, &token(json!({}), claims)).unwrap().user_email;
    let all = trusting(|_| {});
    for unverified in [json!(false), json!(null), json!("true"), json!(1)] {
        assert_eq!(email(&all, json!({ "email_verified": unverified })), None);
    }
    for bad in [json!("alice"), json!("@example.com"), json!("alice@"), json!("a@evil.example@example.com"), json!(1), json!([])] {
        assert_eq!(email(&all, json!({ "email": bad })), None, "{bad}");
    }
    let unverified = trusting(|trust| trust.unverified_email = true);
    assert_eq!(email(&unverified, json!({ "email_verified": null })).as_deref(), Some("alice@example.com"));
    let one_domain = trusting(|trust| trust.email_domains = Allowed::These(vec!["example.com".to_owned()]));
    assert_eq!(email(&one_domain, json!({ "email": "alice@Example.COM" })).as_deref(), Some("alice@Example.COM"));
    for other in ["alice@evil.com", "alice@sub.example.com", "alice@evilexample.com"] {
        assert_eq!(email(&one_domain, json!({ "email": other })), None);
    }
    let one_role = trusting(|trust| trust.roles = Allowed::These(vec!["viewer".to_owned()]));
    assert_eq!(identity(&one_role, &token(json!({}), json!({}))).unwrap().roles, ["viewer".into()]);
}

#[test]
fn describing_claims_of_a_wrong_type_are_absent() {
    let mut config = provider();
    config.claims.client_id = Some(path("azp"));
    config.claims.permissions = Some(path("scope"));
    config.claims.roles = path("https://example.com/realm.roles");
    let (authenticator, problems) = try_load(&authentication(vec![config]), &["tenant", "deep.tenant", "number", "flag", "list"]);
    assert!(!problems.has_errors());
    let of = |claims: Value| identity(&authenticator, &token(json!({}), claims)).unwrap();
    let full = of(json!({
        "azp": "web", "scope": "openid users:read *:* users:* reports:read", "https://example.com/realm.roles": "viewer  admin",
        "tenant": "blue", "deep": { "tenant": "green" }, "number": 12, "flag": true, "list": ["a", "b"],
    }));
    assert_eq!(full.client_id.as_deref(), Some("web"));
    assert_eq!(full.permissions, ["users:read", "reports:read"].map(|text| Permission::parse(text).unwrap()));
    assert_eq!(full.roles, ["viewer".into(), "admin".into()]);
    let text = |text: &str| ClaimValue::Text(text.to_owned());
    let expected = [
        ("tenant", text("blue")),
        ("deep.tenant", text("green")),
        ("number", text("12")),
        ("flag", text("true")),
        ("list", ClaimValue::List(vec!["a".to_owned(), "b".to_owned()])),
    ];
    assert_eq!(full.claims, expected.map(|(name, value)| (name.into(), value)));
    let empty = of(json!({
        "azp": 1, "scope": { "users:read": true }, "https://example.com/realm.roles": ["viewer", 1], "name": ["Alice"],
        "tenant": 1.5, "deep": "tenant", "number": null, "flag": {}, "list": ["a", 1],
    }));
    assert_eq!((empty.client_id, empty.user_name, empty.permissions.len(), empty.roles.len(), empty.claims.len()), (None, None, 0, 0, 0));
    let list = of(json!({ "scope": ["users:read", "*:read", "a b:c"], "https://example.com": { "realm": { "roles": ["x"] } } }));
    assert_eq!(list.permissions, [Permission::parse("users:read").unwrap()]);
}

const KEYS: [(&str, &str); 4] = [
    ("good", "roles: [viewer], permissions: ['reports:read'], user_id: svc-analytics, expires_at: 2023-11-14T22:14:20Z"),
    ("eternal", "roles: [batch]"),
    ("revoked", "revoked_at: 2023-01-01T00:00:00Z, expires_at: 2023-01-02T00:00:00Z"),
    ("expired", "expires_at: 2023-11-14T22:13:20Z"),
];

/// `expires_at` of the good key is a minute after `NOW`, of the expired one `NOW` itself.
fn with_keys(change: impl FnOnce(&mut Authentication)) -> Authenticator {
    let record =
        |(id, more): (&str, &str)| format!("{{id: {id}, client_id: {id}-client, sha256: {}, {more}}}", Digest::of(id.as_bytes()).hex());
    let mut config = authentication(vec![provider()]);
    config.api_keys = Some(api_keys(&format!("keys: [{}]", KEYS.map(record).join(", "))));
    change(&mut config);
    load(&config)
}

#[test]
fn api_keys_are_looked_up_and_judged() {
    let keys = with_keys(|_| {});
    let of = |key: &str| call(&keys, &request(None, Some(key)), now());
    let caller = of("good").unwrap().caller.unwrap();
    let expected = Identity {
        user_id: Some("svc-analytics".into()),
        client_id: Some("good-client".into()),
        roles: vec!["viewer".into()],
        permissions: vec![Permission::parse("reports:read").unwrap()],
        api_key_id: Some("good".into()),
        presented: vec!["api_keys".into()],
        ..Identity::default()
    };
    assert_eq!(caller.identity, expected);
    for (key, kind, id) in [
        ("unheard-of", ApiKeyUnknown, None),
        ("Good", ApiKeyUnknown, None),
        ("revoked", CredentialsRevoked, Some("revoked")),
        ("expired", ApiKeyExpired, Some("expired")),
    ] {
        let failure = of(key).unwrap_err();
        assert_eq!((failure.kind, failure.api_key_id.as_deref()), (kind, id));
        assert!(!failure.detail.contains("unheard-of"));
    }
    let mut ids: Vec<_> = keys.api_key_ids().map(|id| id.to_string()).collect();
    ids.sort();
    assert_eq!(ids, ["eternal", "expired", "good", "revoked"]);
}

#[test]
fn a_role_of_a_key_that_is_not_defined_is_warned_about() {
    let mut config = authentication(Vec::new());
    let record = |role: &str| format!("keys: [{{id: a, client_id: c, sha256: {}, roles: [{role}]}}]", Digest::of(b"a").hex());
    for (role, warned) in [("viewer", false), ("veiwer", true)] {
        config.api_keys = Some(api_keys(&record(role)));
        let (_, problems) = try_load(&config, &[]);
        assert_eq!(problems.iter().any(|problem| problem.message.contains("does not define: veiwer")), warned);
    }
}

#[test]
fn both_credentials_must_verify_and_are_united() {
    let both = with_keys(|config| config.jwt[0].claims.client_id = Some(path("azp")));
    let token_text = token(json!({}), json!({ "azp": "web" }));
    let of = |token: &str, key: &str| call(&both, &request(Some(token), Some(key)), now());
    let identity = of(&token_text, "good").unwrap().caller.unwrap().identity.clone();
    assert_eq!((identity.user_id.as_deref(), identity.client_id.as_deref()), (Some("alice"), Some("good-client")));
    assert_eq!(identity.roles, ["viewer", "admin", "viewer"].map(Arc::from));
    assert_eq!(identity.permissions, [Permission::parse("reports:read").unwrap()]);
    assert_eq!(identity.presented, ["corporate", "api_keys"].map(Arc::from));
    assert_eq!((identity.provider.as_deref(), identity.api_key_id.as_deref()), (Some("corporate"), Some("good")));
    assert_eq!(of(&token_text, "unheard-of").unwrap_err().kind, ApiKeyUnknown);
    assert_eq!(of(&token(json!({}), json!({ "exp": 1 })), "good").unwrap_err().kind, TokenExpired);
    assert_eq!(of("nonsense", "good").unwrap_err().kind, TokenMalformed);
    let mut two = request(Some(&token_text), Some("good"));
    two.append("x-api-key", HeaderValue::from_static("good"));
    assert_eq!(call(&both, &two, now()).unwrap_err().kind, CredentialsAmbiguous);
}

#[test]
fn modes_differ_only_where_nothing_is_presented_or_nothing_is_read() {
    let required = with_keys(|_| {});
    let optional = with_keys(|config| config.mode = Mode::Optional);
    let disabled = with_keys(|config| config.mode = Mode::Disabled);
    let (none, bad) = (HeaderMap::new(), request(Some("nonsense"), None));
    assert_eq!(call(&required, &none, now()).unwrap_err().kind, CredentialsMissing);
    let anonymous = call(&optional, &none, now()).unwrap();
    assert!(anonymous.caller.is_none() && anonymous.cache == CacheOutcome::Unused);
    for strict in [&required, &optional] {
        assert_eq!(call(strict, &bad, now()).unwrap_err().kind, TokenMalformed);
    }
    assert!(call(&disabled, &bad, now()).unwrap().caller.is_none());
    // Without any provider a token is still a credential that does not verify.
    let no_provider = with_keys(|config| config.jwt.clear());
    assert_eq!(call(&no_provider, &request(Some(&token(json!({}), json!({}))), Some("good")), now()).unwrap_err().kind, TokenIssuer);
}

#[test]
fn credentials_are_removed_with_all_their_values() {
    let keys = with_keys(|_| {});
    let mut headers = request(Some("a"), Some("b"));
    headers.append(AUTHORIZATION, HeaderValue::from_static("Basic x"));
    headers.append("x-api-key", HeaderValue::from_static("c"));
    headers.append("x-other", HeaderValue::from_static("d"));
    keys.remove_credentials(&mut headers);
    assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-other"]);
}

#[test]
fn a_cached_verdict_ends_with_its_token_and_its_key() {
    let keys = with_keys(|_| {});
    let later = |seconds: f64| now() + Duration::from_secs_f64(seconds);
    let both = request(Some(&token(json!({}), json!({ "exp": NOW + 10 }))), Some("eternal"));
    assert_eq!(call(&keys, &both, now()).unwrap().cache, CacheOutcome::Miss);
    let hit = call(&keys, &both, later(39.9)).unwrap();
    assert_eq!((hit.cache, hit.caller.unwrap().identity.user_id.as_deref()), (CacheOutcome::Hit, Some("alice")));
    assert_eq!(call(&keys, &both, later(40.0)).unwrap_err().kind, TokenExpired);
    let key = request(None, Some("good"));
    assert_eq!(call(&keys, &key, now()).unwrap().cache, CacheOutcome::Miss);
    assert_eq!(call(&keys, &key, later(59.9)).unwrap().cache, CacheOutcome::Hit);
    assert_eq!(call(&keys, &key, later(60.0)).unwrap_err().kind, ApiKeyExpired);
    // Refusals are not kept.
    let early = request(Some(&token(json!({}), json!({ "nbf": NOW + 60 }))), None);
    assert_eq!(call(&keys, &early, now()).unwrap_err().kind, TokenNotYetValid);
    assert_eq!(call(&keys, &early, later(60.0)).unwrap().cache, CacheOutcome::Miss);
}

#[test]
fn an_identity_too_large_for_its_headers_is_refused() {
    assert_eq!(claims_refused(&provided(|_| {}), json!({ "sub": "a".repeat(5000) })), TokenClaim);
}

#[test]
fn the_token_of_a_typical_service_works_with_the_named_exceptions() {
    // jwt.encode({"user_id": …, "email": …, "roles": […], "exp": …}, "a-secret-of-32-bytes-or-more-000", algorithm="HS256") of PyJWT.
    let token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ1c2VyX2lkIjoidXNlci0xMjMiLCJlbWFpbCI6ImFsaWNlQGV4YW1wbGUuY29tIiwicm9sZXMiOlsidmlld2VyIl0sImV4cCI6MTcwMDAwMzYwMH0.ytC3Wmv4dUFRLiP5kuu_sMFH2Kb7p4NW4sT0aD3y_6w";
    let service = provided(|provider| {
        provider.issuer = None;
        provider.audiences.clear();
        provider.insecure_no_audience = true;
        provider.algorithms = vec![Algorithm::HS256];
        provider.keys = KeySource::Secret { at: Position::default(), secret: Secret::new(b"a-secret-of-32-bytes-or-more-000".to_vec()) };
        provider.claims.user_id = path("user_id");
        provider.trust.unverified_email = true;
    });
    let identity = identity(&service, token).unwrap();
    assert_eq!((identity.user_id.as_deref(), identity.user_email.as_deref()), (Some("user-123"), Some("alice@example.com")));
    assert_eq!(identity.roles, ["viewer".into()]);
}

fn google(claims: Value) -> Result<Identity, Failure> {
    let mut config = authentication(Vec::new());
    config.google = Some(config::Google {
        client_ids: vec!["users-api".to_owned()],
        hosted_domains: vec!["example.com".to_owned()],
        service_accounts: vec!["one@p.iam.gserviceaccount.com".to_owned(), "*@whole.iam.gserviceaccount.com".to_owned()],
        user_id_prefix: "g:".to_owned(),
        keys: remote_keys("http://127.0.0.1:1/"),
        at: Position::default(),
    });
    let authenticator = load(&config);
    authenticator.key_sets().next().unwrap().put(&set(&[Key::Rsa.jwk(json!({ "kid": "rsa" }))]));
    let mut whole = json!({ "iss": "https://accounts.google.com", "sub": "1234", "azp": "app", "hd": "example.com", "nbf": null });
    for (name, value) in claims.as_object().unwrap() {
        whole[name] = value.clone();
    }
    identity(&authenticator, &token(json!({}), whole))
}

#[test]
fn google_has_two_spellings_and_vouches_for_people_of_our_domains() {
    for issuer in ["https://accounts.google.com", "accounts.google.com"] {
        let identity = google(json!({ "iss": issuer })).unwrap();
        assert_eq!((identity.user_id.as_deref(), identity.provider.as_deref()), (Some("g:1234"), Some("google")));
        assert_eq!(identity.user_email.as_deref(), Some("alice@example.com"));
        assert!(identity.roles.is_empty(), "roles come only from authorization");
    }
    assert_eq!(google(json!({ "email_verified": false })).unwrap().user_email, None);
    for (claims, kind) in [
        (json!({ "iss": "http://accounts.google.com" }), TokenIssuer),
        (json!({ "aud": "another app" }), TokenAudience),
        (json!({ "iat": null }), TokenClaim),
        (json!({ "hd": null }), TokenClaim),
        (json!({ "hd": "evil.example" }), TokenClaim),
        (json!({ "hd": ["example.com"] }), TokenClaim),
    ] {
        assert_eq!(google(claims.clone()).unwrap_err().kind, kind, "{claims}");
    }
}

#[test]
fn googles_service_accounts_need_a_list() {
    let account = |email: &str| google(json!({ "email": email, "hd": null, "azp": "1234" })).map(|_| ()).map_err(|failure| failure.kind);
    assert_eq!(account("one@p.iam.gserviceaccount.com"), Ok(()));
    assert_eq!(account("any@whole.iam.gserviceaccount.com"), Ok(()));
    for other in [
        "two@p.iam.gserviceaccount.com",
        "any@not-whole.iam.gserviceaccount.com",
        "any@x.whole.iam.gserviceaccount.com",
        "one@developer.gserviceaccount.com",
    ] {
        assert_eq!(account(other), Err(TokenClaim), "{other}");
    }
    // Even with our `hd`, and not by leaving the e-mail out either.
    assert_eq!(google(json!({ "email": "two@p.iam.gserviceaccount.com" })).unwrap_err().kind, TokenClaim);
    assert_eq!(google(json!({ "email": null, "azp": "1234" })).unwrap_err().kind, TokenClaim);
}

#[test]
fn keys_of_files_are_judged_at_load() {
    let errors = |change: &dyn Fn(&mut JwtProvider)| {
        let mut provider = provider();
        change(&mut provider);
        let (_, problems) = try_load(&authentication(vec![provider]), &[]);
        let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(problems.has_errors(), "{text}");
        text
    };
    let secret = |bytes: &[u8]| KeySource::Secret { at: Position::default(), secret: Secret::new(bytes.to_vec()) };
    let hs = |algorithms: &[Algorithm], length: usize| {
        let algorithms = algorithms.to_vec();
        errors(&move |provider| {
            provider.algorithms = algorithms.clone();
            provider.keys = secret(&SECRET[..length]);
        })
    };
    assert!(!hs(&[Algorithm::HS256], 31).contains("secret that"));
    hs(&[Algorithm::HS256, Algorithm::HS384], 47);
    hs(&[Algorithm::HS512], 63);
    let pem = |pem: &'static [u8]| errors(&move |provider| provider.keys = KeySource::PublicKeyFile(file(pem)));
    pem(key_file!("rsa-1024.pub.pem"));
    pem(key_file!("rsa.pem"));
    pem(key_file!("rsa.cert.pem"));
    pem(key_file!("secp256k1.pub.pem"));
    pem(b"not PEM");
    assert!(pem([key_file!("rsa.pub.pem"), key_file!("rsa.pub.pem")].concat().leak()).contains("exactly one"));
    assert!(pem(key_file!("p256.pub.pem")).contains("fits none of the algorithms RS256"));
    errors(&|provider| {
        provider.algorithms = vec![Algorithm::ES256];
        provider.keys = KeySource::PublicKeyFile(file(key_file!("p384.pub.pem")));
    });
    errors(&|provider| provider.keys = KeySource::JwksFile(file(b"{}")));
    errors(&|provider| provider.keys = KeySource::JwksFile(file(&set(&[Key::P256.jwk(json!({}))]))));
    for (pem, algorithm, jwa, key) in [
        (key_file!("rsa.pub.pem"), Algorithm::RS256, Jwa::RS256, Key::Rsa),
        (key_file!("rsa.pkcs1.pub.pem"), Algorithm::PS512, Jwa::PS512, Key::Rsa),
        (key_file!("p256.pub.pem"), Algorithm::ES256, Jwa::ES256, Key::P256),
        (key_file!("p384.pub.pem"), Algorithm::ES384, Jwa::ES384, Key::P384),
        (key_file!("ed25519.pub.pem"), Algorithm::EdDSA, Jwa::EdDSA, Key::Ed25519),
    ] {
        let authenticator = provided(|provider| {
            provider.algorithms = vec![algorithm];
            provider.keys = KeySource::PublicKeyFile(file(pem));
        });
        // The file's key has no kid: the token's is not looked at.
        assert!(identity(&authenticator, &token_by(key, jwa, json!({}), json!({}))).is_ok(), "{algorithm:?}");
    }
}

#[test]
fn a_cached_verdict_ends_when_its_key_is_withdrawn() {
    let authenticator = provided(|provider| provider.keys = KeySource::Remote(remote_keys("http://127.0.0.1:1/")));
    let keys = authenticator.key_sets().next().unwrap();
    let (ours, other) = (Key::Rsa.jwk(json!({ "kid": "rsa" })), Key::OtherRsa.jwk(json!({ "kid": "other" })));
    let request = request(Some(&token(json!({}), json!({}))), None);
    let outcome = || call(&authenticator, &request, now()).map(|authenticated| authenticated.cache).map_err(|failure| failure.kind);
    keys.put(&set(std::slice::from_ref(&ours)));
    assert_eq!((outcome(), outcome()), (Ok(CacheOutcome::Miss), Ok(CacheOutcome::Hit)));
    keys.put(&set(&[other.clone(), ours]));
    assert_eq!(outcome(), Ok(CacheOutcome::Hit), "a refreshed set that still has the key");
    keys.put(&set(&[Key::Rsa.jwk(json!({ "kid": "rsa", "alg": "RS512" })), other.clone()]));
    assert_eq!(outcome(), Err(TokenKeyUnknown), "the key is bound to another algorithm now");
    keys.put(&set(&[other]));
    assert_eq!(outcome(), Err(TokenKeyUnknown));
}

fn any_json() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        proptest::collection::vec(".{0,8}", 0..3).prop_map(Value::from),
        Just(json!({ "a": { "b": 1 } })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_changed_claim_never_makes_another_user(
        name in proptest::sample::select(vec!["iss", "aud", "exp", "nbf", "iat", "email", "email_verified", "name", "roles", "extra"]),
        value in any_json(),
    ) {
        // Properly signed, so that the claims decide: the user stays alice or nobody.
        let text = token(json!({}), json!({ name: value }));
        if let Ok(identity) = identity(&provided(|_| {}), &text) {
            prop_assert_eq!(identity.user_id.as_deref(), Some("alice"));
            prop_assert_eq!(identity.provider.as_deref(), Some("corporate"));
        }
    }

    #[test]
    fn a_changed_byte_never_verifies(at in any::<proptest::sample::Index>(), byte in 0x21u8..0x7f) {
        let mut bytes = token(json!({}), json!({})).into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        let changed = String::from_utf8(bytes).unwrap();
        let refused = identity(&provided(|_| {}), &changed).is_err();
        prop_assert!(refused);
    }
}

fn certificate(common_name: &str) -> PeerCertificate {
    PeerCertificate { common_name: Some(common_name.to_owned()), ..PeerCertificate::read(common_name.as_bytes()) }
}

/// The provider, a key and two certificates, which say different things.
fn with_certificates(change: impl FnOnce(&mut Authentication)) -> Authenticator {
    let mut provider = provider();
    provider.claims.client_id = Some(path("azp"));
    let mut config = authentication(vec![provider]);
    config.api_keys = Some(api_keys(&format!(
        "keys: [{{id: k, client_id: of-key, user_id: svc, sha256: {}, type: service, roles: [batch], expires_at: 2199-01-01T00:00:00Z}}]",
        Digest::of(b"the key").hex()
    )));
    let of = |name: &str, client_id, roles: &[&str]| client_certificate(CertificateName::CommonName(name.to_owned()), client_id, roles);
    config.client_certificates = vec![of("one", "of-one", &["viewer"]), of("two", "of-two", &[])];
    change(&mut config);
    load(&config)
}

fn by(
    authenticator: &Authenticator,
    token: Option<&str>,
    key: Option<&str>,
    certificate: Option<&PeerCertificate>,
) -> Result<Authenticated, Failure> {
    block_on(authenticator.authenticate(&request(token, key), certificate, &Attempts::default(), Digest::of, now()))
}

#[test]
fn a_certificate_alone_is_its_client() {
    let authenticator = with_certificates(|_| {});
    let authenticated = by(&authenticator, None, None, Some(&certificate("one"))).unwrap();
    assert_eq!(authenticated.cache, CacheOutcome::Unused);
    let expected = Identity {
        client_id: Some("of-one".into()),
        roles: vec!["viewer".into()],
        presented: vec!["client_certificates".into()],
        ..Identity::default()
    };
    assert_eq!(authenticated.caller.unwrap().identity, expected);
    assert_eq!(authenticator.presented(&HeaderMap::new(), Some(&certificate("one"))).name(), "client_certificate");
}

#[test]
fn a_certificate_that_matches_nobody_counts_as_no_credential() {
    let nobody = certificate("nobody");
    let authenticator = with_certificates(|_| {});
    let failure = by(&authenticator, None, None, Some(&nobody)).unwrap_err();
    assert_eq!(failure.kind, CredentialsMissing);
    assert!(failure.detail.contains("matches no entry"), "{failure:?}");
    assert!(by(&with_certificates(|config| config.mode = Mode::Optional), None, None, Some(&nobody)).unwrap().caller.is_none());
    let identity = by(&authenticator, Some(&token(json!({}), json!({}))), None, Some(&nobody)).unwrap().caller.unwrap().identity.clone();
    assert_eq!((identity.client_id, identity.presented), (None, vec!["corporate".into()]));
    assert_eq!(authenticator.presented(&HeaderMap::new(), Some(&nobody)), AuthKind::NONE);
    // And where nothing is checked it says nothing either.
    assert!(by(&with_certificates(|config| config.mode = Mode::Disabled), None, None, Some(&certificate("one"))).unwrap().caller.is_none());
}

#[test]
fn the_keys_client_wins_then_the_certificates_then_the_tokens_and_roles_unite() {
    let authenticator = with_certificates(|_| {});
    let (token, one) = (token(json!({}), json!({ "azp": "of-token", "roles": ["admin"] })), certificate("one"));
    for (token, key, certificate, client_id, user_id, roles, kind) in [
        (Some(&token), None, None, "of-token", "alice", "admin", "jwt"),
        (Some(&token), None, Some(&one), "of-one", "alice", "admin viewer", "jwt+client_certificate"),
        (None, Some("the key"), Some(&one), "of-key", "svc", "viewer batch", "api_key+client_certificate"),
        (Some(&token), Some("the key"), Some(&one), "of-key", "alice", "admin viewer batch", "jwt+api_key+client_certificate"),
    ] {
        let (token, request) = (token.map(String::as_str), request(token.map(String::as_str), key));
        let identity = by(&authenticator, token, key, certificate).unwrap().caller.unwrap().identity.clone();
        assert_eq!((&*identity.client_id.unwrap(), &*identity.user_id.unwrap(), &*identity.roles.join(" ")), (client_id, user_id, roles));
        assert_eq!(identity.presented.iter().any(|name| &**name == "client_certificates"), certificate.is_some());
        assert_eq!(authenticator.presented(&request, certificate).name(), kind);
    }
}

#[test]
fn a_certificate_makes_up_for_nothing_that_does_not_verify() {
    let authenticator = with_certificates(|_| {});
    let one = certificate("one");
    let expired = token(json!({}), json!({ "exp": NOW - 3600 }));
    assert_eq!(by(&authenticator, Some(&expired), None, Some(&one)).unwrap_err().kind, TokenExpired);
    assert_eq!(by(&authenticator, None, Some("no key"), Some(&one)).unwrap_err().kind, ApiKeyUnknown);
}

/// The cache must not carry one certificate's client over to whoever shows the same token with another, or with none.
#[test]
fn a_verdict_is_of_its_certificate_too() {
    let authenticator = with_certificates(|_| {});
    let token = token(json!({}), json!({ "azp": "of-token" }));
    let certificates = [Some(certificate("one")), Some(certificate("two")), Some(certificate("nobody")), None];
    for outcomes in [[CacheOutcome::Miss, CacheOutcome::Miss, CacheOutcome::Miss, CacheOutcome::Hit], [CacheOutcome::Hit; 4]] {
        for ((certificate, client_id), outcome) in certificates.iter().zip(["of-one", "of-two", "of-token", "of-token"]).zip(outcomes) {
            let authenticated = by(&authenticator, Some(&token), None, certificate.as_ref()).unwrap();
            assert_eq!(authenticated.caller.unwrap().identity.client_id.as_deref(), Some(client_id));
            assert_eq!(authenticated.cache, outcome, "{client_id}");
        }
    }
}

#[test]
fn an_entry_whose_headers_would_be_too_large_is_an_error() {
    let mut config = authentication(Vec::new());
    config.client_certificates = vec![client_certificate(CertificateName::CommonName("one".to_owned()), &"x".repeat(5000), &[])];
    let headers = Arc::new(IdentityHeaders::compile(&config::IdentityHeaders {
        client_id: Some(HeaderName::from_static("client_id")),
        ..no_headers()
    }));
    let mut problems = Problems::default();
    Authenticator::load(&config, &[], Arc::new(policy()), headers, &mut problems);
    assert!(problems.iter().any(|problem| problem.message.contains("at most 4096")), "{problems:?}");
}

fn revoking(config: &mut Authentication, list: &str) -> Authenticator {
    config.revocations = Some(file(format!("revoked: [{list}]").as_bytes()));
    let (authenticator, problems) = try_load(config, &[]);
    assert_eq!(problems.iter().count(), 0, "{problems:?}");
    authenticator
}

fn change_revocations(authenticator: &Authenticator, list: &str) {
    let mut problems = Problems::default();
    assert!(authenticator.revocations().reload(&file(format!("revoked: [{list}]").as_bytes()), &mut problems), "{problems:?}");
}

#[test]
fn a_cached_verdict_never_outlives_its_revocation() {
    let record =
        format!("keys: [{{id: analytics, client_id: c, sha256: {}, expires_at: 2199-01-01T00:00:00Z}}]", Digest::of(b"a key").hex());
    let mut config = authentication(vec![provider()]);
    config.api_keys = Some(api_keys(&record));
    let authenticator = revoking(&mut config, "");
    let token = token(json!({}), json!({ "jti": "t-1" }));
    for (request, entry, provider, api_key) in [
        (request(Some(&token), None), format!("{{jti: t-1, issuer: '{ISSUER}'}}"), Some("corporate"), None),
        (
            request(Some(&token), None),
            format!("{{user_id: alice, issuer: '{ISSUER}', before: 2199-01-01T00:00:00Z}}"),
            Some("corporate"),
            None,
        ),
        (request(None, Some("a key")), "{api_key: analytics}".to_owned(), None, Some("analytics")),
        (request(Some(&token), Some("a key")), "{api_key: analytics}".to_owned(), Some("corporate"), Some("analytics")),
    ] {
        let outcome = |expected| assert_eq!(call(&authenticator, &request, now()).map(|found| found.cache), Ok(expected), "{entry}");
        call(&authenticator, &request, now()).unwrap();
        outcome(CacheOutcome::Hit);
        let running = call(&authenticator, &request, now()).unwrap().caller.unwrap();
        assert_eq!(authenticator.revoked(&running), None);
        change_revocations(&authenticator, &entry);
        let failure = call(&authenticator, &request, now()).unwrap_err();
        let found = (failure.kind, failure.provider.as_deref(), failure.api_key_id.as_deref());
        assert_eq!(found, (CredentialsRevoked, provider, api_key), "{entry}");
        assert_eq!(authenticator.revoked(&running), Some(failure), "a running call is told the same");
        change_revocations(&authenticator, "");
        outcome(CacheOutcome::Hit);
        assert_eq!(authenticator.revoked(&running), None);
    }
}

#[test]
fn a_revocation_means_the_user_of_the_token_not_of_the_rules() {
    let mut config = authentication(vec![provider()]);
    config.jwt[0].trust.user_id_prefix = "corp:".to_owned();
    let user = |id: &str| format!("{{user_id: '{id}', issuer: '{ISSUER}', before: 2199-01-01T00:00:00Z}}");
    let authenticator = revoking(&mut config, &user("alice"));
    assert_eq!(claims_refused(&authenticator, json!({})), CredentialsRevoked);
    assert_eq!(
        identity(&authenticator, &token(json!({}), json!({ "sub": "corp:alice" }))).unwrap().user_id.as_deref(),
        Some("corp:corp:alice")
    );
    change_revocations(&authenticator, &user("corp:alice"));
    assert!(identity(&authenticator, &token(json!({}), json!({}))).is_ok());
}

#[test]
fn a_token_without_iat_is_revoked_with_its_user_and_a_number_is_an_id() {
    let entries = format!(
        "{{user_id: alice, issuer: '{ISSUER}', before: 1970-01-01T00:00:00Z}}, {{jti: '17', issuer: '{ISSUER}'}}, {{jti: x, issuer: '{ISSUER}'}}"
    );
    let authenticator = revoking(&mut authentication(vec![provider()]), &entries);
    assert_eq!(claims_refused(&authenticator, json!({ "iat": null })), CredentialsRevoked);
    assert_eq!(claims_refused(&authenticator, json!({ "jti": 17 })), CredentialsRevoked);
    for other in [json!({}), json!({ "jti": "1" }), json!({ "jti": 17.0 }), json!({ "jti": ["x"] }), json!({ "jti": "X" })] {
        assert!(identity(&authenticator, &token(json!({}), other.clone())).is_ok(), "{other}");
    }
    assert_eq!(claims_refused(&authenticator, json!({ "jti": "x", "exp": 1 })), TokenExpired, "the revocation is told to nobody else");
}

#[test]
fn a_running_call_knows_when_its_credentials_end() {
    let key_ends = "2023-11-14T22:15:00Z"; // 100 s from now
    let record = format!("keys: [{{id: analytics, client_id: c, sha256: {}, expires_at: {key_ends}}}]", Digest::of(b"a key").hex());
    let mut config = authentication(vec![provider()]);
    config.api_keys = Some(api_keys(&record));
    config.long_calls.on_expiry = LongCall::End;
    let authenticator = load(&config);
    let long = token(json!({}), json!({}));
    let short = token(json!({}), json!({ "exp": NOW + 20 }));
    let after = |seconds| Some(now() + Duration::from_secs(seconds));
    for (request, ends, kind) in [
        (request(Some(&long), None), after(630), TokenExpired),
        (request(None, Some("a key")), after(100), ApiKeyExpired),
        (request(Some(&long), Some("a key")), after(100), ApiKeyExpired),
        (request(Some(&short), Some("a key")), after(50), TokenExpired),
        (request(Some(&token(json!({}), json!({ "exp": 1e300 }))), None), None, TokenExpired),
    ] {
        let caller = call(&authenticator, &request, now()).unwrap().caller.unwrap();
        assert_eq!((authenticator.expiry(&caller), authenticator.expired(&caller).kind), (ends, kind));
    }
    config.long_calls = LongCalls { on_expiry: LongCall::Continue, on_revocation: LongCall::Continue };
    let authenticator = revoking(&mut config, "");
    let caller = call(&authenticator, &request(None, Some("a key")), now()).unwrap().caller.unwrap();
    change_revocations(&authenticator, "{api_key: analytics}");
    assert_eq!((authenticator.expiry(&caller), authenticator.revoked(&caller)), (None, None), "it may go on");
    assert!(call(&authenticator, &request(None, Some("a key")), now()).is_err());
}

/// What an operator reads at three in the morning: which check, what was found, what was expected.
#[test]
fn a_refusal_says_what_was_found_and_what_was_expected() {
    let strict = provided(|provider| {
        provider.algorithms = vec![Algorithm::RS256, Algorithm::ES256];
        provider.keys =
            KeySource::JwksFile(file(&set(&[Key::Rsa.jwk(json!({ "kid": "rsa" })), Key::P256.jwk(json!({ "kid": "p", "alg": "ES256" }))])));
        provider.token_types = vec!["JWT".to_owned(), "at+jwt".to_owned()];
        provider.max_lifetime = Some(Duration::from_secs(3600));
        provider.required_claims = vec![(path("azp"), vec!["web".to_owned(), "cli".to_owned()])];
    });
    let of = |header: Value, claims: Value| {
        let mut whole = json!({ "azp": "web" });
        merge_all(&mut whole, claims);
        let failure = identity(&strict, &token(header, whole)).unwrap_err();
        assert_eq!(failure.provider.is_some(), failure.kind != TokenIssuer);
        failure.detail
    };
    for (header, claims, words) in [
        (
            json!({}),
            json!({ "iss": "https://evil/\n" }),
            r#"iss is "https://evil/\n", expected one of the 1 configured: "https://auth.example.com/""#,
        ),
        (json!({ "alg": "none" }), json!({}), r#"alg is "none", expected one of RS256, ES256"#),
        (
            json!({ "kid": "k9" }),
            json!({}),
            r#"kid is "k9"; 0 of 2 keys of the configuration have it and are for RS256: "rsa" (RSA), "p" (P-256, ES256 only)"#,
        ),
        (
            json!({ "alg": "ES256" }),
            json!({}),
            r#"kid is "rsa"; 0 of 2 keys of the configuration have it and are for ES256: "rsa" (RSA), "p" (P-256, ES256 only)"#,
        ),
        (json!({ "typ": "dpop+jwt" }), json!({}), r#"typ is "dpop+jwt", expected one of JWT, at+jwt"#),
        (json!({ "typ": null }), json!({}), "typ is missing, expected one of JWT, at+jwt"),
        (json!({}), json!({ "exp": "soon" }), r#"exp is "soon", expected a number"#),
        (json!({}), json!({ "exp": null }), "exp is missing, expected a date"),
        (json!({}), json!({ "exp": NOW - 42 }), "exp is 2023-11-14T22:12:38Z, 42 s ago, expected later than now (leeway 30 s)"),
        (json!({}), json!({ "nbf": NOW + 31 }), "nbf is 2023-11-14T22:13:51Z, 31 s ahead, expected no later than now (leeway 30 s)"),
        (json!({}), json!({ "iat": 1e300 }), "iat is 1e300, more than 1000 years ahead, expected no later than now (leeway 30 s)"),
        (json!({}), json!({ "iat": null }), "iat is missing, expected a date"),
        (json!({}), json!({ "exp": NOW + 3541 }), "exp - iat is 3601 s, expected 3600 s at most (max_lifetime)"),
        (json!({}), json!({ "aud": ["evil"] }), r#"aud is ["evil"], expected one of users-api"#),
        (json!({}), json!({ "aud": null }), "aud is missing, expected one of users-api"),
        (
            json!({}),
            json!({ "aud": ["users-api", 1] }),
            r#"aud is ["users-api",1], expected one of users-api, as a string or a list of strings"#,
        ),
        (json!({}), json!({ "azp": "evil" }), r#"azp is "evil", expected one of web, cli (required_claims)"#),
        (json!({}), json!({ "sub": 7 }), "sub is 7, expected the user id, a non-empty string"),
        (json!({}), json!({ "sub": "a".repeat(5000) }), "the identity headers need 5007 bytes; at most 4096 are added to a call"),
    ] {
        assert_eq!(of(header, claims), words);
    }
    let other = token_by(Key::OtherRsa, Jwa::RS256, json!({}), json!({}));
    assert_eq!(
        identity(&strict, &other).unwrap_err().detail,
        r#"the signature does not verify with any of the keys it may be of: "rsa" (RSA)"#
    );
    let long = of(json!({}), json!({ "aud": "x".repeat(5000) }));
    assert!(long.len() < 400 && long.ends_with("…, expected one of users-api"), "{long}");
}

fn merge_all(target: &mut Value, changes: Value) {
    target.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
}

#[test]
fn a_refused_api_key_says_why_without_a_byte_of_it() {
    let keys = with_keys(|_| {});
    let detail = |key: &str| call(&keys, &request(None, Some(key)), now()).unwrap_err().detail;
    let made = crate::api_keys::key::NewKey::generate("analytics").unwrap();
    let gone = made.text();
    let mistyped = format!("{}{}", &gone[..gone.len() - 1], if gone.ends_with('0') { '1' } else { '0' });
    for (key, words) in [
        (gone, "it is a whole key that was made for the id analytics"),
        (mistyped.as_str(), "its check digits are wrong"),
        (&gone[..30], "mistyped, or cut off"),
        ("unheard-of", "it is not of our making"),
    ] {
        let detail = detail(key);
        let digest = Digest::of(key.as_bytes()).short();
        assert!(detail.contains(words) && detail.contains("one of the 4 records") && detail.contains(&digest), "{detail}");
        assert!(!detail.contains(key) && !detail.contains(&gone[14..]), "{detail}");
    }
    assert_eq!(detail("revoked"), "revoked_at of the record revoked is 2023-01-01T00:00:00Z, 317 days ago, expected none that has passed");
    assert_eq!(detail("expired"), "expires_at of the record expired is 2023-11-14T22:13:20Z, 0 s ago, expected none that has passed");
}

#[test]
fn a_revocation_says_which_entry_it_was() {
    let token = token(json!({}), json!({ "jti": "t-1" }));
    for (entry, words) in [
        (format!("{{jti: t-1, issuer: '{ISSUER}'}}"), "names the jti"),
        (format!("{{user_id: alice, issuer: '{ISSUER}', before: 2199-01-01T00:00:00Z}}"), "names the user before 2199-01-01T00:00:00Z"),
    ] {
        let authenticator = revoking(&mut authentication(vec![provider()]), &entry);
        let known_by = format!(r#"iss "{ISSUER}", jti "t-1", the user "alice", iat 2023-11-14T22:12:20Z"#);
        assert_eq!(identity(&authenticator, &token).unwrap_err().detail, format!("the revocations file {words}: {known_by}"));
        assert_eq!(refused(&authenticator, &token), CredentialsRevoked);
    }
}

#[test]
fn malformed_fields_are_told_without_what_is_in_them() {
    let keys = with_keys(|_| {});
    for (field, words) in [
        ("", "is empty"),
        ("Basic dXNlcjpwYXNzd29yZA==", "has the scheme Basic"),
        ("hunter2", "is one word of 7 bytes without a scheme"),
        ("hunter2 hunter2", "has another scheme"),
        ("Bearer", "has no token after `Bearer`"),
        ("Bearer hunter2 hunter2", "has 2 words after `Bearer`"),
        ("Bearer hunter2\t", "has bytes in its token that no token has"),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(field).unwrap());
        let failure = call(&keys, &headers, now()).unwrap_err();
        assert_eq!(failure.detail, format!("the authorization field {words}, expected `Bearer`, a space and one token"));
        headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        assert_eq!(call(&keys, &headers, now()).unwrap_err().detail, "2 authorization fields, expected one at most");
        assert_eq!(explained(&keys, &headers).len(), 1);
    }
}

#[test]
fn why_keys_cannot_be_had_is_told() {
    let mut config = remote_keys("http://127.0.0.1:1/");
    config.timeout = Duration::from_millis(10);
    let authenticator = provided(|provider| provider.keys = KeySource::Remote(config));
    let detail = || identity(&authenticator, &token(json!({ "kid": "k9" }), json!({}))).unwrap_err().detail;
    assert_eq!(detail(), "the key set has never been had");
    let keys = authenticator.key_sets().next().unwrap();
    keys.put(&set(&[Key::Rsa.jwk(json!({ "kid": "rsa" }))]));
    let told = detail();
    let words =
        |seconds: u32| format!(r#"kid is "k9"; 0 of 1 keys of the set fetched {seconds} s ago have it and are for RS256: "rsa" (RSA)"#);
    assert!((0..60).any(|seconds| told == words(seconds)), "{told}");
}

/// One run shows everything that is wrong; the answer is that of the first check.
#[test]
fn an_explanation_goes_on_after_the_first_failure() {
    let mut provider = provider();
    provider.trust.roles = Allowed::These(vec!["viewer".to_owned()]);
    provider.claims.permissions = Some(path("scope"));
    let mut config = authentication(vec![provider]);
    config.api_keys = Some(api_keys("keys: []"));
    let authenticator = load(&config);
    let wrong = token_by(
        Key::OtherRsa,
        Jwa::RS256,
        json!({}),
        json!({ "exp": NOW - 100, "aud": "evil", "sub": "", "email_verified": false, "scope": "openid users:read *:*" }),
    );
    let steps = explained(&authenticator, &request(Some(&wrong), Some("no key")));
    let failed: Vec<&str> =
        steps.iter().filter(|(outcome, _)| *outcome == Outcome::Failed).filter_map(|(_, words)| words.split(' ').next()).collect();
    assert_eq!(failed, ["the", "the", "exp", "aud", "sub"], "key, signature and claims: {steps:?}");
    assert_eq!(call(&authenticator, &request(Some(&wrong), Some("no key")), now()).unwrap_err().kind, ApiKeyUnknown);
    assert_eq!(call(&authenticator, &request(Some(&wrong), None), now()).unwrap_err().kind, TokenSignature);

    let right = token(json!({}), json!({ "email_verified": false, "scope": "openid users:read *:*" }));
    let request = request(Some(&right), None);
    call(&authenticator, &request, now()).unwrap();
    let steps = explained(&authenticator, &request);
    let expected = [
        (Outcome::Passed, format!("the request has a bearer token, SHA-256 {}…", Digest::of(right.as_bytes()).short())),
        (Outcome::Passed, "the token is a signed JWT".to_owned()),
        (Outcome::Passed, format!("iss is \"{ISSUER}\": the provider corporate")),
        (Outcome::Passed, r#"alg is "RS256", expected one of RS256"#.to_owned()),
        (Outcome::Passed, r#"kid is "rsa"; 1 of 1 keys of the configuration have it and are for RS256: "rsa" (RSA)"#.to_owned()),
        (Outcome::Passed, r#"the signature verifies with "rsa" (RSA)"#.to_owned()),
        (Outcome::Passed, "exp is 2023-11-14T22:23:20Z, 10 min ahead, expected later than now (leeway 30 s)".to_owned()),
        (Outcome::Passed, "nbf is 2023-11-14T22:12:20Z, 60 s ago, expected no later than now (leeway 30 s)".to_owned()),
        (Outcome::Passed, "iat is 2023-11-14T22:12:20Z, 60 s ago, expected no later than now (leeway 30 s)".to_owned()),
        (Outcome::Passed, r#"aud is "users-api", expected one of users-api"#.to_owned()),
        (Outcome::Passed, r#"sub is "alice", expected the user id, a non-empty string"#.to_owned()),
        (Outcome::Noted, r#"email is "alice@example.com" and counts as absent, as email_verified is not true"#.to_owned()),
        (Outcome::Noted, r#"roles is ["viewer","admin"]; kept: viewer; dropped, as trust.roles does not have them: admin"#.to_owned()),
        (Outcome::Noted, r#"scope is "openid users:read *:*", of which permissions are users:read"#.to_owned()),
        (Outcome::Passed, "nothing is revoked: authentication.revocations is not set".to_owned()),
    ];
    assert_eq!(steps, expected, "also when a verdict is cached");
}
