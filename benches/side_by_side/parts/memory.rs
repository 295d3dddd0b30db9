//! Memory of a proxy that has nothing to do, of connections that nobody uses, and the time until the first call passes.

use super::{Row, median, page};
use crate::material::Material;
use crate::peer::{Kind, Options, Peer};
use crate::rig::figures::{Bound, Goal, goals, publish};
use crate::rig::head::Form;
use crate::rig::load::Load;
use crate::rig::process::{Proxy, free_port};
use std::fmt::Write as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 2_000;
/// That many are opened at a time.
const BATCH: usize = 50;
const STARTS: usize = 7;

struct Sample {
    idle_mib: f64,
    connection_kib: f64,
    gone_mib: f64,
}

pub fn run(material: &Material, kinds: &[Kind]) {
    let kinds: Vec<Kind> = kinds.iter().copied().filter(|kind| *kind != Kind::Direct).collect();
    let mut rows: Vec<Row<Sample>> = Row::for_each(&kinds);
    let mut starts: Vec<Row<f64>> = Row::for_each(&kinds);
    for row in &mut rows {
        row.samples.push(idle(row.kind, material));
    }
    for _ in 0..STARTS {
        starts.iter_mut().for_each(|row| row.samples.push(start(row.kind, material)));
    }
    let mut text = page(
        "Memory and start, side by side",
        &format!(
            "Resident memory of the process (VmRSS) two seconds after it started, for each of {CONNECTIONS} TLS connections that made one call and stay open\n\
             (two seconds later, less what it was before), and three seconds after they have gone. Start: from the start of the process until the first\n\
             call with a new token has its answer, median of {STARTS}, with the time to load the program. One worker each."
        ),
    );
    text.push_str("| | idle MiB | KiB an idle connection | MiB afterwards | start to first call, ms |\n| --- | --- | --- | --- | --- |\n");
    for (row, starts) in rows.iter().zip(&starts) {
        let [idle, connection, gone] =
            [|s: &Sample| s.idle_mib, |s: &Sample| s.connection_kib, |s: &Sample| s.gone_mib].map(|figure| row.spread(figure).median);
        let _ = writeln!(text, "| {} | {idle:.1} | {connection:.1} | {gone:.1} | {} |", row.kind.name(), starts.spread(|ms| *ms));
    }
    text.push('\n');
    let idle = |kind| median(&rows, kind, |sample| sample.idle_mib);
    let at_most = |what: &str, measured, bound| Goal { what: what.to_owned(), measured, bound: Bound::AtMost(bound) };
    text.push_str(&goals(&[
        at_most("idle, MiB", idle(Kind::Doorward), 8.0),
        at_most("idle, of Envoy's", idle(Kind::Doorward) / idle(Kind::Envoy), 0.1),
        at_most("an idle connection, KiB", median(&rows, Kind::Doorward, |sample| sample.connection_kib), 20.0),
        at_most("start to first accepted call, ms", median(&starts, Kind::Doorward, |ms| *ms), 50.0),
    ]));
    publish(&text, "memory");
}

fn idle(kind: Kind, material: &Material) -> Sample {
    let peer = Peer::start(kind, material);
    let resident = || peer.proxy.as_ref().expect("a proxy").resident_mib();
    sleep(Duration::from_secs(2));
    let idle_mib = resident();
    let connect = |_| {
        let mut load = peer.load(BATCH, Form::Huffman, material);
        load.closed(1, Duration::ZERO);
        load
    };
    let open: Vec<Load> = (0..CONNECTIONS / BATCH).map(connect).collect();
    sleep(Duration::from_secs(2));
    let connection_kib = (resident() - idle_mib) * 1024.0 / CONNECTIONS as f64;
    drop(open);
    sleep(Duration::from_secs(3));
    let sample = Sample { idle_mib, connection_kib, gone_mib: resident() };
    eprintln!("{}: {idle_mib:.1} MiB idle, {connection_kib:.1} KiB a connection, {:.1} MiB afterwards", kind.name(), sample.gone_mib);
    sample
}

/// In milliseconds.
fn start(kind: Kind, material: &Material) -> f64 {
    let port = free_port();
    let command = Peer::command(kind, material, Options::default(), port);
    let started = Instant::now();
    let peer = Peer { kind, port, proxy: Some(Proxy::start(command, port, 1, false)) };
    let calls = peer.load(1, Form::Huffman, material).closed(1, Duration::ZERO);
    assert_eq!(calls.len(), 1, "the first call");
    started.elapsed().as_secs_f64() * 1e3
}
