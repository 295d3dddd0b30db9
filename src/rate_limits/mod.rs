//! HOW OFTEN: the local rate limits. A bucket for each caller counts its calls, one for each peer its failed
//! authentications; both only when configured.
//!
//! Here is who has which bucket, and for how long it is remembered; `bucket` is the counting. Keys are what was verified
//! or seen (an identity, an address), never what somebody says; how many there may be is bounded.

mod bucket;

pub use bucket::Bucket;

use crate::config::{self, Rate};
use crate::identity::Identity;
use crate::secret::Digest;
use bucket::Pace;
use moka::sync::Cache;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Buckets of one limit: some megabytes. Past that those that are asked for least go, and are full when they come back.
pub const MOST_BUCKETS: u64 = 20_000;

/// The limits of one configuration generation, with what is left of them.
#[derive(Debug, Default)]
pub struct RateLimits {
    per_identity: Option<Buckets<Digest>>,
    failed_authentication_per_peer: Option<Buckets<IpAddr>>,
}

/// A limit has bitten. The `Display` is for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OverRate {
    key: &'static str,
    rate: Rate,
    /// How long until it would not.
    pub retry_after: RetryAfter,
}

/// Whole milliseconds, and none too few: who waits so long is not refused again. Small, as every call has room for one; a
/// bucket of the slowest rate gives one an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RetryAfter(u32);

impl RetryAfter {
    fn at_least(wait: Duration) -> RetryAfter {
        RetryAfter(u32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX))
    }

    /// The time.
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0.into())
    }
}

impl fmt::Display for OverRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "over rate_limits.{}, {}; the next is due in {} ms", self.key, self.rate, self.retry_after.0)
    }
}

/// A caller's bucket, once it is known: credentials of one identity share it.
pub type OwnBucket = OnceLock<Arc<Bucket>>;

impl RateLimits {
    /// With full buckets.
    pub fn new(config: &config::RateLimits) -> RateLimits {
        let config::RateLimits { per_identity, failed_authentication_per_peer } = *config;
        RateLimits {
            per_identity: per_identity.map(|rate| Buckets::new("per_identity", rate, None)),
            // After that long without a look at it a bucket is full: forgetting it changes nothing.
            failed_authentication_per_peer: failed_authentication_per_peer
                .map(|rate| Buckets::new("failed_authentication_per_peer", rate, Some(rate.per.duration()))),
        }
    }

    /// Those of the next generation: a limit whose rate stays the same keeps its buckets as they are.
    pub fn succeeded_by(&self, config: &config::RateLimits) -> RateLimits {
        let next = RateLimits::new(config);
        RateLimits {
            per_identity: kept(&self.per_identity, next.per_identity),
            failed_authentication_per_peer: kept(&self.failed_authentication_per_peer, next.failed_authentication_per_peer),
        }
    }

    /// Counts a call of `identity`, whose bucket is looked for only once and then kept in `own`: without this limit a call
    /// costs nothing here, with it one compare-exchange and a look at the clock.
    ///
    /// # Errors
    /// One call too many.
    pub fn count_call(&self, identity: &Identity, own: &OwnBucket, now: impl FnOnce() -> Instant) -> Result<(), OverRate> {
        let Some(buckets) = &self.per_identity else { return Ok(()) };
        let now = now();
        let bucket = own.get_or_init(|| buckets.of(identity_key(identity), now));
        bucket.take(now).map_err(|wait| buckets.over(wait))
    }

    /// The failed authentications of a peer; `None` for one without an address, which is not limited.
    pub fn attempts(&self, peer: Option<IpAddr>) -> Attempts<'_> {
        Attempts(self.failed_authentication_per_peer.as_ref().zip(peer))
    }
}

/// The failed authentications of one peer. The default: nobody's, without a limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attempts<'a>(Option<(&'a Buckets<IpAddr>, IpAddr)>);

