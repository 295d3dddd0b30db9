//! A key set behind a URL: when it is fetched, which calls wait for that, and how long its keys are believed.
//!
//! Fetches happen only in `run`, one at a time, on the control runtime. Calls read the current set without a lock; only
//! a call without a set, or with a key that the set does not know, waits for a fetch.

use super::jwks::{KeySet, Symmetric, Unusable};
use super::jwks_fetch::{FetchError, FetchOutcome, Fetcher};
use crate::config::{Algorithm, RemoteKeys};
use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// Pause after the first failure; it doubles up to `cooldown` until the first success.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// A server that asks for more is still asked once a day: a key that it withdrew must not live on for a year.
const LONGEST_REFRESH: Duration = Duration::from_secs(24 * 3600);

/// One provider's remote key set.
#[derive(Debug)]
pub struct RemoteKeySet {
    name: Arc<str>,
    readiness_required: bool,
    algorithms: Vec<Algorithm>,
    fetcher: Fetcher,
    refresh: Duration,
    cooldown: Duration,
    max_stale: Duration,
    timeout: Duration,
    current: ArcSwapOption<Current>,
    progress: watch::Sender<Progress>,
    /// A call has met an unknown key and a fetch may begin.
    wanted: Notify,
    fetches: [AtomicU64; FetchOutcome::ALL.len()],
}

#[derive(Debug)]
struct Current {
    keys: Arc<KeySet>,
    fetched: Instant,
    refresh_after: Duration,
}

/// Fetches are counted so that a call can wait for the end of a certain one.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    begun: u64,
    ended: u64,
    /// Whether the last one that ended brought a set.
    succeeded: bool,
    /// Whether any ever did.
    ever_succeeded: bool,
    last_end: Option<Instant>,
}

/// The keys cannot be had right now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unavailable;

impl RemoteKeySet {
    /// `issuer` is what a discovery document must name.
    pub(super) fn new(
        name: Arc<str>,
        config: &RemoteKeys,
        issuer: Option<String>,
        algorithms: &[Algorithm],
        readiness_required: bool,
    ) -> RemoteKeySet {
        // The first fetch counts as begun: calls that come before the task has started wait for it.
        let progress = watch::Sender::new(Progress { begun: 1, ..Progress::default() });
        RemoteKeySet {
            name,
            readiness_required,
            algorithms: algorithms.to_vec(),
            fetcher: Fetcher::new(config, issuer),
            refresh: config.refresh,
            cooldown: config.cooldown,
            max_stale: config.max_stale,
            timeout: config.timeout,
            current: ArcSwapOption::empty(),
            progress,
            wanted: Notify::new(),
            fetches: Default::default(),
        }
    }

    /// The provider's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether readiness waits for the first set.
    pub fn readiness_required(&self) -> bool {
        self.readiness_required
    }

    /// Whether a set has been had once.
    pub fn has_keys(&self) -> bool {
        self.progress.borrow().ever_succeeded
    }

    /// Waits until a set has been had once.
    pub async fn first_had(&self) {
        // The sender lives as long as `self`: the wait cannot fail.
        let _ = self.progress.subscribe().wait_for(|progress| progress.ever_succeeded).await;
    }

    /// Time since the set in use was fetched; `None` without one.
    pub fn age(&self) -> Option<Duration> {
        self.current.load().as_ref().map(|current| current.fetched.elapsed())
    }

    /// Fetches so far by outcome.
    pub fn fetches(&self) -> impl Iterator<Item = (FetchOutcome, u64)> {
        FetchOutcome::ALL.into_iter().zip(&self.fetches).map(|(outcome, count)| (outcome, count.load(Ordering::Relaxed)))
    }

    fn current(&self) -> Option<Arc<KeySet>> {
        self.current.load().as_ref().map(|current| current.keys.clone())
    }

    /// What `ask` says of the set in use, `false` without one; neither waits nor counts references.
    pub(super) fn with_current(&self, ask: impl FnOnce(&KeySet) -> bool) -> bool {
        self.current.load().as_ref().is_some_and(|current| ask(&current.keys))
    }

    /// The set in use, or after a fetch that is worth waiting for because `knows` is not content with it.
    ///
    /// # Errors
    /// Without a set, and when the set does not know the key and the fetch that would have brought it failed.
    pub(super) async fn keys(&self, knows: impl Fn(&KeySet) -> bool) -> Result<Arc<KeySet>, Unavailable> {
        let had = self.current();
        if let Some(keys) = had.as_ref().filter(|keys| knows(keys)) {
            return Ok(keys.clone());
        }
        let mut progress = self.progress.subscribe();
        let seen = *progress.borrow_and_update();
        let awaited = if seen.begun > seen.ended {
            Some(seen.begun)
        } else if had.is_some() && seen.last_end.is_none_or(|end| end.elapsed() >= self.cooldown) {
            self.wanted.notify_one();
            Some(seen.ended + 1)
        } else {
            None
        };
        if let Some(awaited) = awaited {
            let ended = progress.wait_for(|progress| progress.ended >= awaited);
            if tokio::time::timeout(self.timeout, ended).await.is_err() {
                return Err(Unavailable);
            }
        }
        let succeeded = self.progress.borrow().succeeded;
        self.current().filter(|keys| succeeded || knows(keys)).ok_or(Unavailable)
    }

