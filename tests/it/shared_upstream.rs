//! Connections to the upstream carry the calls of many clients: what one call does to its slot, its window or its stream
//! is never felt by another.

use crate::harness::frames::{END_HEADERS, END_STREAM, block, frame, grpc_fields, indexed_block, kind, references};
use crate::harness::raw_upstream::{RawCall, response};
use crate::harness::token::bearer;
use crate::harness::wire::message;
use crate::harness::*;
use crate::revocations::revoking;
use bytes::Bytes;
use h2::Reason;
use h2::server::Builder;
use http::{HeaderMap, HeaderValue};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// One worker: all calls share its connections.
const OPEN: &str = "workers: 1\nauthentication: { mode: disabled }\n";

/// Doorward opens no more connections than this for the sake of stream slots.
const MOST_CONNECTIONS: usize = 8;

/// What Doorward takes in for one call whose client does not read, in bytes.
const STREAM_WINDOW: usize = ::doorward::http2::UPSTREAM_STREAM_WINDOW as usize;

const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn one_stream_a_connection() -> Builder {
    let mut settings = Builder::new();
    settings.max_concurrent_streams(1);
    settings
}

/// Answers without end; `sent` counts the bytes that had room in the windows.
async fn endless(mut call: RawCall, sent: &AtomicUsize) {
    let Ok(mut stream) = call.respond.send_response(response(), false) else { return };
    loop {
        stream.reserve_capacity(16_384);
        match std::future::poll_fn(|context| stream.poll_capacity(context)).await {
            Some(Ok(granted)) => {
                sent.fetch_add(granted, Ordering::Relaxed);
                drop(stream.send_data(Bytes::from(vec![0; granted]), false));
            }
            _ => return,
        }
    }
}

#[tokio::test]
async fn a_waiting_call_gets_whichever_slot_is_free_first() {
    let gates: Arc<Vec<Semaphore>> = Arc::new((0..=MOST_CONNECTIONS).map(|_| Semaphore::new(0)).collect());
    let (at, next) = (gates.clone(), AtomicUsize::new(0));
    let upstream = RawUpstream::start_at(ANYWHERE, one_stream_a_connection(), move |call| {
        let (gates, number) = (at.clone(), next.fetch_add(1, Ordering::Relaxed));
        async move {
            let _passed = gates[number].acquire().await;
            call.answer("0").await;
        }
    });
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let mut frames = Frames::open(&doorward).await;
    for number in 0..=MOST_CONNECTIONS {
        let stream = 1 + 2 * u32::try_from(number).unwrap();
        frames.request(stream, &grpc_fields("/demo.v1.Echo/Unary", &[])).await;
        upstream.reached((number + 1).min(MOST_CONNECTIONS)).await;
    }
    eventually("the ninth call", || (doorward.metric("doorward_streams", &[]) == 9.0).then_some(()));
    assert_eq!(upstream.seen().len(), MOST_CONNECTIONS, "there is a slot for each connection");
    // The oldest goes on, on the connection that a queue of its own would be bound to.
    gates.iter().skip(1).for_each(|gate| gate.add_permits(1));
    upstream.reached(MOST_CONNECTIONS + 1).await;
}

