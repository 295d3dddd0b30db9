//! The usual `process_…` metrics, read from `/proc/self` at each scrape. What cannot be read keeps its last value.

use super::families::Families;
use prometheus::{Counter, IntGauge};
use std::fs;

/// Clock ticks a second in `/proc`: a constant of the kernel's interface (USER_HZ) on every architecture we run on.
const TICKS: f64 = 100.0;

/// What the operating system says about this process.
pub(super) struct ProcessMetrics {
    resident: IntGauge,
    virtual_size: IntGauge,
    threads: IntGauge,
    cpu: Counter,
    open_files: IntGauge,
    max_files: IntGauge,
    start: IntGauge,
}

impl ProcessMetrics {
    pub(super) fn new(families: &mut Families) -> ProcessMetrics {
        ProcessMetrics {
            resident: families.gauge("process_resident_memory_bytes", "Memory resident in RAM."),
            virtual_size: families.gauge("process_virtual_memory_bytes", "Virtual memory."),
            threads: families.gauge("process_threads", "Threads."),
            cpu: families.seconds("process_cpu_seconds_total", "User and system CPU time."),
            open_files: families.gauge("process_open_fds", "Open file descriptors."),
            max_files: families.gauge("process_max_fds", "How many file descriptors may be open."),
            start: families.gauge("process_start_time_seconds", "When the process began, in seconds since 1970."),
        }
    }

    pub(super) fn collect(&self) {
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            let kib = |name| field(&status, name).map(|kib| kib * 1024);
            set(&self.resident, kib("VmRSS:"));
            set(&self.virtual_size, kib("VmSize:"));
            set(&self.threads, field(&status, "Threads:"));
        }
        if let Ok(stat) = fs::read_to_string("/proc/self/stat")
            && let Some((cpu, started)) = ticks(&stat)
        {
            let cpu = cpu / TICKS;
            self.cpu.inc_by((cpu - self.cpu.get()).max(0.0));
            let boot = fs::read_to_string("/proc/stat").ok().and_then(|stat| field(&stat, "btime"));
            set(&self.start, boot.map(|boot| boot + (started / TICKS) as i64));
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            // The directory we are reading is open too.
            set(&self.open_files, i64::try_from(files.count()).ok().map(|count| count - 1));
        }
        if let Ok(limits) = fs::read_to_string("/proc/self/limits") {
            set(&self.max_files, field(&limits, "Max open files"));
        }
    }
}

fn set(gauge: &IntGauge, value: Option<i64>) {
    if let Some(value) = value {
        gauge.set(value);
    }
}

/// The first number of the line that begins with `name`.
fn field(text: &str, name: &str) -> Option<i64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// User and system time together, and the start time, all in ticks (proc_pid_stat(5), fields 14, 15 and 22).
fn ticks(stat: &str) -> Option<(f64, f64)> {
    // The second field is the program's name in parentheses and may hold anything, parentheses too.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).map(|field| field.parse::<f64>().ok());
    let (user, system) = (fields.next()??, fields.next()??);
    Some((user + system, fields.nth(6)??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_proc() {
        let stat = "7 (a) b (c) R 1 7 7 0 -1 4194304 100 0 0 0 250 150 0 0 20 0 4 0 1234 5 6";
        assert_eq!(ticks(stat), Some((400.0, 1234.0)));
        assert_eq!(ticks("7 (a"), None);
        assert_eq!(field("VmSize:  9 kB\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12));
        assert_eq!(field("Max open files   unlimited  x\n", "Max open files"), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let process = ProcessMetrics::new(&mut Families::default());
        process.collect();
        process.collect();
        for (name, gauge) in [
            ("resident", &process.resident),
            ("threads", &process.threads),
            ("open", &process.open_files),
            ("max", &process.max_files),
            ("start", &process.start),
        ] {
            assert!(gauge.get() > 0, "{name}");
        }
    }
}
