//! The file: every error at once with its place, the exit codes, and nothing bound when it is bad.

use crate::harness::token::SECRET;
use crate::harness::*;
use std::net::TcpListener;
use std::process::Output;

fn check(site: &Site, yaml: &str) -> Output {
    let path = site.write("doorward.yaml", yaml);
    command(&["check", "--config", path.to_str().unwrap()], "")
}

#[test]
fn a_good_file_is_summed_up_and_exits_0() {
    let output = check(&Site::new(), &standard("http://127.0.0.1:50051"));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("corporate"), "{}", said(&output));
}

#[test]
fn the_example_passes_in_a_fresh_checkout() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config.example.yaml");
    let output = command(&["check", "--config", example], "");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    // Every key of the interface stands in it, commented out where one would contradict another.
    let text = std::fs::read_to_string(example).unwrap();
    for key in [
        "version",
        "workers",
        "address",
        "certificate",
        "private_key",
        "client_ca",
        "client_certificate",
        "minimum_version",
        "insecure_plaintext",
        "connect_timeout",
        "health_service",
        "insecure_exposed",
        "mode",
        "public_methods",
        "insecure_audit",
        "issuer",
        "insecure_no_issuer",
        "audiences",
        "insecure_no_audience",
        "algorithms",
        "jwks_url",
        "discovery",
        "jwks_file",
        "public_key_file",
        "secret_file",
        "secret_env",
        "jwks_ca",
        "jwks_bearer_file",
        "refresh",
        "cooldown",
        "max_stale",
        "timeout",
        "readiness",
        "leeway",
        "token_types",
        "max_lifetime",
        "required_claims",
        "claims",
        "trust",
        "email_domains",
        "unverified_email",
        "user_id_prefix",
        "google",
        "client_ids",
        "hosted_domains",
        "service_accounts",
        "api_keys",
        "header",
        "file",
        "development_key",
        "client_certificates",
        "revocations",
        "long_calls",
        "default",
        "roles",
        "users",
        "clients",
        "methods",
        "audit",
        "identity_headers",
        "provider",
        "forward_credentials",
        "connections",
        "streams",
        "header_bytes",
        "header_fields",
        "handshake",
        "stream_idle",
        "stalled",
        "connection_idle",
        "connection_age",
        "drain_delay",
        "drain",
        "rate_limits",
        "operations",
        "log",
        "level",
        "access",
        "explain_refusals",
        "otlp",
    ] {
        assert!(text.contains(&format!("{key}:")), "{key} is missing in config.example.yaml");
    }
}

