//! How connections end: GOAWAY in all its ways (RFC 9113 §6.8), and none at all. The next call is served on a new one.

use super::*;
use crate::harness::wire::message;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;

fn go_away(last: u32, code: u32) -> Vec<u8> {
    frame(kind::GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

const LAST: u32 = (1 << 31) - 1;
const ENHANCE_YOUR_CALM: u32 = 11;

/// What the service does when three calls have come on its first connection, on these streams; it then goes on reading.
type Leave = for<'a> fn(&'a mut Peer, [u32; 3]) -> Done<'a>;

/// Its name, what the service does, what the three calls get, and how many of them are made again.
type Way = (&'static str, Leave, [(u16, &'static str); 3], usize);

/// Plays that; what the calls get, in order, and how many requests came on the connections after the first. Whoever comes on another
/// connection is served, also the calls of the first that are made again. Then the first connection must end, closed by Doorward.
async fn left(what: &str, leave: Leave) -> (Vec<(u16, String)>, usize) {
    let come = Arc::new(AtomicUsize::new(0));
    let (again, ended, opened) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, counted_again, over, opening) = (come.clone(), again.clone(), ended.clone(), opened.clone());
    let upstream = FrameUpstream::start(move |wire, number| {
        let (come, again, ended, opened) = (counted.clone(), counted_again.clone(), over.clone(), opening.clone());
        async move {
            let mut peer = Peer::new(wire);
            peer.settings(&[]).await;
            opened.fetch_add(1, Ordering::Relaxed);
            if number != 1 {
                while let Some((stream, _)) = peer.accept().await {
                    again.fetch_add(1, Ordering::Relaxed);
                    peer.burst(&ok(stream)).await;
                }
                return;
            }
            let mut streams = [0; 3];
            for stream in &mut streams {
                *stream = peer.accept().await.expect("three calls").0;
                come.fetch_add(1, Ordering::Relaxed);
            }
            leave(&mut peer, streams).await;
            while peer.next().await.is_some() {}
            assert!(peer.requests.is_empty(), "no call after a GOAWAY");
            ended.fetch_add(1, Ordering::Relaxed);
        }
    });
    let doorward = Site::new().start(&upstream.configuration(""));
    let mut wire = Wire::connect(&doorward).await;
    let mut calls = Vec::new();
    for number in 1..=3 {
        let (answer, mut stream) = wire.open(request("/demo.v1.Echo/Unary", &[("grpc-timeout", "30S")])).await.unwrap();
        stream.send_data(message(b""), true).unwrap();
        calls.push(tokio::spawn(answer));
        until(what, || come.load(Ordering::Relaxed) == number).await;
    }
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap().refusal());
    }
    let again = again.load(Ordering::Relaxed);
    assert_eq!(wire.call(request("/demo.v1.Echo/Unary", &[])).await.refusal(), owned(OK), "{what}: the next call");
    until(&format!("{what}: the end"), || ended.load(Ordering::Relaxed) == 1).await;
    assert_eq!(opened.load(Ordering::Relaxed), 3, "{what}: the health check's, the one that went, and one for all that followed");
    (answers, again)
}

