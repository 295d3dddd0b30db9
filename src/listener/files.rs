//! Open files: client connections must not use up those that the process needs for everything else, for then its probes
//! fail, the upstream cannot be reached again and a key set cannot be fetched, which would be all clients' loss.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Kept for what is no client's: 256 connections of the operations port, those to the upstream and to key servers, files
/// that are read again, the runtimes' own.
const OURS: u64 = 512;

/// How many client connections there is room for: `wanted`, or fewer where the limit on open files says so even after it
/// has been raised as far as the process may.
pub(super) fn room_for(wanted: usize) -> usize {
    let wanted = wanted as u64;
    let mut limit = getrlimit(Resource::Nofile);
    let needed = wanted.saturating_add(OURS);
    if limit.current.is_some_and(|current| current < needed) {
        limit.current = Some(limit.maximum.unwrap_or(needed).min(needed));
        // Fails only where something forbids it, and the old limit holds.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    let room = share(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)).min(wanted);
    if room < wanted {
        tracing::warn!(
            "the limit on open files (ulimit -n) leaves room for {room} client connections, not for the {wanted} of limits.connections; it should be {needed}"
        );
    }
    usize::try_from(room).unwrap_or(usize::MAX)
}

/// What client connections may have of so many files: all but ours, and half at least.
fn share(files: u64) -> u64 {
    files.saturating_sub(OURS).max(files / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_get_all_files() {
        assert_eq!((share(20_000), share(1024), share(1000), share(64)), (19_488, 512, 500, 32));
        assert_eq!(room_for(1), 1);
    }
}
