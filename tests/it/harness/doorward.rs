//! The real binary, running.

use super::process::{Lines, Process};
use super::{PATIENCE, eventually};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Runs one command of the binary to its end, with `input` on standard input.
pub fn command(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_doorward"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// What a command has printed, standard output first.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub struct Doorward {
    process: Process,
    pub traffic: SocketAddr,
    pub operations: SocketAddr,
    pub ca: PathBuf,
    /// The site's files stay for as long as anything runs on them.
    _files: Arc<TempDir>,
}

impl Doorward {
    #[track_caller]
    pub fn start(
        configuration: &Path,
        environment: &[(&str, &Path)],
        ca: PathBuf,
        files: Arc<TempDir>,
        most_open: Option<usize>,
    ) -> Doorward {
        let binary = env!("CARGO_BIN_EXE_doorward");
        let mut command = match most_open {
            None => Command::new(binary),
            Some(most) => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--nofile={most}:{most}")).arg(binary);
                command
            }
        };
        command.args(["run", "--config"]).arg(configuration).env("RUST_BACKTRACE", "1").envs(environment.iter().copied());
        // Whoever listens to these gets as far as a closed port.
        for proxy in ["http_proxy", "https_proxy", "all_proxy"] {
            command.env(proxy, "http://127.0.0.1:9").env_remove("no_proxy").env_remove("NO_PROXY");
        }
        let mut process = Process::spawn(&mut command);
        let traffic = process.find("traffic port", |p| &p.stderr, |line| bound(line, "(traffic)"));
        let operations = process.find("operations port", |p| &p.stderr, |line| bound(line, "(operations)"));
        Doorward { process, traffic, operations, ca, _files: files }
    }

    /// `localhost:PORT`, as a gRPC client wants it.
    pub fn target(&self) -> String {
        format!("localhost:{}", self.traffic.port())
    }

    #[track_caller]
    pub fn wait_ready(&mut self) {
        eventually("/readyz", || {
            assert!(self.process.has_exited().is_none(), "ended: {}", self.stderr());
            (self.get("/readyz").0 == 200).then_some(())
        });
    }

    /// A plain HTTP/1.1 GET on the operations port: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path)
    }

    /// Any HTTP/1.1 request without a body on the operations port; status 0 when the port is closed.
    pub fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let Ok(mut stream) = TcpStream::connect(self.operations) else { return (0, String::new()) };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let sent = write!(stream, "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        let mut answer = Vec::new();
        if sent.is_err() || stream.read_to_end(&mut answer).is_err() {
            return (0, String::new());
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }

    /// The sum of a metric's samples whose labels hold all of `labels` (`name="value"`).
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, text) = self.get("/metrics");
        let samples = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && labels.iter().all(|label| line.contains(label))
        });
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// The access log so far.
    pub fn access_log(&self) -> Vec<Value> {
        self.process.stdout.all().iter().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect()
    }

    /// The access log as soon as it has `count` lines.
    #[track_caller]
    pub fn access_lines(&self, count: usize) -> Vec<Value> {
        eventually("access log", || Some(self.access_log()).filter(|lines| lines.len() >= count))
    }

    pub fn stdout(&self) -> &Lines {
        &self.process.stdout
    }

    pub fn stderr(&self) -> String {
        self.process.stderr.text()
    }

    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    #[track_caller]
    pub fn wait_exit(&mut self, within: Duration) -> ExitStatus {
        self.process.wait(within)
    }

    pub fn is_running(&mut self) -> bool {
        self.process.has_exited().is_none()
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kilobytes of resident memory.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap()
    }
}

/// `listening on ADDRESS (kind)` somewhere in a line of the diagnostics.
fn bound(line: &str, kind: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on ")?;
    let (address, _) = rest.split_once(' ').filter(|(_, rest)| rest.starts_with(kind))?;
    address.parse().ok()
}

impl Drop for Doorward {
    /// Whatever a test does, nothing of Doorward panics.
    fn drop(&mut self) {
        let ended = self.process.has_exited();
        self.process.kill();
        let stderr = self.stderr();
        if !std::thread::panicking() {
            assert!(!stderr.contains("panicked at"), "a panic in doorward:\n{stderr}");
        } else {
            let lines = self.process.stdout.all();
            let last = lines[lines.len().saturating_sub(20)..].join("\n");
            eprintln!(
                "--- doorward's end before the test's: {ended:?}\n--- its stderr:\n{stderr}\n--- the end of its access log, of {} lines:\n{last}",
                lines.len()
            );
        }
    }
}