impl Attempts<'_> {
    /// Whether another one may be made.
    ///
    /// # Errors
    /// Too many have failed.
    pub fn check(&self, now: impl FnOnce() -> Instant) -> Result<(), OverRate> {
        let Some((buckets, peer)) = &self.0 else { return Ok(()) };
        let bucket = buckets.by_key.get(&network(*peer));
        bucket.map_or(Ok(()), |bucket| bucket.look(now())).map_err(|wait| buckets.over(wait))
    }

    /// Counts one that has failed.
    ///
    /// # Errors
    /// It is one too many: several were made at the same time.
    pub fn count(&self, now: impl FnOnce() -> Instant) -> Result<(), OverRate> {
        let Some((buckets, peer)) = &self.0 else { return Ok(()) };
        let now = now();
        buckets.of(network(*peer), now).take(now).map_err(|wait| buckets.over(wait))
    }
}

/// The buckets of one limit. A clone is the same buckets.
#[derive(Debug, Clone)]
struct Buckets<K: Hash + Eq + Send + Sync + 'static> {
    key: &'static str,
    rate: Rate,
    by_key: Cache<K, Arc<Bucket>>,
}

impl<K: Hash + Eq + Send + Sync + 'static> Buckets<K> {
    fn new(key: &'static str, rate: Rate, forgotten_after: Option<Duration>) -> Buckets<K> {
        let cache = Cache::builder().max_capacity(MOST_BUCKETS);
        let cache = forgotten_after.into_iter().fold(cache, |cache, idle| cache.time_to_idle(idle));
        Buckets { key, rate, by_key: cache.build() }
    }

    fn of(&self, key: K, now: Instant) -> Arc<Bucket> {
        self.by_key.get_with(key, || Arc::new(Bucket::new(Pace::of(self.rate), now)))
    }

    fn over(&self, wait: Duration) -> OverRate {
        OverRate { key: self.key, rate: self.rate, retry_after: RetryAfter::at_least(wait) }
    }
}

fn kept<K: Clone + Hash + Eq + Send + Sync + 'static>(previous: &Option<Buckets<K>>, next: Option<Buckets<K>>) -> Option<Buckets<K>> {
    let next = next?;
    Some(previous.clone().filter(|previous| previous.rate == next.rate).unwrap_or(next))
}

/// The user, else the client. A digest: as long for every identity, however long its name.
fn identity_key(identity: &Identity) -> Digest {
    let (what, name): (&[u8], _) = match (&identity.user_id, &identity.client_id) {
        (Some(user), _) => (b"user\0", user.as_bytes()),
        (None, Some(client)) => (b"client\0", client.as_bytes()),
        // No credential leads here; if one ever did, all its holders would share a bucket.
        (None, None) => (b"nobody\0", b"".as_slice()),
    };
    Digest::of_parts(&[what, name])
}

