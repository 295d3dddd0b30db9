//! May they: permissions of roles, users, clients and keys; which rule decides; what a refusal says.

use crate::harness::token::bearer;
use crate::harness::*;
use serde_json::{Value, json};

const RULES: &str = r#"
authentication:
  jwt:
    - { name: corporate, issuer: https://issuer.test/, audiences: [users-api], algorithms: [HS256], secret_file: hmac.secret,
        claims: { client_id: azp, permissions: scope } }
  api_keys: { header: x-api-key, file: api-keys.yaml }
authorization:
  roles:
    viewer: [users:read]
    editor: [users:read, users:write]
    reader_of_all: ["*:read"]
    lord_of_users: ["users:*"]
    admin: ["*:*"]
  users: { bob: [admin], carol@example.com: [editor] }
  clients: { batch: [editor], plain-service: [editor] }
  methods:
    /demo.v1.Users/Get: users:read
    /demo.v1.Users/Write: users:write
    /demo.v1.Users/AnyOf: [users:write, reports:read]
    /demo.v1.Users/AllOf: { all_of: [users:read, users:write] }
    /demo.v1.Users/Both: { any_of: [users:read, reports:read], all_of: [users:write] }
    /demo.v1.Users/FromKeys: { from: [api_keys] }
    /demo.v1.Users/FromCorporate: { any_of: [users:write], from: [corporate] }
    /demo.v1.Users/*: authenticated
    /demo.*: reports:read
    /demo.v1.deep.*: orders:read
    /demo.v1.deep.er.Things/*: users:read
"#;

fn of(method: &str, changes: Value) -> Call {
    call(&format!("/demo.v1.{method}")).bearer(&token(changes))
}

#[track_caller]
fn holds(rest: &str, table: Vec<(&str, Call, &str)>) -> Vec<Answer> {
    let upstream = PythonUpstream::start();
    let doorward = Site::new().start(&configuration(&upstream.url(), rest));
    let answers = doorward.calls(&table.iter().map(|(_, call, _)| call.clone()).collect::<Vec<_>>());
    let mut wrong = Vec::new();
    for ((what, _, reason), answer) in table.iter().zip(&answers) {
        let expected = (if reason.is_empty() { 0 } else { 7 }, *reason);
        if answer.refusal() != expected {
            wrong.push(format!("{what}: expected {expected:?}, got {:?} {}", answer.refusal(), answer.details()));
        }
        if !answer.trailing("www-authenticate").is_empty() {
            wrong.push(format!("{what}: www-authenticate is for 16 only"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    upstream.assert_calls(table.iter().filter(|(_, _, reason)| reason.is_empty()).count());
    answers
}

#[test]
fn permissions_come_from_roles_users_clients_and_credentials() {
    let (missing, key) = ("PERMISSION_MISSING", "key-without-a-user");
    let nobody = json!({"sub": "nobody", "roles": null, "email": null});
    let also = |more: Value| {
        let mut whole = nobody.clone();
        whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        whole
    };
    holds(
        RULES,
        vec![
            ("a role of the token", of("Users/Get", json!({})), ""),
            ("that grants only this", of("Users/Write", json!({})), missing),
            ("no role at all", of("Users/Get", nobody.clone()), missing),
            ("roles as one text", of("Users/Write", also(json!({"roles": "viewer editor"}))), ""),
            ("roles of a wrong type", of("Users/Get", also(json!({"roles": {"viewer": true}}))), missing),
            ("roles not all text", of("Users/Get", also(json!({"roles": ["viewer", 1]}))), missing),
            ("an undefined role", of("Users/Get", also(json!({"roles": ["emperor"]}))), missing),
            ("a role in another case", of("Users/Get", also(json!({"roles": ["Viewer"]}))), missing),
            ("*:read", of("Users/Get", also(json!({"roles": ["reader_of_all"]}))), ""),
            ("*:read is not write", of("Users/Write", also(json!({"roles": ["reader_of_all"]}))), missing),
            ("users:*", of("Users/Write", also(json!({"roles": ["lord_of_users"]}))), ""),
            ("*:*", of("Users/Write", also(json!({"roles": ["admin"]}))), ""),
            ("a user by id", of("Users/Write", also(json!({"sub": "bob"}))), ""),
            ("a user by e-mail", of("Users/Write", also(json!({"email": "carol@example.com"}))), ""),
            ("only verified", of("Users/Write", also(json!({"email": "carol@example.com", "email_verified": "true"}))), missing),
            ("an id is no e-mail", of("Users/Write", also(json!({"sub": "carol@example.com"}))), missing),
            ("a client of the token", of("Users/Write", also(json!({"azp": "batch"}))), ""),
            ("a client of a key", call("/demo.v1.Users/Write").api_key(key), ""),
            ("a permission of the token", of("Users/Write", also(json!({"scope": "users:write"}))), ""),
            ("never with a star", of("Users/Write", also(json!({"scope": "users:* *:*"}))), missing),
            ("a permission of the key", call("/demo.v1.Users/AnyOf").api_key(API_KEY), ""),
            ("the union of both", of("Users/Both", json!({"azp": "x"})).api_key(key), ""),
            ("the key's client wins over the token's", of("Users/Write", also(json!({"azp": "batch"}))).api_key(API_KEY), missing),
        ],
    );
}

#[test]
fn exact_beats_service_beats_the_longest_package_and_order_never_matters() {
    let anybody = json!({"roles": null});
    holds(
        RULES,
        vec![
            ("exact", of("Users/Get", anybody.clone()), "PERMISSION_MISSING"),
            ("service", of("Users/Something", anybody.clone()), ""),
            ("package", of("Other/Something", anybody.clone()), "PERMISSION_MISSING"),
            ("longer package", of("deep.Things/Get", json!({})), "PERMISSION_MISSING"),
            ("service in a package", of("deep.er.Things/Get", json!({})), ""),
            ("a package is not a prefix of text", call("/demos.Things/Get").bearer(&token(json!({}))), "METHOD_NOT_ALLOWED"),
            ("no rule", call("/elsewhere.Things/Get").bearer(&token(json!({"roles": ["admin"]}))), "METHOD_NOT_ALLOWED"),
            ("case counts", of("users/Something", json!({})), "PERMISSION_MISSING"),
        ],
    );
}

#[test]
fn any_of_all_of_and_from() {
    let (editor, viewer) = (json!({"roles": ["editor"]}), json!({}));
    let answers = holds(
        RULES,
        vec![
            ("any of, the first", of("Users/AnyOf", editor.clone()), ""),
            ("any of, none", of("Users/AnyOf", viewer.clone()), "PERMISSION_MISSING"),
            ("all of", of("Users/AllOf", editor.clone()), ""),
            ("all of, one missing", of("Users/AllOf", viewer.clone()), "PERMISSION_MISSING"),
            ("both", of("Users/Both", editor.clone()), ""),
            ("both, all_of missing", of("Users/Both", viewer.clone()), "PERMISSION_MISSING"),
            ("from a key", call("/demo.v1.Users/FromKeys").api_key(API_KEY), ""),
            ("from a token only", of("Users/FromKeys", json!({"roles": ["admin"]})), "CREDENTIALS_NOT_ACCEPTED"),
            ("from one of two presented", of("Users/FromKeys", json!({})).api_key(API_KEY), ""),
            ("from is decided before permissions", call("/demo.v1.Users/FromCorporate").api_key(API_KEY), "CREDENTIALS_NOT_ACCEPTED"),
            ("then permissions", of("Users/FromCorporate", json!({})), "PERMISSION_MISSING"),
        ],
    );
    let permission = |index: usize| answers[index].0["error_metadata"]["permission"].as_str().unwrap_or_default();
    assert!(permission(1).contains("users:write"), "{}", permission(1));
    assert_eq!(permission(3), "users:write");
}

#[test]
fn default_authenticated_lets_any_known_caller_to_methods_without_a_rule() {
    let rest = RULES.replace("authorization:\n", "authorization:\n  default: authenticated\n");
    let upstream = PythonUpstream::start();
    let doorward = Site::new().start(&configuration(&upstream.url(), &rest));
    let answers = doorward.calls(&[call("/elsewhere.Things/Get").bearer(&token(json!({}))), call("/elsewhere.Things/Get")]);
    assert_eq!((answers[0].code(), answers[1].refusal()), (0, (16, "CREDENTIALS_MISSING")));
}

#[test]
fn audit_lets_permission_denied_through_and_records_it_but_authentication_still_refuses() {
    let rest = RULES.replace("authorization:\n", "authorization:\n  audit: true\n");
    let upstream = PythonUpstream::start();
    let doorward = Site::new().start(&configuration(&upstream.url(), &rest));
    let answers = doorward.calls(&[
        of("Users/Write", json!({})),
        call("/elsewhere.Things/Get").bearer(&token(json!({}))),
        call("/demo.v1.Users/Get"),
    ]);
    assert_eq!([answers[0].code(), answers[1].code()], [0, 0]);
    assert_eq!(answers[2].refusal(), (16, "CREDENTIALS_MISSING"));
    let lines = doorward.access_lines(3);
    assert_eq!([&lines[0]["audited"], &lines[1]["audited"]], ["PERMISSION_MISSING", "METHOD_NOT_ALLOWED"]);
    assert_eq!(lines[2]["reason"], "CREDENTIALS_MISSING");
    for (reason, count) in [("PERMISSION_MISSING", 1.0), ("METHOD_NOT_ALLOWED", 1.0), ("CREDENTIALS_MISSING", 0.0)] {
        assert_eq!(doorward.metric("doorward_audited_total", &[&format!("reason=\"{reason}\"")]), count, "{reason}");
    }
    assert_eq!(answers[0].upstream_saw("user_id"), ["alice"], "who is known stays known");
}

#[tokio::test]
async fn a_refusal_of_either_kind_is_a_trailers_only_answer() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), RULES));
    let mut wire = Wire::connect(&doorward).await;
    let authorization = bearer(json!({}));
    let answer = wire.call(request("/demo.v1.Users/Write", &[("authorization", &authorization)])).await;
    assert!(answer.is_trailers_only(), "{answer:?}");
    let info = answer.error_info().unwrap();
    assert_eq!((answer.grpc_status(), info.reason.as_str(), info.domain.as_str()), (Some(7), "PERMISSION_MISSING", "doorward"));
    let lines = doorward.access_lines(1);
    assert_eq!(lines[0]["request_id"], info.metadata["request_id"].as_str(), "the answer names its log line");
    assert!(upstream.seen().is_empty());
}
