//! What the container that we run in may use, as its control groups (cgroups) say: for what has no key, or says `auto`.

use std::fs;
use std::path::Path;

/// CPUs, at least 1.
pub(super) fn cpus() -> usize {
    // Counts the CPUs of the affinity mask, bounded by the cgroup's quota; a quota below one CPU counts as one.
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Bytes of memory, `None` without a limit.
pub(super) fn memory() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    memory_of(&groups, Path::new("/sys/fs/cgroup"))
}

/// The least limit of a process in these `groups`, in the form of /proc/PID/cgroup, where all groups are `mounted`.
fn memory_of(groups: &str, mounted: &Path) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next()?, parts.next()?);
        match controllers {
            "" => least(mounted, group, "memory.max"),
            v1 if v1.split(',').any(|controller| controller == "memory") => least(&mounted.join("memory"), group, "memory.limit_in_bytes"),
            _ => None,
        }
    });
    limits.min()
}

/// Of the group and all that it is in. A container may see its own as the root and still be told the host's path, which is
/// not there.
fn least(root: &Path, group: &str, file: &str) -> Option<u64> {
    let group = root.join(group.trim_start_matches('/'));
    let groups = group.ancestors().take_while(|group| group.starts_with(root));
    groups.filter_map(|group| fs::read_to_string(group.join(file)).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree with these files.
    fn memory(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        let mounted = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = mounted.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        memory_of(groups, mounted.path())
    }

    #[test]
    fn the_limit_of_a_container_with_the_second_version() {
        assert_eq!(memory("0::/\n", &[("memory.max", "33554432\n")]), Some(32 << 20));
        assert_eq!(memory("0::/\n", &[("memory.max", "max\n")]), None);
        assert_eq!(memory("0::/\n", &[]), None);
        // Outside of containers the root has no limit, and any group above may have the least.
        let service = [("a/memory.max", "1000"), ("a/b/memory.max", "2000"), ("a/b/c/memory.max", "max"), ("d/memory.max", "1")];
        assert_eq!(memory("0::/a/b/c\n", &service), Some(1000));
    }

    #[test]
    fn the_limit_of_a_container_with_the_first_version() {
        let groups = "5:devices:/docker/1\n4:cpu,memory:/docker/1\n3:cpuset:/\n0::/docker/1\n";
        let limit = |file| memory(groups, &[(file, "33554432\n"), ("memory.limit_in_bytes", "1"), ("cpuset/memory.limit_in_bytes", "1")]);
        assert_eq!(limit("memory/docker/1/memory.limit_in_bytes"), Some(32 << 20));
        assert_eq!(limit("memory/memory.limit_in_bytes"), Some(32 << 20), "seen as the root");
        // This is how no limit is told.
        assert_eq!(memory("4:memory:/\n", &[("memory/memory.limit_in_bytes", "9223372036854771712")]), Some(0x7fff_ffff_ffff_f000));
    }

    #[test]
    fn what_nobody_understands_is_no_limit() {
        for groups in ["", "\n", "0:", "0::", ":::::", "0::/../..", "a:memory"] {
            assert_eq!(memory(groups, &[("a", "")]), None, "{groups:?}");
        }
        for limit in ["", "-1", "32Mi", "99999999999999999999", "\u{0}"] {
            assert_eq!(memory("0::/\n", &[("memory.max", limit)]), None, "{limit:?}");
        }
    }
}
