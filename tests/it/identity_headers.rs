//! What the upstream is told of the caller, and that nobody but Doorward tells it.

use crate::harness::token::bearer;
use crate::harness::*;
use http::{HeaderMap, HeaderName};
use serde_json::json;

const OWNED: [&str; 7] = ["user_id", "user_email", "user_name", "client_id", "roles", "permissions", "api_key_id"];

/// Every spelling that some upstream folds into one of our names.
fn spellings() -> Vec<String> {
    let mut all = Vec::new();
    for name in OWNED {
        for separator in ["_", "-", "."] {
            let spelled = name.replace('_', separator);
            all.extend([spelled.clone(), format!("{spelled}-bin"), format!("{spelled}_bin"), format!("{spelled}.bin")]);
        }
    }
    all.extend(["user-id_bin".to_owned(), "api_key.id".to_owned(), "api-key_id-bin".to_owned()]);
    all.sort();
    all.dedup();
    all
}

/// Spellings that are other names after all: only one final `-bin` is cut.
const OTHERS: [&str; 5] = ["user_id-bin-bin", "userid", "x-user-id", "user__id", "role"];

#[track_caller]
fn assert_only(seen: &HeaderMap, expected: &[(&str, &str)]) {
    for name in spellings() {
        let values: Vec<_> = seen.get_all(&name).iter().map(|value| value.to_str().unwrap_or("?")).collect();
        let wanted: Vec<_> = expected.iter().filter(|(expected, _)| *expected == name).map(|(_, value)| *value).collect();
        assert_eq!(values, wanted, "{name} at the upstream");
    }
}

fn spoofed() -> Vec<(String, String)> {
    let names = spellings().into_iter().flat_map(|name| [name.clone(), name]);
    names.map(|name| (name, "c3Bvb2ZlZA".to_owned())).chain(OTHERS.map(|name| (name.to_owned(), "kept".to_owned()))).collect()
}

async fn spoofed_call(doorward: &Doorward, path: &str, credentials: &[(&str, &str)]) -> WireAnswer {
    // Sixty spellings twice are more than a hundred fields: in two calls, and both are looked at.
    let spoofed = spoofed();
    let mut last = None;
    for part in spoofed.chunks(60) {
        let fields: Vec<(&str, &str)> =
            credentials.iter().copied().chain(part.iter().map(|(name, value)| (name.as_str(), value.as_str()))).collect();
        last = Some(Wire::connect(doorward).await.call(request(path, &fields)).await);
    }
    last.unwrap()
}

#[tokio::test]
async fn spoofed_headers_are_removed_in_every_mode_and_spelling() {
    let alice = bearer(json!({}));
    let known: &[(&str, &str)] = &[
        ("user_id", "alice"),
        ("user_email", "alice@example.com"),
        ("user_name", "Alice"),
        ("roles", "viewer"),
        ("permissions", "users:read"),
    ];
    let echo = "/demo.v1.Echo/Unary";
    for (mode, path, credentials, expected) in [
        ("required", echo, vec![("authorization", alice.as_str())], known),
        ("required", "/demo.v1.Public/Unary", vec![], &[]),
        ("required", "/demo.v1.Public/Unary", vec![("authorization", alice.as_str())], &[]),
        ("optional", echo, vec![], &[]),
        ("optional", echo, vec![("authorization", alice.as_str())], known),
        ("disabled", echo, vec![], &[]),
        ("disabled", echo, vec![("authorization", alice.as_str())], &[]),
    ] {
        let mut rest = site::STANDARD.replace("authentication:", &format!("authentication:\n  mode: {mode}"));
        if mode == "optional" {
            rest = rest.replace("/demo.v1.Echo/*: authenticated", "/demo.v1.Echo/*: anyone");
        }
        let upstream = RawUpstream::echo();
        let doorward = Site::new().start(&configuration(&upstream.url(), &rest));
        let answer = spoofed_call(&doorward, path, &credentials).await;
        assert_eq!(answer.refusal(), (0, String::new()), "{mode} {path}");
        let all = upstream.seen();
        for seen in &all {
            assert_only(&seen.headers, expected);
        }
        for other in OTHERS {
            assert!(all.iter().any(|seen| seen.values(other) == ["kept"]), "{other} is nobody's but the client's");
        }
    }
}

