//! What one client connection can make Doorward hold, in each way that is known, and that it is given back.

use crate::harness::frames::{ACK, END_HEADERS, block, grpc_fields, kind};
use crate::harness::raw_upstream::{RawCall, response};
use crate::harness::*;
use bytes::Bytes;
use h2::server::Builder;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

const OPEN: &str = "workers: 1\nauthentication: { mode: disabled }\n";

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

/// Opens a connection with these windows.
async fn hostile(doorward: &Doorward, stream_window: u32, connection_window: u32) -> Frames {
    let mut frames = Frames::connect(doorward).await;
    frames.io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    frames.send(kind::SETTINGS, 0, 0, &[&4u16.to_be_bytes()[..], &stream_window.to_be_bytes()].concat()).await;
    frames.send(kind::SETTINGS, ACK, 0, &[]).await;
    if connection_window > 65_535 {
        frames.send(8, 0, 0, &(connection_window - 65_535).to_be_bytes()).await;
    }
    frames
}

async fn downloads(frames: &mut Frames, count: u32) {
    for stream in (1..).step_by(2).take(count as usize) {
        frames.request(stream, &grpc_fields("/demo.v1.Echo/Endless", &[])).await;
    }
}

async fn uploads(frames: &mut Frames, count: u32, piece: usize, filler: usize, total: usize) {
    for stream in (1..).step_by(2).take(count as usize) {
        frames.send(kind::HEADERS, END_HEADERS, stream, &block(&grpc_fields("/demo.v1.Echo/Unread", &[]))).await;
    }
    let filler = {
        let length = u32::try_from(filler).unwrap().to_be_bytes();
        let mut frame = [&length[1..], &[0xf0, 0], &0u32.to_be_bytes()].concat();
        frame.resize(9 + filler, 0);
        if filler == 0 { Vec::new() } else { frame }
    };
    let per_stream = 256 * 1024 / piece;
    let mut sent = 0;
    'all: for _ in 0..per_stream {
        for stream in (1..).step_by(2).take(count as usize) {
            if sent + piece > total { break 'all; }
            let length = u32::try_from(piece).unwrap().to_be_bytes();
            let mut frame = [&length[1..], &[0, 0], &u32::to_be_bytes(stream)].concat();
            frame.resize(9 + piece, 0);
            frame.extend_from_slice(&filler);
            if tokio::time::timeout(Duration::from_secs(3), frames.io.write_all(&frame)).await.is_err() { println!("blocked at {sent}"); break 'all; }
            sent += piece;
        }
    }
    let _ = frames.io.flush().await;
}

async fn heads(frames: &mut Frames, count: u32, path: &str) {
    let value = "x".repeat(120);
    let names: Vec<String> = (0..90).map(|n| format!("x{n:03}")).collect();
    let more: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
    let block = block(&grpc_fields(path, &more));
    for stream in (1..).step_by(2).take(count as usize) {
        frames.send(kind::HEADERS, END_HEADERS, stream, &block).await;
    }
}

/// Header lists of many indexed fields: one byte each on the wire.
async fn bombs(frames: &mut Frames, count: u32) {
    let mut head = block(&grpc_fields("/demo.v1.Echo/Unary", &[]));
    // Literal with incremental indexing, then references to it: index 62.
    head.extend_from_slice(&[0x40, 1, b'y', 1, b'z']);
    head.resize(head.len() + 1850, 0x80 | 62);
    let mut all = Vec::new();
    for stream in (1..).step_by(2).take(count as usize) {
        let length = u32::try_from(head.len()).unwrap().to_be_bytes();
        all.extend([&length[1..], &[1, 5], &u32::to_be_bytes(stream)].concat());
        all.extend_from_slice(&head);
    }
    frames.io.write_all(&all).await.unwrap();
    frames.io.flush().await.unwrap();
}

async fn peak(doorward: &Doorward, before: u64, seconds: u64) -> (i64, i64) {
    let (started, mut peak, mut last) = (Instant::now(), 0i64, 0i64);
    while started.elapsed() < Duration::from_secs(seconds) {
        last = doorward.resident_kib() as i64 - before as i64;
        peak = peak.max(last);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (peak, last)
}

#[tokio::test]
#[ignore = "figures"]
async fn figures() {
    let only = std::env::var("FORM").unwrap_or_default();
    let mut settings = Builder::new();
    settings.max_concurrent_streams(100_000);
    for form in ["idle", "endless", "zero", "default", "uploads", "upload1100", "upload1", "heads", "headsdown", "bombs"] {
        if !only.is_empty() && !only.split(',').any(|o| o == form) { continue; }
        for count in [1, 100, 1000] {
            let upstream = RawUpstream::start_at("127.0.0.1:0".parse().unwrap(), settings.clone(), service);
            let mut yaml = configuration(&upstream.url(), OPEN);
            if form == "headsdown" { yaml = configuration("http://127.0.0.1:1", OPEN); }
            let mut site = Site::new();
            let doorward = if form == "headsdown" { Site::new().start(&configuration(&upstream.url(), OPEN)) } else { Site::new().start(&yaml) };
            let _ = (&mut site, &yaml);
            drop(Wire::connect(&doorward).await.call(request("/demo.v1.Echo/Unary", &[])).await);
            tokio::time::sleep(Duration::from_millis(200)).await;
            let before = doorward.resident_kib(); print!("before {before} ");
            let mut frames = if form == "zero" { hostile(&doorward, 0, 65_535).await } else if form == "endless" { hostile(&doorward, 0x7fff_ffff, 0x7fff_ffff).await } else { hostile(&doorward, 65_535, 65_535).await };
            let watch = peak(&doorward, before, 4);
            let work = async {
                match form {
                    "endless" | "zero" | "default" => downloads(&mut frames, count).await,
                    "uploads" => uploads(&mut frames, count, 16_384, 0, 17 * 256 * 1024).await,
                    "upload1100" => uploads(&mut frames, count, 1100, 7000, 17 * 256 * 1024).await,
                    "upload1" => uploads(&mut frames, count, 1, 0, 1024 * 1024).await,
                    "heads" | "headsdown" => heads(&mut frames, count, "/demo.v1.Echo/Unread").await,
                    "bombs" => bombs(&mut frames, count).await,
                    _ => {}
                }
            };
            let ((peaked, last), ()) = tokio::join!(watch, work);
            drop(frames);
            let (_, freed) = peak(&doorward, before, 4).await;
            println!("{form:12} {count:5} peak {peaked:6} KiB  held {last:6} KiB  left {freed:6} KiB");
        }
    }
}
