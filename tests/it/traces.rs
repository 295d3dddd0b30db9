//! A span a call at a real collector: whose it is and what it says; and that no collector, whatever it does, costs a call.

use crate::harness::token::bearer;
use crate::harness::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Value, json};
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

fn traced(upstream: &str, log: &str) -> String {
    configuration(upstream, &format!("{}{log}", site::STANDARD))
}

fn outcome(doorward: &Doorward, word: &str) -> f64 {
    doorward.metric("doorward_spans_total", &[&format!("outcome=\"{word}\"")])
}

#[test]
fn a_call_is_a_span_within_its_clients_trace() {
    let (upstream, collector) = (PythonUpstream::start(), Collector::start());
    let doorward = Site::new().start(&traced(&upstream.url(), &collector.log()));
    let token = token(json!({}));
    let before = now_nanos();
    let answer = doorward.call(
        call("/demo.v1.Users/Get")
            .bearer(&token)
            .metadata("traceparent", &traceparent("01"))
            .metadata("tracestate", "vendor=opaque")
            .behaviour(json!({"sleep": 0.3})),
    );
    let span = &collector.wait(1)[0];
    assert_eq!((&span["trace_id"], &span["parent_id"], &span["trace_state"]), (&json!(TRACE), &json!(PARENT), &json!("vendor=opaque")));
    assert_eq!((&span["name"], &span["kind"]), (&json!("demo.v1.Users/Get"), &json!("SPAN_KIND_SERVER")));
    assert_eq!((&span["status"], &span["message"], &span["flags"]), (&json!("STATUS_CODE_UNSET"), &json!(""), &json!(0x301)));
    let line = &doorward.access_lines(1)[0];
    assert_eq!(line["trace_id"], span["trace_id"], "log and span agree");
    assert!(line["request_id"].as_str().unwrap().ends_with(span["span_id"].as_str().unwrap()));
    let attributes = &span["attributes"];
    for (name, value) in [
        ("rpc.system", json!("grpc")),
        ("rpc.service", json!("demo.v1.Users")),
        ("rpc.method", json!("Get")),
        ("rpc.grpc.status_code", json!(0)),
        ("network.peer.address", json!("127.0.0.1")),
        ("doorward.auth", json!("jwt")),
        ("doorward.provider", json!("corporate")),
        ("doorward.rule", json!("/demo.v1.Users/Get")),
        ("doorward.request_id", line["request_id"].clone()),
        ("doorward.overhead_us", line["overhead_us"].clone()),
    ] {
        assert_eq!(attributes[name], value, "{name} in {span}");
    }
    let (start, end) = (span["start"].as_u64().unwrap(), span["end"].as_u64().unwrap());
    assert!(start >= before && end <= now_nanos() && end - start >= 300_000_000, "{before} {span}");
    let micros = |name: &str| attributes[name].as_u64().unwrap();
    let (upstream_us, overhead_us) = (micros("doorward.upstream_us"), micros("doorward.overhead_us"));
    assert!(upstream_us >= 300_000 && upstream_us + overhead_us <= (end - start) / 1000 + 2, "they are apart: {span}");
    assert_eq!(span["resource"]["service.name"], "doorward");
    assert_eq!(span["scope"], concat!("doorward ", env!("CARGO_PKG_VERSION")));
    // The upstream gets what the client sent: its span is the client's child too, beside ours.
    assert_eq!(answer.upstream_saw("traceparent"), [traceparent("01")]);
    assert_eq!(answer.upstream_saw("tracestate"), ["vendor=opaque"]);
    // Neither who called nor with what is anybody's who collects traces.
    for secret in ["alice", &token, "grpc-python"] {
        assert!(!span.to_string().contains(secret), "{secret} in {span}");
    }
}

fn now_nanos() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos().try_into().unwrap()
}

