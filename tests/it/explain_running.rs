//! `doorward explain --running`: what a running proxy has in force decides, whatever its files say by now.

use crate::harness::*;
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Output;

const DELETE: &str = "/demo.v1.Users/Delete";

/// `standard`, where viewers may delete too, at the operations port that is really listened on.
fn more_allowed(upstream: &str, doorward: &Doorward) -> String {
    let operations = format!("operations: {{ address: \"{}\" }}\n", doorward.operations);
    configuration(
        upstream,
        &format!("{operations}{}", site::STANDARD.replace("viewer: [users:read]", "viewer: [users:read, users:delete]")),
    )
}

fn explain(site: &Site, more: &[&str]) -> Output {
    let path = site.path("doorward.yaml");
    command(&[&["explain", "--config", path.to_str().unwrap()], more].concat(), "")
}

#[test]
fn what_is_in_force_decides_also_when_the_file_has_been_spoilt() {
    let (upstream, site) = (PythonUpstream::start(), Site::new());
    let doorward = site.start(&standard(&upstream.url()));
    let metric = |value: f64| {
        let name = "doorward_configuration_last_reload_successful";
        eventually("the reload", || (doorward.metric(name, &[]) == value).then_some(()));
    };
    let good = more_allowed(&upstream.url(), &doorward);
    site.write("doorward.yaml", format!("{good}nonsense: 1\n"));
    metric(0.0);
    let by_key = ["--method", DELETE, "--api-key", API_KEY];
    assert_eq!(explain(&site, &by_key).status.code(), Some(78), "the file is bad");
    let running = explain(&site, &[&by_key[..], &["--running"]].concat());
    assert_eq!(running.status.code(), Some(2), "{}", said(&running));
    let stdout = String::from_utf8_lossy(&running.stdout).into_owned();
    let first = stdout.lines().next().unwrap();
    assert!(
        first.starts_with("running: generation 1, in force since ") && first.contains("is refused: ") && first.contains("nonsense"),
        "{first}"
    );
    assert!(stdout.ends_with("decision: REFUSED: 7 PERMISSION_DENIED, PERMISSION_MISSING: a permission is missing\n"), "{stdout}");
    assert_eq!(doorward.call(call(DELETE).api_key(API_KEY)).refusal(), (7, "PERMISSION_MISSING"), "as it is");
    assert!(!said(&running).contains(API_KEY), "no secret");

    site.write("doorward.yaml", good);
    metric(1.0);
    let running = explain(&site, &[&by_key[..], &["--running"]].concat());
    assert_eq!(running.status.code(), Some(0), "{}", said(&running));
    assert!(said(&running).starts_with("running: generation 2, in force since "), "{}", said(&running));
    // But for its first line, what the file says.
    let (running, file) = (said(&running), said(&explain(&site, &by_key)));
    assert_eq!(running.split_once('\n').unwrap().1, file);
    assert!(file.contains("header: client_id: analytics-service"), "{file}");
}

