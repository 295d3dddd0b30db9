//! The result as a Markdown table, with what one needs to know about the machine.

use crate::load::{SHAPES, Sample};
use crate::peer::Kind;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

pub fn markdown(kinds: &[Kind], samples: &[Sample], rounds: usize, calls: u32) -> String {
    let mut text = String::from("# Cost of a call, side by side\n\n");
    let _ = writeln!(
        text,
        "Unary call, 32-byte message, TLS 1.3 (AES-128-GCM) in front, h2c behind. The proxy has one core and one thread, h2load and the service the\n\
         other. Median of {rounds} interleaved runs of {calls} calls; in parentheses the least and the most. CPU is user + system time of the proxy's\n\
         process. Access log off everywhere. `make bench` makes this page.\n\n\
         {}.\n",
        machine().join(" · ")
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

pub fn write(text: &str, name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results").join(format!("{name}.md"));
    fs::write(&path, text.trim_end().to_owned() + "\n").expect("the result file");
}

/// Median and extremes.
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Spread { least: at(0), median: at(values.len() / 2), most: at(values.len().saturating_sub(1)) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} ({:.1}–{:.1})", self.median, self.least, self.most)
    }
}

/// Processor, kernel and the versions of what takes part.
fn machine() -> Vec<String> {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name.to_owned()));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let first_line = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_owned())
    };
    let haproxy = first_line("haproxy", "-v").map(|line| line.split(" - ").next().unwrap_or_default().to_owned());
    let facts = [
        processor,
        Some(format!("Linux {}", kernel.trim())),
        haproxy,
        first_line("h2load", "--version"),
        first_line(env!("CARGO_BIN_EXE_doorward"), "--version"),
    ];
    facts.into_iter().flatten().filter(|fact| !fact.is_empty()).collect()
}
