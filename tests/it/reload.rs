//! Files that change while Doorward runs: what they say counts soon, as one generation, or nothing of it does.

use crate::harness::site::sha256_hex;
use crate::harness::token::bearer;
use crate::harness::*;
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// The interface's five seconds, and some for a busy machine.
const SOON: Duration = Duration::from_secs(8);

const LAST_GOOD: &str = "doorward_configuration_last_reload_successful";

/// Calls with the standard API key until the answer is this.
async fn soon(wire: &mut Wire, method: &str, expected: (u16, &str)) {
    soon_with(wire, method, API_KEY, expected).await;
}

async fn soon_with(wire: &mut Wire, method: &str, key: &str, expected: (u16, &str)) {
    let started = Stopwatch::start();
    loop {
        let found = wire.call(request(method, &[("x-api-key", key)])).await.refusal();
        if (found.0, found.1.as_str()) == expected {
            return;
        }
        assert!(started.elapsed() < SOON, "{method}: still {found:?}, expected {expected:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn generation(doorward: &Doorward) -> f64 {
    doorward.metric("doorward_configuration_generation", &[])
}

/// `standard`, where viewers may delete too.
fn more_allowed(upstream: &str) -> String {
    standard(upstream).replace("viewer: [users:read]", "viewer: [users:read, users:delete]")
}

const DELETE: &str = "/demo.v1.Users/Delete";
const REFUSED: (u16, &str) = (7, "PERMISSION_MISSING");
const ALLOWED: (u16, &str) = (0, "");

#[tokio::test]
async fn a_rule_counts_however_the_file_is_changed() {
    let (upstream, site) = (RawUpstream::echo(), Site::new());
    let (strict, loose) = (standard(&upstream.url()), more_allowed(&upstream.url()));
    let doorward = site.start(&strict);
    let mut wire = Wire::connect(&doorward).await;
    soon(&mut wire, DELETE, REFUSED).await;
    assert_eq!(generation(&doorward), 1.0);
    // In place.
    site.write("doorward.yaml", &loose);
    soon(&mut wire, DELETE, ALLOWED).await;
    assert_eq!((generation(&doorward), doorward.metric(LAST_GOOD, &[])), (2.0, 1.0));
    let (_, parts) = doorward.get("/readyz?verbose");
    assert!(parts.contains("[+] configuration: generation 2, in force since 20"), "{parts}");
    // By a rename, as editors do it.
    fs::rename(site.write("new.yaml", &strict), site.path("doorward.yaml")).unwrap();
    soon(&mut wire, DELETE, REFUSED).await;
    // Written in halves: the first half alone would be a configuration without rules.
    let (first, second) = loose.split_at(loose.find("authorization:").unwrap());
    site.write("doorward.yaml", first);
    tokio::time::sleep(Duration::from_millis(100)).await;
    site.write("doorward.yaml", [first, second].concat());
    soon(&mut wire, DELETE, ALLOWED).await;
    // Touched, and written as it was: nothing new.
    let before = generation(&doorward);
    site.write("doorward.yaml", &loose);
    site.write("tls.key", fs::read(site.path("tls.key")).unwrap());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(generation(&doorward), before);
}

#[tokio::test]
async fn a_mounted_volume_is_followed() {
    let (upstream, site) = (RawUpstream::echo(), Site::new());
    let version = |name: &str, yaml: &str| {
        fs::create_dir(site.path(name)).unwrap();
        // Absolute paths, as in a pod: the other files are mounted elsewhere.
        let at = |file: &str| site.path(file).display().to_string();
        let yaml =
            ["tls.crt", "tls.key", "hmac.secret", "api-keys.yaml"].iter().fold(yaml.to_owned(), |yaml, file| yaml.replace(file, &at(file)));
        site.write(&format!("{name}/mounted.yaml"), yaml);
    };
    version("..1", &standard(&upstream.url()));
    symlink("..1", site.path("..data")).unwrap();
    symlink("..data/mounted.yaml", site.path("mounted.yaml")).unwrap();
    let mut doorward = Doorward::start(&site.path("mounted.yaml"), &[], site.path("ca.pem"), Arc::new(tempfile::tempdir().unwrap()), None);
    doorward.wait_ready();
    let mut wire = Wire::connect(&doorward).await;
    soon(&mut wire, DELETE, REFUSED).await;
    version("..2", &more_allowed(&upstream.url()));
    symlink("..2", site.path("..data_tmp")).unwrap();
    fs::rename(site.path("..data_tmp"), site.path("..data")).unwrap();
    fs::remove_dir_all(site.path("..1")).unwrap();
    soon(&mut wire, DELETE, ALLOWED).await;
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_told() {
    let (upstream, site) = (RawUpstream::echo(), Site::new());
    let good = standard(&upstream.url());
    let doorward = site.start(&good);
    let mut wire = Wire::connect(&doorward).await;
    // More is allowed in it, and two things are wrong.
    let bad = more_allowed(&upstream.url()).replace("audiences:", "audience:").replace("users:read, users:delete", "users:read, users");
    site.write("doorward.yaml", &bad);
    eventually("the metric", || (doorward.metric(LAST_GOOD, &[]) == 0.0).then_some(()));
    soon(&mut wire, DELETE, REFUSED).await;
    let (status, parts) = doorward.get("/readyz?verbose");
    assert_eq!(status, 200, "the last good one serves: {parts}");
    let line = parts.lines().find(|line| line.contains("] configuration: ")).unwrap();
    assert!(line.contains("generation 1, in force since") && line.contains("is refused: ") && line.contains("doorward.yaml:"), "{line}");
    // What a process writes arrives when it arrives.
    eventually("the log", || doorward.stderr().contains("the changed configuration is refused").then_some(()));
    let said = doorward.stderr();
    for words in ["unknown key \"audience\"", "authorization.roles.viewer[1]", "the changed configuration is refused"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(said.matches("the changed configuration is refused").count(), 1, "told once: {said}");
    // What is named is missing for now.
    site.write("doorward.yaml", more_allowed(&upstream.url()).replace("api-keys.yaml", "keys-to-come.yaml"));
    eventually("the log", || doorward.stderr().contains("keys-to-come.yaml").then_some(()));
    soon(&mut wire, DELETE, REFUSED).await;
    fs::copy(site.path("api-keys.yaml"), site.path("keys-to-come.yaml")).unwrap();
    soon(&mut wire, DELETE, ALLOWED).await;
    assert_eq!((generation(&doorward), doorward.metric(LAST_GOOD, &[])), (2.0, 1.0));
    // Bad, and then again what is in force.
    site.write("keys-to-come.yaml", "keys:\n");
    eventually("the metric", || (doorward.metric(LAST_GOOD, &[]) == 0.0).then_some(()));
    fs::copy(site.path("api-keys.yaml"), site.path("keys-to-come.yaml")).unwrap();
    eventually("the metric", || (doorward.metric(LAST_GOOD, &[]) == 1.0).then_some(()));
    assert_eq!(generation(&doorward), 2.0);
}

#[tokio::test]
async fn keys_and_secrets_are_replaced_and_calls_of_a_removed_key_end() {
    let (upstream, site) = (PythonUpstream::start(), Site::new());
    let doorward = site.start(&standard(&upstream.url()));
    let record = |id: &str, key: &str| format!("- {{ id: {id}, client_id: c, roles: [viewer], sha256: {} }}\n", sha256_hex(key));
    site.write("api-keys.yaml", format!("keys:\n{}{}", record("one", "key-one"), record("two", "key-two")));
    let mut wire = Wire::connect(&doorward).await;
    soon_with(&mut wire, "/demo.v1.Users/Get", "key-two", ALLOWED).await;
    let stream = |name: &str, seconds: f64| {
        let behaviour = json!({ "count": (seconds / 0.05) as u64, "sleep": 0.05 });
        call(&format!("/demo.v1.Echo/ServerStream{name}")).behaviour(behaviour).with("together", true)
    };
    let calls = [stream("One", 15.0).api_key("key-one"), stream("Two", 6.0).api_key("key-two")];
    let answers = std::thread::scope(|scope| {
        let client = scope.spawn(|| doorward.calls(&calls));
        eventually("both calls", || {
            (upstream.calls().iter().filter(|call| call["method"].to_string().contains("Stream")).count() == 2).then_some(())
        });
        site.write("api-keys.yaml", format!("keys:\n{}", record("two", "key-two")));
        upstream.ended("/demo.v1.Echo/ServerStreamOne");
        client.join().unwrap()
    });
    let refusals: Vec<_> = answers.iter().map(Answer::refusal).collect();
    assert_eq!(refusals, [(16, "CREDENTIALS_REVOKED"), (0, "")]);
    soon_with(&mut wire, "/demo.v1.Users/Get", "key-one", (16, "API_KEY_UNKNOWN")).await;
    // The secret of a provider: a token that was at hand is of the generation before.
    let token = bearer(json!({}));
    let get = || request("/demo.v1.Echo/Unary", &[("authorization", &token)]);
    assert_eq!(wire.call(get()).await.refusal().0, 0);
    site.write("hmac.secret", "another secret, long enough for HS256 and then some\n");
    let started = Stopwatch::start();
    while wire.call(get()).await.refusal() != (16, "TOKEN_SIGNATURE".to_owned()) {
        assert!(started.elapsed() < SOON);
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_new_connections_and_old_ones_stay() {
    let (upstream, site) = (RawUpstream::echo(), Site::new());
    let doorward = site.start(&standard(&upstream.url()));
    let shown = async || {
        let stream = wire::tls(&doorward, &[b"h2"]).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let first = shown().await;
    let expiry = || doorward.metric("doorward_certificate_expiry_timestamp_seconds", &["certificate=\"listen\""]);
    let before = expiry();
    let mut wire = Wire::connect(&doorward).await;
    // Another key in the meantime: a pair that does not fit is no pair, and the one before stays.
    site.certificate_with("renewed", |params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("localhost".try_into().unwrap())];
        params.not_after = rcgen::date_time_ymd(2051, 2, 3);
    });
    fs::copy(site.path("renewed.key"), site.path("tls.key")).unwrap();
    eventually("the metric", || (doorward.metric(LAST_GOOD, &[]) == 0.0).then_some(()));
    assert_eq!(shown().await, first);
    fs::copy(site.path("renewed.crt"), site.path("tls.crt")).unwrap();
    let started = Stopwatch::start();
    while shown().await == first {
        assert!(started.elapsed() < SOON);
    }
    assert!(expiry() != before && expiry() > 2.5e9, "{}", expiry());
    soon(&mut wire, "/demo.v1.Users/Get", ALLOWED).await;
}

#[tokio::test]
async fn calls_in_flight_keep_their_generation_and_their_upstream() {
    let (first, second, site) = (PythonUpstream::start(), PythonUpstream::start(), Site::new());
    let doorward = site.start(&standard(&first.url()));
    let behaviour = json!({ "count": 60, "sleep": 0.05 });
    let calls = [call("/demo.v1.Echo/ServerStream").behaviour(behaviour).api_key(API_KEY)];
    let answers = std::thread::scope(|scope| {
        let client = scope.spawn(|| doorward.calls(&calls));
        eventually("the call", || (first.calls().len() == 1).then_some(()));
        // Another upstream, and nobody may call this method any more.
        site.write("doorward.yaml", standard(&second.url()).replace("/demo.v1.Echo/*: authenticated", "/demo.v1.Other/*: authenticated"));
        eventually("the reload", || (generation(&doorward) == 2.0).then_some(()));
        let get = call("/demo.v1.Users/Get").api_key(API_KEY);
        assert_eq!(doorward.call(get).refusal(), (0, ""));
        let echo = call("/demo.v1.Echo/Unary").api_key(API_KEY);
        assert_eq!(doorward.call(echo).refusal(), (7, "METHOD_NOT_ALLOWED"));
        client.join().unwrap()
    });
    assert_eq!((answers[0].refusal(), answers[0].messages().len()), ((0, ""), 60));
    first.assert_calls(1);
    second.assert_calls(1);
}

#[tokio::test]
async fn no_call_fails_while_the_configuration_changes_again_and_again() {
    let (upstream, site) = (RawUpstream::echo(), Site::new());
    let mut doorward = site.start(&standard(&upstream.url()));
    let (mut wire, over) = (Wire::connect(&doorward).await, Arc::new(AtomicBool::new(false)));
    let (ended, calls) = (over.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = calls.clone();
    let load = tokio::spawn(async move {
        while !ended.load(Ordering::Relaxed) {
            let answer = wire.call(request("/demo.v1.Users/Get", &[("x-api-key", API_KEY)])).await;
            assert_eq!(answer.refusal(), (0, String::new()));
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    for round in 1..=4 {
        site.write("doorward.yaml", if round % 2 == 0 { standard(&upstream.url()) } else { more_allowed(&upstream.url()) });
        site.certificate("tls", &["localhost", "127.0.0.1"]);
        let started = Stopwatch::start();
        while generation(&doorward) < f64::from(round) + 1.0 {
            assert!(started.elapsed() < SOON);
            // An upstream that stays the same, and stays ready.
            assert_eq!(doorward.get("/readyz").0, 200);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let started = Stopwatch::start();
    while calls.load(Ordering::Relaxed) <= 100 {
        assert!(started.elapsed() < PATIENCE && !load.is_finished(), "{calls:?} calls");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    over.store(true, Ordering::Relaxed);
    load.await.unwrap();
    assert!(doorward.is_running());
}

#[tokio::test]
async fn what_needs_a_restart_is_told_once_and_the_rest_applied() {
    let (upstream, site) = (RawUpstream::echo(), Site::new());
    let doorward = site.start(&format!("workers: 1\n{}", standard(&upstream.url())));
    let mut wire = Wire::connect(&doorward).await;
    let other = more_allowed(&upstream.url()).replace("operations: { address: 127.0.0.1:0 }", "operations: { address: \"[::1]:0\" }");
    site.write("doorward.yaml", format!("workers: 2\n{other}"));
    soon(&mut wire, DELETE, ALLOWED).await;
    site.write("doorward.yaml", format!("workers: 2\n{}", other.replace(", users:delete", "")));
    eventually("another generation", || (generation(&doorward) == 3.0).then_some(()));
    eventually("the log", || doorward.stderr().contains("restart to apply").then_some(()));
    let said = doorward.stderr();
    assert_eq!(said.matches("restart to apply the change of workers, operations.address").count(), 1, "{said}");
}

#[tokio::test]
async fn sighup_loads_and_the_log_level_follows() {
    let (upstream, site) = (RawUpstream::echo(), Site::new());
    let yaml = |level: &str| format!("{}log: {{ level: {level} }}\n", standard(&upstream.url()));
    let doorward = site.start(&yaml("info"));
    doorward.signal("HUP");
    eventually("a generation, though nothing has changed", || (generation(&doorward) == 2.0).then_some(()));
    eventually("a word on that", || doorward.stderr().contains("loaded anew").then_some(()));
    site.write("doorward.yaml", yaml("error"));
    eventually("the next", || (generation(&doorward) == 3.0).then_some(()));
    let said = doorward.stderr();
    doorward.signal("HUP");
    eventually("the next", || (generation(&doorward) == 4.0).then_some(()));
    assert_eq!(doorward.stderr(), said, "nothing is said at this level, and nothing is lost by that");
    site.write("doorward.yaml", format!("{}log: {{ access: none }}\n", standard(&upstream.url())));
    eventually("the next", || (generation(&doorward) == 5.0).then_some(()));
    let mut wire = Wire::connect(&doorward).await;
    soon(&mut wire, DELETE, REFUSED).await;
    assert!(doorward.access_log().is_empty());
    site.write("doorward.yaml", yaml("info"));
    eventually("the next", || (generation(&doorward) == 6.0).then_some(()));
    soon(&mut wire, DELETE, REFUSED).await;
    doorward.access_lines(1);
}

#[tokio::test]
async fn a_reload_during_an_outage_of_the_key_server_loses_no_key() {
    let (upstream, site) = (RawUpstream::echo(), Site::new());
    let server = KeyServer::with_keys(&[&token::RSA.jwk]);
    let yaml = |roles: &str| {
        let keys = format!("algorithms: [RS256]\n      jwks_url: {}", server.url());
        standard(&upstream.url())
            .replace("algorithms: [HS256]\n      secret_file: hmac.secret", &keys)
            .replace("viewer: [users:read]", roles)
    };
    let doorward = site.start(&yaml("viewer: [users:read]"));
    let mut wire = Wire::connect(&doorward).await;
    let bearer = format!("Bearer {}", token::RSA.token(&claims(json!({ "roles": ["viewer"] }))));
    let delete = || request(DELETE, &[("authorization", &bearer)]);
    assert_eq!(wire.call(delete()).await.refusal().1, REFUSED.1);
    server.fail();
    site.write("doorward.yaml", yaml("viewer: [users:read, users:delete]"));
    let started = Stopwatch::start();
    loop {
        let (status, reason) = wire.call(delete()).await.refusal();
        if status == 0 {
            break;
        }
        assert!(reason == REFUSED.1 && started.elapsed() < SOON, "{reason}");
        assert_eq!(doorward.get("/readyz").0, 200);
    }
}

#[tokio::test]
async fn a_revocations_file_that_is_missing_for_a_moment_delays_nothing_for_good() {
    let (upstream, site) = (RawUpstream::echo(), Site::new());
    let revoking = |yaml: String| yaml.replacen("authentication:\n", "authentication:\n  revocations: { file: revocations.yaml }\n", 1);
    site.write("revocations.yaml", "revoked: []\n");
    let doorward = site.start(&revoking(standard(&upstream.url())));
    let mut wire = Wire::connect(&doorward).await;
    fs::remove_file(site.path("revocations.yaml")).unwrap();
    site.write("doorward.yaml", revoking(more_allowed(&upstream.url())));
    eventually("the metric", || (doorward.metric(LAST_GOOD, &[]) == 0.0).then_some(()));
    soon(&mut wire, DELETE, REFUSED).await;
    site.write("revocations.yaml", "revoked: [{ api_key: plain }]\n");
    soon(&mut wire, DELETE, ALLOWED).await;
    // And it is followed still.
    site.write("revocations.yaml", "revoked: [{ api_key: analytics }]\n");
    soon(&mut wire, DELETE, (16, "CREDENTIALS_REVOKED")).await;
    assert_eq!(generation(&doorward), 2.0, "which makes no generation");
}
