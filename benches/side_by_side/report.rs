//! The result as a Markdown table.

use crate::load::{SHAPES, Sample};
use crate::peer::Kind;
use crate::rig::figures::{Spread, machine};
use std::fmt::Write as _;

pub fn markdown(kinds: &[Kind], samples: &[Sample], rounds: usize, calls: u32) -> String {
    let mut text = String::from("# Cost of a call, side by side\n\n");
    let _ = writeln!(
        text,
        "Unary call, 32-byte message, TLS 1.3 (AES-128-GCM) in front, h2c behind. The proxy has one core and one thread, h2load and the service the\n\
         other. Median of {rounds} interleaved runs of {calls} calls; in parentheses the least and the most. CPU is user + system time of the proxy's\n\
         process. Access log off everywhere. `make bench` makes this page.\n\n\
         {}.\n",
        machine(&[("haproxy", "-v"), ("h2load", "--version")])
    );
    for shape in SHAPES {
        let of = |kind: Kind| samples.iter().filter(|sample| sample.kind == kind && sample.shape == shape).collect::<Vec<_>>();
        let cpu = |kind: Kind| Spread::of(of(kind).iter().map(|sample| sample.cpu_micros));
        let base = kinds.contains(&Kind::HaProxy).then(|| cpu(Kind::HaProxy).median);
        let _ = writeln!(text, "## {} (connections × calls at a time)\n", shape.name);
        text.push_str("| | CPU µs a call | of HAProxy's | p50 µs | p99 µs | calls/s |\n| --- | --- | --- | --- | --- | --- |\n");
        for kind in kinds {
            let p50 = Spread::of(of(*kind).iter().map(|sample| f64::from(sample.p50))).median;
            let p99 = Spread::of(of(*kind).iter().map(|sample| f64::from(sample.p99))).median;
            let rate = Spread::of(of(*kind).iter().map(|sample| sample.rate)).median;
            let (cpu, share) = match kind {
                Kind::Direct => ("–".to_owned(), "–".to_owned()),
                _ => (cpu(*kind).to_string(), base.map_or("–".to_owned(), |base| format!("{:.2}", cpu(*kind).median / base))),
            };
            let _ = writeln!(text, "| {} | {cpu} | {share} | {p50:.0} | {p99:.0} | {rate:.0} |", kind.name());
        }
        if kinds.contains(&Kind::Doorward) && kinds.contains(&Kind::DoorwardPublic) {
            let ratio = cpu(Kind::Doorward).median / cpu(Kind::DoorwardPublic).median;
            let _ = writeln!(text, "\nDoorward with a token costs {ratio:.2} times Doorward with everything public.");
        }
        text.push('\n');
    }
    text
}
