//! The typical service of the gRPC guides: an HS256 token of user_id, email, roles and exp made with PyJWT, `x-api-key`,
//! roles by method. Its interceptors are gone; Doorward does their work and the service reads its metadata.

use crate::harness::python::pyjwt;
use crate::harness::site::sha256_hex;
use crate::harness::*;
use serde_json::{Value, json};

/// What such a service calls its secret; only longer, since one shorter than its hash is refused.
const SECRET: &str = "your-secret-key-but-of-at-least-thirty-two-bytes";

const CONFIGURATION: &str = r#"
authentication:
  jwt:
    - name: guide
      insecure_no_issuer: true
      insecure_no_audience: true
      algorithms: [HS256]
      secret_file: guide.secret
      claims: { user_id: user_id }
      trust: { unverified_email: true }
  api_keys: { header: x-api-key, file: guide-keys.yaml }
authorization:
  roles:
    user: [users:read]
    admin: [users:read, users:write, users:delete]
  methods:
    /api.users.UserService/GetUser: users:read
    /api.users.UserService/ServerStreamUsers: users:read
    /api.users.UserService/CreateUser: users:write
    /api.users.UserService/DeleteUser: users:delete
"#;

fn running() -> (PythonUpstream, Doorward) {
    let (site, upstream) = (Site::new(), PythonUpstream::start());
    // `echo secret > file`, as everyone does: one final newline is not part of it.
    site.write("guide.secret", format!("{SECRET}\n"));
    let key = sha256_hex("sk_live_abc123");
    site.write(
        "guide-keys.yaml",
        format!("keys:\n  - {{ id: mobile, client_id: mobile-app, sha256: {key}, type: service, permissions: ['users:read'], expires_at: 2199-01-01T00:00:00Z }}\n"),
    );
    let doorward = site.start(&configuration(&upstream.url(), CONFIGURATION));
    (upstream, doorward)
}

/// `jwt.encode({"user_id": …, "email": …, "roles": […], "exp": datetime.utcnow() + timedelta(…)}, SECRET, algorithm="HS256")`
fn token(roles: &[&str], expires_in: i64) -> String {
    let claims = json!({"user_id": "user-123", "email": "user@example.com", "roles": roles, "expires_in": expires_in});
    pyjwt(claims, SECRET, "HS256")
}

#[test]
fn the_token_of_the_guide_works_and_the_upstream_reads_its_metadata() {
    let (_upstream, doorward) = running();
    let answer = doorward.call(call("/api.users.UserService/GetUser").bearer(&token(&["user"], 3600)));
    assert_eq!(answer.upstream_saw("user_id"), ["user-123"]);
    assert_eq!(answer.upstream_saw("user_email"), ["user@example.com"]);
    assert_eq!(answer.upstream_saw("roles"), ["user"]);
    assert_eq!(answer.upstream_saw("permissions"), ["users:read"]);
    for absent in ["authorization", "x-api-key", "client_id", "api_key_id", "user_name"] {
        assert!(answer.upstream_saw(absent).is_empty(), "{absent}");
    }
}

#[test]
fn roles_decide_by_method() {
    let (upstream, doorward) = running();
    let (user, admin) = (token(&["user"], 3600), token(&["admin", "user"], 3600));
    let to = |method: &str, token: &str| call(&format!("/api.users.UserService/{method}")).bearer(token);
    let answers = doorward.calls(&[
        to("GetUser", &user),
        to("ServerStreamUsers", &user),
        to("CreateUser", &user),
        to("DeleteUser", &user),
        to("CreateUser", &admin),
        to("DeleteUser", &admin),
        to("NoSuchMethod", &admin),
    ]);
    let refusals: Vec<(u64, &str)> = answers.iter().map(Answer::refusal).collect();
    let missing = (7, "PERMISSION_MISSING");
    assert_eq!(refusals, [(0, ""), (0, ""), missing, missing, (0, ""), (0, ""), (7, "METHOD_NOT_ALLOWED")]);
    assert_eq!(answers[2].0["error_metadata"]["permission"], "users:write");
    upstream.assert_calls(4);
}

#[test]
fn what_the_guides_interceptor_refuses_is_refused() {
    let (upstream, doorward) = running();
    let method = "/api.users.UserService/GetUser";
    let other_secret =
        pyjwt(json!({"user_id": "u", "roles": ["admin"], "expires_in": 60}), "another-secret-key-of-at-least-32-bytes!", "HS256");
    let answers = doorward.calls(&[
        call(method),
        call(method).bearer(&token(&["user"], -1000)),
        call(method).bearer(&other_secret),
        call(method).bearer("invalid"),
        call(method).api_key("sk_live_wrong"),
    ]);
    let refusals: Vec<(u64, &str)> = answers.iter().map(Answer::refusal).collect();
    let expected =
        ["CREDENTIALS_MISSING", "TOKEN_EXPIRED", "TOKEN_SIGNATURE", "TOKEN_MALFORMED", "API_KEY_UNKNOWN"].map(|reason| (16, reason));
    assert_eq!(refusals, expected);
    assert_eq!(upstream.calls(), Vec::<Value>::new());
}

#[test]
fn an_api_key_alone_and_with_a_token() {
    let (_upstream, doorward) = running();
    let method = "/api.users.UserService/GetUser";
    let answers =
        doorward.calls(&[call(method).api_key("sk_live_abc123"), call(method).api_key("sk_live_abc123").bearer(&token(&["admin"], 3600))]);
    assert_eq!(answers[0].upstream_saw("client_id"), ["mobile-app"]);
    assert_eq!(answers[0].upstream_saw("permissions"), ["users:read"]);
    assert!(answers[0].upstream_saw("user_id").is_empty());
    assert_eq!(answers[1].upstream_saw("client_id"), ["mobile-app"]);
    assert_eq!(answers[1].upstream_saw("user_id"), ["user-123"]);
    assert_eq!(answers[1].upstream_saw("permissions"), ["users:delete,users:read,users:write"]);
}