#[test]
fn opencensus_context_is_understood_and_passed_on() {
    // Not grpcio, which hides this field from a service.
    let (upstream, collector) = (RawUpstream::echo(), Collector::start());
    let doorward = Site::new().start(&traced(&upstream.url(), &collector.log()));
    let hex = |text: &str| (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect::<Vec<_>>();
    let context = [&[0, 0][..], &hex(TRACE), &[1], &hex(PARENT), &[2, 1]].concat();
    doorward.call(call("/demo.v1.Public/Unary").binary("grpc-trace-bin", &context));
    let span = &collector.wait(1)[0];
    assert_eq!((&span["trace_id"], &span["parent_id"]), (&json!(TRACE), &json!(PARENT)));
    assert_eq!(doorward.access_lines(1)[0]["trace_id"], TRACE);
    let passed_on = upstream.only().values("grpc-trace-bin");
    assert_eq!(STANDARD_NO_PAD.decode(passed_on[0].trim_end_matches('=')).unwrap(), context);
}

#[tokio::test]
async fn a_call_without_a_valid_context_begins_a_trace_and_one_that_is_not_sampled_has_no_span() {
    let (upstream, collector) = (RawUpstream::echo(), Collector::start());
    let doorward = Site::new().start(&traced(&upstream.url(), &collector.log()));
    let mut wire = Wire::connect(&doorward).await;
    let (sampled, unsampled, huge) = (traceparent("01"), traceparent("00"), "0".repeat(9000));
    let zero = format!("00-{}-{PARENT}-01", "0".repeat(32));
    let contexts: [&[(&str, &str)]; 8] = [
        &[],
        &[("traceparent", "garbage")],
        &[("traceparent", &zero)],
        &[("traceparent", &huge)],
        &[("traceparent", &sampled), ("traceparent", &sampled)],
        &[("grpc-trace-bin", "!!!!")],
        &[("grpc-trace-bin", &huge)],
        &[("traceparent", &unsampled)],
    ];
    for context in contexts {
        let answer = wire.call(request("/demo.v1.Public/Unary", context)).await;
        assert_eq!(answer.grpc_status(), Some(0), "{context:?}");
    }
    // What the client sent reaches the upstream, whatever we make of it.
    let seen = upstream.seen();
    assert_eq!(seen.len(), contexts.len());
    for (seen, context) in seen.iter().zip(contexts) {
        for name in ["traceparent", "grpc-trace-bin"] {
            let sent: Vec<&str> = context.iter().filter(|(sent, _)| *sent == name).map(|(_, value)| *value).collect();
            assert_eq!(seen.values(name), sent);
        }
    }
    let lines = doorward.access_lines(contexts.len());
    let spans = collector.wait(contexts.len() - 1);
    for (line, span) in lines.iter().zip(&spans) {
        assert_eq!((&line["trace_id"], &line["request_id"]), (&span["trace_id"], &span["trace_id"]), "{span}");
        assert_eq!((&span["parent_id"], &span["flags"]), (&json!(""), &json!(0x101)));
    }
    assert_eq!(lines[contexts.len() - 1]["trace_id"], TRACE, "the log names the trace all the same");
    // Exported in order, so that the one that is not sampled would have come by now.
    wire.call(request("/demo.v1.Public/Last", &[])).await;
    let spans = collector.wait(contexts.len());
    assert!(spans.iter().all(|span| span["trace_id"] != TRACE) && spans.len() == contexts.len(), "{spans:?}");
}

#[tokio::test]
async fn every_call_has_a_span_whatever_became_of_it() {
    let (upstream, collector) = (RawUpstream::start(|call| call.answer("14")), Collector::start());
    let doorward = Site::new().start(&traced(&upstream.url(), &collector.log()));
    let mut wire = Wire::connect(&doorward).await;
    let token = bearer(json!({}));
    let authorized = [("authorization", token.as_str())];
    wire.call(request("/demo.v1.Users/Get", &authorized)).await;
    wire.call(request("/demo.v1.Users/Delete", &authorized)).await;
    wire.call(request("/invented.by/Client", &[])).await;
    wire.call(request("/no/such/path", &[])).await;
    wire.call(request("/demo.v1.Echo/Unary", &[("authorization", token.as_str()), ("grpc-timeout", "nonsense")])).await;
    let spans = collector.wait(5);
    let found: Vec<(&str, &str, &Value, &Value)> = spans
        .iter()
        .map(|span| {
            let reason = &span["attributes"]["doorward.reason"];
            (span["name"].as_str().unwrap(), span["status"].as_str().unwrap(), &span["attributes"]["rpc.grpc.status_code"], reason)
        })
        .collect();
    let (unset, error) = ("STATUS_CODE_UNSET", "STATUS_CODE_ERROR");
    let expected = [
        ("demo.v1.Users/Get", error, 14, Value::Null),
        ("demo.v1.Users/Delete", unset, 7, json!("PERMISSION_MISSING")),
        ("other/other", unset, 16, json!("CREDENTIALS_MISSING")),
        ("other/other", error, 12, json!("METHOD_MALFORMED")),
        ("other/other", error, 13, json!("TIMEOUT_MALFORMED")),
    ];
    for (found, (name, status, code, reason)) in found.iter().zip(expected) {
        assert_eq!(*found, (name, status, &json!(code), &reason));
    }
    assert_eq!(spans[2]["attributes"]["rpc.method_original"], "/invented.by/Client");
    assert!(!spans[3].to_string().contains("such"), "a malformed path is nowhere");
}

#[test]
fn a_collector_that_is_away_gets_the_spans_when_it_is_back() {
    let upstream = PythonUpstream::start();
    let address = free_address().to_string();
    let mut collector = Collector::start_with(&["--address", &address]);
    let doorward = Site::new().start(&traced(&upstream.url(), &format!("log: {{ otlp: \"http://{address}\" }}\n")));
    doorward.call(call("/demo.v1.Public/Before"));
    collector.wait(1);
    collector.kill();
    doorward.call(call("/demo.v1.Public/During"));
    eventually("the warning", || doorward.stderr().contains("spans cannot be exported").then_some(()));
    let collector = Collector::start_with(&["--address", &address]);
    let spans = collector.wait(1);
    assert_eq!(spans[0]["name"], "demo.v1.Public/During");
    eventually("the counter", || (outcome(&doorward, "exported") == 2.0).then_some(()));
    eventually("the word", || doorward.stderr().contains("spans are exported again").then_some(()));
    assert_eq!(doorward.stderr().matches("spans cannot be exported").count(), 1, "told once: {}", doorward.stderr());
}

#[test]
fn what_the_collector_refuses_for_now_is_tried_again_and_what_it_refuses_for_good_is_not() {
    let upstream = PythonUpstream::start();
    let mut collector = Collector::start();
    let doorward = Site::new().start(&traced(&upstream.url(), &collector.log()));
    collector.behave(&json!({"status": 14}));
    doorward.call(call("/demo.v1.Public/Later"));
    collector.wait_refused();
    collector.behave(&json!({}));
    assert_eq!(collector.wait(1)[0]["name"], "demo.v1.Public/Later");
    collector.behave(&json!({"reject": 1}));
    doorward.call(call("/demo.v1.Public/Rejected"));
    eventually("the counter", || (outcome(&doorward, "rejected") == 1.0).then_some(()));
    collector.behave(&json!({"status": 16}));
    doorward.call(call("/demo.v1.Public/Refused"));
    eventually("the counter", || (outcome(&doorward, "failed") == 1.0).then_some(()));
    eventually("the log", || doorward.stderr().contains("UNAUTHENTICATED: \"as told\"").then_some(()));
    assert_eq!((outcome(&doorward, "exported"), outcome(&doorward, "dropped")), (1.0, 0.0));
}

/// Accepts, reads and does with each connection what `behaviour` says; for ever.
fn hostile(behaviour: impl Fn(std::net::TcpStream) + Send + Sync + Clone + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            let behaviour = behaviour.clone();
            std::thread::spawn(move || behaviour(connection));
        }
    });
    port
}

