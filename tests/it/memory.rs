//! What one client connection can make Doorward hold, in each way that is known, and that it is given back. `--nocapture`
//! shows the figures; those of the release build are in docs/performance.md.

use crate::harness::frames::{ACK, END_HEADERS, END_STREAM, block, frame, grpc_fields, indexed_block, kind, references};
use crate::harness::raw_upstream::{RawCall, response};
use crate::harness::*;
use bytes::Bytes;
use h2::server::Builder;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

const OPEN: &str = "workers: 1\nauthentication: { mode: disabled }\n";

/// `limits.streams` as it is by default.
const STREAMS: u32 = 1000;
const STREAM_WINDOW: usize = ::doorward::http2::CLIENT_STREAM_WINDOW as usize;
const CONNECTION_WINDOW: usize = ::doorward::http2::CLIENT_CONNECTION_WINDOW as usize;

/// What a connection may hold, in KiB, with a call on each of its streams.
const MOST: u64 = 8 << 10;
/// What may stay afterwards, in KiB: tables of ours and the allocator's that have grown and are used again.
const STAYS: u64 = 2 << 10;

async fn service(mut call: RawCall) {
    match call.path.rsplit('/').next() {
        Some("Endless") => {
            let Ok(mut stream) = call.respond.send_response(response(), false) else { return };
            loop {
                stream.reserve_capacity(16_384);
                match std::future::poll_fn(|context| stream.poll_capacity(context)).await {
                    Some(Ok(granted)) => drop(stream.send_data(Bytes::from(vec![0; granted]), false)),
                    _ => return,
                }
            }
        }
        Some("Unread") => drop(std::future::poll_fn(|context| call.respond.poll_reset(context)).await),
        _ => call.answer("0").await,
    }
}

fn upstream(streams: u32) -> RawUpstream {
    let mut settings = Builder::new();
    settings.max_concurrent_streams(streams);
    RawUpstream::start_at("127.0.0.1:0".parse().unwrap(), settings, service)
}

/// A connection that gives the server these windows and never reads.
async fn hostile(doorward: &Doorward, stream_window: u32, connection_window: u32) -> Frames {
    const WINDOW_UPDATE: u8 = 8;
    let mut frames = Frames::connect(doorward).await;
    frames.io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    frames.send(kind::SETTINGS, 0, 0, &[&4u16.to_be_bytes()[..], &stream_window.to_be_bytes()].concat()).await;
    frames.send(kind::SETTINGS, ACK, 0, &[]).await;
    if connection_window > 65_535 {
        frames.send(WINDOW_UPDATE, 0, 0, &(connection_window - 65_535).to_be_bytes()).await;
    }
    frames
}

fn streams() -> impl Iterator<Item = u32> + Clone {
    (1..).step_by(2).take(STREAMS as usize)
}

/// Sends what the server still reads.
async fn send(frames: &mut Frames, bytes: &[u8]) -> bool {
    let sent = async {
        frames.io.write_all(bytes).await?;
        frames.io.flush().await
    };
    matches!(tokio::time::timeout(Duration::from_secs(2), sent).await, Ok(Ok(())))
}

async fn downloads(frames: &mut Frames) {
    for stream in streams() {
        frames.request(stream, &grpc_fields("/demo.v1.Echo/Endless", &[])).await;
    }
}

/// Fills the windows with DATA frames of `piece` bytes on all streams in turn, `filler` bytes of an unknown frame after each.
async fn uploads(frames: &mut Frames, piece: usize, filler: usize) {
    let head = block(&grpc_fields("/demo.v1.Echo/Unread", &[]));
    for stream in streams() {
        send(frames, &frame(kind::HEADERS, END_HEADERS, stream, &head)).await;
    }
    let filler = if filler == 0 { Vec::new() } else { frame(0xf0, 0, 0, &vec![0; filler]) };
    let pieces = streams().cycle().take((CONNECTION_WINDOW / piece).min(STREAM_WINDOW / piece * STREAMS as usize));
    for stream in pieces {
        if !send(frames, &[frame(kind::DATA, 0, stream, &vec![0; piece]), filler.clone()].concat()).await {
            return;
        }
    }
}

