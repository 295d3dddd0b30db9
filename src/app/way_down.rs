//! The way down: signals, the delay in which everything is still served, the closed port, the drain.

use crate::bell::Bell;
use crate::drain::{Drain, DrainTrigger};
use crate::listener::Workers;
use std::io;
use std::pin::pin;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Ends when the port is to be closed. Until then every call is served, after the drain has begun too: load balancers have
/// yet to notice. `delay` is asked when the drain begins.
pub(super) async fn told_to_close(mut drain: Drain, delay: impl Fn() -> Duration, interrupted: &Notify) {
    drain.changed().await;
    tokio::select! {
        () = tokio::time::sleep(delay()) => {}
        () = interrupted.notified() => {}
    }
}

/// From a port that is closed, so that nobody who is sent away comes back to it, to the end of the last connection, or as
/// far as `limit` allows.
pub(super) async fn empty(workers: Workers, trigger: &DrainTrigger, bell: &Bell, limit: Duration) {
    trigger.begin(Instant::now() + limit);
    let mut ended = pin!(workers.ended());
    tokio::select! {
        () = &mut ended => return tracing::info!("drained: every connection has ended"),
        () = tokio::time::sleep(limit) => {}
    }
    trigger.finish();
    bell.ring();
    tracing::warn!("the drain's time is up: what was left was answered with DRAINING");
    // For those answers to be written, and no longer.
    const LAST_WORDS: Duration = Duration::from_secs(1);
    let _ = tokio::time::timeout(LAST_WORDS, ended).await;
}

/// Ends when a second signal says that everything is to end at once. The first begins the drain; one that `POST /drain` has
/// begun it leaves alone, as a preStop hook asks for that and SIGTERM follows. SIGINT skips what is left of the delay.
pub(super) async fn signalled(mut signals: Signals, trigger: &DrainTrigger, interrupted: &Notify) {
    let signal = signals.next().await;
    // Before the log line: what stands in one is not even evaluated at a level that is off.
    let first = trigger.announce();
    tracing::info!(signal = signal.name(), "{}", if first { "draining" } else { "draining already" });
    if signal == Ended::Interrupt {
        interrupted.notify_one();
    }
    let signal = signals.next().await;
    tracing::warn!(signal = signal.name(), "ending at once");
}

/// Which signal came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Terminate,
    Interrupt,
}

impl Ended {
    fn name(self) -> &'static str {
        match self {
            Ended::Terminate => "SIGTERM",
            Ended::Interrupt => "SIGINT",
        }
    }
}

/// SIGTERM and SIGINT, caught from its making on.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Signals> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> Ended {
        tokio::select! {
            _ = self.terminate.recv() => Ended::Terminate,
            _ = self.interrupt.recv() => Ended::Interrupt,
        }
    }
}
