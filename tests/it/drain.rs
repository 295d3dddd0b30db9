//! SIGTERM: not ready at once, still serving for a while, then two GOAWAYs, calls in flight finish, exit 0.

use crate::harness::*;
use serde_json::json;
use std::net::TcpStream;
use std::time::{Duration, Instant};

fn open(limits: &str) -> String {
    format!("authentication: {{ mode: disabled }}\nlimits: {{ {limits} }}\n")
}

fn port_is_open(doorward: &Doorward) -> bool {
    TcpStream::connect(doorward.traffic).is_ok()
}

#[tokio::test]
async fn sigterm_is_not_ready_at_once_and_serves_everything_during_drain_delay() {
    let upstream = RawUpstream::echo();
    let mut doorward = Site::new().start(&configuration(&upstream.url(), &open("drain_delay: 6s, drain: 5s")));
    let mut old = Wire::connect(&doorward).await;
    assert_eq!(old.call(request("/demo.v1.Echo/Unary", &[])).await.grpc_status(), Some(0));
    let (signalled, at_once) = (Instant::now(), Stopwatch::start());
    doorward.signal("TERM");
    while doorward.get("/readyz").0 != 503 {
        assert!(at_once.elapsed() < Duration::from_millis(1000), "still ready");
    }
    assert_eq!(doorward.get("/livez").0, 200, "alive while draining");
    assert_eq!(old.call(request("/demo.v1.Echo/Unary", &[])).await.grpc_status(), Some(0));
    let mut new = Wire::connect(&doorward).await;
    assert_eq!(new.call(request("/demo.v1.Echo/Unary", &[])).await.grpc_status(), Some(0));
    assert!(signalled.elapsed() < Duration::from_secs(6), "the machine is too slow for this test");
    assert_eq!(doorward.wait_exit(PATIENCE).code(), Some(0));
    assert!(signalled.elapsed() >= Duration::from_millis(5900), "{:?}", signalled.elapsed());
}

#[tokio::test]
async fn after_the_delay_each_connection_gets_two_goaways_and_the_port_is_closed() {
    let (upstream, release) = RawUpstream::holding();
    let mut doorward = Site::new().start(&configuration(&upstream.url(), &open("drain_delay: 200ms, drain: 10s")));
    let mut frames = Frames::open(&doorward).await;
    frames.request(1, &frames::grpc_fields("/demo.v1.Echo/Unary", &[])).await;
    upstream.nth(1);
    doorward.signal("TERM");
    let first = frames.until(kind::GOAWAY).await.unwrap();
    assert_eq!((first.number(0), first.number(4)), (0x7fff_ffff, 0), "the first promises nothing yet");
    eventually("the port's end", || (!port_is_open(&doorward)).then_some(()));
    release.notify_one();
    // What was on its way when the first GOAWAY left is still served: the second comes after the client had time to see it.
    let (mut last, mut finished) = (None, false);
    while let Some(frame) = frames.next().await {
        match frame.kind {
            kind::GOAWAY => last = Some((frame.number(0), frame.number(4))),
            kind::HEADERS if frame.stream == 1 && frame.flags & frames::END_STREAM != 0 => finished = true,
            kind::PING if frame.flags & frames::ACK == 0 => frames.send(kind::PING, frames::ACK, 0, &frame.payload).await,
            _ => {}
        }
    }
    assert_eq!((last, finished), (Some((1, 0)), true), "the second names the last stream, whose call finishes");
    assert_eq!(doorward.wait_exit(PATIENCE).code(), Some(0));
}

