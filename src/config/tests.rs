//! Whole configurations, good and bad: for each bad one the place, the key and the words an operator gets to see.

use super::*;
use crate::identity::Permission;
use proptest::prelude::*;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::LazyLock;

/// Files that the snippets name.
static FILES: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    for (name, content, mode) in [
        ("crt", "certificate", 0o644),
        ("key", "private key", 0o600),
        ("open", "hunter2-hunter2-hunter2-hunter2-hunter2", 0o644),
        ("empty", " \n", 0o600),
        ("secret32", &format!("{}\n", "s".repeat(32)), 0o600),
        ("secret31", &format!("{}\n", "s".repeat(31)), 0o600),
        ("public.jwks", r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"k"}]}"#, 0o644),
        ("shared.jwks", r#"{"keys":[{"kty":"EC"},{"kty":"oct","k":"aHVudGVyMg"}]}"#, 0o644),
        ("private.jwks", r#"{"keys":[{"kty":"RSA","d":"aHVudGVyMg"}]}"#, 0o604),
        ("closed.jwks", r#"{"keys":[{"kty":"oct","k":"aHVudGVyMg"}]}"#, 0o640),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    folder
});

fn source(name: &str, text: &str) -> Source {
    Source { name: name.into(), text: text.into(), base: FILES.path().into() }
}

fn load_all(sources: &[Source]) -> Loaded {
    let env = |name: &str| match name {
        "HMAC" => Some(OsString::from("e".repeat(64))),
        "SHORT" => Some(OsString::from("hunter2")),
        _ => None,
    };
    load_from(sources, Surroundings { env: &env, cpus: 3 })
}

fn load_text(text: &str) -> Loaded {
    load_all(&[source("t.yaml", text)])
}

fn lines(loaded: &Loaded) -> Vec<String> {
    loaded.problems.iter().map(ToString::to_string).collect()
}

fn good(text: &str) -> Config {
    let loaded = load_text(text);
    assert!(!loaded.problems.has_errors(), "{:#?}\n{text}", lines(&loaded));
    loaded.config.unwrap()
}

/// Lines 1 and 2 of most configurations here.
const HEAD: &str = "listen: {address: '127.0.0.1:0', tls: {certificate: crt, private_key: key}}\nupstream: {address: 'http://a:1'}\n";
/// Lines 3 to 9: a provider whose entry begins in column 5.
const JWT: &str = "authentication:\n  jwt:\n  - name: corp\n    issuer: https://i.example\n    audiences: [a]\n    algorithms: [RS256]\n    jwks_url: https://i.example/k\n";

fn without(text: &str, key: &str) -> String {
    text.lines()
        .filter(|line| !line.trim_start().trim_start_matches("- ").starts_with(&format!("{key}:")))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Every expectation is a part of some problem of that text; `t.yaml:` is put before it when it begins with a digit.
fn expect(text: &str, severity: &str, place_and_key: &str, phrase: &str) {
    let loaded = load_text(text);
    let lines = lines(&loaded);
    let start = format!("{severity}: t.yaml:{place_and_key}: ");
    assert!(lines.iter().any(|line| line.starts_with(&start) && line.contains(phrase)), "{start}…{phrase}\nnot in {lines:#?}\nof\n{text}");
    assert_eq!(loaded.problems.has_errors(), lines.iter().any(|line| line.starts_with("error")));
}

#[test]
fn the_least_configuration_has_the_defaults_of_the_interface() {
    let config = good(HEAD);
    assert_eq!((config.workers, config.operations.to_string().as_str()), (3, "0.0.0.0:9902"));
    assert_eq!(config.authentication.mode, Mode::Required);
    assert_eq!(config.authorization.default, DefaultRule::Deny);
    assert_eq!(config.upstream.connect_timeout, Duration::from_secs(1));
    assert_eq!(config.upstream.health, UpstreamHealth::Service(String::new()));
    let Limits { connections, streams, header_bytes, header_fields, handshake, stalled, drain_delay, drain, .. } = config.limits;
    let Limits { stream_idle, connection_idle, connection_age, .. } = config.limits;
    assert_eq!((connections, streams, header_bytes, header_fields), (10_000, 1000, 16_384, 100));
    assert_eq!([handshake, stalled, drain_delay, drain].map(|d| d.as_secs()), [10, 300, 5, 20]);
    assert_eq!([stream_idle, connection_idle, connection_age].map(|d| d.map(|d| d.as_secs())), [None, Some(3600), None]);
    assert_eq!(config.rate_limits, RateLimits::default());
    let headers = &config.identity_headers;
    let names = [
        &headers.user_id,
        &headers.user_email,
        &headers.user_name,
        &headers.client_id,
        &headers.roles,
        &headers.permissions,
        &headers.api_key_id,
    ];
    assert_eq!(names.map(|name| name.as_ref().unwrap().as_str()), IdentityHeaders::DEFAULT_NAMES);
    assert_eq!(headers.provider, None);
    assert!(config.log.access && !config.log.explain_refusals && config.log.level == LogLevel::Info && config.log.otlp.is_none());
    let Transport::Tls(tls) = &config.listen.transport else { panic!() };
    assert_eq!((tls.certificate.content.expose(), tls.minimum_version), (b"certificate".as_slice(), TlsVersion::Tls12));
    assert_eq!(tls.private_key.path, FILES.path().join("key"));
}

#[test]
fn a_provider_has_the_defaults_of_the_interface() {
    let config = good(&format!("{HEAD}{JWT}"));
    let provider = &config.authentication.jwt[0];
    assert_eq!((provider.leeway.as_secs(), provider.readiness_required, provider.max_lifetime), (30, true, None));
    assert_eq!((&provider.trust.roles, &provider.trust.email_domains), (&Allowed::Any, &Allowed::Any));
    assert_eq!((provider.claims.user_id.0.as_str(), &provider.claims.permissions), ("sub", &None));
    assert_eq!((provider.at.line, provider.at.column, provider.at.key.as_str()), (5, 5, "authentication.jwt[0]"));
    let KeySource::Remote(keys) = &provider.keys else { panic!() };
    assert_eq!([keys.refresh, keys.cooldown, keys.max_stale, keys.timeout].map(|d| d.as_secs()), [600, 30, 86_400, 5]);
    let config = good(&format!("{HEAD}authentication: {{google: {{client_ids: [c]}}}}\n"));
    let google = config.authentication.google.unwrap();
    assert_eq!(google.keys.location, KeyLocation::Jwks(HttpsUrl("https://www.googleapis.com/oauth2/v3/certs".into())));
}

#[test]
fn every_form_of_a_value_is_understood() {
    let config = good(&format!(
        "{HEAD}workers: 2\nversion: 1\n{JWT}    max_lifetime: none\n  mode: optional\n\
         authorization:\n  roles: {{r: ['a:*']}}\n  methods:\n    /a.B/C: a:b\n    /a.B/*: [a:b, a:c]\n    /a.*: {{any_of: [a:b], from: [corp]}}\n    /b.*: anyone\n    /c.*: {{from: [corp]}}\n\
         limits: {{drain: 0s, header_bytes: 1MiB, stream_idle: none, connection_age: none}}\n\
         rate_limits: {{per_identity: 100/s, failed_authentication_per_peer: none}}\n\
         identity_headers: {{user_name: none, provider: auth_provider, claims: {{a.b: user_name}}}}\n",
    ));
    assert_eq!((config.workers, config.limits.drain.as_secs(), config.limits.header_bytes), (2, 0, 1 << 20));
    assert_eq!(config.identity_headers.user_name, None);
    let per_identity = Some(Rate { count: 100, per: RateUnit::Second });
    assert_eq!(config.rate_limits, RateLimits { per_identity, failed_authentication_per_peer: None });
    assert_eq!(config.identity_headers.claims[0].0, ClaimPath("a.b".into()));
    let rules: Vec<&Rule> = config.authorization.methods.iter().map(|method| &method.rule).collect();
    let caller = |any_of: &[&str], from: &[&str]| Rule::Caller {
        any_of: any_of.iter().map(|text| Permission::parse(text).unwrap()).collect(),
        all_of: Vec::new(),
        from: from.iter().map(|text| (*text).to_owned()).collect(),
    };
    let expected = [caller(&["a:b"], &[]), caller(&["a:b", "a:c"], &[]), caller(&["a:b"], &["corp"]), Rule::Anyone, caller(&[], &["corp"])];
    assert_eq!(rules, expected.iter().collect::<Vec<_>>());
}

#[test]
fn secrets_lose_one_newline_of_a_file_and_must_be_as_long_as_the_hash() {
    let provider = |source: &str, algorithm: &str| format!("{HEAD}{}    {source}\n", without(JWT, "jwks_url").replace("RS256", algorithm));
    let secret = |text: &str| match &good(text).authentication.jwt[0].keys {
        KeySource::Secret { secret, .. } => secret.expose().len(),
        _ => panic!(),
    };
    assert_eq!(secret(&provider("secret_file: secret32", "HS256")), 32);
    assert_eq!(secret(&provider("secret_env: HMAC", "HS512")), 64);
    expect(&provider("secret_file: secret31", "HS256"), "error", "9:18: authentication.jwt[0].secret_file", "at least 32 bytes");
    expect(&provider("secret_file: secret32", "HS384"), "error", "9:18: authentication.jwt[0].secret_file", "at least 48 bytes");
    expect(&provider("secret_env: SHORT", "HS256"), "error", "9:17: authentication.jwt[0].secret_env", "at least 32 bytes");
    expect(&provider("secret_env: UNSET", "HS256"), "error", "9:17: authentication.jwt[0].secret_env", "UNSET is not set");
    expect(&provider("secret_env: s3cr3t-v@lue", "HS256"), "error", "9:17: authentication.jwt[0].secret_env", "environment variable");
    expect(
        &provider("secret_file: open", "HS256"),
        "warning",
        "9:18: authentication.jwt[0].secret_file",
        "everybody on this machine can read",
    );
}

#[test]
fn a_key_set_file_may_hold_secrets_which_others_must_not_read() {
    let set = |name: &str| format!("{HEAD}{}    jwks_file: {name}\n", without(JWT, "jwks_url").replace("RS256", "HS256, ES256"));
    for name in ["public.jwks", "closed.jwks", "crt"] {
        good(&set(name));
        let warned = lines(&load_text(&set(name))).iter().any(|line| line.contains("everybody"));
        assert!(!warned, "{name}");
    }
    for name in ["shared.jwks", "private.jwks"] {
        good(&set(name));
        expect(&set(name), "warning", "9:16: authentication.jwt[0].jwks_file", "everybody on this machine can read");
    }
}

#[test]
fn bad_top_levels() {
    for (text, place, phrase) in [
        ("", "1:1", "found an empty document"),
        ("# nothing\n", "1:1", "found an empty document"),
        ("- a\n", "1:3", "found a list"),
        ("hello\n", "1:1", "found a single value"),
        ("a: [1\n", "2:1", "not valid YAML"),
        ("a: \"x\n", "2:1", "not valid YAML"),
        ("a: *b\n", "1:4", "unknown anchor"),
    ] {
        expect(text, "error", place, phrase);
        assert!(load_text(text).config.is_none());
    }
    for (text, line) in [("a: 1\n---\nb: 1\n", 2), ("# one\n---\na: 1\n--- # two\n", 4)] {
        expect(text, "error", &format!("{line}:1"), "more than one YAML document");
    }
    assert!(load_all(&[]).config.is_none());
}

#[test]
fn bad_sections() {
    // What follows the two lines of HEAD; the place and key of the problem; a part of its words.
    for (text, place, phrase) in [
        (
            "versoin: 1",
            "3:1: versoin",
            "unknown key \"versoin\", expected one of version, workers, listen, upstream, identity_headers, authentication, authorization, forward_credentials, limits, rate_limits, operations, log; did you mean \"version\"?",
        ),
        ("version: 2", "3:10: version", "found the number 2, expected 1"),
        ("version: '1'", "3:10: version", "found \"1\", expected 1"),
        ("workers: 0", "3:10: workers", "found the number 0, expected auto or a whole number"),
        ("workers: many", "3:10: workers", "expected auto"),
        ("workers:", "3:9: workers", "found nothing"),
        ("listen: {}", "3:1: listen", "this key stands already at t.yaml:1:1"),
        ("<<: {a: 1}", "3:1: [\"<<\"]", "merge keys"),
        ("forward_credentials: yes", "3:22: forward_credentials", "found \"yes\", expected true or false"),
        ("limits: []", "3:1: limits", "found a list, expected a mapping"),
        ("limits: {streams: 0}", "3:19: limits.streams", "whole number from 1"),
        ("limits: {streams: 5000000000}", "3:19: limits.streams", "whole number from 1"),
        ("limits: {streams: 1.5}", "3:19: limits.streams", "found the number 1.5"),
        ("limits: {connections: -1}", "3:23: limits.connections", "found the number -1"),
        ("limits: {header_bytes: 16384}", "3:24: limits.header_bytes", "found the number 16384, expected a size such as 16KiB"),
        ("limits: {header_bytes: 16KB}", "3:24: limits.header_bytes", "units are KiB and MiB"),
        ("limits: {header_bytes: 0KiB}", "3:24: limits.header_bytes", "at least 1KiB"),
        ("limits: {header_bytes: 2MiB}", "3:24: limits.header_bytes", "at most 1MiB"),
        (
            "limits: {drain: 5}",
            "3:17: limits.drain",
            "found the number 5, expected a duration such as 250ms, 30s, 10m or 24h (a unit is missing)",
        ),
        ("limits: {drain: 5 minutes}", "3:17: limits.drain", "found \"5 minutes\", expected a duration"),
        ("limits: {drain: -1s}", "3:17: limits.drain", "expected a duration"),
        ("limits: {handshake: 0s}", "3:21: limits.handshake", "at least 1ms"),
        ("limits: {handshake: none}", "3:21: limits.handshake", "expected a duration"),
        ("limits: {stream_idle: off}", "3:23: limits.stream_idle", "our word is none"),
        ("limits: {connection_age: 0s}", "3:26: limits.connection_age", "our word is none"),
        ("limits: {connection_idle: 5}", "3:27: limits.connection_idle", "a unit is missing"),
        ("limits: {stalled: none}", "3:19: limits.stalled", "expected a duration"),
        ("rate_limits: {per_identity: 100}", "3:29: rate_limits.per_identity", "found the number 100, expected a rate such as 100/s"),
        ("rate_limits: {per_identity: 0/s}", "3:29: rate_limits.per_identity", "at least 1"),
        ("rate_limits: {per_identity: false}", "3:29: rate_limits.per_identity", "our word is none"),
        ("rate_limits: {failed_authentication_per_peer: 10/d}", "3:47: rate_limits.failed_authentication_per_peer", "units are s, m and h"),
        ("rate_limits: {per_identiti: 100/s}", "3:15: rate_limits.per_identiti", "did you mean \"per_identity\"?"),
        ("operations: {address: 9902}", "3:23: operations.address", "found the number 9902, expected an address and port"),
        ("operations: {address: ':9902'}", "3:23: operations.address", "address before the port is missing"),
        ("log: {level: trace}", "3:14: log.level", "found \"trace\", expected one of error, warn, info, debug"),
        ("log: {level: inof}", "3:14: log.level", "did you mean \"info\"?"),
        ("log: {access: false}", "3:15: log.access", "our word is none"),
        ("log: {otlp: 'c:4317'}", "3:13: log.otlp", "found \"c:4317\", expected http://host:port"),
        ("log: {otlp: 'http://c'}", "3:13: log.otlp", "that of OTLP over gRPC is 4317"),
        ("log: {otlp: 'http://c:4317/v1/traces'}", "3:13: log.otlp", "leave it out"),
        ("log: {otlp: 'unix:/run/c.sock'}", "3:13: log.otlp", "expected http://host:port"),
        ("log: {otlp: 'http://u:pass@c:4317'}", "3:13: log.otlp", "found a text, expected http://host:port"),
        ("identity_headers: {user_id: User}", "3:29: identity_headers.user_id", "lower case"),
        ("identity_headers: {user_id: te}", "3:29: identity_headers.user_id", "belongs to HTTP or gRPC"),
        ("identity_headers: {user_id: false}", "3:29: identity_headers.user_id", "our word is none"),
        ("identity_headers: {user_id: off}", "3:29: identity_headers.user_id", "our word is none"),
        ("identity_headers: {user_id: x-user-bin}", "3:29: identity_headers.user_id", "base64"),
        (
            "identity_headers: {user_id: roles}",
            "3:1: identity_headers.roles",
            "the same to an upstream as that of identity_headers.user_id",
        ),
        ("identity_headers: {claims: {a: user-id}}", "3:32: identity_headers.claims.a", "the same to an upstream"),
        ("identity_headers: {claims: {a: x_y, b: x.y}}", "3:40: identity_headers.claims.b", "the same to an upstream"),
        ("identity_headers: {claims: {a: x, b: none}}", "3:38: identity_headers.claims.b", "leave the claim out"),
        ("identity_headers: {claims: {'': x}}", "3:33: identity_headers.claims[\"\"]", "empty claim name"),
    ] {
        expect(&format!("{HEAD}{text}\n"), "error", place, phrase);
    }
}

#[test]
fn bad_listeners_and_upstreams() {
    let upstream = "upstream: {address: 'http://a:1'}";
    let listen = "listen: {address: '127.0.0.1:0', insecure_plaintext: true}";
    for (text, place, phrase) in [
        ("log: {}".to_owned(), "1:1: listen", "missing"),
        ("log: {}".to_owned(), "1:1: upstream", "missing"),
        (format!("{upstream}\nlisten: {{insecure_plaintext: true}}"), "2:1: listen.address", "missing; expected an address and port"),
        (format!("{upstream}\nlisten: {{address: 'localhost:1'}}"), "2:19: listen.address", "127.0.0.1"),
        (format!("{upstream}\nlisten: {{address: '0.0.0.0'}}"), "2:19: listen.address", "the port is missing"),
        (format!("{upstream}\nlisten: {{address: '0.0.0.0:1'}}"), "2:1: listen.tls", "or insecure_plaintext: true"),
        (
            format!("{upstream}\nlisten: {{address: '0.0.0.0:1', insecure_plaintext: false}}"),
            "2:1: listen.tls",
            "or insecure_plaintext: true",
        ),
        (
            format!("{upstream}\nlisten: {{address: '0.0.0.0:1', insecure_plaintext: true, tls: {{certificate: crt, private_key: key}}}}"),
            "2:52: listen.insecure_plaintext",
            "exactly one",
        ),
        (format!("{upstream}\nlisten: {{address: '0.0.0.0:1', tls: {{certificate: crt}}}}"), "2:32: listen.tls.private_key", "missing"),
        (
            format!("{upstream}\nlisten: {{address: '0.0.0.0:1', tls: {{certificate: nix, private_key: key}}}}"),
            "2:51: listen.tls.certificate",
            "there is no such file",
        ),
        (
            format!("{upstream}\nlisten: {{address: '0.0.0.0:1', tls: {{certificate: ., private_key: key}}}}"),
            "2:51: listen.tls.certificate",
            "directory",
        ),
        (
            format!("{upstream}\nlisten: {{address: '0.0.0.0:1', tls: {{certificate: empty, private_key: key}}}}"),
            "2:51: listen.tls.certificate",
            "it is empty",
        ),
        (
            format!(
                "{upstream}\nlisten:\n  address: '0.0.0.0:1'\n  tls:\n    certificate: crt\n    private_key: key\n    minimum_version: 1.2\n    client_ca: crt\n    client_certificate: optional"
            ),
            "7:22: listen.tls.minimum_version",
            "found the number 1.2, expected 1.2 or 1.3 (put it in quotes)",
        ),
        (
            format!("{upstream}\nlisten:\n  address: '0.0.0.0:1'\n  tls:\n    certificate: crt\n    private_key: key\n    client_ca: nix"),
            "7:16: listen.tls.client_ca",
            "there is no such file",
        ),
        (
            format!(
                "{upstream}\nlisten:\n  address: '0.0.0.0:1'\n  tls:\n    certificate: crt\n    private_key: key\n    client_certificate: optional"
            ),
            "7:25: listen.tls.client_certificate",
            "only beside client_ca",
        ),
        (
            format!("{upstream}\nlisten: {{address: '0.0.0.0:9902', insecure_plaintext: true}}"),
            "1:1: operations",
            "collides with listen.address",
        ),
        (
            format!("{listen}\nupstream: {{address: '127.0.0.1:50051'}}"),
            "2:21: upstream.address",
            "expected http://host:port, https://host:port or unix:/path",
        ),
        (format!("{listen}\nupstream: {{address: 'http://u:hunter2@a:1'}}"), "2:21: upstream.address", "user and password do not belong"),
        (format!("{listen}\nupstream: {{address: 'http://a:1/x'}}"), "2:21: upstream.address", "path"),
        (format!("{listen}\nupstream: {{address: 'http://a:1', tls: {{ca: crt}}}}"), "2:35: upstream.tls", "expected an https:// address"),
        (format!("{listen}\nupstream: {{address: 'unix:/a', tls: {{}}}}"), "2:32: upstream.tls", "expected an https:// address"),
        (format!("{listen}\nupstream: {{address: 'https://a:1', tls: {{certificate: crt}}}}"), "2:36: upstream.tls.private_key", "missing"),
        (format!("{listen}\nupstream: {{address: 'https://a:1', tls: {{ca: nix}}}}"), "2:46: upstream.tls.ca", "there is no such file"),
        (
            format!("{listen}\nupstream: {{address: 'http://a:1', health_service: false}}"),
            "2:51: upstream.health_service",
            "our word is none",
        ),
        (format!("{listen}\nupstream: {{address: 'http://a:1', connect_timeout: 0s}}"), "2:52: upstream.connect_timeout", "at least 1ms"),
    ] {
        expect(&text, "error", place, phrase);
    }
    for (ours, other, collides) in [
        ("127.0.0.1:7", "0.0.0.0:7", true),
        ("[::]:7", "127.0.0.1:7", true),
        ("[::1]:7", "0.0.0.0:7", false),
        ("127.0.0.1:7", "127.0.0.2:7", false),
        ("0.0.0.0:7", "0.0.0.0:8", false),
        ("127.0.0.1:0", "127.0.0.1:0", false),
    ] {
        let text = HEAD.replace("127.0.0.1:0", ours) + &format!("operations: {{address: '{other}'}}\n");
        assert_eq!(load_text(&text).problems.has_errors(), collides, "{ours} {other}");
    }
    let exposed = format!("{listen}\nupstream: {{address: 'http://a:1', insecure_exposed: true}}");
    expect(&exposed, "warning", "2:53: upstream.insecure_exposed", "go around Doorward");
    assert!(load_text(&exposed).config.unwrap().upstream.insecure_exposed && !good(HEAD).upstream.insecure_exposed);
    let unix = good(&format!("{listen}\nupstream: {{address: 'unix:app.sock', health_service: none}}"));
    assert_eq!(unix.upstream.address, UpstreamAddress::Unix(FILES.path().join("app.sock")));
    assert_eq!(unix.upstream.health, UpstreamHealth::Connection);
    let tls = good(&format!("{listen}\nupstream: {{address: 'https://a:1', tls: {{ca: crt, certificate: crt, private_key: key}}}}"));
    let tls = tls.upstream.tls.unwrap();
    assert!(tls.ca.is_some() && tls.client.is_some() && tls.server_name == "a");
    expect(&format!("{listen}\n{upstream}"), "warning", "1:54: listen.insecure_plaintext", "readable");
}

#[test]
fn bad_providers() {
    // A line that is added to the provider, at line 10 with the value's column after `    key: `, or one that is taken away.
    for (line, place, phrase) in [
        ("isuer: x", "10:5: authentication.jwt[0].isuer", "did you mean \"issuer\"?"),
        ("insecure_no_issuer: true", "10:25: authentication.jwt[0].insecure_no_issuer", "exactly one of issuer and"),
        ("discovery: true", "10:16: authentication.jwt[0].discovery", "second source of keys beside authentication.jwt[0].jwks_url"),
        ("discovery: 1", "10:16: authentication.jwt[0].discovery", "found the number 1, expected true or false"),
        ("secret_env: HMAC", "10:17: authentication.jwt[0].secret_env", "second source of keys"),
        ("refresh: 500ms", "10:14: authentication.jwt[0].refresh", "at least 1s"),
        ("cooldown: 0s", "10:15: authentication.jwt[0].cooldown", "at least 1s"),
        ("max_stale: 999ms", "10:16: authentication.jwt[0].max_stale", "at least 1s"),
        ("timeout: 5", "10:14: authentication.jwt[0].timeout", "a unit is missing"),
        ("jwks_ca: nix", "10:14: authentication.jwt[0].jwks_ca", "no such file"),
        ("jwks_bearer_file: nix", "10:23: authentication.jwt[0].jwks_bearer_file", "no such file"),
        ("readiness: require", "10:16: authentication.jwt[0].readiness", "did you mean \"required\"?"),
        ("leeway: none", "10:13: authentication.jwt[0].leeway", "expected a duration"),
        ("max_lifetime: 0s", "10:19: authentication.jwt[0].max_lifetime", "our word is none"),
        ("max_lifetime: false", "10:19: authentication.jwt[0].max_lifetime", "our word is none"),
        ("token_types: at+jwt", "10:18: authentication.jwt[0].token_types", "found \"at+jwt\", expected a list"),
        ("token_types: []", "10:5: authentication.jwt[0].token_types", "found an empty list"),
        ("required_claims: {azp: web}", "10:28: authentication.jwt[0].required_claims.azp", "expected a list"),
        ("required_claims: {azp: [1]}", "10:29: authentication.jwt[0].required_claims.azp[0]", "quotes"),
        ("required_claims: {'': [a]}", "10:23: authentication.jwt[0].required_claims[\"\"]", "empty claim name"),
        ("claims: {user_id: ''}", "10:23: authentication.jwt[0].claims.user_id", "found \"\""),
        ("claims: {userid: x}", "10:14: authentication.jwt[0].claims.userid", "did you mean \"user_id\"?"),
        ("trust: {roles: ['a*']}", "10:21: authentication.jwt[0].trust.roles[0]", "a * stands only for all"),
        ("trust: {email_domains: ['@a.b']}", "10:29: authentication.jwt[0].trust.email_domains[0]", "after the @"),
        ("trust: {unverified_email: 'true'}", "10:31: authentication.jwt[0].trust.unverified_email", "true or false"),
        ("trust:", "10:11: authentication.jwt[0].trust", "found nothing, expected a mapping"),
    ] {
        expect(&format!("{HEAD}{JWT}    {line}\n"), "error", place, phrase);
    }
    for (key, place, phrase) in [
        ("issuer", "5:5: authentication.jwt[0].issuer", "or insecure_no_issuer: true"),
        ("audiences", "5:5: authentication.jwt[0].audiences", "or insecure_no_audience: true"),
        ("algorithms", "5:5: authentication.jwt[0].algorithms", "missing"),
        ("jwks_url", "5:5: authentication.jwt[0]", "one of jwks_url, discovery: true, jwks_file"),
    ] {
        expect(&without(&format!("{HEAD}{JWT}"), key), "error", place, phrase);
    }
    for (from, to, place, phrase) in [
        ("corp", "''", "5:11: authentication.jwt[0].name", "it is empty"),
        ("corp", "a b", "5:11: authentication.jwt[0].name", "without white space"),
        ("corp", "google", "5:11: authentication.jwt[0].name", "another source of credentials"),
        ("corp", "client_certificates", "5:11: authentication.jwt[0].name", "another source of credentials"),
        ("[a]", "[]", "7:5: authentication.jwt[0].audiences", "found an empty list"),
        ("[a]", "a", "7:16: authentication.jwt[0].audiences", "expected a list"),
        ("[RS256]", "[]", "8:5: authentication.jwt[0].algorithms", "found an empty list"),
        ("[RS256]", "[none]", "8:18: authentication.jwt[0].algorithms[0]", "found \"none\", expected one of HS256, HS384"),
        ("[RS256]", "[rs256]", "8:18: authentication.jwt[0].algorithms[0]", "did you mean \"RS256\"?"),
        ("[RS256]", "[RS256, HS256]", "8:25: authentication.jwt[0].algorithms[1]", "only with secret_file, secret_env or a jwks_file"),
        (
            "[RS256]\n    jwks_url: https://i.example/k",
            "[RS256, HS512]\n    discovery: true",
            "8:25: authentication.jwt[0].algorithms[1]",
            "beside keys that are published",
        ),
        (
            "[RS256]\n    jwks_url: https://i.example/k",
            "[HS384]\n    public_key_file: crt",
            "8:18: authentication.jwt[0].algorithms[0]",
            "beside a public key",
        ),
        ("https://i.example/k", "http://i.example/k", "9:15: authentication.jwt[0].jwks_url", "plain http"),
        ("https://i.example/k", "https://u:hunter2@i.example/k", "9:15: authentication.jwt[0].jwks_url", "user and password"),
        ("https://i.example/k", "5", "9:15: authentication.jwt[0].jwks_url", "found the number 5, expected an https:// URL"),
        (
            "jwks_url: https://i.example/k",
            "public_key_file: crt\n    refresh: 1m",
            "10:14: authentication.jwt[0].refresh",
            "not beside authentication.jwt[0].public_key_file",
        ),
        (
            "jwks_url: https://i.example/k",
            "jwks_file: crt\n    jwks_ca: crt",
            "10:14: authentication.jwt[0].jwks_ca",
            "only for keys that are fetched",
        ),
        ("jwks_url: https://i.example/k", "jwks_file: empty", "9:16: authentication.jwt[0].jwks_file", "it is empty"),
        (
            "jwks_url: https://i.example/k",
            "secret_file: secret32",
            "8:18: authentication.jwt[0].algorithms[0]",
            "only HS256, HS384 or HS512",
        ),
        ("jwks_url: https://i.example/k", "secret_env: HMAC", "8:18: authentication.jwt[0].algorithms[0]", "only HS256, HS384 or HS512"),
        ("jwks_url: https://i.example/k", "discovery: false", "5:5: authentication.jwt[0]", "source of its keys is missing"),
        ("issuer: https://i.example", "issuer: i.example\n    discovery: true", "7:16: authentication.jwt[0].discovery", "second source"),
    ] {
        let text = format!("{HEAD}{JWT}").replace(from, to);
        // The second source is the later of the two in the order of the interface, wherever it stands.
        expect(&text, "error", place, phrase);
    }
    let discovering = |issuer: &str| {
        format!("{HEAD}{JWT}").replace("jwks_url: https://i.example/k", "discovery: true").replace("https://i.example", issuer)
    };
    expect(&discovering("i.example"), "error", "9:16: authentication.jwt[0].discovery", "an issuer that is an https:// URL");
    expect(&discovering("http://i.example"), "error", "9:16: authentication.jwt[0].discovery", "plain http");
    expect(
        &discovering("x").replace("issuer: x", "insecure_no_issuer: true"),
        "error",
        "9:16: authentication.jwt[0].discovery",
        "without issuer name jwks_url",
    );
    for (issuer, expected) in [
        ("https://i.example/", "https://i.example/.well-known/openid-configuration"),
        ("http://127.0.0.1:1/a", "http://127.0.0.1:1/a/.well-known/openid-configuration"),
    ] {
        let KeySource::Remote(keys) = &good(&discovering(issuer)).authentication.jwt[0].keys else { panic!() };
        assert_eq!(keys.location, KeyLocation::Discovery(HttpsUrl(expected.into())));
    }
}

#[test]
fn providers_must_be_told_apart() {
    let second = |name: &str, issuer: &str| {
        format!(
            "{HEAD}{JWT}    trust: {{}}\n  - name: {name}\n    {issuer}\n    audiences: [a]\n    algorithms: [RS256]\n    jwks_url: https://i.example/k\n    trust: {{}}\n"
        )
    };
    good(&second("two", "issuer: https://other.example"));
    expect(&second("corp", "issuer: x"), "error", "11:11: authentication.jwt[1].name", "taken by authentication.jwt[0].name");
    expect(
        &second("two", "issuer: https://i.example"),
        "error",
        "12:13: authentication.jwt[1].issuer",
        "taken by authentication.jwt[0].issuer",
    );
    expect(
        &second("two", "issuer: x").replace("    trust: {}\n", ""),
        "error",
        "5:5: authentication.jwt[0].trust",
        "more than one provider",
    );
    expect(
        &second("two", "issuer: x").replace("    trust: {}\n", ""),
        "error",
        "10:5: authentication.jwt[1].trust",
        "more than one provider",
    );
    expect(&format!("{HEAD}{JWT}  google: {{client_ids: [c]}}\n"), "error", "5:5: authentication.jwt[0].trust", "more than one provider");
    let both = second("two", "insecure_no_issuer: true").replace("issuer: https://i.example", "insecure_no_issuer: true");
    expect(&both, "error", "12:25: authentication.jwt[1].insecure_no_issuer", "only one provider can have it");
    let google = format!("{HEAD}{JWT}    trust: {{}}\n  google: {{client_ids: [c]}}\n")
        .replace("https://i.example\n", "https://accounts.google.com\n");
    expect(&google, "error", "6:13: authentication.jwt[0].issuer", "Google's");
}

#[test]
fn keys_that_are_given_up_before_they_can_be_fetched_again_are_warned_about() {
    let with = |lines: &str| format!("{HEAD}{JWT}{lines}");
    expect(&with("    max_stale: 30s\n"), "warning", "10:16: authentication.jwt[0].max_stale", "no token of this provider");
    expect(&with("    cooldown: 24h\n"), "warning", "10:15: authentication.jwt[0].cooldown", "no token of this provider");
    assert!(!lines(&load_text(&with("    max_stale: 31s\n"))).iter().any(|line| line.contains("given up")));
}

#[test]
fn bad_authentication() {
    for (text, place, phrase) in [
        (
            "mode: require",
            "4:9: authentication.mode",
            "found \"require\", expected one of required, optional, disabled; did you mean \"required\"?",
        ),
        ("mode: off", "4:9: authentication.mode", "found \"off\""),
        ("public_methods: [a.B/C]", "4:20: authentication.public_methods[0]", "/package.Service/*"),
        ("public_methods: /a.B/C", "4:19: authentication.public_methods", "a list of method patterns"),
        ("insecure_audit: 1", "4:19: authentication.insecure_audit", "true or false"),
        ("jwt: {name: x}", "4:3: authentication.jwt", "found a mapping, expected a list"),
        ("jwt: [x]", "4:9: authentication.jwt[0]", "expected a mapping"),
        ("google: {}", "4:3: authentication.google.client_ids", "missing"),
        ("google: {client_ids: []}", "4:12: authentication.google.client_ids", "empty list"),
        ("google: {client_ids: [c], service_accounts: ['*']}", "4:48: authentication.google.service_accounts[0]", "@ is missing"),
        (
            "google: {client_ids: [c], service_accounts: ['*@gserviceaccount.com']}",
            "4:48: authentication.google.service_accounts[0]",
            "one project only",
        ),
        (
            "google: {client_ids: [c], service_accounts: ['*@*.iam.gserviceaccount.com']}",
            "4:48: authentication.google.service_accounts[0]",
            "one project only",
        ),
        (
            "google: {client_ids: [c], service_accounts: ['a@example.com']}",
            "4:48: authentication.google.service_accounts[0]",
            "end in .gserviceaccount.com",
        ),
        ("google: {client_ids: [c], jwks_url: 'http://a/b'}", "4:39: authentication.google.jwks_url", "plain http"),
        ("google: {client_ids: [c], refresh: 1m}", "4:29: authentication.google.refresh", "unknown key"),
        ("api_keys: {}", "4:3: authentication.api_keys.file", "missing"),
        ("api_keys: {file: nix}", "4:20: authentication.api_keys.file", "no such file"),
        ("api_keys: {file: key, header: X-Api-Key}", "4:33: authentication.api_keys.header", "lower case"),
        ("api_keys: {file: key, header: authorization}", "4:33: authentication.api_keys.header", "belongs to HTTP or gRPC"),
        ("api_keys: {file: key, header: api-key.id}", "4:33: authentication.api_keys.header", "identity header"),
        ("api_keys: {file: key, header: ':path'}", "4:33: authentication.api_keys.header", "valid field name"),
        (
            "api_keys: {development_key: 12345}",
            "4:31: authentication.api_keys.development_key",
            "found a number or boolean, expected a text",
        ),
        ("api_keys: {development_key: ''}", "4:31: authentication.api_keys.development_key", "found a text, expected a text"),
        ("client_certificates: {}", "4:3: authentication.client_certificates", "expected a list of entries"),
        ("revocations: {}", "4:3: authentication.revocations.file", "missing"),
        ("revocations: {file: nix}", "4:23: authentication.revocations.file", "no such file"),
        ("long_calls: {on_revocation: stop}", "4:31: authentication.long_calls.on_revocation", "found \"stop\", expected continue or end"),
        ("long_calls: {on_expiry: stop}", "4:27: authentication.long_calls.on_expiry", "found \"stop\", expected continue or end"),
    ] {
        expect(&format!("{HEAD}authentication:\n  {text}\n"), "error", place, phrase);
    }
    let long_calls = |text: &str| good(&format!("{HEAD}authentication: {{{text}}}\n")).authentication.long_calls;
    let both = |on_expiry, on_revocation| LongCalls { on_expiry, on_revocation };
    assert_eq!(long_calls(""), both(LongCall::Continue, LongCall::End));
    assert_eq!(long_calls("long_calls: {on_expiry: end, on_revocation: continue}"), both(LongCall::End, LongCall::Continue));
    let taken = format!("{HEAD}identity_headers: {{provider: x_api_key}}\nauthentication: {{api_keys: {{file: key}}}}\n");
    expect(&taken, "error", "4:18: authentication.api_keys.header", "identity header too");
}

/// Lines 1 and 2 of configurations that ask for certificates.
const HEAD_WITH_CA: &str =
    "listen: {address: '127.0.0.1:0', tls: {certificate: crt, private_key: key, client_ca: crt}}\nupstream: {address: 'http://a:1'}\n";

#[test]
fn callers_are_known_by_their_certificates() {
    let text = format!(
        "{HEAD_WITH_CA}authentication:\n  client_certificates:\n  - {{spiffe: 'spiffe://a.b/ns/c', client_id: one, roles: [viewer]}}\n  \
         - {{dns: Worker.Example.COM, client_id: two}}\n  - {{common_name: 'Some Body', client_id: two, roles: []}}\n\
         authorization: {{roles: {{viewer: ['a:b']}}, methods: {{/a.B/C: {{from: [client_certificates]}}}}}}\n"
    );
    let loaded = load_text(&text);
    assert_eq!(lines(&loaded), [""; 0]);
    let config = loaded.config.unwrap();
    let entries: Vec<_> =
        config.authentication.client_certificates.iter().map(|e| (&e.name, e.client_id.as_str(), e.roles.join(","))).collect();
    assert_eq!(
        entries,
        [
            (&CertificateName::Spiffe("spiffe://a.b/ns/c".to_owned()), "one", "viewer".to_owned()),
            (&CertificateName::Dns("worker.example.com".to_owned()), "two", String::new()),
            (&CertificateName::CommonName("Some Body".to_owned()), "two", String::new()),
        ]
    );
    for (key, required) in [("", true), (", client_certificate: required", true), (", client_certificate: optional", false)] {
        let config = good(&text.replace("client_ca: crt", &format!("client_ca: crt{key}")));
        let Transport::Tls(tls) = &config.listen.transport else { panic!() };
        let ca = tls.client_ca.as_ref().unwrap();
        assert_eq!((ca.file.content.expose(), ca.required), (b"certificate".as_slice(), required), "{key}");
    }
}

#[test]
fn an_entry_that_could_match_nobody_or_somebody_else_is_an_error() {
    for (entry, place, phrase) in [
        ("{client_id: a}", "5:6: authentication.client_certificates[0]", "exactly one of spiffe, dns and common_name"),
        ("{client_id: a, dns: b, common_name: c}", "5:6: authentication.client_certificates[0]", "exactly one of"),
        ("{dns: b}", "5:6: authentication.client_certificates[0].client_id", "missing"),
        ("{dns: b, client_id: ''}", "5:25: authentication.client_certificates[0].client_id", "expected a name"),
        ("{dns: b, client_id: a, role: c}", "5:28: authentication.client_certificates[0].role", "unknown key"),
        ("{dns: '*.b', client_id: a}", "5:11: authentication.client_certificates[0].dns", "without a wildcard"),
        ("{dns: 'b c', client_id: a}", "5:11: authentication.client_certificates[0].dns", "between dots"),
        ("{spiffe: 'https://b/c', client_id: a}", "5:14: authentication.client_certificates[0].spiffe", "begins with spiffe://"),
        ("{spiffe: 'spiffe://b', client_id: a}", "5:14: authentication.client_certificates[0].spiffe", "path is missing"),
        ("{common_name: '', client_id: a}", "5:19: authentication.client_certificates[0].common_name", "expected a common name"),
        (
            "{dns: b, client_id: a, roles: [vewer]}",
            "5:36: authentication.client_certificates[0].roles[0]",
            "the role \"vewer\" is not defined, expected one of viewer; did you mean \"viewer\"?",
        ),
        (
            "{dns: b.c, client_id: a}\n  - {dns: B.c, client_id: b}",
            "6:6: authentication.client_certificates[1]",
            "taken by authentication.client_certificates[0] already",
        ),
    ] {
        let text = format!("{HEAD_WITH_CA}authentication:\n  client_certificates:\n  - {entry}\n");
        expect(&format!("{text}authorization: {{roles: {{viewer: ['a:b']}}}}\n"), "error", place, phrase);
    }
    // Also when the whole section of roles is missing.
    let text = "authentication:\n  client_certificates:\n  - {dns: b, client_id: a, roles: [c]}\n";
    expect(&format!("{HEAD_WITH_CA}{text}"), "error", "5:36: authentication.client_certificates[0].roles[0]", "and there is none");
}

#[test]
fn certificates_are_asked_for_where_they_are_looked_at() {
    let entries = "authentication: {client_certificates: [{dns: b, client_id: a}]}\n";
    let plaintext = HEAD.replace("tls: {certificate: crt, private_key: key}", "insecure_plaintext: true");
    for head in [HEAD, &plaintext] {
        expect(&format!("{head}{entries}"), "error", "3:18: authentication.client_certificates", "needs listen.tls.client_ca");
    }
    // One problem, not two.
    let broken = lines(&load_text(&format!("{}{entries}", HEAD_WITH_CA.replace("certificate: crt", "certificate: nix"))));
    assert!(!broken.iter().any(|line| line.contains("needs listen.tls.client_ca")), "{broken:#?}");
    for empty in ["", "authentication: {client_certificates: []}\n"] {
        let text = format!("{HEAD_WITH_CA}{empty}");
        expect(&text, "warning", "1:87: listen.tls.client_ca", "nobody is known by one");
        let rest = "authorization: {methods: {/a.B/C: {from: [client_certificates]}}}\n";
        let place = format!("{}: authorization.methods[\"/a.B/C\"].from[0]", if empty.is_empty() { "3:43" } else { "4:43" });
        expect(&format!("{text}{rest}"), "error", &place, "is not configured");
    }
    good(&format!("{HEAD}authentication: {{client_certificates: []}}\n"));
}

#[test]
fn a_development_key_stays_on_this_machine() {
    let text = |address: &str, more: &str| {
        format!("{HEAD}authentication: {{api_keys: {{development_key: hunter2{more}}}}}\n").replace("127.0.0.1:0", address)
    };
    for address in ["127.0.0.1:0", "[::1]:0"] {
        good(&text(address, ""));
        expect(&text(address, ""), "warning", "3:46: authentication.api_keys.development_key", "*:*");
    }
    for address in ["0.0.0.0:0", "[::]:0", "10.0.0.1:0"] {
        expect(&text(address, ""), "error", "3:46: authentication.api_keys.development_key", "only while listen.address is loopback");
        expect(&text(address, ", insecure_development_key: false"), "error", "3:46: authentication.api_keys.development_key", "only while");
        let anywhere = text(address, ", insecure_development_key: true");
        assert_eq!(good(&anywhere).authentication.api_keys.unwrap().development_key.unwrap().expose(), b"hunter2");
        expect(&anywhere, "warning", "3:81: authentication.api_keys.insecure_development_key", "other machines");
    }
}

#[test]
fn bad_authorization() {
    let auth = "authentication:\n  google: {client_ids: [c]}\nauthorization:\n";
    for (text, place, phrase) in [
        ("default: allow", "6:12: authorization.default", "found \"allow\", expected deny or authenticated"),
        ("roles: {viewer: users:read}", "6:19: authorization.roles.viewer", "found \"users:read\", expected a list"),
        ("roles: {viewer: [users]}", "6:20: authorization.roles.viewer[0]", "found \"users\", expected a permission such as users:read"),
        ("roles: {viewer: ['us*:read']}", "6:20: authorization.roles.viewer[0]", "either side may be *"),
        ("roles: {'*': []}", "6:11: authorization.roles[\"*\"]", "cannot be the name of a role"),
        ("roles: {a: [], b: [], a: []}", "6:25: authorization.roles.a", "this key stands already at t.yaml:6:11"),
        ("users: {a@b.c: [x], a@b.c: [x]}", "6:23: authorization.users[\"a@b.c\"]", "this key stands already"),
        (
            "roles: {viewer: []}\n  users: {a@b.c: [viwer]}",
            "7:19: authorization.users[\"a@b.c\"][0]",
            "the role \"viwer\" is not defined, expected one of viewer; did you mean \"viewer\"?",
        ),
        ("users: {alice: admin}", "6:18: authorization.users.alice", "a list of roles"),
        ("clients: {c: [admin]}", "6:17: authorization.clients.c[0]", "not defined"),
        ("methods: []", "6:3: authorization.methods", "expected a mapping of method: rule"),
        (
            "methods: {a.B/C: authenticated}",
            "6:20: authorization.methods[\"a.B/C\"]",
            "no method pattern, expected /package.Service/Method",
        ),
        ("methods: {/a.B/C: authenticate}", "6:21: authorization.methods[\"/a.B/C\"]", "did you mean \"authenticated\"?"),
        ("methods: {/a.B/C: any}", "6:21: authorization.methods[\"/a.B/C\"]", "expected authenticated, anyone, a permission"),
        ("methods: {/a.B/C: anyone}", "6:21: authorization.methods[\"/a.B/C\"]", "only with authentication.mode: optional"),
        ("methods: {/a.B/C: }", "6:21: authorization.methods[\"/a.B/C\"]", "found nothing"),
        ("methods: {/a.B/C: true}", "6:21: authorization.methods[\"/a.B/C\"]", "found true"),
        ("methods: {/a.B/C: []}", "6:13: authorization.methods[\"/a.B/C\"]", "found an empty list"),
        ("methods: {/a.B/C: [authenticated]}", "6:22: authorization.methods[\"/a.B/C\"][0]", "expected a permission"),
        ("methods: {/a.B/C: {}}", "6:13: authorization.methods[\"/a.B/C\"]", "nothing is asked for"),
        ("methods: {/a.B/C: {any: [a:b]}}", "6:22: authorization.methods[\"/a.B/C\"].any", "unknown key"),
        ("methods: {/a.B/C: {any_of: []}}", "6:22: authorization.methods[\"/a.B/C\"].any_of", "found an empty list"),
        ("methods: {/a.B/C: {all_of: a:b}}", "6:30: authorization.methods[\"/a.B/C\"].all_of", "expected a list"),
        ("methods: {/a.B/C: {from: []}}", "6:22: authorization.methods[\"/a.B/C\"].from", "found an empty list"),
        (
            "methods: {/a.B/C: {from: [gogle]}}",
            "6:29: authorization.methods[\"/a.B/C\"].from[0]",
            "the credential \"gogle\" is not configured, expected one of google; did you mean \"google\"?",
        ),
        ("methods: {/a.B/C: {from: [api_keys]}}", "6:29: authorization.methods[\"/a.B/C\"].from[0]", "not configured"),
        ("methods: {/a.B/C: a:b, /a.B/C: a:c}", "6:26: authorization.methods[\"/a.B/C\"]", "this key stands already"),
    ] {
        expect(&format!("{HEAD}{auth}  {text}\n"), "error", place, phrase);
    }
}

#[test]
fn what_weakens_or_makes_no_sense_is_warned_about() {
    let jwt = format!("{HEAD}{JWT}");
    for (text, place, phrase) in [
        (format!("{HEAD}authentication: {{mode: optional}}"), "3:24: authentication.mode", "without a credential"),
        (format!("{HEAD}authentication: {{mode: disabled}}"), "3:24: authentication.mode", "nobody's credentials are checked"),
        (format!("{HEAD}authentication: {{insecure_audit: true}}"), "3:34: authentication.insecure_audit", "anonymous"),
        (format!("{HEAD}authentication: {{mode: required}}"), "3:1: authentication", "no source of credentials"),
        (HEAD.to_owned(), "1:1: authentication", "no source of credentials"),
        (HEAD.to_owned(), "1:1: authorization", "every call is refused"),
        (format!("{HEAD}authorization: {{audit: true}}"), "3:24: authorization.audit", "let through"),
        (format!("{jwt}authorization: {{methods: {{/a.B/C: a:b}}}}"), "10:35: authorization.methods[\"/a.B/C\"]", "no role grants a:b"),
        (
            format!("{jwt}authorization: {{roles: {{r: ['b:*', 'c:b']}}, methods: {{/a.B/C: {{all_of: [a:b]}}}}}}"),
            "10:73: authorization.methods[\"/a.B/C\"].all_of[0]",
            "no role grants a:b",
        ),
        (format!("{jwt}    trust: {{unverified_email: true}}"), "10:31: authentication.jwt[0].trust.unverified_email", "not verified"),
        (without(&jwt, "issuer") + "    insecure_no_issuer: true", "9:25: authentication.jwt[0].insecure_no_issuer", "who issued them"),
        (
            without(&jwt, "audiences") + "    insecure_no_audience: true",
            "9:27: authentication.jwt[0].insecure_no_audience",
            "whom they are for",
        ),
        (HEAD.replace("private_key: key", "private_key: open"), "1:71: listen.tls.private_key", "everybody on this machine can read"),
        (
            format!("{HEAD}authentication: {{api_keys: {{file: open}}}}"),
            "3:35: authentication.api_keys.file",
            "everybody on this machine can read",
        ),
        (format!("{jwt}    jwks_bearer_file: open"), "10:23: authentication.jwt[0].jwks_bearer_file", "everybody on this machine can read"),
    ] {
        expect(&text, "warning", place, phrase);
        good(&text);
    }
    let fine = format!("{jwt}authorization: {{roles: {{r: ['a:*'], s: ['*:c']}}, methods: {{/a.B/C: a:b, /a.B/D: [z:c]}}}}");
    let loaded = load_text(&fine);
    assert_eq!(lines(&loaded), Vec::<String>::new());
}

#[test]
fn all_problems_are_told_in_one_run_in_the_order_of_the_file() {
    let loaded = load_text(
        "listen: {address: x, tls: {certificate: nix}}\nupstream: {address: y}\nlimits: {streams: 0}\nzzz: 1\nauthorization: {users: {a: [b]}}\n",
    );
    let starts = [
        "t.yaml:1:19: listen.address",
        "t.yaml:1:22: listen.tls.private_key",
        "t.yaml:1:41: listen.tls.certificate",
        "t.yaml:2:21: upstream.address",
        "t.yaml:3:19: limits.streams",
        "t.yaml:4:1: zzz",
        "t.yaml:5:29: authorization.users.a[0]",
    ];
    let lines: Vec<String> = lines(&loaded).into_iter().filter(|line| line.starts_with("error")).collect();
    for start in starts {
        assert!(lines.iter().any(|line| line.starts_with(&format!("error: {start}"))), "{start} {lines:#?}");
    }
    assert_eq!(lines.len(), starts.len(), "{lines:#?}");
    assert!(loaded.config.is_some());
    let places: Vec<_> = loaded.problems.iter().map(|problem| (problem.at.line, problem.at.column)).collect();
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn several_files_are_one_configuration() {
    let team = "authentication: {google: {client_ids: [c]}}\nauthorization: {roles: {a: ['*:*']}, methods: {/a.B/*: a:b}}\n";
    let loaded = load_all(&[source("p.yaml", HEAD), source("t.yaml", team), source("u.yaml", "authorization: {roles: {b: []}}\n")]);
    assert_eq!(lines(&loaded), Vec::<String>::new());
    assert_eq!(loaded.config.unwrap().authorization.roles.len(), 2);
    let clash = "authorization: {roles: {a: []}}\nupstream: 5\n";
    let loaded = load_all(&[source("p.yaml", HEAD), source("t.yaml", team), source("u.yaml", clash)]);
    let lines = lines(&loaded);
    assert_eq!(lines[0], "error: u.yaml:1:25: authorization.roles.a: this key stands already at t.yaml:2:25; only one file may set it");
    assert_eq!(lines[1], "error: u.yaml:2:1: upstream: this key stands already at p.yaml:2:1; only one file may set it");
    assert_eq!(lines.len(), 2, "{lines:#?}");
    // Relative paths belong to the file they stand in.
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("keys"), "keys: []").unwrap();
    let keys = Source { name: "k.yaml".into(), text: "authentication: {api_keys: {file: keys}}".into(), base: elsewhere.path().into() };
    let loaded = load_all(&[source("p.yaml", HEAD), keys]);
    assert!(!loaded.problems.has_errors(), "{:?}", loaded.problems);
}

#[test]
fn files_are_read_from_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.yaml");
    for name in ["crt", "key"] {
        fs::write(folder.path().join(name), "x").unwrap();
    }
    fs::write(&path, HEAD).unwrap();
    assert!(!load(std::slice::from_ref(&path)).problems.has_errors());
    fs::write(&path, b"a: \xff").unwrap();
    for (paths, phrase) in [
        (vec![path], "c.yaml: cannot read the configuration: it is not UTF-8"),
        (vec![folder.path().join("nix.yaml")], "nix.yaml: cannot read the configuration: there is no such file"),
        (vec![folder.path().to_owned()], "cannot read the configuration: it is a directory"),
    ] {
        let loaded = load(&paths);
        assert!(loaded.config.is_none() && lines(&loaded)[0].contains(phrase), "{:?}", lines(&loaded));
    }
}

#[test]
fn no_secret_is_quoted() {
    let spoilt = [
        "authentication: {api_keys: {development_key: hunter2}}",
        "authentication: {api_keys: {development_key: [hunter2]}}",
        "authentication: {api_keys: {development_key: !!int hunter2}}",
        "authentication: {api_keys: {development_key: !x hunter2}}",
        "authentication: {api_keys: {development_key: hunter2, development_key: hunter2}}",
        "authentication: {api_keys: {file: open, development_key: {x: hunter2}}}",
        "authentication: {jwt: [{jwks_url: 'https://u:hunter2@a/b'}]}",
        "authentication: {jwt: [{jwks_url: 'u:hunter2@a'}]}",
        "authentication: {jwt: [{jwks_url: 'ftp://u:hunter2@a'}]}",
        "authentication: {jwt: [{secret_env: SHORT, algorithms: [HS256]}]}",
        "authentication: {jwt: [{secret_file: open, algorithms: [HS512]}]}",
        "authentication: {jwt: [{issuer: 'https://u:hunter2@a', discovery: true}]}",
        "authentication: {google: {client_ids: [c], jwks_url: 'https://hunter2@a'}}",
        "operations: {address: 'http://u:hunter2@a'}",
    ];
    for text in spoilt {
        let loaded = load_text(&format!("{HEAD}{text}\n"));
        let all = format!("{:?} {:?}", lines(&loaded), loaded);
        assert!(loaded.problems.iter().count() > 0 && !lines(&loaded).concat().contains("hunter2"), "{all}");
    }
    for address in ["http://u:hunter2@a:1", "u:hunter2@a:1", "//u:hunter2@a", "ftp://u:hunter2@a"] {
        let loaded = load_text(&HEAD.replace("http://a:1", address));
        assert!(loaded.problems.has_errors() && !format!("{loaded:?}").contains("hunter2"), "{:?}", lines(&loaded));
    }
    let debug = format!("{:?}", load_text(&format!("{HEAD}authentication: {{api_keys: {{file: open, development_key: hunter2}}}}\n")));
    assert!(!debug.contains("hunter2"), "{debug}");
}

const EXAMPLE: &str = include_str!("../../config.example.yaml");

fn load_example(text: &str) -> Loaded {
    let base = env!("CARGO_MANIFEST_DIR").into();
    load_all(&[Source { name: "config.example.yaml".into(), text: text.into(), base }])
}

#[test]
fn the_example_passes() {
    let loaded = load_example(EXAMPLE);
    // A checkout's files may be readable by everybody; nothing else is worth a word.
    let others: Vec<_> = lines(&loaded).into_iter().filter(|line| !line.contains("everybody on this machine")).collect();
    assert_eq!(others, Vec::<String>::new());
    let config = loaded.config.unwrap();
    assert_eq!((config.authentication.jwt.len(), config.authorization.methods.len()), (3, 5));
}

#[test]
fn what_the_example_comments_out_is_understood() {
    let lines_of_example: Vec<&str> = EXAMPLE.lines().collect();
    let is_key = |line: &str| {
        let key = line.trim_start().strip_prefix("# ").and_then(|rest| rest.split_once(": ")).map_or("", |(key, _)| key);
        !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b"_/.*".contains(&b))
    };
    let mut tried = 0;
    for (i, line) in lines_of_example.iter().enumerate().filter(|(_, line)| is_key(line)) {
        let mut changed: Vec<String> = lines_of_example.iter().map(|line| (*line).to_owned()).collect();
        changed[i] = line.replacen("# ", "", 1);
        let loaded = load_example(&(changed.join("\n") + "\n"));
        let key = line.trim().trim_start_matches("# ");
        let all = lines(&loaded);
        assert!(loaded.config.is_some(), "{key}: {all:?}");
        assert!(!all.iter().any(|line| line.contains("unknown key") || line.contains("stands already")), "{key}: {all:?}");
        tried += 1;
    }
    assert!(tried >= 20, "{tried}");
}

