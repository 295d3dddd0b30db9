//! An upstream that is missing, dying or misbehaving: the interface's status at once, and recovery by itself.

use crate::harness::raw_upstream::response;
use crate::harness::*;
use bytes::Bytes;
use h2::Reason;
use h2::server::Builder;
use http::{HeaderMap, HeaderValue, Response};
use std::net::TcpListener;
use std::time::{Duration, Instant};

const OPEN: &str = "authentication: { mode: disabled }\n";

async fn unary(wire: &mut Wire) -> (u16, String) {
    wire.call(request("/demo.v1.Echo/Unary", &[])).await.refusal()
}

fn unavailable() -> (u16, String) {
    (14, "UPSTREAM_UNAVAILABLE".to_owned())
}

/// Asks until the upstream answers; how long that took.
async fn recovery(wire: &mut Wire) -> Duration {
    let (started, took) = (Instant::now(), Stopwatch::start());
    while unary(wire).await.0 != 0 {
        assert!(started.elapsed() < PATIENCE, "no recovery");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    took.elapsed()
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_unavailable_at_once_and_used_as_soon_as_it_is() {
    let address = free_address();
    let doorward = Site::new().start_unready(&configuration(&format!("http://{address}"), OPEN));
    let mut wire = Wire::connect(&doorward).await;
    let started = Stopwatch::start();
    assert_eq!(unary(&mut wire).await, unavailable());
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!((doorward.get("/readyz").0, doorward.get("/startupz").0), (503, 200));
    let _upstream = RawUpstream::start_at(address, Builder::new(), |call| call.answer("0"));
    let took = recovery(&mut wire).await;
    assert!(took <= Duration::from_secs(1), "first success after {took:?}");
}

#[tokio::test]
async fn an_upstream_that_dies_is_used_again_as_soon_as_it_is_back() {
    let address = free_address();
    let start = || RawUpstream::start_at(address, Builder::new(), |call| call.answer("0"));
    let mut upstream = start();
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let mut wire = Wire::connect(&doorward).await;
    for _ in 0..3 {
        assert_eq!(unary(&mut wire).await, (0, String::new()));
        upstream.stop();
        let started = Stopwatch::start();
        assert_eq!(unary(&mut wire).await, unavailable());
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
        upstream = start();
        let took = recovery(&mut wire).await;
        assert!(took <= Duration::from_secs(1), "first success after {took:?}");
    }
}

/// A service whose method says what goes wrong.
fn misbehaving() -> RawUpstream {
    RawUpstream::start(|mut call| async move {
        let method = call.path.rsplit('/').next().unwrap().to_owned();
        match method.as_str() {
            "CutBefore" => call.cut_connection().await,
            "CutAfterHeaders" => {
                let _stream = call.respond.send_response(response(), false);
                tokio::time::sleep(Duration::from_millis(100)).await;
                call.cut_connection().await;
            }
            "CutMidMessage" => {
                let mut stream = call.respond.send_response(response(), false).unwrap();
                stream.send_data(Bytes::from_static(&[0, 0, 0, 1, 0, b'h', b'a', b'l', b'f']), false).unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
                call.cut_connection().await;
            }
            "NoStatus" => {
                let answer = Response::builder().status(503).header("content-type", "text/html").header("x-proof", "1").body(()).unwrap();
                let mut stream = call.respond.send_response(answer, false).unwrap();
                stream.send_data(Bytes::from_static(b"<h1>down</h1>"), true).unwrap();
            }
            "NoTrailers" => {
                let mut stream = call.respond.send_response(response(), false).unwrap();
                stream.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
            }
            "OddStatus" => {
                let mut stream = call.respond.send_response(response(), false).unwrap();
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("99"));
                stream.send_trailers(trailers).unwrap();
            }
            _ => match method.strip_prefix("Reset") {
                Some(code) => call.respond.send_reset(Reason::from(code.parse::<u32>().unwrap())),
                None => call.answer("0").await,
            },
        }
    })
}

#[tokio::test]
async fn a_reset_becomes_the_status_that_grpc_maps_its_code_to() {
    let upstream = misbehaving();
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let mut wire = Wire::connect(&doorward).await;
    for (code, status) in [(0, 13), (1, 13), (2, 13), (3, 13), (5, 13), (8, 1), (11, 8), (12, 7), (13, 13)] {
        let answer = wire.call(request(&format!("/demo.v1.Bad/Reset{code}"), &[])).await;
        match answer.error {
            // `or the same reset`
            Some(reason) => assert_eq!(u32::from(reason), code),
            None => assert_eq!(answer.refusal(), (status, "UPSTREAM_RESET".to_owned()), "code {code}"),
        }
    }
    // REFUSED_STREAM says that nothing was done: it may be tried again, but not for ever.
    assert_eq!(wire.call(request("/demo.v1.Bad/Reset7", &[])).await.error, Some(Reason::REFUSED_STREAM));
    assert_eq!(unary(&mut wire).await, (0, String::new()));
}

#[tokio::test]
async fn a_connection_lost_in_the_middle_of_a_call_gives_the_client_a_status() {
    let upstream = misbehaving();
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let mut wire = Wire::connect(&doorward).await;
    for method in ["CutBefore", "CutAfterHeaders", "CutMidMessage"] {
        let answer = wire.call(request(&format!("/demo.v1.Bad/{method}"), &[])).await;
        assert_eq!(answer.refusal(), unavailable(), "{method}: {answer:?}");
        assert!(recovery(&mut wire).await <= Duration::from_secs(1), "{method}");
    }
    let calls = upstream.seen().iter().filter(|seen| seen.path.contains("Cut")).count();
    assert_eq!(calls, 3, "a call that the upstream may have seen is never made again");
}

#[tokio::test]
async fn an_answer_without_grpc_status_passes_unchanged() {
    let upstream = misbehaving();
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let mut wire = Wire::connect(&doorward).await;
    let answer = wire.call(request("/demo.v1.Bad/NoStatus", &[])).await;
    assert_eq!((answer.status, answer.grpc_status(), answer.body.as_slice()), (503, None, &b"<h1>down</h1>"[..]));
    assert_eq!((answer.field("content-type"), answer.field("x-proof")), (Some("text/html"), Some("1")));
    let answer = wire.call(request("/demo.v1.Bad/NoTrailers", &[])).await;
    assert_eq!((answer.status, answer.grpc_status(), answer.body.as_slice(), answer.trailers), (200, None, &[0; 5][..], None));
    let answer = wire.call(request("/demo.v1.Bad/OddStatus", &[])).await;
    assert_eq!(answer.field("grpc-status"), Some("99"));
    let lines = doorward.access_lines(3);
    assert!(lines.iter().all(|line| line["reason"].is_null()), "never counted as our refusal: {lines:?}");
    assert_eq!(doorward.metric("doorward_refusals_total", &[]), 0.0);
}

#[tokio::test]
async fn a_grpc_message_that_ends_in_a_space_passes() {
    let upstream = RawUpstream::start(|mut call| async move {
        call.read().await;
        let mut stream = call.respond.send_response(response(), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("5"));
        trailers.insert("grpc-message", HeaderValue::from_static("no such user: "));
        stream.send_trailers(trailers).unwrap();
    });
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let answer = Wire::connect(&doorward).await.call(request("/demo.v1.Echo/Unary", &[])).await;
    assert_eq!((answer.grpc_status(), answer.field("grpc-message")), (Some(5), Some("no such user: ")), "{answer:?}");
}

#[tokio::test]
async fn calls_wait_for_a_slot_when_the_upstream_limits_its_streams() {
    let mut settings = Builder::new();
    settings.max_concurrent_streams(2);
    let upstream = RawUpstream::start_at("127.0.0.1:0".parse().unwrap(), settings, |call| async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        call.answer("0").await;
    });
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let mut wire = Wire::connect(&doorward).await;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let (answer, mut stream) = wire.open(request("/demo.v1.Echo/Unary", &[])).await.unwrap();
        stream.send_data(wire::message(b""), true).unwrap();
        waiting.push(tokio::spawn(answer));
    }
    for answer in waiting {
        assert_eq!(answer.await.unwrap().refusal(), (0, String::new()));
    }
}

