//! Figures for people: medians with their extremes, the machine they come from, the page they end up on.

use super::picture::Picture;
use std::env;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Median and extremes.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub least: f64,
    pub median: f64,
    pub most: f64,
}

impl Spread {
    pub fn of(values: impl Iterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.filter(|value| !value.is_nan()).collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Spread { least: at(0), median: at(values.len() / 2), most: at(values.len().saturating_sub(1)) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} ({:.1}–{:.1})", self.median, self.least, self.most)
    }
}

/// What is to be reached, and what was.
pub struct Goal {
    pub what: String,
    pub measured: f64,
    pub bound: Bound,
}

/// A figure may be that much, or has to be.
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    fn met(&self) -> bool {
        match self.bound {
            Bound::AtMost(bound) => self.measured <= bound,
            Bound::AtLeast(bound) => self.measured >= bound,
        }
    }
}

/// As a table; nothing when no goal could be measured.
pub fn goals(goals: &[Goal]) -> String {
    let measured: Vec<&Goal> = goals.iter().filter(|goal| goal.measured.is_finite()).collect();
    if measured.is_empty() {
        return String::new();
    }
    let mut text = "## Goals\n\n| goal | | measured | |\n| --- | --- | --- | --- |\n".to_owned();
    for goal in measured {
        let (word, bound) = match goal.bound {
            Bound::AtMost(bound) => ("at most", bound),
            Bound::AtLeast(bound) => ("at least", bound),
        };
        let verdict = if goal.met() { "met" } else { "**missed**" };
        let _ = writeln!(text, "| {} | {word} {} | {} | {verdict} |", goal.what, short(bound), short(goal.measured));
    }
    text + "\n"
}

/// With as many digits as say something.
pub fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The value below which `share` of the values are, which must be in order; in microseconds.
pub fn quantile_micros(values: &[Duration], share: f64) -> f64 {
    let index = (values.len() as f64 * share) as usize;
    values.get(index.min(values.len().saturating_sub(1))).map_or(f64::NAN, |value| value.as_secs_f64() * 1e6)
}

/// Writes `NAME.md` into `benches/results/`, or where `BENCH_RESULTS` says.
pub fn publish(text: &str, name: &str) {
    println!("{text}");
    fs::write(result(&format!("{name}.md")), text.trim_end().to_owned() + "\n").expect("the result file");
}

/// Writes `NAME.svg` beside it.
pub fn publish_picture(picture: &Picture, name: &str) {
    fs::write(result(&format!("{name}.svg")), picture.svg()).expect("the picture");
}

/// Where a result is kept.
pub fn result(name: &str) -> PathBuf {
    let folder = env::var("BENCH_RESULTS").map_or(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results"), PathBuf::from);
    folder.join(name)
}

/// Processor, kernel, and the versions of the `programs` that take part beside Doorward.
pub fn machine(programs: &[(&str, &str)]) -> String {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name.to_owned()));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let doorward = super::process::doorward();
    let programs = programs.iter().copied().chain([(doorward.as_str(), "--version")]).map(|(program, option)| version(program, option));
    let facts = [processor, Some(format!("Linux {}", kernel.trim()))].into_iter().chain(programs);
    facts.flatten().filter(|fact| !fact.is_empty()).collect::<Vec<_>>().join(" · ")
}

/// The first line a program prints for `option`, without the address that follows.
fn version(program: &str, option: &str) -> Option<String> {
    let output = Command::new(program).arg(option).output().ok()?;
    // nginx says it on standard error.
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().find(|line| !line.trim().is_empty())?.trim();
    // Envoy names its program first; others their address last.
    Some(line.split(" version: ").map(str::trim).last()?.split(" - ").next()?.to_owned())
}