#[test]
fn the_example_shows_every_key() {
    let keys = "version workers listen address tls certificate private_key client_ca client_certificate minimum_version insecure_plaintext upstream ca \
        server_name connect_timeout health_service insecure_exposed authentication mode public_methods insecure_audit jwt name issuer insecure_no_issuer \
        audiences insecure_no_audience algorithms jwks_url discovery jwks_file public_key_file secret_file secret_env jwks_ca jwks_bearer_file refresh \
        cooldown max_stale timeout readiness leeway token_types max_lifetime required_claims claims user_id email roles client_id permissions trust \
        email_domains unverified_email user_id_prefix google client_ids hosted_domains service_accounts api_keys header file development_key \
        insecure_development_key client_certificates spiffe revocations long_calls on_expiry on_revocation authorization default users clients methods any_of \
        all_of from audit identity_headers user_email user_name api_key_id provider forward_credentials limits connections streams header_bytes \
        header_fields handshake stream_idle stalled connection_idle connection_age drain_delay drain rate_limits per_identity \
        failed_authentication_per_peer operations log level access explain_refusals otlp";
    let words: std::collections::HashSet<&str> =
        EXAMPLE.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).filter_map(|word| word.strip_suffix(':')).collect();
    for key in keys.split_whitespace() {
        assert!(words.contains(key), "{key}");
    }
}

