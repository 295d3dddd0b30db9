//! SETTINGS of the service while calls run (RFC 9113 §5.1.2, §6.5): how many streams there may be, what is acknowledged, what may be
//! remembered of header fields.

use super::*;
use crate::harness::wire::message;

const fn streams(most: u32) -> (u16, u32) {
    (setting::MAX_CONCURRENT_STREAMS, most)
}

/// Calls with a message, under way.
async fn begin(wire: &mut Wire, method: &str, count: usize) -> Vec<tokio::task::JoinHandle<WireAnswer>> {
    let mut calls = Vec::new();
    for _ in 0..count {
        let (answer, mut stream) = wire.open(request(&format!("/demo.v1.Echo/{method}"), &[])).await.unwrap();
        stream.send_data(message(b""), true).unwrap();
        calls.push(tokio::spawn(answer));
    }
    calls
}

async fn all_ok(calls: Vec<tokio::task::JoinHandle<WireAnswer>>) {
    for call in calls {
        assert_eq!(call.await.unwrap().refusal(), owned(OK));
    }
}

#[tokio::test]
async fn a_limit_that_is_raised_lets_calls_in_that_wait_for_it() {
    /// Connections that are opened for the sake of streams.
    const CONNECTIONS: usize = 8;
    let (raise, raised) = tokio::sync::watch::channel(false);
    let most = Arc::new(AtomicUsize::new(0));
    let come = Arc::new(AtomicUsize::new(0));
    let (counted, at_once) = (come.clone(), most.clone());
    // Each connection takes one call, and holds it. Then one of them, the third, may have ten more.
    let upstream = FrameUpstream::start(move |wire, number| {
        let (come, at_once, mut raised) = (counted.clone(), at_once.clone(), raised.clone());
        async move {
            let mut peer = Peer::new(wire);
            peer.settings(&[streams(1)]).await;
            let Some((first, _)) = peer.accept().await else { return };
            come.fetch_add(1, Ordering::Relaxed);
            raised.wait_for(|raised| *raised).await.unwrap();
            if number != 3 {
                // Goes on holding it until the others are served.
                tokio::time::sleep(Duration::from_millis(300)).await;
                peer.burst(&ok(first)).await;
                while peer.accept().await.is_some() {}
                return;
            }
            peer.settings(&[streams(11)]).await;
            let mut open = vec![first];
            while open.len() < 11 {
                let Some((stream, _)) = peer.accept().await else { return };
                open.push(stream);
            }
            assert!(peer.seen().await && peer.requests.is_empty(), "no more than eleven");
            at_once.store(open.len(), Ordering::Relaxed);
            for stream in open {
                peer.burst(&ok(stream)).await;
            }
            while let Some((stream, _)) = peer.accept().await {
                peer.burst(&ok(stream)).await;
            }
        }
    });
    let doorward = Site::new().start(&upstream.configuration(""));
    let mut wire = Wire::connect(&doorward).await;
    let calls = begin(&mut wire, "Unary", CONNECTIONS + 14).await;
    until("a call on each connection", || come.load(Ordering::Relaxed) == CONNECTIONS).await;
    raise.send(true).unwrap();
    all_ok(calls).await;
    assert_eq!(most.load(Ordering::Relaxed), 11);
}

#[tokio::test]
async fn a_limit_of_nothing_for_a_time_ends_no_call_that_runs() {
    let stage = Stage::new(
        &[],
        vec![play(|peer, stream| {
            Box::pin(async move {
                peer.burst(&head(stream)).await;
                for most in [0, 1, 0, 100] {
                    peer.settle(&[streams(most)]).await;
                }
                peer.end(stream).await;
            })
        })],
    );
    let mut wire = stage.wire().await;
    let (held, _request) = hold(&mut wire).await;
    for _ in 0..3 {
        let calls = begin(&mut wire, "R0", 1).await;
        all_ok(calls).await;
    }
    all_ok(begin(&mut wire, "After", 1).await).await;
    assert_eq!(WireAnswer::rest(held).await.refusal(), owned(OK));
}

