//! An upstream that freezes is noticed within 20 seconds while calls wait; one that is only quiet is left alone.

use crate::harness::frames::ACK;
use crate::harness::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const NOTICED: Duration = Duration::from_secs(20);

/// A call whose answer is waited for without a bound, and how long it took.
async fn patient(wire: &mut Wire) -> (WireAnswer, Duration) {
    let started = Stopwatch::start();
    let mut ready = wire.send.clone().ready().await.unwrap();
    let (response, mut stream) = ready.send_request(request("/demo.v1.Echo/Unary", &[]), false).unwrap();
    stream.send_data(wire::message(b""), true).unwrap();
    (WireAnswer::read(response).await, started.elapsed())
}

#[tokio::test]
async fn a_frozen_upstream_is_noticed_and_used_again_as_soon_as_it_thaws() {
    let upstream = PythonUpstream::start();
    let doorward = Site::new().start(&configuration(&upstream.url(), "workers: 1\nauthentication: { mode: disabled }\n"));
    let mut wire = Wire::connect(&doorward).await;
    assert_eq!(wire.call(request("/demo.v1.Echo/Unary", &[])).await.grpc_status(), Some(0));
    upstream.freeze();
    let (answer, took) = patient(&mut wire).await;
    assert_eq!(answer.refusal(), (14, "UPSTREAM_UNAVAILABLE".to_owned()), "{answer:?}");
    assert!(took <= NOTICED, "{took:?}");
    assert_eq!(doorward.metric("doorward_upstream_connections_ended_total", &["why=\"silent\""]), 1.0);
    // Still frozen: it takes connections and says nothing.
    let (answer, took) = patient(&mut wire).await;
    assert_eq!(answer.refusal(), (14, "UPSTREAM_UNAVAILABLE".to_owned()), "{answer:?}");
    assert!(took <= Duration::from_secs(5), "{took:?}: connect_timeout is a second");
    upstream.signal("CONT");
    let (thawed, took) = (Instant::now(), Stopwatch::start());
    while wire.call(request("/demo.v1.Echo/Unary", &[])).await.grpc_status() != Some(0) {
        assert!(thawed.elapsed() < PATIENCE, "no recovery");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // An attempt that began while it was frozen may have to run out first.
    assert!(took.elapsed() <= Duration::from_secs(1), "first success after {:?}", thawed.elapsed());
}

#[tokio::test]
async fn a_black_hole_takes_its_own_calls_only_and_a_quiet_stream_none() {
    let pings = Arc::new(AtomicUsize::new(0));
    let counted = pings.clone();
    // The first connection takes a call and is never heard of again, the second is quiet but answers PINGs.
    let upstream = FrameUpstream::start(move |mut connection, number| {
        let pings = counted.clone();
        async move {
            connection.settings(&[]).await;
            match number {
                1 => {
                    connection.accept().await;
                    while connection.read().await.is_some() {}
                }
                2 => {
                    let stream = connection.accept().await.unwrap();
                    connection.begin(stream).await;
                    while let Some(frame) = connection.read().await {
                        if frame.kind == kind::PING && frame.flags & ACK == 0 {
                            pings.fetch_add(1, Ordering::Relaxed);
                            connection.send(kind::PING, ACK, 0, &frame.payload).await;
                        }
                    }
                }
                _ => connection.go_on().await,
            }
        }
    });
    let doorward = Site::new().start(&upstream.configuration(""));
    let mut wire = Wire::connect(&doorward).await;
    let (answer, took) = patient(&mut wire).await;
    assert_eq!(answer.refusal(), (14, "UPSTREAM_UNAVAILABLE".to_owned()), "{answer:?}");
    assert!(took <= NOTICED, "{took:?}");
    let (quiet, _request) = wire.send.clone().ready().await.unwrap().send_request(request("/demo.v1.Echo/Bidi", &[]), false).unwrap();
    let quiet = tokio::spawn(WireAnswer::read(quiet));
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert!(!quiet.is_finished(), "{:?}", quiet.await);
    assert_eq!(pings.load(Ordering::Relaxed), 1, "one after ten seconds");
}
