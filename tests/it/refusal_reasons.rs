//! One reason everywhere: what the client is told, the access log, the metrics and `doorward explain` agree on every
//! refusal of authentication and authorization; and only the operator reads what was found and expected.

use crate::harness::token::{OTHER_RSA, RSA, bearer};
use crate::harness::*;
use serde_json::{Value, json};
use std::process::Output;

const ECHO: &str = "/demo.v1.Echo/Unary";

/// The standard configuration with a provider of each further kind.
fn rest(absent: &KeyServer) -> String {
    let more = format!(
        "  jwt:
    - name: set
      issuer: https://set.test/
      audiences: [users-api]
      algorithms: [RS256]
      jwks_file: keys.json
      trust: {{ roles: ['*'], email_domains: ['*'] }}
    - name: absent
      issuer: https://absent.test/
      audiences: [users-api]
      algorithms: [RS256]
      jwks_url: {}
      readiness: ignored
      timeout: 1s
      trust: {{ roles: ['*'], email_domains: ['*'] }}
",
        absent.url()
    );
    let trusted = "leeway: 0s\n      trust: { roles: ['*'], email_domains: ['*'] }";
    let with_more = site::STANDARD.replace("  jwt:\n", &more).replace("leeway: 0s", trusted);
    with_more.replace("  api_keys:", "  revocations: { file: revocations.yaml }\n  api_keys:") + "log: { explain_refusals: true }\n"
}

/// One refusal, and how to provoke it on the wire and with `explain`.
struct Case {
    method: &'static str,
    fields: Vec<(&'static str, String)>,
    code: u16,
    reason: &'static str,
    /// What the operator reads and the client does not.
    found: &'static str,
}

impl Case {
    /// `None` for what cannot be said with options: a field twice.
    fn options(&self) -> Option<Vec<String>> {
        let mut options: Vec<String> = Vec::new();
        for (name, value) in &self.fields {
            let (option, value) = match *name {
                "authorization" => ("--token", value.strip_prefix("Bearer ")?),
                _ => ("--api-key", value.as_str()),
            };
            if options.iter().any(|known| known == option) {
                return None;
            }
            options.extend([option.to_owned(), value.to_owned()]);
        }
        Some(options)
    }
}

fn case(reason: &'static str, fields: Vec<(&'static str, String)>, found: &'static str) -> Case {
    let code = match reason {
        "KEYS_UNAVAILABLE" => 14,
        "PERMISSION_MISSING" | "METHOD_NOT_ALLOWED" | "CREDENTIALS_NOT_ACCEPTED" => 7,
        _ => 16,
    };
    Case { method: ECHO, fields, code, reason, found }
}

fn with_token(reason: &'static str, token: &str, found: &'static str) -> Case {
    case(reason, vec![("authorization", format!("Bearer {token}"))], found)
}

fn with_claims(reason: &'static str, claims: Value, found: &'static str) -> Case {
    case(reason, vec![("authorization", bearer(claims))], found)
}

fn with_key(reason: &'static str, key: &str, found: &'static str) -> Case {
    case(reason, vec![("x-api-key", key.to_owned())], found)
}

fn of_issuer(issuer: &str) -> Value {
    let mut claims = claims(json!({}));
    claims["iss"] = json!(issuer);
    claims
}

