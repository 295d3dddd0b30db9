//! Callers known by their certificate: a real grpcio client with certificates of every kind, alone and together with tokens
//! and keys.

use crate::harness::*;
use rcgen::{CertificateParams, SanType};
use serde_json::{Value, json};

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
        assert_eq!(upstream.calls().len() - before, if without == 0 { 2 } else { 1 });
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
