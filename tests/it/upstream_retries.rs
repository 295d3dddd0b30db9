//! A call is made again only when the upstream has surely not seen it, and then exactly as it was.

use crate::harness::frame_upstream::Connection;
use crate::harness::raw_upstream::response;
use crate::harness::wire::message;
use crate::harness::*;
use bytes::Bytes;
use h2::Reason;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn unavailable() -> (u16, String) {
    (14, "UPSTREAM_UNAVAILABLE".to_owned())
}

/// What a service does with a request it has got the head of; whether it serves that connection further.
type Behaviour = for<'a> fn(&'a mut Connection, u32) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>>;

/// A service that does that with the first request, and answers the others; how many there were.
fn at_first(behaviour: Behaviour) -> (FrameUpstream, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    let upstream = FrameUpstream::start(move |mut connection, _| {
        let requests = counted.clone();
        async move {
            connection.settings(&[]).await;
            while let Some(stream) = connection.accept().await {
                if requests.fetch_add(1, Ordering::Relaxed) > 0 {
                    connection.ok(stream).await;
                } else if !behaviour(&mut connection, stream).await {
                    return;
                }
            }
        }
    });
    (upstream, requests)
}

#[tokio::test]
async fn what_the_upstream_has_not_seen_is_made_again() {
    let behaviours: [(&str, Behaviour); 2] = [
        ("REFUSED_STREAM", |connection, stream| {
            Box::pin(async move {
                connection.reset(stream, Reason::REFUSED_STREAM).await;
                true
            })
        }),
        ("a GOAWAY that disowns the call, then the end", |connection, _| {
            Box::pin(async move {
                connection.go_away(0).await;
                false
            })
        }),
    ];
    for (what, behaviour) in behaviours {
        let (upstream, requests) = at_first(behaviour);
        let doorward = Site::new().start(&upstream.configuration(""));
        let answer = Wire::connect(&doorward).await.call(request("/demo.v1.Echo/Unary", &[])).await;
        assert_eq!(answer.refusal(), (0, String::new()), "{what}: {answer:?}");
        assert_eq!(requests.load(Ordering::Relaxed), 2, "{what}");
        assert_eq!(doorward.metric("doorward_upstream_retries_total", &[]), 1.0, "{what}");
    }
}

#[tokio::test]
async fn but_not_for_ever() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    let upstream = RawUpstream::start(move |mut call| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move { call.respond.send_reset(Reason::REFUSED_STREAM) }
    });
    let doorward = Site::new().start(&configuration(&upstream.url(), "authentication: { mode: disabled }\n"));
    let answer = Wire::connect(&doorward).await.call(request("/demo.v1.Echo/Unary", &[])).await;
    assert_eq!((answer.status, answer.error), (0, Some(Reason::REFUSED_STREAM)), "{answer:?}");
    assert_eq!(requests.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn what_the_upstream_may_have_seen_is_never_made_again() {
    let behaviours: [(&str, Behaviour, (u16, &str)); 5] = [
        ("cut", |_, _| Box::pin(async { false }), (14, "UPSTREAM_UNAVAILABLE")),
        (
            "GOAWAY that owns the call, then the end",
            |connection, stream| {
                Box::pin(async move {
                    connection.go_away(stream).await;
                    false
                })
            },
            (14, "UPSTREAM_UNAVAILABLE"),
        ),
        (
            "INTERNAL_ERROR",
            |connection, stream| {
                Box::pin(async move {
                    connection.reset(stream, Reason::INTERNAL_ERROR).await;
                    true
                })
            },
            (13, "UPSTREAM_RESET"),
        ),
        (
            "a bad frame",
            |connection, _| {
                Box::pin(async move {
                    connection.send(kind::DATA, 0, 0, b"on stream 0").await;
                    true
                })
            },
            (14, "UPSTREAM_UNAVAILABLE"),
        ),
        (
            "REFUSED_STREAM after the answer has begun",
            |connection, stream| {
                Box::pin(async move {
                    connection.begin(stream).await;
                    connection.reset(stream, Reason::REFUSED_STREAM).await;
                    true
                })
            },
            (14, "UPSTREAM_RESET"),
        ),
    ];
    for (what, behaviour, expected) in behaviours {
        let (upstream, requests) = at_first(behaviour);
        let doorward = Site::new().start(&upstream.configuration(""));
        let mut wire = Wire::connect(&doorward).await;
        let answer = wire.call(request("/demo.v1.Echo/Unary", &[])).await;
        assert_eq!(answer.refusal(), (expected.0, expected.1.to_owned()), "{what}: {answer:?}");
        assert_eq!(requests.load(Ordering::Relaxed), 1, "{what}");
        assert_eq!(wire.call(request("/demo.v1.Echo/Unary", &[])).await.refusal(), (0, String::new()), "{what}: the next call");
    }
}

/// Refuses the first request once `until` of its body's bytes have come, and keeps each whole attempt.
fn refused_after(until: usize) -> (RawUpstream, Arc<AtomicUsize>) {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = attempts.clone();
    let upstream = RawUpstream::start(move |mut call| {
        let first = counted.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            let mut come = 0;
            while first && come < until {
                let chunk = call.body.data().await.unwrap().unwrap();
                call.body.flow_control().release_capacity(chunk.len()).unwrap();
                come += chunk.len();
            }
            if first { call.respond.send_reset(Reason::REFUSED_STREAM) } else { call.answer("0").await }
        }
    });
    (upstream, attempts)
}