fn table() -> Vec<Case> {
    let (set, header) = (of_issuer("https://set.test/"), |kid: &str| json!({"alg": "RS256", "kid": kid}).to_string());
    let at = |method, case: Case| Case { method, ..case };
    vec![
        case("CREDENTIALS_MISSING", vec![], "no credential"),
        case("CREDENTIALS_AMBIGUOUS", vec![("x-api-key", API_KEY.into()), ("x-api-key", API_KEY.into())], "2 x-api-key fields"),
        with_token("CREDENTIALS_MALFORMED", "two words", "2 words after `Bearer`"),
        with_token("TOKEN_MALFORMED", "hello", "dots"),
        with_claims(
            "TOKEN_ISSUER",
            json!({"iss": "https://evil.test/"}),
            r#"iss is "https://evil.test/", expected one of the 3 configured"#,
        ),
        with_token("TOKEN_ALGORITHM", &RSA.token(&claims(json!({}))), r#"alg is "RS256", expected one of HS256"#),
        with_token("TOKEN_KEY_UNKNOWN", &RSA.sign(&header("evil-kid"), &set.to_string()), r#"kid is "evil-kid""#),
        with_token("TOKEN_SIGNATURE", &OTHER_RSA.sign(&header("first"), &set.to_string()), r#"may be of: "first" (RSA"#),
        with_claims("TOKEN_EXPIRED", json!({"exp": 1_700_000_000}), "exp is 2023-11-14T22:13:20Z"),
        with_claims("TOKEN_NOT_YET_VALID", json!({"nbf": now() + 100_000}), "nbf is 20"),
        with_claims("TOKEN_AUDIENCE", json!({"aud": "evil-audience"}), r#"aud is "evil-audience", expected one of users-api"#),
        with_claims("TOKEN_CLAIM", json!({"sub": 4711}), "sub is 4711"),
        with_claims("CREDENTIALS_REVOKED", json!({"jti": "evil-id"}), r#"jti "evil-id""#),
        with_key("CREDENTIALS_REVOKED", "key-that-was-revoked", "revoked_at of the record revoked is 2021-01-01T00:00:00Z"),
        with_key("API_KEY_UNKNOWN", "key-of-nobody", "SHA-256"),
        with_key("API_KEY_EXPIRED", "key-that-expired", "expires_at of the record expired is 2020-01-01T00:00:00Z"),
        with_token("KEYS_UNAVAILABLE", &RSA.token(&of_issuer("https://absent.test/")), "never been had"),
        at("/demo.v1.Users/Delete", with_claims("PERMISSION_MISSING", json!({}), "held: users:read; of the roles: viewer")),
        at("/demo.v1.Nothing/Get", with_claims("METHOD_NOT_ALLOWED", json!({}), "no rule speaks of the method")),
        at("/demo.v1.Users/ByKeyOnly", with_claims("CREDENTIALS_NOT_ACCEPTED", json!({}), "presented: corporate")),
    ]
}

/// Without what differs from second to second.
fn without_digits(text: &str) -> String {
    text.chars().filter(|character| !character.is_ascii_digit()).collect()
}

#[tokio::test]
async fn answer_log_metric_and_explanation_agree() {
    let (site, upstream, absent) = (Site::new(), RawUpstream::echo(), KeyServer::down());
    site.write("keys.json", json!({"keys": [RSA.jwk]}).to_string());
    site.write("revocations.yaml", "revoked: [{ jti: evil-id, issuer: https://issuer.test/ }]\n");
    let doorward = site.start(&configuration(&upstream.url(), &rest(&absent)));
    let mut wire = Wire::connect(&doorward).await;
    for (index, case) in table().iter().enumerate() {
        let reason = case.reason;
        let (label, outcome) = (format!("reason=\"{reason}\""), format!("outcome=\"{}\"", reason.to_lowercase()));
        let counters =
            [("doorward_refusals_total", &label), ("doorward_authentication_total", &label), ("doorward_authorization_total", &outcome)];
        let counted = || counters.map(|(name, label)| doorward.metric(name, &[label]));
        let before = counted();
        let fields: Vec<(&str, &str)> = case.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = wire.call(request(case.method, &fields)).await;
        assert_eq!(answer.refusal(), (case.code, reason.to_owned()), "{answer:?}");
        assert_only_public_words(case, &answer);

        let line = doorward.access_lines(index + 1).remove(index);
        let detail = line["detail"].as_str().unwrap_or_default();
        assert_eq!(line["reason"], reason, "{line}");
        assert!(detail.contains(case.found), "{line}");

        let after = counted();
        let of_authorization = case.code == 7;
        let expected = [1.0, f64::from(u8::from(!of_authorization)), f64::from(u8::from(of_authorization))];
        assert_eq!([0, 1, 2].map(|kind| after[kind] - before[kind]), expected, "{reason}");

        if let Some(options) = case.options() {
            let explained = explain(&site, case.method, &options);
            assert_eq!(explained.status.code(), Some(2), "{reason}");
            assert_explained(case, &String::from_utf8(explained.stdout).unwrap(), detail);
        }
    }
    assert!(upstream.seen().is_empty());
}

/// The fixed words and the reason, and nothing of what was presented or found.
#[track_caller]
fn assert_only_public_words(case: &Case, answer: &WireAnswer) {
    let info = answer.error_info().unwrap();
    let mut metadata = info.metadata.clone();
    assert_eq!(metadata.remove("request_id").map(|id| id.len()), Some(32), "{info:?}");
    let permission = metadata.remove("permission");
    assert_eq!(permission.as_deref(), (case.reason == "PERMISSION_MISSING").then_some("users:delete"));
    assert!(metadata.is_empty() && info.domain == "doorward", "{info:?}");
    let message = answer.field("grpc-message").unwrap();
    let row = include_str!("../../docs/refusals.md").lines().find(|row| row.contains(&format!("`{}`", case.reason))).unwrap();
    assert_eq!(row.split('|').nth(3).unwrap().trim(), message, "the words of the table");
}

#[track_caller]
fn assert_explained(case: &Case, said: &str, detail: &str) {
    let decision = said.lines().last().unwrap();
    assert!(decision.starts_with(&format!("decision: REFUSED: {} ", case.code)) && decision.contains(case.reason), "{said}");
    let decisive = said
        .lines()
        .find_map(|line| line.strip_prefix("authentication: failed: ").or_else(|| line.strip_prefix("authorization: refused: ")));
    assert_eq!(decisive.map(without_digits), Some(without_digits(detail)), "the first failure is what the log has: {said}");
    for (_, credential) in &case.fields {
        let parts = credential.trim_start_matches("Bearer ").split('.').filter(|part| part.len() > 8);
        assert!(parts.into_iter().all(|part| !said.contains(part) && !detail.contains(part)), "no credential: {said}");
    }
}

fn explain(site: &Site, method: &str, options: &[String]) -> Output {
    let config = site.path("doorward.yaml").display().to_string();
    let options = options.iter().map(String::as_str);
    let arguments: Vec<&str> = ["explain", "--config", &config, "--method", method].into_iter().chain(options).collect();
    command(&arguments, "")
}
