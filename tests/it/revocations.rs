//! The revocations file: tokens, users and keys refused before their time, within a second of its change.

use crate::harness::token::bearer;
use crate::harness::*;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The interface's second, and half of one for a busy machine.
const AT_ONCE: Duration = Duration::from_millis(1500);

const REVOKED: (u16, &str) = (16, "CREDENTIALS_REVOKED");

pub fn revoking(upstream: &str, long_calls: &str) -> String {
    let more = format!("authentication:\n  revocations: {{ file: revocations.yaml }}\n  long_calls: {long_calls}\n");
    standard(upstream).replacen("authentication:\n", &more, 1)
}

/// One call's status and reason.
async fn refusal(wire: &mut Wire, field: &(&str, String)) -> (u16, String) {
    wire.call(request("/demo.v1.Users/Get", &[(field.0, &field.1)])).await.refusal()
}

#[tokio::test]
async fn every_kind_counts_within_a_second_and_for_nobody_else() {
    let upstream = RawUpstream::echo();
    let site = Site::new();
    site.write("revocations.yaml", "revoked: []\n");
    let doorward = site.start(&revoking(&upstream.url(), "{}"));
    let mut wire = Wire::connect(&doorward).await;
    let moment = now() - 100;
    let of = |claims: Value| ("authorization", bearer(claims));
    let revoked = [
        of(json!({"jti": "t-1"})),
        of(json!({"sub": "mallory", "iat": moment - 1})),
        of(json!({"sub": "mallory", "iat": null})),
        ("x-api-key", "key-without-a-user".to_owned()),
    ];
    let others = [
        of(json!({"jti": "t-2"})),
        of(json!({})),
        of(json!({"sub": "mallory", "iat": moment})),
        of(json!({"sub": "t-1"})),
        ("x-api-key", API_KEY.to_owned()),
    ];
    for field in revoked.iter().chain(&others) {
        assert_eq!(refusal(&mut wire, field).await, (0, String::new()), "not yet: {field:?}");
    }
    let before = jiff::Timestamp::from_second(moment).unwrap();
    site.write(
        "revocations.yaml",
        format!(
            "revoked:\n- {{ jti: t-1, issuer: https://issuer.test/ }}\n- {{ user_id: mallory, issuer: https://issuer.test/, before: {before} }}\n- {{ api_key: plain }}\n"
        ),
    );
    let changed = Stopwatch::start();
    while refusal(&mut wire, &revoked[0]).await.0 == 0 {
        assert!(changed.elapsed() < AT_ONCE, "the verdict was at hand, and is revoked all the same");
    }
    for field in &revoked {
        assert_eq!(refusal(&mut wire, field).await, (REVOKED.0, REVOKED.1.to_owned()), "{field:?}");
    }
    for field in &others {
        assert_eq!(refusal(&mut wire, field).await, (0, String::new()), "{field:?}");
    }
    assert_eq!(doorward.metric("doorward_refusals_total", &["reason=\"CREDENTIALS_REVOKED\""]), 1.0 + revoked.len() as f64);
    // Together with a good token the key is refused too.
    let both = [("authorization", others[0].1.as_str()), ("x-api-key", "key-without-a-user")];
    assert_eq!(wire.call(request("/demo.v1.Users/Get", &both)).await.refusal().1, REVOKED.1);

    site.write("revocations.yaml", "revoked: []\n");
    eventually_ok(&mut wire, &revoked[0]).await;
}