#[tokio::test]
async fn a_call_made_again_is_the_same_in_headers_and_body() {
    let (upstream, attempts) = refused_after(1);
    let doorward = Site::new().start(&configuration(&upstream.url(), "authentication: { mode: disabled }\n"));
    let mut wire = Wire::connect(&doorward).await;
    let fields = [("x-one", "a"), ("x-one", "b"), ("x-two-bin", "AAEC")];
    let (answer, mut stream) = wire.open(request("/demo.v1.Echo/ClientStream", &fields)).await.unwrap();
    stream.send_data(message(b"first"), false).unwrap();
    upstream.reached(2).await;
    // What comes later goes to the second attempt alone.
    stream.send_data(message(b"second"), true).unwrap();
    assert_eq!(answer.await.refusal(), (0, String::new()));
    assert_eq!(attempts.load(Ordering::Relaxed), 2);
    let seen = upstream.seen();
    assert_eq!((&seen[0].headers, &seen[0].authority, &seen[0].path), (&seen[1].headers, &seen[1].authority, &seen[1].path));
    assert_eq!(seen[1].values("x-one"), ["a", "b"]);
    assert_eq!(seen[1].body, [message(b"first"), message(b"second")].concat());
}

#[tokio::test]
async fn a_body_that_was_given_whole_is_given_again() {
    let (upstream, attempts) = refused_after(10_000);
    let doorward = Site::new().start(&configuration(&upstream.url(), "authentication: { mode: disabled }\n"));
    let mut wire = Wire::connect(&doorward).await;
    let body = message(&[7; 10_000]);
    assert_eq!(wire.call_with(request("/demo.v1.Echo/Unary", &[]), body.clone(), None).await.refusal(), (0, String::new()));
    assert_eq!((attempts.load(Ordering::Relaxed), &upstream.seen()[1].body[..]), (2, &body[..]));
}

