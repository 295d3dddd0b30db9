//! What passes: every kind of call between a real gRPC client and a real gRPC service, unchanged.

use crate::harness::raw_upstream::response;
use crate::harness::token::bearer;
use crate::harness::wire::message;
use crate::harness::*;
use bytes::Bytes;
use h2::Reason;
use http::HeaderMap;
use serde_json::json;
use std::sync::mpsc;
use std::time::{Duration, Instant};

fn running() -> (PythonUpstream, Doorward) {
    let upstream = PythonUpstream::start();
    let doorward = Site::new().start(&standard(&upstream.url()));
    (upstream, doorward)
}

#[test]
fn every_kind_of_call_passes() {
    let (_upstream, doorward) = running();
    let token = token(json!({}));
    let of = |method: &str| call(method).bearer(&token);
    let answers = doorward.calls(&[
        of("/demo.v1.Echo/Unary").with("messages", json!(["hello"])),
        of("/demo.v1.Echo/ServerStream").with("messages", json!(["x"])),
        of("/demo.v1.Echo/ClientStream").with("messages", json!(["a", "bc", "def"])),
        // In lock step: each message is sent only after the last one came back, so nothing may be held up on either way.
        of("/demo.v1.Echo/Bidi").with("messages", json!(["1", "2", "3"])).with("lockstep", true),
        of("/demo.v1.Echo/ServerStreamOfNothing").behaviour(json!({"count": 0})),
        of("/demo.v1.Echo/BidiOfNothing").with("messages", json!([])),
    ]);
    assert_eq!(answers[0].report()["sizes"], json!([5]));
    assert_eq!(answers[1].messages(), ["0:x", "1:x", "2:x"]);
    assert_eq!(answers[2].report()["sizes"], json!([1, 2, 3]));
    assert_eq!(answers[3].messages(), ["1", "2", "3"]);
    assert!(answers.iter().all(|answer| answer.code() == 0), "{answers:?}");
}

#[test]
fn metadata_passes_unchanged_values_of_one_name_in_order() {
    let (_upstream, doorward) = running();
    let every_byte: Vec<u8> = (0..=255).collect();
    let answer = doorward.call(
        call("/demo.v1.Echo/Unary")
            .bearer(&token(json!({})))
            .metadata("many", "1")
            .metadata("many", "2")
            .metadata("other", "x")
            .metadata("many", "1")
            .binary("bytes-bin", &every_byte)
            .binary("bytes-bin", b"")
            .metadata("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
            .behaviour(json!({"initial": [["early", "a"], ["early", "b"], ["early-bin", "AAH/"]], "trailing": [["late", "c"], ["late", "d"], ["late-bin", "//4A"]]})),
    );
    assert_eq!(answer.upstream_saw("many"), ["1", "2", "1"]);
    assert_eq!(answer.upstream_saw("other"), ["x"]);
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &every_byte);
    assert_eq!(answer.upstream_saw("bytes-bin"), [base64.as_str(), ""]);
    assert_eq!(answer.upstream_saw("traceparent"), ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]);
    assert_eq!((answer.initial("early"), answer.initial("early-bin")), (vec!["a", "b"], vec!["AAH/"]));
    assert_eq!((answer.trailing("late"), answer.trailing("late-bin")), (vec!["c", "d"], vec!["//4A"]));
}

#[test]
fn a_status_its_message_and_its_details_pass_untouched() {
    let (_upstream, doorward) = running();
    let token = token(json!({}));
    for (code, method) in [(9, "Unary"), (5, "ServerStream"), (16, "ClientStream"), (7, "Bidi")] {
        // The details hold no google.rpc.Status: Doorward must not care.
        let behaviour = json!({"status": code, "message": "naïve %25 \u{1F600}\nline", "details": "CAESAnjDqf8A"});
        let answer = doorward.call(call(&format!("/demo.v1.Echo/{method}")).bearer(&token).behaviour(behaviour));
        assert_eq!((answer.code(), answer.details()), (code, "naïve %25 \u{1F600}\nline"), "{method}");
        assert_eq!(answer.trailing("grpc-status-details-bin"), ["CAESAnjDqf8A"], "{method}");
        assert!(answer.trailing("www-authenticate").is_empty(), "not our refusal");
    }
    let answer = doorward.call(call("/demo.v1.Echo/Unary").bearer(&token).behaviour(json!({"abort": true})));
    assert_eq!(answer.code(), 2, "a bug of the service stays its own: {answer:?}");
}

#[test]
fn compressed_messages_pass() {
    let (_upstream, doorward) = running();
    let of = |method: &str| call(method).bearer(&token(json!({}))).with("gzip", true).behaviour(json!({"gzip": true}));
    let text = "long enough to be worth it ".repeat(100);
    let answers = doorward.calls(&[
        of("/demo.v1.Echo/Bidi").with("messages", json!([text, text])),
        of("/demo.v1.Echo/Unary").with("messages", json!([text])),
    ]);
    assert_eq!(answers[0].messages(), [&text, &text]);
    assert_eq!(answers[1].report()["sizes"], json!([text.len()]));
}

