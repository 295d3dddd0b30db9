//! What one warm call makes Doorward do: system calls, wakes of its thread, allocations. Counted by the kernel, with `perf stat`
//! on system-call tracepoints and on probes in the allocator; needs root, perf and tracefs, and says so where they are missing.

use super::{WARM_UP, page, while_measured};
use crate::material::Material;
use crate::peer::{Kind, Peer};
use crate::rig::figures::publish;
use crate::rig::head::Form;
use crate::rig::process::doorward;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

const SHAPES: [(usize, usize); 4] = [(1, 1), (100, 1), (1, 32), (8, 16)];
const SYSTEM_CALLS: [&str; 9] = ["read", "recvfrom", "write", "writev", "sendto", "sendmsg", "epoll_wait", "epoll_pwait", "futex"];
/// What gives memory, of the allocator; and what takes it back.
const ALLOCATORS: [&str; 5] = ["malloc", "calloc", "mallocx", "realloc", "rallocx"];
const RELEASE: &str = "sdallocx";
const TRACING: &str = "/sys/kernel/tracing/uprobe_events";

/// Events a call, by their names.
type Counts = BTreeMap<String, f64>;

pub fn run(material: &Material, kinds: &[Kind]) {
    if !kinds.contains(&Kind::Doorward) {
        return;
    }
    if !Path::new(TRACING).exists() || Command::new("perf").arg("--version").output().is_err() {
        return eprintln!("account: not measured, needs root, perf and tracefs (mount -t tracefs none /sys/kernel/tracing)");
    }
    let mut text = page(
        "One warm call",
        "Events in Doorward's process, a call, as the kernel counts them: `perf stat` on the tracepoints of system calls and on probes at the entries of the\n\
         allocator, the voluntary context switches of its threads for the wakes. Unary call, 32-byte message, known RS256 token, one worker. Shapes are\n\
         connections × calls at a time: the more calls come together, the fewer wakes and system calls each needs.",
    );
    let names: Vec<String> = SHAPES.iter().map(|(connections, streams)| format!("{connections} × {streams}")).collect();
    let _ = writeln!(text, "| | {} |\n| --- |{}", names.join(" | "), " --- |".repeat(names.len()));
    let probes = Probes::set();
    let peer = Peer::start(Kind::Doorward, material);
    let counts = SHAPES.map(|(connections, streams)| count(&peer, connections, streams, material, &probes));
    let all: std::collections::BTreeSet<&String> = counts.iter().flat_map(BTreeMap::keys).collect();
    for name in all {
        let figures = counts.iter().map(|counts| format!("{:.2}", counts.get(name).copied().unwrap_or(0.0)));
        let _ = writeln!(text, "| {name} | {} |", figures.collect::<Vec<_>>().join(" | "));
    }
    drop(peer);
    publish(&text, "account");
}

fn count(peer: &Peer, connections: usize, streams: usize, material: &Material, probes: &Probes) -> Counts {
    let pid = peer.proxy.as_ref().expect("a proxy").pid();
    let mut load = peer.load(connections, Form::Huffman, material);
    load.closed(streams, WARM_UP);
    let before = switches(pid);
    let calls = load.closed(streams, while_measured()).len() as f64;
    let mut counts = Counts::from([("wakes".to_owned(), (switches(pid) - before) / calls)]);

    let report = material.folder.path("perf");
    let events: Vec<String> = SYSTEM_CALLS.iter().map(|call| format!("syscalls:sys_enter_{call}")).chain(probes.0.clone()).collect();
    let mut perf = Command::new("perf")
        .args(["stat", "-x", ";", "-o"])
        .arg(&report)
        .args(["-e", &format!("{},raw_syscalls:sys_enter", events.join(",")), "-p", &pid.to_string()])
        .stderr(Stdio::null())
        .spawn()
        .expect("perf");
    sleep(Duration::from_millis(500));
    let calls = load.closed(streams, while_measured()).len() as f64;
    let _ = Command::new("kill").args(["-INT", &perf.id().to_string()]).status();
    let _ = perf.wait();
    for line in fs::read_to_string(&report).expect("perf's report").lines() {
        let mut fields = line.split(';');
        let (Some(Ok(events)), Some(name)) = (fields.next().map(str::parse::<f64>), fields.nth(1)) else { continue };
        if events / calls >= 0.005 {
            *counts.entry(words(name)).or_default() += events / calls;
        }
    }
    counts
}

/// An event's name, for people.
fn words(event: &str) -> String {
    let name = event.rsplit(':').next().unwrap_or(event).trim_start_matches("bench_");
    match name {
        "sys_enter" => "system calls, all".to_owned(),
        RELEASE => "memory: given back".to_owned(),
        name if ALLOCATORS.contains(&name) => format!("memory: {name}"),
        name => format!("system calls: {}", name.trim_start_matches("sys_enter_")),
    }
}

/// Of all its threads, voluntary: each is a wait that something had to end.
fn switches(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a running proxy");
    let of = |thread: fs::DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<f64>().ok())
    };
    threads.filter_map(Result::ok).filter_map(of).sum()
}

/// Probes in the allocator of the program that is measured; gone when dropped.
struct Probes(Vec<String>);

impl Probes {
    fn set() -> Probes {
        let names = ALLOCATORS.iter().chain([&RELEASE]);
        let set = |name: &&&str| {
            let probe = format!("bench_{name}=_rjem_{name}");
            Command::new("perf").args(["probe", "-q", "-x", &doorward(), "--add", &probe]).status().is_ok_and(|status| status.success())
        };
        let probes = Probes(names.filter(set).map(|name| format!("probe_doorward:bench_{name}")).collect());
        if probes.0.is_empty() {
            eprintln!("account: allocations are not counted, perf could set no probe");
        }
        probes
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        for probe in &self.0 {
            let _ = Command::new("perf").args(["probe", "-q", "--del", probe]).status();
        }
    }
}