#[tokio::test]
async fn a_call_that_ended_while_it_waited_for_a_slot_is_never_sent() {
    let gate = Arc::new(Semaphore::new(0));
    let held_until = gate.clone();
    let upstream = RawUpstream::start_at(ANYWHERE, one_stream_a_connection(), move |call| {
        let gate = held_until.clone();
        async move {
            if call.path.ends_with("Held") {
                let _passed = gate.acquire().await;
            }
            call.answer("0").await;
        }
    });
    let doorward = Site::new().start(&configuration(&upstream.url(), &format!("{OPEN}limits: {{ streams: 1000 }}\n")));
    let mut wire = Wire::connect(&doorward).await;
    #[allow(clippy::async_yields_async)] // the answers are waited for later
    let open = async |wire: &mut Wire, method: &str, fields: &[(&str, &str)]| {
        let (answer, mut stream) = wire.open(request(&format!("/demo.v1.Echo/{method}"), fields)).await.unwrap();
        let _ = stream.send_data(message(b""), true);
        tokio::spawn(answer)
    };
    let mut held = Vec::new();
    for number in 1..=MOST_CONNECTIONS {
        held.push(open(&mut wire, "Held", &[]).await);
        upstream.reached(number).await;
    }
    let mut waiting = Vec::new();
    for _ in 0..400 {
        waiting.push(open(&mut wire, "Waiting", &[("grpc-timeout", "300m")]).await);
    }
    for answer in waiting {
        assert_eq!(answer.await.unwrap().refusal(), (4, "DEADLINE".to_owned()));
    }
    gate.add_permits(MOST_CONNECTIONS);
    for answer in held {
        assert_eq!(answer.await.unwrap().refusal(), (0, String::new()));
    }
    // Whatever was queued on a connection would go before these.
    for _ in 0..2 * MOST_CONNECTIONS {
        assert_eq!(wire.call(request("/demo.v1.Echo/Unary", &[])).await.refusal(), (0, String::new()));
    }
    let waited = upstream.seen().iter().filter(|seen| seen.path.ends_with("Waiting")).count();
    assert_eq!(waited, 0, "calls answered long ago reached the service");
}

/// Carries two connections (the health check's and the calls') to `upstream`; any other is taken and nothing is said on it.
async fn two_connections_then_silence(upstream: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(ANYWHERE).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for _ in 0..2 {
            let (mut near, _) = listener.accept().await.unwrap();
            near.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(upstream).await.unwrap();
                far.set_nodelay(true).unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
        let mut silent = Vec::new();
        while let Ok(connection) = listener.accept().await {
            silent.push(connection);
        }
    });
    address
}

#[tokio::test]
async fn a_connection_that_does_not_come_up_holds_up_no_call_that_could_have_a_slot() {
    let upstream = RawUpstream::start_at(ANYWHERE, one_stream_a_connection(), |call| async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        call.answer("0").await;
    });
    let front = two_connections_then_silence(upstream.address).await;
    let yaml = configuration("", &format!("{OPEN}upstream: {{ address: \"http://{front}\", connect_timeout: 30s }}\n"));
    // The front needs this thread until Doorward is ready.
    let doorward = tokio::task::spawn_blocking(move || Site::new().start(&yaml)).await.unwrap();
    let mut wire = Wire::connect(&doorward).await;
    assert_eq!(wire.call(request("/demo.v1.Echo/Unary", &[])).await.refusal(), (0, String::new()));
    let started = Stopwatch::start();
    let mut answers = Vec::new();
    for _ in 0..10 {
        let (answer, mut stream) = wire.open(request("/demo.v1.Echo/Unary", &[])).await.unwrap();
        stream.send_data(message(b""), true).unwrap();
        answers.push(tokio::spawn(answer));
    }
    for answer in answers {
        assert_eq!(answer.await.unwrap().refusal(), (0, String::new()));
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}: they waited for the attempt", started.elapsed());
}

/// Settings of a service that does not take calls for an attack which this machine, when it is busy, lets it see only once they
/// are reset; what is due to one with the usual settings is [`what_is_given_up_is_reset_only_when_the_upstream_can_have_accepted_it`].
fn lenient() -> Builder {
    let mut settings = Builder::new();
    settings.max_pending_accept_reset_streams(10_000);
    settings
}

/// A service whose `Endless` answers without end, whose `Unread` reads nothing, and which answers all else.
fn stalling(settings: Builder) -> (RawUpstream, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let upstream = RawUpstream::start_at(ANYWHERE, settings, move |mut call| {
        let sent = counted.clone();
        async move {
            match call.path.rsplit('/').next() {
                Some("Endless") => endless(call, &sent).await,
                Some("Unread") => drop(std::future::poll_fn(|context| call.respond.poll_reset(context)).await),
                _ => call.answer("0").await,
            }
        }
    });
    (upstream, sent)
}