#[test]
fn it_answers_for_token_key_user_and_role_as_calls_are_answered() {
    let (upstream, site) = (PythonUpstream::start(), Site::new());
    let doorward = site.start(&standard(&upstream.url()));
    site.write("doorward.yaml", more_allowed(&upstream.url(), &doorward).replace(", users:delete", ""));
    let (good, expired) = (token(json!({})), token(json!({"exp": 1})));
    let file = site.write("token", format!("{good}\n")).display().to_string();
    let before = doorward.metric("doorward_authentication_total", &[]);
    for (method, more, code, words) in [
        ("/demo.v1.Users/Get", vec!["--token", good.as_str()], 0, "header: user_id: alice"),
        ("/demo.v1.Users/Get", vec!["--token-file", &file], 0, "header: user_id: alice"),
        (DELETE, vec!["--token", &good], 2, "PERMISSION_MISSING"),
        ("/demo.v1.Users/Get", vec!["--token", &expired], 2, "TOKEN_EXPIRED"),
        ("/demo.v1.Users/Get", vec!["--api-key", "nobody's"], 2, "API_KEY_UNKNOWN"),
        ("/demo.v1.Users/Get", vec![], 2, "CREDENTIALS_MISSING"),
        (DELETE, vec!["--user", "zoe", "--role", "admin"], 0, "header: user_id: zoe"),
        ("/demo.v1.Public/Unary", vec![], 0, "public"),
        ("nonsense\n", vec![], 2, "METHOD_MALFORMED"),
    ] {
        let output = explain(&site, &[&["--running", "--method", method], &more[..]].concat());
        assert_eq!(output.status.code(), Some(code), "{method} {words}: {}", said(&output));
        assert!(said(&output).contains(words), "{words}: {}", said(&output));
        assert!(!said(&output).contains(good.rsplit('.').next().unwrap()), "no secret: {}", said(&output));
    }
    assert_eq!(doorward.metric("doorward_authentication_total", &[]), before, "no call, and counted as none");
    assert!(doorward.access_log().is_empty() && upstream.calls().is_empty());
    // A question of nobody we know, whose content is not quoted.
    let (status, words) = doorward.ask("POST", "/explain");
    assert!(status == 400 && words.contains("expected JSON"), "{words}");
    assert_eq!(doorward.get("/explain").0, 405);
}

#[test]
fn the_longest_token_can_be_asked_about_and_what_is_refused_is_told() {
    let (upstream, site) = (RawUpstream::echo(), Site::new());
    let doorward = site.start(&standard(&upstream.url()));
    site.write("doorward.yaml", more_allowed(&upstream.url(), &doorward));
    for (length, code, words) in
        [(64 << 10, 2, "decision: REFUSED: 16 UNAUTHENTICATED, TOKEN_MALFORMED"), (1 << 20, 1, "status 413: the question is too long")]
    {
        let file = site.write("token", "x".repeat(length)).display().to_string();
        let output = explain(&site, &["--running", "--method", DELETE, "--token-file", &file]);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(words), "{words}: {}", said(&output));
    }
}

/// Of another version, or something else altogether.
#[test]
fn the_words_of_whoever_answers_are_told() {
    for (answer, words) in [
        ("404 Not Found\r\n\r\nno such page", "status 404; is it of this version?"),
        ("405 Method Not Allowed\r\n\r\n", "status 405; is it of this version?"),
        ("200 OK\r\n\r\nhello", "status 200; is it of this version?"),
        ("503 Service Unavailable\r\n\r\nother questions are being answered\n", "status 503: other questions are being answered\n"),
    ] {
        let (site, port) = (Site::new(), TcpListener::bind("127.0.0.1:0").unwrap());
        let rest = format!("operations: {{ address: \"{}\" }}\n{}", port.local_addr().unwrap(), site::STANDARD);
        site.write("doorward.yaml", configuration("http://127.0.0.1:1", &rest));
        let answered = std::thread::spawn(move || {
            let (mut stream, _) = port.accept().unwrap();
            // The question is one segment and wants no answer before it has come.
            let _ = stream.read(&mut [0; 64 << 10]).unwrap();
            write!(stream, "HTTP/1.1 {answer}").unwrap();
        });
        let output = explain(&site, &["--running", "--method", DELETE]);
        answered.join().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(words), "{words}: {}", said(&output));
    }
}

#[test]
fn without_a_proxy_it_says_so() {
    let site = Site::new();
    let free = free_address();
    for (operations, code, words) in [
        (free.to_string(), 1, "the running proxy cannot be asked"),
        ("10.0.0.7:9902".to_owned(), 1, "/explain is taken from loopback only"),
        ("nowhere".to_owned(), 78, "operations.address"),
    ] {
        let rest = format!("operations: {{ address: \"{operations}\" }}\n{}", site::STANDARD);
        site.write("doorward.yaml", configuration("http://127.0.0.1:1", &rest));
        let output = explain(&site, &["--running", "--method", DELETE]);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(words) && output.stdout.is_empty(), "{}", said(&output));
    }
    assert_eq!(explain(&site, &["--running", "--reflection", "--method", DELETE]).status.code(), Some(64));
}