#[test]
fn five_megabytes_pass_each_way() {
    let (_upstream, doorward) = running();
    let size = 5 << 20;
    let of = |method: &str| call(method).bearer(&token(json!({}))).with("messages", json!([{"size": size}]));
    let answers =
        doorward.calls(&[of("/demo.v1.Echo/Unary"), of("/demo.v1.Echo/Unary").behaviour(json!({"size": size})), of("/demo.v1.Echo/Bidi")]);
    assert_eq!(answers[0].report()["sizes"], json!([size]));
    for answer in &answers[1..] {
        assert_eq!((answer.code(), &answer.0["messages"][0]["size"]), (0, &json!(size)));
    }
}

#[test]
fn a_hundred_calls_at_a_time_keep_apart() {
    let (_upstream, doorward) = running();
    let token = token(json!({}));
    let calls: Vec<Call> = (0..100)
        .map(|number| {
            let texts: Vec<String> = (0..5).map(|part| format!("{number}/{part}")).collect();
            call("/demo.v1.Echo/Bidi").bearer(&token).with("together", true).with("messages", json!(texts))
        })
        .collect();
    for (number, answer) in doorward.calls(&calls).iter().enumerate() {
        let texts: Vec<String> = (0..5).map(|part| format!("{number}/{part}")).collect();
        assert_eq!(answer.messages(), texts, "{answer:?}");
    }
}

#[test]
fn an_answer_may_end_before_its_request() {
    let (_upstream, doorward) = running();
    let early = call("/demo.v1.Echo/Bidi").bearer(&token(json!({}))).with("messages", json!(["1", "2", "3"])).with("lockstep", true);
    let answer = doorward.call(early.behaviour(json!({"before_end": 1, "status": 11, "message": "enough"})));
    assert_eq!((answer.code(), answer.details(), answer.messages()), (11, "enough", vec!["1"]));
}

#[test]
fn a_cancelled_call_is_cancelled_at_the_upstream() {
    let (upstream, doorward) = running();
    let slow = call("/demo.v1.Echo/Bidi").bearer(&token(json!({}))).behaviour(json!({"sleep": 10}));
    let answer = doorward.call(slow.with("cancel_after", 0.3));
    assert_eq!(answer.code(), 1);
    let seconds = upstream.ended("/demo.v1.Echo/Bidi")["seconds"].as_f64().unwrap();
    assert!(seconds < 3.0, "the service worked on for {seconds} s");
}

#[test]
fn a_deadline_is_passed_on() {
    let (_upstream, doorward) = running();
    let token = token(json!({}));
    let mut client = doorward.client();
    assert_eq!(client.calls(&[call("/demo.v1.Echo/Unary").bearer(&token)])[0].code(), 0, "connected from here on");
    let answers = client.calls(&[
        call("/demo.v1.Echo/Unary").bearer(&token).with("timeout", 7),
        call("/demo.v1.Echo/Unary").bearer(&token).with("timeout", 0.4).behaviour(json!({"sleep": 5})),
    ]);
    let remaining = answers[0].report()["remaining"].as_f64().unwrap();
    // grpcio rounds up what it tells the server, to some hundredths.
    assert!((5.0..=7.1).contains(&remaining), "{remaining}");
    assert_eq!(answers[1].code(), 4);
}

/// A service that never answers and tells how its stream was reset.
fn silent() -> (RawUpstream, mpsc::Receiver<Reason>) {
    let (resets, told) = mpsc::channel();
    let upstream = RawUpstream::start(move |mut call| {
        let resets = resets.clone();
        async move {
            let _ = call.respond.send_response(response(), false).map(|mut stream| {
                tokio::spawn(async move {
                    if let Ok(reason) = std::future::poll_fn(|context| stream.poll_reset(context)).await {
                        let _ = resets.send(reason);
                    }
                })
            });
            call.read().await;
        }
    });
    (upstream, told)
}

#[tokio::test]
async fn the_deadline_is_enforced_while_the_upstream_works_which_sees_cancel() {
    let (upstream, told) = silent();
    let doorward = Site::new().start(&standard(&upstream.url()));
    let mut wire = Wire::connect(&doorward).await;
    let (started, own) = (Instant::now(), Stopwatch::start());
    let answer = wire.call(request("/demo.v1.Echo/Bidi", &[("authorization", &bearer(json!({}))), ("grpc-timeout", "300m")])).await;
    let (took, own_took) = (started.elapsed(), own.elapsed());
    // The service had begun its answer, so the status comes in trailers.
    assert_eq!(answer.refusal(), (4, "DEADLINE".to_owned()), "{answer:?}");
    assert!(took >= Duration::from_millis(290) && own_took < Duration::from_millis(1500), "{took:?}");
    assert_eq!(told.recv_timeout(PATIENCE), Ok(Reason::CANCEL));
    assert!(own.elapsed() < Duration::from_millis(1500), "{:?}", own.elapsed());
}

