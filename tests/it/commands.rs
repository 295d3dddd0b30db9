//! The command line: exit codes, `explain`, `keys`, `--help`.

use crate::harness::process::Process;
use crate::harness::*;
use serde_json::json;
use std::process::{Command, Output};

struct Desk {
    site: Site,
    config: String,
}

impl Desk {
    fn new() -> Desk {
        let site = Site::new();
        let config = site.write("doorward.yaml", standard("http://127.0.0.1:50051")).display().to_string();
        Desk { site, config }
    }

    fn explain(&self, method: &str, more: &[&str]) -> Output {
        command(&[&["explain", "--config", &self.config, "--method", method], more].concat(), "")
    }
}

#[test]
fn help_is_complete_and_version_is_told() {
    let help = command(&["--help"], "");
    assert_eq!(help.status.code(), Some(0));
    for name in ["run", "check", "explain", "test", "keys", "drain", "demo"] {
        assert!(said(&help).contains(name), "{name}");
        let output = command(&[name, "--help"], "");
        assert_eq!(output.status.code(), Some(0), "{name}");
        assert!(said(&output).len() > 100, "{name}: {}", said(&output));
    }
    let version = command(&["--version"], "");
    assert_eq!((version.status.code(), said(&version).trim()), (Some(0), concat!("doorward ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn wrong_usage_is_64() {
    for arguments in [
        &["run"][..],
        &[],
        &["nonsense"],
        &["check", "--confg", "x"],
        &["explain", "--config", "x"],
        &["test", "--config", "x"],
        &["test", "x.yaml"],
        &["keys"],
        &["run", "--config"],
    ] {
        assert_eq!(command(arguments, "").status.code(), Some(64), "{arguments:?}: {}", said(&command(arguments, "")));
    }
}

#[test]
fn a_configuration_that_is_not_there_is_78() {
    for name in ["check", "run"] {
        let output = command(&[name, "--config", "/nowhere/doorward.yaml"], "");
        assert_eq!(output.status.code(), Some(78), "{}", said(&output));
        assert!(said(&output).contains("/nowhere/doorward.yaml"));
    }
}

#[test]
fn explain_says_who_what_and_why() {
    let desk = Desk::new();
    let (good, expired) = (token(json!({})), token(json!({"exp": 1})));
    let file = desk.site.write("token", format!("{good}\n")).display().to_string();
    for (what, method, more, code, words) in [
        ("allowed", "/demo.v1.Users/Get", vec!["--token", good.as_str()], 0, vec!["corporate", "alice", "users:read", "user_id", "viewer"]),
        ("from a file", "/demo.v1.Users/Get", vec!["--token-file", &file], 0, vec!["alice"]),
        ("a key", "/demo.v1.Users/Get", vec!["--api-key", API_KEY], 0, vec!["analytics", "client_id"]),
        ("no permission", "/demo.v1.Users/Delete", vec!["--token", &good], 2, vec!["PERMISSION_MISSING", "users:delete"]),
        ("expired", "/demo.v1.Users/Get", vec!["--token", &expired], 2, vec!["TOKEN_EXPIRED"]),
        ("nobody", "/demo.v1.Users/Get", vec![], 2, vec!["CREDENTIALS_MISSING"]),
        ("no rule", "/demo.v1.Nothing/Get", vec!["--token", &good], 2, vec!["METHOD_NOT_ALLOWED"]),
        ("public", "/demo.v1.Public/Unary", vec![], 0, vec!["public"]),
        ("no method", "demo.v1.Users/Get", vec!["--token", &good], 2, vec!["METHOD_MALFORMED"]),
        ("a supposed user", "/demo.v1.Users/Delete", vec!["--user", "zoe", "--role", "admin"], 0, vec!["zoe", "trust and revocations"]),
    ] {
        let output = desk.explain(method, &more);
        assert_eq!(output.status.code(), Some(code), "{what}: {}", said(&output));
        for word in words {
            assert!(said(&output).contains(word), "{what}: {word} in {}", said(&output));
        }
        assert!(!said(&output).contains(good.rsplit('.').next().unwrap()) && !said(&output).contains(API_KEY), "{what}: no secret");
    }
}

#[test]
fn explain_and_the_proxy_agree() {
    let desk = Desk::new();
    let upstream = PythonUpstream::start();
    let doorward = desk.site.start(&standard(&upstream.url()));
    let tokens = [
        token(json!({})),
        token(json!({"aud": "other"})),
        token(json!({"iss": "other"})),
        token(json!({"roles": ["admin"]})),
        token(json!({"nbf": now() + 60})),
    ];
    for method in ["/demo.v1.Users/Get", "/demo.v1.Users/Delete", "/demo.v1.Users/ByKeyOnly", "/demo.v1.Other/X"] {
        let answers = doorward.calls(&tokens.iter().map(|token| call(method).bearer(token)).collect::<Vec<_>>());
        for (token, answer) in tokens.iter().zip(answers) {
            let output = desk.explain(method, &["--token", token]);
            assert_eq!(output.status.code(), Some(if answer.code() == 0 { 0 } else { 2 }), "{method}: {answer:?}: {}", said(&output));
            assert!(said(&output).contains(answer.reason()), "{method}: {answer:?}: {}", said(&output));
        }
    }
}

#[test]
fn explain_lets_through_what_the_audit_modes_let_through() {
    let desk = Desk::new();
    let (good, expired) = (token(json!({})), token(json!({"exp": 1})));
    let audits = ["authentication:\n  mode: optional\n  insecure_audit: true", "authentication:"];
    let [authentication, authorization] = audits.map(|audit| {
        let rest = site::STANDARD.replace("authentication:", audit);
        let rest = if audit == "authentication:" { rest.replace("authorization:", "authorization:\n  audit: true") } else { rest };
        configuration("http://127.0.0.1:50051", &rest)
    });
    for (config, method, more, code, words) in [
        (&authentication, "/demo.v1.Users/Get", vec![], 0, "insecure_audit lets the call through"),
        (&authentication, "/demo.v1.Users/Get", vec!["--token", expired.as_str()], 0, "insecure_audit lets the call through"),
        (&authentication, "/demo.v1.Users/Delete", vec!["--token", &good], 2, "PERMISSION_MISSING"),
        (&authorization, "/demo.v1.Users/Delete", vec!["--token", &good], 0, "allowed only because authorization.audit is true"),
        (&authorization, "/demo.v1.Users/Delete", vec![], 2, "CREDENTIALS_MISSING"),
    ] {
        desk.site.write("doorward.yaml", config);
        let output = desk.explain(method, &more);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(words), "{}", said(&output));
    }
}

#[test]
fn a_key_that_was_made_is_printed_once_and_works() {
    let desk = Desk::new();
    let upstream = PythonUpstream::start();
    let create = [
        "keys",
        "create",
        "--config",
        &desk.config,
        "--id",
        "new",
        "--client-id",
        "new-client",
        "--role",
        "viewer",
        "--permission",
        "reports:read",
        "--expires",
        "90d",
    ];
    let output = command(&create, "");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let key = stdout.split_whitespace().max_by_key(|word| word.len()).unwrap().to_owned();
    let file = std::fs::read_to_string(desk.site.path("api-keys.yaml")).unwrap();
    assert!(file.contains("new-client") && file.contains(&site::sha256_hex(&key)) && !file.contains(&key), "{file}\n{stdout}");
    let doorward = desk.site.start(&standard(&upstream.url()));
    let answers = doorward.calls(&[call("/demo.v1.Users/Get").api_key(&key), call("/demo.v1.Users/Get").api_key(API_KEY)]);
    assert_eq!(answers[0].upstream_saw("client_id"), ["new-client"]);
    assert_eq!(answers[1].upstream_saw("client_id"), ["analytics-service"], "the others are still there");
    let again = command(&create, "");
    assert!(!again.status.success(), "the id is taken: {}", said(&again));
}

#[test]
fn hash_reads_a_key_from_standard_input() {
    for input in [API_KEY.to_owned(), format!("{API_KEY}\n")] {
        let output = command(&["keys", "hash"], &input);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(String::from_utf8_lossy(&output.stdout).contains(&site::sha256_hex(API_KEY)), "{}", said(&output));
    }
}

#[test]
fn the_demo_needs_no_file_and_shows_what_is_allowed_and_refused() {
    let mut demo = Process::spawn(Command::new(env!("CARGO_BIN_EXE_doorward")).arg("demo").current_dir(std::env::temp_dir()));
    // What it prints to be pasted, and what became of the calls it made itself.
    for word in ["grpcurl", "python", "PERMISSION_MISSING", "TOKEN_EXPIRED", "Doorward is up"] {
        demo.find(word, |demo| &demo.stdout, |line| line.contains(word).then_some(()));
    }
    demo.signal("INT");
    assert_eq!(demo.wait(PATIENCE).code(), Some(0));
}

#[test]
fn demos_at_once_have_ports_of_their_own() {
    let start = |_| Process::spawn(Command::new(env!("CARGO_BIN_EXE_doorward")).args(["demo", "--exit"]));
    for mut demo in (0..4).map(start).collect::<Vec<_>>() {
        assert_eq!(demo.wait(PATIENCE).code(), Some(0), "{}{}", demo.stdout.text(), demo.stderr.text());
    }
}
