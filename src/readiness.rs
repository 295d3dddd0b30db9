//! Ready is a set of guards: each part that must work first holds one, under a name an operator knows, and the process
//! is ready when it has started and no guard says otherwise.
//!
//! Never on the path of a call: probes read it, background work writes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// What one part says of itself. Texts are for the operator and hold nothing secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It works.
    Ready,
    /// It works, and there is something to know: a new configuration was refused, the old one stays in force.
    Remark(String),
    /// It does not work, for this reason.
    NotReady(String),
}

/// The set of guards. Clones share it.
#[derive(Clone, Debug)]
pub struct Readiness {
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug, Default)]
struct State {
    started: bool,
    next: u64,
    /// By the order of registration. Not by name: during a reload the old and the new generation may both hold a guard
    /// for the same part.
    guards: BTreeMap<u64, (String, Status)>,
}

impl State {
    fn is_ready(&self) -> bool {
        self.started && self.guards.values().all(|(_, status)| !matches!(status, Status::NotReady(_)))
    }
}

impl Default for Readiness {
    fn default() -> Readiness {
        Readiness { state: Arc::new(watch::Sender::new(State::default())) }
    }
}

impl Readiness {
    /// Nothing has started, nothing is guarded.
    pub fn new() -> Readiness {
        Readiness::default()
    }

    /// The configuration is loaded and the traffic port bound. From then on always true.
    pub fn set_started(&self) {
        self.state.send_modify(|state| state.started = true);
    }

    /// What a startup probe is told.
    pub fn is_started(&self) -> bool {
        self.state.borrow().started
    }

    /// A part that is not ready until its guard says so.
    pub fn guard(&self, name: impl Into<String>) -> ReadinessGuard {
        let mut id = 0;
        self.state.send_modify(|state| {
            id = state.next;
            state.next += 1;
            state.guards.insert(id, (name.into(), Status::NotReady("not ready yet".to_owned())));
        });
        ReadinessGuard { state: self.state.clone(), id }
    }

    /// Whether the process has started and every part is ready.
    pub fn is_ready(&self) -> bool {
        self.state.borrow().is_ready()
    }

    /// Every part, in the order of registration.
    pub fn status(&self) -> Vec<(String, Status)> {
        self.state.borrow().guards.values().cloned().collect()
    }

    /// Tells when readiness may have changed.
    pub fn watch(&self) -> ReadinessWatch {
        ReadinessWatch { receiver: self.state.subscribe() }
    }
}

/// Speaks for one part. Dropped: the part is gone and nobody waits for it any more.
#[derive(Debug)]
pub struct ReadinessGuard {
    state: Arc<watch::Sender<State>>,
    id: u64,
}

impl ReadinessGuard {
    /// The part works.
    pub fn ready(&self) {
        self.set(Status::Ready);
    }

    /// The part works, and the operator should know this about it.
    pub fn remark(&self, text: impl Into<String>) {
        self.set(Status::Remark(text.into()));
    }

    /// The part does not work (any more); `reason` is shown to operators.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(Status::NotReady(reason.into()));
    }

    fn set(&self, status: Status) {
        self.state.send_if_modified(|state| match state.guards.get_mut(&self.id) {
            Some((_, current)) if *current != status => {
                *current = status;
                true
            }
            _ => false,
        });
    }
}

impl Drop for ReadinessGuard {
    fn drop(&mut self) {
        self.state.send_modify(|state| {
            state.guards.remove(&self.id);
        });
    }
}

/// Waits for changes of readiness.
#[derive(Debug)]
pub struct ReadinessWatch {
    receiver: watch::Receiver<State>,
}

impl ReadinessWatch {
    /// Waits until something may have changed, and tells whether the process is ready now. Waits forever once the set is gone.
    pub async fn changed(&mut self) -> bool {
        match self.receiver.changed().await {
            Ok(()) => self.receiver.borrow_and_update().is_ready(),
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::runtime::Builder;

    #[test]
    fn ready_when_started_and_every_guard_says_so() {
        let readiness = Readiness::new();
        assert!(!readiness.is_ready(), "nothing has started");
        readiness.set_started();
        assert!(readiness.is_ready() && readiness.is_started());
        let keys = readiness.guard("keys of corporate");
        let upstream = readiness.guard("upstream");
        assert!(!readiness.is_ready(), "a guard is not ready until it says so");
        keys.ready();
        assert!(!readiness.is_ready());
        upstream.ready();
        assert!(readiness.is_ready());
        upstream.not_ready("connection refused");
        assert!(!readiness.is_ready());
        let status = [("keys of corporate", Status::Ready), ("upstream", Status::NotReady("connection refused".into()))];
        assert_eq!(readiness.status(), status.map(|(name, status)| (name.to_owned(), status)));
        upstream.remark("slow");
        assert!(readiness.is_ready(), "a remark is no refusal");
        upstream.not_ready("gone");
        drop(upstream);
        assert!(readiness.is_ready(), "a dropped guard is asked no more");
        assert!(readiness.is_started());
    }

    #[test]
    fn two_generations_may_guard_the_same_part() {
        let readiness = Readiness::new();
        readiness.set_started();
        let old = readiness.guard("upstream");
        old.ready();
        let new = readiness.guard("upstream");
        drop(old);
        assert!(!readiness.is_ready());
        new.ready();
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_change_is_told_and_a_repetition_is_not() {
        let readiness = Readiness::new();
        readiness.set_started();
        let guard = readiness.guard("upstream");
        let mut watch = readiness.watch();
        guard.ready();
        assert!(Builder::new_current_thread().build().unwrap().block_on(watch.changed()));
        guard.ready();
        assert!(!watch.receiver.has_changed().unwrap());
    }
}
