//! Rate limits: how often a caller may call, and how often a peer may fail to say who it is.
//!
//! Rates are by the hour wherever a test must not be overtaken by the bucket's refilling.

use crate::harness::site::STANDARD;
use crate::harness::*;
use serde_json::json;
use std::time::{Duration, Instant};

const GET: &str = "/demo.v1.Users/Get";
const DELETE: &str = "/demo.v1.Users/Delete";

fn limited(upstream: &str, rates: &str) -> String {
    configuration(upstream, &format!("{STANDARD}rate_limits: {{ {rates} }}\nlog: {{ explain_refusals: true }}\n"))
}

const ALLOWED: (u64, &str) = (0, "");
const LIMITED: (u64, &str) = (8, "RATE_LIMITED");
const DENIED: (u64, &str) = (7, "PERMISSION_MISSING");

#[test]
fn an_identity_has_one_bucket_whatever_its_credentials() {
    let upstream = PythonUpstream::start();
    let doorward = Site::new().start(&limited(&upstream.url(), "per_identity: 4/h"));
    let alice = |more| call(GET).bearer(&token(more));
    let answers = doorward.calls(&[
        alice(json!({"jti": "1"})),
        alice(json!({"jti": "2"})),
        // Refused for another reason: not counted.
        call(DELETE).bearer(&token(json!({"jti": "1"}))),
        alice(json!({"jti": "3"})),
        // The key's client, but still alice.
        alice(json!({"jti": "4"})).api_key("key-without-a-user"),
        alice(json!({"jti": "1"})),
        alice(json!({"jti": "5"})),
        // Authorization is told before the rate is.
        call(DELETE).bearer(&token(json!({"jti": "1"}))),
        // Public methods and other callers have nothing to do with it.
        call("/demo.v1.Public/Unary").bearer(&token(json!({"jti": "1"}))),
        alice(json!({"sub": "bob"})),
        call(GET).api_key(API_KEY),
        call(GET).api_key("key-without-a-user"),
    ]);
    let (a, l, d) = (ALLOWED, LIMITED, DENIED);
    assert_eq!(refusals(&answers), [a, a, d, a, a, l, l, d, a, a, a, a]);
    let refused = &answers[5].0;
    assert_eq!((refused["domain"].as_str(), refused["details"].as_str()), (Some("doorward"), Some("too many calls; try again later")));
    let delay = refused["retry_delay"].as_f64().unwrap();
    // A quarter of an hour, less what the calls took.
    assert!((800.0..=900.0).contains(&delay), "{delay}");
    assert!(answers[2].0.get("retry_delay").is_none());
    // What is over the rate does not reach the service.
    upstream.assert_calls(8);
    // What operators see.
    let lines = doorward.access_lines(12);
    let line = &lines[5];
    assert_eq!(
        (&line["grpc.code"], &line["reason"], &line["user_id"]),
        (&json!("RESOURCE_EXHAUSTED"), &json!("RATE_LIMITED"), &json!("alice"))
    );
    assert!(line["detail"].as_str().unwrap().contains("over rate_limits.per_identity, 4/h"), "{line}");
    assert_eq!(doorward.metric("doorward_refusals_total", &["reason=\"RATE_LIMITED\""]), 2.0);
    assert_eq!(doorward.metric("doorward_limit_hits_total", &["limit=\"per_identity\""]), 2.0);
    assert_eq!(doorward.metric("doorward_limit_hits_total", &["limit=\"failed_authentication_per_peer\""]), 0.0);
    assert_eq!(doorward.metric("doorward_authentication_total", &["reason=\"RATE_LIMITED\""]), 0.0, "who it is was no question");
    assert_eq!(doorward.metric("doorward_authorization_total", &["rule=\"/demo.v1.Users/Get\"", "outcome=\"allowed\""]), 9.0);
}

/// Whoever waits as long as the answer says is let through.
#[test]
fn the_delay_of_the_answer_is_enough() {
    let upstream = PythonUpstream::start();
    let doorward = Site::new().start(&limited(&upstream.url(), "per_identity: 1/s"));
    let mut client = doorward.client();
    // On a busy machine two calls may be more than a second apart, but hardly all of these.
    let mut calls = || client.calls(&vec![call(GET).api_key(API_KEY).with("together", true); 10]);
    let delay = eventually("a refusal", || calls().iter().find_map(|answer| answer.0["retry_delay"].as_f64()));
    assert!((0.001..=1.0).contains(&delay), "{delay}");
    std::thread::sleep(Duration::from_secs_f64(delay));
    assert!(calls().iter().any(|answer| answer.refusal() == ALLOWED));
}