/// HTTP/2 frames that answer the first request with headers of an OK, and then DATA without end.
fn endless(mut connection: std::net::TcpStream) {
    use std::io::Write as _;
    let _ = connection.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let mut seen = [0; 4096];
    let _ = connection.read(&mut seen);
    // :status 200, indexed.
    let _ = connection.write_all(&[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88]);
    let data = [&[0, 0x40, 0, 0, 0, 0, 0, 0, 1][..], &[0; 0x4000]].concat();
    while connection.write_all(&data).is_ok() {}
}

#[tokio::test]
async fn no_collector_whatever_it_does_holds_up_a_call_or_takes_memory() {
    let upstream = RawUpstream::echo();
    let silent = hostile(|connection| {
        let _ = (&connection).read_to_end(&mut Vec::new());
    });
    let frozen = hostile(|_connection| std::thread::park());
    let garbage = hostile(|mut connection| {
        use std::io::Write as _;
        let _ = connection.write_all(&b"HTTP/1.1 200 OK\r\n\r\n".repeat(1000));
    });
    let closing = hostile(drop);
    let endless = hostile(endless);
    let hostile = [("silent", silent), ("frozen", frozen), ("garbage", garbage), ("closing", closing), ("endless", endless)];
    let hostile = hostile.map(|(what, port)| (what, SocketAddr::from(([127, 0, 0, 1], port))));
    for (what, address) in hostile.into_iter().chain([("closed", free_address())]) {
        let site = Site::new();
        let rest = format!(
            "workers: 1\nauthentication: {{ mode: disabled }}\nlimits: {{ drain_delay: 0s, drain: 1s }}\nlog: {{ access: none, otlp: \"http://{address}\" }}\n"
        );
        let mut doorward = site.start(&configuration(&upstream.url(), &rest));
        let mut wire = Wire::connect(&doorward).await;
        wire.call(request("/demo.v1.Echo/First", &[])).await;
        let before = doorward.resident_kib();
        let long = format!("/demo.v1.Echo/{}", "A".repeat(250));
        let started = Instant::now();
        // More than there is room for: some hundred bytes each beside the names.
        for _ in 0..2500 {
            assert_eq!(wire.call(request(&long, &[])).await.grpc_status(), Some(0), "{what}");
        }
        let took = started.elapsed();
        let lost = outcome(&doorward, "dropped") + outcome(&doorward, "failed");
        assert!(lost > 0.0 && outcome(&doorward, "exported") == 0.0, "{what}: {lost} lost");
        // The buffer, the message under way, and what an unoptimised build has beside them.
        assert!(doorward.resident_kib() < before + 12 * 1024, "{what}: {} KiB after {before}", doorward.resident_kib());
        assert_eq!((doorward.get("/livez").0, doorward.get("/readyz").0), (200, 200), "{what}: readiness does not depend on it");
        drop(wire);
        let ending = Stopwatch::start();
        doorward.signal("TERM");
        assert_eq!(doorward.wait_exit(PATIENCE).code(), Some(0), "{what}");
        assert!(ending.elapsed() < Duration::from_secs(8), "{what}: the way down takes {:?}", ending.elapsed());
        eprintln!("{what}: {took:?} for 2500 calls, {lost} spans lost");
    }
}

