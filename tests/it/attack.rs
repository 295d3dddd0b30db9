//! attack
use crate::harness::raw_upstream::response;
use crate::harness::frames::*;
use crate::harness::*;
use crate::harness::wire::message;
use bytes::Bytes;
use h2::server::Builder;
use http::{HeaderMap, HeaderValue};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;

const OPEN: &str = "workers: 1\nauthentication: { mode: disabled }\n";

#[tokio::test]
async fn a1_grpc_message_with_a_final_space() {
    let up = RawUpstream::start(|mut call| async move {
        call.read().await;
        let mut stream = call.respond.send_response(response(), false).unwrap();
        let mut t = HeaderMap::new();
        t.insert("grpc-status", HeaderValue::from_static("5"));
        t.insert("grpc-message", HeaderValue::from_static("not found: "));
        let _ = stream.send_trailers(t);
    });
    let d = Site::new().start(&configuration(&up.url(), OPEN));
    let mut w = Wire::connect(&d).await;
    let a = w.call(request("/demo.v1.Echo/Unary", &[])).await;
    println!("{a:?} {:?}", a.refusal());
    assert_eq!(a.grpc_status(), Some(5));
}

#[tokio::test]
async fn a2_a_waiting_call_gets_whichever_slot_is_free() {
    let gate: Arc<std::sync::Mutex<Vec<Arc<Notify>>>> = Arc::default();
    let g = gate.clone();
    let mut b = Builder::new();
    b.max_concurrent_streams(1);
    let up = RawUpstream::start_at("127.0.0.1:0".parse().unwrap(), b, move |call| {
        let g = g.clone();
        async move {
            let n = Arc::new(Notify::new());
            g.lock().unwrap().push(n.clone());
            n.notified().await;
            call.answer("0").await;
        }
    });
    let d = Site::new().start(&configuration(&up.url(), OPEN));
    let mut w = Wire::connect(&d).await;
    let mut held = Vec::new();
    for i in 0..8 {
        let (a, mut s) = w.open(request("/demo.v1.Echo/Unary", &[])).await.unwrap();
        s.send_data(message(b""), true).unwrap();
        held.push(tokio::spawn(a));
        up.reached(i + 1).await;
    }
    let (a9, mut s) = w.open(request("/demo.v1.Echo/Ninth", &[])).await.unwrap();
    s.send_data(message(b""), true).unwrap();
    let _ninth = tokio::spawn(a9);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(up.seen().len(), 8);
    // seven of eight end; only the one on the first connection goes on.
    let all: Vec<_> = gate.lock().unwrap().iter().skip(1).cloned().collect();
    all.iter().for_each(|n| n.notify_one());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(up.seen().len(), 9, "the ninth call waits although seven slots are free");
}

