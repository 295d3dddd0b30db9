//! The connections of one worker to the upstream: opened when first needed, shared by its calls, more of them when the
//! upstream limits streams, replaced when they die. One attempt at a time, however many calls wait for it.

use super::client_connection::{ClientConnection, Share, Waiting};
use super::connect::{Connected, Connector, Unreachable};
use crate::http2::{OWN_CONNECTION_WINDOW, Outlet, TapState};
use bytes::Bytes;
use h2::client::SendRequest;
use http::HeaderMap;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// More shared connections than this are not opened for the sake of an upstream's stream limit; calls then wait for a slot.
const MOST_CONNECTIONS: usize = 8;

/// The same for the connections that one client has to itself: each holds a window's worth.
const MOST_CONNECTIONS_OF_ONE_CLIENT: usize = 2;

/// For this long after a failed attempt calls are refused without another: an upstream that is down is not hammered, and
/// one that is back is found well within a second.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// How often a call that waits looks again by itself: an upstream may allow more streams, or say GOAWAY, without a word.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One worker's connections; those all its clients share, or those of one client.
pub struct Pool {
    connector: Connector,
    most: usize,
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
    /// Set by the task that drives the connection, which must not hold this: h2 ends a connection only when its last
    /// `SendRequest` is gone.
    dead: Rc<Cell<bool>>,
    changed: Rc<Notify>,
}

impl Live {
    fn is_usable(&self) -> bool {
        !self.dead.get() && !self.tap.going_away()
    }

    fn has_room(&self) -> bool {
        self.active.get() < self.sender.current_max_send_streams()
    }
}

/// A place on a connection for one call; given back when dropped.
pub(super) struct Slot {
    connection: Rc<Live>,
    /// On a shared connection.
    _share: Option<Share>,
}

impl Slot {
    fn on(connection: Rc<Live>, share: Option<Share>) -> Slot {
        connection.active.set(connection.active.get() + 1);
        Slot { connection, _share: share }
    }

    pub(super) fn sender(&self) -> SendRequest<Bytes> {
        self.connection.sender.clone()
    }

    /// Towards the upstream.
    pub(super) fn outlet(&self) -> &Outlet {
        self.connection.tap.outlet()
    }

    /// Waits until the upstream takes what is written to it: a head that h2 queues is bounded by nothing.
    pub(super) async fn open(&self, client: &ClientConnection, head: &HeaderMap) -> Result<(), Unreachable> {
        if self.outlet().is_blocked() {
            let _waiting = Waiting::of(client, head)?;
            let mut turn = None;
            poll_fn(|cx| self.outlet().poll_open(cx, &mut turn)).await;
        }
        Ok(())
    }

    /// Whether this stream's headers or trailers were too large for h2 to hand over whole.
    pub(super) fn oversized(&self, stream: u32) -> bool {
        self.connection.tap.take_oversized(stream)
    }

    /// No further call is to use this connection.
    pub(super) fn condemn(&self) {
        self.connection.dead.set(true);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connection.active.set(self.connection.active.get() - 1);
        self.connection.changed.notify_one();
    }
}

impl Pool {
    /// An empty pool; nothing is opened before the first call.
    pub fn new(connector: Connector) -> Rc<Pool> {
        Pool::of(connector, MOST_CONNECTIONS)
    }

    /// Connections to the same upstream for one client: what it does not read is bounded by their windows.
    pub(super) fn for_one_client(&self) -> Rc<Pool> {
        Pool::of(self.connector.with_window(OWN_CONNECTION_WINDOW), MOST_CONNECTIONS_OF_ONE_CLIENT)
    }

    fn of(connector: Connector, most: usize) -> Rc<Pool> {
        Rc::new(Pool {
            connector,
            most,
            live: RefCell::default(),
            attempting: Cell::new(false),
            last_failure: RefCell::default(),
            changed: Rc::default(),
        })
    }

    /// A place for one call of `client` on a connection that is up and has room: one of these, or of the client's own. Calls
    /// wait here and not within h2, which ties a call to its connection and still sends one that ended while it waited.
    pub(super) async fn slot(self: &Rc<Pool>, client: &Rc<ClientConnection>, head: &HeaderMap) -> Result<Slot, Unreachable> {
        let mut waiting = None;
        loop {
            let pool = client.pool(self);
            if let Some(connection) = pool.free() {
                return Ok(Slot::on(connection, Rc::ptr_eq(pool, self).then(|| Share::of(client))));
            }
            if waiting.is_none() {
                waiting = Some(Waiting::of(client, head)?);
            }
            let mut changed = pin!(pool.changed.notified());
            // Counts from here: nothing that happens before the wait is missed.
            changed.as_mut().enable();
            let connections = pool.live.borrow().len();
            if connections < pool.most
                && let Err(why) = pool.attempt()
                && connections == 0
            {
                return Err(why);
            }
            // A timeout is no error.
            let _ = tokio::time::timeout(LOOK_AGAIN, changed).await;
        }
    }

    /// The first connection with room.
    fn free(&self) -> Option<Rc<Live>> {
        let mut live = self.live.borrow_mut();
        live.retain(|connection| connection.is_usable());
        live.iter().find(|connection| connection.has_room()).cloned()
    }

    /// Wakes a call that waits here.
    pub(super) fn look_again(&self) {
        self.changed.notify_one();
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
        let Connected { sender, mut driver, tap } = connected;
        let outlet = tap.outlet().clone();
        let (dead, changed) = (Rc::new(Cell::new(false)), self.changed.clone());
        let live = Live { sender, tap, active: Cell::new(0), dead: dead.clone(), changed: changed.clone() };
        self.live.borrow_mut().push(Rc::new(live));
        tokio::task::spawn_local(async move {
            let ended = poll_fn(|cx| {
                let ended = Pin::new(&mut driver).poll(cx);
                outlet.settle();
                ended
            });
            if let Err(error) = ended.await {
                tracing::info!(%error, "an upstream connection ended");
            }
            outlet.end();
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