/// Who is one peer: an IPv4 address, or the network of 64 bits that an IPv6 host has all of for itself.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RateUnit;

    fn limits(per_identity: u32, per_peer: u32) -> config::RateLimits {
        let rate = |count| (count > 0).then_some(Rate { count, per: RateUnit::Hour });
        config::RateLimits { per_identity: rate(per_identity), failed_authentication_per_peer: rate(per_peer) }
    }

    fn user(name: &str) -> Identity {
        Identity { user_id: Some(name.into()), client_id: Some("a client".into()), ..Identity::default() }
    }

    fn client(name: &str) -> Identity {
        Identity { client_id: Some(name.into()), ..Identity::default() }
    }

    /// How many of several calls are let through, with a new credential each time.
    fn passed(limits: &RateLimits, identity: &Identity, calls: usize, now: Instant) -> usize {
        (0..calls).filter(|_| limits.count_call(identity, &OwnBucket::new(), || now).is_ok()).count()
    }

    #[test]
    fn credentials_of_one_identity_share_a_bucket_and_others_do_not() {
        let (limits, now) = (RateLimits::new(&limits(3, 0)), Instant::now());
        assert_eq!(passed(&limits, &user("x"), 5, now), 3);
        assert_eq!(passed(&limits, &user("y"), 5, now), 3);
        assert_eq!(passed(&limits, &client("x"), 5, now), 3, "a client is no user");
        let refused = limits.count_call(&user("x"), &OwnBucket::new(), || now).unwrap_err();
        assert_eq!(refused.to_string(), "over rate_limits.per_identity, 3/h; the next is due in 1200000 ms");
        assert_eq!(refused.retry_after.duration(), Duration::from_secs(1200));
        assert_eq!(RetryAfter::at_least(Duration::from_nanos(1_000_001)).duration(), Duration::from_millis(2));
        assert_eq!(passed(&limits, &user("x"), 5, now + refused.retry_after.duration()), 1);
    }

    #[test]
    fn a_caller_looks_for_its_bucket_once() {
        let (limits, now, own) = (RateLimits::new(&limits(2, 0)), Instant::now(), OwnBucket::new());
        let call = || limits.count_call(&user("x"), &own, || now).is_ok();
        assert_eq!([call(), call(), call()], [true, true, false]);
        let shared = limits.per_identity.as_ref().unwrap().of(identity_key(&user("x")), now);
        assert!(Arc::ptr_eq(own.get().unwrap(), &shared));
    }

    #[test]
    fn without_a_limit_nobody_looks_at_the_clock() {
        let limits = RateLimits::default();
        let own = OwnBucket::new();
        assert_eq!(limits.count_call(&user("x"), &own, || unreachable!()), Ok(()));
        assert!(own.get().is_none());
        let attempts = limits.attempts("10.0.0.1".parse().ok());
        assert_eq!((attempts.check(|| unreachable!()), attempts.count(|| unreachable!())), (Ok(()), Ok(())));
    }

    #[test]
    fn only_failures_of_the_same_peer_count() {
        let (limits, now) = (RateLimits::new(&limits(0, 2)), Instant::now());
        let of = |peer: &str| limits.attempts(Some(peer.parse().unwrap()));
        for _ in 0..10 {
            assert_eq!(of("10.0.0.1").check(|| now), Ok(()), "looking costs nothing");
        }
        assert_eq!([of("10.0.0.1").count(|| now), of("10.0.0.1").count(|| now)], [Ok(()), Ok(())]);
        assert!(of("10.0.0.1").check(|| now).is_err() && of("10.0.0.1").count(|| now).is_err());
        assert!(of("::ffff:10.0.0.1").check(|| now).is_err(), "the same, on a dual-stack socket");
        assert_eq!(of("10.0.0.2").check(|| now), Ok(()));
        assert_eq!(limits.attempts(None).check(|| now), Ok(()), "a Unix socket has no address");
        assert_eq!(of("10.0.0.1").check(|| now + Duration::from_secs(1800)), Ok(()));
    }

    #[test]
    fn an_ipv6_host_is_its_network() {
        let of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("2001:db8:1:2:ffff::"), "2001:db8:1:2::");
        assert_eq!(of("2001:db8:1:3::1"), "2001:db8:1:3::");
        assert_eq!((of("::ffff:10.0.0.1"), of("10.0.0.1")), ("10.0.0.1".to_owned(), "10.0.0.1".to_owned()));
    }

    #[test]
    fn a_new_generation_forgets_only_what_has_another_rate() {
        let (first, now) = (RateLimits::new(&limits(2, 1)), Instant::now());
        let peer = "10.0.0.1".parse().ok();
        assert_eq!(passed(&first, &user("x"), 5, now), 2);
        assert_eq!(first.attempts(peer).count(|| now), Ok(()));
        let same = first.succeeded_by(&limits(2, 1));
        assert_eq!(passed(&same, &user("x"), 5, now), 0);
        assert!(same.attempts(peer).check(|| now).is_err());
        let other = same.succeeded_by(&limits(4, 1));
        assert_eq!(passed(&other, &user("x"), 5, now), 4);
        assert!(other.attempts(peer).check(|| now).is_err());
        let off = other.succeeded_by(&limits(0, 0));
        assert_eq!(passed(&off, &user("x"), 5, now), 5);
    }

    #[test]
    fn no_crowd_takes_more_memory_than_its_bound() {
        let (limits, now) = (RateLimits::new(&limits(0, 1)), Instant::now());
        for host in 0..3 * MOST_BUCKETS as u32 {
            let _ = limits.attempts(Some(IpAddr::V4(host.into()))).count(|| now);
        }
        let buckets = limits.failed_authentication_per_peer.unwrap().by_key;
        buckets.run_pending_tasks();
        assert!(buckets.entry_count() <= MOST_BUCKETS, "{}", buckets.entry_count());
    }
}
