//! Key sets from a URL: fetched once for everyone, rotated, and never the reason that a wrong token gets in.

use crate::harness::frames::grpc_fields;
use crate::harness::token::{OTHER_RSA, RSA};
use crate::harness::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const METHOD: &str = "/demo.v1.Echo/Unary";

fn provider(source: &str) -> String {
    format!(
        "authentication:\n  jwt:\n    - {{ name: remote, issuer: https://issuer.test/, audiences: [users-api], algorithms: [RS256], {source}, cooldown: 1s, timeout: 2s }}\n\
         authorization: {{ default: authenticated }}\n"
    )
}

fn with_url(server: &KeyServer) -> String {
    provider(&format!("jwks_url: \"{}\"", server.url()))
}

fn first() -> Call {
    call(METHOD).bearer(&RSA.token(&claims(json!({}))))
}

fn other() -> Call {
    call(METHOD).bearer(&OTHER_RSA.token(&claims(json!({}))))
}

#[test]
fn a_set_is_fetched_once_for_everyone() {
    let (upstream, server) = (PythonUpstream::start(), KeyServer::with_keys(&[&RSA.jwk]));
    let doorward = Site::new().start(&configuration(&upstream.url(), &with_url(&server)));
    let calls: Vec<Call> =
        (0..20).map(|number| call(METHOD).bearer(&RSA.token(&claims(json!({"jti": number})))).with("together", true)).collect();
    assert!(doorward.calls(&calls).iter().all(|answer| answer.code() == 0));
    assert_eq!(server.fetches(), 1);
    assert_eq!(doorward.metric("doorward_key_set_fetches_total", &["provider=\"remote\""]), 1.0);
}

#[test]
fn an_outage_before_the_first_set_is_unavailable_never_unauthenticated_and_ends_by_itself() {
    let (upstream, server) = (PythonUpstream::start(), KeyServer::down());
    let mut doorward = Site::new().start_unready(&configuration(&upstream.url(), &with_url(&server)));
    let answers = doorward.calls(&[first(), other()]);
    assert_eq!(answers.iter().map(Answer::refusal).collect::<Vec<_>>(), [(14, "KEYS_UNAVAILABLE"); 2]);
    assert!(answers.iter().all(|answer| answer.seconds() < 5.0), "{answers:?}");
    assert_eq!((doorward.get("/readyz").0, doorward.get("/startupz").0), (503, 200));
    assert!(doorward.get("/readyz?verbose").1.contains("remote"));
    server.answer("500 Internal Server Error", "{}");
    assert_eq!(doorward.call(first()).refusal(), (14, "KEYS_UNAVAILABLE"));
    server.publish(&[&RSA.jwk]);
    doorward.wait_ready();
    assert_eq!(doorward.call(first()).code(), 0);
    upstream.assert_calls(1);
}

#[test]
fn readiness_may_ignore_a_provider() {
    let (upstream, server) = (PythonUpstream::start(), KeyServer::down());
    let rest = with_url(&server).replace("cooldown: 1s", "readiness: ignored, cooldown: 1s");
    let doorward = Site::new().start(&configuration(&upstream.url(), &rest));
    assert_eq!(doorward.call(first()).refusal(), (14, "KEYS_UNAVAILABLE"));
}

#[test]
fn an_outage_after_the_first_set_is_not_noticed() {
    let (upstream, server) = (PythonUpstream::start(), KeyServer::with_keys(&[&RSA.jwk]));
    let doorward =
        Site::new().start(&configuration(&upstream.url(), &with_url(&server).replace("cooldown: 1s", "refresh: 1s, cooldown: 1s")));
    server.fail();
    let fetches = server.fetches();
    eventually("a refresh that fails", || (server.fetches() > fetches).then_some(()));
    assert_eq!(doorward.call(first()).code(), 0);
    // A refreshed set without one usable key keeps the old ones.
    server.publish(&[&json!({"kty": "oct", "k": "c2VjcmV0"})]);
    let fetches = server.fetches();
    eventually("two more", || (server.fetches() > fetches + 1).then_some(()));
    assert_eq!(doorward.call(first()).code(), 0);
    assert_eq!(doorward.get("/readyz").0, 200);
}

