//! One measurement: h2load against one peer, and the CPU time the peer used meanwhile.

use crate::material::Material;
use crate::peer::{Kind, Peer};
use crate::rig::METHOD;
use crate::rig::process::LOAD_CORE;
use std::fs;
use std::process::Command;
use std::time::Instant;

/// How many connections carry how many calls at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub name: &'static str,
    connections: u32,
    streams: u32,
}

pub const SHAPES: [Shape; 2] =
    [Shape { name: "1 × 32", connections: 1, streams: 32 }, Shape { name: "8 × 16", connections: 8, streams: 16 }];

/// What one run gave.
#[derive(Debug, Clone)]
pub struct Sample {
    pub kind: Kind,
    pub shape: Shape,
    /// User and system time a call of the peer's process.
    pub cpu_micros: f64,
    /// Microseconds until the end of the answer, as h2load sees it.
    pub p50: u32,
    pub p99: u32,
    /// Calls a second.
    pub rate: f64,
}

/// Warms the peer up, then measures `calls` calls.
pub fn measure(peer: &Peer, shape: Shape, calls: u32, material: &Material) -> Sample {
    run(peer, shape, 2_000, material);
    let (cpu, started) = (peer.cpu_seconds(), Instant::now());
    let mut latencies = run(peer, shape, calls, material);
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), peer.cpu_seconds() - cpu);
    latencies.sort_unstable();
    let quantile = |share: usize| latencies.get(latencies.len() * share / 100).copied().unwrap_or(0);
    Sample {
        kind: peer.kind,
        shape,
        cpu_micros: cpu * 1e6 / f64::from(calls),
        p50: quantile(50),
        p99: quantile(99),
        rate: f64::from(calls) / seconds,
    }
}

/// Runs h2load to its end; every call's latency in microseconds. Ends the program when a call failed.
fn run(peer: &Peer, shape: Shape, calls: u32, material: &Material) -> Vec<u32> {
    let log = material.folder.path("h2load.log");
    let _ = fs::remove_file(&log);
    let scheme = if peer.kind == Kind::Direct { "http" } else { "https" };
    let output = Command::new("taskset")
        .args(["-c", LOAD_CORE, "h2load", "--npn-list=h2", "--tls13-ciphers=TLS_AES_128_GCM_SHA256"])
        .args(["-n", &calls.to_string(), "-c", &shape.connections.to_string(), "-m", &shape.streams.to_string(), "-t", "1"])
        .args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-H"])
        .arg(format!("authorization: Bearer {}", material.token))
        .arg("-d")
        .arg(material.folder.path("body"))
        .arg(format!("--log-file={}", log.display()))
        .arg(format!("{scheme}://127.0.0.1:{}{METHOD}", peer.port))
        .output()
        .expect("h2load (Debian: nghttp2-client)");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&format!(" {calls} succeeded, 0 failed")), "{:?}: {text}{}", peer.kind, String::from_utf8_lossy(&output.stderr));
    let lines = fs::read_to_string(&log).expect("h2load's log");
    lines.lines().filter_map(|line| line.split('\t').nth(2)?.parse().ok()).collect()
}
