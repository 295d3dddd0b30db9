//! A key set behind a URL: when it is fetched, which calls wait for that, and how long its keys are believed.
//!
//! Fetches happen only in `run`, one at a time, on the control runtime. Calls read the current set without a lock; only
//! a call without a set, or with a key that the set does not know, waits for a fetch.

use super::jwks::{KeySet, Symmetric, Unusable};
use super::jwks_fetch::{FetchError, FetchOutcome, Fetcher};
use super::times::passed;
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
/// Reasons in one line of the log; a set may give a hundred.
const NAMED_REASONS: usize = 5;

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
    /// Why the last fetch failed, if it did.
    last_failure: ArcSwapOption<String>,
}

#[derive(Debug)]
struct Current {
    keys: Arc<KeySet>,
    /// Why keys of the document are not used.
    left_out: Vec<String>,
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
            last_failure: ArcSwapOption::empty(),
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

    /// Why a call cannot have the keys it needs, for the operator.
    pub(super) fn why_unavailable(&self) -> String {
        let had = match self.age() {
            Some(age) => format!("the token's key is not in the set fetched {} ago, and the fetch for it has not succeeded", passed(age)),
            None if self.has_keys() => format!("the key set is older than max_stale ({}) and given up", passed(self.max_stale)),
            None => "the key set has never been had".to_owned(),
        };
        match &*self.last_failure.load() {
            Some(why) => format!("{had}; the last fetch failed: {why}"),
            None => had,
        }
    }

    /// Fetches by outcome since they were last taken.
    pub fn take_fetches(&self) -> impl Iterator<Item = (FetchOutcome, u64)> {
        FetchOutcome::ALL.into_iter().zip(&self.fetches).map(|(outcome, count)| (outcome, count.swap(0, Ordering::Relaxed)))
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
        tokio::join!(self.keep_fetching(), self.keep_from_going_stale());
    }

    async fn keep_fetching(&self) {
        let mut client = None;
        loop {
            let progress = *self.progress.borrow();
            if progress.begun == progress.ended {
                self.wait_until_due(progress).await;
                self.progress.send_modify(|progress| progress.begun = progress.ended + 1);
            }
            let fetched = self.fetch(&mut client).await;
            self.finish(fetched);
        }
    }

