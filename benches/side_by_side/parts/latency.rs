//! Latency at a fixed rate of calls, whatever the proxy makes of them: each call's time begins when it was due.

use super::{page, rounds};
use crate::material::Material;
use crate::peer::{Kind, Peer};
use crate::rig::figures::{Bound, Goal, goals, publish, publish_picture, quantile_micros, short};
use crate::rig::head::Form;
use crate::rig::picture::{Bar, Group, Picture};
use crate::rig::setting;
use std::fmt::Write as _;
use std::time::Duration;

const RATES: [u32; 2] = [500, 5_000];
pub const CONNECTIONS: usize = 8;
pub const SHARES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// What all rounds of one peer at one rate gave.
pub struct Measured {
    pub kind: Kind,
    pub rate: u32,
    /// In order.
    pub calls: Vec<Duration>,
    cpu: f64,
}

pub fn run(material: &Material, kinds: &[Kind]) {
    let peers: Vec<Peer> = kinds.iter().map(|kind| Peer::start(*kind, material)).collect();
    let measured = measure(&peers, material);
    let mut text = page(
        "Latency at a fixed rate, side by side",
        &format!(
            "As many unary calls a second as the heading says, evenly spaced, over {CONNECTIONS} connections; a call's time begins when it was due, whether or not it\n\
             could be sent then, so that nothing that waits is left out. Microseconds; {} interleaved rounds of {} s together. One worker on a core of its own.\n\
             The load generator and the service share the other core: “direct” is what they need without a proxy.",
            rounds_of_rates(),
            seconds()
        ),
    );
    tables(&mut text, &measured);
    text.push_str(&goals(&aims(&measured)));
    publish(&text, "latency");
    publish_picture(&picture("Latency at a fixed rate, p99 in µs (shorter is better)", &measured), "latency");
}

fn seconds() -> u64 {
    setting("BENCH_SECONDS", 5)
}

fn rounds_of_rates() -> usize {
    rounds().min(3)
}

/// Every peer at every rate.
pub fn measure(peers: &[Peer], material: &Material) -> Vec<Measured> {
    let mut all = Vec::new();
    for rate in RATES {
        let mut measured: Vec<_> = peers.iter().map(|peer| Measured { kind: peer.kind, rate, calls: Vec::new(), cpu: 0.0 }).collect();
        for _ in 0..rounds_of_rates() {
            for (peer, measured) in peers.iter().zip(&mut measured) {
                let mut load = peer.load(CONNECTIONS, Form::Huffman, material);
                load.offered(f64::from(rate), Duration::from_millis(300));
                let cpu = peer.cpu_seconds();
                let calls = load.offered(f64::from(rate), Duration::from_secs(seconds()));
                measured.cpu += peer.cpu_seconds() - cpu;
                eprintln!(
                    "{rate}/s {:28} p50 {:6.0} µs  p99 {:6.0} µs",
                    peer.kind.name(),
                    quantile_micros(&calls, 0.5),
                    quantile_micros(&calls, 0.99)
                );
                measured.calls.extend(calls);
            }
        }
        all.extend(measured);
    }
    all.iter_mut().for_each(|measured| measured.calls.sort_unstable());
    all
}

pub fn tables(text: &mut String, measured: &[Measured]) {
    for rate in RATES {
        let _ = writeln!(
            text,
            "## {rate} calls a second\n\n| | p50 | p99 | p99.9 | most | CPU µs a call |\n| --- | --- | --- | --- | --- | --- |"
        );
        for peer in measured.iter().filter(|measured| measured.rate == rate) {
            let [p50, p99, p999] = SHARES.map(|(_, share)| quantile_micros(&peer.calls, share));
            let most = quantile_micros(&peer.calls, 1.0);
            let cpu = if peer.kind == Kind::Direct { "–".to_owned() } else { format!("{:.1}", peer.cpu * 1e6 / peer.calls.len() as f64) };
            let _ = writeln!(text, "| {} | {p50:.0} | {p99:.0} | {p999:.0} | {most:.0} | {cpu} |", peer.kind.name());
        }
        text.push('\n');
    }
}

/// Doorward with a token below every other proxy.
pub fn aims(measured: &[Measured]) -> Vec<Goal> {
    let mut aims = Vec::new();
    for (rate, (name, share)) in RATES.into_iter().flat_map(|rate| SHARES.map(|share| (rate, share))) {
        let figure = |of: &Measured| quantile_micros(&of.calls, share);
        let at_rate = || measured.iter().filter(|measured| measured.rate == rate);
        let ours = at_rate().find(|of| of.kind == Kind::Doorward).map_or(f64::NAN, figure);
        let others = at_rate().filter(|of| !matches!(of.kind, Kind::Direct | Kind::Doorward | Kind::DoorwardPublic));
        if let Some(best) = others.min_by(|a, b| figure(a).total_cmp(&figure(b))) {
            let what = format!("{rate} calls/s: {name}, below the best peer's, µs ({})", best.kind.name());
            aims.push(Goal { what, measured: ours, bound: Bound::AtMost(figure(best)) });
        }
    }
    aims
}

pub fn picture(title: &str, measured: &[Measured]) -> Picture {
    let bar = |of: &Measured| {
        let value = quantile_micros(&of.calls, 0.99);
        Bar { name: of.kind.name().to_owned(), value, text: short(value) }
    };
    let group = |rate: u32| Group {
        name: format!("{rate} calls a second"),
        bars: measured.iter().filter(|measured| measured.rate == rate).map(bar).collect(),
    };
    Picture { title: title.to_owned(), groups: RATES.map(group).into() }
}
