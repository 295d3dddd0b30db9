//! The connections of one worker to the upstream: opened when first needed, shared by its calls, more of them when the
//! upstream limits streams, replaced when they die. One attempt at a time, however many calls wait for it.

use super::connect::{Connected, Connector, Unreachable};
use crate::http2::{CONNECTION_WINDOW, TapState};
use bytes::Bytes;
use h2::client::SendRequest;
use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// More connections than this are not opened for the sake of an upstream's stream limit; calls then wait for a slot.
const MOST_CONNECTIONS: usize = 8;

/// For this long after a failed attempt calls are refused without another: an upstream that is down is not hammered, and
/// one that is back is found well within a second.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// How often a call that waits looks for a connection whose clients have read on.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A connection that holds this much for clients that do not read takes no further calls of clients that do: what is left
/// of its window is for the calls it has. In bytes.
const MOST_HELD: usize = CONNECTION_WINDOW as usize / 2;

/// A client connection that leaves this much unread stays where it is: it is not given one connection after the other to
/// fill. In bytes.
const MOST_UNREAD: usize = CONNECTION_WINDOW as usize / 2;

/// One worker's connections.
pub struct Pool {
    connector: Arc<Connector>,
    live: RefCell<Vec<Rc<Live>>>,
    attempting: Cell<bool>,
    last_failure: RefCell<Option<(Instant, Unreachable)>>,
    /// A slot was given back, an attempt or a connection has ended: who waits looks again.
    changed: Rc<Notify>,
}

/// One connection that is up.
pub(super) struct Live {
    sender: SendRequest<Bytes>,
    tap: Rc<TapState>,
    active: Cell<usize>,
    /// Bytes received on it that clients have not taken.
    held: Rc<Cell<usize>>,
    /// Set by the task that drives the connection, which must not hold this: h2 ends a connection only when its last
    /// `SendRequest` is gone.
    dead: Rc<Cell<bool>>,
    changed: Rc<Notify>,
}

impl Live {
    fn is_usable(&self) -> bool {
        !self.dead.get() && !self.tap.going_away()
    }

    fn has_room(&self, unread: usize) -> bool {
        let streams = self.active.get() < self.sender.current_max_send_streams();
        streams && (self.held.get() < MOST_HELD || unread >= MOST_UNREAD)
    }
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

    /// Where the relay of this call's answer counts what its client has not taken.
    pub(super) fn held(&self) -> Rc<Cell<usize>> {
        self.0.held.clone()
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
        self.0.changed.notify_one();
    }
}

impl Pool {
    /// An empty pool; nothing is opened before the first call.
    pub fn new(connector: Arc<Connector>) -> Rc<Pool> {
        Rc::new(Pool {
            connector,
            live: RefCell::default(),
            attempting: Cell::new(false),
            last_failure: RefCell::default(),
            changed: Rc::default(),
        })
    }

    /// Whether this is how its connections are made.
    pub fn reaches_by(&self, connector: &Arc<Connector>) -> bool {
        Arc::ptr_eq(&self.connector, connector)
    }

    /// A place for one call on a connection that is up and has room. Calls wait here and not within h2, which ties a call to
    /// its connection and still sends one that ended while it waited.
    ///
    /// `unread` is what the client's connection has not taken.
    pub(super) async fn slot(self: &Rc<Pool>, unread: &Cell<usize>) -> Result<Slot, Unreachable> {
        loop {
            if let Some(slot) = self.free(unread.get()) {
                return Ok(slot);
            }
            let mut changed = pin!(self.changed.notified());
            // Counts from here: nothing that happens before the wait is missed.
            changed.as_mut().enable();
            let connections = self.live.borrow().len();
            if connections < MOST_CONNECTIONS
                && let Err(why) = self.attempt()
                && connections == 0
            {
                return Err(why);
            }
            // A timeout is no error: what clients hold shrinks without a word.
            let _ = tokio::time::timeout(LOOK_AGAIN, changed).await;
        }
    }

    /// The first connection with room.
    fn free(&self, unread: usize) -> Option<Slot> {
        let mut live = self.live.borrow_mut();
        live.retain(|connection| connection.is_usable());
        live.iter().find(|connection| connection.has_room(unread)).map(Slot::on)
    }

    /// Sees to it that an attempt is under way; the error is that of one which has just failed.
    fn attempt(self: &Rc<Pool>) -> Result<(), Unreachable> {
        if self.attempting.get() {
            return Ok(());
        }
        if let Some((when, why)) = self.last_failure.borrow().as_ref()
            && when.elapsed() < AFTER_FAILURE
        {
            return Err(why.clone());
        }
        let attempt = Attempt::begin(self);
        tokio::task::spawn_local(async move {
            let pool = &attempt.0;
            let outcome = pool.connector.connect().await.map(|connected| pool.add(connected));
            *pool.last_failure.borrow_mut() = outcome.err().map(|why| (Instant::now(), why));
        });
        Ok(())
    }

    fn add(&self, connected: Connected) {
        let Connected { sender, driver, tap } = connected;
        let (dead, changed) = (Rc::new(Cell::new(false)), self.changed.clone());
        let live = Live { sender, tap, active: Cell::new(0), held: Rc::default(), dead: dead.clone(), changed: changed.clone() };
        self.live.borrow_mut().push(Rc::new(live));
        tokio::task::spawn_local(async move {
            if let Err(error) = driver.await {
                tracing::info!(%error, "an upstream connection ended");
            }
            dead.set(true);
            changed.notify_waiters();
        });
    }
}

/// An attempt under way. However it ends, by a panic too, everyone who waits learns of it.
struct Attempt(Rc<Pool>);

impl Attempt {
    fn begin(pool: &Rc<Pool>) -> Attempt {
        pool.attempting.set(true);
        Attempt(pool.clone())
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.attempting.set(false);
        self.0.changed.notify_waiters();
    }
}
