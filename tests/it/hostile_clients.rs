//! Broken and hostile clients: they cost nothing, and nobody else notices.

use crate::harness::frames::{END_HEADERS, block, grpc_fields};
use crate::harness::token::bearer;
use crate::harness::*;
use h2::Reason;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const QUICK: &str = "authentication: { mode: disabled }\nlimits: { handshake: 1s }\n";
/// `limits.handshake` of [`QUICK`] and room for a busy machine.
const CLOSED_WITHIN: Duration = Duration::from_secs(4);

async fn works(doorward: &Doorward) {
    let answer = Wire::connect(doorward).await.call(request("/demo.v1.Echo/Unary", &[])).await;
    assert_eq!(answer.refusal(), (0, String::new()), "{answer:?}");
}

/// How long a plain TCP peer that sends only `bytes` is endured.
async fn endured(doorward: &Doorward, bytes: &[u8]) -> (Duration, Stopwatch) {
    let (started, stopwatch) = (Instant::now(), Stopwatch::start());
    let mut stream = TcpStream::connect(doorward.traffic).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("closed");
    (started.elapsed(), stopwatch)
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_ended() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), QUICK));
    let mut other = Wire::connect(&doorward).await;
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00\x01", b"\x16"] {
        let (took, stopwatch) = endured(&doorward, bytes).await;
        assert!(took >= Duration::from_millis(500) && stopwatch.elapsed() < CLOSED_WITHIN, "{took:?} after {bytes:?}");
    }
    // What is no TLS at all need not be waited for.
    for bytes in [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0xff; 4096]] {
        assert!(endured(&doorward, bytes).await.1.elapsed() < CLOSED_WITHIN);
    }
    assert_eq!(other.call(request("/demo.v1.Echo/Unary", &[])).await.grpc_status(), Some(0), "others notice nothing");
    // Counted right after the socket is closed, which is what the clients above waited for.
    eventually("the count", || (doorward.metric("doorward_limit_hits_total", &["limit=\"handshake\""]) >= 3.0).then_some(()));
}

#[tokio::test]
async fn preface_and_settings_have_the_same_clock() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), QUICK));
    for bytes in
        [&b""[..], b"PRI * HTTP/2.0\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x06\x04\x00"]
    {
        let mut frames = Frames::connect(&doorward).await;
        frames.io.write_all(bytes).await.unwrap();
        frames.io.flush().await.unwrap();
        let took = frames.closed().await;
        assert!(took < CLOSED_WITHIN, "{took:?} after {bytes:?}");
    }
    // Whoever did say SETTINGS may be quiet afterwards.
    let mut quiet = Frames::open(&doorward).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(quiet.is_alive().await);
    works(&doorward).await;
}

#[tokio::test]
async fn the_handshakes_clock_also_runs_for_a_client_that_does_not_read() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), QUICK));
    let mut frames = Frames::connect(&doorward).await;
    frames.io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    // The answers to these fill every buffer on the way back.
    let pings = [&[0, 0, 8, kind::PING, 0, 0, 0, 0, 0][..], b"12345678"].concat().repeat(4000);
    let started = Stopwatch::start();
    let closed = tokio::time::timeout(PATIENCE, async { while frames.io.write_all(&pings).await.is_ok() {} }).await;
    assert!(closed.is_ok() && started.elapsed() < CLOSED_WITHIN, "open for {:?}", started.elapsed());
    eventually("its end", || (doorward.metric("doorward_connections", &[]) == 0.0).then_some(()));
    assert_eq!(doorward.metric("doorward_limit_hits_total", &["limit=\"handshake\""]), 1.0);
    works(&doorward).await;
}

