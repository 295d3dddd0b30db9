//! The id that a call has in its log line and in the details of a refusal: always ours, never the client's.

use aws_lc_rs::rand;
use std::cell::Cell;
use std::fmt;

/// Names one call. Unique for practical purposes, across processes too; it is no secret and grants nothing.
///
/// In halves: whatever holds a number of sixteen bytes is rounded up to a multiple of them, the state of each call too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    /// Of the worker.
    prefix: u64,
    /// Of the call; as good as random.
    number: u64,
}

impl RequestId {
    /// A trace id for a call that no client has put into a trace (W3C Trace Context §3.2.2.3: not zero).
    pub(super) fn as_trace_id(self) -> u128 {
        (u128::from(self.prefix) << 64 | u128::from(self.number)).max(1)
    }

    /// The span id of the call.
    pub(super) fn as_span_id(self) -> u64 {
        self.number.max(1)
    }
}

impl fmt::Display for RequestId {
    /// 32 lower-case hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.prefix, self.number)
    }
}

/// Gives out ids; one a worker, so that threads share nothing.
#[derive(Debug)]
pub struct RequestIds {
    prefix: u64,
    state: Cell<u64>,
}

impl RequestIds {
    /// Begins at a random place: one system call here, none a call.
    pub fn new() -> RequestIds {
        let mut seed = [0; 16];
        rand::fill(&mut seed).expect("the operating system has random numbers");
        let seed = u128::from_le_bytes(seed);
        RequestIds { prefix: (seed >> 64) as u64, state: Cell::new(seed as u64) }
    }

    /// The next id.
    pub fn next(&self) -> RequestId {
        // SplitMix64: a bijection of a counter, so that no id of this worker returns within 2^64 calls.
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        RequestId { prefix: self.prefix, number: mixed ^ (mixed >> 31) }
    }
}

impl Default for RequestIds {
    fn default() -> RequestIds {
        RequestIds::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_differ_within_and_across_workers() {
        let workers = [RequestIds::new(), RequestIds::new()];
        let ids: HashSet<String> = workers.iter().flat_map(|ids| (0..1000).map(|_| ids.next().to_string())).collect();
        assert_eq!(ids.len(), 2000);
        assert!(ids.iter().all(|id| id.len() == 32));
    }
}
