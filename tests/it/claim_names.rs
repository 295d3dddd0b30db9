//! Which claim says what: tokens in the shapes that widespread providers give them, and what the upstream is told of each.

use crate::harness::token::hs256;
use crate::harness::*;
use serde_json::{Value, json};

/// One provider for each shape, with the `claims` that fit it; the issuer is `https://<name>.test/`.
const PROVIDERS: [(&str, &str); 4] = [
    ("keycloak", "{ name: preferred_username, roles: realm_access.roles, client_id: azp, permissions: scope }"),
    ("of-a-client", "{ roles: resource_access.users-api.roles, client_id: azp }"),
    ("okta", "{ roles: groups, client_id: cid, permissions: scp }"),
    ("entra", "{ user_id: oid, email: preferred_username, client_id: azp, permissions: scp }"),
];

fn configured() -> String {
    let provider = |(name, claims): (&str, &str)| {
        format!(
            "    - {{ name: {name}, issuer: \"https://{name}.test/\", audiences: [users-api], algorithms: [HS256], secret_file: hmac.secret, \
             claims: {claims}, trust: {{ roles: ['*'], email_domains: ['*'], unverified_email: true }} }}\n"
        )
    };
    let providers: String = PROVIDERS.map(provider).concat();
    format!(
        "authentication:\n  jwt:\n{providers}authorization: {{ default: authenticated, roles: {{ viewer: [users:read], editor: [users:write] }} }}\n"
    )
}

#[test]
fn nested_roles_scopes_and_clients_reach_the_upstream() {
    // Issuer, claims beside the registered ones, then roles, permissions and client as the upstream sees them.
    let table = [
        (
            "keycloak",
            json!({"realm_access": {"roles": ["viewer", "offline_access", "editor"]}, "azp": "web", "scope": "openid email reports:read"}),
            ["editor,viewer", "reports:read,users:read,users:write", "web"],
        ),
        ("keycloak", json!({"realm_access": {"roles": "viewer editor"}}), ["editor,viewer", "users:read,users:write", ""]),
        // What is not where the path leads is absent, also when something else stands there.
        ("keycloak", json!({"realm_access": ["viewer"], "roles": ["viewer"], "azp": ["web"], "scope": {"users:read": true}}), ["", "", ""]),
        ("keycloak", json!({"realm_access.roles": ["viewer"], "realm_access": {"roles": ["editor"]}}), ["viewer", "users:read", ""]),
        (
            "of-a-client",
            json!({"resource_access": {"users-api": {"roles": ["viewer"]}, "account": {"roles": ["editor"]}}, "azp": "batch"}),
            ["viewer", "users:read", "batch"],
        ),
        (
            "okta",
            json!({"groups": ["editor"], "cid": "0oa1", "scp": ["openid", "reports:read"]}),
            ["editor", "reports:read,users:write", "0oa1"],
        ),
        (
            "entra",
            json!({"oid": "alice", "roles": ["viewer"], "azp": "4f1c", "scp": "reports:read"}),
            ["viewer", "reports:read,users:read", "4f1c"],
        ),
    ];
    let (site, upstream) = (Site::new(), PythonUpstream::start());
    let doorward = site.start(&configuration(&upstream.url(), &configured()));
    let token = |provider: &str, more: &Value| {
        let mut claims = claims(json!({"iss": format!("https://{provider}.test/"), "roles": null}));
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        hs256(r#"{"alg":"HS256"}"#, &claims.to_string())
    };
    let calls: Vec<Call> = table.iter().map(|(provider, more, _)| call("/demo.v1.Echo/Unary").bearer(&token(provider, more))).collect();
    for ((provider, more, expected), answer) in table.iter().zip(doorward.calls(&calls)) {
        let seen = ["roles", "permissions", "client_id"].map(|name| answer.upstream_saw(name).join("|"));
        assert_eq!(seen, *expected, "{provider} {more}");
        assert_eq!(answer.upstream_saw("user_id"), ["alice"]);
    }
}