/// Fields of almost 16 KiB after those of a request, if it has any.
fn large(of_request: Option<&str>) -> Vec<u8> {
    let value = "x".repeat(120);
    let names: Vec<String> = (0..90).map(|number| format!("x{number:03}")).collect();
    let more: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
    of_request.map_or_else(|| block(&more), |path| block(&grpc_fields(path, &more)))
}

/// Heads of almost 16 KiB.
async fn large_heads(frames: &mut Frames, path: &str) {
    let head = large(Some(path));
    for stream in streams() {
        if !send(frames, &frame(kind::HEADERS, END_HEADERS, stream, &head)).await {
            return;
        }
    }
}

/// Calls without a message, and trailers of almost 16 KiB for all of them.
async fn large_trailers(frames: &mut Frames) {
    let head = block(&grpc_fields("/demo.v1.Echo/Unread", &[]));
    let trailers = large(None);
    let all = streams().map(|stream| frame(kind::HEADERS, END_HEADERS, stream, &head));
    let all = all.chain(streams().map(|stream| frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &trailers)));
    for frame in all {
        if !send(frames, &frame).await {
            return;
        }
    }
}

/// Heads of almost 16 KiB whose fields are one byte each on the wire: many of them come at once.
async fn indexed_heads(frames: &mut Frames) {
    let value = "x".repeat(130);
    let names: Vec<String> = (0..22).map(|number| format!("x{number:03}")).collect();
    let more: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
    let fields = grpc_fields("/demo.v1.Echo/Unread", &more);
    // The usual ones come first, and are the oldest.
    let again = references((0..fields.len()).rev().chain((0..68).map(|number| number % names.len())));
    let heads = std::iter::once(indexed_block(&fields)).chain(std::iter::repeat(again));
    let all: Vec<u8> = streams().zip(heads).flat_map(|(stream, head)| frame(kind::HEADERS, END_HEADERS, stream, &head)).collect();
    send(frames, &all).await;
}

/// Small heads, each among bytes that say nothing: it came in a buffer of its own.
async fn scattered_heads(frames: &mut Frames) {
    let head = block(&grpc_fields("/demo.v1.Echo/Unread", &[("x", "y")]));
    for stream in streams() {
        let filler = frame(0xf0, 0, 0, &[0; 7800]);
        if !send(frames, &[frame(kind::HEADERS, END_HEADERS, stream, &head), filler].concat()).await {
            return;
        }
    }
}

/// Calls that hang on most streams, and on the others heads that are refused as soon as they are read.
async fn exploding_heads_beside_calls(frames: &mut Frames) {
    let head = block(&grpc_fields("/demo.v1.Echo/Unread", &[]));
    let calls: Vec<u8> = streams().take(900).flat_map(|stream| frame(kind::HEADERS, END_HEADERS, stream, &head)).collect();
    send(frames, &calls).await;
    tokio::time::sleep(Duration::from_millis(200)).await; // they hang
    explode(frames, streams().skip(900)).await;
}

async fn exploding_heads(frames: &mut Frames) {
    explode(frames, streams()).await;
}

/// Heads of thousands of fields that are one byte each on the wire.
async fn explode(frames: &mut Frames, streams: impl Iterator<Item = u32>) {
    let mut head = block(&grpc_fields("/demo.v1.Echo/Unary", &[]));
    head.extend(indexed_block(&[("y", "z")]));
    head.extend(references([0; 1850]));
    let all: Vec<u8> = streams.flat_map(|stream| frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &head)).collect();
    send(frames, &all).await;
}

/// What a process holds beyond what it held at first.
struct Held<'a> {
    doorward: &'a Doorward,
    before: u64,
}

