//! What the calls of one client connection have in common on their way to the upstream: how many of them go on connections
//! that all clients share, and the connections they have to themselves once they are many.
//!
//! A shared connection's window bounds nothing, lest one client use it up for all; so what one client's unread answers can
//! hold is bounded by its share of calls times the window of each. All further calls go where a window bounds them together.

use super::pool::Pool;
use crate::http2::Outlet;
use std::cell::{Cell, OnceCell};
use std::rc::Rc;

/// Calls of one client connection that go on shared connections at a time.
const SHARE: u32 = 64;

/// One client connection, as its calls see it.
pub struct ClientConnection {
    /// Towards the client.
    pub(super) outlet: Rc<Outlet>,
    /// Calls that are on shared connections.
    shared: Cell<u32>,
    own: OnceCell<Rc<Pool>>,
}

impl ClientConnection {
    /// A connection without calls that writes to `outlet`.
    pub fn new(outlet: Rc<Outlet>) -> Rc<ClientConnection> {
        Rc::new(ClientConnection { outlet, shared: Cell::new(0), own: OnceCell::new() })
    }

    /// Where its next call may go; `shared` is everybody's.
    pub(super) fn pool<'a>(&'a self, shared: &'a Rc<Pool>) -> &'a Rc<Pool> {
        if self.shared.get() < SHARE { shared } else { self.own.get_or_init(|| shared.for_one_client()) }
    }
}

/// One call's part in the share of its client connection; given back when dropped.
pub(super) struct Share(Rc<ClientConnection>);

impl Share {
    pub(super) fn of(client: &Rc<ClientConnection>) -> Share {
        client.shared.set(client.shared.get() + 1);
        Share(client.clone())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.shared.set(self.0.shared.get() - 1);
        // A call that waits for one of its own connections may go on a shared one now.
        if let Some(own) = self.0.own.get() {
            own.look_again();
        }
    }
}