/// Calls of others: each has a message, an answer, and little time.
async fn serves(wire: &mut Wire, what: &str) {
    for number in 0..20 {
        let started = Stopwatch::start();
        let answer = wire.call(request("/demo.v1.Echo/Unary", &[("grpc-timeout", "20S")])).await;
        assert_eq!(answer.refusal(), (0, String::new()), "call {number} {what}");
        assert!(started.elapsed() < Duration::from_secs(5), "call {number} {what}: {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_nobody_else() {
    /// More than go on the connection that others share.
    const DOWNLOADS: usize = 70;
    const SHARED: usize = 32;
    let (upstream, sent) = stalling(Builder::new());
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let mut other = Wire::connect(&doorward).await;
    let (begun_before, mut request_of_it) = other.open(request("/demo.v1.Echo/Unary", &[])).await.unwrap();
    upstream.reached(1).await;
    let mut hostile = Frames::open(&doorward).await;
    for stream in (1..).step_by(2).take(DOWNLOADS) {
        hostile.request(stream, &grpc_fields("/demo.v1.Echo/Endless", &[])).await;
    }
    serves(&mut other, "while the windows fill").await;
    eventually("full windows", || (sent.load(Ordering::Relaxed) >= SHARED * STREAM_WINDOW).then_some(()));
    serves(&mut other, "with all windows full").await;
    serves(&mut Wire::connect(&doorward).await, "of a third").await;
    request_of_it.send_data(message(b""), true).unwrap();
    assert_eq!(begun_before.await.refusal(), (0, String::new()), "on that connection before anybody stalled");
}

#[tokio::test]
async fn sixteen_stalled_downloads_beyond_its_share_do_not_slow_the_same_client() {
    const DOWNLOADS: usize = 32 + 16;
    let (upstream, sent) = stalling(Builder::new());
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let mut windows = h2::client::Builder::new();
    windows.initial_window_size(16_384).initial_connection_window_size(4 << 20);
    let mut wire = Wire::connect_with(&doorward, &windows).await;
    let mut stalled = Vec::new();
    for _ in 0..DOWNLOADS {
        let mut ready = wire.send.clone().ready().await.unwrap();
        let (answer, stream) = ready.send_request(request("/demo.v1.Echo/Endless", &[]), false).unwrap();
        stalled.push((answer.await.unwrap().into_body(), stream));
    }
    eventually("full windows", || (sent.load(Ordering::Relaxed) >= DOWNLOADS * STREAM_WINDOW).then_some(()));
    serves(&mut wire, "on its own connection").await;
    serves(&mut Wire::connect(&doorward).await, "of another").await;
}

#[tokio::test]
async fn sixteen_stalled_uploads_slow_nobody() {
    let mut settings = Builder::new();
    settings.initial_window_size(65_536).initial_connection_window_size(17 * 65_536);
    let (upstream, _) = stalling(settings);
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let mut wire = Wire::connect(&doorward).await;
    let mut stalled = Vec::new();
    for _ in 0..16 {
        let (answer, mut stream) = wire.open(request("/demo.v1.Echo/Unread", &[])).await.unwrap();
        // More than the window of a stream: the rest waits at the client.
        stream.send_data(vec![0; 1 << 20].into(), false).unwrap();
        stalled.push((answer, stream));
    }
    upstream.reached(16).await;
    serves(&mut wire, "on the same connection").await;
    serves(&mut Wire::connect(&doorward).await, "of another").await;
    let large = wire.call_with(request("/demo.v1.Echo/Unary", &[]), message(&vec![0; 1_000_000]), None).await;
    assert_eq!(large.refusal(), (0, String::new()), "there is room for a large one too");
}

#[tokio::test]
async fn thousands_of_cancelled_downloads_never_end_the_connection_of_others() {
    let (upstream, _) = stalling(lenient());
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let mut other = Wire::connect(&doorward).await;
    let mut ready = other.send.clone().ready().await.unwrap();
    let (held, _request) = ready.send_request(request("/demo.v1.Echo/Unread", &[]), false).unwrap();
    let held = tokio::spawn(held);
    upstream.reached(1).await;
    let mut wire = Wire::connect(&doorward).await;
    for _ in 0..20 {
        let mut answers = Vec::new();
        for _ in 0..100 {
            // Doorward cancels them at their deadline, with data on its way.
            let (answer, _) = wire.open(request("/demo.v1.Echo/Endless", &[("grpc-timeout", "20m")])).await.unwrap();
            answers.push(tokio::spawn(answer));
        }
        for answer in answers {
            assert_eq!(answer.await.unwrap().refusal().0, 4);
        }
    }
    assert!(!held.is_finished(), "another client's call ended");
    assert!(!doorward.stderr().contains("an upstream connection ended"), "{}", doorward.stderr());
    serves(&mut wire, "on the same connection").await;
    serves(&mut other, "of another").await;
}

/// A service saw the end of a call.
#[derive(Debug)]
struct Ended {
    came: Instant,
    at: Instant,
    /// Of its reset; `None` when its connection ended.
    code: Option<u32>,
}

/// A service that answers nothing, and tells how each of its calls ended, one at a time.
fn never_answering() -> (FrameUpstream, UnboundedReceiver<Ended>) {
    let (tell, ends) = unbounded_channel();
    let upstream = FrameUpstream::start(move |mut connection, _| {
        let tell = tell.clone();
        async move {
            connection.settings(&[]).await;
            while let Some(stream) = connection.accept().await {
                let came = Instant::now();
                let code = loop {
                    match connection.read().await {
                        Some(frame) if (frame.kind, frame.stream) == (kind::RST_STREAM, stream) => break Some(frame.number(0)),
                        Some(_) => {}
                        None => break None,
                    }
                };
                let _ = tell.send(Ended { came, at: Instant::now(), code });
            }
        }
    });
    (upstream, ends)
}

/// Less than Doorward gives an upstream to accept a call before it is reset, as busy machines are not exact.
const LONG_ENOUGH: Duration = Duration::from_millis(20);

/// HTTP/2 servers end a connection on which some calls were reset before they could accept them (h2's at twenty).
#[tokio::test]
async fn what_is_given_up_is_reset_only_when_the_upstream_can_have_accepted_it() {
    let (upstream, mut resets) = never_answering();
    let doorward = Site::new().start(&upstream.configuration(""));
    let mut frames = Frames::open(&doorward).await;
    let mut stream = 1;
    for (what, deadline) in [("a client that resets it at once", None), ("a deadline of milliseconds", Some(("grpc-timeout", "3m")))] {
        // A service that has to wait for its turn sees both together, and a deadline may pass before the call is forwarded.
        let (mut longest, mut attempts) = (Duration::ZERO, 0);
        while longest < LONG_ENOUGH {
            attempts += 1;
            assert!(attempts <= 50, "{what}: never later than {longest:?} after its request");
            frames.request(stream, &grpc_fields("/demo.v1.Echo/Unary", deadline.as_slice())).await;
            if deadline.is_some() {
                frames.on_stream(stream).await.expect("its status");
            } else {
                assert!(frames.is_alive().await, "which means that the request has come");
                frames.send(kind::RST_STREAM, 0, stream, &u32::from(Reason::CANCEL).to_be_bytes()).await;
            }
            if let Ok(Some(Ended { came, at, code })) = tokio::time::timeout(Duration::from_millis(500), resets.recv()).await {
                assert_eq!(code, Some(u32::from(Reason::CANCEL)), "{what}");
                longest = longest.max(at - came);
            }
            stream += 2;
        }
    }
}

#[tokio::test]
async fn what_doorward_itself_ends_is_given_up_in_the_same_way() {
    let (upstream, mut ends) = never_answering();
    let upstream_of_one = format!("upstream: {{ address: \"http://{}\", health_service: none }}\n", upstream.address);
    let yaml = revoking("", "{ on_expiry: end }").replacen("upstream: { address: \"\" }\n", &upstream_of_one, 1);
    let yaml = format!("{yaml}workers: 1\nlimits: {{ drain_delay: 0s, drain: 1s }}\n");
    let mut latest = [Duration::ZERO; 3];
    // The client may hear of the end late on a busy machine, which leaves less of the time.
    let long_enough = LONG_ENOUGH / 2;
    for _ in 0..10 {
        let site = Site::new();
        site.write("revocations.yaml", "revoked: []\n");
        let doorward = site.start(&yaml);
        let mut frames = Frames::open(&doorward).await;
        for (which, end) in ["revocation", "expiry", "drain"].into_iter().enumerate() {
            let stream = 1 + 2 * u32::try_from(which).unwrap();
            let claims = if end == "expiry" { json!({ "exp": now() + 2 }) } else { json!({ "jti": end }) };
            frames.request(stream, &grpc_fields("/demo.v1.Echo/Unary", &[("authorization", &bearer(claims))])).await;
            match end {
                "revocation" => drop(site.write("revocations.yaml", "revoked: [{ jti: revocation, issuer: https://issuer.test/ }]\n")),
                "expiry" => {}
                _ => {
                    assert!(frames.is_alive().await, "which means that the request has come");
                    doorward.signal("TERM");
                }
            }
            let status = frames.on_stream(stream).await.expect("its status");
            let answered = Instant::now();
            assert_eq!((status.kind, status.flags & END_STREAM), (kind::HEADERS, END_STREAM), "{end}");
            // One that was revoked or had expired before it could be forwarded has nothing to be given up.
            if let Ok(Some(ended)) = tokio::time::timeout(Duration::from_millis(500), ends.recv()).await {
                // At its end a drain ends the connection with the last call on it, which is no reset.
                assert!(ended.code == Some(u32::from(Reason::CANCEL)) || (end == "drain" && ended.code.is_none()), "{end}: {ended:?}");
                let reset = ended.code.map_or(long_enough, |_| ended.at.saturating_duration_since(answered));
                latest[which] = latest[which].max(reset);
            }
        }
        if latest.iter().all(|latest| *latest >= long_enough) {
            return;
        }
    }
    panic!("never later than {latest:?} after their end");
}

#[tokio::test]
async fn refused_uploads_whose_data_keeps_coming_never_end_a_connection() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&standard(&upstream.url()));
    let mut frames = Frames::open(&doorward).await;
    let path = "/demo.v1.Echo/Unary";
    for stream in (1..).step_by(2).take(100) {
        frames.send(kind::HEADERS, END_HEADERS, stream, &block(&grpc_fields(path, &[]))).await;
        assert_eq!(frames.on_stream(stream).await.unwrap().kind, kind::HEADERS, "the refusal");
        // In all more than the connection's window, in pieces small enough to be suspicious.
        for _ in 0..128 {
            frames.send(kind::DATA, 0, stream, &[0; 256]).await;
        }
    }
    let authorization = bearer(json!({}));
    let head = block(&grpc_fields(path, &[("authorization", &authorization)]));
    frames.send(kind::HEADERS, END_HEADERS, 1001, &head).await;
    frames.send(kind::DATA, END_STREAM, 1001, &message(b"x")).await;
    assert_eq!(frames.on_stream(1001).await.expect("the connection lives").kind, kind::HEADERS);
    assert!(frames.is_alive().await);
    assert_eq!(upstream.seen().len(), 1, "the refused ones got nowhere");
}

