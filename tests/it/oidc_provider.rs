//! Tokens, discovery and key rotation of a real OpenID provider (the npm package `oidc-provider`), over https with its own CA.

use crate::harness::token::RSA;
use crate::harness::*;
use serde_json::json;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const GET: &str = "/demo.v1.Users/Get";
const CHANGE: &str = "/demo.v1.Users/Change";
const USERS: &str = "https://users.test/";

/// The users API behind a provider found by discovery; `more` are further keys of the provider's entry.
fn configured(issuer: &str, more: &str) -> String {
    format!(
        "authentication:
  jwt:
    - name: corporate
      issuer: \"{issuer}\"
      audiences: [users-api, web]
      algorithms: [RS256, ES256]
      discovery: true
      jwks_ca: ca.pem
      claims: {{ roles: realm_access.roles, client_id: client_id, permissions: scope }}
      {more}
authorization:
  roles: {{ viewer: [users:read], editor: [users:write] }}
  methods: {{ {GET}: users:read, {CHANGE}: users:write }}
"
    )
}

struct Running {
    provider: OpenIdProvider,
    upstream: PythonUpstream,
    doorward: Doorward,
}

fn running(more: &str) -> Running {
    let (site, upstream) = (Site::new(), PythonUpstream::start());
    let provider = OpenIdProvider::start(&site);
    let doorward = site.start(&configuration(&upstream.url(), &configured(&provider.issuer, more)));
    Running { provider, upstream, doorward }
}

#[test]
fn a_clients_access_token_is_its_client_with_its_scopes_and_for_us_alone() {
    let Running { mut provider, upstream, doorward } = running("token_types: [at+jwt]");
    let reader = provider.client_token(USERS, "users:read");
    let writer = provider.client_token(USERS, "users:read users:write");
    let elsewhere = provider.client_token("https://orders.test/", "users:read");
    let (id_token, access_token) = provider.sign_in("alice");
    let answers = doorward.calls(&[
        call(GET).bearer(&reader),
        call(CHANGE).bearer(&reader),
        call(CHANGE).bearer(&writer),
        call(GET).bearer(&elsewhere),
        call(GET).bearer(&access_token),
        call(GET).bearer(&id_token),
    ]);
    let refusals: Vec<(u64, &str)> = answers.iter().map(Answer::refusal).collect();
    let expected = [(0, ""), (7, "PERMISSION_MISSING"), (0, ""), (16, "TOKEN_AUDIENCE"), (0, ""), (16, "TOKEN_CLAIM")];
    assert_eq!(refusals, expected, "an ID token is no at+jwt");
    upstream.assert_calls(3);
    assert_eq!(answers[0].upstream_saw("client_id"), ["batch"]);
    assert_eq!(answers[0].upstream_saw("permissions"), ["users:read"]);
    assert_eq!(answers[2].upstream_saw("permissions"), ["users:read,users:write"]);
    for absent in ["user_email", "user_name", "roles", "authorization"] {
        assert!(answers[0].upstream_saw(absent).is_empty(), "{absent}");
    }
}

#[test]
fn a_user_who_signed_in_is_known_by_id_token_and_by_access_token() {
    let Running { mut provider, upstream: _upstream, doorward } = running("");
    let (id_token, access_token) = provider.sign_in("alice");
    let (_, of_bob) = provider.sign_in("bob");
    let answers = doorward.calls(&[
        call(CHANGE).bearer(&id_token),
        call(CHANGE).bearer(&access_token),
        call(GET).bearer(&of_bob),
        call(CHANGE).bearer(&of_bob),
    ]);
    for answer in &answers[..2] {
        assert_eq!(answer.upstream_saw("user_id"), ["alice"]);
        assert_eq!(answer.upstream_saw("user_email"), ["alice@example.com"]);
        assert_eq!(answer.upstream_saw("user_name"), ["Alice Liddell"]);
        assert_eq!(answer.upstream_saw("roles"), ["editor,viewer"]);
        assert_eq!(answer.upstream_saw("permissions"), ["users:read,users:write"]);
        assert!(answer.upstream_saw("authorization").is_empty());
    }
    // Only an access token says which application it was given to.
    assert_eq!([answers[0].upstream_saw("client_id"), answers[1].upstream_saw("client_id")], [vec![], vec!["web".to_owned()]]);
    assert_eq!(answers[2].upstream_saw("user_id"), ["bob"]);
    assert!(answers[2].upstream_saw("user_email").is_empty(), "the provider does not call it verified");
    assert_eq!(answers[3].refusal(), (7, "PERMISSION_MISSING"));
}

#[test]
fn a_discovery_document_of_another_issuer_is_no_source_of_keys() {
    let (site, upstream) = (Site::new(), PythonUpstream::start());
    let mut provider = OpenIdProvider::start(&site);
    // As operators get it wrong: everything but the one final slash is right.
    let issuer = format!("{}/", provider.issuer);
    let doorward = site.start_unready(&configuration(&upstream.url(), &configured(&issuer, "")));
    let refused = || doorward.metric("doorward_key_set_fetches_total", &["provider=\"corporate\"", "outcome=\"malformed\""]);
    eventually("a fetch that is refused", || (refused() >= 1.0).then_some(()));
    assert_eq!(doorward.get("/readyz").0, 503);
    let of_configured = RSA.token(&claims(json!({ "iss": issuer })));
    let answers = doorward.calls(&[call(GET).bearer(&of_configured), call(GET).bearer(&provider.client_token(USERS, "users:read"))]);
    assert_eq!(answers.iter().map(Answer::refusal).collect::<Vec<_>>(), [(14, "KEYS_UNAVAILABLE"), (16, "TOKEN_ISSUER")]);
    eventually("the log", || doorward.stderr().contains("another issuer's").then_some(()));
    assert!(upstream.calls().is_empty());
}

