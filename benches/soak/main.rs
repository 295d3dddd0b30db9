//! `make soak SECONDS=3600`: does memory stay flat while everything happens for an hour? Doorward carries a moderate, mixed
//! load: unary calls, streams, uploads, cancelled calls, bad and new tokens, new connections and ones that vanish. What it
//! holds is looked at all the while, and each call has to end as it should.
//!
//! `SOAK_SECONDS` and `SOAK_RATE` (things begun a second) change it, `BENCH_RESULTS` where its page goes.

#![allow(missing_docs, unreachable_pub)] // nothing here is anybody's interface

mod diary;
#[path = "../rig/mod.rs"]
mod rig;
#[allow(dead_code, clippy::unwrap_used)] // made for the tests, which need more of it and fail by panics
#[path = "../../tests/it/harness/token.rs"]
mod token;
mod work;

use diary::Diary;
use rig::folder::Folder;
use rig::process::{Proxy, doorward, free_port, on_load_core, pin_to_load_core};
use rig::{setting, upstream};
use std::env;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::LocalSet;
use tokio::time::MissedTickBehavior;
use work::Crowd;

/// What it holds is looked at so often, and said so often.
const LOOK: Duration = Duration::from_secs(10);

fn main() {
    if env::args().nth(1).as_deref() == Some("upstream") {
        return upstream::serve();
    }
    let (seconds, rate) = (setting("SOAK_SECONDS", 3_600u64), setting("SOAK_RATE", 150u32));
    let folder = Folder::new();
    folder.write("rsa.pub", &token::RSA.public_pem);
    let service = upstream::Service::start();
    let proxy = start(&folder, &service);
    // All of it on one core: whoever measures something meanwhile has the other.
    on_load_core(proxy.pid());
    pin_to_load_core();
    let mut diary = Diary::new(rate);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(LocalSet::new().run_until(async {
        let crowd = Rc::new(Crowd::new(proxy.port, &folder));
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let started = Instant::now();
        let mut next_look = Duration::ZERO;
        for number in 0.. {
            if started.elapsed() >= next_look {
                diary.look(started.elapsed(), &proxy, &crowd);
                next_look += LOOK;
            }
            if started.elapsed() >= Duration::from_secs(seconds) {
                break;
            }
            ticks.tick().await;
            tokio::task::spawn_local(crowd.clone().one(number));
        }
    }));
    diary.publish();
}

/// With the access log on, as a service would have it.
fn start(folder: &Folder, service: &upstream::Service) -> Proxy {
    let port = free_port();
    let upstream = service.port.to_string();
    let values = [("upstream", upstream.as_str()), ("port", &port.to_string()), ("workers", "1"), ("access", "json")];
    let configuration = folder.fill("side_by_side/doorward.yaml", &values);
    let mut command = Command::new(doorward());
    command.args(["run", "--config"]).arg(configuration);
    Proxy::start(command, port, 1, true)
}