#[tokio::test]
async fn an_unfinished_header_block_is_ended() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), QUICK));
    let mut other = Wire::connect(&doorward).await;
    let mut frames = Frames::open(&doorward).await;
    frames.send(kind::HEADERS, 0, 1, &block(&grpc_fields("/demo.v1.Echo/Unary", &[]))).await;
    assert!(frames.closed().await < CLOSED_WITHIN);
    // A block that is drawn out keeps the clock of its beginning.
    let mut frames = Frames::open(&doorward).await;
    frames.send(kind::HEADERS, 0, 1, &block(&grpc_fields("/demo.v1.Echo/Unary", &[]))).await;
    let started = Stopwatch::start();
    let mut ended = false;
    while started.elapsed() < CLOSED_WITHIN && !ended {
        frames.send(kind::CONTINUATION, 0, 1, &block(&[("x", "y")])).await;
        ended = tokio::time::timeout(Duration::from_millis(100), frames.io.read_u8()).await.is_ok_and(|read| read.is_err());
    }
    assert!(ended, "still open after {:?}", started.elapsed());
    assert_eq!(other.call(request("/demo.v1.Echo/Unary", &[])).await.grpc_status(), Some(0));
    assert!(upstream.seen().iter().all(|seen| seen.values("x").is_empty()));
}

#[tokio::test]
async fn a_flood_of_continuations_ends_the_connection() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), QUICK));
    let before = doorward.resident_kib();
    let mut frames = Frames::open(&doorward).await;
    frames.send(kind::HEADERS, 0, 1, &block(&grpc_fields("/demo.v1.Echo/Unary", &[]))).await;
    let part = block(&[("padding", &"x".repeat(16_000))]);
    for _ in 0..2000 {
        frames.send(kind::CONTINUATION, 0, 1, &part).await;
    }
    assert!(frames.closed().await < CLOSED_WITHIN);
    works(&doorward).await;
    let grown = doorward.resident_kib().saturating_sub(before);
    assert!(grown < 12 << 10, "{grown} KiB for 32 MB of headers");
}