#[tokio::test]
async fn waiting_for_a_slot_ends_with_the_deadline() {
    let mut settings = Builder::new();
    settings.max_concurrent_streams(1);
    let upstream = RawUpstream::start_at("127.0.0.1:0".parse().unwrap(), settings, |call| async move {
        if call.path.ends_with("Forever") {
            std::future::pending::<()>().await;
        }
        call.answer("0").await;
    });
    let rest = format!("{OPEN}workers: 1\nupstream: {{ address: \"{}\", health_service: none }}\n", upstream.url());
    let doorward = Site::new().start(&configuration("", &rest));
    let mut wire = Wire::connect(&doorward).await;
    let mut held = Vec::new();
    // More connections may be opened for more calls; in the end there is no slot left or each call has one.
    for _ in 0..4 {
        held.push(wire.open(request("/demo.v1.Echo/Forever", &[])).await.unwrap());
    }
    let started = Stopwatch::start();
    let answer = wire.call(request("/demo.v1.Echo/Unary", &[("grpc-timeout", "500m")])).await;
    assert!(answer.refusal() == (0, String::new()) || answer.refusal() == (4, "DEADLINE".to_owned()), "{answer:?}");
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn an_upstream_that_takes_the_connection_and_says_nothing_is_unavailable_after_connect_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let rest = format!("{OPEN}upstream: {{ address: \"http://{address}\", connect_timeout: 500ms }}\n");
    let doorward = Site::new().start_unready(&configuration("", &rest));
    let mut wire = Wire::connect(&doorward).await;
    let (started, took) = (Instant::now(), Stopwatch::start());
    assert_eq!(unary(&mut wire).await, unavailable());
    // Another attempt, the health check's, may have begun before.
    assert!(started.elapsed() >= Duration::from_millis(300) && took.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[test]
fn a_unix_socket_is_an_upstream() {
    let site = Site::new();
    let socket = site.path("service.sock");
    let address = format!("unix:{}", socket.display());
    let mut upstream = PythonUpstream::start_with(&["--address", &address]);
    let doorward = site.start(&configuration(&address, OPEN));
    let calls = [call("/demo.v1.Echo/Unary"), call("/demo.v1.Echo/Bidi").with("messages", serde_json::json!(["a", "b"]))];
    let answers = doorward.calls(&calls);
    assert_eq!((answers[0].code(), answers[1].messages()), (0, vec!["a", "b"]));
    upstream.kill();
    assert_eq!(doorward.call(calls[0].clone()).refusal(), (14, "UPSTREAM_UNAVAILABLE"));
    let _ = std::fs::remove_file(&socket);
    let _again = PythonUpstream::start_with(&["--address", &address]);
    eventually("the service's return", || (doorward.call(calls[0].clone()).code() == 0).then_some(()));
}

#[test]
fn an_upstream_behind_tls_is_verified_and_shown_our_certificate() {
    let site = Site::new();
    site.certificate("service", &["service.internal"]);
    site.certificate("doorward", &["doorward"]);
    let path = |name: &str| site.path(name).display().to_string();
    let upstream = PythonUpstream::start_with(&["--tls", &path("service.crt"), &path("service.key"), &path("ca.pem")]);
    let tls = |rest: &str| {
        configuration(
            "",
            &format!(
                "{OPEN}upstream:\n  address: https://localhost:{}\n  tls: {{ ca: ca.pem, certificate: doorward.crt, private_key: doorward.key{rest} }}\n",
                upstream.port()
            ),
        )
    };
    let doorward = site.start(&tls(", server_name: service.internal"));
    assert_eq!(doorward.call(call("/demo.v1.Echo/Unary")).code(), 0);
    let wrong_name = site.start_unready(&tls(""));
    assert_eq!(wrong_name.call(call("/demo.v1.Echo/Unary")).refusal(), (14, "UPSTREAM_UNAVAILABLE"));
    let stranger = Site::new();
    stranger.certificate("doorward", &["doorward"]);
    let wrong_ca = stranger.start_unready(&tls(", server_name: service.internal"));
    assert_eq!(wrong_ca.call(call("/demo.v1.Echo/Unary")).refusal(), (14, "UPSTREAM_UNAVAILABLE"));
}