#[tokio::test]
async fn the_windows_of_cancelled_calls_come_back_on_both_sides() {
    const EACH: usize = 14;
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let mut settings = Builder::new();
    settings.initial_window_size(65_536).initial_connection_window_size(4 << 20);
    let upstream = RawUpstream::start_at(ANYWHERE, settings, move |mut call| {
        let sent = counted.clone();
        async move {
            match call.path.rsplit('/').next() {
                Some("Endless") => endless(call, &sent).await,
                Some("Unread") => drop(std::future::poll_fn(|context| call.respond.poll_reset(context)).await),
                _ => call.answer("0").await,
            }
        }
    });
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let mut windows = h2::client::Builder::new();
    windows.initial_window_size(16_384).initial_connection_window_size(1 << 20);
    let mut wire = Wire::connect_with(&doorward, &windows).await;
    // Six rounds move more than any connection's window holds.
    for round in 1..=6 {
        let mut uploads = Vec::new();
        let mut downloads = Vec::new();
        for _ in 0..EACH {
            let (answer, mut stream) = wire.open(request("/demo.v1.Echo/Unread", &[])).await.unwrap();
            stream.send_data(vec![0; 250_000].into(), false).unwrap();
            uploads.push((answer, stream));
            let mut ready = wire.send.clone().ready().await.unwrap();
            let (answer, stream) = ready.send_request(request("/demo.v1.Echo/Endless", &[]), false).unwrap();
            downloads.push((answer.await.unwrap().into_body(), stream));
        }
        let full = round * EACH * STREAM_WINDOW;
        eventually("full windows", || (sent.load(Ordering::Relaxed) >= full).then_some(()));
        assert_eq!(wire.call(request("/demo.v1.Echo/Unary", &[])).await.refusal(), (0, String::new()), "round {round}");
        uploads.iter_mut().for_each(|(_, stream)| stream.send_reset(Reason::CANCEL));
        downloads.iter_mut().for_each(|(_, stream)| stream.send_reset(Reason::CANCEL));
        drop((uploads, downloads));
        let large = wire.call_with(request("/demo.v1.Echo/Unary", &[]), message(&vec![0; 2_000_000]), None).await;
        assert_eq!(large.refusal(), (0, String::new()), "round {round}");
    }
    eventually("the end of all calls", || (doorward.metric("doorward_streams", &[]) == 0.0).then_some(()));
}

