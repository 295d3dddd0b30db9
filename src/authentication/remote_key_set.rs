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
        let asked = fetched.max_age.unwrap_or(self.refresh);
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
                    current.left_out.iter().for_each(|reason| tracing::warn!(provider = &*self.name, "{reason}"));
                }
                self.current.store(Some(Arc::new(current)));
                self.last_failure.store(None);
                FetchOutcome::Success
            }
            Err(FetchError { outcome, detail }) => {
                tracing::warn!(provider = &*self.name, outcome = outcome.label(), "the key set could not be fetched: {detail}");
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

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::config::{HttpsUrl, KeyLocation};
    use serde_json::json;
    use std::collections::VecDeque;
    use std::sync::Mutex;
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
            let mut answers: VecDeque<Vec<u8>> =
                answers.into_iter().map(|answer| String::from_utf8_lossy(&answer).replace("URL", &url).into_bytes()).collect();
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
        config.timeout = Duration::from_millis(500);
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
        // A gzip member of stored blocks (RFC 1951 §3.2.4), then of 2 MiB of spaces as a bomb would be: size is counted decoded.
        let gzip = |body: &[u8]| {
            let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
            let mut chunks = body.chunks(0xffff).peekable();
            while let Some(chunk) = chunks.next() {
                let length = chunk.len() as u16;
                out.push(u8::from(chunks.peek().is_none()));
                out.extend(length.to_le_bytes());
                out.extend((!length).to_le_bytes());
                out.extend_from_slice(chunk);
            }
            let crc = !body.iter().fold(!0u32, |crc, byte| {
                (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
            });
            out.extend(crc.to_le_bytes());
            out.extend((body.len() as u32).to_le_bytes());
            out
        };
        let set = set(&[Key::Rsa.jwk(json!({ "kid": "1" }))]);
        let server = |body: &[u8]| {
            let answer = answer("200 OK\r\ncontent-encoding: gzip", body);
            async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let url = format!("http://{}", listener.local_addr().unwrap());
                tokio::spawn(async move {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let _ = stream.read(&mut [0; 4096]).await;
                    let _ = stream.write_all(&answer).await;
                });
                remote(&url, |_| {}).fetch(&mut None).await
            }
        };
        assert!(server(&gzip(&set)).await.is_ok());
        assert_eq!(server(&gzip(&vec![b' '; 2 << 20])).await.unwrap_err().outcome, FetchOutcome::TooLarge);
        // Fixed Huffman codes: one space, then copies of 258 bytes from distance 1: 2 KiB that become 2 MiB.
        let mut bits: Vec<bool> = vec![true, true, false];
        let code = |bits: &mut Vec<bool>, value: u32, length: u32| bits.extend((0..length).rev().map(|bit| value >> bit & 1 == 1));
        code(&mut bits, 0x30 + 32, 8);
        for _ in 0..(2 << 20) / 258 {
            code(&mut bits, 0b1100_0101, 8);
            code(&mut bits, 0, 5);
        }
        code(&mut bits, 0, 7);
        let deflated = bits.chunks(8).map(|byte| byte.iter().enumerate().map(|(place, bit)| u8::from(*bit) << place).sum::<u8>());
        let bomb: Vec<u8> = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255].into_iter().chain(deflated).chain([0; 8]).collect();
        assert!(bomb.len() < 20_000);
        assert_eq!(server(&bomb).await.unwrap_err().outcome, FetchOutcome::TooLarge);
    }

    #[tokio::test]
    async fn a_silent_server_is_given_up() {
        assert_eq!(fetched(vec![Vec::new()], |config| config.timeout = Duration::from_millis(50)).await, FetchOutcome::Transport);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let silent = remote(&url, |config| config.timeout = Duration::from_millis(50));
        assert_eq!(silent.fetch(&mut None).await.unwrap_err().outcome, FetchOutcome::Timeout);
        drop(listener);
        assert_eq!(silent.fetch(&mut None).await.unwrap_err().outcome, FetchOutcome::Transport);
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
    async fn the_bearer_file_is_read_at_each_fetch() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let server = Server::start([good("1")]).await;
        let set = remote(&server.url, |config| config.bearer_file = Some(path.clone()));
        assert_eq!(set.fetch(&mut None).await.unwrap_err().outcome, FetchOutcome::Client);
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
        let asked = Instant::now();
        assert_eq!(set.keys(knows("1")).await.map(|_| ()), Err(Unavailable), "no fetch is in flight");
        assert!(asked.elapsed() < Duration::from_millis(400));
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

    #[tokio::test]
    async fn an_unknown_key_is_worth_one_fetch_for_everyone_and_then_a_cool_down() {
        let server = Server::start([good("old"), good("new")]).await;
        let set = remote(&server.url, |config| config.cooldown = Duration::from_millis(300));
        let task = tokio::spawn(set.clone().run());
        set.keys(knows("old")).await.unwrap();
        // Within the cool-down: refused at once, nothing fetched.
        let keys = set.keys(knows("new")).await.unwrap();
        assert!(!knows("new")(&keys));
        assert_eq!(server.count(), 1);
        let cooled = set.progress.borrow().last_end.unwrap() + Duration::from_millis(300);
        tokio::time::sleep_until(cooled.into()).await;
        let (one, two, known) = tokio::join!(set.keys(knows("new")), set.keys(knows("new")), set.keys(knows("old")));
        assert!(knows("new")(&one.unwrap()) && knows("new")(&two.unwrap()));
        assert!(knows("old")(&known.unwrap()), "known keys never wait");
        assert_eq!(server.count(), 2);
        task.abort();
    }

    #[tokio::test]
    async fn an_outage_keeps_the_keys_until_they_are_stale() {
        let server = Server::start([good("1"), answer("500 Oh", b""), answer("200 OK", &self::set(&[]))]).await;
        let set = remote(&server.url, |config| {
            config.refresh = Duration::from_millis(50);
            config.cooldown = Duration::from_millis(50);
            config.max_stale = Duration::from_millis(600);
        });
        let task = tokio::spawn(set.clone().run());
        let mut progress = set.progress.subscribe();
        progress.wait_for(|progress| progress.ended >= 3).await.unwrap();
        // A failed refresh and one without a usable key have kept the old keys; a key that may be newer is no client's fault.
        assert!(set.keys(knows("1")).await.is_ok());
        assert_eq!(set.keys(knows("2")).await.map(|_| ()), Err(Unavailable));
        let fetched = Instant::now() - set.age().unwrap();
        tokio::time::sleep_until((fetched + Duration::from_millis(650)).into()).await;
        progress.wait_for(|_| set.age().is_none()).await.unwrap();
        assert_eq!(set.keys(knows("1")).await.map(|_| ()), Err(Unavailable));
        assert!(set.has_keys(), "it has been had once");
        task.abort();
    }

    #[tokio::test]
    async fn the_servers_max_age_is_heard_within_bounds() {
        let lasts = |header: &'static str| async move {
            let body = self::set(&[Key::Rsa.jwk(json!({}))]);
            let server = Server::start([answer(&format!("200 OK\r\ncache-control: {header}"), &body)]).await;
            remote(&server.url, |_| {}).fetch(&mut None).await.unwrap().refresh_after.as_secs()
        };
        assert_eq!(lasts("public, max-age=100, must-revalidate").await, 100);
        assert_eq!(lasts("Max-Age=3").await, 30, "the cool-down");
        assert_eq!(lasts("max-age=99999999").await, 43_200, "half of max_stale");
        for nothing in ["no-cache", "max-age=0", "max-age=x", "max-age=-1"] {
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
    }
}
