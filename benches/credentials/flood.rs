//! How much memory callers can make a proxy use who come with ever new tokens, all of them valid.

use crate::case::{Kind, Peer, Site};
use crate::load;
use crate::rig::client::{bearer, tls};
use crate::signature::Signature;

/// Steps at which memory is looked at.
const STEPS: usize = 10;

/// Pairs of how many tokens have come, and Doorward's memory then in MiB.
pub fn flood(site: &Site, tokens: usize) -> Vec<(usize, f64)> {
    let proxy = site.start(Peer::Doorward, Kind::Token(Signature::HS256));
    let tls = tls(&site.folder);
    let mut seen = vec![(0, proxy.resident_mib())];
    for step in 0..STEPS {
        let (from, to) = (tokens * step / STEPS, tokens * (step + 1) / STEPS);
        let issue = Signature::HS256.issuer();
        load::run(proxy.port, &tls, (from..to).map(move |number| bearer(&issue(number))), load::ANSWERED);
        seen.push((to, proxy.resident_mib()));
        eprintln!("flood: {:.1} MiB after {to} tokens", proxy.resident_mib());
    }
    seen
}