#[tokio::test]
async fn a3_handshake_never_finished_by_a_client_that_does_not_read() {
    let up = RawUpstream::echo();
    let d = Site::new().start(&configuration(&up.url(), "workers: 1\nauthentication: { mode: disabled }\nlimits: { handshake: 1s }\nlog: { level: debug }\n"));
    let mut f = Frames::connect(&d).await;
    f.io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let ping = [0u8, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let many = ping.repeat(4000);
    let started = Instant::now();
    let mut sent = 0usize;
    while started.elapsed() < Duration::from_secs(6) {
        match tokio::time::timeout(Duration::from_millis(300), f.io.write(&many[sent % 17..])).await {
            Ok(Ok(n)) => sent += n,
            Ok(Err(e)) => { println!("write error {e} after {:?}", started.elapsed()); break }
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
    let open = d.metric("doorward_connections", &[]); println!("{}", d.stderr());
    println!("sent {sent} in {:?}, open {open}, handshakes {}", started.elapsed(), d.metric("doorward_limit_hits_total", &["handshake"]));
    assert_eq!(open, 0.0, "still open after {:?}", started.elapsed());
}

#[tokio::test]
async fn a3b_header_block_never_finished_by_a_client_that_does_not_read() {
    let up = RawUpstream::echo();
    let d = Site::new().start(&configuration(&up.url(), "workers: 1\nauthentication: { mode: disabled }\nlimits: { handshake: 1s }\nlog: { level: debug }\n"));
    let mut f = Frames::open(&d).await;
    // Pings first, then a header block that never ends.
    let ping = [0u8, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let many = ping.repeat(4000);
    let started = Instant::now();
    let mut sent = 0usize;
    while started.elapsed() < Duration::from_secs(6) {
        match tokio::time::timeout(Duration::from_millis(300), f.io.write(&many[sent % 17..])).await {
            Ok(Ok(n)) => sent += n,
            Ok(Err(e)) => { println!("write error {e} after {:?}", started.elapsed()); break }
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
    println!("sent {sent}, rss {} KiB, open {} {}", d.stderr(), d.resident_kib(), d.metric("doorward_connections", &[]));
}

#[tokio::test]
async fn a4_trailers_only_then_no_error_while_the_client_streams() {
    let up = RawUpstream::start(|mut call| async move {
        let mut r = response();
        r.headers_mut().insert("grpc-status", HeaderValue::from_static("12"));
        let _ = call.respond.send_response(r, true);
    });
    let d = Site::new().start(&configuration(&up.url(), OPEN));
    let mut w = Wire::connect(&d).await;
    for _ in 0..200 {
        let (a, mut s) = w.open(request("/demo.v1.Echo/Unary", &[])).await.unwrap();
        let _ = s.send_data(Bytes::from(vec![0; 3000]), false);
        let a = a.await;
        assert_eq!((a.grpc_status(), a.is_trailers_only(), a.refusal().1), (Some(12), true, String::new()), "{a:?}");
    }
}

#[tokio::test]
async fn a5_windows_come_back_from_cancelled_stalled_calls() {
    let mut ub = Builder::new();
    ub.initial_window_size(65536).initial_connection_window_size(4 << 20);
    let up = RawUpstream::start_at("127.0.0.1:0".parse().unwrap(), ub, |mut call| async move {
        if call.path.ends_with("Stall") { let _ = std::future::poll_fn(|cx| call.respond.poll_reset(cx)).await; return }
        if call.path.ends_with("Flood") {
            let mut s = call.respond.send_response(response(), false).unwrap();
            loop {
                s.reserve_capacity(16384);
                match std::future::poll_fn(|cx| s.poll_capacity(cx)).await {
                    Some(Ok(n)) => { if s.send_data(vec![1; n].into(), false).is_err() { return } }
                    _ => return,
                }
            }
        }
        call.answer("0").await
    });
    let d = Site::new().start(&configuration(&up.url(), OPEN));
    let mut b = h2::client::Builder::new();
    b.initial_window_size(16384).initial_connection_window_size(1 << 20);
    let mut w = Wire::connect_with(&d, &b).await;
    for _round in 0..6 { println!("round {_round}");
        let mut held = Vec::new();
        for _ in 0..14 {
            let (a, mut s) = w.open(request("/demo.v1.Echo/Stall", &[])).await.unwrap();
            let t = tokio::spawn(a);
            let _ = s.send_data(vec![0; 250_000].into(), false);
            held.push((t, s));
        }
        for _ in 0..14 {
            let mut r = w.send.clone().ready().await.unwrap();
            let (resp, s) = r.send_request(request("/demo.v1.Echo/Flood", &[]), false).unwrap();
            let resp = tokio::time::timeout(Duration::from_secs(5), resp).await.unwrap().unwrap();
            held.push((tokio::spawn(async move { let _b = resp.into_body(); std::future::pending::<WireAnswer>().await }), s));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(w.call(request("/demo.v1.Echo/Unary", &[])).await.refusal().0, 0);
        println!("cancel");
        for (t, mut s) in held { s.send_reset(h2::Reason::CANCEL); t.abort(); }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(w.call_with(request("/demo.v1.Echo/Unary", &[]), message(&vec![0; 2_000_000]), None).await.refusal().0, 0);
    }
    println!("streams {}", d.metric("doorward_streams", &[]));
    assert_eq!(d.metric("doorward_streams", &[]), 0.0);
}

#[tokio::test]
async fn a6_calls_that_ended_while_they_waited_for_a_slot_are_never_sent() {
    let gate = Arc::new(Notify::new());
    let g = gate.clone();
    let mut b = Builder::new();
    b.max_concurrent_streams(1);
    let up = RawUpstream::start_at("127.0.0.1:0".parse().unwrap(), b, move |call| {
        let g = g.clone();
        async move {
            if call.path.ends_with("Held") { g.notified().await; }
            call.answer("0").await;
        }
    });
    let d = Site::new().start(&configuration(&up.url(), "workers: 1\nauthentication: { mode: disabled }\nlimits: { streams: 10000 }\n"));
    let mut w = Wire::connect(&d).await;
    let mut held = Vec::new();
    for i in 0..8 {
        let (a, mut s) = w.open(request("/demo.v1.Echo/Held", &[])).await.unwrap();
        s.send_data(message(b""), true).unwrap();
        held.push(tokio::spawn(a));
        up.reached(i + 1).await;
    }
    let before = d.resident_kib();
    let pad = "x".repeat(15_000);
    for round in 0..5 {
        let mut answers = Vec::new();
        for _ in 0..800 {
            let (a, mut s) = w.open(request("/demo.v1.Echo/Dead", &[("grpc-timeout", "300m"), ("x-pad", &pad)])).await.unwrap();
            let _ = s.send_data(message(b""), true);
            answers.push(tokio::spawn(a));
        }
        let mut codes = std::collections::BTreeMap::new();
        for a in answers { *codes.entry(a.await.unwrap().refusal()).or_insert(0) += 1; }
        println!("round {round}: {codes:?}, streams {}, rss +{} KiB", d.metric("doorward_streams", &[]), d.resident_kib() - before);
    }
    drop(w);
    tokio::time::sleep(Duration::from_millis(500)).await;
    println!("connections {} rss +{} KiB after the client is gone", d.metric("doorward_connections", &[]), d.resident_kib() - before);
    gate.notify_waiters();
    tokio::time::sleep(Duration::from_millis(3000)).await;
    let dead = up.seen().iter().filter(|s| s.path.ends_with("Dead")).count();
    assert_eq!(dead, 0, "calls that were answered long ago reached the upstream");
}

#[tokio::test]
async fn a8_truncated_trailers_are_noticed_also_after_many_large_heads() {
    let up = RawUpstream::start(|mut call| async move {
        call.read().await;
        if call.path.ends_with("Head") {
            let mut r = response();
            r.headers_mut().insert("x-large", HeaderValue::from_str(&"x".repeat(20_000)).unwrap());
            let _ = call.respond.send_response(r, true);
            return;
        }
        let mut stream = call.respond.send_response(response(), false).unwrap();
        let _ = stream.send_data(Bytes::from_static(&[0; 5]), false);
        let mut t = HeaderMap::new();
        t.insert("x-0", HeaderValue::from_str(&"x".repeat(70_000)).unwrap());
        t.insert("grpc-status", HeaderValue::from_static("0"));
        let _ = stream.send_trailers(t);
    });
    let d = Site::new().start(&configuration(&up.url(), OPEN));
    let mut w = Wire::connect(&d).await;
    println!("before {:?}", w.call(request("/demo.v1.Echo/Trailers", &[])).await.refusal());
    for _ in 0..1030 { assert_eq!(w.call(request("/demo.v1.Echo/Head", &[])).await.refusal().1, "UPSTREAM_HEADERS"); }
    let a = w.call(request("/demo.v1.Echo/Trailers", &[])).await;
    println!("after {:?} status {:?} trailers {:?}", a.refusal(), a.grpc_status(), a.trailers.as_ref().map(|t| t.keys().map(|k| k.to_string()).collect::<Vec<_>>()));
    assert_eq!(a.refusal(), (13, "UPSTREAM_HEADERS".to_owned()));
}

#[tokio::test]
async fn a9_forty_thousand_fields() {
    let up = RawUpstream::echo();
    let d = Site::new().start(&configuration(&up.url(), "workers: 1\nauthentication: { mode: disabled }\nlimits: { header_bytes: 1MiB, header_fields: 1000000 }\n"));
    for count in [5_000usize, 24_000, 28_000, 40_000] {
        let mut f = Frames::open(&d).await;
        let names: Vec<String> = (0..count).map(|i| format!("{i:x}")).collect();
        let more: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), "")).collect();
        let b = block(&grpc_fields("/demo.v1.Echo/Unary", &more));
        let mut chunks = b.chunks(16384).collect::<Vec<_>>();
        let last = chunks.pop().unwrap();
        let mut kind_ = kind::HEADERS;
        for c in chunks { f.send(kind_, if kind_ == kind::HEADERS { END_STREAM } else { 0 }, 1, c).await; kind_ = kind::CONTINUATION; }
        f.send(kind_, END_HEADERS, 1, last).await;
        println!("{count}: {:?}", f.on_stream(1).await.map(|f| (f.kind, f.payload.len())));
    }
    println!("{}", d.stderr());
}

#[tokio::test]
async fn a7_a_connection_that_does_not_come_up_does_not_hold_up_calls_that_could_have_a_slot() {
    let mut b = Builder::new();
    b.max_concurrent_streams(1);
    let up = RawUpstream::start_at("127.0.0.1:0".parse().unwrap(), b, |call| async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        call.answer("0").await;
    });
    // In front: takes two connections (health, calls); the others are accepted and nothing is said.
    let front = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = front.local_addr().unwrap();
    let to = up.address;
    tokio::spawn(async move {
        let mut kept = Vec::new();
        let mut n = 0;
        loop {
            let (mut a, _) = front.accept().await.unwrap();
            n += 1;
            if n > 2 { kept.push(a); continue }
            a.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let mut b = tokio::net::TcpStream::connect(to).await.unwrap();
                b.set_nodelay(true).unwrap();
                let _ = tokio::io::copy_bidirectional(&mut a, &mut b).await;
            });
        }
    });
    let site = Site::new();
    let yaml = configuration(&format!("http://{address}"), OPEN);
    let d = tokio::task::spawn_blocking(move || site.start(&yaml)).await.unwrap();
    let mut w = Wire::connect(&d).await;
    assert_eq!(w.call(request("/demo.v1.Echo/Unary", &[])).await.refusal().0, 0);
    let started = Instant::now();
    let mut answers = Vec::new();
    for _ in 0..10 {
        let (a, mut s) = w.open(request("/demo.v1.Echo/Unary", &[])).await.unwrap();
        let _ = s.send_data(message(b""), true);
        answers.push(tokio::spawn(async move { let r = a.await.refusal(); (r, started.elapsed()) }));
    }
    for a in answers { println!("{:?}", a.await.unwrap()); }
    assert!(started.elapsed() < Duration::from_millis(600), "{:?}", started.elapsed());
}

#[tokio::test]
async fn b1_more_fields_than_a_header_map_takes() {
    let up = RawUpstream::echo();
    let yaml = standard(&up.url()) + "limits: { header_bytes: 1MiB, header_fields: 1000000 }\n";
    let d = Site::new().start(&yaml);
    for count in [24_550usize, 24_560, 24_565, 24_566, 24_567, 24_568, 24_569, 24_570] {
        let mut f = Frames::open(&d).await;
        let names: Vec<String> = (0..count).map(|i| format!("{i:x}")).collect();
        let mut more: Vec<(&str, &str)> = vec![("x-api-key", site::API_KEY)];
        more.extend(names.iter().map(|n| (n.as_str(), "")));
        let b = block(&grpc_fields("/demo.v1.Echo/Unary", &more));
        let mut chunks = b.chunks(16384).collect::<Vec<_>>();
        let last = chunks.pop().unwrap();
        let mut kind_ = kind::HEADERS;
        for c in chunks { f.send(kind_, if kind_ == kind::HEADERS { END_STREAM } else { 0 }, 1, c).await; kind_ = kind::CONTINUATION; }
        f.send(kind_, END_HEADERS, 1, last).await;
        println!("fields {count} {:?}", f.on_stream(1).await.map(|f| (f.kind, f.payload.len())));
    }
    println!("panics {}", d.metric("doorward_panics_total", &[]));
}

#[tokio::test]
async fn b2_insecure_audit_in_optional_mode() {
    let up = RawUpstream::echo();
    let yaml = standard(&up.url()).replace("authentication:\n", "authentication:\n  mode: optional\n  insecure_audit: true\n");
    let d = Site::new().start(&yaml);
    let mut w = Wire::connect(&d).await;
    println!("bad token {:?}", w.call(request("/demo.v1.Echo/Unary", &[("authorization", "Bearer x")])).await.refusal());
    println!("none {:?}", w.call(request("/demo.v1.Echo/Unary", &[])).await.refusal());
}

#[tokio::test]
async fn b18_seventeen_stalled_downloads_of_one_client_and_everybody_else() {
    let up = RawUpstream::start(|mut call| async move {
        if call.path.ends_with("Flood") {
            let mut s = call.respond.send_response(response(), false).unwrap();
            loop {
                s.reserve_capacity(16384);
                match std::future::poll_fn(|cx| s.poll_capacity(cx)).await {
                    Some(Ok(n)) => { if s.send_data(vec![1; n].into(), false).is_err() { return } }
                    _ => return,
                }
            }
        }
        call.answer("0").await
    });
    let d = Site::new().start(&configuration(&up.url(), OPEN));
    let mut other = Wire::connect(&d).await;
    let mut hostile = Frames::open(&d).await;
    for i in 0..20u32 { hostile.request(1 + 2 * i, &grpc_fields("/demo.v1.Echo/Flood", &[])).await; }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let started = Instant::now();
    let r = tokio::time::timeout(Duration::from_secs(5), other.call(request("/demo.v1.Echo/Unary", &[]))).await;
    println!("{:?} after {:?}", r.as_ref().map(|r| r.refusal()), started.elapsed());
    assert!(r.is_ok());
}

#[tokio::test]
async fn c1_a_reset_flood_is_counted() {
    let up = RawUpstream::start(|_call| std::future::pending::<()>());
    let d = Site::new().start(&configuration(&up.url(), OPEN));
    let mut frames = Frames::open(&d).await;
    for number in 0..700u32 {
        let stream = 1 + 2 * number;
        frames.request(stream, &grpc_fields("/demo.v1.Echo/Unary", &[])).await;
        frames.send(kind::RST_STREAM, 0, stream, &8u32.to_be_bytes()).await;
        if number % 10 == 0 { tokio::time::sleep(Duration::from_millis(1)).await; }
    }
    println!("{:?}", frames.until(kind::GOAWAY).await);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (_, text) = d.get("/metrics");
    for l in text.lines().filter(|l| l.contains("limit") && !l.starts_with('#')) { println!("{l}"); }
    println!("streams {} conns {}", d.metric("doorward_streams", &[]), d.metric("doorward_connections", &[]));
}

/// A client that sends refused (no credential) requests and resets each after it was accepted.
#[tokio::test]
async fn c2_resets_of_refused_calls() {
    let up = RawUpstream::echo();
    let d = Site::new().start(&standard(&up.url()));
    let mut frames = Frames::open(&d).await;
    let mut ended = None;
    for number in 0..3000u32 {
        let stream = 1 + 2 * number;
        frames.send(kind::HEADERS, END_HEADERS, stream, &block(&grpc_fields("/demo.v1.Echo/Unary", &[]))).await;
        if number % 10 == 9 { tokio::time::sleep(Duration::from_micros(1500)).await; }
        frames.send(kind::RST_STREAM, 0, stream, &8u32.to_be_bytes()).await;
    }
    while let Some(f) = frames.next().await { if f.kind == kind::GOAWAY { ended = Some(f); break } if f.stream == 1 + 2 * 2999 { break } }
    println!("{ended:?}");
}

/// Downloads of which the client takes nothing, cancelled by their deadline: does everything come back?
#[tokio::test]
async fn c3_deadline_while_the_client_takes_nothing() {
    let up = RawUpstream::start(|mut call| async move {
        if call.path.ends_with("Flood") {
            let mut s = call.respond.send_response(response(), false).unwrap();
            loop {
                s.reserve_capacity(16384);
                match std::future::poll_fn(|cx| s.poll_capacity(cx)).await {
                    Some(Ok(n)) => { if s.send_data(vec![1; n].into(), false).is_err() { return } }
                    _ => return,
                }
            }
        }
        call.answer("0").await
    });
    let d = Site::new().start(&configuration(&up.url(), OPEN));
    let mut other = Wire::connect(&d).await;
    let mut f = Frames::open(&d).await;
    for i in 0..16u32 { f.request(1 + 2 * i, &grpc_fields("/demo.v1.Echo/Flood", &[("grpc-timeout", "500m")])).await; }
    tokio::time::sleep(Duration::from_millis(1000)).await;
    println!("streams {}", d.metric("doorward_streams", &[]));
    for _ in 0..5 { assert_eq!(other.call(request("/demo.v1.Echo/Unary", &[])).await.refusal().0, 0); }
    for l in d.access_log().iter().take(2) { println!("{l}"); }
}

#[tokio::test]
async fn c4_streams_over_the_limit_never_end_the_connection() {
    let up = RawUpstream::start(|call| async move { std::future::pending::<()>().await; drop(call) });
    let d = Site::new().start(&configuration(&up.url(), "workers: 1\nauthentication: { mode: disabled }\nlimits: { streams: 3 }\n"));
    let mut frames = Frames::open(&d).await;
    let mut refused = 0;
    for number in 0..1200u32 {
        frames.request(1 + 2 * number, &grpc_fields("/demo.v1.Echo/Unary", &[])).await;
        if number < 3 { tokio::time::sleep(Duration::from_millis(20)).await; continue }
        if number % 100 == 0 || number < 6 { println!("number {number} refused {refused}"); }
        loop {
            match frames.next().await {
                Some(f) if f.kind == kind::RST_STREAM => { refused += 1; break }
                Some(f) if f.kind == kind::GOAWAY => { panic!("GOAWAY {} after {refused} refused: {:?}", f.number(4), String::from_utf8_lossy(&f.payload[8..])) }
                Some(_) => {}
                None => panic!("closed after {refused} refused"),
            }
        }
    }
}

#[tokio::test]
async fn c5_malformed_requests_end_only_their_own_stream() {
    let up = RawUpstream::echo();
    let d = Site::new().start(&configuration(&up.url(), OPEN));
    let mut frames = Frames::open(&d).await;
    let mut refused = 0;
    for number in 0..1200u32 {
        frames.request(1 + 2 * number, &grpc_fields("/demo.v1.Echo/Unary", &[("connection", "close")])).await;
        loop {
            match frames.next().await {
                Some(f) if f.kind == kind::RST_STREAM => { refused += 1; break }
                Some(f) if f.kind == kind::GOAWAY => { panic!("GOAWAY {} after {refused} malformed: {:?}", f.number(4), String::from_utf8_lossy(&f.payload[8..])) }
                Some(_) => {}
                None => panic!("closed after {refused}"),
            }
        }
    }
}

/// Upstream answers with heads that h2 itself refuses; another call on the same upstream connection must live.
#[tokio::test]
async fn c6_bad_answers_never_end_the_shared_upstream_connection() {
    let up = RawUpstream::start(|mut call| async move {
        if call.path.ends_with("Held") { std::future::pending::<()>().await }
        let mut r = response();
        for i in 0..1200u32 { r.headers_mut().insert(http::HeaderName::try_from(format!("x-{i}")).unwrap(), HeaderValue::from_static("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")); }
        let _ = call.respond.send_response(r, true);
    });
    let d = Site::new().start(&configuration(&up.url(), OPEN));
    let mut other = Wire::connect(&d).await;
    let (held, _s) = other.open(request("/demo.v1.Echo/Held", &[])).await.unwrap();
    let held = tokio::spawn(held);
    up.reached(1).await;
    let mut w = Wire::connect(&d).await;
    let mut counts = std::collections::BTreeMap::new(); let t0 = Instant::now();
    for _ in 0..30 {
        let mut answers = Vec::new();
        for _ in 0..40 {
            let (a, mut s) = w.open(request("/demo.v1.Echo/Bad", &[])).await.unwrap();
            let _ = s.send_data(message(b""), true);
            answers.push(tokio::spawn(a));
        }
        for a in answers { *counts.entry(a.await.unwrap().refusal()).or_insert(0) += 1; }
        println!("{:?} {counts:?} held finished {}", t0.elapsed(), held.is_finished());
        if held.is_finished() { break }
    }
    println!("{counts:?}");
    assert!(!held.is_finished(), "another client's call ended: {:?}", held.await.unwrap().refusal());
}

#[tokio::test]
async fn c7_calls_on_an_upstream_connection_that_we_end_are_answered() {
    let up = RawUpstream::start(|mut call| async move {
        if call.path.ends_with("Held") { std::future::pending::<()>().await }
        let mut r = response();
        for i in 0..1200u32 { r.headers_mut().insert(http::HeaderName::try_from(format!("x-{i}")).unwrap(), HeaderValue::from_static("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")); }
        let _ = call.respond.send_response(r, true);
    });
    let d = Site::new().start(&configuration(&up.url(), &(OPEN.to_owned() + "log: { explain_refusals: true }\n")));
    let mut other = Wire::connect(&d).await;
    let (held, _s) = other.open(request("/demo.v1.Echo/Held", &[])).await.unwrap();
    let held = tokio::spawn(held);
    up.reached(1).await;
    let mut w = Wire::connect(&d).await;
    for n in 0..1100 {
        let r = tokio::time::timeout(Duration::from_secs(3), w.call(request("/demo.v1.Echo/Bad", &[]))).await;
        match r { Err(_) => { println!("call {n} hangs"); break } Ok(r) => if held.is_finished() { println!("held ended at {n}, this {:?}", r.refusal()); break } }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("held finished {} streams {} now: {:?}", held.is_finished(), d.metric("doorward_streams", &[]), tokio::time::timeout(Duration::from_secs(3), w.call(request("/demo.v1.Echo/Bad", &[]))).await.map(|r| r.refusal()));
    println!("log {:?}", d.access_log().last());
    println!("{}", d.stderr());
    assert!(held.is_finished());
}

#[tokio::test]
async fn c8_no_call_hangs_when_we_end_an_upstream_connection() {
    let up = RawUpstream::start(|mut call| async move {
        if call.path.ends_with("Held") { std::future::pending::<()>().await }
        let mut r = response();
        for i in 0..1200u32 { r.headers_mut().insert(http::HeaderName::try_from(format!("x-{i}")).unwrap(), HeaderValue::from_static("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")); }
        let _ = call.respond.send_response(r, true);
    });
    let d = Site::new().start(&configuration(&up.url(), OPEN));
    let mut other = Wire::connect(&d).await;
    let (held, _s) = other.open(request("/demo.v1.Echo/Held", &[])).await.unwrap();
    let held = tokio::spawn(held);
    up.reached(1).await;
    let mut w = Wire::connect(&d).await;
    let mut answers = Vec::new();
    for n in 0..1100 {
        let (a, mut s) = w.open(request("/demo.v1.Echo/Bad", &[])).await.unwrap();
        let _ = s.send_data(message(b""), true);
        answers.push((n, tokio::spawn(a)));
        if n % 40 == 0 { tokio::time::sleep(Duration::from_millis(100)).await; }
        if d.stderr().contains("an upstream connection ended") { println!("ended at {n}"); break }
    }
    let t = Instant::now();
    while !d.stderr().contains("an upstream connection ended") && t.elapsed() < Duration::from_secs(3) { tokio::time::sleep(Duration::from_millis(20)).await; }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let hung: Vec<_> = answers.iter().filter(|(_, a)| !a.is_finished()).map(|(n, _)| *n).collect();
    println!("held finished {}, hanging {hung:?}, streams {}", held.is_finished(), d.metric("doorward_streams", &[]));
    if held.is_finished() { println!("held: {:?}", held.await.map(|h| h.refusal())); }
    println!("{}", d.stderr());
    assert!(hung.is_empty());
}

#[tokio::test]
async fn c9_heads_over_the_limit_are_upstream_headers_whatever_their_size() {
    let up = RawUpstream::start(|mut call| async move {
        let n: usize = call.path.rsplit('M').next().unwrap().parse().unwrap();
        let mut r = response();
        for i in 0..n { r.headers_mut().insert(http::HeaderName::try_from(format!("x-{i}")).unwrap(), HeaderValue::from_static("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")); }
        let _ = call.respond.send_response(r, true);
    });
    let d = Site::new().start(&configuration(&up.url(), OPEN));
    let mut w = Wire::connect(&d).await;
    for n in [50, 150, 500, 900, 915, 925, 950, 1200, 2000, 5000] {
        println!("{n} {:?}", w.call(request(&format!("/demo.v1.Echo/M{n}"), &[])).await.refusal());
    }
}

/// A call that waits for keys is cancelled: its place and its record are given back at once.
#[tokio::test]
async fn d1_cancelled_while_waiting_for_keys() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", silent.local_addr().unwrap());
    let _keep = tokio::spawn(async move { let mut k = Vec::new(); loop { k.push(silent.accept().await.unwrap()); } });
    let up = RawUpstream::echo();
    let rest = format!("authentication:\n  jwt:\n    - {{ name: a, issuer: https://issuer.test/, audiences: [users-api], algorithms: [RS256], jwks_url: \"{url}\", timeout: 30s, readiness: ignored }}\nauthorization: {{ methods: {{ /demo.v1.Echo/*: authenticated }} }}\n");
    let d = Site::new().start_unready(&configuration(&up.url(), &rest));
    let mut w = Wire::connect(&d).await;
    use base64::Engine as _;
    let e = |t: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(t);
    let token = format!("Bearer {}.{}.c2ln", e("{\"alg\":\"RS256\"}"), e("{\"iss\":\"https://issuer.test/\"}"));
    for _ in 0..50 {
        let (a, mut s) = w.open(request("/demo.v1.Echo/Unary", &[("authorization", &token)])).await.unwrap();
        let t = tokio::spawn(a);
        tokio::time::sleep(Duration::from_millis(5)).await;
        s.send_reset(h2::Reason::CANCEL); t.abort();
    }
    drop(w);
    tokio::time::sleep(Duration::from_millis(1000)).await;
    println!("streams {} connections {} log lines {}", d.metric("doorward_streams", &[]), d.metric("doorward_connections", &[]), d.access_log().len());
    assert_eq!(d.metric("doorward_streams", &[]), 0.0);
}