impl Held<'_> {
    async fn begin(doorward: &Doorward) -> Held<'_> {
        // First growths are not the client's: allocator, connections to the upstream.
        for _ in 0..3 {
            drop(Wire::connect(doorward).await.call(request("/demo.v1.Echo/Unary", &[])).await);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        Held { doorward, before: doorward.resident_kib() }
    }

    fn now(&self) -> u64 {
        self.doorward.resident_kib().saturating_sub(self.before)
    }

    /// The most it holds until `work` is done and for two seconds after.
    async fn most_during(&self, work: impl Future<Output = ()>) -> u64 {
        let mut most = 0;
        let watch = async {
            loop {
                most = most.max(self.now());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let work = async {
            work.await;
            tokio::time::sleep(Duration::from_secs(2)).await;
        };
        tokio::select! { () = watch => {}, () = work => {} }
        most
    }

    /// The connection has ended: all is given back.
    async fn is_given_back(&self) -> u64 {
        let ended = Instant::now();
        while self.now() > STAYS {
            assert!(ended.elapsed() < Duration::from_secs(5), "{} KiB are still held", self.now());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.now()
    }
}

macro_rules! bounded {
    ($name:ident, upstream allows $streams:expr, windows $stream_window:expr, $connection_window:expr, most $most:expr, $frames:ident => $work:expr) => {
        #[tokio::test]
        async fn $name() {
            let upstream = upstream($streams);
            let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
            let held = Held::begin(&doorward).await;
            let mut connection = hostile(&doorward, $stream_window, $connection_window).await;
            let $frames = &mut connection;
            let most = held.most_during($work).await;
            drop(connection);
            let stays = held.is_given_back().await;
            println!("{}: {most} KiB held at most, {stays} KiB afterwards", stringify!($name));
            assert!(most <= $most, "{most} KiB held");
            let answer = Wire::connect(&doorward).await.call(request("/demo.v1.Echo/Unary", &[])).await;
            assert_eq!(answer.refusal(), (0, String::new()));
        }
    };
}

const ENDLESS: u32 = 0x7fff_ffff;
const ANY: u32 = 1_000_000;

bounded!(downloads_that_are_never_read, upstream allows ANY, windows ENDLESS, ENDLESS, most MOST, frames => downloads(frames));
bounded!(downloads_without_any_window, upstream allows ANY, windows 0, 65_535, most MOST, frames => downloads(frames));
bounded!(downloads_where_streams_are_few, upstream allows 100, windows 0, 65_535, most MOST, frames => downloads(frames));
bounded!(uploads_that_are_never_read, upstream allows ANY, windows 65_535, 65_535, most MOST, frames => uploads(frames, 16_384, 0));
bounded!(uploads_of_small_pieces, upstream allows ANY, windows 65_535, 65_535, most MOST, frames => uploads(frames, 1100, 7000));
bounded!(large_heads_of_calls_that_hang, upstream allows ANY, windows 65_535, 65_535, most MOST, frames => large_heads(frames, "/demo.v1.Echo/Unread"));
bounded!(large_heads_of_calls_that_wait, upstream allows 1, windows 65_535, 65_535, most MOST, frames => large_heads(frames, "/demo.v1.Echo/Unread"));
bounded!(indexed_heads_of_calls_that_hang, upstream allows ANY, windows 65_535, 65_535, most MOST, frames => indexed_heads(frames));
bounded!(indexed_heads_of_calls_that_wait, upstream allows 1, windows 65_535, 65_535, most MOST, frames => indexed_heads(frames));
bounded!(scattered_heads_of_calls_that_wait, upstream allows 1, windows 65_535, 65_535, most MOST, frames => scattered_heads(frames));
bounded!(heads_that_grow_beside_calls_that_hang, upstream allows ANY, windows 65_535, 65_535, most MOST, frames => exploding_heads_beside_calls(frames));
bounded!(heads_that_grow_as_they_are_decoded, upstream allows ANY, windows 65_535, 65_535, most MOST, frames => exploding_heads(frames));

/// What is held while the upstream takes nothing.
async fn held_while_the_upstream_takes_nothing(what: &str, work: impl AsyncFnOnce(&mut Frames)) {
    let upstream = FrameUpstream::start(|mut connection, _| async move {
        connection.settings(&[]).await;
        // Enough to be up and used; then it reads no more.
        for _ in 0..4 {
            let Some(stream) = connection.accept().await else { return };
            connection.ok(stream).await;
        }
        std::future::pending().await
    });
    let doorward = Site::new().start(&upstream.configuration(""));
    let held = Held::begin(&doorward).await;
    let mut frames = hostile(&doorward, 65_535, 65_535).await;
    let most = held.most_during(work(&mut frames)).await;
    drop(frames);
    let stays = held.is_given_back().await;
    println!("{what}_while_the_upstream_takes_nothing: {most} KiB held at most, {stays} KiB afterwards");
    assert!(most <= MOST, "{most} KiB held");
}

#[tokio::test]
async fn large_heads_while_the_upstream_takes_nothing() {
    held_while_the_upstream_takes_nothing("large_heads", async |frames| large_heads(frames, "/demo.v1.Echo/Unread").await).await;
}

#[tokio::test]
async fn large_trailers_while_the_upstream_takes_nothing() {
    held_while_the_upstream_takes_nothing("large_trailers", large_trailers).await;
}

#[tokio::test]
async fn much_passes_to_a_slow_reader_and_nothing_stays() {
    // In MiB; a gigabyte in the figures of docs/performance.md.
    let total = std::env::var("SLOW_READER_MIB").map_or(48, |mib| mib.parse().unwrap()) << 20;
    let upstream = upstream(ANY);
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let held = Held::begin(&doorward).await;
    let mut wire = Wire::connect(&doorward).await;
    let mut ready = wire.send.clone().ready().await.unwrap();
    let (answer, _stream) = ready.send_request(request("/demo.v1.Echo/Endless", &[]), true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let (mut read, mut most) = (0, 0);
    while read < total {
        let chunk = body.data().await.unwrap().unwrap();
        read += chunk.len();
        // Window is given back late, a megabyte at a time: always more waits than is read.
        let _ = body.flow_control().release_capacity(chunk.len());
        if read % (1 << 20) < chunk.len() {
            most = most.max(held.now());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    println!("slow reader: {most} KiB held at most");
    assert!(most <= 1024, "{most} KiB held");
    drop(body);
    assert_eq!(wire.call(request("/demo.v1.Echo/Unary", &[])).await.refusal(), (0, String::new()));
}

/// What each of many TLS connections holds that had a call and wait for the next. What it is for: docs/performance.md.
#[tokio::test]
async fn an_idle_connection_holds_little() {
    const CONNECTIONS: u64 = 200;
    /// In KiB.
    const EACH: u64 = 32;
    let upstream = upstream(ANY);
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let held = Held::begin(&doorward).await;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut wire = Wire::connect(&doorward).await;
        assert_eq!(wire.call(request("/demo.v1.Echo/Unary", &[])).await.refusal(), (0, String::new()));
        connections.push(wire);
    }
    tokio::time::sleep(Duration::from_secs(2)).await; // what they needed only for a moment is given back
    let all = held.now();
    println!("an idle connection: {:.1} KiB", all as f64 / CONNECTIONS as f64);
    assert!(all <= CONNECTIONS * EACH, "{all} KiB held by {CONNECTIONS}");
}

/// Tokens that verify leave verdicts, which count as so much at least (`authentication/cache.rs`).
#[tokio::test]
async fn a_verdict_takes_no_more_memory_than_it_counts_as() {
    const COUNTED: u64 = 7 << 10;
    let upstream = upstream(ANY);
    let doorward = Site::new().start(&configuration(&upstream.url(), &format!("workers: 1\n{}", site::STANDARD)));
    let held = Held::begin(&doorward).await;
    let mut wire = Wire::connect(&doorward).await;
    let mut present = async |users: std::ops::Range<u64>| {
        for user in users {
            let bearer = format!("Bearer {}", token(json!({ "sub": format!("user-{user}") })));
            let answer = wire.call(request("/demo.v1.Echo/Unary", &[("authorization", &bearer)])).await;
            assert_eq!(answer.refusal(), (0, String::new()));
        }
        tokio::time::sleep(Duration::from_secs(2)).await; // what they needed only for a moment is given back
        held.now()
    };
    let before = present(0..500).await;
    let after = present(500..3500).await;
    let each = after.saturating_sub(before) * 1024 / 3000;
    println!("a verdict: {each} bytes");
    assert!((COUNTED / 8..=COUNTED).contains(&each), "{each} bytes");
}
