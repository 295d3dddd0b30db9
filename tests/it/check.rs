//! What `doorward check` says of a configuration: who may call what, likely mistakes, and methods that the upstream does not
//! have, by a descriptor set that protoc wrote or by the upstream's own reflection.

use crate::harness::python::protoc;
use crate::harness::raw_upstream::response;
use crate::harness::*;
use bytes::Bytes;
use std::fs::{self, File};
use std::process::Output;
use std::time::{Duration, Instant};

const PROTO: &str = r#"
syntax = "proto3";
package demo.v1;
import "google/protobuf/empty.proto";
service Users {
  rpc Get(google.protobuf.Empty) returns (google.protobuf.Empty);
  rpc Delete(google.protobuf.Empty) returns (stream google.protobuf.Empty);
  rpc Rename(google.protobuf.Empty) returns (google.protobuf.Empty);
}
service Public { rpc Unary(google.protobuf.Empty) returns (google.protobuf.Empty); }
service Reports {
  rpc Make(google.protobuf.Empty) returns (google.protobuf.Empty);
  rpc Read(stream google.protobuf.Empty) returns (google.protobuf.Empty);
}
"#;

/// Every method of it exists.
const RULES: &str = r#"
authentication:
  public_methods: [/demo.v1.Public/*, /grpc.health.v1.Health/Check]
  api_keys: { file: api-keys.yaml }
authorization:
  roles: { viewer: [users:read, users:export], admin: ["users:*"] }
  methods:
    /demo.v1.Users/Get: users:read
    /demo.v1.Users/Delete: { any_of: [users:delete], from: [api_keys] }
"#;

/// Five that do not, in a file of which nothing else is wrong.
const UNKNOWN: &str = r#"
authentication:
  public_methods: [/demo.v1.Pubic/*, /grpc.helth.v1.Health/Check]
  api_keys: { file: api-keys.yaml }
authorization:
  methods:
    /demo.v1.Users/Gte: authenticated
    /demo.v1.User/Get: authenticated
    /demo.v2.*: authenticated
    /grpc.reflection.v1.ServerReflection/*: authenticated
"#;

fn site() -> Site {
    let site = Site::new();
    site.write("demo.proto", PROTO);
    protoc(&site, "demo");
    site
}

/// Runs one of the commands that look at a configuration.
fn run(site: &Site, name: &str, yaml: &str, more: &[&str]) -> Output {
    let path = site.write("doorward.yaml", yaml);
    command(&[&[name, "--config", path.to_str().unwrap()], more].concat(), "")
}

#[track_caller]
fn lines(output: &Output, code: i32) -> Vec<String> {
    assert_eq!(output.status.code(), Some(code), "{}", said(output));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn the_summary_says_who_may_call_what_and_what_is_public() {
    let site = site();
    let set = site.path("demo.binpb");
    let descriptors = ["--descriptors", set.to_str().unwrap()];
    let yaml = configuration("http://127.0.0.1:50051", RULES);
    let without = [
        "forwards to 127.0.0.1:50051 (h2c)",
        "authentication is required: API keys in x-api-key",
        "/demo.v1.Users/Delete: users:delete, by one of api_keys (roles: admin)",
        "/demo.v1.Users/Get: users:read (roles: admin, viewer)",
        "/demo.v1.Public/*: public, never looked at",
        "/grpc.health.v1.Health/Check: public, never looked at",
        "every other method: nobody (authorization.default is deny)",
        "no rule asks for users:export; the upstream is told of them in permissions",
        "the configuration is fine: 0 warnings",
    ];
    let found = lines(&run(&site, "check", &yaml, &[]), 0);
    assert_eq!(found[1..], without, "after where it listens");
    let unruled = [
        "3 of the upstream's 6 methods have no rule: nobody (authorization.default is deny)",
        "  /demo.v1.Reports/*: none of its 2 methods has a rule",
        "  /demo.v1.Users/Rename: no rule",
    ];
    let found = lines(&run(&site, "check", &yaml, &descriptors), 0);
    assert_eq!(found[1..], [&without[..7], &unruled, &without[7..]].concat());
    let open = yaml.replace("authorization:\n", "authorization:\n  default: authenticated\n");
    let found = lines(&run(&site, "check", &open, &descriptors), 0);
    assert!(found.contains(&"3 of the upstream's 6 methods have no rule: any authenticated caller".to_owned()), "{found:?}");
}

#[test]
fn likely_mistakes_are_told_each_with_its_place() {
    let site = Site::new();
    let yaml = configuration(
        "http://127.0.0.1:50051",
        r#"authentication:
  public_methods: [/demo.*]
  jwt:
    - { name: entra, issuer: https://login.microsoftonline.com/t/v2.0, audiences: [a], algorithms: [HS256], secret_file: hmac.secret, claims: { email: upn }, trust: { roles: [viewer] } }
authorization:
  roles:
    viewer: [users:read, users:list]
    lost: [users:read]
  users: { alice@example.com: [viewer] }
  methods:
    /demo.v1.Users/Get: users:read
    /other.Users/Get: users:read
    /other.Users/Put: users:write
identity_headers: { permissions: none }
"#,
    );
    let output = run(&site, "check", &yaml, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let offset = yaml.lines().position(|line| line == "authentication:").unwrap();
    for (line, words) in [
        (2, "every method of every service in this package is public"),
        (4, "this never counts: an e-mail needs email_verified"),
        (7, "users:list decides nothing: no rule asks for it"),
        (8, "nobody can have this role"),
        (9, "this matches nobody: an e-mail counts only with email_verified"),
        (11, "this rule is never looked at: authentication.public_methods has /demo.*"),
        (13, "no role grants"),
    ] {
        let place = format!("doorward.yaml:{}:", offset + line);
        let told = said(&output).lines().any(|said| said.starts_with("warning: ") && said.contains(&place) && said.contains(words));
        assert!(told, "{place} {words}: {}", said(&output));
    }
    assert!(said(&output).contains("the configuration is fine: 7 warnings"), "{}", said(&output));
}

/// Of each of [`UNKNOWN`]'s: line and column in it, and what is said.
const TOLD: [(usize, usize, &str); 5] = [
    (3, 20, "the upstream has no service demo.v1.Pubic; did you mean \"demo.v1.Public\"?"),
    (3, 38, "the upstream has no service grpc.helth.v1.Health; did you mean \"grpc.health.v1.Health\"?"),
    (7, 25, "the upstream's service demo.v1.Users has no method Gte; did you mean \"Get\"?"),
    (8, 24, "the upstream has no service demo.v1.User; did you mean \"demo.v1.Users\"?"),
    (9, 17, "the upstream has no service in the package demo.v2; did you mean \"demo.v1\"?"),
];

#[track_caller]
fn assert_unknown_are_told(output: &Output, yaml: &str) {
    assert_eq!(output.status.code(), Some(78), "{}", said(output));
    let offset = yaml.lines().position(|line| line == "authentication:").unwrap() - 1;
    let errors: Vec<String> = said(output).lines().filter(|line| line.starts_with("error: ")).map(str::to_owned).collect();
    for ((line, column, words), error) in TOLD.iter().zip(&errors) {
        assert!(error.contains(&format!("doorward.yaml:{}:{column}: ", offset + line)) && error.ends_with(words), "{error}\n{words}");
    }
    assert_eq!(errors.len(), TOLD.len(), "{errors:?}");
}

#[test]
fn methods_that_the_descriptors_do_not_have_are_errors_with_the_nearest_name() {
    let site = site();
    let set = site.path("demo.binpb");
    let descriptors = ["--descriptors", set.to_str().unwrap()];
    let yaml = configuration("http://127.0.0.1:50051", UNKNOWN);
    assert_eq!(run(&site, "check", &yaml, &[]).status.code(), Some(0), "nobody knows");
    for (name, more) in [("check", &[][..]), ("explain", &["--method", "/demo.v1.Users/Get"]), ("test", &["table.yaml"])] {
        let table = site.write("table.yaml", "tests: [{ anonymous: true, method: /demo.v1.Users/Get, expect: CREDENTIALS_MISSING }]\n");
        let more: Vec<&str> = more.iter().map(|word| if *word == "table.yaml" { table.to_str().unwrap() } else { word }).collect();
        assert_unknown_are_told(&run(&site, name, &yaml, &[&descriptors, &more[..]].concat()), &yaml);
    }
    // Together with whatever else is wrong.
    let worse = yaml.replace("authorization:\n", "nonsense: 1\nauthorization:\n");
    let output = run(&site, "check", &worse, &descriptors);
    assert!(said(&output).contains("unknown key \"nonsense\"") && said(&output).contains("has no method Gte"), "{}", said(&output));
    assert!(said(&output).contains("the configuration is refused: 6 errors"), "{}", said(&output));
}

#[test]
fn expectations_and_explanations_know_the_upstreams_methods() {
    let site = site();
    let set = site.path("demo.binpb");
    let descriptors = ["--descriptors", set.to_str().unwrap()];
    let yaml = configuration("http://127.0.0.1:50051", RULES);
    let table = site.write(
        "table.yaml",
        "tests:\n  - { api_key_id: analytics, method: /demo.v1.Users/Get, expect: allowed }\n  - { anonymous: true, method: /demo.v1.Users/Renam, expect: CREDENTIALS_MISSING }\n\
         \x20 - { anonymous: true, method: nonsense, expect: METHOD_MALFORMED }\n",
    );
    let table = [table.to_str().unwrap()];
    assert_eq!(run(&site, "test", &yaml, &table).status.code(), Some(0));
    let output = run(&site, "test", &yaml, &[&descriptors[..], &table].concat());
    assert_eq!(output.status.code(), Some(78), "{}", said(&output));
    let words = "table.yaml:3:7: tests[1]: the upstream's service demo.v1.Users has no method Renam; did you mean \"Rename\"?";
    assert!(said(&output).contains(words), "{}", said(&output));
    let explain = |method| lines(&run(&site, "explain", &yaml, &[&descriptors[..], &["--method", method, "--user", "a"]].concat()), 2);
    assert_eq!(
        explain("/demo.v1.Users/Gett")[1],
        "upstream: the upstream's service demo.v1.Users has no method Gett; did you mean \"Get\"?"
    );
    assert!(explain("/demo.v1.Users/Rename").iter().all(|line| !line.starts_with("upstream: ")));
}

#[test]
fn a_file_that_is_no_descriptor_set_is_refused_however_large() {
    let site = site();
    let yaml = configuration("http://127.0.0.1:50051", RULES);
    // A gibibyte of nothing, which takes no room.
    File::create(site.path("huge.binpb")).unwrap().set_len(1 << 30).unwrap();
    site.write("empty.binpb", "");
    site.write("noise.binpb", [0xff; 4096]);
    // One file instead of a set of them.
    let set = fs::read(site.path("demo.binpb")).unwrap();
    site.write("half.binpb", &set[..set.len() / 2]);
    for (name, words) in [
        ("huge.binpb", "larger than 64 MiB"),
        ("empty.binpb", "describes no method"),
        ("noise.binpb", "no FileDescriptorSet"),
        ("half.binpb", "no FileDescriptorSet"),
        ("demo.proto", "no FileDescriptorSet"),
        ("missing.binpb", "No such file"),
    ] {
        let started = Instant::now();
        let path = site.path(name);
        let output = run(&site, "check", &yaml, &["--descriptors", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(78), "{name}: {}", said(&output));
        assert!(said(&output).contains(words) && said(&output).contains(name), "{name}: {}", said(&output));
        assert!(output.stdout.is_empty(), "no summary of what is not known: {}", said(&output));
        assert!(started.elapsed() < PATIENCE, "{name}");
    }
}

#[test]
fn the_upstreams_reflection_says_the_same() {
    let site = site();
    let set = site.path("demo.binpb");
    let set = set.to_str().unwrap();
    let expected = lines(&run(&site, "check", &configuration("http://127.0.0.1:50051", RULES), &["--descriptors", set]), 0);
    for version in ["v1", "v1alpha"] {
        let upstream = PythonUpstream::start_with(&["--reflection", version, set]);
        let yaml = configuration(&upstream.url(), UNKNOWN);
        assert_unknown_are_told(&run(&site, "check", &yaml, &["--reflection"]), &yaml);
        let found = lines(&run(&site, "check", &configuration(&upstream.url(), RULES), &["--reflection"]), 0);
        assert_eq!(found[2..], expected[2..], "after the addresses");
    }
}

#[test]
fn an_upstream_that_does_not_tell_what_it_has_is_a_failure_and_no_success() {
    let site = site();
    let mut gone = RawUpstream::echo();
    let gone_url = gone.url();
    gone.stop();
    let unimplemented = PythonUpstream::start();
    let answering = |bytes: &'static [u8]| {
        RawUpstream::start(move |mut call| async move {
            let Ok(mut stream) = call.respond.send_response(response(), false) else { return };
            let _ = stream.send_data(Bytes::from_static(bytes), true);
        })
    };
    let endless = RawUpstream::start(|mut call| async move {
        let Ok(mut stream) = call.respond.send_response(response(), false) else { return };
        let mut part = Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]);
        while stream.send_data(part, false).is_ok() {
            part = Bytes::from_static(&[0; 65_536]);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let noise = answering(b"\0\0\0\0\x04\xff\xff\xff\xff");
    let short = answering(b"\0\0\0\0\x04");
    // A service whose descriptor is another's.
    let liar = answering(b"\0\0\0\0\x07\x32\x05\x0a\x03\x0a\x01x\0\0\0\0\x06\x22\x04\x0a\x02\x12\0");
    for (url, words) in [
        (gone_url, "refused"),
        (unimplemented.url(), "no reflection service"),
        (endless.url(), "too large"),
        (noise.url(), "no protobuf message"),
        (short.url(), "it ended with UNKNOWN"),
        (liar.url(), "is not in the file"),
    ] {
        let output = run(&site, "check", &configuration(&url, RULES), &["--reflection"]);
        assert_eq!(output.status.code(), Some(1), "{words}: {}", said(&output));
        assert!(said(&output).contains(words) && output.stdout.is_empty(), "{words}: {}", said(&output));
    }
    let both = run(&site, "check", RULES, &["--reflection", "--descriptors", "x"]);
    assert_eq!(both.status.code(), Some(64), "{}", said(&both));
}