    /// Takes over the set of the previous configuration's same source, so that a reload does not depend on the key server.
    pub(super) fn adopt(&self, previous: &RemoteKeySet) {
        let Some(current) = previous.current.load_full() else { return };
        if self.name != previous.name || self.algorithms != previous.algorithms || !self.fetcher.is_like(&previous.fetcher) {
            return;
        }
        let last_end = previous.progress.borrow().last_end;
        self.current.store(Some(current));
        self.progress.send_replace(Progress { succeeded: true, ever_succeeded: true, last_end, ..Progress::default() });
    }

    /// Fetches and refreshes the set for ever; to be aborted with the configuration generation it belongs to.
    pub async fn run(self: Arc<Self>) {
        let mut client = None;
        let mut retry = FIRST_RETRY.min(self.cooldown);
        loop {
            let progress = *self.progress.borrow();
            if progress.begun == progress.ended {
                self.wait_until_due(progress, &mut retry).await;
                self.progress.send_modify(|progress| progress.begun = progress.ended + 1);
            }
            let fetched = self.fetch(&mut client).await;
            self.finish(fetched);
        }
    }

    /// Returns when the next fetch is due; gives up the set when it has become too old in the meantime.
    async fn wait_until_due(&self, progress: Progress, retry: &mut Duration) {
        let last_end = progress.last_end.unwrap_or_else(Instant::now);
        let cool = last_end + self.cooldown;
        let current = self.current.load_full();
        let due = match &current {
            Some(current) if progress.succeeded => (current.fetched + current.refresh_after).max(cool),
            _ if progress.ever_succeeded => cool,
            _ => {
                let pause = *retry;
                *retry = (pause * 2).min(self.cooldown);
                last_end + pause
            }
        };
        let mut stale = current.map(|current| current.fetched + self.max_stale);
        loop {
            let wake = stale.map_or(due, |stale| stale.min(due));
            tokio::select! {
                () = tokio::time::sleep_until(wake.into()) => {}
                // What was asked for within the cool-down is not asked for again: the call has been refused.
                () = self.wanted.notified() => if Instant::now() >= cool { return },
            }
            let now = Instant::now();
            if stale.is_some_and(|stale| now >= stale) {
                stale = None;
                self.current.store(None);
                tracing::error!(provider = &*self.name, "the key set is older than max_stale and no longer used");
            }
            if now >= due {
                return;
            }
        }
    }

    async fn fetch(&self, client: &mut Option<reqwest::Client>) -> Result<Current, FetchError> {
        let fetched = self.fetcher.fetch(client).await?;
        let (keys, left_out) = KeySet::parse(&fetched.body, Symmetric::Ignored, &self.algorithms).map_err(|unusable| match unusable {
            Unusable::Malformed => FetchError::new(FetchOutcome::Malformed, "not a JWK set"),
            Unusable::NoKey(reasons) => FetchError::new(FetchOutcome::NoUsableKey, reasons.join("; ")),
        })?;
        for reason in left_out {
            tracing::warn!(provider = &*self.name, "{reason}");
        }
        let asked = fetched.max_age.unwrap_or(self.refresh);
        // Refreshed before it is too old to be used, whatever the server says.
        let refresh_after = asked.min(LONGEST_REFRESH).min(self.max_stale / 2).max(self.cooldown);
        Ok(Current { keys: Arc::new(keys), fetched: Instant::now(), refresh_after })
    }

    fn finish(&self, fetched: Result<Current, FetchError>) {
        let outcome = match fetched {
            Ok(current) => {
                self.current.store(Some(Arc::new(current)));
                FetchOutcome::Success
            }
            Err(FetchError { outcome, detail }) => {
                tracing::warn!(provider = &*self.name, outcome = outcome.label(), "the key set could not be fetched: {detail}");
                outcome
            }
        };
        if let Some((_, count)) = FetchOutcome::ALL.iter().zip(&self.fetches).find(|(known, _)| **known == outcome) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.progress.send_modify(|progress| {
            progress.ended = progress.begun;
            progress.succeeded = outcome == FetchOutcome::Success;
            progress.ever_succeeded |= progress.succeeded;
            progress.last_end = Some(Instant::now());
        });
    }
}