#[tokio::test]
async fn a_goaway_disowns_the_calls_above_it_and_the_others_are_finished() {
    let ways: [Way; 8] = [
        (
            "above all",
            |peer, streams| {
                Box::pin(async move {
                    peer.burst(&go_away(LAST, 0)).await;
                    peer.burst(&streams.map(ok).concat()).await;
                })
            },
            [OK; 3],
            0,
        ),
        (
            "at the last",
            |peer, streams| {
                Box::pin(async move {
                    peer.burst(&go_away(streams[2], 0)).await;
                    assert!(peer.seen().await, "the connection lives");
                    peer.burst(&streams.map(ok).concat()).await;
                })
            },
            [OK; 3],
            0,
        ),
        (
            "in the middle, answers afterwards",
            |peer, streams| {
                Box::pin(async move {
                    peer.burst(&go_away(streams[0], 0)).await;
                    assert!(peer.seen().await, "the connection lives");
                    peer.burst(&ok(streams[0])).await;
                })
            },
            [OK; 3],
            2,
        ),
        (
            "the last of all, then those that are left in between",
            |peer, streams| {
                Box::pin(async move {
                    peer.burst(&[go_away(LAST, 0), head(streams[1])].concat()).await;
                    assert!(peer.seen().await, "the connection lives");
                    peer.burst(&[go_away(streams[1], 0), ok(streams[0])].concat()).await;
                    assert!(peer.seen().await, "the connection lives");
                    peer.end(streams[1]).await;
                })
            },
            [OK; 3],
            1,
        ),
        (
            "twice, lower each time",
            |peer, streams| {
                Box::pin(async move {
                    peer.burst(&[go_away(streams[1], 0), go_away(streams[0], 0)].concat()).await;
                    peer.burst(&ok(streams[0])).await;
                })
            },
            [OK; 3],
            2,
        ),
        (
            "twice the same",
            |peer, streams| {
                Box::pin(async move {
                    peer.burst(&[go_away(streams[1], 0), go_away(streams[1], 0), ok(streams[1]), ok(streams[0])].concat()).await;
                })
            },
            [OK; 3],
            1,
        ),
        (
            "with words",
            |peer, streams| {
                Box::pin(async move {
                    peer.burst(&frame(kind::GOAWAY, 0, 0, &[&streams[2].to_be_bytes()[..], &[0; 4], b"max_age"].concat())).await;
                    peer.burst(&streams.map(ok).concat()).await;
                })
            },
            [OK; 3],
            0,
        ),
        (
            "with an error, and answers all the same",
            |peer, streams| {
                Box::pin(async move {
                    peer.burst(&[go_away(streams[1], ENHANCE_YOUR_CALM), ok(streams[0]), ok(streams[1])].concat()).await;
                })
            },
            [OK; 3],
            1,
        ),
    ];
    for (what, leave, answers, again) in ways {
        assert_eq!(left(what, leave).await, (answers.map(owned).to_vec(), again), "{what}");
    }
}

#[tokio::test]
async fn a_goaway_and_then_the_end_lose_what_the_upstream_may_have_seen() {
    let ways: [Way; 3] = [
        (
            "without an error",
            |peer, streams| {
                Box::pin(async move {
                    peer.burst(&[go_away(streams[1], 0), ok(streams[0])].concat()).await;
                    let _ = peer.wire.io.shutdown().await;
                })
            },
            [OK, LOST, OK],
            1,
        ),
        (
            "with an error",
            |peer, streams| {
                Box::pin(async move {
                    peer.burst(&[go_away(streams[1], ENHANCE_YOUR_CALM), ok(streams[0])].concat()).await;
                    let _ = peer.wire.io.shutdown().await;
                })
            },
            [OK, LOST, OK],
            1,
        ),
        (
            "that disowns all",
            |peer, _| {
                Box::pin(async move {
                    peer.burst(&go_away(0, 0)).await;
                    let _ = peer.wire.io.shutdown().await;
                })
            },
            [OK, OK, OK],
            3,
        ),
    ];
    for (what, leave, answers, again) in ways {
        assert_eq!(left(what, leave).await, (answers.map(owned).to_vec(), again), "{what}");
    }
}

#[tokio::test]
async fn an_upload_goes_on_after_a_goaway() {
    let stage = Stage::new(
        &[],
        vec![play(|peer, stream| {
            Box::pin(async move {
                peer.burst(&go_away(stream, 0)).await;
                let body = peer.body(stream).await;
                let count = body.len().to_string();
                peer.burst(&frame(kind::HEADERS, END_HEADERS, stream, &block(&[HEAD[0], HEAD[1], ("x-count", &count)]))).await;
                peer.data(0, stream, &message(b"still here")).await;
                peer.end(stream).await;
            })
        })],
    );
    let mut wire = stage.wire().await;
    let answer = wire.call_with(request("/demo.v1.Echo/R0", &[]), vec![0; 300_000].into(), None).await;
    assert_eq!((answer.refusal(), answer.field("x-count"), &answer.body[..]), (owned(OK), Some("300000"), &message(b"still here")[..]));
    stage.ended(1).await;
    assert_eq!(wire.call(request("/demo.v1.Echo/Unary", &[])).await.refusal(), owned(OK));
    assert_eq!(stage.opened(), 2);
}