/// Threads have connections of their own; the bucket is one.
#[tokio::test]
async fn workers_share_a_bucket_and_a_reload_does_not_fill_it() {
    let (upstream, site) = (RawUpstream::echo(), Site::new());
    let yaml = format!("workers: 4\n{}", limited(&upstream.url(), "per_identity: 10/h"));
    let doorward = site.start(&yaml);
    let mut allowed = 0;
    for _ in 0..8 {
        let mut wire = Wire::connect(&doorward).await;
        for _ in 0..2 {
            let (code, reason) = wire.call(request(GET, &[("x-api-key", API_KEY)])).await.refusal();
            match reason.as_str() {
                "" => allowed += 1,
                other => assert_eq!((code, other), (8, "RATE_LIMITED")),
            }
        }
    }
    assert_eq!(allowed, 10);
    let generation = |yaml: &str| {
        let before = doorward.metric("doorward_configuration_generation", &[]);
        site.write("doorward.yaml", yaml);
        eventually("a reload", || (doorward.metric("doorward_configuration_generation", &[]) > before).then_some(()));
    };
    let mut wire = Wire::connect(&doorward).await;
    let mut get = async || wire.call(request(GET, &[("x-api-key", API_KEY)])).await.refusal().1;
    generation(&yaml.replace("viewer: [users:read]", "viewer: [users:read, users:write]"));
    assert_eq!(get().await, "RATE_LIMITED");
    generation(&yaml.replace("10/h", "11/h"));
    assert_eq!(get().await, "", "another rate begins anew");
    generation(&yaml.replace("10/h", "none"));
    for _ in 0..20 {
        assert_eq!(get().await, "");
    }
}

#[test]
fn a_certificate_alone_is_an_identity_too() {
    let site = Site::new();
    site.certificate("worker", &["worker.test"]);
    let rest = "listen: { address: 127.0.0.1:0, tls: { certificate: tls.crt, private_key: tls.key, client_ca: ca.pem } }\n\
        authentication: { client_certificates: [{ dns: worker.test, client_id: worker, roles: [] }] }\n\
        authorization: { methods: { /demo.v1.Echo/*: authenticated } }\n\
        rate_limits: { per_identity: 2/h }\n";
    let upstream = PythonUpstream::start();
    let doorward = site.start(&configuration(&upstream.url(), rest));
    let identity = json!({"certificate": site.path("worker.crt"), "key": site.path("worker.key")});
    let answers = doorward.calls_as(&identity, &vec![call("/demo.v1.Echo/Unary"); 3]);
    assert_eq!(refusals(&answers), [ALLOWED, ALLOWED, LIMITED]);
}

#[test]
fn a_peer_that_keeps_failing_is_refused_unlooked_at_but_for_credentials_that_are_known() {
    let upstream = PythonUpstream::start();
    let doorward = Site::new().start(&limited(&upstream.url(), "failed_authentication_per_peer: 5/h"));
    let (good, other) = (token(json!({})), token(json!({"sub": "bob"})));
    let (get, missing) = (|| call(GET), (16, "CREDENTIALS_MISSING"));
    let answers = doorward.calls(&[
        get().bearer(&good),
        // No credential is no failed one, however often.
        get(),
        get(),
        get().bearer("no-token"),
        get().metadata("authorization", "Basic dTpw"),
        get().bearer(&token(json!({"aud": "elsewhere"}))),
        get().bearer(&good),
        get().api_key("guess-1"),
        get().bearer(&good).api_key("guess-2"),
        // Five have failed. Whatever is not known yet is not looked at any more.
        get().api_key("guess-3"),
        get().metadata("authorization", "Basic dTpw"),
        get().bearer(&other),
        get().api_key(API_KEY),
        // What is known is, and what needs no credential has none that could fail.
        get().bearer(&good),
        call(DELETE).bearer(&good),
        get(),
        call("/demo.v1.Public/Unary").api_key("guess-4"),
    ]);
    let (a, l) = (ALLOWED, LIMITED);
    let expected = [
        a,
        missing,
        missing,
        (16, "TOKEN_MALFORMED"),
        (16, "CREDENTIALS_MALFORMED"),
        (16, "TOKEN_AUDIENCE"),
        a,
        (16, "API_KEY_UNKNOWN"),
        (16, "API_KEY_UNKNOWN"),
        l,
        l,
        l,
        l,
        a,
        DENIED,
        missing,
        a,
    ];
    assert_eq!(refusals(&answers), expected);
    let delay = answers[9].0["retry_delay"].as_f64().unwrap();
    assert!((600.0..=720.0).contains(&delay), "{delay}");
    assert!(answers[9].trailing("www-authenticate").is_empty(), "for 16 only");
    assert_eq!(doorward.metric("doorward_limit_hits_total", &["limit=\"failed_authentication_per_peer\""]), 4.0);
    assert_eq!(doorward.metric("doorward_authentication_total", &["reason=\"RATE_LIMITED\"", "kind=\"api_key\""]), 2.0);
    let line = &doorward.access_lines(17)[9];
    assert!(line["detail"].as_str().unwrap().contains("over rate_limits.failed_authentication_per_peer, 5/h"), "{line}");
}

