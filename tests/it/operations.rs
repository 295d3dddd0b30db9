//! The operations port: probes, metrics, and gRPC's own health service.

use crate::harness::frames::kind;
use crate::harness::*;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::Notify;

#[test]
fn probes_say_how_it_is() {
    let upstream = PythonUpstream::start();
    let doorward = Site::new().start(&standard(&upstream.url()));
    for probe in ["/livez", "/readyz", "/startupz"] {
        assert_eq!(doorward.get(probe).0, 200, "{probe}");
    }
    let (status, text) = doorward.get("/readyz?verbose");
    assert_eq!(status, 200);
    assert!(text.lines().count() >= 3 && text.contains("upstream"), "{text}");
    assert_eq!(doorward.get("/nothing").0, 404);
}

#[test]
fn the_certificates_expiry_is_told() {
    let site = Site::new();
    let doorward = site.start_unready(&configuration("http://127.0.0.1:1", "authentication: { mode: disabled }\n"));
    // rcgen's own choice for a certificate without an end: the year 4096.
    assert_eq!(doorward.metric("doorward_certificate_expiry_timestamp_seconds", &["certificate=\"listen\""]), 67_090_118_400.0);
}

#[test]
fn readiness_follows_the_upstream_startup_never_waits_for_it() {
    let mut upstream = PythonUpstream::start_with(&["--health"]);
    let doorward = Site::new().start(&standard(&upstream.url()));
    upstream.kill();
    eventually("not ready without the upstream", || (doorward.get("/readyz").0 == 503).then_some(()));
    assert!(doorward.get("/readyz?verbose").1.contains("upstream"));
    assert_eq!((doorward.get("/livez").0, doorward.get("/startupz").0), (200, 200));
}

#[tokio::test]
async fn an_upstream_is_heard_to_go_however_much_it_has_said_before() {
    let (heard, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (told, told_to_go) = (heard.clone(), go.clone());
    let upstream = FrameUpstream::start(move |mut connection, number| {
        let (heard, go) = (told.clone(), told_to_go.clone());
        async move {
            if number > 0 {
                return;
            }
            connection.settings(&[]).await;
            // Of a type that nobody knows, and more of them than are read at a time.
            for _ in 0..20 {
                connection.send(0xf0, 0, 0, &[0; 16_384]).await;
            }
            connection.send(kind::PING, 0, 0, &[7; 8]).await;
            connection.until(kind::PING).await.expect("an acknowledgement");
            heard.notify_one();
            go.notified().await;
        }
    });
    let doorward = Site::new().start(&upstream.configuration(""));
    tokio::time::timeout(PATIENCE, heard.notified()).await.expect("it reads on");
    go.notify_one();
    eventually("not ready without the upstream", || (doorward.get("/readyz").0 == 503).then_some(()));
}

#[test]
fn the_health_service_answers_grpc_probes_on_the_same_port() {
    let upstream = PythonUpstream::start();
    let doorward = Site::new().start(&standard(&upstream.url()));
    let order = json!({"target": format!("127.0.0.1:{}", doorward.operations.port()), "plaintext": true});
    let answers = doorward.calls_as(&order, &[call("/grpc.health.v1.Health/Check")]);
    assert_eq!((answers[0].code(), answers[0].messages()), (0, vec!["\u{8}\u{1}"]), "SERVING");
}

#[test]
fn metrics_count_calls_by_what_the_configuration_names_only() {
    let upstream = PythonUpstream::start();
    let doorward = Site::new().start(&standard(&upstream.url()));
    let token = token(json!({}));
    doorward.calls(&[
        call("/demo.v1.Users/Get").bearer(&token),
        call("/demo.v1.Users/Get").bearer(&token),
        call("/demo.v1.Users/Delete").bearer(&token),
        call("/demo.v1.Users/Get"),
        call("/demo.v1.Users/Get").api_key(API_KEY),
        call("/invented.by.a.Client/Method").bearer(&token),
    ]);
    doorward.access_lines(6);
    let handled = |method: &str, code: &str| {
        let labels = [format!("grpc_method=\"{method}\""), format!("grpc_code=\"{code}\"")];
        doorward.metric("grpc_server_handled_total", &[&labels[0], &labels[1]])
    };
    assert_eq!((handled("Get", "OK"), handled("Get", "UNAUTHENTICATED"), handled("Delete", "PERMISSION_DENIED")), (3.0, 1.0, 1.0));
    assert_eq!(doorward.metric("grpc_server_started_total", &[]), 6.0);
    assert_eq!(doorward.metric("grpc_server_handling_seconds_count", &[]), 6.0);
    assert_eq!(doorward.metric("doorward_refusals_total", &["reason=\"PERMISSION_MISSING\""]), 1.0);
    assert_eq!(doorward.metric("doorward_api_key_calls_total", &["api_key_id=\"analytics\""]), 1.0);
    assert_eq!(doorward.metric("doorward_token_cache_total", &["outcome=\"hit\""]), 3.0);
    assert_eq!(doorward.metric("doorward_streams", &[]), 0.0);
    let (_, text) = doorward.get("/metrics");
    assert!(!text.contains("invented") && text.contains("grpc_service=\"other\""), "labels come from the configuration only");
    // What the interface lists; key sets have theirs in `jwks`.
    for family in [
        "grpc_server_started_total",
        "grpc_server_handled_total",
        "grpc_server_handling_seconds",
        "doorward_authentication_total",
        "doorward_authorization_total",
        "doorward_api_key_calls_total",
        "doorward_token_cache_total",
        "doorward_overhead_seconds",
        "doorward_connections",
        "doorward_streams",
        "doorward_connections_at_stream_limit",
        "doorward_limit_hits_total",
        "doorward_configuration_generation",
        "doorward_configuration_last_reload_success_timestamp_seconds",
        "doorward_configuration_last_reload_successful",
        "doorward_certificate_expiry_timestamp_seconds",
    ] {
        assert!(text.contains(&format!("# TYPE {family} ")), "{family}");
    }
    for secret in [API_KEY, &token, "alice"] {
        assert!(!text.contains(secret));
    }
}

#[test]
fn an_upstream_that_others_can_reach_keeps_readiness_false_but_is_served() {
    let upstream = PythonUpstream::start_with(&["--address", "0.0.0.0:0"]);
    let site = Site::new();
    let doorward = site.start_unready(&standard(&upstream.url()));
    eventually("the metric", || (doorward.metric("doorward_upstream_exposed", &[]) == 1.0).then_some(()));
    assert_eq!(doorward.get("/readyz").0, 503);
    let stderr = doorward.stderr();
    assert!(stderr.contains("127.0.0.1") || stderr.contains("unix"), "says what to do: {stderr}");
    assert_eq!(doorward.call(call("/demo.v1.Echo/Unary").bearer(&token(json!({})))).code(), 0, "a laptop works");
    let rest = format!("{}upstream: {{ address: \"{}\", insecure_exposed: true }}\n", site::STANDARD, upstream.url());
    let _ready = site.start(&configuration("", &rest));
}
