//! New TLS connections: how many a second, and what each costs.

use super::{Row, median, page, rounds, while_measured};
use crate::material::Material;
use crate::peer::{Kind, Peer};
use crate::rig::figures::{Bound, Goal, goals, publish};
use crate::rig::handshakes::make;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

const AT_ONCE: usize = 16;

struct Sample {
    rate: f64,
    cpu_micros: f64,
}

pub fn run(material: &Material, kinds: &[Kind]) {
    let kinds: Vec<Kind> =
        kinds.iter().copied().filter(|kind| !matches!(kind, Kind::Direct | Kind::DoorwardPublic | Kind::HaProxyOpen)).collect();
    let peers: Vec<Peer> = kinds.iter().map(|kind| Peer::start(*kind, material)).collect();
    let mut rows: Vec<Row<Sample>> = Row::for_each(&kinds);
    for _ in 0..rounds() {
        for (peer, row) in peers.iter().zip(&mut rows) {
            make(peer.port, &material.tls, AT_ONCE, Duration::from_millis(100));
            let (cpu, started) = (peer.cpu_seconds(), Instant::now());
            let made = make(peer.port, &material.tls, AT_ONCE, while_measured()) as f64;
            let sample = Sample { rate: made / started.elapsed().as_secs_f64(), cpu_micros: (peer.cpu_seconds() - cpu) * 1e6 / made };
            eprintln!("handshakes: {:28} {:6.0} a second  {:5.0} µs CPU", peer.kind.name(), sample.rate, sample.cpu_micros);
            row.samples.push(sample);
        }
    }
    let mut text = page(
        "New TLS connections, side by side",
        &format!(
            "TCP, a full TLS 1.3 handshake (X25519, ECDSA P-256 certificate, no resumption), HTTP/2 preface and SETTINGS, closed; {AT_ONCE} at once. One worker on a\n\
             core of its own. The client has one core too and verifies the certificate each time, which costs more than the server's part: where it is the\n\
             client that is busy, the CPU time of a connection says what the proxy could do. Median of {} runs.",
            rounds()
        ),
    );
    text.push_str("| | connections/s | CPU µs a connection | connections for a second of CPU |\n| --- | --- | --- | --- |\n");
    for row in &rows {
        let (rate, cpu) = (row.spread(|sample| sample.rate), row.spread(|sample| sample.cpu_micros));
        let _ = writeln!(text, "| {} | {rate} | {cpu} | {:.0} |", row.kind.name(), 1e6 / cpu.median);
    }
    text.push('\n');
    let of_nginx = |figure: fn(&Sample) -> f64| median(&rows, Kind::Doorward, figure) / median(&rows, Kind::Nginx, figure);
    let at_least = |what: &str, measured| Goal { what: what.to_owned(), measured, bound: Bound::AtLeast(1.0) };
    text.push_str(&goals(&[
        at_least("connections a second, of nginx's", of_nginx(|sample| sample.rate)),
        at_least("connections for a second of CPU, of nginx's", of_nginx(|sample| 1.0 / sample.cpu_micros)),
    ]));
    publish(&text, "handshakes");
}