#[tokio::test]
async fn a_connection_that_ends_in_the_middle_of_anything_loses_its_calls_and_is_replaced() {
    // What comes before the end, and how the connection ends.
    fn then_end(bytes: fn(u32) -> Vec<u8>, reset: bool) -> Play {
        play(move |peer, stream| {
            Box::pin(async move {
                peer.wire.burst(&bytes(stream)).await;
                if reset {
                    SockRef::from(&peer.wire.io).set_linger(Some(Duration::ZERO)).unwrap();
                    // The socket goes now, and the service reads on from one that leads nowhere.
                    let nowhere = elsewhere().await;
                    drop(std::mem::replace(&mut peer.wire.io, nowhere));
                } else {
                    let _ = peer.wire.io.shutdown().await;
                }
            })
        })
    }
    let mut table: Vec<Row> = Vec::new();
    for reset in [false, true] {
        table.extend([
            ("before a frame", then_end(|_| Vec::new(), reset), LOST),
            ("within the head of a frame", then_end(|s| ok(s)[..5].to_vec(), reset), LOST),
            ("within a header block", then_end(|s| ok(s)[..20].to_vec(), reset), LOST),
            ("before CONTINUATION", then_end(|s| frame(kind::HEADERS, 0, s, &block(&HEAD)), reset), LOST),
            ("after a head", then_end(head, reset), LOST),
            ("within DATA", then_end(|s| [head(s), frame(kind::DATA, 0, s, &[0; 100])[..50].to_vec()].concat(), reset), LOST),
            ("after DATA", then_end(|s| [head(s), frame(kind::DATA, 0, s, &message(b"x"))].concat(), reset), LOST),
            ("within trailers", then_end(|s| [head(s), trailers(s)[..12].to_vec()].concat(), reset), LOST),
        ]);
    }
    rows(&table, Ends::Connection).await;
}

/// A connection whose other end is gone.
async fn elsewhere() -> tokio::net::TcpStream {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    drop(listener.accept().await.unwrap());
    near
}

#[tokio::test]
async fn an_upstream_that_ends_a_connection_nobody_uses_fails_no_call() {
    let ended = Arc::new(AtomicUsize::new(0));
    let counted = ended.clone();
    // After each answer: an end, a reset, or a GOAWAY before the end, in turn.
    let upstream = FrameUpstream::start(move |wire, number| {
        let ended = counted.clone();
        async move {
            let mut peer = Peer::new(wire);
            peer.settings(&[]).await;
            let Some((stream, _)) = peer.accept().await else { return };
            peer.burst(&ok(stream)).await;
            // The client has its answer before the end.
            peer.seen().await;
            match number % 3 {
                0 => {}
                1 => SockRef::from(&peer.wire.io).set_linger(Some(Duration::ZERO)).unwrap(),
                _ => peer.burst(&go_away(stream, 0)).await,
            }
            drop(peer);
            ended.fetch_add(1, Ordering::Relaxed);
        }
    });
    let doorward = Site::new().start(&upstream.configuration(""));
    let mut wire = Wire::connect(&doorward).await;
    for number in 1..=12 {
        assert_eq!(wire.call(request("/demo.v1.Echo/Unary", &[])).await.refusal(), owned(OK), "call {number}");
        until("the end", || ended.load(Ordering::Relaxed) == number).await;
        let ends = || doorward.metric("doorward_upstream_connections_ended_total", &[]);
        until("its being noticed", || ends() >= number as f64).await;
    }
}