#[test]
fn a_rotated_key_is_found_by_one_fetch_after_the_cooldown() {
    let (upstream, server) = (PythonUpstream::start(), KeyServer::with_keys(&[&RSA.jwk]));
    let doorward = Site::new().start(&configuration(&upstream.url(), &with_url(&server)));
    assert_eq!(doorward.call(first()).code(), 0);
    server.publish(&[&RSA.jwk, &OTHER_RSA.jwk]);
    eventually("the new key", || (doorward.call(other()).code() == 0).then_some(()));
    assert_eq!(doorward.call(first()).code(), 0, "the old one stays");
    let fetches = server.fetches();
    assert!(fetches <= 4, "{fetches}");
}

#[test]
fn a_withdrawn_key_ends_its_cached_verdicts_within_one_refresh() {
    let (upstream, server) = (PythonUpstream::start(), KeyServer::with_keys(&[&RSA.jwk, &OTHER_RSA.jwk]));
    let rest = with_url(&server).replace("cooldown: 1s", "refresh: 1s, cooldown: 1s");
    let doorward = Site::new().start(&configuration(&upstream.url(), &rest));
    let mut client = doorward.client();
    assert!(client.calls(&[first(), other(), first(), other()]).iter().all(|answer| answer.code() == 0));
    server.publish(&[&OTHER_RSA.jwk]);
    let withdrawn = Stopwatch::start();
    eventually("its refusal", || (client.calls(&[first()])[0].refusal() == (16, "TOKEN_KEY_UNKNOWN")).then_some(()));
    assert!(withdrawn.elapsed() < Duration::from_secs(5), "{:?}", withdrawn.elapsed());
    assert_eq!(client.calls(&[other()])[0].code(), 0);
}

#[test]
fn the_servers_own_word_on_how_long_a_set_lasts_is_heard() {
    let (upstream, server) = (PythonUpstream::start(), KeyServer::down());
    server.answer("200 OK\r\ncache-control: public, max-age=2", &json!({ "keys": [RSA.jwk] }).to_string());
    let rest = with_url(&server).replace("cooldown: 1s", "refresh: 1h, cooldown: 1s");
    let _doorward = Site::new().start(&configuration(&upstream.url(), &rest));
    eventually("a refresh", || (server.asked().len() >= 2).then_some(()));
    let asked = server.asked();
    let apart = asked[1].at - asked[0].at;
    assert!(apart >= Duration::from_millis(1700), "ahead of the end, but not at once: {apart:?}");
}

#[test]
fn unknown_kids_do_not_flood_the_key_server() {
    let (upstream, server) = (PythonUpstream::start(), KeyServer::with_keys(&[&RSA.jwk]));
    let rest = with_url(&server).replace("cooldown: 1s", "cooldown: 1h");
    let doorward = Site::new().start(&configuration(&upstream.url(), &rest));
    let of = |kid: usize| {
        let header = json!({"alg": "RS256", "kid": format!("invented-{kid}")}).to_string();
        call(METHOD).bearer(&OTHER_RSA.sign(&header, &claims(json!({})).to_string())).with("together", true)
    };
    let answers = doorward.calls(&(0..50).map(of).collect::<Vec<_>>());
    assert!(answers.iter().all(|answer| answer.refusal() == (16, "TOKEN_KEY_UNKNOWN")), "{:?}", answers[0]);
    assert!(server.fetches() <= 2, "{}", server.fetches());
}

