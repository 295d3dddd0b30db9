//! The connections of one worker to the upstream: opened when first needed, shared by its calls, more of them when the
//! upstream limits streams, replaced when they die. One attempt at a time, however many calls wait for it.

use super::connect::{Connected, Connector, Unreachable};
use crate::http2::TapState;
use bytes::Bytes;
use h2::client::SendRequest;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// More connections than this are not opened for the sake of an upstream's stream limit; calls then wait for a slot.
const MOST_CONNECTIONS: usize = 8;

/// For this long after a failed attempt calls are refused without another: an upstream that is down is not hammered, and
/// one that is back is found well within a second.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// How an attempt under way ended, once it has.
type Attempt = watch::Receiver<Option<Result<(), Unreachable>>>;

/// One worker's connections.
pub struct Pool {
    connector: Connector,
    live: RefCell<Vec<Rc<Live>>>,
    attempt: RefCell<Option<Attempt>>,
    last_failure: RefCell<Option<(Instant, Unreachable)>>,
}

/// One connection that is up.
pub(super) struct Live {
    sender: SendRequest<Bytes>,
    tap: Rc<TapState>,
    active: Cell<usize>,
    /// Set by the task that drives the connection, which must not hold this: h2 ends a connection only when its last
    /// `SendRequest` is gone.
    dead: Rc<Cell<bool>>,
}

/// A place on a connection for one call; given back when dropped.
pub(super) struct Slot(Rc<Live>);

impl Slot {
    fn on(connection: &Rc<Live>) -> Slot {
        connection.active.set(connection.active.get() + 1);
        Slot(connection.clone())
    }

    pub(super) fn sender(&self) -> SendRequest<Bytes> {
        self.0.sender.clone()
    }

    /// Whether this stream's headers or trailers were too large for h2 to hand over whole.
    pub(super) fn oversized(&self, stream: u32) -> bool {
        self.0.tap.take_oversized(stream)
    }

    /// No further call is to use this connection.
    pub(super) fn condemn(&self) {
        self.0.dead.set(true);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
    }
}

impl Pool {
    /// An empty pool; nothing is opened before the first call.
    pub fn new(connector: Connector) -> Rc<Pool> {
        Rc::new(Pool { connector, live: RefCell::default(), attempt: RefCell::default(), last_failure: RefCell::default() })
    }

    /// A place for one call, on a connection that is up. Waits for a connection being made; never for a stream slot, which
    /// h2 queues for.
    pub(super) async fn slot(self: &Rc<Pool>) -> Result<Slot, Unreachable> {
        if let Some(slot) = self.free() {
            return Ok(slot);
        }
        if self.live.borrow().len() < MOST_CONNECTIONS {
            let attempted = self.attempt().await;
            if let Some(slot) = self.free() {
                return Ok(slot);
            }
            if self.live.borrow().is_empty() {
                attempted?;
            }
        }
        self.least_used().ok_or_else(|| Unreachable("it ended each connection as soon as it was up".into()))
    }

    /// The first connection with a free stream.
    fn free(&self) -> Option<Slot> {
        let mut live = self.live.borrow_mut();
        live.retain(|connection| !connection.dead.get() && !connection.tap.going_away());
        live.iter().find(|connection| connection.active.get() < connection.sender.current_max_send_streams()).map(Slot::on)
    }

    /// The connection on which a call waits least for a stream.
    fn least_used(&self) -> Option<Slot> {
        self.live.borrow().iter().min_by_key(|connection| connection.active.get()).map(Slot::on)
    }

    /// Waits for the attempt under way, or for a new one.
    async fn attempt(self: &Rc<Pool>) -> Result<(), Unreachable> {
        let mut attempt = self.join_attempt()?;
        let ended = attempt.wait_for(Option::is_some).await;
        // A closed channel: the attempt's task ended without a word, so it panicked.
        let ended = ended.map_err(|_| Unreachable("the connection attempt was abandoned".into()))?;
        ended.clone().unwrap_or(Ok(()))
    }

    /// Joins the attempt under way, or begins one.
    fn join_attempt(self: &Rc<Pool>) -> Result<Attempt, Unreachable> {
        if let Some(attempt) = self.attempt.borrow().as_ref() {
            return Ok(attempt.clone());
        }
        if let Some((when, why)) = self.last_failure.borrow().as_ref()
            && when.elapsed() < AFTER_FAILURE
        {
            return Err(why.clone());
        }
        let (ended, attempt) = watch::channel(None);
        *self.attempt.borrow_mut() = Some(attempt.clone());
        let pool = self.clone();
        tokio::task::spawn_local(async move {
            let result = pool.connector.connect().await;
            *pool.attempt.borrow_mut() = None;
            let outcome = result.map(|connected| pool.add(connected));
            *pool.last_failure.borrow_mut() = outcome.as_ref().err().map(|why| (Instant::now(), why.clone()));
            ended.send_replace(Some(outcome));
        });
        Ok(attempt)
    }

    fn add(&self, connected: Connected) {
        let Connected { sender, driver, tap } = connected;
        let dead = Rc::new(Cell::new(false));
        self.live.borrow_mut().push(Rc::new(Live { sender, tap, active: Cell::new(0), dead: dead.clone() }));
        tokio::task::spawn_local(async move {
            if let Err(error) = driver.await {
                tracing::info!(%error, "an upstream connection ended");
            }
            dead.set(true);
        });
    }
}
