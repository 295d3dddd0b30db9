//! `stalled`, `stream_idle`, `connection_idle`, `connection_age`: whoever is waited for has so long, and nobody else notices.

use crate::harness::frames::{ACK, END_HEADERS, Frame, block, grpc_fields};
use crate::harness::raw_upstream::{RawCall, response};
use crate::harness::wire::message;
use crate::harness::*;
use bytes::Bytes;
use h2::Reason;
use serde_json::json;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

const WINDOW_UPDATE: u8 = 8;

/// The path of every call here whose service's behaviour matters.
const HELD: &str = "/demo.v1.Echo/Held";
const UNARY: &str = "/demo.v1.Echo/Unary";

fn limited(limits: &str) -> String {
    format!("workers: 1\nauthentication: {{ mode: disabled }}\nlimits: {{ {limits} }}\n")
}

fn hits(doorward: &Doorward, limit: &str) -> f64 {
    doorward.metric("doorward_limit_hits_total", &[&format!("limit=\"{limit}\"")])
}

/// A service that does with calls of [`HELD`] what `behaviour` says, and counts the resets it gets for them with CANCEL.
fn holding<F, T>(behaviour: F) -> (RawUpstream, Arc<AtomicU32>)
where
    F: Fn(RawCall, Arc<AtomicU32>) -> T + Send + Sync + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let cancelled = Arc::new(AtomicU32::new(0));
    let counted = cancelled.clone();
    let upstream = RawUpstream::start(move |call| -> Pin<Box<dyn Future<Output = ()> + Send>> {
        if call.path == HELD { Box::pin(behaviour(call, counted.clone())) } else { Box::pin(call.answer("0")) }
    });
    (upstream, cancelled)
}

fn count(cancelled: &AtomicU32, reset: Result<Reason, h2::Error>) {
    if reset.is_ok_and(|reason| reason == Reason::CANCEL) {
        cancelled.fetch_add(1, Ordering::Relaxed);
    }
}

/// Answers without end, for as long as somebody takes it.
async fn endless(mut call: RawCall, cancelled: Arc<AtomicU32>) {
    let Ok(mut stream) = call.respond.send_response(response(), false) else { return };
    loop {
        stream.reserve_capacity(16_384);
        let granted = poll_fn(|cx| match stream.poll_reset(cx) {
            Poll::Ready(reset) => Poll::Ready(Err(reset)),
            Poll::Pending => stream.poll_capacity(cx).map(Ok),
        });
        match granted.await {
            Ok(Some(Ok(granted))) => drop(stream.send_data(Bytes::from(vec![0; granted]), false)),
            Ok(_) => return,
            Err(reset) => return count(&cancelled, reset),
        }
    }
}

/// Says and reads nothing until it is reset.
async fn silent(mut call: RawCall, cancelled: Arc<AtomicU32>) {
    let reset = poll_fn(|cx| call.respond.poll_reset(cx)).await;
    count(&cancelled, reset);
}

#[tokio::test]
async fn a_call_whose_client_gives_no_window_is_reset() {
    let (upstream, cancelled) = holding(endless);
    let doorward = Site::new().start(&configuration(&upstream.url(), &limited("stalled: 2s")));
    let mut frames = Frames::open(&doorward).await;
    let started = Instant::now();
    // Two downloads: one is read slowly, the other not at all.
    frames.send(WINDOW_UPDATE, 0, 0, &0x0fff_ffffu32.to_be_bytes()).await;
    frames.request(1, &grpc_fields(HELD, &[])).await;
    frames.request(3, &grpc_fields(HELD, &[])).await;
    let mut slow = Vec::new();
    let reset = loop {
        match tokio::time::timeout(Duration::from_millis(100), frames.next()).await {
            Ok(Some(Frame { kind: kind::RST_STREAM, stream, payload, .. })) => break (stream, payload),
            Ok(frame) => slow.extend(frame),
            Err(_) => frames.send(WINDOW_UPDATE, 0, 1, &100u32.to_be_bytes()).await,
        }
        assert!(started.elapsed() < PATIENCE, "no reset");
    };
    assert_eq!(reset, (3, u32::from(Reason::ENHANCE_YOUR_CALM).to_be_bytes().to_vec()));
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
    let later = Instant::now();
    while later.elapsed() < Duration::from_secs(4) {
        frames.send(WINDOW_UPDATE, 0, 1, &100u32.to_be_bytes()).await;
        while let Ok(frame) = tokio::time::timeout(Duration::from_millis(100), frames.next()).await {
            let frame = frame.expect("the connection lives");
            assert_ne!((frame.kind, frame.stream), (kind::RST_STREAM, 1), "slow is not stalled");
        }
    }
    assert!(frames.is_alive().await);
    eventually("the service's CANCEL", || (cancelled.load(Ordering::Relaxed) == 1).then_some(()));
    assert_eq!(hits(&doorward, "stalled"), 1.0);
    let line = &doorward.access_lines(1)[0];
    assert_eq!((&line["grpc.code"], &line["reason"]), (&json!("RESOURCE_EXHAUSTED"), &json!("CLIENT_STALLED")), "{line}");
}