/// Heads or trailers of so many bytes in one field, as the method says; small limits make a thousand of them cheap.
const SMALL: &str = "workers: 1\nauthentication: { mode: disabled }\nlimits: { header_bytes: 1KiB }\n";

fn oversized() -> RawUpstream {
    RawUpstream::start(|mut call| async move {
        call.read().await;
        let (part, bytes) = call.path.rsplit('/').next().unwrap().split_at(4);
        if part == "Held" {
            std::future::pending::<()>().await;
        }
        let large = HeaderValue::from_str(&"x".repeat(bytes.parse().unwrap())).unwrap();
        let mut head = response();
        if part == "Head" {
            head.headers_mut().insert("large", large);
            let _ = call.respond.send_response(head, true);
            return;
        }
        let Ok(mut stream) = call.respond.send_response(head, false) else { return };
        let mut trailers = HeaderMap::new();
        trailers.insert("large", large);
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let _ = stream.send_trailers(trailers);
    })
}

#[tokio::test]
async fn answers_reset_for_their_size_never_end_the_connection_of_others() {
    let upstream = oversized();
    let doorward = Site::new().start(&configuration(&upstream.url(), SMALL));
    let mut other = Wire::connect(&doorward).await;
    let (held, _request) = other.open(request("/demo.v1.Big/Held", &[])).await.unwrap();
    let held = tokio::spawn(held);
    upstream.reached(1).await;
    let mut wire = Wire::connect(&doorward).await;
    // The HTTP/2 library gives up a connection on which it has reset 1024 streams, unless told otherwise.
    for number in 0..1100 {
        let answer = wire.call(request("/demo.v1.Big/Head12000", &[])).await;
        assert_eq!(answer.refusal(), (13, "UPSTREAM_HEADERS".to_owned()), "answer {number}: {answer:?}");
    }
    assert!(!held.is_finished(), "another client's call ended: {:?}", held.await.unwrap().refusal());
    assert!(!doorward.stderr().contains("an upstream connection ended"), "{}", doorward.stderr());
}

