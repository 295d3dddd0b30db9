//! Verdicts about credentials that have verified, kept so that a warm call costs one digest and one look-up.
//!
//! A verdict is asked again at each use whether it still holds; it cannot outlive the configuration generation because
//! the cache belongs to it. Refusals are not kept: they cost who is refused, and must end when their reason ends.

use super::Caller;
use super::credentials::Fingerprint;
use super::provider::Validity;
use crate::api_keys::Record;
use moka::sync::Cache;
use std::sync::Arc;
use std::time::SystemTime;

/// What all verdicts may weigh together.
const MOST_BYTES: u64 = 32 << 20;
/// And in a container with a memory limit: one of so many parts of it. The rest is for the process itself and its connections.
const PARTS: u64 = 4;
/// What one verdict weighs at least. On purpose that is four times what it takes with jemalloc (tests/it/memory.rs): what is
/// counted must never be less than what is held, whatever the allocator leaves between blocks that live long and others.
const LIGHTEST: usize = 7 << 10;

/// A verdict and what it rests on.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) caller: Arc<Caller>,
    pub(super) token: Option<Validity>,
    pub(super) api_key: Option<Arc<Record>>,
}

impl Verdict {
    fn holds_at(&self, now: SystemTime) -> bool {
        self.token.as_ref().is_none_or(|token| token.holds_at(super::times::unix_seconds(now)))
            && self.api_key.as_ref().is_none_or(|record| record.check(now).is_ok())
    }

    /// About what it takes of memory: texts, list entries, and the headers once more.
    fn weight(&self) -> u32 {
        let identity = &self.caller.identity;
        let texts = [&identity.user_id, &identity.user_email, &identity.user_name, &identity.client_id];
        let text_bytes: usize = texts.into_iter().flatten().map(|text| text.len()).sum();
        let entries =
            identity.roles.len() + identity.permissions.len() + self.caller.grants.roles().len() + self.caller.grants.permissions().len();
        let bytes = LIGHTEST + 2 * text_bytes + 64 * entries + self.caller.standing.weight();
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

/// Verdicts by everything that was presented.
#[derive(Debug)]
pub(super) struct Verdicts(Cache<Fingerprint, Arc<Verdict>>);

impl Verdicts {
    /// Where so much `memory` may be used; `None`: without a limit.
    pub(super) fn new(memory: Option<u64>) -> Verdicts {
        let most = memory.map_or(MOST_BYTES, |memory| MOST_BYTES.min(memory / PARTS));
        Verdicts(Cache::builder().max_capacity(most).weigher(|_, verdict: &Arc<Verdict>| verdict.weight()).build())
    }

    /// The caller of these credentials, if a verdict is there and still holds.
    pub(super) fn caller(&self, credentials: &Fingerprint, now: SystemTime) -> Option<Arc<Caller>> {
        let verdict = self.0.get(credentials)?;
        verdict.holds_at(now).then(|| verdict.caller.clone())
    }

    pub(super) fn keep(&self, credentials: Fingerprint, verdict: Verdict) {
        self.0.insert(credentials, Arc::new(verdict));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{identity_headers, now, policy};
    use super::*;
    use crate::identity::Identity;
    use crate::secret::Digest;

    #[test]
    fn a_flood_of_verdicts_is_bounded_and_does_not_push_out_what_is_in_use() {
        let caller = Arc::new(super::super::caller(&policy(), &identity_headers(), Identity::default()).unwrap());
        let verdict = || Verdict { caller: caller.clone(), token: None, api_key: None };
        let (memory, capacity) = (32 << 20, 8 << 20);
        let verdicts = Verdicts::new(Some(memory));
        let of = |token: &[u8]| Fingerprint { token: Some(Digest::of(token)), api_key: None, certificate: None };
        let in_use = of(b"in use");
        verdicts.keep(in_use, verdict());
        for stranger in 0..30_000_u32 {
            verdicts.keep(of(&stranger.to_be_bytes()), verdict());
            if stranger % 8 == 0 {
                assert!(verdicts.caller(&in_use, now()).is_some(), "pushed out by stranger {stranger}");
            }
        }
        verdicts.0.run_pending_tasks();
        let most = capacity / LIGHTEST as u64;
        assert!(verdicts.0.weighted_size() <= capacity && verdicts.0.entry_count() <= most, "{}", verdicts.0.entry_count());
        assert!(verdicts.0.entry_count() > most * 9 / 10, "{}", verdicts.0.entry_count());
    }

    #[test]
    fn the_cache_is_as_large_as_the_container_has_room_for() {
        for (memory, capacity) in
            [(None, 32 << 20), (Some(32 << 20), 8 << 20), (Some(128 << 20), 32 << 20), (Some(u64::MAX), 32 << 20), (Some(0), 0)]
        {
            assert_eq!(Verdicts::new(memory).0.policy().max_capacity(), Some(capacity), "{memory:?}");
        }
    }
}