async fn eventually_ok(wire: &mut Wire, field: &(&str, String)) {
    let started = Instant::now();
    while refusal(wire, field).await.0 != 0 {
        assert!(started.elapsed() < PATIENCE, "what is no longer in the file is no longer revoked");
    }
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_told() {
    let upstream = RawUpstream::echo();
    let site = Site::new();
    site.write("revocations.yaml", "revoked: [{ api_key: plain }]\n");
    let doorward = site.start(&revoking(&upstream.url(), "{}"));
    let mut wire = Wire::connect(&doorward).await;
    let (revoked, good) = (("x-api-key", "key-without-a-user".to_owned()), ("x-api-key", API_KEY.to_owned()));
    let metric = "doorward_revocations_last_reload_successful";
    assert_eq!((refusal(&mut wire, &revoked).await.1.as_str(), doorward.metric(metric, &[])), (REVOKED.1, 1.0), "from the start");
    site.write("revocations.yaml", "revoked: [{ api_key: analytics }, { api_keys: plain }]\n");
    eventually("the metric", || (doorward.metric(metric, &[]) == 0.0).then_some(()));
    let (status, parts) = doorward.get("/readyz?verbose");
    assert!(status == 200 && parts.contains("revocations") && parts.contains("revoked[1].api_keys"), "{parts}");
    eventually("the log", || doorward.stderr().contains("revoked[1].api_keys").then_some(()));
    assert_eq!(refusal(&mut wire, &revoked).await.1, REVOKED.1);
    assert_eq!(refusal(&mut wire, &good).await.0, 0);
    site.write("revocations.yaml", "revoked: [{ api_key: analytics }]\n");
    eventually("the metric", || (doorward.metric(metric, &[]) == 1.0).then_some(()));
    assert!(!doorward.get("/readyz?verbose").1.contains("revoked["));
    assert_eq!((refusal(&mut wire, &good).await.1.as_str(), refusal(&mut wire, &revoked).await.0), (REVOKED.1, 0));
}

#[test]
fn a_start_with_a_bad_file_is_refused_with_every_error() {
    let site = Site::new();
    site.write("revocations.yaml", "revoked: [{ jti: a }, { user_id: b, issuer: c, before: yesterday }]\n");
    let path = site.write("doorward.yaml", revoking("http://127.0.0.1:50051", "{}")).display().to_string();
    let output = command(&["run", "--config", &path], "");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    for words in ["revocations.yaml:1:13: revoked[0].issuer: missing", "revoked[1].before"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    site.write("revocations.yaml", "revoked: [{ jti: a, issuer: https://issuer.test }]\n");
    let output = command(&["check", "--config", &path], "");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("these revoke nothing here") && said.contains("revoked[0]"), "a slash is missing: {said}");
}

/// The rest of a key's life is in `commands`.
#[test]
fn a_key_that_was_made_works_until_it_is_revoked() {
    let site = Site::new();
    let upstream = PythonUpstream::start();
    let yaml = standard(&upstream.url());
    let path = site.write("doorward.yaml", &yaml).display().to_string();
    let keys = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        let output = command(&[&["keys", words[0], "--config", &path], &words[1..]].concat(), "");
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let first = keys("create --id web --client-id web --role viewer --expires 90d");
    let second = keys("rotate web --overlap 1h");
    let answers = |doorward: &Doorward| {
        let calls = [&first, &second].map(|key| call("/demo.v1.Users/Get").api_key(key.trim()));
        doorward.calls(&calls)
    };
    let both = answers(&site.start(&yaml));
    assert_eq!(both.iter().map(|answer| answer.upstream_saw("api_key_id").concat()).collect::<Vec<_>>(), ["web", "web-r2"]);
    assert_eq!(both[1].upstream_saw("client_id"), ["web"]);
    keys("revoke web");
    let states: Value = serde_json::from_str(&keys("list --json")).unwrap();
    let state = |id: &str| states.as_array().unwrap().iter().find(|key| key["id"] == id).unwrap()["state"].clone();
    assert_eq!((state("web"), state("web-r2"), state("expired")), (json!("revoked"), json!("active"), json!("expired")));
    let after = answers(&site.start(&yaml));
    assert_eq!(after.iter().map(Answer::refusal).collect::<Vec<_>>(), [(16, "CREDENTIALS_REVOKED"), (0, "")]);
}