#[tokio::test]
async fn a_call_whose_upstream_gives_no_window_is_unavailable() {
    let (upstream, cancelled) = holding(silent);
    let doorward = Site::new().start(&configuration(&upstream.url(), &limited("stalled: 500ms")));
    let mut wire = Wire::connect(&doorward).await;
    let answer = wire.call_with(request(HELD, &[]), message(&vec![0; 200_000]), None).await;
    assert_eq!(answer.refusal(), (14, "UPSTREAM_STALLED".to_owned()), "{answer:?}");
    eventually("the service's CANCEL", || (cancelled.load(Ordering::Relaxed) == 1).then_some(()));
    assert_eq!(hits(&doorward, "stalled"), 1.0);
    assert_eq!(wire.call(request(UNARY, &[])).await.refusal(), (0, String::new()), "others go on");
    // Nothing waits for an upstream that has taken everything, however long it works.
    let (answer, mut stream) = wire.open(request(HELD, &[])).await.unwrap();
    let answer = tokio::spawn(answer);
    stream.send_data(message(b"x"), true).unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!answer.is_finished());
}

#[tokio::test]
async fn a_client_whose_socket_takes_nothing_loses_its_connection() {
    let (upstream, cancelled) = holding(endless);
    let doorward = Site::new().start(&configuration(&upstream.url(), &limited("stalled: 1s")));
    let mut frames = Frames::connect(&doorward).await;
    frames.io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    // A window that promises to read everything; then nothing is read.
    frames.send(kind::SETTINGS, 0, 0, &[&4u16.to_be_bytes()[..], &0x7fff_ffffu32.to_be_bytes()].concat()).await;
    frames.send(kind::SETTINGS, ACK, 0, &[]).await;
    frames.send(WINDOW_UPDATE, 0, 0, &(0x7fff_ffffu32 - 65_535).to_be_bytes()).await;
    for stream in [1, 3, 5] {
        frames.request(stream, &grpc_fields(HELD, &[])).await;
    }
    upstream.reached(3).await;
    eventually("the end of the connection", || (doorward.metric("doorward_connections", &[]) == 0.0).then_some(()));
    eventually("the end of its calls", || (cancelled.load(Ordering::Relaxed) == 3).then_some(()));
    assert!(hits(&doorward, "stalled") >= 1.0);
    let answer = Wire::connect(&doorward).await.call(request(UNARY, &[])).await;
    assert_eq!(answer.refusal(), (0, String::new()));
}

/// A peer that shakes hands, promises to take everything, and then reads nothing.
async fn upstream_that_never_reads() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let settings = [&[0, 0, 6, kind::SETTINGS, 0, 0, 0, 0, 0][..], &4u16.to_be_bytes(), &0x7fff_ffffu32.to_be_bytes()].concat();
            let window = [&[0, 0, 4, WINDOW_UPDATE, 0, 0, 0, 0, 0][..], &(0x7fff_ffffu32 - 65_535).to_be_bytes()].concat();
            let acknowledged = [0, 0, 0, kind::SETTINGS, ACK, 0, 0, 0, 0];
            stream.write_all(&[&settings[..], &acknowledged, &window].concat()).await.unwrap();
            let _ = stream.read_exact(&mut [0; 24]).await;
            kept.push(stream);
        }
    });
    address
}

#[tokio::test]
async fn an_upstream_whose_socket_takes_nothing_loses_its_connection() {
    let address = upstream_that_never_reads().await;
    let upstream = format!("upstream: {{ address: \"http://{address}\", health_service: none }}\n");
    let yaml = configuration("", &(limited("stalled: 1s") + &upstream));
    // The service needs this thread until Doorward is ready.
    let doorward = tokio::task::spawn_blocking(move || Site::new().start(&yaml)).await.unwrap();
    let mut wire = Wire::connect(&doorward).await;
    // Each is small enough to leave no byte of its own to wait for a window; together they are more than a socket takes.
    let mut calls = JoinSet::new();
    for _ in 0..800 {
        let (answer, mut stream) = wire.open(request(HELD, &[])).await.unwrap();
        stream.send_data(message(&vec![0; 30_000]), true).unwrap();
        calls.spawn(answer);
    }
    let first = calls.join_next().await.unwrap().unwrap();
    assert_eq!(first.refusal(), (14, "UPSTREAM_STALLED".to_owned()), "{first:?}");
    assert!(hits(&doorward, "stalled") >= 1.0);
    // Those that waited for the socket are not forgotten with it.
    while let Ok(Some(answer)) = tokio::time::timeout(PATIENCE, calls.join_next()).await {
        assert_eq!(answer.unwrap().refusal().0, 14);
    }
    assert!(calls.is_empty(), "{} calls have no answer", calls.len());
}