#[tokio::test]
async fn only_h2_is_offered() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), QUICK));
    let both = wire::tls(&doorward, &[b"http/1.1", b"h2"]).await.unwrap();
    assert_eq!(both.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    assert!(wire::tls(&doorward, &[b"http/1.1"]).await.is_err(), "no_application_protocol");
    // A client without ALPN may not have HTTP/1.1 either.
    if let Ok(mut stream) = wire::tls(&doorward, &[]).await {
        let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("closed");
        assert!(!answer.starts_with(b"HTTP/1"), "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn bad_frames_end_their_own_connection_only() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), QUICK));
    let mut other = Wire::connect(&doorward).await;
    let fields = block(&grpc_fields("/demo.v1.Echo/Unary", &[]));
    for (what, kind, flags, stream, payload) in [
        ("an HPACK index that is nothing", kind::HEADERS, END_HEADERS, 1, vec![0xff, 0xff, 0xff, 0xff, 0x0f]),
        ("HPACK that ends early", kind::HEADERS, END_HEADERS, 1, vec![0, 100, b'x']),
        ("a request on an even stream", kind::HEADERS, END_HEADERS, 2, fields.clone()),
        ("a request on stream 0", kind::HEADERS, END_HEADERS, 0, fields.clone()),
        ("DATA on an idle stream", kind::DATA, 0, 7, vec![0; 5]),
        ("SETTINGS of a wrong size", kind::SETTINGS, 0, 0, vec![0; 5]),
        ("a PING of a wrong size", kind::PING, 0, 0, vec![0; 3]),
        ("CONTINUATION of nothing", kind::CONTINUATION, END_HEADERS, 1, fields),
        ("a frame over the limit", kind::DATA, 0, 1, vec![0; 70_000]),
        ("WINDOW_UPDATE beyond 2³¹", 8, 0, 0, vec![0x7f, 0xff, 0xff, 0xff]),
    ] {
        let mut frames = Frames::open(&doorward).await;
        frames.send(kind, flags, stream, &payload).await;
        let mut goaway = false;
        while let Some(frame) = frames.next().await {
            goaway |= frame.kind == kind::GOAWAY;
        }
        assert!(goaway, "{what}");
        assert_eq!(other.call(request("/demo.v1.Echo/Unary", &[])).await.grpc_status(), Some(0), "after {what}");
    }
    assert_eq!(upstream.seen().len(), 10);
}

#[tokio::test]
async fn one_stream_more_than_the_limit_is_refused_and_the_connection_lives() {
    let upstream = RawUpstream::start(|call| async move {
        if call.path.ends_with("Held") {
            std::future::pending::<()>().await;
        }
        call.answer("0").await;
    });
    let doorward = Site::new().start(&configuration(&upstream.url(), "authentication: { mode: disabled }\nlimits: { streams: 3 }\n"));
    let mut frames = Frames::open(&doorward).await;
    for stream in [1, 3, 5, 7] {
        frames.request(stream, &grpc_fields("/demo.v1.Echo/Held", &[])).await;
    }
    let reset = frames.until(kind::RST_STREAM).await.unwrap();
    assert_eq!((reset.stream, reset.number(0)), (7, u32::from(Reason::REFUSED_STREAM)));
    frames.send(kind::RST_STREAM, 0, 1, &8u32.to_be_bytes()).await;
    assert!(frames.is_alive().await);
    frames.request(9, &grpc_fields("/demo.v1.Echo/Unary", &[])).await;
    assert_eq!(frames.on_stream(9).await.unwrap().kind, kind::HEADERS);
}

/// Sends this request so often that a count of resets would end the connection; every one is reset with `reason`.
async fn resets_never_add_up(frames: &mut Frames, first: u32, fields: &[(&str, &str)], reason: Reason) {
    for number in 0..1200 {
        let stream = first + 2 * number;
        frames.request(stream, fields).await;
        let frame = loop {
            match frames.next().await {
                Some(frame) if [kind::RST_STREAM, kind::GOAWAY].contains(&frame.kind) => break frame,
                Some(_) => {}
                None => panic!("closed after {number} resets"),
            }
        };
        assert_eq!((frame.kind, frame.stream), (kind::RST_STREAM, stream), "after {number} resets: {frame:?}");
        assert_eq!(frame.number(0), u32::from(reason));
    }
}

#[tokio::test]
async fn streams_over_the_limit_never_end_the_connection() {
    let upstream = RawUpstream::start(|call| async move {
        std::future::pending::<()>().await;
        drop(call);
    });
    let doorward = Site::new().start(&configuration(&upstream.url(), "authentication: { mode: disabled }\nlimits: { streams: 3 }\n"));
    let mut frames = Frames::open(&doorward).await;
    let fields = grpc_fields("/demo.v1.Echo/Held", &[]);
    for stream in [1, 3, 5] {
        frames.request(stream, &fields).await;
    }
    upstream.reached(3).await;
    resets_never_add_up(&mut frames, 7, &fields, Reason::REFUSED_STREAM).await;
    assert_eq!(doorward.metric("doorward_streams", &[]), 3.0, "those within the limit go on");
}

#[tokio::test]
async fn malformed_requests_end_only_their_own_stream() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), QUICK));
    let mut frames = Frames::open(&doorward).await;
    let malformed = grpc_fields("/demo.v1.Echo/Unary", &[("connection", "close")]);
    resets_never_add_up(&mut frames, 1, &malformed, Reason::PROTOCOL_ERROR).await;
    assert!(upstream.seen().is_empty());
    frames.request(9001, &grpc_fields("/demo.v1.Echo/Unary", &[])).await;
    assert_eq!(frames.on_stream(9001).await.unwrap().kind, kind::HEADERS);
}

