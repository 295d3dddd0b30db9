//! Latency at a fixed rate when the proxy may use half a core, as under a container's CPU limit.

use super::latency::{CONNECTIONS, aims, measure, picture, tables};
use super::page;
use crate::material::Material;
use crate::peer::{Kind, Peer};
use crate::rig::figures::{goals, publish, publish_picture};
use crate::rig::quota::Quota;
use std::fmt::Write as _;

const SHARE: f64 = 0.5;

pub fn run(material: &Material, kinds: &[Kind]) {
    let kinds: Vec<Kind> = kinds.iter().copied().filter(|kind| *kind != Kind::Direct).collect();
    let peers: Vec<Peer> = kinds.iter().map(|kind| Peer::start(*kind, material)).collect();
    let quotas: Result<Vec<Quota>, String> = peers.iter().filter_map(|peer| Some(Quota::of(peer.proxy.as_ref()?.pid(), SHARE))).collect();
    let quotas = match quotas {
        Ok(quotas) => quotas,
        Err(error) => return eprintln!("quota: not measured, control groups cannot be made (as root only): {error}"),
    };
    let measured = measure(&peers, material);
    let mut text = page(
        "Latency with half a core, side by side",
        &format!(
            "Each proxy in a control group that gives it 50 ms of CPU time in each 100 ms. As many unary calls a second as the heading says, over {CONNECTIONS}\n\
             connections; a call's time begins when it was due. Microseconds. Once a proxy's time is used up it stands still until the next tenth of a second."
        ),
    );
    tables(&mut text, &measured);
    text.push_str("## How often the time was used up\n\n| | periods of 100 ms |\n| --- | --- |\n");
    for (kind, quota) in kinds.iter().zip(&quotas) {
        let _ = writeln!(text, "| {} | {} |", kind.name(), quota.throttled());
    }
    text.push('\n');
    text.push_str(&goals(&aims(&measured)));
    publish(&text, "quota");
    publish_picture(&picture("Latency with half a core, p99 in µs (shorter is better)", &measured), "quota");
    drop(peers);
}