#[tokio::test]
async fn cut_trailers_are_noticed_however_many_large_answers_came_before() {
    let upstream = oversized();
    let doorward = Site::new().start(&configuration(&upstream.url(), SMALL));
    let mut wire = Wire::connect(&doorward).await;
    for number in 0..1100 {
        let answer = wire.call(request("/demo.v1.Big/Head3000", &[])).await;
        assert_eq!(answer.refusal(), (13, "UPSTREAM_HEADERS".to_owned()), "answer {number}: {answer:?}");
    }
    for bytes in [3000, 12_000] {
        let answer = wire.call(request(&format!("/demo.v1.Big/Tail{bytes}"), &[])).await;
        assert_eq!(answer.refusal(), (13, "UPSTREAM_HEADERS".to_owned()), "{bytes} bytes of trailers: {answer:?}");
    }
}

#[tokio::test]
async fn a_head_takes_its_first_bytes_along_where_window_has_been_seen() {
    let together = Arc::new(AtomicUsize::new(0));
    let counted = together.clone();
    let upstream = FrameUpstream::start(move |mut connection, _| {
        let together = counted.clone();
        async move {
            connection.settings(&[]).await;
            while let Some(stream) = connection.accept().await {
                // What was written with the head has come with it.
                let mut head = [0; 9];
                if connection.io.try_read(&mut head).is_ok() && head[3] == kind::DATA {
                    together.fetch_add(1, Ordering::Relaxed);
                    connection.io.read_exact(&mut vec![0; usize::from(head[2])]).await.unwrap();
                } else {
                    connection.read().await;
                }
                connection.ok(stream).await;
            }
        }
    });
    let doorward = Site::new().start(&upstream.configuration(""));
    let mut frames = Frames::open(&doorward).await;
    for calls in 0..10 {
        let stream = 1 + 2 * u32::try_from(calls).unwrap();
        // What goes out together has come together.
        let head = frame(kind::HEADERS, END_HEADERS, stream, &block(&grpc_fields("/demo.v1.Echo/Unary", &[])));
        frames.burst(&[head, frame(kind::DATA, END_STREAM, stream, &message(b"x"))].concat()).await;
        let answer = frames.on_stream(stream).await.unwrap();
        assert_eq!((answer.kind, answer.flags & END_STREAM), (kind::HEADERS, END_STREAM), "{answer:?}");
        // Of the first nobody knows yet: its bytes come after it, and may or may not be there already.
        if calls == 0 {
            together.store(0, Ordering::Relaxed);
        }
        assert_eq!(together.load(Ordering::Relaxed), calls);
    }
}

