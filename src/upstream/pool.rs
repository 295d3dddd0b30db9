//! The connections of one worker to the upstream: opened when first needed, shared by its calls, more of them when the
//! upstream limits streams, replaced when they die. One attempt at a time, however many calls wait for it.

use super::client_connection::{HeldHead, Share};
use super::connect::{Connected, Connector, Unreachable};
use super::http2::{Connection, Requests, Stream};
use super::tended::{State, Tended};
use crate::http2::{OWN_CONNECTION_WINDOW, SHARED_CONNECTION_WINDOW};
use crate::telemetry::Metrics;
use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
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
    connector: Arc<Connector>,
    most: usize,
    /// What each may have in flight towards us, in bytes.
    window: u32,
    live: RefCell<Vec<Rc<Live>>>,
    attempting: Cell<bool>,
    last_failure: RefCell<Option<(Instant, Unreachable)>>,
    /// A slot was given back, an attempt or a connection has ended: who waits looks again.
    changed: Rc<Notify>,
    /// Bytes of requests that calls keep, should they have to be made again.
    pub(super) kept: Rc<Cell<usize>>,
    metrics: Arc<Metrics>,
}

/// One connection that is up.
pub(super) struct Live {
    requests: Requests,
    state: Rc<State>,
    changed: Rc<Notify>,
}

impl Live {
    fn is_usable(&self) -> bool {
        !self.state.dead.get() && !self.requests.connection().going_away()
    }

    fn has_room(&self) -> bool {
        self.state.active.get() < self.requests.most_streams()
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
        connection.state.active.set(connection.state.active.get() + 1);
        connection.state.used.set(true);
        Slot { connection, _share: share }
    }

    fn http2(&self) -> &Connection {
        self.connection.requests.connection()
    }

    /// Opens a stream for a call that is no more than its head when it is `last`. `None`: there will be none on this connection.
    ///
    /// Waits until the upstream takes what is written to it: nothing else bounds the heads that wait to be written.
    pub(super) async fn open(&self, head: &HeldHead, last: bool) -> Result<Option<Stream>, Unreachable> {
        while !self.http2().takes_heads() {
            // A crowd is no reason to refuse: what it waits for is that the connection is driven.
            let in_a_crowd = !self.http2().is_blocked();
            if !in_a_crowd {
                head.wait()?;
            }
            let _in_a_crowd = in_a_crowd.then(|| head.in_a_crowd());
            self.http2().until_driven().await;
        }
        Ok(self.connection.requests.open(head.block(), last))
    }

    /// Whether the connection ended because the upstream took nothing on it.
    pub(super) fn stalled(&self) -> bool {
        self.http2().stalled()
    }

    /// No further call is to use this connection.
    pub(super) fn condemn(&self) {
        self.connection.state.dead.set(true);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connection.state.active.set(self.connection.state.active.get() - 1);
        self.connection.changed.notify_one();
    }
}

impl Pool {
    /// An empty pool; nothing is opened before the first call.
    pub fn new(connector: Arc<Connector>, metrics: Arc<Metrics>) -> Rc<Pool> {
        Pool::of(connector, metrics, MOST_CONNECTIONS, SHARED_CONNECTION_WINDOW)
    }

    /// Connections to the same upstream for one client: what it does not read is bounded by their windows.
    pub(super) fn for_one_client(&self) -> Rc<Pool> {
        Pool::of(self.connector.clone(), self.metrics.clone(), MOST_CONNECTIONS_OF_ONE_CLIENT, OWN_CONNECTION_WINDOW)
    }

    fn of(connector: Arc<Connector>, metrics: Arc<Metrics>, most: usize, window: u32) -> Rc<Pool> {
        Rc::new(Pool {
            connector,
            most,
            window,
            live: RefCell::default(),
            attempting: Cell::new(false),
            last_failure: RefCell::default(),
            changed: Rc::default(),
            kept: Rc::default(),
            metrics,
        })
    }

    /// Whether this is how its connections are made.
    pub fn reaches_by(&self, connector: &Arc<Connector>) -> bool {
        Arc::ptr_eq(&self.connector, connector)
    }

