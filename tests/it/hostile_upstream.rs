//! A service that breaks HTTP/2: each breach ends only what it must, the client has a status, and the next call is served.

use crate::harness::frame_upstream::Connection;
use crate::harness::frames::{ACK, END_HEADERS, END_STREAM, block};
use crate::harness::*;
use h2::Reason;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

type Done<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// What the service does on a connection when the second of two calls has come, on this stream.
type Breach = for<'a> fn(&'a mut Connection, u32) -> Done<'a>;

/// What must become of the connection and of the other call on it.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Ends {
    Stream,
    Connection,
}

/// Plays a breach while another client's call is open on the same connection: the answer to the call it is played on. The call
/// after it must be served, and the other one be ended well, or lost with the connection.
async fn played(what: &str, breach: Breach, ends: Ends, timeout: &str) -> WireAnswer {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let upstream = FrameUpstream::start(move |mut connection, number| {
        let calls = counted.clone();
        async move {
            connection.settings(&[]).await;
            if number != 1 {
                return connection.go_on().await;
            }
            let Some(held) = connection.accept().await else { return };
            connection.begin(held).await;
            calls.store(1, Ordering::Relaxed);
            let Some(stream) = connection.accept().await else { return };
            breach(&mut connection, stream).await;
            calls.store(2, Ordering::Relaxed);
            // The third call is the sign to end the first.
            while let Some(stream) = connection.accept().await {
                connection.send(kind::HEADERS, END_HEADERS | END_STREAM, held, &block(&[("grpc-status", "0")])).await;
                connection.ok(stream).await;
            }
        }
    });
    let doorward = Site::new().start(&upstream.configuration(""));
    let mut other = Wire::connect(&doorward).await;
    let (held, _request) = other.open(request("/demo.v1.Echo/Bidi", &[])).await.unwrap();
    let held = tokio::spawn(held);
    let played = async |count: usize| {
        let started = Instant::now();
        while calls.load(Ordering::Relaxed) < count {
            assert!(started.elapsed() < PATIENCE, "{what}: call {count}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    played(1).await;
    let mut wire = Wire::connect(&doorward).await;
    let answer = wire.call(request("/demo.v1.Echo/Unary", &[("grpc-timeout", timeout)])).await;
    // The service may learn only then that the call has ended, and look for nothing else until it does.
    played(2).await;
    assert_eq!(wire.call(request("/demo.v1.Echo/Unary", &[])).await.refusal(), (0, String::new()), "{what}: the next call");
    let expected = match ends {
        Ends::Stream => (0, String::new()),
        Ends::Connection => (14, "UPSTREAM_UNAVAILABLE".to_owned()),
    };
    assert_eq!(held.await.unwrap().refusal(), expected, "{what}: another call on the connection");
    answer
}

async fn table(breaches: &[(&str, Breach, (u16, &str))], ends: Ends) {
    for (what, breach, (code, reason)) in breaches {
        let answer = played(what, *breach, ends, "30S").await;
        // The library of this client finds a content-length that lies by itself.
        if answer.field("content-length").is_some() && answer.error == Some(Reason::PROTOCOL_ERROR) {
            continue;
        }
        assert_eq!(answer.refusal(), (*code, (*reason).to_owned()), "{what}: {answer:?}");
    }
}

const RESET: (u16, &str) = (13, "UPSTREAM_RESET");
const LOST: (u16, &str) = (14, "UPSTREAM_UNAVAILABLE");
const OK: (u16, &str) = (0, "");

#[tokio::test]
async fn a_malformed_answer_ends_its_own_call_only() {
    let fields: Vec<(&str, Breach, (u16, &str))> = vec![
        ("DATA before HEADERS", |c, s| Box::pin(async move { c.send(kind::DATA, 0, s, b"x").await }), RESET),
        (
            "trailers without END_STREAM",
            |c, s| {
                Box::pin(async move {
                    c.begin(s).await;
                    c.send(kind::HEADERS, END_HEADERS, s, &block(&[("grpc-status", "0")])).await;
                })
            },
            RESET,
        ),
        (
            "less than content-length",
            |c, s| {
                Box::pin(async move {
                    let head = [(":status", "200"), ("content-type", "application/grpc"), ("content-length", "10")];
                    c.send(kind::HEADERS, END_HEADERS, s, &block(&head)).await;
                    c.send(kind::DATA, END_STREAM, s, &[0; 5]).await;
                })
            },
            RESET,
        ),
        (
            "more than content-length",
            |c, s| {
                Box::pin(async move {
                    let head = [(":status", "200"), ("content-type", "application/grpc"), ("content-length", "3")];
                    c.send(kind::HEADERS, END_HEADERS, s, &block(&head)).await;
                    c.send(kind::DATA, 0, s, &[0; 5]).await;
                })
            },
            RESET,
        ),
        (
            "a field of HTTP/1.1",
            |c, s| {
                Box::pin(async move {
                    let head = [(":status", "200"), ("connection", "close"), ("grpc-status", "0")];
                    c.send(kind::HEADERS, END_HEADERS | END_STREAM, s, &block(&head)).await;
                })
            },
            RESET,
        ),
        (
            "a pseudo-header after a field",
            |c, s| {
                Box::pin(async move {
                    let head = [("content-type", "application/grpc"), (":status", "200"), ("grpc-status", "0")];
                    c.send(kind::HEADERS, END_HEADERS | END_STREAM, s, &block(&head)).await;
                })
            },
            RESET,
        ),
        ("NO_ERROR instead of an answer", |c, s| Box::pin(c.reset(s, Reason::NO_ERROR)), RESET),
        (
            "an end without an answer",
            |c, s| Box::pin(async move { c.send(kind::HEADERS, END_HEADERS | END_STREAM, s, &block(&[(":status", "100")])).await }),
            RESET,
        ),
    ];
    table(&fields, Ends::Stream).await;
}

#[tokio::test]
async fn what_is_odd_but_allowed_passes() {
    let breaches: Vec<(&str, Breach, (u16, &str))> = vec![
        (
            "NO_ERROR after the answer",
            |c, s| {
                Box::pin(async move {
                    c.ok(s).await;
                    c.reset(s, Reason::NO_ERROR).await;
                })
            },
            OK,
        ),
        (
            "interim answers",
            |c, s| {
                Box::pin(async move {
                    for status in ["100", "103", "199"] {
                        c.send(kind::HEADERS, END_HEADERS, s, &block(&[(":status", status), ("link", "</x>")])).await;
                    }
                    c.ok(s).await;
                })
            },
            OK,
        ),
        (
            "frames and settings nobody knows, empty and padded DATA",
            |c, s| {
                Box::pin(async move {
                    c.settings(&[(0xfff0, 7)]).await;
                    c.send(0xee, 0xff, 0, b"extension").await;
                    c.begin(s).await;
                    c.send(kind::DATA, 0, s, &[]).await;
                    c.send(kind::DATA, 8, s, &[2, 0, 0, 0, 0, 0, 9, 9]).await;
                    c.send(kind::HEADERS, END_HEADERS | END_STREAM, s, &block(&[("grpc-status", "0")])).await;
                })
            },
            OK,
        ),
        (
            "a flood of PINGs",
            |c, s| {
                Box::pin(async move {
                    for _ in 0..20_000 {
                        c.send(kind::PING, 0, 0, b"floodingx".get(..8).unwrap()).await;
                    }
                    c.ok(s).await;
                })
            },
            OK,
        ),
        (
            "a flood of SETTINGS",
            |c, s| {
                Box::pin(async move {
                    for _ in 0..20_000 {
                        c.settings(&[(3, 100)]).await;
                    }
                    c.ok(s).await;
                })
            },
            OK,
        ),
    ];
    table(&breaches, Ends::Stream).await;
}

#[tokio::test]
async fn interim_answers_without_end_end_with_the_deadline() {
    let breach: Breach = |c, s| {
        Box::pin(async move {
            loop {
                for _ in 0..100 {
                    c.send(kind::HEADERS, END_HEADERS, s, &block(&[(":status", "103"), ("link", "</x>")])).await;
                }
                // Until the reset has come.
                let next = tokio::time::timeout(Duration::from_millis(1), c.io.readable());
                if next.await.is_ok() && until_reset(c, s).await {
                    return;
                }
            }
        })
    };
    let answer = played("interim answers without end", breach, Ends::Stream, "3S").await;
    assert_eq!(answer.refusal(), (4, "DEADLINE".to_owned()), "{answer:?}");
}

/// Whether the next frame resets the stream.
async fn until_reset(connection: &mut Connection, stream: u32) -> bool {
    let frame = connection.read().await;
    frame.is_none_or(|frame| frame.kind == kind::RST_STREAM && frame.stream == stream)
}

#[tokio::test]
async fn a_broken_connection_gives_its_calls_a_status_and_is_replaced() {
    let breaches: Vec<(&str, Breach, (u16, &str))> = vec![
        ("a frame over SETTINGS_MAX_FRAME_SIZE", |c, s| Box::pin(async move { c.send(kind::DATA, 0, s, &vec![0; 20_000]).await }), LOST),
        ("DATA on stream 0", |c, _| Box::pin(c.send(kind::DATA, 0, 0, b"x")), LOST),
        ("HEADERS on a stream of nobody's", |c, _| Box::pin(async { c.ok(1001).await }), LOST),
        ("HEADERS on an even stream", |c, _| Box::pin(async { c.ok(2).await }), LOST),
        ("SETTINGS of no size", |c, _| Box::pin(c.send(kind::SETTINGS, 0, 0, b"x")), LOST),
        ("SETTINGS on a stream", |c, s| Box::pin(async move { c.send(kind::SETTINGS, 0, s, &[]).await }), LOST),
        ("a PING of no size", |c, _| Box::pin(c.send(kind::PING, 0, 0, b"x")), LOST),
        ("no window", |c, _| Box::pin(c.send(kind::WINDOW_UPDATE, 0, 0, &[0; 4])), LOST),
        ("CONTINUATION of nothing", |c, s| Box::pin(async move { c.send(kind::CONTINUATION, END_HEADERS, s, &[]).await }), LOST),
        ("a block that is no HPACK", |c, s| Box::pin(async move { c.send(kind::HEADERS, END_HEADERS, s, &[0xff; 40]).await }), LOST),
        (
            "a promise",
            |c, s| {
                Box::pin(async move {
                    let fields = block(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]);
                    c.send(kind::PUSH_PROMISE, END_HEADERS, s, &[&2_u32.to_be_bytes()[..], &fields].concat()).await;
                })
            },
            LOST,
        ),
        (
            "HTTP/1.1",
            |c, _| Box::pin(async { c.io.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await.unwrap() }),
            LOST,
        ),
        (
            "CONTINUATION without end",
            |c, s| {
                Box::pin(async move {
                    c.send(kind::HEADERS, 0, s, &block(&[(":status", "200")])).await;
                    for _ in 0..1000 {
                        c.send(kind::CONTINUATION, 0, s, &block(&[("x", "y")])).await;
                    }
                })
            },
            LOST,
        ),
    ];
    table(&breaches, Ends::Connection).await;
}

#[tokio::test]
async fn data_after_the_end_of_a_stream_is_not_its_clients_affair() {
    let breach: Breach = |c, s| {
        Box::pin(async move {
            c.ok(s).await;
            c.send(kind::DATA, 0, s, b"more").await;
        })
    };
    // RFC 9113 §5.1 calls it an error of the connection.
    let upstream = FrameUpstream::start(move |mut connection, number| async move {
        connection.settings(&[]).await;
        if number == 1
            && let Some(stream) = connection.accept().await
        {
            breach(&mut connection, stream).await;
        }
        connection.go_on().await;
    });
    let doorward = Site::new().start(&upstream.configuration(""));
    let mut wire = Wire::connect(&doorward).await;
    for _ in 0..3 {
        assert_eq!(wire.call(request("/demo.v1.Echo/Unary", &[])).await.refusal(), (0, String::new()));
    }
}

/// An answer whose head has so many bytes on the wire, in CONTINUATIONs as large as a frame may be.
async fn large_head(connection: &mut Connection, stream: u32, bytes: usize) {
    let value = "x".repeat(1000);
    let mut fields = vec![(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "0")];
    fields.extend((0..bytes / 1000).map(|_| ("large", &*value)));
    let block = block(&fields);
    let frames: Vec<&[u8]> = block.chunks(16_384).collect();
    for (number, frame) in frames.iter().enumerate() {
        let (kind, first) = if number == 0 { (kind::HEADERS, END_STREAM) } else { (kind::CONTINUATION, 0) };
        let last = if number + 1 == frames.len() { END_HEADERS } else { 0 };
        connection.send(kind, first | last, stream, frame).await;
    }
}

#[tokio::test]
async fn a_head_that_is_far_too_large_ends_its_own_call_only() {
    const HEADERS: (u16, &str) = (13, "UPSTREAM_HEADERS");
    let breaches: Vec<(&str, Breach, (u16, &str))> = vec![
        ("20 KB", |c, s| Box::pin(large_head(c, s, 20_000)), HEADERS),
        ("100 KB", |c, s| Box::pin(large_head(c, s, 100_000)), HEADERS),
        ("300 KB", |c, s| Box::pin(large_head(c, s, 300_000)), HEADERS),
        ("a megabyte", |c, s| Box::pin(large_head(c, s, 1_000_000)), HEADERS),
    ];
    table(&breaches, Ends::Stream).await;
    // Beyond, nothing is read any more; whose fault that was is known all the same.
    table(&[("five megabytes", |c, s| Box::pin(large_head(c, s, 5_000_000)), HEADERS)], Ends::Connection).await;
}

/// SETTINGS_MAX_CONCURRENT_STREAMS.
const fn streams(most: u32) -> (u16, u32) {
    (3, most)
}

#[tokio::test]
async fn a_limit_of_no_streams_makes_calls_wait_until_it_is_lifted_or_their_deadline() {
    let (lift, lifted) = tokio::sync::watch::channel(false);
    let upstream = FrameUpstream::start(move |mut connection, _| {
        let mut lifted = lifted.clone();
        async move {
            connection.settings(&[streams(0)]).await;
            let _ = lifted.wait_for(|lifted| *lifted).await;
            connection.settings(&[streams(1)]).await;
            connection.go_on().await;
        }
    });
    let doorward = Site::new().start(&upstream.configuration(""));
    let mut wire = Wire::connect(&doorward).await;
    let answer = wire.call(request("/demo.v1.Echo/Unary", &[("grpc-timeout", "300m")])).await;
    assert_eq!(answer.refusal(), (4, "DEADLINE".to_owned()), "{answer:?}");
    let (waiting, mut body) = wire.open(request("/demo.v1.Echo/Unary", &[])).await.unwrap();
    body.send_data(wire::message(b""), true).unwrap();
    lift.send(true).unwrap();
    assert_eq!(waiting.await.refusal(), (0, String::new()));
}

#[tokio::test]
async fn a_limit_that_is_lowered_while_calls_run_is_kept() {
    let most = Arc::new(AtomicUsize::new(0));
    let counted = most.clone();
    let upstream = FrameUpstream::start(move |mut connection, _| {
        let most = counted.clone();
        async move {
            connection.settings(&[streams(100)]).await;
            let Some(first) = connection.accept().await else { return };
            connection.settings(&[streams(1)]).await;
            // Requests that were on their way before the limit was known may still come.
            let mut early = vec![first];
            while let Some(frame) = connection.read().await {
                match frame.kind {
                    kind::HEADERS => early.push(frame.stream),
                    kind::SETTINGS if frame.flags & ACK != 0 => break,
                    _ => {}
                }
            }
            for stream in early {
                connection.ok(stream).await;
            }
            while let Some(stream) = connection.accept().await {
                // A second one, before this one is answered, would be over the limit.
                connection.send(kind::PING, 0, 0, b"12345678").await;
                let mut at_a_time = 1;
                while let Some(frame) = connection.read().await {
                    at_a_time += usize::from(frame.kind == kind::HEADERS);
                    if (frame.kind, frame.flags & ACK) == (kind::PING, ACK) {
                        break;
                    }
                }
                most.fetch_max(at_a_time, Ordering::Relaxed);
                connection.ok(stream).await;
            }
        }
    });
    let doorward = Site::new().start(&upstream.configuration(""));
    let mut wire = Wire::connect(&doorward).await;
    assert_eq!(wire.call(request("/demo.v1.Echo/Unary", &[])).await.refusal(), (0, String::new()));
    let mut calls = Vec::new();
    for _ in 0..20 {
        let (answer, mut body) = wire.open(request("/demo.v1.Echo/Unary", &[])).await.unwrap();
        body.send_data(wire::message(b""), true).unwrap();
        calls.push(tokio::spawn(answer));
    }
    for call in calls {
        assert_eq!(call.await.unwrap().refusal(), (0, String::new()));
    }
    assert_eq!(most.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_upstream_that_ends_each_connection_as_soon_as_it_is_up_is_not_hammered() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let upstream = FrameUpstream::start(move |mut connection, number| {
        let connections = counted.clone();
        async move {
            // No call gets on it before it ends.
            connection.settings(&[streams(0)]).await;
            if number == 0 {
                return connection.go_on().await;
            }
            connections.fetch_add(1, Ordering::Relaxed);
            let _ = tokio::time::timeout(Duration::from_millis(5), async { while connection.read().await.is_some() {} }).await;
        }
    });
    let doorward = Site::new().start(&upstream.configuration(""));
    let answer = Wire::connect(&doorward).await.call(request("/demo.v1.Echo/Unary", &[("grpc-timeout", "1S")])).await;
    assert!([(LOST.0, LOST.1.to_owned()), (4, "DEADLINE".to_owned())].contains(&answer.refusal()), "{answer:?}");
    let connections = connections.load(Ordering::Relaxed);
    assert!(connections <= 60, "{connections} connections for one call in a second");
}