#[test]
fn a_provider_that_signs_with_a_new_key_at_once_is_asked_once() {
    let Running { mut provider, upstream: _upstream, doorward } = running("cooldown: 1s");
    let before = provider.client_token(USERS, "users:read");
    assert_eq!(doorward.call(call(GET).bearer(&before)).code(), 0);
    eventually("the end of the cool-down", || (doorward.metric("doorward_key_set_age_seconds", &[]) > 1.0).then_some(()));
    provider.publish_new_key();
    provider.sign_with_new_key();
    let after: Vec<String> = (0..5).map(|_| provider.client_token(USERS, "users:read")).collect();
    let fetches = fetches(&doorward);
    let calls: Vec<Call> =
        after.iter().chain([&before]).cycle().take(30).map(|token| call(GET).bearer(token).with("together", true)).collect();
    let answers = doorward.calls(&calls);
    assert!(answers.iter().all(|answer| answer.code() == 0), "{:?}", answers.iter().map(Answer::refusal).collect::<Vec<_>>());
    assert_eq!(self::fetches(&doorward) - fetches, 1.0);
}

#[test]
fn calls_go_on_through_a_rotation_and_a_withdrawn_key_ends_within_a_refresh() {
    let Running { mut provider, upstream: _upstream, doorward } = running("refresh: 1s\n      cooldown: 1s");
    let old = provider.client_token(USERS, "users:read");
    let (old_user, _) = provider.sign_in("alice");
    let old_unseen = provider.client_token(USERS, "users:read");
    let stream = Stream::of([&old, &old_user]);
    let (refused, answers) = std::thread::scope(|scope| {
        let calls = scope.spawn(|| stream.run(&doorward));
        stream.pass();
        provider.publish_new_key();
        refreshed(&doorward);
        provider.sign_with_new_key();
        let (new, (new_user, _)) = (provider.client_token(USERS, "users:read"), provider.sign_in("alice"));
        stream.change([&old, &old_user, &new, &new_user]);
        refreshed(&doorward);
        stream.change([&new, &new_user]);
        provider.withdraw_old_keys();
        refreshed(&doorward);
        let answers = doorward.calls(&[&old, &old_user, &old_unseen, &new].map(|token| call(GET).bearer(token)));
        stream.end();
        (calls.join().unwrap(), answers)
    });
    assert_eq!(refused, [], "a valid token was refused");
    let unknown = (16, "TOKEN_KEY_UNKNOWN");
    let withdrawn: Vec<_> = answers.iter().map(Answer::refusal).collect();
    assert_eq!(withdrawn, [unknown, unknown, unknown, (0, "")], "old ones, with and without a verdict from before, and a new one");
}

/// Waits for a fetch of the key set that has certainly begun after now.
#[track_caller]
fn refreshed(doorward: &Doorward) {
    let before = fetches(doorward);
    eventually("a refresh", || (fetches(doorward) >= before + 2.0).then_some(()));
}

fn fetches(doorward: &Doorward) -> f64 {
    doorward.metric("doorward_key_set_fetches_total", &["outcome=\"success\""])
}

/// Calls without a pause, in rounds of one with each of the current tokens.
struct Stream {
    tokens: Mutex<Vec<String>>,
    /// Set by each round that has passed whole.
    passed: AtomicBool,
    ended: AtomicBool,
}

impl Stream {
    fn of<const N: usize>(tokens: [&String; N]) -> Stream {
        Stream { tokens: Mutex::new(tokens.map(String::clone).into()), passed: AtomicBool::new(false), ended: AtomicBool::new(false) }
    }

    /// Makes calls until the end; every refusal there was.
    fn run(&self, doorward: &Doorward) -> Vec<(u16, String)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut wire, mut refused) = (Wire::connect(doorward).await, Vec::new());
            // A test that has failed elsewhere must not wait for this for ever.
            let started = Instant::now();
            while !self.ended.load(Ordering::SeqCst) && started.elapsed() < 4 * PATIENCE {
                let tokens = self.tokens.lock().unwrap().clone();
                for token in tokens {
                    let answer = wire.call(request(GET, &[("authorization", &format!("Bearer {token}"))])).await.refusal();
                    refused.extend((answer.0 != 0).then_some(answer));
                }
                self.passed.store(true, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            refused
        })
    }

    /// Waits for a whole round that began after now.
    #[track_caller]
    fn pass(&self) {
        for _ in 0..2 {
            self.passed.store(false, Ordering::SeqCst);
            eventually("a round of calls", || self.passed.load(Ordering::SeqCst).then_some(()));
        }
    }

    #[track_caller]
    fn change<const N: usize>(&self, tokens: [&String; N]) {
        *self.tokens.lock().unwrap() = tokens.map(String::clone).into();
        self.pass();
    }

    fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}
