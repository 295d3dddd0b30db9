//! Figures for people: medians with their extremes, the machine they come from, the page they end up on.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Median and extremes.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub least: f64,
    pub median: f64,
    pub most: f64,
}

impl Spread {
    pub fn of(values: impl Iterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.collect();
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

/// Writes `benches/results/NAME.md`.
pub fn publish(text: &str, name: &str) {
    println!("{text}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results").join(format!("{name}.md"));
    fs::write(&path, text.trim_end().to_owned() + "\n").expect("the result file");
}

/// Processor, kernel, and the versions of the `programs` that take part beside Doorward.
pub fn machine(programs: &[(&str, &str)]) -> String {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name.to_owned()));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let programs =
        programs.iter().chain(&[(env!("CARGO_BIN_EXE_doorward"), "--version")]).map(|(program, option)| version(program, option));
    let facts = [processor, Some(format!("Linux {}", kernel.trim()))].into_iter().chain(programs);
    facts.flatten().filter(|fact| !fact.is_empty()).collect::<Vec<_>>().join(" · ")
}

/// The first line a program prints for `option`, without the address that follows.
fn version(program: &str, option: &str) -> Option<String> {
    let output = Command::new(program).arg(option).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().next()?.split(" - ").next()?.to_owned())
}
