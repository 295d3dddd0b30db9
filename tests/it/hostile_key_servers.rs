//! Hostile and broken key servers: their own provider's tokens cannot be checked, in bounded time and memory, and nobody else
//! notices; when they are good again, so is everything.

use crate::harness::token::{OTHER_RSA, RSA, RsaKey};
use crate::harness::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const METHOD: &str = "/demo.v1.Echo/Unary";
/// In the bearer file, and in all that the hostile servers say.
const SECRET: &str = "hunter2-hunter2";
/// What a fetch may take here: enough for a megabyte from each of fifty servers, on a machine that has other things to do.
const TIMEOUT: Duration = Duration::from_secs(2);
const MIB: usize = 1 << 20;

/// A provider of this name, whose issuer is `https://NAME.test/`.
fn provider(name: &str, server: &KeyServer) -> String {
    format!(
        "    - {{ name: {name}, issuer: https://{name}.test/, audiences: [users-api], algorithms: [RS256], jwks_url: \"{}\", jwks_ca: ca.pem, \
         jwks_bearer_file: bearer, cooldown: 1s, refresh: 1s, timeout: {}s, trust: {{}} }}\n",
        server.url(),
        TIMEOUT.as_secs()
    )
}

fn providers<'p>(entries: impl IntoIterator<Item = (&'p str, &'p KeyServer)>) -> String {
    let entries: String = entries.into_iter().map(|(name, server)| provider(name, server)).collect();
    format!("authentication:\n  api_keys: {{ file: api-keys.yaml }}\n  jwt:\n{entries}authorization: {{ default: authenticated }}\n")
}

fn site() -> Site {
    let site = Site::new();
    site.write("bearer", SECRET);
    site
}

/// A call with a good token of this provider.
fn call_of(name: &str) -> Call {
    call(METHOD).bearer(&RSA.token(&claims(json!({ "iss": format!("https://{name}.test/") }))))
}

fn by_api_key() -> Call {
    call(METHOD).api_key(API_KEY)
}

