//! The one way down: serving, announced, draining, over. Whoever has to act on a phase holds a [`Drain`]; only the
//! control thread holds the [`DrainTrigger`].
//!
//! A drain only ever goes forward, so two triggers (a preStop hook and SIGTERM, say) cannot undo each other. It works
//! across threads and runtimes; asking whether calls are refused is one relaxed load, as every call asks it.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;
use tokio::time::Instant;

/// How far a drain has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No drain has begun.
    Serving,
    /// Not ready any more, still serving everything, until load balancers have noticed (`limits.drain_delay`).
    Announced,
    /// The port closes and connections are told to go away; calls on them, also those sent before the client knew, may
    /// take until the deadline (`limits.drain`).
    Draining {
        /// When what is left gets DRAINING.
        deadline: Instant,
    },
    /// Whatever is still in flight ends now.
    Over,
}

impl Phase {
    fn rank(self) -> u8 {
        match self {
            Phase::Serving => 0,
            Phase::Announced => 1,
            Phase::Draining { .. } => 2,
            Phase::Over => 3,
        }
    }
}

/// A drain that has not begun, and the only hand that can begin it.
pub fn drain() -> (DrainTrigger, Drain) {
    let (sender, receiver) = watch::channel(Phase::Serving);
    let refusing = Arc::new(AtomicBool::new(false));
    (DrainTrigger { phase: sender, refusing: refusing.clone() }, Drain { phase: receiver, refusing })
}

/// Moves the drain forward. Clones move the same drain.
#[derive(Clone, Debug)]
pub struct DrainTrigger {
    phase: watch::Sender<Phase>,
    refusing: Arc<AtomicBool>,
}

impl DrainTrigger {
    /// Not ready from now on; everything is still served. `false` when that was so already.
    pub fn announce(&self) -> bool {
        self.advance(Phase::Announced)
    }

    /// Connections are told to go away from now on; calls on them have until `deadline`. `false` when that was so already: the
    /// first deadline holds.
    pub fn begin(&self, deadline: Instant) -> bool {
        self.advance(Phase::Draining { deadline })
    }

    /// Calls still in flight end now.
    pub fn finish(&self) -> bool {
        self.advance(Phase::Over)
    }

    fn advance(&self, to: Phase) -> bool {
        self.phase.send_if_modified(|phase| {
            let forward = to.rank() > phase.rank();
            if forward {
                // Within the lock of the channel: nobody sees the phase and is still told that calls are served.
                self.refusing.store(to.rank() >= 3, Ordering::Relaxed);
                *phase = to;
            }
            forward
        })
    }
}

/// Watches the drain. Cheap to clone; each clone sees every phase from where its original stood.
#[derive(Clone, Debug)]
pub struct Drain {
    phase: watch::Receiver<Phase>,
    refusing: Arc<AtomicBool>,
}

impl Drain {
    /// How far the drain has gone.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Whether a new call is to be refused with DRAINING. No lock: this is asked on each call.
    pub fn is_refusing(&self) -> bool {
        self.refusing.load(Ordering::Relaxed)
    }

    /// Waits for a phase this handle has not seen yet, and returns it. Phases that follow each other quickly may be
    /// seen as one. Once no trigger is left there is nothing to wait for, and this waits forever.
    pub async fn changed(&mut self) -> Phase {
        match self.phase.changed().await {
            Ok(()) => *self.phase.borrow_and_update(),
            Err(_) => pending().await,
        }
    }

    /// Waits until calls in flight have a deadline, and returns it; `None` when it is over already.
    pub async fn draining(&mut self) -> Option<Instant> {
        match self.reached(2).await {
            Phase::Draining { deadline } => Some(deadline),
            _ => None,
        }
    }

    /// Waits until whatever is in flight has to end.
    pub async fn over(&mut self) {
        self.reached(3).await;
    }

    async fn reached(&mut self, rank: u8) -> Phase {
        let seen = self.phase.wait_for(|phase| phase.rank() >= rank).await.map(|phase| *phase);
        match seen {
            Ok(phase) => phase,
            Err(_) => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::runtime::Builder;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn a_drain_only_goes_forward() {
        let (trigger, drain) = drain();
        let first = Instant::now();
        assert_eq!(drain.phase(), Phase::Serving);
        assert!(trigger.announce());
        assert!(!trigger.announce());
        assert_eq!((drain.phase(), drain.is_refusing()), (Phase::Announced, false));
        assert!(trigger.begin(first));
        assert!(!trigger.begin(first + Duration::from_secs(60)));
        assert!(!trigger.announce());
        assert_eq!((drain.phase(), drain.is_refusing()), (Phase::Draining { deadline: first }, false));
        assert!(trigger.finish());
        assert!(!trigger.begin(first));
        assert_eq!((drain.phase(), drain.is_refusing()), (Phase::Over, true));
    }

    #[test]
    fn another_runtime_sees_each_phase() {
        let (trigger, mut drain) = drain();
        let deadline = Instant::now();
        let (saw, seen) = std::sync::mpsc::channel();
        let watcher = std::thread::spawn(move || {
            block_on(async {
                saw.send(drain.changed().await).unwrap();
                assert_eq!(drain.draining().await, Some(deadline));
                saw.send(drain.phase()).unwrap();
                drain.over().await;
                saw.send(drain.phase()).unwrap();
            });
        });
        trigger.announce();
        assert_eq!(seen.recv(), Ok(Phase::Announced));
        trigger.begin(deadline);
        assert_eq!(seen.recv(), Ok(Phase::Draining { deadline }));
        trigger.finish();
        assert_eq!(seen.recv(), Ok(Phase::Over));
        watcher.join().unwrap();
    }

    #[test]
    fn a_drain_that_is_over_has_no_deadline_left() {
        let (trigger, mut drain) = drain();
        trigger.finish();
        assert_eq!(block_on(drain.draining()), None);
        block_on(drain.over());
    }
}