#[test]
fn calls_in_flight_finish_and_what_is_left_gets_draining() {
    let upstream = PythonUpstream::start();
    let mut doorward = Site::new().start(&configuration(&upstream.url(), &open("drain_delay: 0s, drain: 5s")));
    let sleeping = |method: &str, seconds: f64| call(method).with("together", true).behaviour(json!({ "sleep": seconds }));
    let calls = [
        sleeping("/demo.v1.Echo/Unary", 1.0),
        sleeping("/demo.v1.Echo/Bidi", 1.0),
        sleeping("/demo.v1.Echo/UnaryLong", 30.0),
        sleeping("/demo.v1.Echo/BidiLong", 30.0),
    ];
    let answers = std::thread::scope(|scope| {
        let client = scope.spawn(|| doorward.calls(&calls));
        eventually("all calls at the service", || (upstream.calls().len() == 4).then_some(()));
        doorward.signal("TERM");
        client.join().unwrap()
    });
    let refusals: Vec<(u64, &str)> = answers.iter().map(Answer::refusal).collect();
    assert_eq!(refusals, [(0, ""), (0, ""), (14, "DRAINING"), (14, "DRAINING")]);
    assert_eq!(doorward.wait_exit(PATIENCE).code(), Some(0));
    let seconds = upstream.ended("/demo.v1.Echo/UnaryLong")["seconds"].as_f64().unwrap();
    assert!(seconds < 13.0, "the service was told: {seconds} s");
}

#[tokio::test]
async fn a_service_that_ends_first_holds_nothing_up() {
    let mut upstream = RawUpstream::start(|call| async move {
        match call.path.as_str() {
            "/demo.v1.Echo/Long" => std::future::pending().await,
            _ => call.answer("0").await,
        }
    });
    let mut doorward = Site::new().start(&configuration(&upstream.url(), &open("drain_delay: 8s, drain: 1h")));
    let mut wire = Wire::connect(&doorward).await;
    let (long, _stream) = wire.open(request("/demo.v1.Echo/Long", &[])).await.unwrap();
    upstream.reached(1).await;
    let signalled = Instant::now();
    doorward.signal("TERM");
    eventually("not ready", || (doorward.get("/readyz").0 == 503).then_some(()));
    assert_eq!(wire.call(request("/demo.v1.Echo/Unary", &[])).await.grpc_status(), Some(0));
    upstream.stop();
    let unavailable = (14, "UPSTREAM_UNAVAILABLE".to_owned());
    assert_eq!(long.await.refusal(), unavailable, "in flight");
    let asked = Stopwatch::start();
    assert_eq!(wire.call(request("/demo.v1.Echo/Unary", &[])).await.refusal(), unavailable, "new");
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!(doorward.get("/livez").0, 200, "an upstream that is gone is no reason to be restarted");
    assert!(signalled.elapsed() < Duration::from_secs(8), "the machine is too slow for this test");
    // The client takes its leave meanwhile.
    while doorward.is_running() && signalled.elapsed() < PATIENCE {
        assert!(matches!(doorward.get("/livez").0, 0 | 200), "alive to its end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(doorward.wait_exit(PATIENCE).code(), Some(0));
}

#[test]
fn an_idle_proxy_ends_as_soon_as_nothing_is_left() {
    let upstream = RawUpstream::echo();
    let mut doorward = Site::new().start(&configuration(&upstream.url(), &open("drain_delay: 0s, drain: 1m")));
    doorward.signal("TERM");
    assert_eq!(doorward.wait_exit(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn sigint_skips_the_delay() {
    let upstream = RawUpstream::echo();
    let mut doorward = Site::new().start(&configuration(&upstream.url(), &open("drain_delay: 1h, drain: 1m")));
    doorward.signal("INT");
    assert_eq!(doorward.wait_exit(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let upstream = RawUpstream::echo();
    let mut doorward = Site::new().start(&configuration(&upstream.url(), &open("drain_delay: 1h, drain: 1h")));
    doorward.signal("TERM");
    eventually("not ready", || (doorward.get("/readyz").0 == 503).then_some(()));
    assert!(doorward.is_running());
    doorward.signal("TERM");
    doorward.wait_exit(Duration::from_secs(5));
}

#[test]
fn post_drain_begins_it_too() {
    let upstream = RawUpstream::echo();
    let mut doorward = Site::new().start(&configuration(&upstream.url(), &open("drain_delay: 300ms, drain: 1s")));
    assert_eq!(doorward.get("/drain").0, 405);
    assert!((200..300).contains(&doorward.ask("POST", "/drain").0));
    eventually("not ready", || (doorward.get("/readyz").0 == 503).then_some(()));
    // It drains; the process ends only with its signal or, as `run` does, when the drain is over.
    eventually("the port's end", || (!port_is_open(&doorward)).then_some(()));
    let _ = doorward.is_running();
}
