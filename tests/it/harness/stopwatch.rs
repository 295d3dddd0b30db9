//! How long something takes, on a machine that has other things to do: what the interface promises in seconds it promises of
//! Doorward, not of a scheduler.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Nanoseconds by which sleeps of this process ended late, since the first stopwatch was started.
static LATE: LazyLock<&AtomicU64> = LazyLock::new(|| {
    static LATE: AtomicU64 = AtomicU64::new(0);
    std::thread::spawn(|| {
        loop {
            let (asleep, started) = (Duration::from_millis(5), Instant::now());
            std::thread::sleep(asleep);
            let late = started.elapsed().saturating_sub(asleep);
            LATE.fetch_add(late.as_nanos().try_into().unwrap(), Ordering::Relaxed);
        }
    });
    &LATE
});

#[derive(Clone, Copy)]
pub struct Stopwatch {
    started: Instant,
    late: u64,
}

impl Stopwatch {
    pub fn start() -> Stopwatch {
        Stopwatch { started: Instant::now(), late: LATE.load(Ordering::Relaxed) }
    }

    /// The time since the start, less that for which whoever wanted to run had to wait for its turn. For upper bounds only.
    pub fn elapsed(&self) -> Duration {
        let elapsed = self.started.elapsed();
        elapsed.saturating_sub(Duration::from_nanos(LATE.load(Ordering::Relaxed) - self.late))
    }
}