#[test]
fn one_strange_key_does_not_lose_the_set_and_unusable_ones_are_ignored() {
    let (upstream, server) = (PythonUpstream::start(), KeyServer::down());
    let changed = |changes: Value| {
        let mut jwk = OTHER_RSA.jwk.clone();
        jwk.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        jwk
    };
    let (encryption, operations, algorithm) =
        (changed(json!({"use": "enc"})), changed(json!({"key_ops": ["encrypt"]})), changed(json!({"alg": "RSA-OAEP"})));
    let (broken, strange) = (changed(json!({"n": "!"})), json!({"kty": "quantum", "kid": 7}));
    // What everybody knows as an HMAC secret must not become one.
    let symmetric = json!({"kty": "oct", "kid": "other", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"});
    server.publish(&[&strange, &symmetric, &encryption, &operations, &algorithm, &broken, &json!("no object"), &RSA.jwk]);
    let doorward = Site::new().start(&configuration(&upstream.url(), &with_url(&server)));
    assert_eq!(doorward.call(first()).code(), 0);
    let refused = doorward.call(other());
    assert!(["TOKEN_KEY_UNKNOWN", "TOKEN_ALGORITHM"].contains(&refused.reason()) && refused.code() == 16, "{refused:?}");
}

#[test]
fn several_keys_may_share_a_kid() {
    let (upstream, server) = (PythonUpstream::start(), KeyServer::down());
    let mut twin = OTHER_RSA.jwk.clone();
    twin["kid"] = json!("first");
    server.publish(&[&twin, &RSA.jwk]);
    let doorward = Site::new().start(&configuration(&upstream.url(), &with_url(&server)));
    assert_eq!(doorward.call(first()).code(), 0, "the second of that kid");
}

#[test]
fn what_a_key_server_must_not_do_counts_as_an_outage() {
    let (upstream, elsewhere) = (PythonUpstream::start(), KeyServer::with_keys(&[&RSA.jwk]));
    let redirect = format!("302 Found\r\nlocation: {}", elsewhere.url());
    let huge = format!("{{\"padding\": \"{}\", \"keys\": [{}]}}", "x".repeat(2 << 20), RSA.jwk);
    let server = KeyServer::down();
    let doorward = Site::new().start_unready(&configuration(&upstream.url(), &with_url(&server)));
    for (what, status, body) in
        [("a redirect", redirect.as_str(), ""), ("more than a megabyte", "200 OK", &huge), ("no JSON", "200 OK", "<html>")]
    {
        server.answer(status, body);
        let fetches = server.fetches();
        eventually("a fetch", || (server.fetches() > fetches).then_some(()));
        assert_eq!(doorward.call(first()).refusal(), (14, "KEYS_UNAVAILABLE"), "{what}");
    }
    assert_eq!(elsewhere.fetches(), 0, "no redirect is followed");
    assert!(upstream.calls().is_empty());
}

#[test]
fn keys_after_the_first_hundred_are_ignored() {
    let (upstream, server) = (PythonUpstream::start(), KeyServer::down());
    let mut keys = vec![&RSA.jwk; 100];
    keys.push(&OTHER_RSA.jwk);
    server.publish(&keys);
    let doorward = Site::new().start(&configuration(&upstream.url(), &with_url(&server)));
    assert_eq!(doorward.calls(&[first(), other()]).iter().map(Answer::refusal).collect::<Vec<_>>(), [(0, ""), (16, "TOKEN_KEY_UNKNOWN")]);
}

#[test]
fn discovery_names_the_set_and_its_issuer_must_be_ours() {
    let (upstream, server) = (PythonUpstream::start(), KeyServer::with_keys(&[&RSA.jwk]));
    let issuer = server.origin();
    let rest = provider("discovery: true").replace("https://issuer.test/", &issuer);
    let of_issuer = call(METHOD).bearer(&RSA.token(&claims(json!({ "iss": issuer }))));
    let document = |issuer: &str| json!({"issuer": issuer, "jwks_uri": server.url()}).to_string();
    server.answer_at("/.well-known/openid-configuration", "200 OK", &document("https://somebody.else/"));
    let mut doorward = Site::new().start_unready(&configuration(&upstream.url(), &rest));
    assert_eq!(doorward.call(of_issuer.clone()).refusal(), (14, "KEYS_UNAVAILABLE"));
    server.answer_at("/.well-known/openid-configuration", "200 OK", &document(&issuer));
    doorward.wait_ready();
    assert_eq!(doorward.call(of_issuer).code(), 0);
}

/// An issuer like a Kubernetes API server: its own CA, nothing without a token, which changes, nor to who wants another type.
#[test]
fn a_clusters_own_issuer_is_asked_with_its_ca_and_the_token_of_the_moment() {
    let (upstream, site) = (PythonUpstream::start(), Site::new());
    let (server, elsewhere) = (KeyServer::down_with_tls(&site, "tls"), KeyServer::down_with_tls(&site, "tls"));
    let issuer = server.origin();
    let wanted = Arc::new(Mutex::new(site.write("bearer", "token-of-today\n")));
    let guarded = |path: &str, kind: &'static str, body: String| {
        let file = wanted.clone();
        server.act_at(path, move |exchange| {
            let token = std::fs::read_to_string(&*file.lock().unwrap()).unwrap();
            let sent = format!("\r\nauthorization: Bearer {}\r\n", token.trim_end());
            let head = exchange.head.to_ascii_lowercase();
            let accepts = head.lines().find(|line| line.starts_with("accept: ")).unwrap();
            match head.contains(&sent.to_ascii_lowercase()) {
                false => exchange.answer("401 Unauthorized", ""),
                true if accepts.contains(kind) => exchange.answer("200 OK", &body),
                true => exchange.answer("406 Not Acceptable", ""),
            }
        });
    };
    let document = |jwks_uri: String| json!({"issuer": issuer, "jwks_uri": jwks_uri}).to_string();
    guarded("/.well-known/openid-configuration", "application/json", document(elsewhere.url()));
    guarded("/jwks.json", "application/jwk-set+json", json!({ "keys": [RSA.jwk] }).to_string());
    elsewhere.answer("403 Forbidden", "");
    let rest = provider("discovery: true, jwks_ca: ca.pem, jwks_bearer_file: bearer, refresh: 1s").replace("https://issuer.test/", &issuer);
    let mut doorward = site.start_unready(&configuration(&upstream.url(), &rest));
    let of_issuer = call(METHOD).bearer(&RSA.token(&claims(json!({ "iss": issuer }))));

    // The token is the issuer's; another place that its document names gets none, and the log says so.
    assert_eq!(doorward.call(of_issuer.clone()).refusal(), (14, "KEYS_UNAVAILABLE"));
    let said = format!("the key set at {}, which is not the issuer's own place and was not sent the token", elsewhere.origin());
    eventually("a word on that", || doorward.stderr().contains(&said).then_some(()));
    assert!(elsewhere.asked().iter().all(|asked| !asked.head.to_ascii_lowercase().contains("authorization")));

    guarded("/.well-known/openid-configuration", "application/json", document(server.url()));
    doorward.wait_ready();
    assert_eq!(doorward.call(of_issuer.clone()).code(), 0);
    // The cluster writes a new one; each fetch reads it again.
    site.write("bearer", "token-of-tomorrow\n");
    let with_new = || server.asked().iter().filter(|asked| asked.head.contains("Bearer token-of-tomorrow")).count();
    eventually("a fetch of both documents with the new one", || (with_new() >= 2).then_some(()));
    assert!(server.asked().iter().all(|asked| asked.head.contains("user-agent: doorward/")));
    let everything = [doorward.stderr(), doorward.stdout().text(), doorward.get("/metrics").1].concat();
    assert!(!everything.contains("token-of-"));
}

#[test]
fn only_the_named_authorities_vouch_for_a_key_server() {
    let (upstream, site, server_site) = (PythonUpstream::start(), Site::new(), Site::new());
    let server = KeyServer::down_with_tls(&server_site, "tls");
    server.publish(&[&RSA.jwk]);
    // The system's roots, or another's CA, do not know this one.
    for ca in ["", ", jwks_ca: ca.pem"] {
        let rest = provider(&format!("jwks_url: \"{}\"{ca}", server.url()));
        let doorward = site.start_unready(&configuration(&upstream.url(), &rest));
        assert_eq!(doorward.call(first()).refusal(), (14, "KEYS_UNAVAILABLE"));
        eventually("the log", || doorward.stderr().contains("jwks_ca names").then_some(()));
    }
    // Where the system does know it, it is known without jwks_ca, and with one it is not.
    let system = server_site.path("ca.pem");
    let plain = configuration(&upstream.url(), &provider(&format!("jwks_url: \"{}\"", server.url())));
    let mut trusting = site.start_unready_in(&[("SSL_CERT_FILE", &system)], &plain);
    trusting.wait_ready();
    let asked = server.asked().len();
    let doorward = site.start_unready_in(&[("SSL_CERT_FILE", &system)], &plain.replace("cooldown", "jwks_ca: ca.pem, cooldown"));
    assert_eq!(doorward.call(first()).refusal(), (14, "KEYS_UNAVAILABLE"));
    assert_eq!(server.asked().len(), asked);
    // Nor is a name that the certificate does not have taken for it.
    server_site.certificate("other", &["other.test"]);
    let misnamed = KeyServer::down_with_tls(&server_site, "other");
    misnamed.publish(&[&RSA.jwk]);
    let rest = provider(&format!("jwks_url: \"{}\", jwks_ca: ca.pem", misnamed.url()));
    let doorward = server_site.start_unready(&configuration(&upstream.url(), &rest));
    assert_eq!(doorward.call(first()).refusal(), (14, "KEYS_UNAVAILABLE"));
    assert!(misnamed.asked().is_empty());
}

#[test]
fn the_fetch_is_https_except_on_loopback() {
    let site = Site::new();
    let rest = provider("jwks_url: \"http://auth.example.com/jwks.json\"");
    let path = site.write("doorward.yaml", configuration("http://127.0.0.1:1", &rest));
    let output = command(&["check", "--config", path.to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(78), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_call_cancelled_while_it_waits_for_keys_is_over_at_once() {
    // Takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/jwks", silent.local_addr().unwrap());
    let rest = format!(
        "authentication:\n  jwt:\n    - {{ name: slow, issuer: https://issuer.test/, audiences: [users-api], algorithms: [RS256], \
         jwks_url: \"{url}\", timeout: 60s, readiness: ignored }}\nauthorization: {{ methods: {{ /demo.v1.Echo/*: authenticated }} }}\n"
    );
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start_unready(&configuration(&upstream.url(), &rest));
    let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let token = format!("Bearer {}.{}.c2ln", encoded(r#"{"alg":"RS256"}"#), encoded(r#"{"iss":"https://issuer.test/"}"#));
    let mut frames = Frames::open(&doorward).await;
    for number in 0..50 {
        frames.request(1 + 2 * number, &grpc_fields("/demo.v1.Echo/Unary", &[("authorization", &token)])).await;
    }
    eventually("calls that wait", || (doorward.metric("doorward_streams", &[]) == 50.0).then_some(()));
    for number in 0..50 {
        frames.send(kind::RST_STREAM, 0, 1 + 2 * number, &u32::from(h2::Reason::CANCEL).to_be_bytes()).await;
    }
    eventually("their end", || (doorward.metric("doorward_streams", &[]) == 0.0).then_some(()));
    assert_eq!(doorward.access_lines(50).len(), 50, "each has its record");
    assert!(frames.is_alive().await);
}
