//! A child process whose output is collected line by line and who does not outlive its test.

use super::{PATIENCE, Stopwatch, eventually};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Lines as they arrive.
#[derive(Clone, Default)]
pub struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    /// There will be no more.
    ended: Arc<AtomicBool>,
}

impl Lines {
    fn collect(from: impl Read + Send + 'static) -> Lines {
        let lines = Lines::default();
        let into = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                into.lines.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
            }
            into.ended.store(true, Ordering::SeqCst);
        });
        lines
    }

    pub fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    pub fn text(&self) -> String {
        self.all().join("\n")
    }
}

pub struct Process {
    child: Child,
    pub stdout: Lines,
    pub stderr: Lines,
}

impl Process {
    pub fn spawn(command: &mut Command) -> Process {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; `make test` sets up what is needed"));
        let stdout = Lines::collect(child.stdout.take().unwrap());
        let stderr = Lines::collect(child.stderr.take().unwrap());
        Process { child, stdout, stderr }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, without the `SIG`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.id().to_string()]).status().unwrap();
        assert!(status.success(), "kill -s {name}");
    }

    pub fn has_exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for the end of the process, at most `within`; what it has said is there then.
    #[track_caller]
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let started = Stopwatch::start();
        loop {
            if let Some(status) = self.has_exited() {
                self.hear_out();
                return status;
            }
            assert!(started.elapsed() < within, "still running after {within:?}; stderr:\n{}", self.stderr.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The first thing `pick` finds in the lines of `of`; fails at once when the process ends without it.
    #[track_caller]
    pub fn find<T>(&mut self, what: &str, of: fn(&Process) -> &Lines, pick: impl Fn(&str) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            let ended = self.has_exited();
            if let Some(found) = of(self).all().iter().find_map(|line| pick(line)) {
                return found;
            }
            let late = started.elapsed() > PATIENCE;
            assert!(!late && ended.is_none(), "no {what} ({ended:?}); stderr:\n{}\nstdout:\n{}", self.stderr.text(), self.stdout.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Writes one line to standard input.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Closes standard input by ending the process at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.hear_out();
    }

    /// Of a process that has ended: until its last word has been read. A process of its own may go on and keep the pipe open.
    fn hear_out(&self) {
        let started = Instant::now();
        let ended = |lines: &Lines| lines.ended.load(Ordering::SeqCst);
        while !(ended(&self.stdout) && ended(&self.stderr)) && started.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a command to its end with JSON on standard input; its standard output.
#[track_caller]
pub fn output(command: &mut Command, input: &Value) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; `make test` sets up what is needed"));
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?} failed");
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until `lines` holds one that `pick` takes.
#[track_caller]
pub fn line<T>(lines: &Lines, what: &str, pick: impl Fn(&str) -> Option<T>) -> T {
    eventually(what, || lines.all().iter().find_map(|line| pick(line)))
}
