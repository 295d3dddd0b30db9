//! A part of a core for one process, as a container's CPU limit gives it: a control group of its own (version 2 or 1).

use std::fs;
use std::path::{Path, PathBuf};

const PERIOD_MICROS: u64 = 100_000;

/// Lasts until dropped; the process then has to be gone or is set free.
pub struct Quota {
    group: PathBuf,
    parent: PathBuf,
}

impl Quota {
    /// Gives the process `share` of a core in each tenth of a second. Needs root.
    pub fn of(pid: u32, share: f64) -> Result<Quota, String> {
        let (parent, version_1) = controller().ok_or("no CPU controller under /sys/fs/cgroup")?;
        let quota = Quota { group: parent.join(format!("doorward-bench-{pid}")), parent };
        let failed = |error: std::io::Error| format!("{}: {error}", quota.group.display());
        fs::create_dir(&quota.group).map_err(failed)?;
        let micros = (PERIOD_MICROS as f64 * share) as u64;
        if version_1 {
            fs::write(quota.group.join("cpu.cfs_period_us"), PERIOD_MICROS.to_string()).map_err(failed)?;
            fs::write(quota.group.join("cpu.cfs_quota_us"), micros.to_string()).map_err(failed)?;
        } else {
            fs::write(quota.group.join("cpu.max"), format!("{micros} {PERIOD_MICROS}")).map_err(failed)?;
        }
        fs::write(quota.group.join("cgroup.procs"), pid.to_string()).map_err(failed)?;
        Ok(quota)
    }

    /// How often its time was used up before the period was over.
    pub fn throttled(&self) -> u64 {
        let stat = fs::read_to_string(self.group.join("cpu.stat")).unwrap_or_default();
        stat.lines().find_map(|line| line.strip_prefix("nr_throttled ")?.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        if let Ok(left) = fs::read_to_string(self.group.join("cgroup.procs")) {
            left.lines().for_each(|pid| drop(fs::write(self.parent.join("cgroup.procs"), pid)));
        }
        let _ = fs::remove_dir(&self.group);
    }
}

/// Where groups are made, and whether that is version 1.
fn controller() -> Option<(PathBuf, bool)> {
    let has = |path: &str| fs::read_to_string(path).is_ok_and(|text| text.split_whitespace().any(|word| word == "cpu"));
    if has("/sys/fs/cgroup/cgroup.subtree_control") {
        return Some(("/sys/fs/cgroup".into(), false));
    }
    let version_1 = Path::new("/sys/fs/cgroup/cpu");
    version_1.join("cpu.cfs_quota_us").exists().then(|| (version_1.into(), true))
}
