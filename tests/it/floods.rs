//! Floods: whatever a client sends without end costs its own connection, and others on the same worker notice nothing.

use crate::harness::frames::{ACK, END_HEADERS, END_STREAM, block, grpc_fields};
use crate::harness::*;
use h2::Reason;
use std::process::Command;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// One worker, so that the victim and the flood share it.
const OPEN: &str = "workers: 1\nauthentication: { mode: disabled }\n";

const PRIORITY: u8 = 2;
const WINDOW_UPDATE: u8 = 8;
const UNKNOWN: u8 = 0xbe;
const UNARY: &str = "/demo.v1.Echo/Unary";

/// What one hostile connection may make the process grow by, in KiB: the interface's 8 MiB and what an allocator keeps.
const MOST_GROWTH: u64 = 12 << 10;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn floods(doorward: &Doorward) -> f64 {
    doorward.metric("doorward_limit_hits_total", &["limit=\"flood\""])
}

async fn works(wire: &mut Wire, when: &str) {
    let answer = wire.call(request(UNARY, &[])).await;
    assert_eq!(answer.refusal(), (0, String::new()), "{when}: {answer:?}");
}

/// Writes `bytes` again and again, and reads what comes back, until the connection ends; `false` when it never does.
async fn until_closed(frames: &mut Frames, bytes: &[u8]) -> bool {
    let (mut reader, mut writer) = tokio::io::split(&mut frames.io);
    let writing = async { while writer.write_all(bytes).await.is_ok() {} };
    let mut sink = tokio::io::sink();
    let reading = async { drop(tokio::io::copy(&mut reader, &mut sink).await) };
    let ended = async {
        tokio::select! {
            () = writing => {}
            () = reading => {}
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.is_ok()
}

#[tokio::test]
async fn frames_that_carry_no_call_end_their_connection_by_the_ten_thousand() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let mut other = Wire::connect(&doorward).await;
    works(&mut other, "before").await;
    let before = doorward.resident_kib();
    for (number, (what, frame)) in [
        ("PING", frame(kind::PING, 0, 0, b"12345678")),
        ("acknowledged PING", frame(kind::PING, ACK, 0, b"12345678")),
        ("SETTINGS", frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])),
        ("empty SETTINGS", frame(kind::SETTINGS, 0, 0, &[])),
        ("PRIORITY", frame(PRIORITY, 0, 101, &[0, 0, 0, 0, 16])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("unknown", frame(UNKNOWN, 0, 0, b"12345678")),
    ]
    .into_iter()
    .enumerate()
    {
        let mut frames = Frames::open(&doorward).await;
        let flood = tokio::spawn(async move { until_closed(&mut frames, &frame.repeat(1000)).await });
        works(&mut other, what).await;
        assert!(flood.await.unwrap(), "{what} without end");
        eventually(what, || (floods(&doorward) == (number + 1) as f64).then_some(()));
        works(&mut other, what).await;
    }
    let grown = doorward.resident_kib().saturating_sub(before);
    assert!(grown < MOST_GROWTH, "{grown} KiB");
    let said = doorward.stderr();
    assert!(!said.contains("PING"), "{} lines, about what a client has sent", said.lines().count());
}

#[tokio::test]
async fn a_burst_of_pings_is_no_flood() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let mut frames = Frames::open(&doorward).await;
    let pings = frame(kind::PING, 0, 0, b"12345678").repeat(500);
    // Calls account for the frames around them: this is as much as ends a connection that makes none.
    for number in 0..30 {
        frames.io.write_all(&pings).await.unwrap();
        for call in 0..150 {
            let stream = 2 * (150 * number + call) + 1;
            frames.request(stream, &grpc_fields(UNARY, &[])).await;
            while frames.on_stream(stream).await.expect("the connection lives").flags & END_STREAM == 0 {}
        }
    }
    assert!(frames.is_alive().await);
    assert_eq!(floods(&doorward), 0.0);
}

/// A service that never answers.
fn held() -> RawUpstream {
    RawUpstream::start(|call| async move {
        std::future::pending::<()>().await;
        drop(call);
    })
}

/// Opens streams and does `provoke` to each, until the connection is closed: how many requests went out before.
async fn provoked(frames: &mut Frames, provoke: impl Fn(u32) -> Vec<u8>, open: impl Fn(u32) -> Vec<u8>) -> u32 {
    for number in 0..3000 {
        let stream = 1 + 2 * number;
        if frames.io.write_all(&open(stream)).await.is_err() {
            return number;
        }
        // As a client would that sees the request accepted before it spoils it.
        if number % 10 == 9 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if frames.io.write_all(&provoke(stream)).await.is_err() {
            return number;
        }
    }
    3000
}