#[test]
fn an_address_of_this_machine_is_known_as_one() {
    let address = |host: &str| UpstreamAddress::Tcp { host: host.to_owned(), port: 7 };
    for own in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "localhost", "LocalHost", "0.0.0.0", "::"] {
        assert_eq!(address(own).loopback_port(), Some(7), "{own}");
    }
    for other in ["10.0.0.1", "fe80::1", "app.local", "::ffff:10.0.0.1"] {
        assert_eq!(address(other).loopback_port(), None, "{other}");
    }
    let unix = UpstreamAddress::Unix("/run/app.sock".into());
    assert_eq!(unix.loopback_port(), None);
    let shown = [address("a.b"), address("::1"), unix].map(|address| address.to_string());
    assert_eq!(shown, ["a.b:7", "[::1]:7", "unix:/run/app.sock"]);
}

/// Aliases are fine.
#[test]
fn an_alias_stands_for_its_value() {
    let config = good(&format!("{HEAD}authorization:\n  roles: {{a: &p ['x:y'], b: *p}}\n"));
    assert_eq!(config.authorization.roles[1].permissions, [Permission::parse("x:y").unwrap()]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_spoilt_example_never_panics(cut in 0..EXAMPLE.len(), length in 0..40usize, put in "[ -~\n]{0,12}") {
        let start = (0..=cut).rev().find(|i| EXAMPLE.is_char_boundary(*i)).unwrap();
        let end = (start + length..).find(|i| *i >= EXAMPLE.len() || EXAMPLE.is_char_boundary(*i)).unwrap().min(EXAMPLE.len());
        let text = format!("{}{put}{}", &EXAMPLE[..start], &EXAMPLE[end..]);
        let loaded = load_example(&text);
        prop_assert!(loaded.config.is_some() || loaded.problems.has_errors());
    }
}
