//! Which addresses the upstream's name has. It is resolved at each connect; here again and again, so that connections to an
//! address that it no longer has are retired: no new calls, those in flight finish.

use std::io;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::watch;

/// How often a name is resolved while nothing connects.
pub(super) const INTERVAL: Duration = Duration::from_secs(30);

/// What the name was last resolved to, for all threads.
#[derive(Debug, Default)]
pub(super) struct Addresses(watch::Sender<Vec<IpAddr>>);

impl Addresses {
    /// Waits until the name has the address no longer.
    pub(super) fn left_by(&self, peer: Option<IpAddr>) -> impl Future<Output = ()> + use<> {
        let mut answers = self.0.subscribe();
        async move {
            if let Some(peer) = peer {
                while answers.changed().await.is_ok() {
                    if !answers.borrow_and_update().contains(&peer) {
                        return;
                    }
                }
            }
            std::future::pending().await // nobody asks any more, or there is no address
        }
    }

    pub(super) fn publish(&self, addresses: Vec<IpAddr>) {
        self.0.send_replace(addresses);
    }

    /// Asks `resolve` every `interval`. What counts is every address of the last two answers, lest a name server that gives
    /// some of them in turn makes connections come and go. A failure changes nothing.
    pub(super) async fn keep_resolved(&self, interval: Duration, resolve: impl AsyncFn() -> io::Result<Vec<IpAddr>>) {
        let mut last = Vec::new();
        loop {
            match resolve().await {
                Ok(answer) if !answer.is_empty() => {
                    let before = std::mem::replace(&mut last, answer.clone());
                    if !before.is_empty() {
                        self.publish([before, answer].concat());
                    }
                }
                Ok(_) => tracing::warn!("the upstream's name has no address any more; its connections stay"),
                Err(error) => tracing::warn!(%error, "the upstream's name cannot be resolved; its connections stay"),
            }
            tokio::time::sleep(interval).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const OLD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const NEW: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    /// After how many answers a connection to `OLD` is retired, if it is. The last answer is given for ever.
    fn retired_after(answers: &[io::Result<Vec<IpAddr>>]) -> Option<usize> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (addresses, asked) = (Addresses::default(), Cell::new(0));
            let resolve = async || {
                let answer = answers.get(asked.get()).unwrap_or(answers.last().unwrap());
                asked.set(asked.get() + 1);
                answer.as_ref().cloned().map_err(|error| error.kind().into())
            };
            let left = addresses.left_by(Some(OLD));
            let patience = async {
                while asked.get() < answers.len() + 10 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! {
                biased;
                () = left => Some(asked.get()),
                () = addresses.keep_resolved(Duration::from_millis(2), resolve) => panic!("ended"),
                () = patience => None,
            }
        })
    }

    #[test]
    fn an_address_that_two_answers_lack_is_left() {
        assert_eq!(retired_after(&[Ok(vec![OLD]), Ok(vec![NEW]), Ok(vec![NEW])]), Some(3));
    }

    #[test]
    fn what_comes_and_goes_stays() {
        let turns: Vec<_> = (0..20).map(|turn| Ok(vec![if turn % 2 == 0 { OLD } else { NEW }])).collect();
        assert!(retired_after(&turns).is_none_or(|answers| answers > 20), "only the end, which is one answer for ever");
        assert_eq!(retired_after(&[Ok(vec![NEW, OLD])]), None);
    }

    #[test]
    fn a_failure_changes_nothing() {
        let failed = || Err(io::ErrorKind::NotFound.into());
        assert_eq!(retired_after(&[Ok(vec![OLD]), failed(), Ok(vec![]), failed()]), None);
        assert_eq!(retired_after(&[Ok(vec![OLD]), failed(), Ok(vec![NEW]), failed(), Ok(vec![NEW])]), Some(5));
    }
}
