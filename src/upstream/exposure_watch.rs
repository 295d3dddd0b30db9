//! Looks again and again whether others can go around us to an upstream on loopback, and says so: an error in the log, once
//! a change, a metric, and a process that is not ready. Calls are served all the same, so that a laptop works.

use super::exposure::reachable_by_others;
use crate::readiness::{ReadinessGuard, ReadinessWatch};
use crate::telemetry::Metrics;
use std::fs::File;
use std::io::{self, BufReader};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// An upstream that opens a further port while it serves is noticed after this long.
const INTERVAL: Duration = Duration::from_secs(5);

/// Keeps `guard` and the metric true to who can reach `port` until dropped. `ours` are our own listening sockets; with
/// `accepted` (`upstream.insecure_exposed`) an exposed upstream is ready all the same. Looks whenever `readiness` changes
/// too: an upstream that has just come up must not be ready for as long as the interval.
pub async fn watch_exposure(
    port: u16,
    ours: Vec<SocketAddr>,
    accepted: bool,
    guard: ReadinessGuard,
    mut readiness: ReadinessWatch,
    metrics: Arc<Metrics>,
) {
    let mut last = None;
    loop {
        let seen = look(port, ours.clone()).await;
        if last.as_ref() != Some(&seen) {
            tell(&seen, last.is_some(), accepted, &guard, &metrics);
            last = Some(seen);
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            _ = readiness.changed() => {}
        }
    }
}

/// What one look found.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    OutOfReach,
    Reachable(Vec<SocketAddr>),
    /// Why it cannot be told.
    Unknown(String),
}

/// The kernel writes a line for every connection too, so that with thousands of them this would hold up the control
/// thread for some milliseconds.
async fn look(port: u16, ours: Vec<SocketAddr>) -> Seen {
    let read = tokio::task::spawn_blocking(move || -> io::Result<Vec<SocketAddr>> {
        let tcp = BufReader::new(File::open("/proc/net/tcp")?);
        match File::open("/proc/net/tcp6") {
            Ok(tcp6) => reachable_by_others(port, tcp, BufReader::new(tcp6), &ours),
            // Not there when the kernel has no IPv6.
            Err(_) => reachable_by_others(port, tcp, io::empty(), &ours),
        }
    });
    match read.await {
        Ok(Ok(found)) if found.is_empty() => Seen::OutOfReach,
        Ok(Ok(found)) => Seen::Reachable(found),
        Ok(Err(error)) => Seen::Unknown(format!("/proc/net/tcp cannot be read: {error}")),
        Err(error) => Seen::Unknown(error.to_string()),
    }
}

fn tell(seen: &Seen, again: bool, accepted: bool, guard: &ReadinessGuard, metrics: &Metrics) {
    metrics.upstream_exposed.set(i64::from(matches!(seen, Seen::Reachable(_))));
    match seen {
        Seen::OutOfReach => {
            if again {
                tracing::info!("nobody can reach the upstream without passing Doorward (any more)");
            }
            guard.ready();
        }
        Seen::Reachable(at) => {
            let at = at.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ");
            if accepted {
                tracing::warn!(
                    "the upstream listens on {at} too: others can go around Doorward with forged headers, as upstream.insecure_exposed accepts"
                );
                return guard.remark(format!("others can reach it at {at}, as upstream.insecure_exposed accepts"));
            }
            tracing::error!(
                "the upstream listens on {at} too: others can go around Doorward with forged headers. Bind it to 127.0.0.1, or to a \
                 Unix socket (upstream.address: unix:/path). Until then /readyz is false, unless upstream.insecure_exposed is true"
            );
            guard.not_ready(format!("others can reach it at {at}; bind it to 127.0.0.1 or a Unix socket"));
        }
        Seen::Unknown(why) => {
            tracing::warn!("whether others can go around Doorward to the upstream cannot be told: {why}");
            guard.remark(format!("cannot be told: {why}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::{Readiness, Status};

    /// Readiness and the metric after each of these sights.
    fn told(seen: &[Seen], accepted: bool) -> (Status, i64) {
        let (readiness, metrics) = (Readiness::new(), Metrics::new());
        let guard = readiness.guard("upstream exposure");
        for (place, seen) in seen.iter().enumerate() {
            tell(seen, place > 0, accepted, &guard, &metrics);
        }
        (readiness.status().remove(0).1, metrics.upstream_exposed.get())
    }

    fn reachable() -> Seen {
        Seen::Reachable(vec!["0.0.0.0:50051".parse().unwrap()])
    }

    #[test]
    fn an_exposed_upstream_is_not_ready_unless_that_is_accepted() {
        let (status, metric) = told(&[reachable()], false);
        assert!(matches!(status, Status::NotReady(why) if why.contains("0.0.0.0:50051") && why.contains("127.0.0.1")));
        assert_eq!(metric, 1);
        let (status, metric) = told(&[reachable()], true);
        assert!(matches!(status, Status::Remark(why) if why.contains("0.0.0.0:50051")));
        assert_eq!(metric, 1);
        assert_eq!(told(&[reachable(), Seen::OutOfReach], false), (Status::Ready, 0));
    }

    #[test]
    fn what_cannot_be_told_is_remarked() {
        let (status, metric) = told(&[Seen::Unknown("no /proc".into())], false);
        assert!(matches!(status, Status::Remark(why) if why.contains("no /proc")));
        assert_eq!(metric, 0);
    }
}
