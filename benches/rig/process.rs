//! The proxies as processes, each on the core that is theirs alone, and what they use of it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The proxy's own core, and the one that load generator and service share.
pub const PROXY_CORE: &str = "0";
pub const LOAD_CORE: &str = "1";

/// A running proxy, ended when dropped.
pub struct Proxy {
    child: Child,
    pub port: u16,
    /// From its start until it listened.
    pub start: Duration,
}

impl Proxy {
    pub fn doorward(configuration: &Path) -> Proxy {
        let started = Instant::now();
        let mut child = pinned(env!("CARGO_BIN_EXE_doorward"))
            .args(["run", "--config"])
            .arg(configuration)
            .stderr(Stdio::piped())
            .spawn()
            .expect("taskset and doorward");
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
        Proxy { child, port, start }
    }

    /// HAProxy cannot say which port it got: its configuration is given one that was free a moment ago.
    pub fn haproxy(configuration: impl FnOnce(u16) -> PathBuf) -> Proxy {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
        let configuration = configuration(port);
        let started = Instant::now();
        let child = pinned("haproxy").args(["-db", "-q", "-f"]).arg(configuration).spawn().expect("taskset and haproxy");
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(10), "haproxy does not listen: is it installed?");
            std::thread::sleep(Duration::from_millis(5));
        }
        Proxy { child, port, start: started.elapsed() }
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

/// Moves this process, with all its threads, to the core of the load.
pub fn pin_to_load_core() {
    let id = std::process::id().to_string();
    let done = Command::new("taskset").args(["-a", "-c", "-p", LOAD_CORE, &id]).stdout(Stdio::null()).status();
    assert!(done.is_ok_and(|status| status.success()), "taskset (util-linux)");
}

/// A command on the proxy's own core.
fn pinned(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", PROXY_CORE]).arg(program).stdout(Stdio::null());
    command
}

/// The port in `listening on 127.0.0.1:PORT (traffic)`.
fn traffic_port(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once("listening on ")?;
    let (address, _) = rest.split_once(" (traffic)")?;
    address.rsplit(':').next()?.parse().ok()
}
