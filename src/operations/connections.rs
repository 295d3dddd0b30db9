//! The connections of the port at a time. One more always gets in, for it may be the kubelet's, who restarts what does not
//! answer: when there is no room, whoever has the most loses its oldest.

use std::collections::HashMap;
use std::net::IpAddr;
use tokio::task::JoinHandle;

/// Connections that are served, each by a task of its own.
pub(super) struct Connections {
    most: usize,
    /// Oldest first; some may have ended.
    open: Vec<(IpAddr, JoinHandle<()>)>,
}

impl Connections {
    /// At most so many at a time.
    pub(super) fn new(most: usize) -> Connections {
        Connections { most, open: Vec::new() }
    }

    /// Returns when there is room for one more of `peer`.
    pub(super) async fn make_room(&mut self, peer: IpAddr) {
        if self.open.len() < self.most {
            return;
        }
        self.open.retain(|(_, serving)| !serving.is_finished());
        while self.open.len() >= self.most {
            let (_, serving) = self.open.remove(in_the_way(self.open.iter().map(|(peer, _)| *peer), peer));
            serving.abort();
            let _ = serving.await; // its socket is closed then
        }
    }

    pub(super) fn add(&mut self, peer: IpAddr, serving: JoinHandle<()>) {
        self.open.push((peer, serving));
    }
}

/// Which of these, oldest first, is the oldest of the peer who has the most of them, one more of `newcomer` included.
fn in_the_way(open: impl Iterator<Item = IpAddr> + Clone, newcomer: IpAddr) -> usize {
    let mut shares = HashMap::from([(newcomer, 1)]);
    open.clone().for_each(|peer| *shares.entry(peer).or_default() += 1);
    let share = |peer| shares.get(&peer).copied().unwrap_or(0);
    let most = open.clone().map(share).max();
    open.clone().position(|peer| Some(share(peer)) == most).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_the_most_loses_its_oldest() {
        let peer = |last: u8| IpAddr::from([10, 0, 0, last]);
        for (open, newcomer, gone) in [
            (&[1, 2, 2, 3][..], 4, 1),
            (&[1, 2, 2, 3], 1, 0), // a tie: the oldest of both
            (&[1, 2, 3], 4, 0),
            (&[1, 2, 3], 2, 1), // who has one does not push out others
            (&[1, 2, 2, 2], 1, 1),
        ] {
            assert_eq!(in_the_way(open.iter().map(|last| peer(*last)), peer(newcomer)), gone, "{open:?} {newcomer}");
        }
    }
}