#[tokio::test]
async fn a_reset_by_the_client_reaches_the_upstream_as_cancel() {
    let (upstream, told) = silent();
    let doorward = Site::new().start(&standard(&upstream.url()));
    let mut wire = Wire::connect(&doorward).await;
    let (_answer, mut stream) = wire.open(request("/demo.v1.Echo/Bidi", &[("authorization", &bearer(json!({})))])).await.unwrap();
    stream.send_data(message(b"x"), false).unwrap();
    upstream.reached(1).await;
    let cancelled = Stopwatch::start();
    stream.send_reset(Reason::CANCEL);
    let (reason, took) = tokio::task::spawn_blocking(move || (told.recv_timeout(PATIENCE), cancelled.elapsed())).await.unwrap();
    assert_eq!(reason, Ok(Reason::CANCEL));
    assert!(took < Duration::from_millis(1000), "{took:?}");
}

#[tokio::test]
async fn request_trailers_pass_unchanged() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&standard(&upstream.url()));
    let mut trailers = HeaderMap::new();
    trailers.append("checksum", "1".parse().unwrap());
    trailers.append("checksum", "2".parse().unwrap());
    let mut wire = Wire::connect(&doorward).await;
    let request = request("/demo.v1.Echo/Unary", &[("authorization", &bearer(json!({})))]);
    let answer = wire.call_with(request, message(b"body"), Some(trailers.clone())).await;
    assert_eq!(answer.refusal(), (0, String::new()));
    assert_eq!((upstream.only().body, upstream.only().trailers), (message(b"body").to_vec(), Some(trailers)));
}

#[tokio::test]
async fn sixteen_stalled_downloads_do_not_hold_up_another_call() {
    let upstream = RawUpstream::start(|mut call| async move {
        if !call.path.ends_with("Endless") {
            return call.answer("0").await;
        }
        let Ok(mut stream) = call.respond.send_response(response(), false) else { return };
        loop {
            stream.reserve_capacity(16_384);
            match std::future::poll_fn(|context| stream.poll_capacity(context)).await {
                Some(Ok(granted)) => drop(stream.send_data(Bytes::from(vec![0; granted]), false)),
                _ => return,
            }
        }
    });
    let doorward = Site::new().start(&standard(&upstream.url()));
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(65_535).initial_connection_window_size(64 << 20);
    let mut wire = Wire::connect_with(&doorward, &builder).await;
    let authorization = bearer(json!({}));
    let mut stalled = Vec::new();
    for _ in 0..16 {
        let mut ready = wire.send.clone().ready().await.unwrap();
        let (response, stream) = ready.send_request(request("/demo.v1.Echo/Endless", &[("authorization", &authorization)]), false).unwrap();
        // Never read, so that neither window of this stream is ever given back.
        stalled.push((response.await.unwrap(), stream));
    }
    let answer = wire.call(request("/demo.v1.Echo/Unary", &[("authorization", &authorization)])).await;
    assert_eq!(answer.refusal(), (0, String::new()), "{answer:?}");
}

#[tokio::test]
async fn sixteen_stalled_uploads_do_not_hold_up_another_call() {
    // A service that has room for them on its own connection, as grpc-go and C-core do.
    let mut settings = h2::server::Builder::new();
    settings.initial_connection_window_size(64 << 20);
    let upstream = RawUpstream::start_at("127.0.0.1:0".parse().unwrap(), settings, |call| async move {
        if call.path.ends_with("Deaf") {
            let _unread = call.body;
            std::future::pending::<()>().await;
        } else {
            call.answer("0").await;
        }
    });
    let doorward = Site::new().start(&standard(&upstream.url()));
    let mut wire = Wire::connect(&doorward).await;
    let authorization = bearer(json!({}));
    let mut stalled = Vec::new();
    for number in 1..=16 {
        let (_answer, mut stream) = wire.open(request("/demo.v1.Echo/Deaf", &[("authorization", &authorization)])).await.unwrap();
        // As much as every window on the way takes: twenty megabytes fit nowhere.
        stream.send_data(Bytes::from(vec![0; 20 << 20]), false).unwrap();
        upstream.reached(number).await;
        stalled.push(stream);
    }
    let answer = wire.call(request("/demo.v1.Echo/Unary", &[("authorization", &authorization)])).await;
    assert_eq!(answer.refusal(), (0, String::new()), "{answer:?}");
}
