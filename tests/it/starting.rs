//! `run`, up to the moment it serves: whatever is wrong refuses it before a port is bound, and every port is bound first.

use crate::harness::process::Process;
use crate::harness::*;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};

fn run(site: &Site, yaml: &str) -> Output {
    let path = site.write("doorward.yaml", yaml);
    command(&["run", "--config", path.to_str().unwrap()], "")
}

fn traffic_port(line: &str) -> Option<SocketAddr> {
    line.split_once("listening on ")?.1.strip_suffix(" (traffic)")?.parse().ok()
}

/// Serves, and ends well when told to.
#[track_caller]
fn serves(mut process: Process) {
    let traffic = process.find("traffic port", |process| &process.stderr, traffic_port);
    assert!(TcpStream::connect(traffic).is_ok());
    process.signal("INT");
    assert_eq!(process.wait(PATIENCE).code(), Some(0), "{}", process.stderr.text());
}

/// The files are read by different rooms, each of which may refuse: a port that is taken would show (with exit code 1)
/// whether any of them is asked too late.
#[test]
fn what_any_room_refuses_is_refused_before_a_port_is_bound() {
    let site = Site::new();
    site.certificate("other", &["localhost"]);
    site.write("weak.jwks", r#"{"keys":[]}"#);
    site.write("nothing.pem", "nothing\n");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let good = configuration("http://127.0.0.1:1", site::STANDARD).replace("127.0.0.1:0", &address.to_string());
    let good = good.replacen(&format!("operations: {{ address: {address}"), "operations: { address: 127.0.0.1:0", 1);
    assert_eq!(run(&site, &good).status.code(), Some(1), "all but the port is fine: {}", said(&run(&site, &good)));
    for (from, to) in [
        ("version", "verzion"),
        ("private_key: tls.key", "private_key: other.key"),
        ("certificate: tls.crt", "certificate: nothing.pem"),
        ("secret_file: hmac.secret", "secret_file: missing.secret"),
        ("algorithms: [HS256]\n      secret_file: hmac.secret", "algorithms: [RS256]\n      jwks_file: weak.jwks"),
        ("algorithms: [HS256]\n      secret_file: hmac.secret", "algorithms: [RS256]\n      public_key_file: nothing.pem"),
        ("file: api-keys.yaml", "file: nothing.pem"),
        ("users:read\n    /demo", "users-read\n    /demo"),
        ("{ address: \"http://127.0.0.1:1\" }", "{ address: \"https://127.0.0.1:1\", tls: { ca: nothing.pem } }"),
    ] {
        let good = format!("version: 1\n{good}");
        assert!(good.contains(from), "{from} in {good}");
        let output = run(&site, &good.replace(from, to));
        assert_eq!(output.status.code(), Some(78), "{to}: {}", said(&output));
        assert!(!said(&output).contains("listening on"), "{to}: {}", said(&output));
    }
}

#[test]
fn one_port_that_is_taken_leaves_the_other_unserved() {
    let site = Site::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let rest = format!("{}operations: {{ address: \"{address}\" }}\n", site::STANDARD);
    let output = run(&site, &configuration("http://127.0.0.1:1", &rest));
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let words = said(&output);
    assert!(words.contains("operations.address") && words.contains(&address.to_string()), "which and where: {words}");
    assert!(!words.contains("listening on"), "{words}");
}

#[test]
fn several_files_run_as_one() {
    let site = Site::new();
    let platform = site.write("platform.yaml", configuration("http://127.0.0.1:1", "limits: { drain: 1s }\n"));
    let service = site.write("service.yaml", "authentication: { mode: disabled }\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    serves(Process::spawn(command.arg("run").arg("--config").arg(&platform).arg("--config").arg(&service)));
    let twice = site.write("twice.yaml", "limits: { drain: 2s }\n");
    let paths = [&platform, &twice].map(|path| path.to_str().unwrap());
    let output = crate::harness::command(&["run", "--config", paths[0], "--config", paths[1]], "");
    assert_eq!(output.status.code(), Some(78), "{}", said(&output));
    assert!(said(&output).contains("platform.yaml") && said(&output).contains("twice.yaml"), "{}", said(&output));
    assert!(!said(&output).contains("listening on"));
}

#[test]
fn standard_input_runs_and_is_read_once() {
    let site = Site::new();
    let yaml = configuration("http://127.0.0.1:1", "authentication: { mode: disabled }\n");
    // Relative paths of standard input are relative to the working directory.
    let path = site.write("doorward.yaml", &yaml);
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" run --config - < \"$1\"", env!("CARGO_BIN_EXE_doorward")]).arg(&path);
    serves(Process::spawn(shell.current_dir(path.parent().unwrap())));
    let twice = command(&["run", "--config", "-", "--config", "-"], &yaml);
    assert_eq!(twice.status.code(), Some(78), "{}", said(&twice));
    assert!(said(&twice).contains("once"), "{}", said(&twice));
}

#[test]
fn an_empty_configuration_is_refused() {
    for input in ["", "\n", "# nothing\n", "---\n", "[]\n", "text\n", "\u{0}"] {
        let output = command(&["run", "--config", "-"], input);
        assert_eq!(output.status.code(), Some(78), "{input:?}: {}", said(&output));
    }
}