fn key_set() -> String {
    json!({ "keys": [RSA.jwk] }).to_string()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// The begin of an answer in gzip, and a part that can follow it for ever: a megabyte each, in a kilobyte.
fn endless_gzip() -> (Vec<u8>, Vec<u8>) {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let mut part = || {
        encoder.write_all(&[b' '; MIB]).unwrap();
        encoder.flush().unwrap();
        std::mem::take(encoder.get_mut())
    };
    (part(), part())
}

fn endless(exchange: &mut Exchange, head: impl AsRef<[u8]>, part: &[u8]) {
    exchange.send(head);
    while exchange.send(part) {}
}

/// A hostile server: its name, how its fetches end in the metric, a phrase of the log, and what it does.
type Hostile = (&'static str, &'static str, &'static str, Box<dyn Fn(&mut Exchange) + Send + Sync>);

fn hostile(name: &'static str, outcome: &'static str, says: &'static str, act: impl Fn(&mut Exchange) + Send + Sync + 'static) -> Hostile {
    (name, outcome, says, Box::new(act))
}

/// One that gives a whole answer.
fn answering(name: &'static str, outcome: &'static str, says: &'static str, status: &str, body: impl Into<Vec<u8>>) -> Hostile {
    let (status, body) = (status.to_owned(), body.into());
    hostile(name, outcome, says, move |exchange| exchange.answer(&status, &body))
}

/// One that says exactly this and closes.
fn saying(name: &'static str, outcome: &'static str, says: &'static str, bytes: impl Into<Vec<u8>>) -> Hostile {
    let bytes = bytes.into();
    hostile(name, outcome, says, move |exchange| _ = exchange.send(&bytes))
}

const LATE: &str = "no whole answer within the timeout";

fn slow() -> Vec<Hostile> {
    let (pause, good) = (Duration::from_millis(200), key_set());
    let whole = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", good.len());
    let begun = whole.clone();
    vec![
        hostile("hangs", "timeout", LATE, Exchange::hang),
        hostile("drips-its-head", "timeout", LATE, move |exchange| exchange.drip(&whole, pause)),
        hostile("drips-its-body", "timeout", LATE, move |exchange| {
            exchange.send(&begun);
            exchange.drip(&good, pause);
        }),
        hostile("drips-hints", "timeout", LATE, |exchange| {
            exchange.drip(b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000), Duration::from_millis(1))
        }),
        hostile("drips-chunks", "timeout", LATE, |exchange| {
            exchange.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            while exchange.send("1\r\n \r\n") {
                std::thread::sleep(Duration::from_millis(50));
            }
        }),
    ]
}

fn endless_ones() -> Vec<Hostile> {
    let (begin, more) = endless_gzip();
    let bomb = [begin.clone(), more.repeat(1024)].concat();
    let large = "more than 1 MiB";
    vec![
        answering("gzip-bomb", "too_large", large, "200 OK\r\ncontent-encoding: gzip", bomb),
        hostile("endless-body", "too_large", large, |exchange| endless(exchange, "HTTP/1.1 200 OK\r\n\r\n", &[b' '; 65536])),
        hostile("endless-chunk", "too_large", large, |exchange| {
            endless(exchange, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffff\r\n", &[b' '; 65536]);
        }),
        hostile("endless-gzip", "too_large", large, move |exchange| {
            exchange.send("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n");
            endless(exchange, &begin, &more);
        }),
        hostile("endless-head", "transport", "", |exchange| endless(exchange, "HTTP/1.1 200 OK\r\nx: ", &[b'x'; 65536])),
        hostile("endless-fields", "transport", "", |exchange| endless(exchange, "HTTP/1.1 200 OK\r\n", &b"x: y\r\n".repeat(1000))),
        hostile("endless-hints", "timeout", LATE, |exchange| endless(exchange, "", &b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000))),
        answering("too-large-by-one", "too_large", large, "200 OK", padded(MIB + 1)),
        answering("ten-thousand-keys", "too_large", large, "200 OK", json!({ "keys": vec![&RSA.jwk; 10_000] }).to_string()),
    ]
}

/// A set whose only good key is the one of this number.
fn at_place(number: usize) -> String {
    format!(r#"{{"keys": [{}{}]}}"#, "0,".repeat(number - 1), RSA.jwk)
}

/// The key set in so many bytes.
fn padded(bytes: usize) -> Vec<u8> {
    let mut body = key_set().into_bytes();
    body.resize(bytes, b' ');
    body
}

fn redirects(elsewhere: &KeyServer) -> Vec<Hostile> {
    let says = "redirects are not followed";
    let to = |status: &str, target: &str| format!("{status}\r\nlocation: {target}");
    vec![
        answering("moved", "status", says, &to("301 Moved", &elsewhere.url()), key_set()),
        answering("found", "status", says, &to("302 Found", &elsewhere.url()), ""),
        answering("see-other", "status", says, &to("303 See Other", &elsewhere.url()), ""),
        answering("to-another-host", "status", says, &to("307 Go", &elsewhere.url().replace("127.0.0.1", "localhost")), ""),
        answering("to-https", "status", says, &to("308 Go", "https://issuer.test/jwks.json"), ""),
        answering("to-itself", "status", says, &to("302 Found", "/jwks.json"), ""),
        answering("refreshed", "malformed", "not a JWK set", &format!("200 OK\r\nrefresh: 0; url={}", elsewhere.url()), "<html>"),
    ]
}

fn broken() -> Vec<Hostile> {
    let (no_set, good) = ("not a JWK set", key_set());
    let half = good[..good.len() / 2].to_owned();
    let (torn, reset) = (half.clone(), half.clone());
    let mut no_utf8 = good.clone().into_bytes();
    no_utf8[good.find("first").unwrap()] = 0xff;
    vec![
        answering("error", "status", "HTTP status 500", "500 Oh", SECRET),
        answering("missing", "status", "is it the right URL?", "404 Not Found", SECRET),
        answering("unauthorized", "status", "jwks_bearer_file is not accepted", "401 Unauthorized", good.clone()),
        answering("no-content", "status", "HTTP status 204", "204 No Content", ""),
        answering("partial", "status", "HTTP status 206", "206 Partial Content", good.clone()),
        answering("empty", "malformed", no_set, "200 OK", ""),
        answering("html", "malformed", no_set, "200 OK", format!("<html>{SECRET}</html>")),
        answering("list", "malformed", no_set, "200 OK", json!([RSA.jwk]).to_string()),
        answering("keys-by-name", "malformed", no_set, "200 OK", json!({"keys": {"first": RSA.jwk}}).to_string()),
        answering("two-sets", "malformed", no_set, "200 OK", format!(r#"{{"keys": [{}], "keys": []}}"#, RSA.jwk)),
        answering("half", "malformed", no_set, "200 OK", half),
        answering("two-documents", "malformed", no_set, "200 OK", good.repeat(2)),
        answering("deep", "malformed", no_set, "200 OK", "[".repeat(MIB)),
        answering("no-utf8", "malformed", no_set, "200 OK", no_utf8),
        answering("no-keys", "no_usable_key", "no usable key", "200 OK", r#"{"keys": []}"#),
        answering("strange-keys", "no_usable_key", "and 96 more", "200 OK", format!(r#"{{"keys": [{}0]}}"#, "0,".repeat(9_999))),
        answering("after-the-hundredth", "no_usable_key", "first 100", "200 OK", at_place(101)),
        answering("brotli", "malformed", "content-encoding", "200 OK\r\ncontent-encoding: br", good.clone()),
        answering("gzip-twice", "malformed", "content-encoding", "200 OK\r\ncontent-encoding: gzip, gzip", gzip(&gzip(good.as_bytes()))),
        answering("unknown-coding", "malformed", "content-encoding", "200 OK\r\ncontent-encoding: secret", SECRET),
        answering("no-gzip", "transport", "", "200 OK\r\ncontent-encoding: gzip", good.clone()),
        saying("closes", "transport", "", ""),
        saying("noise", "transport", "", [0xff, 0, 0x16, 3, 1].repeat(1000)),
        saying("no-http", "transport", "", format!("220 {SECRET} ESMTP\r\n")),
        saying("torn", "transport", "", format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{torn}", good.len())),
        saying(
            "torn-chunk",
            "transport",
            "",
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{good}", good.len() + 1),
        ),
        saying("no-chunk", "transport", "", format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{good}")),
        saying("length-too-short", "malformed", no_set, format!("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{good}")),
        saying(
            "two-lengths",
            "transport",
            "",
            format!("HTTP/1.1 200 OK\r\ncontent-length: 9\r\ncontent-length: {}\r\n\r\n{good}", good.len()),
        ),
        hostile("resets", "transport", "", move |exchange| {
            exchange.send(format!("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n{reset}"));
            exchange.reset();
        }),
    ]
}

/// The servers, of which those whose names begin with `tls` get TLS, and what `act` of each is left to do.
fn started(site: &Site, all: Vec<Hostile>) -> Vec<(&'static str, &'static str, &'static str, KeyServer)> {
    let start = |(name, outcome, says, act): Hostile| {
        let server = if name.starts_with("tls") { KeyServer::down_with_tls(site, "tls") } else { KeyServer::down() };
        if name.ends_with("at-accept") {
            server.act_at_accept(act)
        } else {
            server.act(act)
        }
        (name, outcome, says, server)
    };
    all.into_iter().map(start).collect()
}

/// Answers to judge by.
const ENOUGH: usize = 60;

/// Of answers that take no fetch, beside those of a proxy that fetches nothing, asked in turns: on a busy machine both are
/// late. Most of them: some are late for reasons of the machine's own.
#[track_caller]
fn assert_nothing_waits(mut seconds: Vec<f64>, mut untroubled: Vec<f64>) {
    let [(half, most), (usual_half, usual_most)] = [&mut seconds, &mut untroubled].map(|seconds| {
        seconds.sort_by(f64::total_cmp);
        (seconds[seconds.len() / 2], seconds[seconds.len() * 9 / 10])
    });
    assert!(
        half < usual_half + 0.25 && most < usual_most + 0.5,
        "half of {} answers within {half}, nine of ten within {most}; without hostile key servers {usual_half} and {usual_most}",
        seconds.len()
    );
}

/// Before the metrics are asked for again: the thread that writes them is the one that fetches.
fn pause<T>() -> Option<T> {
    std::thread::sleep(Duration::from_millis(200));
    None
}

/// A proxy without key servers, to tell how busy the machine is.
struct Untroubled {
    doorward: Doorward,
    client: PythonClient,
    seconds: Vec<f64>,
}

impl Untroubled {
    fn start(upstream: &PythonUpstream) -> Untroubled {
        let rest = "authentication:\n  api_keys: { file: api-keys.yaml }\nauthorization: { default: authenticated }\n";
        let doorward = Site::new().start(&configuration(&upstream.url(), rest));
        let client = doorward.client();
        Untroubled { doorward, client, seconds: Vec::new() }
    }

    /// As many answers as of the one that is measured.
    fn ask(&mut self, calls: usize) {
        let answers = self.client.calls(&vec![by_api_key(); calls]);
        self.seconds.extend(answers.iter().map(Answer::seconds));
        let asked = Instant::now();
        assert_eq!(self.doorward.get("/livez").0, 200);
        self.seconds.push(asked.elapsed().as_secs_f64());
    }
}

#[test]
fn hostile_key_servers_hold_up_nobody_else_and_are_forgiven() {
    let (upstream, good, elsewhere) = (PythonUpstream::start(), KeyServer::with_keys(&[&RSA.jwk]), KeyServer::with_keys(&[&RSA.jwk]));
    let (site, strangers) = (site(), Site::new());
    let mut all: Vec<Hostile> = [slow(), endless_ones(), redirects(&elsewhere), broken()].into_iter().flatten().collect();
    all.push(hostile("tls-hangs-at-accept", "timeout", LATE, Exchange::hang));
    all.push(hostile("tls-noise-at-accept", "transport", "", |exchange| _ = exchange.send([0x15; 1000])));
    all.push(hostile("resets-at-accept", "transport", "", Exchange::reset));
    all.push(hostile("tls-hangs", "timeout", LATE, Exchange::hang));
    let mut servers = started(&site, all);
    let stranger = KeyServer::down_with_tls(&strangers, "tls");
    stranger.publish(&[&RSA.jwk]);
    servers.push(("tls-of-a-stranger", "transport", "jwks_ca names", stranger));

    let named = servers.iter().map(|(name, _, _, server)| (*name, server));
    let doorward_yaml = configuration(&upstream.url(), &providers(named.chain([("good", &good)])));
    let mut doorward = site.start_unready(&doorward_yaml);
    let mut client = doorward.client();
    let hostile_calls: Vec<Call> = servers.iter().map(|(name, ..)| call_of(name).with("together", true)).collect();

    // While the first fetches hang, and again when they have failed.
    for round in ["at first", "after the first failures"] {
        for ((name, ..), answer) in servers.iter().zip(client.calls(&hostile_calls)) {
            assert_eq!(answer.refusal(), (14, "KEYS_UNAVAILABLE"), "{name} {round}");
            assert!(answer.seconds() < TIMEOUT.as_secs_f64() + 5.0, "{name} {round}: {}", answer.seconds());
        }
    }
    // Everybody else, for as long as three fetches of each take, and often enough to tell most from some.
    let (mut seconds, mut untroubled) = (Vec::new(), Untroubled::start(&upstream));
    let until = Instant::now() + 3 * TIMEOUT;
    while Instant::now() < until || seconds.len() < ENOUGH {
        for answer in client.calls(&[call_of("good"), by_api_key()]) {
            assert_eq!(answer.code(), 0, "{answer:?}");
            seconds.push(answer.seconds());
        }
        // The thread that fetches is also the one that answers probes.
        let asked = Instant::now();
        assert_eq!(doorward.get("/livez").0, 200);
        seconds.push(asked.elapsed().as_secs_f64());
        untroubled.ask(2);
    }
    assert_nothing_waits(seconds, untroubled.seconds);

    let (status, parts) = doorward.get("/readyz?verbose");
    assert!(status == 503 && parts.contains("[+] key set good\n"), "{parts}");
    let outcomes = |name: &str| -> Vec<String> {
        let (_, metrics) = doorward.get("/metrics");
        let of = |line: &&str| line.starts_with("doorward_key_set_fetches_total{") && line.contains(&format!("provider=\"{name}\""));
        let some = metrics.lines().filter(of).filter(|line| !line.ends_with(" 0"));
        some.filter_map(|line| Some(line.split_once("outcome=\"")?.1.split_once('"')?.0.to_owned())).collect()
    };
    for (name, outcome, says, _) in &servers {
        // A busy machine may need a second try to get as far as the server's own fault.
        let as_expected = |outcomes: &Vec<String>| outcomes.iter().any(|told| told == outcome);
        let told = eventually("its outcome", || Some(outcomes(name)).filter(as_expected).or_else(pause));
        assert!(told.iter().all(|told| told == outcome || told == "timeout"), "{name}: {told:?}");
        assert!(parts.contains(&format!("[-] key set {name}: ")), "{name} in {parts}");
        let of_it = [format!("provider=\"{name}\""), format!("outcome=\"{outcome}\""), (*says).to_owned(), "KEYS_UNAVAILABLE".to_owned()];
        let is_told = |line: &&str| of_it.iter().all(|part| line.contains(part));
        let line = eventually("its line", || doorward.stderr().lines().find(is_told).map(str::to_owned));
        assert!(line.len() < 600, "{name}: {line:?}");
    }
    assert_eq!(elsewhere.fetches(), 0, "no redirect is followed");
    let everything = [doorward.stderr(), doorward.stdout().text(), doorward.get("/metrics").1, parts].concat();
    assert!(!everything.contains(SECRET));

    let forgiven = Instant::now();
    for (name, _, _, server) in &servers {
        if *name != "tls-of-a-stranger" {
            server.publish(&[&RSA.jwk]);
        }
    }
    let recovered = |name: &str| eventually("a recovery", || outcomes(name).contains(&"success".to_owned()).then_some(()).or_else(pause));
    servers.iter().filter(|(name, ..)| *name != "tls-of-a-stranger").for_each(|(name, ..)| recovered(name));
    assert!(forgiven.elapsed() < PATIENCE, "{:?}", forgiven.elapsed());
    for ((name, ..), answer) in servers.iter().zip(client.calls(&hostile_calls)) {
        assert_eq!(answer.code(), if *name == "tls-of-a-stranger" { 14 } else { 0 }, "{name}");
    }
    assert!(doorward.is_running() && doorward.metric("doorward_panics_total", &[]) == 0.0);
}

#[test]
fn what_has_no_end_takes_no_memory() {
    let (upstream, site) = (PythonUpstream::start(), site());
    let names = ["gzip-bomb", "endless-body", "endless-chunk", "endless-gzip", "endless-head", "endless-fields", "endless-hints"];
    let acts: Vec<Hostile> = endless_ones().into_iter().filter(|(name, ..)| names.contains(name)).collect();
    let servers: Vec<KeyServer> = names.iter().map(|_| KeyServer::down()).collect();
    let doorward = site.start_unready(&configuration(&upstream.url(), &providers(names.into_iter().zip(&servers))));
    assert_eq!(doorward.call(by_api_key()).code(), 0);
    let before = doorward.resident_kib();
    for (server, (_, _, _, act)) in servers.iter().zip(acts) {
        server.act(act);
    }
    let begun: Vec<usize> = servers.iter().map(KeyServer::fetches).collect();
    let mut most = before;
    eventually("three whole fetches of each", || {
        most = most.max(doorward.resident_kib());
        servers.iter().zip(&begun).all(|(server, begun)| server.fetches() >= begun + 4).then_some(())
    });
    // Seven at once, each of a gigabyte or without end.
    assert!(most < before + 16 * 1024, "{before} KiB before, {most} KiB at most");
}

#[test]
fn strange_is_not_broken() {
    let (upstream, site) = (PythonUpstream::start(), site());
    let beside = |strange: &str| format!(r#"{{"keys": [{strange}, {}], "more": {strange}}}"#, RSA.jwk);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let all: Vec<(&str, &str, Vec<u8>)> = vec![
        ("a-megabyte", "200 OK", padded(MIB)),
        ("a-megabyte-in-gzip", "200 OK\r\ncontent-encoding: gzip", gzip(&padded(MIB))),
        ("a-hundred-keys", "200 OK", at_place(100).into()),
        ("many-more", "200 OK", format!(r#"{{"keys": [{}{}]}}"#, RSA.jwk, ", 0".repeat(10_000)).into()),
        ("deep", "200 OK", beside(&deep).into()),
        ("huge-number", "200 OK", beside(r#"{"kty": 1e9999}"#).into()),
        ("half-a-pair", "200 OK", beside(r#"{"kid": "\ud800"}"#).into()),
        ("duplicates", "200 OK", json!({"keys": [OTHER_RSA.jwk, RSA.jwk, RSA.jwk]}).to_string().into()),
        ("no-content-type", "200 OK\r\ncontent-type: text/html", key_set().into()),
        ("identity", "200 OK\r\ncontent-encoding: identity", key_set().into()),
    ];
    let servers: Vec<(&str, KeyServer)> = all.iter().map(|(name, ..)| (*name, KeyServer::down())).collect();
    for ((_, server), (_, status, body)) in servers.iter().zip(all.clone()) {
        let status = status.to_owned();
        server.act(move |exchange| exchange.answer(&status, &body));
    }
    let doorward = site.start(&configuration(&upstream.url(), &providers(servers.iter().map(|(name, server)| (*name, server)))));
    let calls: Vec<Call> = servers.iter().map(|(name, _)| call_of(name).with("together", true)).collect();
    for ((name, _), answer) in servers.iter().zip(doorward.calls(&calls)) {
        assert_eq!(answer.code(), 0, "{name}");
    }
}

#[test]
fn a_key_server_that_is_sometimes_good_is_as_good_as_any() {
    let (upstream, site, server) = (PythonUpstream::start(), site(), KeyServer::down());
    let turn = AtomicUsize::new(0);
    server.act(move |exchange| match turn.fetch_add(1, Ordering::SeqCst) {
        even if even % 2 == 0 => exchange.answer("200 OK", key_set()),
        1 => exchange.answer("500 Oh", ""),
        3 => exchange.hang(),
        _ => exchange.answer("200 OK", r#"{"keys": []}"#),
    });
    let doorward = site.start(&configuration(&upstream.url(), &providers([("sometimes", &server)])));
    let mut client = doorward.client();
    let unknown = call(METHOD).bearer(&OTHER_RSA.token(&claims(json!({"iss": "https://sometimes.test/"}))));
    let (mut seconds, mut untroubled) = (Vec::new(), Untroubled::start(&upstream));
    while server.fetches() < 7 || seconds.len() < ENOUGH {
        let answers = client.calls(&[call_of("sometimes"), unknown.clone().with("together", true), call_of("sometimes")]);
        assert_eq!((answers[0].code(), answers[2].code()), (0, 0), "{answers:?}");
        seconds.extend([answers[0].seconds(), answers[2].seconds()]);
        untroubled.ask(2);
        // After a failed fetch nobody knows whether the key would be there.
        assert!([(16, "TOKEN_KEY_UNKNOWN"), (14, "KEYS_UNAVAILABLE")].contains(&answers[1].refusal()), "{answers:?}");
    }
    assert_nothing_waits(seconds, untroubled.seconds);
    assert_eq!(doorward.get("/readyz").0, 200);
}

#[test]
fn an_outage_outlasts_the_keys_only_up_to_max_stale() {
    let (upstream, site, server) = (PythonUpstream::start(), site(), KeyServer::with_keys(&[&RSA.jwk]));
    let rest = providers([("stale", &server)]).replace("timeout: 2s", "max_stale: 4s, timeout: 1h");
    let doorward = site.start(&configuration(&upstream.url(), &rest));
    // Connected already: on a busy machine its start alone may take longer than the keys last.
    let mut client = doorward.client();
    assert_eq!(client.calls(&[call_of("stale")])[0].code(), 0);
    server.act(Exchange::hang);
    let had = server.fetches();
    eventually("a refresh that hangs", || (server.fetches() > had).then_some(()));
    assert_eq!(client.calls(&[call_of("stale")])[0].code(), 0);
    eventually("the end of the keys", || doorward.stderr().contains("older than max_stale").then_some(()));
    // The cached verdict has ended too; the call waits for the fetch that hangs.
    let answers = client.calls(&[call_of("stale").with("timeout", 0.5), by_api_key()]);
    assert_eq!((answers[0].code(), answers[1].code()), (4, 0), "{answers:?}");
    assert_eq!(doorward.get("/readyz").0, 200, "the set has been had once");
}

/// The keys of a provider that uses one for a second: each is published two seconds before and withdrawn two seconds after.
struct Rotation {
    keys: Vec<RsaKey>,
    /// The key that signs now.
    step: AtomicUsize,
}

impl Rotation {
    fn published(&self) -> Vec<Value> {
        let step = self.step.load(Ordering::SeqCst);
        self.keys[step.saturating_sub(2)..(step + 3).min(self.keys.len())].iter().map(|key| key.jwk.clone()).collect()
    }

    /// What clients hold: tokens of this key and of the one before.
    fn calls(&self, step: usize, caller: usize) -> Vec<Call> {
        let of = |key: &RsaKey, number: usize| {
            let token = claims(json!({"iss": "https://rotating.test/", "sub": format!("{caller}-{number}")}));
            call(METHOD).bearer(&key.token(&token)).with("together", true)
        };
        self.keys[step.saturating_sub(1)..=step].iter().flat_map(|key| [of(key, 1), of(key, 2), of(key, 3)]).collect()
    }
}

#[test]
fn keys_that_change_every_second_under_load_lose_no_call() {
    const KIDS: [&str; 9] = ["r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8"];
    let making: Vec<_> = KIDS.map(|kid| std::thread::spawn(move || RsaKey::generate(kid))).into_iter().collect();
    let keys: Vec<RsaKey> = making.into_iter().map(|key| key.join().unwrap()).collect();
    let rotation = Arc::new(Rotation { keys, step: AtomicUsize::new(0) });
    let (upstream, site, server) = (PythonUpstream::start(), site(), KeyServer::down());
    let (served, at_once, most_at_once) = (rotation.clone(), AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let most = most_at_once.clone();
    server.act(move |exchange| {
        let body = json!({ "keys": served.published() }).to_string();
        most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(50));
        at_once.fetch_sub(1, Ordering::SeqCst);
        exchange.answer("200 OK", body);
    });
    let rest = providers([("rotating", &server)]).replace("timeout: 2s", "timeout: 5s");
    let doorward = site.start(&configuration(&upstream.url(), &rest));
    let over = AtomicBool::new(false);
    let seen: [AtomicUsize; 3] = Default::default();
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for (caller, seen) in seen.iter().enumerate() {
            let (rotation, doorward, over, done) = (&rotation, &doorward, &over, &done);
            scope.spawn(move || {
                let mut client = doorward.client();
                while !over.load(Ordering::SeqCst) {
                    let step = rotation.step.load(Ordering::SeqCst);
                    seen.store(step, Ordering::SeqCst);
                    let answers = client.calls(&rotation.calls(step, caller));
                    done.lock().unwrap().extend(answers.iter().map(|answer| (step, answer.code(), answer.reason().to_owned())));
                }
            });
        }
        // Who invents keys makes the most of every cool-down.
        let (doorward, over) = (&doorward, &over);
        scope.spawn(move || {
            let mut client = doorward.client();
            let forged = |kid: usize| {
                let header = json!({"alg": "RS256", "kid": format!("invented-{kid}")}).to_string();
                call(METHOD)
                    .bearer(&OTHER_RSA.sign(&header, &claims(json!({"iss": "https://rotating.test/"})).to_string()))
                    .with("together", true)
            };
            while !over.load(Ordering::SeqCst) {
                let answers = client.calls(&(0..10).map(forged).collect::<Vec<_>>());
                assert!(answers.iter().all(|answer| answer.refusal() == (16, "TOKEN_KEY_UNKNOWN")), "{answers:?}");
            }
        });
        for step in 1..KIDS.len() {
            std::thread::sleep(Duration::from_secs(1));
            // On a machine that is busy with other things the keys wait for the clients.
            eventually("clients that keep up", || seen.iter().all(|seen| seen.load(Ordering::SeqCst) == step - 1).then_some(()));
            rotation.step.store(step, Ordering::SeqCst);
        }
        std::thread::sleep(Duration::from_secs(1));
        over.store(true, Ordering::SeqCst);
    });

    let done = done.into_inner().unwrap();
    let failed: Vec<_> = done.iter().filter(|(_, code, _)| *code != 0).collect();
    assert!(failed.is_empty() && done.len() > 150, "{} of {}: {failed:?}", failed.len(), done.len());
    let asked = server.asked();
    let closest = asked.windows(2).map(|pair| pair[1].at - pair[0].at).min().unwrap();
    assert!(closest >= Duration::from_secs(1) && asked.len() >= 8, "{} fetches, {closest:?} apart", asked.len());
    assert_eq!(most_at_once.load(Ordering::SeqCst), 1);
    let fetched = || doorward.metric("doorward_key_set_fetches_total", &["provider=\"rotating\"", "outcome=\"success\""]);
    eventually("every fetch in the metric", || (fetched() == server.asked().len() as f64).then_some(()));
    // The first key is long gone, and with it what was cached of its tokens.
    assert!(doorward.calls(&rotation.calls(0, 0)).iter().all(|answer| answer.refusal() == (16, "TOKEN_KEY_UNKNOWN")));
}
