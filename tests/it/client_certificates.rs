//! Callers known by their certificate: a real grpcio client with certificates of every kind, alone and together with tokens
//! and keys.

use crate::harness::frames::grpc_fields;
use crate::harness::*;
use h2::Reason;
use rcgen::{CertificateParams, SanType};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

const METHOD: &str = "/demo.v1.Echo/Unary";
const SPIFFE: &str = "spiffe://cluster.local/ns/billing/sa/worker";

/// The standard providers and keys, and an entry of each kind.
fn rest(client_certificate: &str) -> String {
    let listen = format!(
        "listen: {{ address: 127.0.0.1:0, tls: {{ certificate: tls.crt, private_key: tls.key, client_ca: ca.pem{client_certificate} }} }}\n"
    );
    let entries = format!(
        "  client_certificates:
    - {{ spiffe: \"{SPIFFE}\", client_id: billing-worker, roles: [biller] }}
    - {{ dns: Batch.Example.com, client_id: batch }}
    - {{ common_name: old-backup, client_id: backup, roles: [viewer] }}
authorization:
"
    );
    let standard = site::STANDARD.replace("authorization:\n", &entries);
    let standard = standard.replace("  methods:\n", "  clients: { batch: [viewer] }\n  methods:\n");
    let standard = standard.replace("    viewer: [users:read]\n", "    viewer: [users:read]\n    biller: [bills:write]\n");
    listen + &standard + "    /demo.v1.Users/ByCertificateOnly: { from: [client_certificates] }\n"
}

const OPTIONAL: &str = ", client_certificate: optional";

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

/// `<name>.crt` with these alternative names.
fn issue(site: &Site, name: &str, names: Vec<SanType>) -> Value {
    site.certificate_with(name, |params: &mut CertificateParams| params.subject_alt_names = names);
    as_client(site, name)
}

/// The order's members that make the client present `<name>.crt`.
fn as_client(site: &Site, name: &str) -> Value {
    json!({"certificate": site.path(&format!("{name}.crt")), "key": site.path(&format!("{name}.key"))})
}

#[test]
fn without_a_required_certificate_there_is_no_connection() {
    let (site, upstream) = (Site::new(), PythonUpstream::start());
    let known = issue(&site, "worker", vec![uri(SPIFFE)]);
    let stranger = Site::new();
    let forged = issue(&stranger, "worker", vec![uri(SPIFFE)]);
    for (word, without) in [("", 14), (", client_certificate: required", 14), (OPTIONAL, 0)] {
        let doorward = site.start(&configuration(&upstream.url(), &rest(word)));
        let before = upstream.calls().len();
        let call = call(METHOD).bearer(&token(json!({})));
        let code = |who: &Value| doorward.calls_as(who, std::slice::from_ref(&call)).remove(0);
        assert_eq!(code(&known).code(), 0, "{word}");
        // TLS ends it: there is no answer with a reason, and even the good token is never looked at.
        assert_eq!(code(&json!({})).refusal(), (without, ""), "{word}");
        assert_eq!(code(&forged).refusal(), (14, ""), "one that does not verify is worse than none, {word}");
        upstream.assert_calls(before + if without == 0 { 2 } else { 1 });
    }
}

#[test]
fn each_kind_of_name_is_a_client() {
    let (site, upstream) = (Site::new(), PythonUpstream::start());
    let doorward = site.start(&configuration(&upstream.url(), &rest(OPTIONAL)));
    for (names, file, client_id, roles, permissions) in [
        (vec![uri(SPIFFE)], "a", "billing-worker", vec!["biller"], vec!["bills:write"]),
        (vec![dns("other.example.com"), uri(SPIFFE)], "b", "billing-worker", vec!["biller"], vec!["bills:write"]),
        // The role is the policy's, for the client.
        (vec![dns("other.example.com"), dns("bATCH.example.com")], "c", "batch", vec!["viewer"], vec!["users:read"]),
        (vec![], "old-backup", "backup", vec!["viewer"], vec!["users:read"]),
    ] {
        let order = issue(&site, file, names);
        let spoofed = call(METHOD).metadata("client_id", "somebody").metadata("user_id", "somebody").metadata("roles", "admin");
        let answer = doorward.calls_as(&order, &[spoofed]).remove(0);
        assert_eq!(answer.upstream_saw("client_id"), [client_id], "{file}");
        assert_eq!(answer.upstream_saw("roles"), roles, "{file}");
        assert_eq!(answer.upstream_saw("permissions"), permissions, "{file}");
        for absent in ["user_id", "user_email", "user_name", "api_key_id"] {
            assert_eq!(answer.upstream_saw(absent), [""; 0], "{file}: {absent}");
        }
    }
    for line in doorward.access_lines(4) {
        assert_eq!(line["auth"], "client_certificate");
        assert!(line["user_id"].is_null() && line["provider"].is_null() && line["client_id"].is_string(), "{line}");
    }
    assert_eq!(doorward.metric("doorward_authentication_total", &["kind=\"client_certificate\""]), 4.0);
}

#[test]
fn a_certificate_of_nobody_is_as_good_as_none() {
    let (site, upstream) = (Site::new(), PythonUpstream::start());
    // Required on purpose: TLS is content with each of them.
    let doorward = site.start(&configuration(&upstream.url(), &(rest("") + "log: { explain_refusals: true }\n")));
    for (names, file) in [
        (vec![uri(SPIFFE), uri("spiffe://cluster.local/ns/billing/sa/other")], "two-uris"),
        (vec![uri(SPIFFE), uri(SPIFFE)], "twice"),
        (vec![uri("spiffe://cluster.local/ns/billing/sa/worker2"), dns("batch.example.com.evil")], "longer"),
        (vec![dns("*.example.com")], "wildcard"),
        (vec![dns("old-backup"), uri("spiffe://batch.example.com")], "another-kind"),
    ] {
        let order = issue(&site, file, names);
        let with_token = call(METHOD).bearer(&token(json!({})));
        let answers = doorward.calls_as(&order, &[call(METHOD), with_token, call("/demo.v1.Public/Unary")]);
        assert_eq!(answers[0].refusal(), (16, "CREDENTIALS_MISSING"), "{file}");
        assert_eq!(
            (answers[1].upstream_saw("user_id"), answers[1].upstream_saw("client_id")),
            (vec!["alice".to_owned()], vec![]),
            "{file}"
        );
        assert_eq!(answers[2].code(), 0, "{file}");
    }
    let lines = doorward.access_lines(15);
    assert!(lines.iter().all(|line| line["auth"] == "none" || line["auth"] == "jwt"), "{lines:?}");
    assert!(lines[0].to_string().contains("matches no entry"), "the operator is told: {}", lines[0]);
}

#[test]
fn a_certificate_goes_together_with_a_token_and_a_key() {
    let (site, upstream) = (Site::new(), PythonUpstream::start());
    let doorward = site.start(&configuration(&upstream.url(), &rest(OPTIONAL)));
    let worker = issue(&site, "worker", vec![uri(SPIFFE)]);
    let batch = issue(&site, "batch", vec![dns("batch.example.com")]);
    let token = token(json!({"roles": ["viewer"]}));
    let calls = [
        call(METHOD).bearer(&token),
        call(METHOD).api_key(API_KEY),
        call(METHOD).bearer(&token).api_key(API_KEY),
        call(METHOD).bearer("x.y.z"),
        call(METHOD).api_key("nobody's"),
    ];
    let answers = doorward.calls_as(&worker, &calls);
    for (answer, user_id, client_id) in [
        (&answers[0], "alice", "billing-worker"),
        (&answers[1], "svc-analytics", "analytics-service"),
        (&answers[2], "alice", "analytics-service"),
    ] {
        assert_eq!(
            (answer.upstream_saw("user_id"), answer.upstream_saw("client_id")),
            (vec![user_id.to_owned()], vec![client_id.to_owned()])
        );
        assert_eq!(answer.upstream_saw("roles"), ["biller,viewer"]);
    }
    assert_eq!(answers[3].refusal(), (16, "TOKEN_MALFORMED"), "a certificate makes up for nothing");
    assert_eq!(answers[4].refusal(), (16, "API_KEY_UNKNOWN"));
    // The same token on a connection of somebody else, and of nobody: its verdict is cached, but not for them.
    assert_eq!(doorward.calls_as(&batch, &calls[..1])[0].upstream_saw("client_id"), ["batch"]);
    assert_eq!(doorward.calls(&calls[..1])[0].upstream_saw("client_id"), [""; 0]);
    assert_eq!(doorward.calls_as(&worker, &calls[..1])[0].upstream_saw("client_id"), ["billing-worker"]);
    let kinds: Vec<Value> = doorward.access_lines(8).iter().map(|line| line["auth"].clone()).collect();
    assert_eq!(kinds[..3], ["jwt+client_certificate", "api_key+client_certificate", "jwt+api_key+client_certificate"]);
}

#[test]
fn rules_ask_for_a_certificate_with_from() {
    let (site, upstream) = (Site::new(), PythonUpstream::start());
    let doorward = site.start(&configuration(&upstream.url(), &rest(OPTIONAL)));
    let worker = issue(&site, "worker", vec![uri(SPIFFE)]);
    let backup = issue(&site, "old-backup", vec![]);
    let token = token(json!({"roles": ["admin"]}));
    let only = call("/demo.v1.Users/ByCertificateOnly");
    let by_key = call("/demo.v1.Users/ByKeyOnly");
    let answers = doorward.calls_as(&worker, &[only.clone(), only.clone().bearer(&token), by_key, call("/demo.v1.Users/Get")]);
    let refusals: Vec<_> = answers.iter().map(Answer::refusal).collect();
    assert_eq!(refusals, [(0, ""), (0, ""), (7, "CREDENTIALS_NOT_ACCEPTED"), (7, "PERMISSION_MISSING")]);
    assert_eq!(doorward.call(only.bearer(&token)).refusal(), (7, "CREDENTIALS_NOT_ACCEPTED"));
    assert_eq!(doorward.calls_as(&backup, &[call("/demo.v1.Users/Get")])[0].code(), 0, "the entry's own role");
}

#[test]
fn nobody_is_looked_at_on_public_methods_or_where_nothing_is_checked() {
    let (site, upstream) = (Site::new(), PythonUpstream::start());
    let worker = issue(&site, "worker", vec![uri(SPIFFE)]);
    let checked = rest("");
    let unchecked = checked.replace("authentication:\n", "authentication:\n  mode: disabled\n");
    for (rest, method) in [(checked, "/demo.v1.Public/Unary"), (unchecked, METHOD)] {
        let doorward = site.start(&configuration(&upstream.url(), &rest));
        let answer = doorward.calls_as(&worker, &[call(method).metadata("client_id", "somebody")]).remove(0);
        assert_eq!(answer.upstream_saw("client_id"), [""; 0], "{method}");
        assert_eq!(doorward.access_lines(1)[0]["auth"], "none");
    }
}

/// A site whose clients' authorities stand in a file of their own.
fn with_authorities() -> (Site, String) {
    let site = Site::new();
    fs::copy(site.path("ca.pem"), site.path("clients.pem")).unwrap();
    issue(&site, "worker", vec![uri(SPIFFE)]);
    (site, rest(OPTIONAL).replace("client_ca: ca.pem", "client_ca: clients.pem"))
}

#[test]
fn a_client_whose_authority_is_no_longer_listed_is_sent_away_when_its_calls_are_done() {
    let ((site, rest), upstream) = (with_authorities(), PythonUpstream::start());
    let doorward = site.start(&configuration(&upstream.url(), &rest));
    let generation = |number: f64| {
        eventually("the reload", || (doorward.metric("doorward_configuration_generation", &[]) == number).then_some(()));
    };
    let (mut certified, mut uncertified) = (doorward.client_as(&as_client(&site, "worker")), doorward.client());
    let by_token = call(METHOD).bearer(&token(json!({})));
    assert_eq!((certified.calls(&[call(METHOD)])[0].code(), uncertified.calls(std::slice::from_ref(&by_token))[0].code()), (0, 0));
    let connections = || doorward.metric("doorward_connections_total", &[]);
    assert_eq!(connections(), 2.0);
    // What has nothing to do with certificates of clients sends nobody away.
    site.certificate("tls", &["localhost", "127.0.0.1"]);
    generation(2.0);
    assert_eq!(certified.calls(&[call(METHOD)])[0].code(), 0);

    let stream = call("/demo.v1.Echo/ServerStream").behaviour(json!({"count": 100, "sleep": 0.05}));
    let answers = std::thread::scope(|scope| {
        let stranger = Site::new();
        let client = scope.spawn(move || (certified.calls(&[stream]), certified));
        eventually("the call", || upstream.calls().iter().any(|call| call["method"] == "/demo.v1.Echo/ServerStream").then_some(()));
        fs::copy(stranger.path("ca.pem"), site.path("clients.pem")).unwrap();
        generation(3.0);
        let (answers, mut certified) = client.join().unwrap();
        // It connects anew, and is not let in.
        let next = certified.calls(&[call(METHOD)]).remove(0);
        assert_eq!(next.refusal(), (14, ""), "{next:?}");
        answers
    });
    assert_eq!((answers[0].refusal(), answers[0].messages().len()), ((0, ""), 100), "the call in flight is finished");
    let before = connections();
    assert_eq!(uncertified.calls(&[by_token])[0].code(), 0);
    assert_eq!(connections(), before, "who showed no certificate keeps its connection");
}

#[tokio::test]
async fn a_client_that_does_not_go_is_refused_and_who_shows_none_goes_when_one_is_required() {
    let ((site, rest), upstream) = (with_authorities(), RawUpstream::echo());
    let doorward = site.start(&configuration(&upstream.url(), &rest));
    let (mut certified, mut uncertified) = (Frames::open_as(&doorward, &site, "worker").await, Frames::open(&doorward).await);
    certified.request(1, &grpc_fields(METHOD, &[])).await;
    assert_eq!(certified.on_stream(1).await.unwrap().kind, kind::HEADERS);
    assert!(uncertified.is_alive().await);
    site.write("doorward.yaml", configuration(&upstream.url(), &rest.replace(OPTIONAL, "")));
    for frames in [&mut certified, &mut uncertified] {
        let farewell = frames.until(kind::GOAWAY).await.unwrap();
        assert_eq!((farewell.number(0), farewell.number(4)), (0x7fff_ffff, 0));
    }
    // The PING after it is not answered, which gives no more time.
    let mut stream = 3;
    let refused = loop {
        certified.request(stream, &grpc_fields(METHOD, &[])).await;
        match certified.on_stream(stream).await {
            Some(frame) if frame.kind == kind::RST_STREAM => break frame.number(0) == u32::from(Reason::REFUSED_STREAM),
            // Without a call in flight the connection ends.
            None => break true,
            Some(_) => {}
        }
        assert!(stream < 2000, "still served");
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream += 2;
    };
    assert!(refused);
    uncertified.closed().await;
}

#[tokio::test]
async fn a_required_certificate_reaches_connections_of_every_door_there_has_been() {
    let ((site, rest), upstream) = (with_authorities(), RawUpstream::echo());
    let doorward = site.start(&standard(&upstream.url()));
    let mut oldest = Frames::open(&doorward).await;
    for (generation, rest) in [(2.0, rest.clone()), (3.0, rest.replace(OPTIONAL, ""))] {
        assert!(oldest.is_alive().await);
        site.write("doorward.yaml", configuration(&upstream.url(), &rest));
        eventually("the reload", || (doorward.metric("doorward_configuration_generation", &[]) == generation).then_some(()));
    }
    assert!(oldest.until(kind::GOAWAY).await.is_some());
    oldest.closed().await;
}