#[tokio::test]
async fn a_call_on_which_nothing_moves_ends() {
    let (upstream, cancelled) = holding(silent);
    let doorward = Site::new().start(&configuration(&upstream.url(), &limited("stream_idle: 500ms")));
    let mut wire = Wire::connect(&doorward).await;
    let started = Instant::now();
    let answer = wire.call(request(HELD, &[])).await;
    assert_eq!(answer.refusal(), (14, "STREAM_IDLE".to_owned()), "{answer:?}");
    assert!(answer.is_trailers_only() && started.elapsed() >= Duration::from_millis(500));
    eventually("the service's CANCEL", || (cancelled.load(Ordering::Relaxed) == 1).then_some(()));
    assert_eq!(hits(&doorward, "stream_idle"), 1.0);
}

#[tokio::test]
async fn a_stream_may_be_as_long_as_something_moves() {
    let (upstream, cancelled) = holding(|mut call, cancelled| async move {
        let mut stream = call.respond.send_response(response(), false).unwrap();
        for _ in 0..25 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let _ = stream.send_data(message(b"x"), false);
        }
        count(&cancelled, poll_fn(|cx| stream.poll_reset(cx)).await);
    });
    let doorward = Site::new().start(&configuration(&upstream.url(), &limited("stream_idle: 3s")));
    let answer = Wire::connect(&doorward).await.call(request(HELD, &[])).await;
    assert_eq!(answer.refusal(), (14, "STREAM_IDLE".to_owned()), "{answer:?}");
    assert!(answer.trailers.is_some(), "real trailers: {answer:?}");
    assert_eq!(answer.body.len(), 25 * 6, "it ended only when it fell silent");
    eventually("the service's CANCEL", || (cancelled.load(Ordering::Relaxed) == 1).then_some(()));
}

#[tokio::test]
async fn what_a_client_sends_moves_a_stream_too() {
    let (upstream, _) = holding(|mut call, _| async move { while let Some(Ok(_)) = call.body.data().await {} });
    let doorward = Site::new().start(&configuration(&upstream.url(), &limited("stream_idle: 3s")));
    let mut wire = Wire::connect(&doorward).await;
    let (answer, mut stream) = wire.open(request(HELD, &[])).await.unwrap();
    let answer = tokio::spawn(answer);
    for _ in 0..25 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        stream.send_data(message(b"x"), false).unwrap();
        assert!(!answer.is_finished());
    }
    assert_eq!(answer.await.unwrap().refusal(), (14, "STREAM_IDLE".to_owned()));
}

#[tokio::test]
async fn without_stream_idle_streams_are_quiet_for_as_long_as_they_like() {
    let (upstream, _) = holding(silent);
    let doorward = Site::new().start(&configuration(&upstream.url(), &limited("stalled: 100ms, connection_idle: 100ms")));
    let mut wire = Wire::connect(&doorward).await;
    let (answer, mut stream) = wire.open(request(HELD, &[])).await.unwrap();
    let answer = tokio::spawn(answer);
    stream.send_data(message(b""), false).unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!answer.is_finished() && !wire.connection.is_finished());
}

/// Reads to the end as a good client does: the GOAWAYs as (last stream, code).
async fn goaways(frames: &mut Frames) -> Vec<(u32, u32)> {
    let mut seen = Vec::new();
    while let Some(frame) = frames.next().await {
        match frame.kind {
            kind::GOAWAY => seen.push((frame.number(0), frame.number(4))),
            kind::PING if frame.flags & ACK == 0 => frames.send(kind::PING, ACK, 0, &frame.payload).await,
            _ => {}
        }
    }
    seen
}