#[tokio::test]
async fn a_crowd_that_comes_at_once_is_served_whole() {
    let upstream = RawUpstream::start(|call: RawCall| call.answer("0"));
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let mut wire = Wire::connect(&doorward).await;
    let names: Vec<String> = (0..25).map(|number| format!("x-metadata-{number}")).collect();
    let metadata: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "some value")).collect();
    // The first crowd has the connections made. The heads of the second are more than may wait for a socket that takes nothing;
    // this one only has to be written to.
    for metadata in [&[][..], &metadata[..]] {
        let mut answers = Vec::new();
        for _ in 0..900 {
            answers.push(wire.open(request("/demo.v1.Echo/Unary", metadata)).await.unwrap());
        }
        for (answer, mut stream) in answers {
            let _ = stream.send_data(Bytes::new(), true); // the service may have answered already
            assert_eq!(answer.await.refusal(), (0, String::new()));
        }
    }
}

#[tokio::test]
async fn a_crowd_of_large_heads_in_one_breath_is_served_whole() {
    const CROWD: usize = 900;
    let upstream = RawUpstream::start(|call: RawCall| call.answer("0"));
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let mut frames = Frames::open(&doorward).await;
    let (value, names) = ("x".repeat(100), (0..25).map(|number| format!("x-{number:03}")).collect::<Vec<_>>());
    let metadata: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
    let fields = grpc_fields("/demo.v1.Echo/Unary", &metadata);
    // What a byte refers to has been said before; together they are more than may wait for a slot, or a socket that takes nothing.
    let small = references((0..fields.len()).rev().take(fields.len() - names.len()));
    let large = [&small[..], &references((0..75).map(|number| number % names.len()))].concat();
    let mut streams = (1..).step_by(2);
    frames.send(kind::HEADERS, END_HEADERS | END_STREAM, streams.next().unwrap(), &indexed_block(&fields)).await;
    // The first crowd has the connections made.
    for head in [small, large] {
        let crowd: Vec<u8> =
            streams.by_ref().take(CROWD).flat_map(|stream| frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &head)).collect();
        frames.burst(&crowd).await;
        let mut ended = 0;
        while ended < CROWD {
            let frame = frames.next().await.expect("the connection lives");
            ended += usize::from(frame.kind == kind::HEADERS && frame.flags & END_STREAM != 0);
        }
    }
    eventually("the last of them", || (doorward.metric("doorward_streams", &[]) == 0.0).then_some(()));
    let served = doorward.metric("grpc_server_handled_total", &["grpc_code=\"OK\""]);
    let all = doorward.metric("grpc_server_handled_total", &[]);
    assert_eq!((served, all), (2.0 * CROWD as f64 + 1.0, 2.0 * CROWD as f64 + 1.0));
}
