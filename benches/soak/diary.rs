//! What was seen during the soak, and the page it makes.

use crate::rig::figures::{machine, publish, publish_picture};
use crate::rig::picture::{Bar, Group, Picture};
use crate::rig::process::Proxy;
use crate::work::{Crowd, Deed, Tally};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Lines of the table.
const LINES: usize = 13;
/// Memory is flat when the last third's median is no more than this above the second third's.
const FLAT_MIB: f64 = 1.0;

pub struct Diary {
    rate: u32,
    looks: Vec<Look>,
    tally: BTreeMap<Deed, Tally>,
}

struct Look {
    at: Duration,
    resident_mib: f64,
    files: usize,
    cpu_seconds: f64,
    log_lines: u64,
    under_way: usize,
}

impl Diary {
    pub fn new(rate: u32) -> Diary {
        Diary { rate, looks: Vec::new(), tally: BTreeMap::new() }
    }

    pub fn look(&mut self, at: Duration, proxy: &Proxy, crowd: &Crowd) {
        let look = Look {
            at,
            resident_mib: proxy.resident_mib(),
            files: fs::read_dir(format!("/proc/{}/fd", proxy.pid())).map_or(0, Iterator::count),
            cpu_seconds: proxy.cpu_seconds(),
            log_lines: proxy.lines.load(Ordering::Relaxed),
            under_way: crowd.under_way.get(),
        };
        self.tally = crowd.tally.borrow().clone();
        let (ended, wrong) = self.tally.values().fold((0, 0), |(ended, wrong), tally| (ended + tally.ended, wrong + tally.wrong));
        eprintln!(
            "{:5.0} s  {:6.2} MiB  {:3} files  {:6.1} s CPU  {ended} done, {wrong} wrong, {} under way",
            at.as_secs_f64(),
            look.resident_mib,
            look.files,
            look.cpu_seconds,
            look.under_way
        );
        self.looks.push(look);
    }

    /// The median of what is resident in one third of the time.
    fn third(&self, number: usize) -> f64 {
        let length = self.looks.len() / 3;
        let mut values: Vec<f64> = self.looks.iter().skip(number * length).take(length).map(|look| look.resident_mib).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Up to so many looks, evenly spread, the last one among them.
    fn some(&self) -> impl Iterator<Item = &Look> {
        let last = self.looks.len().saturating_sub(1);
        let lines = LINES.min(last + 1);
        (0..lines).filter_map(move |line| self.looks.get(last * line / lines.saturating_sub(1).max(1)))
    }

    pub fn publish(&self) {
        let minutes = self.looks.last().map_or(0.0, |look| look.at.as_secs_f64() / 60.0);
        let [first, second, third] = [0, 1, 2].map(|number| self.third(number));
        let flat = third <= second + FLAT_MIB;
        let mut text = format!(
            "# Soak\n\n{minutes:.0} minutes, {} things begun a second, one worker, access log on. Memory (VmRSS) and open files of Doorward's process were\n\
             looked at every ten seconds. The first minutes fill the cache of verdicts with tokens that are used once. `make soak SECONDS=3600` makes this page.\n\n{}.\n\n\
             Median memory of the three thirds: {first:.1}, {second:.1}, {third:.1} MiB: {}.\n\n",
            self.rate,
            machine(&[]),
            if flat { "flat" } else { "**not flat**" }
        );
        text.push_str(
            "| minute | memory, MiB | open files | CPU s so far | log lines | calls under way |\n| --- | --- | --- | --- | --- | --- |\n",
        );
        for look in self.some() {
            let minute = look.at.as_secs_f64() / 60.0;
            let Look { resident_mib, files, cpu_seconds, log_lines, under_way, .. } = look;
            let _ = writeln!(text, "| {minute:.1} | {resident_mib:.1} | {files} | {cpu_seconds:.1} | {log_lines} | {under_way} |");
        }
        text.push_str("\n| what clients did | times | not ended as it should |\n| --- | --- | --- |\n");
        for (deed, tally) in &self.tally {
            let _ = writeln!(text, "| {deed:?} | {} | {} |", tally.ended, tally.wrong);
        }
        publish(&text, "soak");
        let bar = |look: &Look| Bar {
            name: format!("minute {:.0}", look.at.as_secs_f64() / 60.0),
            value: look.resident_mib,
            text: format!("{:.1}", look.resident_mib),
        };
        let group = Group { name: "Doorward, MiB".to_owned(), bars: self.some().map(bar).collect() };
        publish_picture(&Picture { title: "Memory during the soak".to_owned(), groups: vec![group] }, "soak");
    }
}