#[tokio::test]
async fn a_body_too_large_to_keep_is_given_once() {
    let (upstream, attempts) = refused_after(40_000);
    let doorward = Site::new().start(&configuration(&upstream.url(), "authentication: { mode: disabled }\n"));
    let mut wire = Wire::connect(&doorward).await;
    let answer = wire.call_with(request("/demo.v1.Echo/Unary", &[]), message(&[7; 100_000]), None).await;
    // The client has kept it, and learns that it may give it again.
    assert_eq!((answer.status, answer.error), (0, Some(Reason::REFUSED_STREAM)), "{answer:?}");
    assert_eq!(attempts.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_body_too_large_to_keep_is_the_clients_to_give_again_also_when_its_connection_goes() {
    let (upstream, requests) = at_first(|connection, _| {
        Box::pin(async move {
            let mut taken = 0;
            while taken < 40_000 {
                let frame = connection.read().await.expect("the body");
                taken += if frame.kind == kind::DATA { frame.payload.len() } else { 0 };
            }
            connection.go_away(0).await;
            false
        })
    });
    let doorward = Site::new().start(&upstream.configuration(""));
    let mut wire = Wire::connect(&doorward).await;
    let answer = wire.call_with(request("/demo.v1.Echo/Unary", &[]), message(&[7; 60_000]), None).await;
    assert_eq!((answer.status, answer.error), (0, Some(Reason::REFUSED_STREAM)), "{answer:?}");
    assert_eq!(requests.load(Ordering::Relaxed), 1);
    assert_eq!(wire.call(request("/demo.v1.Echo/Unary", &[])).await.refusal(), (0, String::new()));
}

#[tokio::test]
async fn a_request_that_was_not_written_before_its_connection_was_lost_is_made_again() {
    /// SETTINGS_INITIAL_WINDOW_SIZE.
    const WINDOW: (u16, u32) = (4, 0x7fff_ffff);
    let (cut, cut_now) = tokio::sync::watch::channel(false);
    // The first connection for calls reads one request and then nothing: what follows stays in buffers, then with Doorward.
    let upstream = FrameUpstream::start(move |mut connection, number| {
        let mut cut = cut_now.clone();
        async move {
            connection.settings(&[WINDOW]).await;
            if number != 1 {
                return connection.go_on().await;
            }
            connection.send(kind::WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes()).await;
            connection.accept().await;
            let _ = cut.wait_for(|cut| *cut).await;
        }
    });
    let doorward = Site::new().start(&upstream.configuration(""));
    let mut wire = Wire::connect(&doorward).await;
    let (upload, mut stream) = wire.open(request("/demo.v1.Echo/ClientStream", &[])).await.unwrap();
    let upload = tokio::spawn(upload);
    // Until nothing goes any more, though Doorward had its turn meanwhile: it has taken another connection each time.
    let (mut other, mut stuck) = (Wire::connect(&doorward).await, 0);
    while stuck < 3 {
        stream.reserve_capacity(65_536);
        let room = std::future::poll_fn(|context| stream.poll_capacity(context));
        match tokio::time::timeout(Duration::from_millis(500), room).await {
            Ok(room) => {
                stream.send_data(Bytes::from(vec![0; room.unwrap().unwrap()]), false).unwrap();
                stuck = 0;
            }
            Err(_) => {
                other = Wire::connect(&doorward).await;
                stuck += 1;
            }
        }
    }
    let (waiting, mut body) = other.open(request("/demo.v1.Echo/Unary", &[])).await.unwrap();
    body.send_data(message(b""), true).unwrap();
    let waiting = tokio::spawn(waiting);
    let started = Instant::now();
    while doorward.metric("doorward_streams", &[]) < 2.0 {
        assert!(started.elapsed() < PATIENCE, "two calls");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cut.send(true).unwrap();
    assert_eq!(waiting.await.unwrap().refusal(), (0, String::new()), "not a byte of it had left");
    assert_eq!(upload.await.unwrap().refusal(), unavailable(), "it was seen");
}

/// Makes calls over and over from several clients until `meanwhile` is done. None may fail, unless the service itself says so.
fn under_load(doorward: &Doorward, meanwhile: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    let client = async || {
        let mut wire = Wire::connect(doorward).await;
        let mut calls = 0;
        while !stop.load(Ordering::Relaxed) {
            let answer = wire.call(request("/demo.v1.Echo/Unary", &[])).await;
            assert!(answer.grpc_status().is_some() && answer.error_info().is_none(), "after {calls} calls: {answer:?}");
            calls += 1;
        }
    };
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { tokio::join!(client(), client(), client(), client()) })
        });
        meanwhile();
        stop.store(true, Ordering::Relaxed);
        load.join().unwrap();
    });
}

#[test]
fn connections_that_the_upstream_ends_all_the_time_lose_no_call() {
    let age = ["--option", "grpc.max_connection_age_ms=300", "--option", "grpc.max_connection_age_grace_ms=5000"];
    let upstream = PythonUpstream::start_with(&age);
    let doorward = Site::new().start(&configuration(&upstream.url(), "workers: 2\nauthentication: { mode: disabled }\n"));
    under_load(&doorward, || {
        eventually("the end of connections", || (doorward.metric("doorward_upstream_connections_ended_total", &[]) >= 8.0).then_some(()));
    });
}

#[test]
fn an_upstream_that_drains_and_is_replaced_loses_no_call() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let shared = ["--address", &address, "--option", "grpc.so_reuseport=1", "--grace", "10"];
    let mut upstream = PythonUpstream::start_with(&shared);
    let doorward = Site::new().start(&configuration(&upstream.url(), "workers: 2\nauthentication: { mode: disabled }\n"));
    under_load(&doorward, || {
        for _ in 0..2 {
            let served = upstream.calls().len();
            eventually("some calls", || (upstream.calls().len() > served + 50).then_some(()));
            let next = PythonUpstream::start_with(&shared);
            upstream.signal("TERM");
            upstream.wait();
            upstream = next;
        }
        eventually("calls at the last of them", || (upstream.calls().len() > 50).then_some(()));
    });
}

#[tokio::test]
async fn an_answer_is_never_followed_by_another_attempt() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    let upstream = RawUpstream::start(move |mut call| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            let mut stream = call.respond.send_response(response(), false).unwrap();
            stream.send_data(message(b"half"), false).unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.send_reset(Reason::REFUSED_STREAM);
        }
    });
    let doorward = Site::new().start(&configuration(&upstream.url(), "authentication: { mode: disabled }\n"));
    let answer = Wire::connect(&doorward).await.call(request("/demo.v1.Echo/Unary", &[])).await;
    assert_eq!(answer.refusal(), (14, "UPSTREAM_RESET".to_owned()), "{answer:?}");
    assert_eq!(requests.load(Ordering::Relaxed), 1);
}
