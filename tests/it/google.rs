//! Google ID tokens, verified against a stand-in for Google's key set.

use crate::harness::token::RSA;
use crate::harness::*;
use serde_json::{Value, json};

const METHOD: &str = "/demo.v1.Echo/Unary";

fn configured(server: &KeyServer, more: &str) -> String {
    format!(
        "authentication:\n  google: {{ client_ids: [1234.apps.googleusercontent.com], user_id_prefix: 'google:', jwks_url: \"{}\"{more} }}\n\
         authorization:\n  default: authenticated\n  roles: {{ viewer: [users:read] }}\n  users: {{ 'google:1001': [viewer] }}\n  methods: {{ /demo.v1.Users/Get: users:read }}\n",
        server.url()
    )
}

/// A person's token as Google makes them, changed.
fn person(changes: Value) -> String {
    let mut whole = json!({
        "iss": "https://accounts.google.com", "aud": "1234.apps.googleusercontent.com", "azp": "1234.apps.googleusercontent.com", "sub": "1001",
        "hd": "example.com", "email": "alice@example.com", "email_verified": true, "name": "Alice", "iat": now() - 1, "exp": now() + 600,
    });
    let object = whole.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        object.insert(name.clone(), value.clone());
    }
    object.retain(|_, value| !value.is_null());
    RSA.token(&whole)
}

#[track_caller]
fn holds(more: &str, table: Vec<(&str, String, &str)>) -> Vec<Answer> {
    let (upstream, server) = (PythonUpstream::start(), KeyServer::with_keys(&[&RSA.jwk]));
    let doorward = Site::new().start(&configuration(&upstream.url(), &configured(&server, more)));
    let answers = doorward.calls(&table.iter().map(|(_, token, _)| call(METHOD).bearer(token)).collect::<Vec<_>>());
    for ((what, _, reason), answer) in table.iter().zip(&answers) {
        assert_eq!(answer.refusal(), (if reason.is_empty() { 0 } else { 16 }, *reason), "{what}: {answer:?}");
    }
    answers
}

#[test]
fn a_persons_token_is_verified() {
    let answers = holds(
        "",
        vec![
            ("good", person(json!({})), ""),
            ("the issuer's other spelling", person(json!({"iss": "accounts.google.com"})), ""),
            ("another issuer", person(json!({"iss": "https://accounts.google.com/"})), "TOKEN_ISSUER"),
            ("for another client", person(json!({"aud": "5678.apps.googleusercontent.com"})), "TOKEN_AUDIENCE"),
            ("expired", person(json!({"exp": now() - 600})), "TOKEN_EXPIRED"),
            ("no iat", person(json!({"iat": null})), "TOKEN_CLAIM"),
            ("no sub", person(json!({"sub": null})), "TOKEN_CLAIM"),
        ],
    );
    assert_eq!(answers[0].upstream_saw("user_id"), ["google:1001"]);
    assert_eq!(answers[0].upstream_saw("user_email"), ["alice@example.com"]);
}

#[test]
fn a_hosted_domain_is_asked_of_people() {
    holds(
        ", hosted_domains: [example.com]",
        vec![
            ("ours", person(json!({})), ""),
            ("another", person(json!({"hd": "example.org"})), "TOKEN_CLAIM"),
            ("none, an address alone proves nothing", person(json!({"hd": null})), "TOKEN_CLAIM"),
        ],
    );
}

#[test]
fn a_service_account_is_let_in_only_by_name() {
    let account = |email: &str| person(json!({"hd": null, "sub": "2002", "email": email}));
    let unverified = person(json!({"hd": null, "email": "batch@ours.iam.gserviceaccount.com", "email_verified": false}));
    holds(
        ", hosted_domains: [example.com], service_accounts: [exact@other.iam.gserviceaccount.com, '*@ours.iam.gserviceaccount.com']",
        vec![
            ("of our project", account("batch@ours.iam.gserviceaccount.com"), ""),
            ("by its name", account("exact@other.iam.gserviceaccount.com"), ""),
            ("of another project", account("batch@other.iam.gserviceaccount.com"), "TOKEN_CLAIM"),
            ("of a project that ends alike", account("batch@not-ours.iam.gserviceaccount.com"), "TOKEN_CLAIM"),
            ("unverified", unverified, "TOKEN_CLAIM"),
        ],
    );
    holds("", vec![("none is listed", account("batch@ours.iam.gserviceaccount.com"), "TOKEN_CLAIM")]);
}

#[test]
fn roles_come_only_from_the_configuration() {
    let (upstream, server) = (PythonUpstream::start(), KeyServer::with_keys(&[&RSA.jwk]));
    let doorward = Site::new().start(&configuration(&upstream.url(), &configured(&server, "")));
    let answers = doorward.calls(&[
        call("/demo.v1.Users/Get").bearer(&person(json!({}))),
        call("/demo.v1.Users/Get").bearer(&person(json!({"sub": "3003", "roles": ["viewer"]}))),
    ]);
    assert_eq!([answers[0].refusal(), answers[1].refusal()], [(0, ""), (7, "PERMISSION_MISSING")]);
}