#[tokio::test]
async fn settings_are_acknowledged_each_time_and_pings_are_answered_in_order() {
    let stage = Stage::new(
        &[],
        vec![play(|peer, stream| {
            Box::pin(async move {
                // Together with the parts of an answer, one write.
                let mut frames = head(stream);
                for number in 0..50_u64 {
                    frames.extend(settings_frame(&[(setting::INITIAL_WINDOW_SIZE, 65_535 + u32::try_from(number).unwrap())]));
                    frames.extend(settings_frame(&[]));
                    frames.extend(frame(kind::PING, 0, 0, &number.to_be_bytes()));
                }
                peer.burst(&frames).await;
                let mut pings = 0..50_u64;
                while !peer.pending.is_empty() || !pings.is_empty() {
                    let frame = peer.next().await.expect("acknowledgements");
                    if (frame.kind, frame.flags & ACK) == (kind::PING, ACK) {
                        assert_eq!(frame.payload, pings.next().unwrap().to_be_bytes());
                    }
                }
                peer.end(stream).await;
            })
        })],
    );
    let mut wire = stage.wire().await;
    for _ in 0..3 {
        all_ok(begin(&mut wire, "R0", 1).await).await;
    }
    assert_eq!(stage.opened(), 1);
}

#[tokio::test]
async fn heads_are_written_for_a_table_as_large_as_the_upstream_says() {
    let table = |size: u32| (setting::HEADER_TABLE_SIZE, size);
    // At first, and what it is changed to with each of the calls that follow. The service's decoder holds Doorward to it.
    let sizes: [&'static [u32]; 6] = [&[0], &[0, 4096, 0], &[4096, 0, 4096], &[100, 50, 200], &[65_536, 0, 1 << 20], &[4096, 4096]];
    for sizes in sizes {
        let stage = Stage::new(
            &[table(sizes[0])],
            sizes[1..]
                .iter()
                .map(|size| {
                    play(move |peer, stream| {
                        Box::pin(async move {
                            peer.settle(&[(setting::HEADER_TABLE_SIZE, *size)]).await;
                            peer.burst(&ok(stream)).await;
                        })
                    })
                })
                .collect(),
        );
        let mut wire = stage.wire().await;
        let changes = (0..sizes.len() - 1).map(|number| format!("R{number}"));
        let methods = changes.flat_map(|change| [change, "Behind".to_owned(), "Behind".to_owned()]);
        for method in ["Before".to_owned(), "Before".to_owned()].into_iter().chain(methods) {
            let call = request(&format!("/demo.v1.Echo/{method}"), &[("x-same", "the same each time"), ("x-bin", "AAEC")]);
            assert_eq!(wire.call(call).await.refusal(), owned(OK), "{sizes:?}, {method}");
        }
        assert_eq!(stage.opened(), 1, "{sizes:?}");
    }
}

#[tokio::test]
async fn a_table_that_shrinks_and_grows_between_two_heads_is_emptied() {
    let stage = Stage::new(
        &[],
        vec![play(|peer, stream| {
            Box::pin(async move {
                let table = |size: u32| settings_frame(&[(setting::HEADER_TABLE_SIZE, size)]);
                peer.burst(&[table(0), table(4096)].concat()).await;
                while !peer.pending.is_empty() {
                    peer.next().await.expect("acknowledgements");
                }
                peer.burst(&ok(stream)).await;
            })
        })],
    );
    let mut wire = stage.wire().await;
    for _ in 0..4 {
        for method in ["Before", "R0", "Behind"] {
            let call = request(&format!("/demo.v1.Echo/{method}"), &[("x-same", "the same each time")]);
            assert_eq!(wire.call(call).await.refusal(), owned(OK), "{method}");
        }
    }
    assert_eq!(stage.opened(), 1);
}