    /// Whether both reach the upstream in the same way.
    pub(super) fn is_like(&self, other: &Pool) -> bool {
        self.reaches_by(&other.connector)
    }

    /// A place for one call on a connection that is up and has room: one of these, or of the client's own. Calls
    /// wait here and not within h2, which ties a call to its connection and still sends one that ended while it waited.
    pub(super) async fn slot(self: &Rc<Pool>, head: &HeldHead) -> Result<Slot, Unreachable> {
        loop {
            let (own, share) = head.client().place(self);
            let pool = own.as_ref().unwrap_or(self);
            if let Some(connection) = pool.free() {
                return Ok(Slot::on(connection, share));
            }
            drop(share);
            head.wait()?;
            let mut changed = pin!(pool.changed.notified());
            // Counts from here: nothing that happens before the wait is missed.
            changed.as_mut().enable();
            if pool.live.borrow().len() < pool.most
                && let Err(why) = pool.attempt()
                && pool.live.borrow().iter().all(|connection| connection.state.spent.get())
            {
                return Err(why);
            }
            // A timeout is no error.
            let _ = tokio::time::timeout(LOOK_AGAIN, changed).await;
        }
    }

    /// The first connection with room. One whose PINGs are used up is taken only when there may be no other.
    fn free(&self) -> Option<Rc<Live>> {
        let mut live = self.live.borrow_mut();
        live.retain(|connection| connection.is_usable());
        let last_resort = live.len() >= self.most;
        let with_room = |spent| live.iter().find(|connection| connection.has_room() && connection.state.spent.get() == spent);
        with_room(false).or_else(|| last_resort.then(|| with_room(true)).flatten()).cloned()
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
            let outcome = pool.connector.connect(pool.window).await.map(|connected| pool.add(connected));
            *pool.last_failure.borrow_mut() = outcome.err().map(|why| (Instant::now(), why));
        });
        Ok(())
    }

    fn add(self: &Rc<Pool>, connected: Connected) {
        let Connected { requests, driver, peer } = connected;
        let state = State::new(requests.connection().clone());
        let live = Live { requests, state: state.clone(), changed: self.changed.clone() };
        self.live.borrow_mut().push(Rc::new(live));
        let (metrics, changed) = (self.metrics.clone(), self.changed.clone());
        let tended = Tended { state, driver, peer, left: self.connector.left_by(peer), metrics, changed };
        let (pool, begun) = (Rc::downgrade(self), Instant::now());
        tokio::task::spawn_local(async move {
            let (state, why) = (tended.state.clone(), tended.tend().await);
            // One that ends before a call could use it is no better than none: without this, calls would wait for one after the
            // other, as fast as they come.
            let pool = Weak::upgrade(&pool).filter(|_| !state.used.get() && begun.elapsed() < AFTER_FAILURE);
            if let Some(pool) = pool {
                let why = Unreachable(format!("it ended the connection at once: {why}").into());
                *pool.last_failure.borrow_mut() = Some((Instant::now(), why));
            }
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

#[cfg(test)]
mod tests {
    use super::super::client_connection::ClientConnection;
    use super::super::request_head::RequestHead;
    use super::*;
    use crate::config::{Limits, Position, Upstream, UpstreamAddress, UpstreamHealth};
    use http::uri::{Authority, PathAndQuery, Scheme};
    use http::{HeaderMap, Response};
    use std::future::poll_fn;
    use std::net::{IpAddr, Ipv4Addr};
    use tokio::net::TcpListener;
    use tokio::sync::watch;
    use tokio::task::LocalSet;

    /// A service whose answers wait for `answer`; counts the connections it has.
    struct Service {
        connections: Rc<Cell<usize>>,
        answer: watch::Sender<bool>,
    }

    /// Runs `test` with a pool of connections to such a service.
    fn with_pool(test: impl AsyncFnOnce(Rc<Pool>, Service)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = UpstreamAddress::Tcp { host: "localhost".to_owned(), port: listener.local_addr().unwrap().port() };
            let service = Service { connections: Rc::default(), answer: watch::Sender::new(false) };
            let (connections, answer) = (service.connections.clone(), service.answer.subscribe());
            tokio::task::spawn_local(async move {
                while let Ok((io, _)) = listener.accept().await {
                    connections.set(connections.get() + 1);
                    let (connections, answer) = (connections.clone(), answer.clone());
                    tokio::task::spawn_local(async move {
                        let mut connection = h2::server::handshake(io).await.unwrap();
                        while let Some(Ok((_, mut respond))) = connection.accept().await {
                            let mut answer = answer.clone();
                            tokio::task::spawn_local(async move {
                                answer.wait_for(|answer| *answer).await.unwrap();
                                respond.send_response(Response::new(()), true).unwrap();
                            });
                        }
                        connections.set(connections.get() - 1);
                    });
                }
            });
            let (connect_timeout, health, at) = (Duration::from_secs(10), UpstreamHealth::Connection, Position::default());
            let upstream = Upstream { address, tls: None, connect_timeout, health, insecure_exposed: false, at };
            test(Pool::new(Arc::new(Connector::new(&upstream, None, &Limits::default())), Arc::new(Metrics::new())), service).await;
        });
    }

    async fn slot(pool: &Rc<Pool>) -> Slot {
        pool.slot(&call()).await.unwrap()
    }

    fn call() -> Rc<HeldHead> {
        let (authority, path) = (&Authority::from_static("a"), &PathAndQuery::from_static("/b/c"));
        let head = RequestHead { scheme: &Scheme::HTTP, authority, path, fields: &HeaderMap::new(), identity: &[] };
        HeldHead::new(&ClientConnection::new(Rc::default()), head.encode())
    }

    async fn until(condition: impl Fn() -> bool) {
        let patience = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), patience).await.unwrap();
    }

    #[test]
    fn a_connection_to_an_address_that_the_name_has_lost_finishes_its_calls_and_takes_no_more() {
        with_pool(async |pool, service| {
            let old = slot(&pool).await;
            let mut stream = old.open(&call(), true).await.unwrap().unwrap();
            let now = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
            pool.connector.addresses.publish(vec![IpAddr::V4(Ipv4Addr::LOCALHOST), now]);
            tokio::task::yield_now().await;
            assert!(Rc::ptr_eq(&old.connection, &slot(&pool).await.connection), "it is among them");
            pool.connector.addresses.publish(vec![now]);
            until(|| !old.connection.is_usable()).await;
            let new = slot(&pool).await;
            assert!(!Rc::ptr_eq(&old.connection, &new.connection) && service.connections.get() == 2);
            service.answer.send(true).unwrap();
            assert!(poll_fn(|cx| stream.poll_head(cx)).await.is_ok());
            drop((stream, old));
            until(|| service.connections.get() == 1).await;
            until(|| pool.metrics.render().contains("doorward_upstream_connections_ended_total{why=\"retired\"} 1")).await;
        });
    }

    #[test]
    fn a_connection_that_cannot_be_asked_whether_it_is_there_is_used_only_when_there_may_be_no_other() {
        with_pool(async |pool, service| {
            let first = slot(&pool).await;
            first.connection.state.spent.set(true);
            let mut all = Vec::new();
            for number in 2..=MOST_CONNECTIONS {
                all.push(slot(&pool).await);
                assert_eq!(service.connections.get(), number);
                all.iter().for_each(|slot| slot.connection.state.spent.set(true));
            }
            assert!(Rc::ptr_eq(&first.connection, &slot(&pool).await.connection), "there may be no more");
            all[0].connection.state.spent.set(false);
            assert!(Rc::ptr_eq(&all[0].connection, &slot(&pool).await.connection), "it has been heard again");
        });
    }

    #[test]
    fn when_no_other_can_be_had_the_call_is_told() {
        with_pool(async |pool, _| {
            let first = slot(&pool).await;
            first.connection.state.spent.set(true);
            *pool.last_failure.borrow_mut() = Some((Instant::now() + Duration::from_secs(60), Unreachable("down".into())));
            assert!(pool.slot(&call()).await.is_err());
        });
    }
}