#[test]
fn the_last_spans_are_exported_at_the_exit() {
    let (upstream, collector) = (PythonUpstream::start(), Collector::start());
    let log = format!("limits: {{ drain_delay: 0s }}\n{}", collector.log());
    let mut doorward = Site::new().start(&traced(&upstream.url(), &log));
    doorward.calls(&[call("/demo.v1.Public/One"), call("/demo.v1.Public/Two")]);
    doorward.signal("TERM");
    assert_eq!(doorward.wait_exit(PATIENCE).code(), Some(0));
    assert_eq!(collector.wait(2).len(), 2);
}

#[tokio::test]
async fn a_reload_names_another_collector_or_none() {
    let (upstream, site) = (RawUpstream::echo(), Site::new());
    let (first, second) = (Collector::start(), Collector::start());
    let doorward = site.start(&traced(&upstream.url(), ""));
    let mut wire = Wire::connect(&doorward).await;
    let mut generation = 1.0;
    let mut reload = |log: &str| {
        generation += 1.0;
        site.write("doorward.yaml", traced(&upstream.url(), log));
        eventually("the reload", || (doorward.metric("doorward_configuration_generation", &[]) == generation).then_some(()));
    };
    wire.call(request("/demo.v1.Public/Nowhere", &[])).await;
    reload(&first.log());
    wire.call(request("/demo.v1.Public/First", &[])).await;
    assert_eq!(first.wait(1)[0]["name"], "demo.v1.Public/First");
    reload(&second.log());
    wire.call(request("/demo.v1.Public/Second", &[])).await;
    assert_eq!(second.wait(1)[0]["name"], "demo.v1.Public/Second");
    reload("");
    wire.call(request("/demo.v1.Public/NowhereAgain", &[])).await;
    let lines = doorward.access_lines(4);
    assert_eq!((&lines[0]["trace_id"], &lines[3]["trace_id"]), (&Value::Null, &Value::Null));
    assert_eq!((first.spans().len(), second.spans().len()), (1, 1));
    eventually("both counted", || (doorward.metric("doorward_spans_total", &[]) == 2.0).then_some(()));
}

#[test]
fn a_collector_behind_tls_is_trusted_by_the_systems_roots_or_not_at_all() {
    let (upstream, site) = (PythonUpstream::start(), Site::new());
    let path = |name: &str| site.path(name).display().to_string();
    let collector = Collector::start_with(&["--tls", &path("tls.crt"), &path("tls.key")]);
    let yaml = traced(&upstream.url(), &format!("log: {{ otlp: \"https://localhost:{}\" }}\n", collector.port));
    let ca = site.path("ca.pem");
    let attributes = std::path::Path::new("deployment.environment.name=test,service.name=users");
    let mut doorward = site.start_unready_in(&[("SSL_CERT_FILE", &ca), ("OTEL_RESOURCE_ATTRIBUTES", attributes)], &yaml);
    doorward.wait_ready();
    doorward.call(call("/demo.v1.Public/Unary"));
    let spans = collector.wait(1);
    assert_eq!(
        (&spans[0]["resource"]["service.name"], &spans[0]["resource"]["deployment.environment.name"]),
        (&json!("users"), &json!("test"))
    );
    drop(doorward);
    let other = Site::new();
    let mut doorward = site.start_unready_in(&[("SSL_CERT_FILE", &other.path("ca.pem"))], &yaml);
    doorward.wait_ready();
    doorward.call(call("/demo.v1.Public/Unary"));
    eventually("the warning", || doorward.stderr().contains("spans cannot be exported").then_some(()));
    assert_eq!(collector.spans().len(), 1);
}
