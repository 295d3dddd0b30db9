//! One bucket: a rate's number at once, and refilled at that rate (GCRA, ITU-T I.371: the whole state is the moment at
//! which the bucket will be full again).
//!
//! No lock and no timer: a take is one compare-exchange, whichever thread makes it. Time is given, not asked for.

use crate::config::Rate;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What one of those who are counted may still take.
#[derive(Debug)]
pub struct Bucket {
    pace: Pace,
    /// Nanoseconds are counted from here: 64 bits of them last for centuries.
    born: Instant,
    /// When it is full again; in the past, or never used: full.
    full_at: AtomicU64,
}

/// A rate in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    /// In which one comes back.
    interval: u64,
    /// In which an empty bucket becomes full.
    capacity: u64,
}

impl Pace {
    pub(super) fn of(rate: Rate) -> Pace {
        let count = u64::from(rate.count.max(1));
        // At most a million a second (the configuration sees to it), so that rounding is below a thousandth.
        let interval = (nanoseconds(rate.per.duration()) / count).max(1);
        Pace { interval, capacity: interval.saturating_mul(count) }
    }
}

impl Bucket {
    /// A full one.
    pub(super) fn new(pace: Pace, now: Instant) -> Bucket {
        Bucket { pace, born: now, full_at: AtomicU64::new(0) }
    }

    /// Takes one.
    ///
    /// # Errors
    /// When none is left: how long until one is. Nothing is taken then, so that who goes on trying waits no longer.
    pub(super) fn take(&self, now: Instant) -> Result<(), Duration> {
        let now = self.since_born(now);
        // Only this one number is shared: nothing else has to be seen together with it.
        let taken = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| self.pace.after_one_more(full_at, now).ok());
        taken.map(drop).map_err(|full_at| self.pace.after_one_more(full_at, now).err().unwrap_or_default())
    }

    /// Whether there is one to take.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(super) fn look(&self, now: Instant) -> Result<(), Duration> {
        self.pace.after_one_more(self.full_at.load(Ordering::Relaxed), self.since_born(now)).map(drop)
    }

    fn since_born(&self, now: Instant) -> u64 {
        nanoseconds(now.saturating_duration_since(self.born))
    }
}

impl Pace {
    /// When the bucket is full again if one more is taken; or how long until one more can be taken.
    fn after_one_more(self, full_at: u64, now: u64) -> Result<u64, Duration> {
        let next = full_at.max(now).saturating_add(self.interval);
        match next.saturating_sub(now).checked_sub(self.capacity) {
            None | Some(0) => Ok(next),
            Some(wait) => Err(Duration::from_nanos(wait)),
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RateUnit;
    use proptest::prelude::*;

    fn pace(count: u32, per: RateUnit) -> Pace {
        Pace::of(Rate { count, per })
    }

    #[test]
    fn as_many_as_the_rate_at_once_and_then_one_by_one() {
        let start = Instant::now();
        let bucket = Bucket::new(pace(10, RateUnit::Minute), start);
        for _ in 0..10 {
            assert_eq!(bucket.look(start), Ok(()));
            assert_eq!(bucket.take(start), Ok(()));
        }
        // However often it is tried.
        for _ in 0..5 {
            assert_eq!((bucket.look(start), bucket.take(start)), (Err(Duration::from_secs(6)), Err(Duration::from_secs(6))));
        }
        let later = start + Duration::from_secs(4);
        assert_eq!(bucket.take(later), Err(Duration::from_secs(2)));
        assert_eq!(bucket.take(later + Duration::from_secs(2)), Ok(()));
        assert_eq!(bucket.take(later + Duration::from_secs(2)), Err(Duration::from_secs(6)));
        // A rest fills it, and no more than that.
        let rested = start + Duration::from_secs(3600);
        assert_eq!((0..50).filter(|_| bucket.take(rested).is_ok()).count(), 10);
    }

    #[test]
    fn extreme_rates_and_clocks_do_not_overflow() {
        let start = Instant::now();
        let many = Bucket::new(pace(1_000_000, RateUnit::Second), start);
        assert_eq!((0..1_000_100).filter(|_| many.take(start).is_ok()).count(), 1_000_000);
        let one = Bucket::new(pace(1, RateUnit::Hour), start);
        let far = start + Duration::from_secs(500 * 365 * 24 * 3600);
        assert_eq!((one.take(far), one.take(far)), (Ok(()), Err(Duration::from_secs(3600))));
        // Threads read the clock before they take: a moment of before is no debt forgiven, and no panic.
        assert!(one.take(start).is_err());
    }

    #[test]
    fn threads_share_it() {
        let start = Instant::now();
        let bucket = Bucket::new(pace(1000, RateUnit::Hour), start);
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| (0..500).filter(|_| bucket.take(start).is_ok()).count())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1000);
    }

    proptest! {
        /// Against the plain account of a bucket: so much in it, filled as time passes, never above its brim.
        #[test]
        fn it_is_a_bucket(count in 1u32..50, unit in 0usize..3, steps in prop::collection::vec(0u64..5_000_000_000, 1..200)) {
            let pace = pace(count, [RateUnit::Second, RateUnit::Minute, RateUnit::Hour][unit]);
            let start = Instant::now();
            let bucket = Bucket::new(pace, start);
            let (mut now, mut level) = (0, pace.capacity);
            for step in steps {
                // Most steps are short, so that buckets run dry.
                let step = step >> (step % 32);
                now += step;
                level = (level + step).min(pace.capacity);
                let at = start + Duration::from_nanos(now);
                let looked = bucket.look(at);
                let taken = bucket.take(at);
                prop_assert_eq!(looked, taken);
                prop_assert_eq!(taken.is_ok(), level >= pace.interval);
                match taken {
                    Ok(()) => level -= pace.interval,
                    Err(wait) => {
                        prop_assert_eq!(bucket.look(at + wait), Ok(()));
                        prop_assert!(bucket.look(at + wait - Duration::from_nanos(1)).is_err());
                    }
                }
            }
        }
    }
}
