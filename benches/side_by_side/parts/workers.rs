//! Two workers beside one. The machine's cores carry load generator and service too, so calls a second would say how many of
//! those there is room for; what is asked is whether a second worker makes calls dearer, or leaves one worker all the work.

use super::{Row, WARM_UP, page, rounds, while_measured};
use crate::material::Material;
use crate::peer::{Kind, Options, Peer};
use crate::rig::figures::{Bound, Goal, Spread, goals, publish};
use crate::rig::head::Form;
use crate::rig::process;
use std::fmt::Write as _;
use std::time::Instant;

const CONNECTIONS: usize = 32;
const STREAMS: usize = 4;

struct Sample {
    rate: f64,
    cpu_micros: f64,
    /// Of the CPU time of all threads, that of the busiest.
    busiest: f64,
}

impl Sample {
    /// Calls for a second of the busiest thread: what there would be if nothing else needed the cores.
    fn capacity(&self) -> f64 {
        1e6 / (self.cpu_micros * self.busiest)
    }
}

pub fn run(material: &Material, kinds: &[Kind]) {
    if !kinds.contains(&Kind::Doorward) {
        return;
    }
    process::on_both_cores(std::process::id());
    process::on_both_cores(material.service.pid());
    let peers = [1, 2].map(|workers| {
        let peer = Peer::with(Kind::Doorward, material, Options { workers, ..Options::default() });
        process::on_both_cores(peer.proxy.as_ref().expect("a proxy").pid());
        peer
    });
    let mut rows: Vec<Row<Sample>> = Row::for_each(&[Kind::Doorward, Kind::Doorward]);
    for _ in 0..rounds() {
        for (peer, row) in peers.iter().zip(&mut rows) {
            row.samples.push(once(peer, material));
        }
    }
    process::pin_to_load_core();
    process::on_load_core(material.service.pid());

    let mut text = page(
        "Two workers beside one",
        &format!(
            "{CONNECTIONS} connections with {STREAMS} calls at a time. Proxy, load generator and service move freely over both cores: there is none to spare for a second worker,\n\
             so calls a second cannot double here. Measured is what could: CPU of a call when both workers run at the same time, and the part of it that the\n\
             busiest thread has. Capacity is the calls for one second of that thread. Median of {} interleaved runs.",
            rounds()
        ),
    );
    text.push_str("| workers | calls/s | CPU µs a call | busiest thread | capacity, calls/s |\n| --- | --- | --- | --- | --- |\n");
    for (workers, row) in (1..).zip(&rows) {
        let [rate, cpu] = [|s: &Sample| s.rate, |s: &Sample| s.cpu_micros].map(|figure| row.spread(figure));
        let [busiest, capacity] = [row.spread(|s| s.busiest), row.spread(Sample::capacity)].map(|spread: Spread| spread.median);
        let _ = writeln!(text, "| {workers} | {rate} | {cpu} | {:.0} % | {capacity:.0} |", busiest * 100.0);
    }
    text.push('\n');
    let [one, two] = [rows.first(), rows.last()].map(|row| row.expect("two rows").spread(Sample::capacity).median);
    text.push_str(&goals(&[Goal {
        what: "capacity with two workers, of that with one".to_owned(),
        measured: two / one,
        bound: Bound::AtLeast(1.8),
    }]));
    publish(&text, "workers");
}

fn once(peer: &Peer, material: &Material) -> Sample {
    let proxy = peer.proxy.as_ref().expect("a proxy");
    let mut load = peer.load(CONNECTIONS, Form::Huffman, material);
    load.closed(STREAMS, WARM_UP);
    let (before, started) = (proxy.threads(), Instant::now());
    let calls = load.closed(STREAMS, while_measured()).len() as f64;
    let seconds = started.elapsed().as_secs_f64();
    let used: Vec<f64> = proxy.threads().iter().zip(&before).map(|(after, before)| after.1 - before.1).collect();
    let (all, most) = (used.iter().sum::<f64>(), used.iter().copied().fold(0.0, f64::max));
    let sample = Sample { rate: calls / seconds, cpu_micros: all * 1e6 / calls, busiest: most / all };
    eprintln!("workers: {:6.0} calls/s  {:5.1} µs CPU  busiest thread {:.0} %", sample.rate, sample.cpu_micros, sample.busiest * 100.0);
    sample
}