#[test]
fn all_errors_come_at_once_each_with_file_line_column_and_key() {
    let yaml = "version: 2
listen: { adress: 127.0.0.1:0, tls: { certificate: missing.crt, private_key: tls.key } }
operations: { address: nowhere }
upstream: { address: ftp://127.0.0.1:1 }
authentication:
  mode: strict
  jwt:
    - { name: a, issuer: https://a.test/, audiences: [x], algorithms: [none], secret_file: hmac.secret }
authorization:
  roles: { viewer: [everything] }
  methods: { users/Get: users:read }
limits: { drain: 5 }
limits: { drain: 5s }
";
    let site = Site::new();
    let output = check(&site, yaml);
    assert_eq!(output.status.code(), Some(78), "{}", said(&output));
    // A duplicate key may hide what it duplicates: without it, everything else must be there in one run.
    assert!(said(&output).contains(":13:"), "the duplicate: {}", said(&output));
    let output = check(&site, &yaml.replace("limits: { drain: 5s }\n", ""));
    assert_eq!(output.status.code(), Some(78), "{}", said(&output));
    let text = said(&output);
    for expected in [
        ":1:",
        ":2:11",
        "adress",
        "address",
        "missing.crt",
        ":3:",
        ":4:",
        "mode",
        ":6:9",
        "optional",
        "algorithms",
        ":8:",
        "everything",
        ":10:",
        "users/Get",
        ":11:",
        "drain",
        ":12:",
    ] {
        assert!(text.contains(expected), "{expected:?} in\n{text}");
    }
}

#[test]
fn no_secret_is_quoted() {
    let yaml = standard("http://user:password-of-the-url@127.0.0.1:50051")
        .replace("file: api-keys.yaml", "file: api-keys.yaml, development_key: [the-development-key]");
    let site = Site::new();
    site.write("hmac.secret", "short-secret");
    site.write("api-keys.yaml", "keys:\n  - { id: a, client_id: a, sha256: not-a-hash-but-the-key-itself, type: service }\n");
    let output = check(&site, &yaml);
    assert_eq!(output.status.code(), Some(78), "{}", said(&output));
    for secret in ["short-secret", "password-of-the-url", "the-development-key", "not-a-hash-but-the-key-itself", SECRET] {
        assert!(!said(&output).contains(secret), "{}", said(&output));
    }
}

#[test]
fn files_it_names_are_checked_too() {
    let site = Site::new();
    let with = |name: &str, content: &str| {
        let before = std::fs::read(site.path(name)).unwrap();
        site.write(name, content);
        let output = check(&site, &standard("http://127.0.0.1:50051"));
        site.write(name, before);
        assert_eq!(output.status.code(), Some(78), "{name} {content:?}: {}", said(&output));
        // The file by its name, or by the key that names it.
        assert!(said(&output).contains(name) || said(&output).contains("secret_file"), "{name} {content:?}: {}", said(&output));
    };
    for content in ["", "keys:\n", "keys: 1\n", "key: []\n", "keys: [{ id: a }]\n", ": : :"] {
        with("api-keys.yaml", content);
    }
    for content in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        with("tls.crt", content);
        with("tls.key", content);
    }
    for content in ["", "\n", "too short"] {
        with("hmac.secret", content);
    }
    // The key of another certificate.
    site.certificate("other", &["localhost"]);
    with("tls.key", &std::fs::read_to_string(site.path("other.key")).unwrap());
}

#[test]
fn a_bad_file_binds_nothing() {
    let site = Site::new();
    // The address is taken by us: had it been bound before the check, the error would be another one.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = taken.local_addr().unwrap();
    let rest = format!(
        "listen: {{ address: \"{free}\", tls: {{ certificate: tls.crt, private_key: tls.key }} }}\nauthentication: {{ mode: nonsense }}\n"
    );
    let path = site.write("doorward.yaml", configuration("http://127.0.0.1:1", &rest));
    let output = command(&["run", "--config", path.to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(78), "{}", said(&output));
    assert!(said(&output).contains("nonsense") && !said(&output).contains("listening on"), "{}", said(&output));
}

#[test]
fn a_port_that_is_taken_fails_with_1_and_its_key() {
    let site = Site::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let rest = format!("{}listen: {{ address: \"{address}\", tls: {{ certificate: tls.crt, private_key: tls.key }} }}\n", site::STANDARD);
    let path = site.write("doorward.yaml", configuration("http://127.0.0.1:1", &rest));
    let output = command(&["run", "--config", path.to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("listen.address"), "{}", said(&output));
}

#[test]
fn several_files_are_one_configuration_and_a_leaf_in_two_is_an_error() {
    let site = Site::new();
    let platform = site.write("platform.yaml", standard("http://127.0.0.1:50051"));
    let service = site.write("service.yaml", "authorization: { methods: { /demo.v1.More/*: authenticated } }\n");
    let twice = site.write("twice.yaml", "upstream: { address: http://127.0.0.1:2 }\n");
    let of =
        |second: &std::path::Path| command(&["check", "--config", platform.to_str().unwrap(), "--config", second.to_str().unwrap()], "");
    assert_eq!(of(&service).status.code(), Some(0), "{}", said(&of(&service)));
    let output = of(&twice);
    assert_eq!(output.status.code(), Some(78));
    assert!(said(&output).contains("platform.yaml") && said(&output).contains("twice.yaml"), "{}", said(&output));
}

#[test]
fn standard_input_is_a_configuration() {
    let site = Site::new();
    // Relative paths have no file to be relative to: absolute ones here.
    let absolute = ["tls.crt", "tls.key", "hmac.secret", "api-keys.yaml"].iter().fold(standard("http://127.0.0.1:50051"), |yaml, name| {
        yaml.replace(&format!(": {name}"), &format!(": {}", site.path(name).display()))
    });
    let output = command(&["check", "--config", "-"], &absolute);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn what_weakens_security_is_warned_about() {
    let site = Site::new();
    let weak = standard("http://127.0.0.1:50051")
        .replace("issuer: https://issuer.test/", "insecure_no_issuer: true")
        .replace("audiences: [users-api]", "insecure_no_audience: true")
        + "  audit: true\n";
    let output = check(&site, &weak.replace("  audit: true\n", "").replace("authorization:", "authorization:\n  audit: true"));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    for name in ["insecure_no_issuer", "insecure_no_audience", "audit"] {
        assert!(said(&output).lines().any(|line| line.contains("warning") && line.contains(name)), "{name}: {}", said(&output));
    }
}
