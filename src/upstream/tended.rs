//! One connection from the moment it is up to its end: drives it, notices when it falls silent, retires it when the
//! upstream's name has moved, and says how it ended.

use super::http2::{Connection, Driver};
use super::silence::{Patience, Watched, fell_silent};
use crate::telemetry::{Metrics, UpstreamEnd};
use std::cell::Cell;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::JoinError;

/// What a connection shares with the task that tends it.
pub(super) struct State {
    pub(super) http2: Rc<Connection>,
    /// Calls that have a slot.
    pub(super) active: Cell<usize>,
    /// A call has had one.
    pub(super) used: Cell<bool>,
    /// It has ended, or is to take no further call.
    pub(super) dead: Cell<bool>,
    /// Its PINGs are used up: should it freeze now, nobody would notice.
    pub(super) spent: Cell<bool>,
}

impl State {
    pub(super) fn new(http2: Rc<Connection>) -> Rc<State> {
        Rc::new(State { http2, active: Cell::new(0), used: Cell::new(false), dead: Cell::new(false), spent: Cell::new(false) })
    }
}

/// A connection to be tended. Holds no [`super::http2::Requests`]: a connection ends only when its last one is gone.
pub(super) struct Tended<Left> {
    pub(super) state: Rc<State>,
    pub(super) driver: Driver,
    /// For the log.
    pub(super) peer: Option<IpAddr>,
    /// Ready when the upstream's name has this connection's address no longer.
    pub(super) left: Left,
    pub(super) metrics: Arc<Metrics>,
    /// Told when the connection is to take no further call.
    pub(super) changed: Rc<Notify>,
}

impl<Left: Future<Output = ()>> Tended<Left> {
    /// Tends the connection to its end; in words, why it came.
    pub(super) async fn tend(self) -> String {
        let Tended { state, driver, peer, left, metrics, changed } = self;
        // A task of its own: what is watched here must not be polled with every frame.
        let mut driving = tokio::task::spawn_local(driver);
        let watched = Watched { http2: &state.http2, active: &state.active, spent: &state.spent, metrics: &metrics };
        let (mut silent, mut left) = (pin!(fell_silent(watched, Patience::UPSTREAM)), pin!(left));
        let mut retired = false;
        let (end, why) = loop {
            tokio::select! {
                ended = &mut driving => break how(ended, retired),
                () = &mut silent => {
                    let why = "it did not answer a PING while calls waited";
                    state.http2.end(why.into());
                    driving.abort();
                    break (UpstreamEnd::Silent, why.to_owned());
                }
                () = &mut left, if !retired => {
                    retired = true;
                    tracing::info!(?peer, "the upstream's name has this address no longer: no further calls on its connection");
                    state.dead.set(true);
                    changed.notify_waiters();
                }
            }
        };
        if !matches!(end, UpstreamEnd::Closed | UpstreamEnd::Retired) {
            tracing::info!(error = %why, "an upstream connection ended");
        }
        metrics.upstream_connections_ended.inc(end);
        state.dead.set(true);
        changed.notify_waiters();
        why
    }
}

fn how(ended: Result<Result<(), Rc<str>>, JoinError>, retired: bool) -> (UpstreamEnd, String) {
    match ended {
        Ok(Ok(())) if retired => (UpstreamEnd::Retired, "its address is no longer the upstream's".to_owned()),
        Ok(Ok(())) => (UpstreamEnd::Closed, "closed".to_owned()),
        Ok(Err(why)) => (UpstreamEnd::Failed, why.to_string()),
        // A panic, which the process counts.
        Err(error) => (UpstreamEnd::Failed, error.to_string()),
    }
}