    /// Returns when the next fetch is due.
    async fn wait_until_due(&self, progress: Progress) {
        let last_end = progress.last_end.unwrap_or_else(Instant::now);
        let cool = last_end + self.cooldown;
        let due = match &*self.current.load() {
            Some(current) if progress.succeeded => current.fetched + current.refresh_after,
            _ if progress.ever_succeeded => cool,
            // Until then every fetch has failed.
            _ => last_end + retry_after(progress.ended, self.cooldown),
        };
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => return,
                // What was asked for within the cool-down is not asked for again: the call has been refused.
                () = self.wanted.notified() => if Instant::now() >= cool { return },
            }
        }
    }

    /// Gives up a set that has become too old, also while a fetch hangs.
    async fn keep_from_going_stale(&self) {
        let mut progress = self.progress.subscribe();
        loop {
            let stale = self.current.load().as_ref().map(|current| current.fetched + self.max_stale);
            tokio::select! {
                // A set that has come at the last moment is looked at first.
                biased;
                _ = progress.changed() => {}
                () = tokio::time::sleep_until(stale.unwrap_or_else(Instant::now).into()), if stale.is_some() => {
                    self.current.store(None);
                    tracing::error!(
                        provider = &*self.name,
                        "the key set is older than max_stale and no longer used: this provider's tokens are refused with KEYS_UNAVAILABLE"
                    );
                }
            }
        }
    }

    async fn fetch(&self, client: &mut Option<reqwest::Client>) -> Result<Current, FetchError> {
        let fetched = self.fetcher.fetch(client).await?;
        let (keys, left_out) = KeySet::parse(&fetched.body, Symmetric::Ignored, &self.algorithms).map_err(|unusable| match unusable {
            Unusable::Malformed => FetchError::new(FetchOutcome::Malformed, "not a JWK set: expected JSON with a list `keys`"),
            Unusable::NoKey(reasons) => FetchError::new(FetchOutcome::NoUsableKey, format!("no usable key: {}", first_of(&reasons))),
        })?;
        // Ahead of the end that the server gives: keys change then.
        let asked = fetched.lasts.map_or(self.refresh, |lasts| lasts - lasts / 10);
        // Refreshed before it is too old to be used, whatever the server says.
        let refresh_after = asked.min(LONGEST_REFRESH).min(self.max_stale / 2).max(self.cooldown);
        Ok(Current { keys: Arc::new(keys), left_out, fetched: Instant::now(), refresh_after })
    }

    /// A fetch that brought `json`.
    #[cfg(test)]
    pub(super) fn put(&self, json: &[u8]) {
        let (keys, left_out) = KeySet::parse(json, Symmetric::Ignored, &self.algorithms).unwrap();
        self.finish(Ok(Current { keys: Arc::new(keys), left_out, fetched: Instant::now(), refresh_after: self.refresh }));
    }

    fn finish(&self, fetched: Result<Current, FetchError>) {
        let outcome = match fetched {
            Ok(current) => {
                // Once, not at every refresh: a set with keys for encryption beside ours is nothing to worry about.
                if self.current.load().as_ref().is_none_or(|previous| previous.left_out != current.left_out) {
                    let reasons = first_of(&current.left_out);
                    if !reasons.is_empty() {
                        tracing::warn!(provider = &*self.name, "of the key set: {reasons}");
                    }
                }
                self.current.store(Some(Arc::new(current)));
                self.last_failure.store(None);
                FetchOutcome::Success
            }
            Err(FetchError { outcome, detail }) => {
                let meanwhile = match self.current.load().is_some() {
                    true => "the one had before stays in use until max_stale",
                    false => "this provider's tokens are refused with KEYS_UNAVAILABLE",
                };
                tracing::warn!(
                    provider = &*self.name,
                    outcome = outcome.label(),
                    "the key set could not be fetched: {detail} ({meanwhile})"
                );
                self.last_failure.store(Some(Arc::new(detail)));
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

/// The pause after so many failures in a row from the start.
fn retry_after(failures: u64, cooldown: Duration) -> Duration {
    let doublings = u32::try_from(failures).unwrap_or(u32::MAX).saturating_sub(1);
    FIRST_RETRY.saturating_mul(2u32.saturating_pow(doublings)).min(cooldown)
}

/// So many that a line of the log is still a line.
fn first_of(reasons: &[String]) -> String {
    let named = reasons.get(..NAMED_REASONS).unwrap_or(reasons).join("; ");
    match reasons.len().saturating_sub(NAMED_REASONS) {
        0 => named,
        more => format!("{named}; and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::config::{HttpsUrl, KeyLocation};
    use serde_json::json;
    use std::collections::VecDeque;
    use std::pin::pin;
    use std::string::FromUtf8Error;
    use std::sync::Mutex;
    use std::task::{Context, Poll, Waker};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A key server that gives its answers one after the other, the last one for ever, and keeps the requests' heads.
    struct Server {
        url: String,
        requests: Arc<Mutex<Vec<String>>>,
    }

    impl Server {
        async fn start(answers: impl IntoIterator<Item = Vec<u8>>) -> Server {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let requests = Arc::new(Mutex::new(Vec::new()));
            let mut answers: VecDeque<Vec<u8>> = answers
                .into_iter()
                .map(|answer| {
                    String::from_utf8(answer).map_or_else(FromUtf8Error::into_bytes, |text| text.replace("URL", &url).into_bytes())
                })
                .collect();
            let seen = requests.clone();
            tokio::spawn(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut head = vec![0; 4096];
                    let length = stream.read(&mut head).await.unwrap();
                    seen.lock().unwrap().push(String::from_utf8_lossy(&head[..length]).into_owned());
                    let answer = if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() };
                    let _ = stream.write_all(&answer).await;
                }
            });
            Server { url, requests }
        }

        fn count(&self) -> usize {
            self.requests.lock().unwrap().len()
        }
    }

    fn answer(head: &str, body: &[u8]) -> Vec<u8> {
        let mut answer = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len()).into_bytes();
        answer.extend_from_slice(body);
        answer
    }

    fn good(kid: &str) -> Vec<u8> {
        answer("200 OK", &set(&[Key::Rsa.jwk(json!({ "kid": kid }))]))
    }

    fn remote(url: &str, change: impl FnOnce(&mut RemoteKeys)) -> Arc<RemoteKeySet> {
        let mut config = remote_keys(url);
        // A busy machine is not an outage; who waits for a timeout sets its own.
        config.timeout = Duration::from_secs(30);
        change(&mut config);
        Arc::new(RemoteKeySet::new("corporate".into(), &config, Some(ISSUER.to_owned()), &[Algorithm::RS256], true))
    }

    async fn fetched(answers: Vec<Vec<u8>>, change: impl FnOnce(&mut RemoteKeys)) -> FetchOutcome {
        let server = Server::start(answers).await;
        let set = remote(&server.url, change);
        match set.fetch(&mut None).await {
            Ok(_) => FetchOutcome::Success,
            Err(error) => {
                assert!(!error.detail.contains("hunter2"), "{error:?}");
                error.outcome
            }
        }
    }

    fn knows(kid: &str) -> impl Fn(&KeySet) -> bool {
        move |keys| keys.candidates(Algorithm::RS256, Some(kid)).next().is_some()
    }

    #[tokio::test]
    async fn only_a_plain_answer_is_taken() {
        assert_eq!(fetched(vec![good("1")], |_| {}).await, FetchOutcome::Success);
        for (bad, outcome) in [
            (answer("302 Found\r\nlocation: URL/other", b""), FetchOutcome::Status),
            (answer("500 Oh", b"hunter2"), FetchOutcome::Status),
            (answer("204 No Content", b""), FetchOutcome::Status),
            (answer("200 OK", b"hunter2"), FetchOutcome::Malformed),
            (answer("200 OK", &set(&[])), FetchOutcome::NoUsableKey),
            (answer("200 OK", &set(&[Key::P256.jwk(json!({}))])), FetchOutcome::NoUsableKey),
            (answer("200 OK", &vec![b' '; (1 << 20) + 1]), FetchOutcome::TooLarge),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec(), FetchOutcome::Transport),
            (b"hunter2\r\n\r\n".to_vec(), FetchOutcome::Transport),
        ] {
            // A redirect that were followed would find a good set.
            assert_eq!(
                fetched(vec![bad.clone(), good("1")], |_| {}).await,
                outcome,
                "{:?}",
                String::from_utf8_lossy(&bad[..30.min(bad.len())])
            );
        }
    }

    #[tokio::test]
    async fn a_compressed_answer_is_bounded_after_decompression() {
        let gzip = |body: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            std::io::Write::write_all(&mut encoder, body).unwrap();
            encoder.finish().unwrap()
        };
        let encoded = |coding: &str, body: &[u8]| answer(&format!("200 OK\r\ncontent-encoding: {coding}"), body);
        let good = set(&[Key::Rsa.jwk(json!({ "kid": "1" }))]);
        let bomb = gzip(&vec![b' '; 2 << 20]);
        assert!(bomb.len() < 20_000);
        for (answer, outcome) in [
            (encoded("gzip", &gzip(&good)), FetchOutcome::Success),
            (encoded("identity", &good), FetchOutcome::Success),
            (encoded("gzip", &bomb), FetchOutcome::TooLarge),
            (encoded("gzip", &good), FetchOutcome::Transport),
            (encoded("gzip, gzip", &gzip(&gzip(&good))), FetchOutcome::Malformed),
            // Who says so and sends something else has a bug that must not pass today and fail tomorrow.
            (encoded("br", &good), FetchOutcome::Malformed),
        ] {
            assert_eq!(fetched(vec![answer], |_| {}).await, outcome);
        }
    }

    #[tokio::test]
    async fn a_silent_server_is_given_up() {
        assert_eq!(fetched(vec![Vec::new()], |_| {}).await, FetchOutcome::Transport);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let silent = remote(&url, |config| config.timeout = Duration::from_millis(50));
        let asked = Instant::now();
        assert_eq!(silent.fetch(&mut None).await.unwrap_err().outcome, FetchOutcome::Timeout);
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
        drop(listener);
        let closed = remote(&url, |_| {});
        assert_eq!(closed.fetch(&mut None).await.unwrap_err().outcome, FetchOutcome::Transport);
        let elsewhere = remote("http://192.0.2.1/", |_| {});
        assert_eq!(elsewhere.fetch(&mut None).await.unwrap_err().outcome, FetchOutcome::Client, "http only to this machine");
        let no_roots = remote("https://127.0.0.1:1/", |config| config.ca = Some(file(b"-----BEGIN CERTIFICATE-----\nhunter2")));
        assert_eq!(no_roots.fetch(&mut None).await.unwrap_err().outcome, FetchOutcome::Client);
    }

    #[tokio::test]
    async fn discovery_names_the_set_and_must_be_the_issuers() {
        let document = |issuer: &str, uri: &str| answer("200 OK", json!({ "issuer": issuer, "jwks_uri": uri }).to_string().as_bytes());
        let discover = |answers: Vec<Vec<u8>>| async move {
            // The server writes its own URL where an answer says URL, and a length that fits.
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let own = url.clone();
            tokio::spawn(async move {
                for answer in answers {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let _ = stream.read(&mut [0; 4096]).await;
                    let text = String::from_utf8(answer).unwrap();
                    let (head, body) = text.split_once("\r\n\r\n").unwrap();
                    let body = body.replace("URL", &own);
                    let status = head.lines().next().unwrap();
                    let _ = stream.write_all(format!("{status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await;
                }
            });
            let set = remote("", |config| config.location = KeyLocation::Discovery(HttpsUrl(url)));
            set.fetch(&mut None).await.map(|_| ()).map_err(|error| error.outcome)
        };
        assert_eq!(discover(vec![document(ISSUER, "URL/jwks"), good("1")]).await, Ok(()));
        assert_eq!(discover(vec![document("https://evil.example/", "URL/jwks"), good("1")]).await, Err(FetchOutcome::Malformed));
        assert_eq!(discover(vec![answer("200 OK", b"{}"), good("1")]).await, Err(FetchOutcome::Malformed));
        for uri in ["http://192.0.2.1/jwks", "file:///etc/passwd", "https://user@example.com/", "jwks"] {
            assert_eq!(discover(vec![document(ISSUER, uri), good("1")]).await, Err(FetchOutcome::Malformed), "{uri}");
        }
    }

    #[tokio::test]
    async fn the_bearer_goes_to_no_place_that_only_a_document_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "hunter2\n").unwrap();
        let elsewhere = Server::start([answer("401 No", b""), good("1")]).await;
        let document = |place: &str| answer("200 OK", json!({ "issuer": ISSUER, "jwks_uri": place }).to_string().as_bytes());
        let issuers = Server::start([document(&format!("{}/jwks", elsewhere.url))]).await;
        let set = remote("", |config| {
            config.location = KeyLocation::Discovery(HttpsUrl(issuers.url.clone()));
            config.bearer_file = Some(path.clone());
        });
        // Who wants it there is told why it has not come.
        let refused = set.fetch(&mut None).await.unwrap_err();
        assert!(refused.outcome == FetchOutcome::Status && refused.detail.contains("not sent the token"), "{refused:?}");
        set.fetch(&mut None).await.unwrap();
        let bearers = |server: &Server| server.requests.lock().unwrap().iter().filter(|head| head.contains("hunter2")).count();
        assert_eq!((bearers(&issuers), issuers.count()), (2, 2));
        assert_eq!((bearers(&elsewhere), elsewhere.count()), (0, 2));
    }

    #[tokio::test]
    async fn the_bearer_file_is_read_at_each_fetch() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let server = Server::start([good("1")]).await;
        let set = remote(&server.url, |config| config.bearer_file = Some(path.clone()));
        assert_eq!(set.fetch(&mut None).await.unwrap_err().outcome, FetchOutcome::Client);
        for no_token in ["", "\n", "two words", "not\u{e9}ascii"] {
            std::fs::write(&path, no_token).unwrap();
            assert_eq!(set.fetch(&mut None).await.unwrap_err().outcome, FetchOutcome::Client, "{no_token:?}");
        }
        assert_eq!(server.count(), 0);
        for token in ["first", "second"] {
            std::fs::write(&path, format!("{token}\n")).unwrap();
            set.fetch(&mut None).await.unwrap();
            assert!(server.requests.lock().unwrap().last().unwrap().contains(&format!("authorization: Bearer {token}\r\n")));
        }
    }

    #[tokio::test]
    async fn the_first_calls_wait_for_the_fetch_in_flight_and_no_longer() {
        let server = Server::start([answer("500 Oh", b""), good("1")]).await;
        let set = remote(&server.url, |_| {});
        let waiting = tokio::spawn({
            let set = set.clone();
            async move { set.keys(knows("1")).await.map(|_| ()) }
        });
        tokio::task::yield_now().await;
        let task = tokio::spawn(set.clone().run());
        assert_eq!(waiting.await.unwrap(), Err(Unavailable), "the fetch failed");
        let at_once = pin!(set.keys(knows("1"))).poll(&mut Context::from_waker(Waker::noop())).map(|keys| keys.map(|_| ()));
        assert_eq!(at_once, Poll::Ready(Err(Unavailable)), "no fetch is in flight");
        assert!(!set.has_keys() && set.age().is_none());
        // The retry, after a second, brings it.
        let mut progress = set.progress.subscribe();
        progress.wait_for(|progress| progress.succeeded).await.unwrap();
        assert!(set.has_keys() && set.age().is_some());
        assert!(set.keys(knows("1")).await.is_ok());
        assert_eq!(
            set.take_fetches().filter(|(_, count)| *count > 0).map(|(outcome, count)| (outcome.label(), count)).collect::<Vec<_>>(),
            [("success", 1), ("status", 1)]
        );
        task.abort();
    }

    #[test]
    fn pauses_double_up_to_the_cool_down_until_the_first_success() {
        let pauses =
            |cooldown| [1, 2, 3, 4, 5, 6, 7, 99, u64::MAX].map(|failures| retry_after(failures, Duration::from_secs(cooldown)).as_secs());
        assert_eq!(pauses(30), [1, 2, 4, 8, 16, 30, 30, 30, 30]);
        assert_eq!(pauses(1), [1; 9]);
    }

    #[tokio::test]
    async fn an_unknown_key_is_worth_one_fetch_for_everyone_and_then_a_cool_down() {
        let server = Server::start([good("old"), good("new")]).await;
        let set = remote(&server.url, |config| config.cooldown = Duration::from_secs(2));
        let task = tokio::spawn(set.clone().run());
        set.keys(knows("old")).await.unwrap();
        // Within the cool-down: refused at once, nothing fetched.
        let keys = set.keys(knows("new")).await.unwrap();
        assert!(!knows("new")(&keys));
        // Nor for who has asked just before the last fetch began.
        set.wanted.notify_one();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(server.count(), 1);
        let cooled = set.progress.borrow().last_end.unwrap() + Duration::from_secs(2);
        tokio::time::sleep_until(cooled.into()).await;
        let (one, two, known) = tokio::join!(set.keys(knows("new")), set.keys(knows("new")), set.keys(knows("old")));
        assert!(knows("new")(&one.unwrap()) && knows("new")(&two.unwrap()));
        assert!(knows("old")(&known.unwrap()), "known keys never wait");
        assert_eq!(server.count(), 2);
        task.abort();
    }

    #[tokio::test]
    async fn no_call_waits_longer_than_a_fetch_may_take() {
        let never_run = remote("http://127.0.0.1:1/", |config| config.timeout = Duration::from_millis(20));
        let waited = tokio::time::timeout(Duration::from_secs(10), never_run.keys(knows("1"))).await;
        assert_eq!(waited.unwrap().map(|_| ()), Err(Unavailable));
    }

    #[tokio::test]
    async fn an_outage_keeps_the_keys_until_they_are_stale() {
        let server = Server::start([good("1"), answer("500 Oh", b""), answer("200 OK", &self::set(&[]))]).await;
        let set = remote(&server.url, |config| {
            config.refresh = Duration::from_millis(50);
            config.cooldown = Duration::from_millis(50);
            config.max_stale = Duration::from_secs(4);
        });
        let task = tokio::spawn(set.clone().run());
        let mut progress = set.progress.subscribe();
        progress.wait_for(|progress| progress.ended >= 3).await.unwrap();
        // A failed refresh and one without a usable key have kept the old keys; a key that may be newer is no client's fault.
        assert!(set.keys(knows("1")).await.is_ok());
        assert_eq!(set.keys(knows("2")).await.map(|_| ()), Err(Unavailable));
        let fetched = Instant::now() - set.age().unwrap();
        tokio::time::sleep_until((fetched + Duration::from_millis(4050)).into()).await;
        progress.wait_for(|_| set.age().is_none()).await.unwrap();
        assert_eq!(set.keys(knows("1")).await.map(|_| ()), Err(Unavailable));
        assert!(set.has_keys(), "it has been had once");
        task.abort();
    }

    #[tokio::test]
    async fn keys_are_stale_also_while_a_fetch_hangs() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let set = remote(&url, |config| {
            (config.refresh, config.cooldown) = (Duration::from_millis(50), Duration::from_millis(50));
            (config.max_stale, config.timeout) = (Duration::from_secs(4), Duration::from_secs(3600));
        });
        let task = tokio::spawn(set.clone().run());
        let (mut first, _) = listener.accept().await.unwrap();
        first.write_all(&good("1")).await.unwrap();
        assert!(set.keys(knows("1")).await.is_ok());
        let (_second, _) = listener.accept().await.unwrap();
        assert!(set.age().is_some_and(|age| age < Duration::from_secs(4)), "the refresh hangs before they are stale");
        let gone = async {
            while set.age().is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
        task.abort();
    }

    #[tokio::test]
    async fn the_servers_max_age_is_heard_within_bounds() {
        let lasts_of = |header: &'static str, max_stale: u64| async move {
            let body = self::set(&[Key::Rsa.jwk(json!({}))]);
            let server = Server::start([answer(&format!("200 OK\r\ncache-control: {header}"), &body)]).await;
            let set = remote(&server.url, |config| config.max_stale = Duration::from_secs(max_stale * 3600));
            set.fetch(&mut None).await.unwrap().refresh_after.as_secs()
        };
        let lasts = |header| lasts_of(header, 24);
        assert_eq!(lasts_of("max-age=99999999", 1000).await, 86_400, "once a day");
        assert_eq!(lasts("public, max-age=100, must-revalidate").await, 90, "ahead of its end");
        assert_eq!(lasts("public\r\ncache-control: max-age=\"100\"\r\nage: 40").await, 54, "what is left of it");
        assert_eq!(lasts("Max-Age=3").await, 30, "the cool-down");
        assert_eq!(lasts("max-age=99999999").await, 43_200, "half of max_stale");
        for nothing in ["no-cache", "max-age=0", "max-age=x", "max-age=-1", "max-age=100\r\nage: 100", "max-age=99999999999999999999"] {
            assert_eq!(lasts(nothing).await, 600, "{nothing}");
        }
    }

    #[tokio::test]
    async fn a_reload_takes_over_what_was_fetched_from_the_same_source() {
        let server = Server::start([good("1")]).await;
        let previous = remote(&server.url, |_| {});
        previous.put(&self::set(&[Key::Rsa.jwk(json!({ "kid": "1" }))]));
        let same = remote(&server.url, |config| config.refresh = Duration::from_secs(60));
        same.adopt(&previous);
        assert!(same.has_keys() && same.keys(knows("1")).await.is_ok());
        let task = tokio::spawn(same.run());
        tokio::task::yield_now().await;
        assert_eq!(server.count(), 0, "not before it is due");
        task.abort();
        let other = remote("http://127.0.0.1:1/other", |_| {});
        other.adopt(&previous);
        assert!(!other.has_keys());
        let keys = remote_keys(&server.url);
        for (name, algorithm) in [("corporate", Algorithm::ES256), ("other", Algorithm::RS256)] {
            let other = RemoteKeySet::new(name.into(), &keys, Some(ISSUER.to_owned()), &[algorithm], true);
            other.adopt(&previous);
            assert!(!other.has_keys(), "{name} {algorithm:?}");
        }
    }
}
