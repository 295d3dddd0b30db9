//! The subjects. Each measures, and publishes its page.

mod access_log;
mod account;
mod cost;
mod decision;
mod handshakes;
mod latency;
mod memory;
mod quota;
mod throughput;
mod workers;

use crate::material::Material;
use crate::peer::Kind;
use crate::rig::figures::{Spread, machine};
use crate::rig::setting;
use std::time::Duration;

pub struct Part {
    pub name: &'static str,
    pub run: fn(&Material, &[Kind]),
}

pub const ALL: [Part; 10] = [
    Part { name: "cost", run: cost::run },
    Part { name: "latency", run: latency::run },
    Part { name: "quota", run: quota::run },
    Part { name: "access_log", run: access_log::run },
    Part { name: "throughput", run: throughput::run },
    Part { name: "handshakes", run: handshakes::run },
    Part { name: "memory", run: memory::run },
    Part { name: "workers", run: workers::run },
    Part { name: "decision", run: decision::run },
    Part { name: "account", run: account::run },
];

/// Of each measurement.
fn rounds() -> usize {
    setting("BENCH_ROUNDS", 5)
}

/// How long one measurement of calls takes.
fn while_measured() -> Duration {
    Duration::from_millis(setting("BENCH_MILLIS", 1_000))
}

/// Before each of them.
const WARM_UP: Duration = Duration::from_millis(200);

/// The head of a page: what it is about, and the machine.
fn page(title: &str, how: &str) -> String {
    let programs = [(crate::peer::ENVOY, "--version"), ("haproxy", "-v"), ("nginx", "-v"), ("nghttpx", "--version")];
    format!("# {title}\n\n{how}\n\n{}.\n\n", machine(&programs))
}

/// What was measured of one peer, in each round.
struct Row<F> {
    kind: Kind,
    samples: Vec<F>,
}

impl<F> Row<F> {
    fn for_each(kinds: &[Kind]) -> Vec<Row<F>> {
        kinds.iter().map(|kind| Row { kind: *kind, samples: Vec::new() }).collect()
    }

    fn spread(&self, figure: impl Fn(&F) -> f64) -> Spread {
        Spread::of(self.samples.iter().map(figure))
    }
}

/// The median of one peer's figure; NaN when it was not measured.
fn median<F>(rows: &[Row<F>], kind: Kind, figure: impl Fn(&F) -> f64) -> f64 {
    rows.iter().find(|row| row.kind == kind).map_or(f64::NAN, |row| row.spread(figure).median)
}
