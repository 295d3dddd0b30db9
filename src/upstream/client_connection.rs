//! What the calls of one client connection have in common on their way to the upstream: how many of them go on connections
//! that all clients share, and the connections they have to themselves once they are many.
//!
//! A shared connection's window bounds nothing, lest one client use it up for all; so what one client's unread answers can
//! hold is bounded by its share of calls times the window of each. All further calls go where a window bounds them together.

use super::connect::Unreachable;
use super::pool::Pool;
use crate::http2::Outlet;
use http::{HeaderMap, Request};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Calls of one client connection that go on shared connections at a time.
const SHARE: u32 = 32;

/// What the heads of calls that wait for a slot may hold, in bytes, by a rough count.
const MOST_WAITING: usize = 3 * 1024 * 1024;

/// What a header field costs beyond its bytes.
const FIELD: usize = 128;

/// What the heads that are kept to make calls again may hold, in bytes.
const MOST_KEPT: usize = 1024 * 1024;

/// A copy of a head shares the buffer that the head came in, and keeps it.
const BUFFER: usize = 8 * 1024;

/// One client connection, as its calls see it.
pub struct ClientConnection {
    /// Towards the client.
    pub(super) outlet: Rc<Outlet>,
    /// Calls that are on shared connections.
    shared: Cell<u32>,
    /// Made when first needed, and anew when a reload has changed how the upstream is reached.
    own: RefCell<Option<Rc<Pool>>>,
    /// By the heads of its calls that wait for a slot.
    waiting: Cell<usize>,
    /// By the heads that are kept.
    kept: Cell<usize>,
}

impl ClientConnection {
    /// A connection without calls that writes to `outlet`.
    pub fn new(outlet: Rc<Outlet>) -> Rc<ClientConnection> {
        Rc::new(ClientConnection { outlet, shared: Cell::new(0), own: RefCell::default(), waiting: Cell::new(0), kept: Cell::new(0) })
    }

    /// Where its next call may go: on one of everybody's connections with a share of them, or on its own.
    pub(super) fn place(self: &Rc<ClientConnection>, shared: &Rc<Pool>) -> (Option<Rc<Pool>>, Option<Share>) {
        if self.shared.get() < SHARE {
            return (None, Some(Share::of(self)));
        }
        let mut own = self.own.borrow_mut();
        let own = match &mut *own {
            Some(own) if own.is_like(shared) => own,
            own => own.insert(shared.for_one_client()),
        };
        (Some(own.clone()), None)
    }
}

/// A call whose head waits for a slot.
pub(super) struct Waiting<'a> {
    client: &'a ClientConnection,
    bytes: usize,
}

impl Waiting<'_> {
    /// A bounded queue: what it has no room for is as little served as with no upstream at all.
    pub(super) fn of<'a>(client: &'a ClientConnection, head: &HeaderMap) -> Result<Waiting<'a>, Unreachable> {
        if client.waiting.get() + weight(head) > MOST_WAITING {
            return Err(Unreachable("too many calls of one client connection wait for it already".into()));
        }
        Ok(Waiting::for_its_turn(client, head))
    }

    /// For what waits no longer than others are written; it counts against those that wait longer.
    pub(super) fn for_its_turn<'a>(client: &'a ClientConnection, head: &HeaderMap) -> Waiting<'a> {
        let bytes = weight(head);
        client.waiting.set(client.waiting.get() + bytes);
        Waiting { client, bytes }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.client.waiting.set(self.client.waiting.get() - self.bytes);
    }
}

/// A copy of a call's head, should the call have to be made again.
pub(super) struct KeptHead {
    client: Rc<ClientConnection>,
    head: Box<Request<()>>,
    bytes: usize,
}

impl KeptHead {
    /// `None` when too many are kept.
    pub(super) fn of(client: &Rc<ClientConnection>, head: &Request<()>) -> Option<KeptHead> {
        let bytes = BUFFER + weight(head.headers());
        if client.kept.get() + bytes > MOST_KEPT {
            return None;
        }
        client.kept.set(client.kept.get() + bytes);
        Some(KeptHead { client: client.clone(), head: Box::new(head.clone()), bytes })
    }

    pub(super) fn head(&self) -> Box<Request<()>> {
        self.head.clone()
    }
}

impl Drop for KeptHead {
    fn drop(&mut self) {
        self.client.kept.set(self.client.kept.get() - self.bytes);
    }
}

/// About what a head holds beside the buffer it came in, in bytes.
pub(super) fn weight(head: &HeaderMap) -> usize {
    head.iter().map(|(name, value)| FIELD + name.as_str().len() + value.len()).sum()
}

/// One call's part in the share of its client connection; given back when dropped.
pub(super) struct Share(Rc<ClientConnection>);

impl Share {
    fn of(client: &Rc<ClientConnection>) -> Share {
        client.shared.set(client.shared.get() + 1);
        Share(client.clone())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.shared.set(self.0.shared.get() - 1);
        // A call that waits for one of its own connections may go on a shared one now.
        if let Some(own) = &*self.0.own.borrow() {
            own.look_again();
        }
    }
}