#[tokio::test]
async fn a_connection_without_calls_is_told_to_go_whatever_it_pings() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), &limited("connection_idle: 2s")));
    let mut frames = Frames::open(&doorward).await;
    let started = Instant::now();
    frames.request(1, &grpc_fields(UNARY, &[])).await;
    assert_eq!(frames.on_stream(1).await.unwrap().kind, kind::HEADERS);
    let first = loop {
        frames.send(kind::PING, 0, 0, b"keepaliv").await;
        match tokio::time::timeout(Duration::from_millis(200), frames.until(kind::GOAWAY)).await {
            Ok(goaway) => break goaway.expect("GOAWAY"),
            Err(_) => assert!(started.elapsed() < PATIENCE, "kept alive by its PINGs"),
        }
    };
    assert_eq!((first.number(0), first.number(4)), (0x7fff_ffff, 0));
    assert!(started.elapsed() >= Duration::from_millis(1400), "{:?}", started.elapsed());
    assert_eq!(goaways(&mut frames).await, [(1, 0)], "then the last stream, and the end");
    assert_eq!(hits(&doorward, "connection_idle"), 1.0);
}

#[tokio::test]
async fn a_client_that_does_not_go_is_cut_off_when_its_calls_are_done() {
    let (upstream, _) = holding(silent);
    let doorward = Site::new().start(&configuration(&upstream.url(), &limited("connection_age: 1s, stalled: 4s")));
    let mut frames = Frames::open(&doorward).await;
    frames.request(1, &grpc_fields(HELD, &[])).await;
    // Neither is the PING answered that asks whether the first GOAWAY has come, nor is the connection closed.
    assert!(frames.until(kind::GOAWAY).await.is_some());
    frames.request(3, &grpc_fields(UNARY, &[])).await;
    assert_eq!(frames.on_stream(3).await.unwrap().kind, kind::HEADERS, "it may not have known yet");
    let started = Instant::now();
    let mut stream = 5;
    loop {
        frames.request(stream, &grpc_fields(UNARY, &[])).await;
        let answer = frames.on_stream(stream).await.unwrap();
        if answer.kind == kind::RST_STREAM {
            assert_eq!(answer.number(0), u32::from(Reason::REFUSED_STREAM));
            break;
        }
        assert!(started.elapsed() < PATIENCE, "still served");
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream += 2;
    }
    assert!(frames.is_alive().await, "one call is still in flight");
    frames.send(kind::RST_STREAM, 0, 1, &8u32.to_be_bytes()).await;
    frames.closed().await;
}

#[tokio::test]
async fn calls_on_an_old_connection_go_on() {
    let over = Arc::new(Notify::new());
    let waits = over.clone();
    let (upstream, _) = holding(move |call, _| {
        let over = waits.clone();
        async move {
            over.notified().await;
            call.answer("0").await;
        }
    });
    let doorward = Site::new().start(&configuration(&upstream.url(), &limited("connection_age: 500ms, stalled: 500ms")));
    let mut frames = Frames::open(&doorward).await;
    frames.send(kind::HEADERS, END_HEADERS | frames::END_STREAM, 1, &block(&grpc_fields(HELD, &[]))).await;
    let first = frames.until(kind::GOAWAY).await.unwrap();
    assert_eq!((first.number(0), first.number(4)), (0x7fff_ffff, 0));
    tokio::spawn(async move {
        // Much longer than the time it has to leave in.
        tokio::time::sleep(Duration::from_secs(2)).await;
        over.notify_one();
    });
    let (mut last, mut finished) = (None, false);
    while let Some(frame) = frames.next().await {
        match frame.kind {
            kind::GOAWAY => last = Some((frame.number(0), frame.number(4))),
            kind::HEADERS if frame.stream == 1 && frame.flags & frames::END_STREAM != 0 => finished = true,
            kind::PING if frame.flags & ACK == 0 => frames.send(kind::PING, ACK, 0, &frame.payload).await,
            _ => {}
        }
    }
    assert_eq!((last, finished), (Some((1, 0)), true));
    assert_eq!(hits(&doorward, "connection_age"), 1.0);
}

#[test]
fn a_grpc_client_loses_no_call_while_its_connections_age() {
    let upstream = PythonUpstream::start();
    let doorward = Site::new().start(&configuration(&upstream.url(), &limited("connection_age: 200ms")));
    let mut calls: Vec<Call> =
        (0..4).map(|_| call("/demo.v1.Echo/Bidi").with("together", true).behaviour(json!({ "sleep": 2.0 }))).collect();
    calls.extend((0..800).map(|_| call(UNARY)));
    // grpcio sends again, as it does by default, what the second GOAWAY says was not taken: a stream that it begins while it
    // reads the first one leaves after its answer to our PING.
    let failed: Vec<Answer> =
        doorward.calls_as(&json!({"retries": true}), &calls).into_iter().filter(|answer| answer.code() != 0).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(hits(&doorward, "connection_age") >= 2.0);
    assert!(doorward.metric("doorward_connections_total", &[]) >= 3.0);
}