#[tokio::test]
async fn audited_callers_have_no_identity_either() {
    let rest = site::STANDARD.replace("authentication:", "authentication:\n  insecure_audit: true");
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), &rest));
    let expired = bearer(json!({"exp": 1}));
    let answer = spoofed_call(&doorward, "/demo.v1.Users/Delete", &[("authorization", &expired)]).await;
    assert_eq!(answer.refusal(), (0, String::new()));
    for seen in upstream.seen() {
        assert_only(&seen.headers, &[]);
        assert!(seen.values("authorization").is_empty());
    }
    assert_eq!(doorward.access_lines(1)[0]["audited"], "TOKEN_EXPIRED");
}

#[tokio::test]
async fn request_trailers_are_cleaned_like_headers() {
    for path in ["/demo.v1.Echo/Unary", "/demo.v1.Public/Unary"] {
        let upstream = RawUpstream::echo();
        let rest = format!("{}forward_credentials: true\n", site::STANDARD);
        let doorward = Site::new().start(&configuration(&upstream.url(), &rest));
        let mut trailers = HeaderMap::new();
        for name in spellings().into_iter().chain(["authorization".to_owned(), "x-api-key".to_owned()]) {
            trailers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), "c3Bvb2ZlZA".parse().unwrap());
        }
        trailers.append("checksum", "kept".parse().unwrap());
        let mut wire = Wire::connect(&doorward).await;
        let request = request(path, &[("authorization", &bearer(json!({})))]);
        let answer = wire.call_with(request, wire::message(b""), Some(trailers)).await;
        assert_eq!(answer.refusal(), (0, String::new()), "{answer:?}");
        let seen = upstream.only().trailers.unwrap();
        assert_only(&seen, &[]);
        assert!(!seen.contains_key("authorization") && !seen.contains_key("x-api-key"), "{seen:?}");
        assert_eq!(seen["checksum"], "kept");
    }
}

#[tokio::test]
async fn ours_are_written_once_sorted_and_encoded() {
    let upstream = RawUpstream::echo();
    let rest = site::STANDARD.replace("viewer: [users:read]", "viewer: [users:read]\n    \"a,b c\": [z:z, a:a]\n    duplicate: [a:a]")
        + "identity_headers: { provider: auth_provider, claims: { tenant: tenant_id, level: level, staff: is-staff, groups: groups, org.unit: unit, odd: odd } }\n";
    let doorward = Site::new().start(&configuration(&upstream.url(), &rest));
    let authorization = bearer(json!({
        "sub": " ünï,%\t ", "name": "Alice Ærlig", "roles": ["viewer", "a,b c", "viewer", "duplicate", "undefined"],
        "tenant": "acme", "level": 7, "staff": true, "groups": ["b", "a", "b", "x,y"], "org": {"unit": "R&D"}, "odd": {"no": "text"},
    }));
    let answer = Wire::connect(&doorward).await.call(request("/demo.v1.Echo/Unary", &[("authorization", &authorization)])).await;
    assert_eq!(answer.refusal(), (0, String::new()), "{answer:?}");
    let seen = upstream.only();
    for (name, value) in [
        ("user_id", "%20%C3%BCn%C3%AF,%25%09%20"),
        ("user_name", "Alice %C3%86rlig"),
        ("user_email", "alice@example.com"),
        ("roles", "a%2Cb c,duplicate,viewer"),
        ("permissions", "a:a,users:read,z:z"),
        ("auth_provider", "corporate"),
        ("tenant_id", "acme"),
        ("level", "7"),
        ("is-staff", "true"),
        ("groups", "a,b,x%2Cy"),
        ("unit", "R&D"),
    ] {
        assert_eq!(seen.values(name), [value], "{name}");
    }
    for absent in ["odd", "client_id", "api_key_id", "authorization"] {
        assert!(seen.values(absent).is_empty(), "{absent}");
    }
}

