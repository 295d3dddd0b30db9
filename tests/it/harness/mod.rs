//! What the tests stand on: the real binary, real gRPC peers of other languages, and hostile peers in Rust.
//!
//! Everything listens on port 0 and is stopped by `Drop`; every wait ends on the event waited for, with a bound that only
//! decides how long a failure takes.

pub mod collector;
pub mod doorward;
pub mod frame_upstream;
pub mod frames;
pub mod go;
pub mod hpack;
pub mod key_server;
pub mod node;
pub mod pages;
pub mod process;
pub mod python;
pub mod raw_upstream;
pub mod site;
pub mod stopwatch;
pub mod token;
pub mod tonic;
pub mod wire;

pub use collector::Collector;
pub use doorward::{Doorward, command, said};
pub use frame_upstream::FrameUpstream;
pub use frames::{Frames, kind};
pub use go::{GoClient, GoServer, h2spec, manifests};
pub use key_server::{Exchange, KeyServer};
pub use node::{NodeServer, OpenIdProvider};
pub use python::{Answer, Call, PythonClient, PythonUpstream, call, refusals};
pub use raw_upstream::RawUpstream;
pub use site::{API_KEY, Site, configuration, standard};
pub use stopwatch::Stopwatch;
pub use token::{claims, now, token};
pub use tonic::TonicServer;
pub use wire::{Wire, WireAnswer, request};

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

/// How long anything may take before the test fails. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// An address where nobody listens, nor will before we do: others are given ports of 127.0.0.1.
pub fn free_address() -> SocketAddr {
    let [.., a, b] = std::process::id().to_be_bytes();
    TcpListener::bind(SocketAddr::from(([127, 77, a, b.clamp(1, 254)], 0))).unwrap().local_addr().unwrap()
}

/// Asks until there is an answer.
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