/// However many come at once, no more than the limit hear what was wrong with them.
#[tokio::test]
async fn guesses_at_the_same_time_are_no_way_around_it() {
    let upstream = RawUpstream::echo();
    let yaml = format!("workers: 4\n{}", limited(&upstream.url(), "failed_authentication_per_peer: 10/h"));
    let doorward = Site::new().start(&yaml);
    let guesses = (0..4).map(async |connection| {
        let mut wire = Wire::connect(&doorward).await;
        let mut waiting = Vec::new();
        for guess in 0..25 {
            let fields = [("x-api-key", format!("guess-{connection}-{guess}"))];
            waiting.push(wire.open(request(GET, &[(fields[0].0, &fields[0].1)])).await.unwrap());
        }
        let mut reasons = Vec::new();
        for (answer, _stream) in waiting {
            reasons.push(answer.await.refusal().1);
        }
        reasons
    });
    let mut reasons = Vec::new();
    for guess in guesses {
        reasons.extend(guess.await);
    }
    let told = |reason: &str| reasons.iter().filter(|found| *found == reason).count();
    assert_eq!((told("API_KEY_UNKNOWN"), told("RATE_LIMITED")), (10, 90));
}

/// `insecure_audit` lets every refusal of authentication through: this one too, or the migration would be an outage.
#[test]
fn in_audit_the_limit_of_failures_refuses_nobody() {
    let upstream = PythonUpstream::start();
    let yaml = limited(&upstream.url(), "failed_authentication_per_peer: 1/h")
        .replace("authentication:\n", "authentication:\n  insecure_audit: true\n");
    let doorward = Site::new().start(&yaml);
    let answers = doorward.calls(&[call(GET).api_key("guess"), call(GET).api_key("guess")]);
    assert_eq!(refusals(&answers), [ALLOWED, ALLOWED]);
    let lines = doorward.access_lines(2);
    assert_eq!([&lines[0]["audited"], &lines[1]["audited"]], ["API_KEY_UNKNOWN", "RATE_LIMITED"]);
}

/// An outage of a key server is nobody's failure.
#[test]
fn keys_that_cannot_be_had_do_not_count() {
    let upstream = PythonUpstream::start();
    let rest = "authentication:\n  jwt:\n    - { name: gone, issuer: https://issuer.test/, audiences: [users-api], algorithms: [RS256],\n\
        \x20       jwks_url: \"http://127.0.0.1:1/jwks\", readiness: ignored }\n\
        authorization: { methods: { /demo.v1.Echo/*: authenticated } }\n\
        rate_limits: { failed_authentication_per_peer: 1/h }\n";
    let doorward = Site::new().start(&configuration(&upstream.url(), rest));
    let token = token::RSA.token(&claims(json!({})));
    let answers = doorward.calls(&vec![call("/demo.v1.Echo/Unary").bearer(&token); 3]);
    assert_eq!(refusals(&answers), [(14, "KEYS_UNAVAILABLE"); 3]);
}

#[test]
fn check_and_explain_speak_of_them() {
    let site = Site::new();
    let path = site.write("doorward.yaml", limited("http://127.0.0.1:1", "per_identity: 100/s, failed_authentication_per_peer: 10/m"));
    let said = |arguments: &[&str]| {
        let output = command(&[&[arguments[0], "--config", path.to_str().unwrap()], &arguments[1..]].concat(), "");
        String::from_utf8(output.stdout).unwrap()
    };
    let checked = said(&["check"]);
    for line in ["rate limit: 100/s calls of one identity", "rate limit: 10/m failed authentications of one peer address"] {
        assert!(checked.lines().any(|found| found == line), "{line} in {checked}");
    }
    let explained = said(&["explain", "--method", GET, "--api-key", API_KEY]);
    assert!(explained.contains("rate_limits.per_identity: 100/s;"), "{explained}");
}

#[tokio::test]
async fn without_limits_nobody_is_limited() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&standard(&upstream.url()));
    let mut wire = Wire::connect(&doorward).await;
    let started = Instant::now();
    for _ in 0..300 {
        assert_eq!(wire.call(request(GET, &[("x-api-key", API_KEY)])).await.refusal().1, "");
        assert_eq!(wire.call(request(GET, &[("x-api-key", "guess")])).await.refusal().1, "API_KEY_UNKNOWN");
    }
    assert!(started.elapsed() < PATIENCE);
}
