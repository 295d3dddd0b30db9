//! `make bench-credentials`: what it costs to find out who is calling, beside HAProxy: tokens known and new, forged ones, API
//! keys among few and many, and the memory that a flood of valid tokens may take.
//!
//! The proxy under test has one core to itself; load and service share the other. Each measurement has a fresh proxy process.
//! Cases take turns within a round, so that a machine that drifts drifts for all of them; medians over the rounds are reported.
//! `BENCH_ROUNDS`, `BENCH_CALLS`, `BENCH_FLOOD` (tokens), `BENCH_PARTS` (of tokens, forged, keys, flood; comma-joined) and
//! `BENCH_NAME` (of the result file) change the run.

#![allow(missing_docs, unreachable_pub)] // nothing here is anybody's interface

mod case;
mod flood;
mod load;
mod report;
#[path = "../rig/mod.rs"]
mod rig;
mod signature;
#[allow(dead_code, clippy::unwrap_used)] // made for the tests, which need more of it and fail by panics
#[path = "../../tests/it/harness/token.rs"]
mod token;
mod wallet;

use case::{Case, Kind, Peer, Sample, Site};
use rig::folder::Folder;
use rig::{chosen, figures, process, setting, upstream};
use signature::Signature;
use std::env;
use wallet::{Traffic, Wallet};

/// Per cent of the calls whose token comes for the first time.
const SHARES: [usize; 4] = [0, 1, 20, 100];
/// API keys in the file.
const KEYS: [usize; 3] = [10, 10_000, 100_000];

fn main() {
    if env::args().nth(1).as_deref() == Some("upstream") {
        return upstream::serve();
    }
    let (rounds, calls) = (setting("BENCH_ROUNDS", 5usize), setting("BENCH_CALLS", 10_000usize));
    let cases: Vec<Case> = cases().collect();
    let wallets = wallets(&cases, calls);
    let site = Site { folder: Folder::new(), service: upstream::Service::start() };
    process::pin_to_load_core();

    for (kind, wallet) in &wallets {
        for peer in Peer::ALL.into_iter().filter(|peer| peer.can(*kind)) {
            site.validate(peer, *kind, wallet);
            eprintln!("{peer:?}, {kind:?}: refuses and lets through what it should");
        }
    }
    let mut samples: Vec<Sample> = Vec::new();
    for round in 1..=rounds {
        for case in &cases {
            let (_, wallet) = wallets.iter().find(|(kind, _)| *kind == case.kind).expect("a wallet for each kind");
            let sample = site.measure(*case, wallet, calls);
            eprintln!("round {round}/{rounds} {case:?}: {:.1} µs CPU", sample.cpu_micros);
            samples.push(sample);
        }
    }
    let alone: Vec<(Signature, f64)> = Signature::ALL.map(|signature| (signature, signature.verification(&signature.issuer()(0)))).into();
    let flood = if chosen("BENCH_PARTS", "flood") { flood::flood(&site, setting("BENCH_FLOOD", 300_000)) } else { Vec::new() };
    let text = report::markdown(&samples, &alone, &flood, rounds, calls);
    figures::publish(&text, &setting("BENCH_NAME", "credentials".to_owned()));
}

/// Everything that is compared, those side by side that are read side by side.
fn cases() -> impl Iterator<Item = Case> {
    let tokens = Signature::ALL.into_iter().flat_map(|signature| SHARES.map(|share| (Kind::Token(signature), Traffic::New(share))));
    let forged = [Kind::Token(Signature::RS256), Kind::Token(Signature::ES256), Kind::Token(Signature::HS256), Kind::ApiKey(10_000)]
        .map(|kind| (kind, Traffic::Forged));
    let keys = KEYS.into_iter().flat_map(|keys| [0, 100].map(|share| (Kind::ApiKey(keys), Traffic::New(share))));
    let tokens = tokens.filter(|_| chosen("BENCH_PARTS", "tokens"));
    let forged = forged.into_iter().filter(|_| chosen("BENCH_PARTS", "forged"));
    let keys = keys.filter(|_| chosen("BENCH_PARTS", "keys"));
    tokens
        .chain(forged)
        .chain(keys)
        .flat_map(|(kind, traffic)| Peer::ALL.map(|peer| Case { peer, kind, traffic }))
        .filter(|case| case.peer.can(case.kind))
}

/// One for each kind of credential.
fn wallets(cases: &[Case], calls: usize) -> Vec<(Kind, Wallet)> {
    let mut wallets: Vec<(Kind, Wallet)> = Vec::new();
    for case in cases {
        if wallets.iter().all(|(kind, _)| *kind != case.kind) {
            let wallet = match case.kind {
                Kind::Token(signature) => Wallet::of_tokens(signature, calls),
                Kind::ApiKey(keys) => Wallet::of_api_keys(keys, calls),
            };
            wallets.push((case.kind, wallet));
        }
    }
    wallets
}