#[tokio::test]
async fn resets_that_a_client_provokes_count_as_its_own() {
    let fields = block(&grpc_fields(UNARY, &[]));
    let request = |stream| frame(kind::HEADERS, END_HEADERS, stream, &fields);
    let whole = |stream| frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &fields);
    let padded = block(&[("x", " white ")]);
    type Bytes<'a> = &'a dyn Fn(u32) -> Vec<u8>;
    let cases: [(&str, Bytes, Bytes); 7] = [
        ("RST_STREAM", &request, &|stream| frame(kind::RST_STREAM, 0, stream, &8u32.to_be_bytes())),
        ("WINDOW_UPDATE of nothing", &request, &|stream| frame(WINDOW_UPDATE, 0, stream, &[0; 4])),
        ("WINDOW_UPDATE beyond 2³¹", &request, &|stream| frame(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff])),
        ("DATA after the end", &whole, &|stream| frame(kind::DATA, 0, stream, b"x")),
        ("HEADERS after the end", &whole, &|stream| frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &fields)),
        ("a second head", &request, &|stream| frame(kind::HEADERS, END_HEADERS, stream, &fields)),
        ("malformed trailers", &request, &|stream| frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &padded)),
    ];
    for (what, open, provoke) in cases {
        let upstream = held();
        let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
        let mut other = Wire::connect(&doorward).await;
        let _others = other.open(crate::harness::request(UNARY, &[])).await.unwrap();
        upstream.reached(1).await;
        let mut frames = Frames::open(&doorward).await;
        provoked(&mut frames, provoke, open).await;
        // Its answers were not read meanwhile: the end may be a GOAWAY or, when that was lost, a closed socket.
        let mut code = None;
        while let Some(frame) = frames.next().await {
            if frame.kind == kind::GOAWAY {
                code = Some(frame.number(4));
            }
        }
        assert!(code.is_none_or(|code| code != 0), "{what}: {code:?}");
        let reached = upstream.seen().len();
        assert!(reached <= 600, "{what}: {reached} reached the service");
        eventually("its end", || (doorward.metric("doorward_connections", &[]) == 1.0).then_some(()));
        eventually("the end of its calls", || (doorward.metric("doorward_streams", &[]) <= 1.0).then_some(()));
        let survives = doorward.metric("doorward_streams", &[]) == 1.0;
        assert!(survives, "{what}: another client's call ended with it:\n{}", doorward.stderr());
    }
}

#[tokio::test]
async fn resets_before_a_call_is_accepted_are_judged_by_the_same_rule() {
    let upstream = held();
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let fields = block(&grpc_fields(UNARY, &[]));
    let burst = |first: u32, count: u32| -> Vec<u8> {
        let streams = (0..count).map(|number| first + 2 * number);
        let pair =
            |stream| [frame(kind::HEADERS, END_HEADERS, stream, &fields), frame(kind::RST_STREAM, 0, stream, &8u32.to_be_bytes())].concat();
        streams.flat_map(pair).collect()
    };
    let mut frames = Frames::open(&doorward).await;
    // A client that gives up a hundred calls at once, before any of them was looked at, is none.
    frames.io.write_all(&burst(1, 100)).await.unwrap();
    assert!(frames.is_alive().await);
    // Whose end may come while they are written.
    let _ = frames.io.write_all(&burst(201, 2000)).await;
    // A GOAWAY that crosses frames of ours may be lost with the socket.
    if let Some(goaway) = frames.until(kind::GOAWAY).await {
        assert_eq!(goaway.number(4), u32::from(Reason::ENHANCE_YOUR_CALM));
        frames.closed().await;
    }
    assert!(upstream.seen().len() <= 600, "{} reached the service", upstream.seen().len());
    eventually("the count", || (floods(&doorward) == 1.0).then_some(()));
}

