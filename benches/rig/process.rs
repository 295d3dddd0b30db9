//! The proxies as processes, each on the core that is theirs alone, and what they use of it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The proxy's own core, and the one that load generator and service share.
pub const PROXY_CORE: &str = "0";
pub const LOAD_CORE: &str = "1";
const BOTH_CORES: &str = "0,1";

/// A running proxy, ended when dropped.
pub struct Proxy {
    child: Child,
    pub port: u16,
    /// From its start until it listened.
    pub start: Duration,
    /// That it has written to its standard output, if that is read.
    pub lines: Arc<AtomicU64>,
}

impl Proxy {
    pub fn doorward(configuration: &Path) -> Proxy {
        let started = Instant::now();
        let mut child =
            pinned(doorward()).args(["run", "--config"]).arg(configuration).stderr(Stdio::piped()).spawn().expect("taskset and doorward");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
        let mut seen = Vec::new();
        let port = loop {
            let Some(line) = lines.next() else { panic!("doorward ended:\n{}", seen.join("\n")) };
            if let Some(port) = traffic_port(&line) {
                break port;
            }
            seen.push(line);
        };
        let start = started.elapsed();
        // Whatever else it says must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Proxy { child, port, start, lines: Arc::default() }
    }

    /// Whatever listens on `port` once it is started by `command`. With `piped`, its standard output is read and thrown away.
    pub fn start(command: Command, port: u16, workers: usize, piped: bool) -> Proxy {
        let name = format!("{:?}", command.get_program());
        let cores = if workers == 1 { PROXY_CORE } else { BOTH_CORES };
        let stdout = if piped { Stdio::piped() } else { Stdio::null() };
        let started = Instant::now();
        let mut child = on(cores, command).stdout(stdout).spawn().expect("taskset (util-linux)");
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(child.try_wait().is_ok_and(|ended| ended.is_none()), "{name} ended");
            assert!(started.elapsed() < Duration::from_secs(10), "{name} does not listen");
            std::thread::sleep(Duration::from_millis(1));
        }
        let start = started.elapsed();
        let lines = Arc::new(AtomicU64::new(0));
        if let Some(output) = child.stdout.take() {
            let lines = lines.clone();
            std::thread::spawn(move || count_lines(output, &lines));
        }
        Proxy { child, port, start, lines }
    }

    /// HAProxy cannot say which port it got: its configuration is given one that was free a moment ago.
    pub fn haproxy(configuration: impl FnOnce(u16) -> PathBuf) -> Proxy {
        let port = free_port();
        let configuration = configuration(port);
        let started = Instant::now();
        let child = pinned("haproxy").args(["-db", "-q", "-f"]).arg(configuration).spawn().expect("taskset and haproxy");
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(10), "haproxy does not listen: is it installed?");
            std::thread::sleep(Duration::from_millis(5));
        }
        Proxy { child, port, start: started.elapsed(), lines: Arc::default() }
    }

    /// User and system time of all its threads, in seconds: the scheduler's own account, which is finer than the clock ticks of
    /// proc_pid_stat(5). Both proxies keep their threads, so none is lost.
    pub fn cpu_seconds(&self) -> f64 {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("a running proxy");
        let on_cpu =
            |thread: fs::DirEntry| fs::read_to_string(thread.path().join("schedstat")).ok()?.split(' ').next()?.parse::<u64>().ok();
        threads.filter_map(Result::ok).filter_map(on_cpu).sum::<u64>() as f64 / 1e9
    }

    /// Waits until it does nothing any more: Doorward looks at its files once more half a second after its start.
    pub fn settle(&self) {
        loop {
            let before = self.cpu_seconds();
            std::thread::sleep(Duration::from_millis(800));
            if self.cpu_seconds() - before < 0.005 {
                return;
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The CPU time of each of its threads, in seconds, by their names.
    pub fn threads(&self) -> Vec<(String, f64)> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("a running proxy");
        let of = |thread: fs::DirEntry| {
            let name = fs::read_to_string(thread.path().join("comm")).ok()?;
            let time = fs::read_to_string(thread.path().join("schedstat")).ok()?.split(' ').next()?.parse::<u64>().ok()?;
            Some((name.trim().to_owned(), time as f64 / 1e9))
        };
        threads.filter_map(Result::ok).filter_map(of).collect()
    }

    /// Its memory, in MiB.
    pub fn resident_mib(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a running proxy");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        resident.expect("VmRSS") / 1024.0
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program that is measured: this build's, or another one's that `BENCH_DOORWARD` names.
pub fn doorward() -> String {
    super::setting("BENCH_DOORWARD", env!("CARGO_BIN_EXE_doorward").to_owned())
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

fn count_lines(mut output: impl Read, lines: &AtomicU64) {
    let mut buffer = [0; 65_536];
    while let Ok(read @ 1..) = output.read(&mut buffer) {
        let ends = buffer.iter().take(read).filter(|byte| **byte == b'\n').count();
        lines.fetch_add(ends as u64, Ordering::Relaxed);
    }
}

/// The command on these cores.
fn on(cores: &str, command: Command) -> Command {
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", cores]).arg(command.get_program()).args(command.get_args());
    pinned
}

/// Moves this process, with all its threads, to the core of the load.
pub fn pin_to_load_core() {
    on_load_core(std::process::id());
}

pub fn on_load_core(pid: u32) {
    move_to(LOAD_CORE, pid);
}

/// Lets a process run wherever there is room.
pub fn on_both_cores(pid: u32) {
    move_to(BOTH_CORES, pid);
}

fn move_to(cores: &str, pid: u32) {
    let done = Command::new("taskset").args(["-a", "-c", "-p", cores, &pid.to_string()]).stdout(Stdio::null()).status();
    assert!(done.is_ok_and(|status| status.success()), "taskset (util-linux)");
}

/// As many open files as this process, and those it starts, may have.
pub fn many_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// A command on the proxy's own core.
fn pinned(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = on(PROXY_CORE, Command::new(program));
    command.stdout(Stdio::null());
    command
}

/// The port in `listening on 127.0.0.1:PORT (traffic)`.
fn traffic_port(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once("listening on ")?;
    let (address, _) = rest.split_once(" (traffic)")?;
    address.rsplit(':').next()?.parse().ok()
}
