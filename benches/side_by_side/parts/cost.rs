//! CPU time of a call, under load that never ends: few and many connections, the token in each form it is sent in.

use super::{Row, WARM_UP, median, page, rounds, while_measured};
use crate::material::Material;
use crate::peer::{Kind, Peer};
use crate::rig::figures::{Bound, Goal, goals, publish, publish_picture, quantile_micros, short};
use crate::rig::head::Form;
use crate::rig::picture::{Bar, Group, Picture};
use std::fmt::Write as _;
use std::time::Instant;

/// How many connections carry how many calls at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    connections: usize,
    streams: usize,
}

const SHAPES: [Shape; 4] = [
    Shape { connections: 1, streams: 32 },
    Shape { connections: 8, streams: 16 },
    Shape { connections: 1, streams: 1 },
    Shape { connections: 100, streams: 1 },
];

impl Shape {
    fn name(self) -> String {
        format!("{} × {}", self.connections, self.streams)
    }

    /// With many calls at a time it matters how the token comes; system calls decide the others.
    fn forms(self) -> &'static [Form] {
        if self.streams > 1 { &Form::ALL } else { &[Form::Huffman] }
    }
}

/// What one run gave.
struct Sample {
    form: Form,
    cpu_micros: f64,
    p50: f64,
    p99: f64,
    rate: f64,
}

pub fn run(material: &Material, kinds: &[Kind]) {
    let mut text = page(
        "Cost of a call, side by side",
        &format!(
            "Unary call, 32-byte message, 735-byte RS256 token, TLS 1.3 (AES-128-GCM) in front, h2c behind. The proxy has one core and one worker,\n\
             load generator and service the other. CPU is user + system time of the proxy's process, a call. Median of {} interleaved runs of {:.1} s,\n\
             in parentheses the least and the most; latencies and rate are those of the Huffman-coded token. Access log off everywhere.",
            rounds(),
            while_measured().as_secs_f64()
        ),
    );
    let peers: Vec<Peer> = kinds.iter().map(|kind| Peer::start(*kind, material)).collect();
    let (mut aims, mut groups) = (Vec::new(), Vec::new());
    for shape in SHAPES {
        let rows = measure(shape, &peers, kinds, material);
        table(&mut text, shape, &rows);
        groups.push(Group { name: format!("{} (connections × calls at a time)", shape.name()), bars: bars(&rows) });
        aims.extend(aims_of(shape, &rows));
    }
    text.push_str(&goals(&aims));
    publish(&text, "cost");
    publish_picture(&Picture { title: "CPU of the proxy, µs a call (shorter is better)".to_owned(), groups }, "cost");
}

fn measure(shape: Shape, peers: &[Peer], kinds: &[Kind], material: &Material) -> Vec<Row<Sample>> {
    let mut rows = Row::for_each(kinds);
    for round in 1..=rounds() {
        for form in shape.forms() {
            for (peer, row) in peers.iter().zip(&mut rows) {
                let sample = once(shape, *form, peer, material);
                eprintln!(
                    "{} {form} round {round}: {:28} {:6.1} µs CPU  p50 {:6.0} µs  {:7.0} calls/s",
                    shape.name(),
                    peer.kind.name(),
                    sample.cpu_micros,
                    sample.p50,
                    sample.rate
                );
                row.samples.push(sample);
            }
        }
    }
    rows
}

fn once(shape: Shape, form: Form, peer: &Peer, material: &Material) -> Sample {
    let mut load = peer.load(shape.connections, form, material);
    load.closed(shape.streams, WARM_UP);
    let (cpu, started) = (peer.cpu_seconds(), Instant::now());
    let calls = load.closed(shape.streams, while_measured());
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), peer.cpu_seconds() - cpu);
    Sample {
        form,
        cpu_micros: cpu * 1e6 / calls.len() as f64,
        p50: quantile_micros(&calls, 0.5),
        p99: quantile_micros(&calls, 0.99),
        rate: calls.len() as f64 / seconds,
    }
}

/// Of the samples with a form.
fn cpu(form: Form) -> impl Fn(&Sample) -> f64 {
    move |sample| if sample.form == form { sample.cpu_micros } else { f64::NAN }
}

fn of_huffman(figure: fn(&Sample) -> f64) -> impl Fn(&Sample) -> f64 {
    move |sample| if sample.form == Form::Huffman { figure(sample) } else { f64::NAN }
}

fn table(text: &mut String, shape: Shape, rows: &[Row<Sample>]) {
    let _ = writeln!(text, "## {} (connections × calls at a time)\n", shape.name());
    let forms: Vec<String> = shape.forms().iter().map(|form| format!("CPU µs, {form}")).collect();
    let _ = writeln!(text, "| | {} | p50 µs | p99 µs | calls/s |", forms.join(" | "));
    let _ = writeln!(text, "| --- |{} --- | --- | --- |", " --- |".repeat(forms.len()));
    for row in rows {
        let figures = shape.forms().iter().map(|form| match row.kind {
            Kind::Direct => "–".to_owned(),
            _ => row.spread(cpu(*form)).to_string(),
        });
        let [p50, p99, rate] = [|s: &Sample| s.p50, |s: &Sample| s.p99, |s: &Sample| s.rate].map(|f| row.spread(of_huffman(f)).median);
        let _ = writeln!(text, "| {} | {} | {p50:.0} | {p99:.0} | {rate:.0} |", row.kind.name(), figures.collect::<Vec<_>>().join(" | "));
    }
    text.push('\n');
}

fn bars(rows: &[Row<Sample>]) -> Vec<Bar> {
    let proxies = rows.iter().filter(|row| row.kind != Kind::Direct);
    let bar = |row: &Row<Sample>| {
        let value = row.spread(cpu(Form::Huffman)).median;
        Bar { name: row.kind.name().to_owned(), value, text: short(value) }
    };
    proxies.map(bar).collect()
}

fn aims_of(shape: Shape, rows: &[Row<Sample>]) -> Vec<Goal> {
    let mut aims = Vec::new();
    for form in shape.forms() {
        let ours = median(rows, Kind::Doorward, cpu(*form));
        let bounds: &[(Kind, f64)] = match (shape.connections, shape.streams) {
            (1, 1) => &[(Kind::Nginx, 1.0)],
            (100, 1) => &[(Kind::Envoy, 0.35)],
            _ => &[(Kind::Envoy, 0.35), (Kind::HaProxy, 0.25), (Kind::HaProxyOpen, 0.6), (Kind::DoorwardPublic, 1.1), (Kind::Nghttpx, 1.0)],
        };
        for (kind, bound) in bounds {
            let what = format!("{}, {form} token: CPU, of “{}”", shape.name(), kind.name());
            aims.push(Goal { what, measured: ours / median(rows, *kind, cpu(*form)), bound: Bound::AtMost(*bound) });
        }
    }
    if shape == (Shape { connections: 1, streams: 1 }) {
        let p50 = |kind| median(rows, kind, of_huffman(|sample| sample.p50));
        let added = |kind| p50(kind) - p50(Kind::Direct);
        let what = format!("1 × 1: added latency (p50 above direct), of nginx's {:.0} µs", added(Kind::Nginx));
        aims.push(Goal { what, measured: added(Kind::Doorward) / added(Kind::Nginx), bound: Bound::AtMost(1.0) });
    }
    aims
}
