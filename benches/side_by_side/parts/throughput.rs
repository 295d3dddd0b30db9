//! Bytes: large messages both ways, and long streams of the service's.

use super::{Row, WARM_UP, median, page, rounds, while_measured};
use crate::material::Material;
use crate::peer::{Kind, Peer};
use crate::rig::figures::{Bound, Goal, goals, publish, publish_picture, short};
use crate::rig::head::Form;
use crate::rig::picture::{Bar, Group, Picture};
use crate::rig::upstream::{ask_for_stream, message};
use std::fmt::Write as _;
use std::time::Instant;

/// Calls at a time, on one connection.
const STREAMS: usize = 4;
const MIB: f64 = 1_048_576.0;

struct Work {
    name: &'static str,
    request: Vec<u8>,
    answer: usize,
    /// Bytes in both directions.
    bytes: usize,
}

struct Sample {
    mib_a_second: f64,
    /// User and system time of the proxy for each MiB.
    cpu_micros: f64,
}

pub fn run(material: &Material, kinds: &[Kind]) {
    let kinds: Vec<Kind> = kinds.iter().copied().filter(|kind| !matches!(kind, Kind::DoorwardPublic | Kind::Nghttpx)).collect();
    let peers: Vec<Peer> = kinds.iter().map(|kind| Peer::start(*kind, material)).collect();
    let mut text = page(
        "Throughput, side by side",
        &format!(
            "One connection, {STREAMS} calls at a time, each peer with the windows it comes with. MiB of messages a second in both directions, and CPU of the proxy\n\
             for each MiB. Load generator and service share one core: “direct” is all that they can do without a proxy. Median of {} runs.",
            rounds()
        ),
    );
    let (mut aims, mut groups) = (Vec::new(), Vec::new());
    for work in works() {
        let mut rows = Row::for_each(&kinds);
        for _ in 0..rounds() {
            for (peer, row) in peers.iter().zip(&mut rows) {
                row.samples.push(once(&work, peer, material));
            }
        }
        table(&mut text, &work, &rows);
        let rate = |kind| median(&rows, kind, |sample| sample.mib_a_second);
        let bar = |row: &Row<Sample>| {
            let value = row.spread(|sample| sample.mib_a_second).median;
            Bar { name: row.kind.name().to_owned(), value, text: short(value) }
        };
        groups.push(Group { name: work.name.to_owned(), bars: rows.iter().map(bar).collect() });
        for other in [Kind::HaProxy, Kind::HaProxyOpen] {
            let what = format!("{}: MiB/s, of “{}”", work.name, other.name());
            aims.push(Goal { what, measured: rate(Kind::Doorward) / rate(other), bound: Bound::AtLeast(1.0) });
        }
    }
    text.push_str(&goals(&aims));
    publish(&text, "throughput");
    publish_picture(&Picture { title: "Throughput, MiB/s (longer is better)".to_owned(), groups }, "throughput");
}

fn works() -> [Work; 3] {
    let echo = message(&vec![b'x'; 1 << 20]);
    let stream = |name, count: u32, size: u32| {
        let bytes = (count * (size + 5)) as usize;
        Work { name, request: ask_for_stream(count, size), answer: bytes, bytes }
    };
    [
        Work { name: "1 MiB there and back", answer: echo.len(), bytes: 2 * echo.len(), request: echo },
        stream("streams of 1,024 messages of 16 KiB", 1_024, 16_384),
        stream("streams of 8,192 messages of 256 bytes", 8_192, 256),
    ]
}

fn once(work: &Work, peer: &Peer, material: &Material) -> Sample {
    let mut load = peer.load_of(1, Form::Huffman, material, &work.request, work.answer);
    load.closed(STREAMS, WARM_UP);
    let (cpu, started) = (peer.cpu_seconds(), Instant::now());
    let calls = load.closed(STREAMS, while_measured()).len();
    let mib = (calls * work.bytes) as f64 / MIB;
    let sample = Sample { mib_a_second: mib / started.elapsed().as_secs_f64(), cpu_micros: (peer.cpu_seconds() - cpu) * 1e6 / mib };
    eprintln!("{}: {:28} {:6.0} MiB/s  {:6.0} µs CPU a MiB", work.name, peer.kind.name(), sample.mib_a_second, sample.cpu_micros);
    sample
}

fn table(text: &mut String, work: &Work, rows: &[Row<Sample>]) {
    let _ = writeln!(text, "## {}\n\n| | MiB/s | CPU µs a MiB |\n| --- | --- | --- |", work.name);
    for row in rows {
        let cpu = if row.kind == Kind::Direct { "–".to_owned() } else { row.spread(|sample| sample.cpu_micros).to_string() };
        let _ = writeln!(text, "| {} | {} | {cpu} |", row.kind.name(), row.spread(|sample| sample.mib_a_second));
    }
    text.push('\n');
}
