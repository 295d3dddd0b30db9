//! `make bench`: Doorward beside others, in one run, with identical work. Each module below `parts` is one subject with one
//! page of results; `cargo bench --bench side_by_side -- cost latency` runs only those.
//!
//! The proxy under test has one core to itself; load generator and service share the other, unless a part says otherwise.
//! Peers take turns within a round, so that a machine that drifts drifts for all of them. `BENCH_PEERS` (comma-joined),
//! `BENCH_ROUNDS` and `BENCH_MILLIS` (of one measurement) change the run, `BENCH_RESULTS` where its pages go.

#![allow(missing_docs, unreachable_pub)] // nothing here is anybody's interface

mod material;
mod parts;
mod peer;
mod probe;
#[path = "../rig/mod.rs"]
mod rig;
mod summary;
#[allow(dead_code, clippy::unwrap_used)] // made for the tests, which need more of it and fail by panics
#[path = "../../tests/it/harness/token.rs"]
mod token;

use material::Material;
use peer::{Kind, Peer};
use rig::{process, upstream};
use std::env;
use std::time::Instant;

fn main() {
    let words: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if words.first().is_some_and(|word| word == "upstream") {
        return upstream::serve();
    }
    let unknown = words.iter().find(|word| parts::ALL.iter().all(|part| part.name != word.as_str()));
    assert!(unknown.is_none(), "{unknown:?} is none of {:?}", parts::ALL.map(|part| part.name));
    let kinds = Kind::chosen();
    peer::require(&kinds);
    process::many_files();

    let material = Material::new();
    process::pin_to_load_core();
    for kind in &kinds {
        probe::validate(&Peer::start(*kind, &material), &material);
    }
    for part in parts::ALL {
        if words.is_empty() || words.iter().any(|word| word == part.name) {
            let started = Instant::now();
            (part.run)(&material, &kinds);
            eprintln!("{}: {:.0} s", part.name, started.elapsed().as_secs_f64());
        }
    }
    summary::publish();
}
