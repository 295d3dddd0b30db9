//! `make bench`: what a call costs, side by side in one run: direct, Doorward with a token, Doorward with everything
//! public, HAProxy with the same checks.
//!
//! The proxy under test has one core to itself; load generator (h2load) and service share the other. Peers take turns
//! within a round, so that a machine that drifts drifts for all of them; medians over the rounds are reported.
//! `BENCH_ROUNDS`, `BENCH_CALLS`, `BENCH_PEERS` (comma-joined) and `BENCH_NAME` (of the result file) change the run.

#![allow(missing_docs, unreachable_pub)] // nothing here is anybody's interface

mod load;
mod material;
mod peer;
mod probe;
mod report;
#[path = "../rig/mod.rs"]
mod rig;
#[allow(dead_code, clippy::unwrap_used)] // made for the tests, which need more of it and fail by panics
#[path = "../../tests/it/harness/token.rs"]
mod token;

use load::{SHAPES, Sample};
use peer::{Kind, Peer};
use rig::{chosen, figures, setting, upstream};
use std::env;

fn main() {
    if env::args().nth(1).as_deref() == Some("upstream") {
        return upstream::serve();
    }
    let (rounds, calls) = (setting("BENCH_ROUNDS", 7usize), setting("BENCH_CALLS", 100_000u32));
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| chosen("BENCH_PEERS", kind.key())).collect();

    let material = material::Material::new();
    let service = upstream::Service::start();
    let peers: Vec<Peer> = kinds.iter().map(|kind| Peer::start(*kind, &material, &service)).collect();
    for peer in &peers {
        probe::validate(peer, &material);
        eprintln!("{}: refuses and lets through what it should", peer.kind.name());
    }

    let mut samples: Vec<Sample> = Vec::new();
    for shape in SHAPES {
        for round in 1..=rounds {
            for peer in &peers {
                let sample = load::measure(peer, shape, calls, &material);
                eprintln!(
                    "{} round {round}/{rounds} {:32} {:6.1} µs CPU  p50 {:6} µs  p99 {:6} µs  {:7.0} calls/s",
                    shape.name,
                    peer.kind.name(),
                    sample.cpu_micros,
                    sample.p50,
                    sample.p99,
                    sample.rate
                );
                samples.push(sample);
            }
        }
    }
    let text = report::markdown(&kinds, &samples, rounds, calls);
    figures::publish(&text, &setting("BENCH_NAME", "side_by_side".to_owned()));
}