#[tokio::test]
async fn an_email_is_told_only_when_verified() {
    for (changes, expected) in [
        (json!({}), vec!["alice@example.com"]),
        (json!({"email_verified": false}), vec![]),
        (json!({"email_verified": null}), vec![]),
        (json!({"email_verified": "true"}), vec![]),
        (json!({"email": null}), vec![]),
    ] {
        let upstream = RawUpstream::echo();
        let doorward = Site::new().start(&standard(&upstream.url()));
        let answer =
            Wire::connect(&doorward).await.call(request("/demo.v1.Echo/Unary", &[("authorization", &bearer(changes.clone()))])).await;
        assert_eq!(answer.refusal(), (0, String::new()));
        assert_eq!(upstream.only().values("user_email"), expected, "{changes}");
    }
}

#[tokio::test]
async fn token_and_key_together_are_one_caller() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&standard(&upstream.url()));
    let fields = [("authorization", bearer(json!({}))), ("x-api-key", API_KEY.to_owned())];
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut wire = Wire::connect(&doorward).await;
    wire.call(request("/demo.v1.Echo/Unary", &fields)).await;
    wire.call(request("/demo.v1.Echo/Unary", &fields[1..])).await;
    let (both, key) = (upstream.nth(1), upstream.nth(2));
    assert_eq!((both.values("user_id"), key.values("user_id")), (vec!["alice".into()], vec!["svc-analytics".into()]));
    for seen in [both, key] {
        assert_eq!(seen.values("client_id"), ["analytics-service"]);
        assert_eq!(seen.values("api_key_id"), ["analytics"]);
        assert_eq!(seen.values("permissions"), ["reports:read,users:read"]);
        assert_eq!(seen.values("roles"), ["viewer"]);
        assert!(seen.values("authorization").is_empty() && seen.values("x-api-key").is_empty());
    }
}

#[tokio::test]
async fn renamed_and_left_out_names_are_removed_under_their_default_names_too() {
    let upstream = RawUpstream::echo();
    let rest = format!("{}identity_headers: {{ user_id: x-caller, roles: none }}\n", site::STANDARD);
    let doorward = Site::new().start(&configuration(&upstream.url(), &rest));
    let fields = [
        ("authorization", bearer(json!({}))),
        ("user-id", "root".into()),
        ("roles", "admin".into()),
        ("x_caller", "root".into()),
        ("X.Caller-bin".to_lowercase().leak(), "cm9vdA".into()),
    ];
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Wire::connect(&doorward).await.call(request("/demo.v1.Echo/Unary", &fields)).await;
    let seen = upstream.only();
    assert_eq!(seen.values("x-caller"), ["alice"]);
    for gone in ["user_id", "user-id", "roles", "x_caller", "x.caller-bin"] {
        assert!(seen.values(gone).is_empty(), "{gone}");
    }
}

#[tokio::test]
async fn forward_credentials_keeps_them_but_never_on_public_methods() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), &format!("{}forward_credentials: true\n", site::STANDARD)));
    let authorization = bearer(json!({}));
    let fields = [("authorization", authorization.as_str()), ("x-api-key", API_KEY)];
    let mut wire = Wire::connect(&doorward).await;
    wire.call(request("/demo.v1.Echo/Unary", &fields)).await;
    wire.call(request("/demo.v1.Public/Unary", &fields)).await;
    assert_eq!(upstream.nth(1).values("authorization"), [authorization]);
    assert_eq!(upstream.nth(1).values("x-api-key"), [API_KEY]);
    assert!(upstream.nth(2).values("authorization").is_empty() && upstream.nth(2).values("x-api-key").is_empty());
}

#[tokio::test]
async fn an_identity_beyond_four_kibibytes_is_refused() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&standard(&upstream.url()));
    let mut wire = Wire::connect(&doorward).await;
    for (length, expected) in [(3000, (0, String::new())), (5000, (16, "TOKEN_CLAIM".to_owned()))] {
        let authorization = bearer(json!({"name": "n".repeat(length)}));
        assert_eq!(wire.call(request("/demo.v1.Echo/Unary", &[("authorization", &authorization)])).await.refusal(), expected, "{length}");
    }
    assert_eq!(upstream.seen().len(), 1);
}