#[tokio::test]
async fn a_small_block_of_many_references_stays_small() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let mut other = Wire::connect(&doorward).await;
    works(&mut other, "before").await;
    let before = doorward.resident_kib();
    for _ in 0..20 {
        let mut frames = Frames::open(&doorward).await;
        // A field of 4000 bytes put into the table (RFC 7541 §6.2.1), then referred to by a byte each, 64 MB in all.
        let mut bomb = block(&grpc_fields(UNARY, &[]));
        let mut field = block(&[("bomb", &"x".repeat(3900))]);
        field[0] = 0x40;
        bomb.extend(field);
        bomb.extend(vec![0x80 | 62; 16_000 - bomb.len()]);
        frames.send(kind::HEADERS, END_HEADERS | END_STREAM, 1, &bomb).await;
        let answer = frames.on_stream(1).await;
        // 431, or the end of the connection: what it is not is a call.
        assert!(answer.is_none_or(|answer| answer.kind == kind::HEADERS || answer.kind == kind::RST_STREAM));
    }
    works(&mut other, "after").await;
    assert!(upstream.seen().iter().all(|seen| seen.values("bomb").is_empty()));
    let grown = doorward.resident_kib().saturating_sub(before);
    assert!(grown < MOST_GROWTH, "{grown} KiB");
}

#[tokio::test]
async fn tiny_data_costs_no_more_than_its_window() {
    let upstream = held();
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    drop(Wire::connect(&doorward).await);
    let before = doorward.resident_kib();
    let mut frames = Frames::open(&doorward).await;
    frames.send(kind::HEADERS, END_HEADERS, 1, &block(&grpc_fields(UNARY, &[]))).await;
    upstream.reached(1).await;
    // The service reads nothing; these fill one stream's window, a byte at a time.
    let bytes = frame(kind::DATA, 0, 1, b"x").repeat(1000);
    // Whoever sends tens of thousands before we can look at one is a flood, and not meant here.
    for _ in 0..9 {
        for _ in 0..10 {
            frames.io.write_all(&bytes).await.unwrap();
        }
        assert!(frames.is_alive().await);
    }
    let grown = doorward.resident_kib().saturating_sub(before);
    assert!(grown < MOST_GROWTH, "{grown} KiB");
}

/// Connections the test and Doorward hold at once: both ends are files of this machine.
const CROWD: usize = 1000;

#[tokio::test]
async fn a_crowd_of_idle_connections_is_cheap_and_in_nobodys_way() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let mut other = Wire::connect(&doorward).await;
    works(&mut other, "before").await;
    let before = doorward.resident_kib();
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let mut frames = Frames::open(&doorward).await;
        frames.send(kind::PING, 0, 0, b"12345678").await;
        crowd.push(frames);
    }
    for frames in &mut crowd {
        frames.until(kind::PING).await.expect("it lives");
    }
    let each = doorward.resident_kib().saturating_sub(before) / CROWD as u64;
    println!("{each} KiB for each idle connection");
    // The figure to hold for TLS is 64 KiB.
    assert!(each <= 64, "{each} KiB for each idle connection");
    let started = Stopwatch::start();
    works(&mut other, "among them").await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

fn limit_files(doorward: &Doorward, files: usize) {
    let limited = Command::new("prlimit").args([format!("--pid={}", doorward.id()), format!("--nofile={files}:")]).status().unwrap();
    assert!(limited.success(), "prlimit");
}

#[tokio::test]
async fn a_process_out_of_files_serves_who_is_there_and_recovers() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let mut other = Wire::connect(&doorward).await;
    works(&mut other, "before").await;
    let open = doorward.metric("process_open_fds", &[]) as usize;
    limit_files(&doorward, open + 20);
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(TcpStream::connect(doorward.traffic).await.unwrap());
    }
    eventually("the pause", || doorward.stderr().contains("accepting connections pauses").then_some(()));
    works(&mut other, "out of files").await;
    drop(crowd);
    let mut wire = Wire::connect(&doorward).await;
    works(&mut wire, "afterwards").await;
    assert!(doorward.stderr().matches("accepting connections pauses").count() <= 3, "the log is flooded");
}

#[tokio::test]
async fn clients_do_not_get_the_files_that_probes_need() {
    let upstream = RawUpstream::echo();
    let site = Site::new();
    let doorward = site.start_with_files(&configuration(&upstream.url(), OPEN), 100);
    eventually("a word on that", || doorward.stderr().contains("leaves room for 50 client connections").then_some(()));
    let mut crowd = Vec::new();
    for _ in 0..120 {
        crowd.push(TcpStream::connect(doorward.traffic).await.unwrap());
    }
    let beyond = || doorward.metric("doorward_limit_hits_total", &["limit=\"connections\""]) >= 70.0;
    eventually("those beyond", || beyond().then_some(()));
    assert_eq!(doorward.get("/livez").0, 200);
    assert!(!doorward.stderr().contains("accepting connections pauses"));
}
