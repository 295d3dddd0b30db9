//! What the access log costs: the same calls with `access: json`, written to a pipe that is read, and with `access: none`.

use super::{Row, WARM_UP, page, rounds, while_measured};
use crate::material::Material;
use crate::peer::{Kind, Options, Peer};
use crate::rig::figures::{Bound, Goal, Spread, goals, publish};
use crate::rig::head::Form;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Under load that never ends, and at a fixed rate, where the writing thread is woken more often.
const LOADS: [&str; 2] = ["8 × 16, as fast as it goes", "5,000 calls a second over 8 connections"];

struct Sample {
    cpu_micros: f64,
    /// Lines that were written, of the calls.
    written: f64,
}

pub fn run(material: &Material, kinds: &[Kind]) {
    if !kinds.contains(&Kind::Doorward) {
        return;
    }
    let peers = [false, true].map(|access_log| Peer::with(Kind::Doorward, material, Options { access_log, ..Options::default() }));
    let mut text = page(
        "What the access log costs",
        &format!(
            "Doorward with `access: none` and with `access: json`, standard output being a pipe that is read; CPU of the process, µs a call, with the writing\n\
             thread. Median of {} interleaved runs, in parentheses the least and the most. Lines that the pipe's reader was too slow for are dropped\n\
             and counted: the share that was written says how far the figure is that of a whole log.",
            rounds()
        ),
    );
    text.push_str("| load | without | with | the log | lines written |\n| --- | --- | --- | --- | --- |\n");
    let mut aims = Vec::new();
    for (index, name) in LOADS.into_iter().enumerate() {
        let mut rows: Vec<Row<Sample>> = Row::for_each(&[Kind::Doorward, Kind::Doorward]);
        for _ in 0..rounds() {
            for (peer, row) in peers.iter().zip(&mut rows) {
                row.samples.push(once(index, peer, material));
            }
        }
        let [without, with] = [rows.first(), rows.last()].map(|row| row.expect("two rows"));
        let costs = without.samples.iter().zip(&with.samples).map(|(without, with)| with.cpu_micros - without.cpu_micros);
        let cost = Spread::of(costs);
        let written = with.spread(|sample| sample.written).median;
        let [without, with] = [without, with].map(|row| row.spread(|sample| sample.cpu_micros));
        let _ = writeln!(text, "| {name} | {without} | {with} | {cost} | {:.1} % |", written * 100.0);
        aims.push(Goal { what: format!("{name}: the log, µs a call"), measured: cost.median, bound: Bound::AtMost(2.0) });
    }
    text.push('\n');
    text.push_str(&goals(&aims));
    publish(&text, "access_log");
}

fn once(load: usize, peer: &Peer, material: &Material) -> Sample {
    let proxy = peer.proxy.as_ref().expect("a proxy");
    let mut lines = peer.load(8, Form::Huffman, material);
    let mut calls = |time| if load == 0 { lines.closed(16, time) } else { lines.offered(5_000.0, time) };
    calls(WARM_UP);
    // What was written late belongs to the warm-up.
    std::thread::sleep(Duration::from_millis(100));
    let (cpu, before) = (peer.cpu_seconds(), proxy.lines.load(Ordering::Relaxed));
    let count = calls(while_measured()).len() as f64;
    std::thread::sleep(Duration::from_millis(100));
    Sample { cpu_micros: (peer.cpu_seconds() - cpu) * 1e6 / count, written: (proxy.lines.load(Ordering::Relaxed) - before) as f64 / count }
}