#[tokio::test]
async fn reset_after_accept_ends_with_enhance_your_calm() {
    let upstream = RawUpstream::start(|_call| std::future::pending::<()>());
    let doorward = Site::new().start(&configuration(&upstream.url(), QUICK));
    let mut other = Wire::connect(&doorward).await;
    let mut frames = Frames::open(&doorward).await;
    for number in 0..1500u32 {
        let stream = 1 + 2 * number;
        frames.request(stream, &grpc_fields("/demo.v1.Echo/Unary", &[])).await;
        frames.send(kind::RST_STREAM, 0, stream, &8u32.to_be_bytes()).await;
        if number % 20 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let goaway = frames.until(kind::GOAWAY).await.expect("GOAWAY");
    assert_eq!(goaway.number(4), u32::from(Reason::ENHANCE_YOUR_CALM));
    assert!(upstream.seen().len() <= 600, "{} reached the upstream", upstream.seen().len());
    eventually("the flood in the metrics", || (doorward.metric("doorward_limit_hits_total", &["limit=\"flood\""]) == 1.0).then_some(()));
    let (_answer, _stream) = other.open(request("/demo.v1.Echo/Unary", &[])).await.unwrap();
}

#[tokio::test]
async fn thousands_of_refused_calls_with_messages_do_not_wear_a_connection_out() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&standard(&upstream.url()));
    let mut wire = Wire::connect(&doorward).await;
    for number in 0..3000 {
        let answer = wire.call(request("/demo.v1.Echo/Unary", &[])).await;
        assert_eq!(answer.refusal(), (16, "CREDENTIALS_MISSING".to_owned()), "call {number}: {answer:?}");
    }
    let answer = wire.call(request("/demo.v1.Echo/Unary", &[("authorization", &bearer(json!({})))])).await;
    assert_eq!(answer.refusal(), (0, String::new()));
}

#[tokio::test]
async fn empty_data_frames_end_a_connection_only_by_the_hundred() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), QUICK));
    let mut other = Wire::connect(&doorward).await;
    let mut frames = Frames::open(&doorward).await;
    // The HTTP/2 library's own bound, for the life of a connection, is a hundred; no gRPC library sends even one.
    for number in 0..9 {
        let stream = 1 + 2 * number;
        frames.send(kind::HEADERS, END_HEADERS, stream, &block(&grpc_fields("/demo.v1.Echo/Unary", &[]))).await;
        for _ in 0..10 {
            frames.send(kind::DATA, 0, stream, &[]).await;
        }
        frames.send(kind::DATA, frames::END_STREAM, stream, &wire::message(b"x")).await;
        assert_eq!(frames.on_stream(stream).await.unwrap().kind, kind::HEADERS);
    }
    frames.send(kind::HEADERS, END_HEADERS, 101, &block(&grpc_fields("/demo.v1.Echo/Unary", &[]))).await;
    for _ in 0..200 {
        frames.send(kind::DATA, 0, 101, &[]).await;
    }
    let goaway = frames.until(kind::GOAWAY).await.expect("GOAWAY");
    assert_eq!(goaway.number(4), u32::from(Reason::ENHANCE_YOUR_CALM));
    assert_eq!(other.call(request("/demo.v1.Echo/Unary", &[])).await.refusal(), (0, String::new()));
}

#[tokio::test]
async fn pings_are_answered() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), QUICK));
    let mut frames = Frames::open(&doorward).await;
    for _ in 0..3 {
        assert!(frames.is_alive().await);
        tokio::time::sleep(Duration::from_millis(1000)).await;
    }
    frames.request(1, &grpc_fields("/demo.v1.Echo/Unary", &[])).await;
    assert_eq!(frames.on_stream(1).await.unwrap().kind, kind::HEADERS);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_there_is_room_again_afterwards() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), "authentication: { mode: disabled }\nlimits: { connections: 3 }\n"));
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut wire = Wire::connect(&doorward).await;
        assert_eq!(wire.call(request("/demo.v1.Echo/Unary", &[])).await.grpc_status(), Some(0));
        open.push(wire);
    }
    assert!(wire::tls(&doorward, &[b"h2"]).await.is_err(), "a fourth");
    assert!(doorward.metric("doorward_limit_hits_total", &["limit=\"connections\""]) >= 1.0);
    open.pop().unwrap().connection.abort();
    let started = Instant::now();
    while wire::tls(&doorward, &[b"h2"]).await.is_err() {
        assert!(started.elapsed() < PATIENCE, "no room again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
