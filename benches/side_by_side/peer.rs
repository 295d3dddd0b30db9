//! The peers: how each is started, on its own core, and what its CPU time is.

use crate::material::Material;
use crate::upstream::Service;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Direct,
    Doorward,
    DoorwardPublic,
    HaProxy,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Direct, Kind::Doorward, Kind::DoorwardPublic, Kind::HaProxy];

    /// For `BENCH_PEERS`.
    pub fn key(self) -> &'static str {
        match self {
            Kind::Direct => "direct",
            Kind::Doorward => "doorward",
            Kind::DoorwardPublic => "public",
            Kind::HaProxy => "haproxy",
        }
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Direct => "direct, h2c, no proxy",
            Kind::Doorward => "Doorward, RS256 token",
            Kind::DoorwardPublic => "Doorward, everything public",
            Kind::HaProxy => "HAProxy, RS256 jwt_verify",
        }
    }

    /// Whether it looks at the token and the path.
    pub fn checks(self) -> bool {
        matches!(self, Kind::Doorward | Kind::HaProxy)
    }
}

/// A running peer.
pub struct Peer {
    pub kind: Kind,
    child: Option<Child>,
    pub port: u16,
}

impl Peer {
    pub fn start(kind: Kind, material: &Material, service: &Service) -> Peer {
        match kind {
            Kind::Direct => Peer { kind, child: None, port: service.port },
            Kind::Doorward => doorward(kind, "doorward.yaml", material, service),
            Kind::DoorwardPublic => doorward(kind, "doorward_public.yaml", material, service),
            Kind::HaProxy => haproxy(material, service),
        }
    }

    /// User and system time that the peer and its children have used, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        let Some(child) = &self.child else { return 0.0 };
        let ticks: u64 = family(child.id()).into_iter().filter_map(ticks_of).sum();
        // USER_HZ, which is 100 on every Linux that Rust runs on.
        ticks as f64 / 100.0
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A command on the proxy's own core.
fn pinned(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", crate::load::PROXY_CORE]).arg(program).stdout(Stdio::null());
    command
}

fn doorward(kind: Kind, template: &str, material: &Material, service: &Service) -> Peer {
    let configuration = configuration(template, material, &[("upstream", &service.port.to_string())]);
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
    // Whatever else it says must not fill the pipe.
    std::thread::spawn(move || lines.for_each(drop));
    Peer { kind, child: Some(child), port }
}

/// The port in `listening on 127.0.0.1:PORT (traffic)`.
fn traffic_port(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once("listening on ")?;
    let (address, _) = rest.split_once(" (traffic)")?;
    address.rsplit(':').next()?.parse().ok()
}

fn haproxy(material: &Material, service: &Service) -> Peer {
    // HAProxy cannot say which port it got: take one that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
    let dir = material.path("").display().to_string();
    let values = [("port", port.to_string()), ("upstream", service.port.to_string()), ("dir", dir.trim_end_matches('/').to_owned())];
    let values: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let configuration = configuration("haproxy.cfg", material, &values);
    let child = pinned("haproxy").args(["-db", "-q", "-f"]).arg(configuration).spawn().expect("taskset and haproxy");
    let started = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(started.elapsed() < Duration::from_secs(10), "haproxy does not listen: is it installed?");
        std::thread::sleep(Duration::from_millis(20));
    }
    Peer { kind: Kind::HaProxy, child: Some(child), port }
}

/// A file of this folder with its `{{names}}` filled in.
fn configuration(template: &str, material: &Material, values: &[(&str, &str)]) -> std::path::PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/side_by_side").join(template);
    let text = fs::read_to_string(path).expect("the template");
    let filled = values.iter().fold(text, |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value));
    material.write(template, filled)
}

/// A process and its children.
fn family(root: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    processes.filter(|process| *process == root || stat(*process).is_some_and(|fields| fields.get(1) == Some(&root.to_string()))).collect()
}

/// utime and stime, the 14th and 15th field of proc_pid_stat(5).
fn ticks_of(process: u32) -> Option<u64> {
    let fields = stat(process)?;
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// The fields from the third on: the second, the name in parentheses, may hold anything.
fn stat(process: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    Some(text.rsplit_once(") ")?.1.split_whitespace().map(str::to_owned).collect())
}
