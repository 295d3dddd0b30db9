//! What the calls of one client connection have in common on their way to the upstream: how many of them go on connections
//! that all clients share, and the connections they have to themselves once they are many.
//!
//! A shared connection's window bounds nothing, lest one client use it up for all; so what one client's unread answers can
//! hold is bounded by its share of calls times the window of each. All further calls go where a window bounds them together.

use super::connect::Unreachable;
use super::pool::Pool;
use super::request_head::EncodedHead;
use crate::http2::Outlet;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Calls of one client connection that go on shared connections at a time.
const SHARE: u32 = 32;

/// What the heads of its calls may hold that wait, or are kept to make calls again, in bytes: a thousand common ones, with a token and
/// the usual metadata, fit. The thousand calls themselves take some four megabytes, and what has just been read and waits for nothing
/// one or two: 8 MiB in all, which is what one client connection may make us hold.
const MOST_HELD: usize = 9 * 1024 * 1024 / 4;

/// The part of it that may be used to make calls again: the rest is for those that could not be made without.
const MOST_KEPT: usize = 1024 * 1024;

/// What a head costs beyond its bytes.
const EACH: usize = 128;

/// One client connection, as its calls see it.
pub struct ClientConnection {
    /// Towards the client.
    pub(super) outlet: Rc<Outlet>,
    /// Calls that are on shared connections.
    shared: Cell<u32>,
    /// Made when first needed, and anew when a reload has changed how the upstream is reached.
    own: RefCell<Option<Rc<Pool>>>,
    /// Bytes of heads that are counted.
    held: Cell<usize>,
    /// Calls that wait only until the heads before theirs are written.
    crowd: Cell<u32>,
}

impl ClientConnection {
    /// A connection without calls that writes to `outlet`.
    pub fn new(outlet: Rc<Outlet>) -> Rc<ClientConnection> {
        Rc::new(ClientConnection { outlet, shared: Cell::new(0), own: RefCell::default(), held: Cell::new(0), crowd: Cell::new(0) })
    }

    /// Whether some of its calls wait only until the heads before theirs are written. Nothing bounds them but how much is read at a
    /// time; so nothing more is read until they have gone, which takes a moment.
    pub fn has_a_crowd(&self) -> bool {
        self.crowd.get() > 0
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

/// The head of a call, counted among those of its client connection from when it is kept or has to wait.
pub(super) struct HeldHead {
    client: Rc<ClientConnection>,
    block: Vec<u8>,
    counted: Cell<bool>,
}

impl HeldHead {
    pub(super) fn new(client: &Rc<ClientConnection>, EncodedHead(block): EncodedHead) -> Rc<HeldHead> {
        Rc::new(HeldHead { client: client.clone(), block, counted: Cell::new(false) })
    }

    /// As it goes to the upstream.
    pub(super) fn block(&self) -> &[u8] {
        &self.block
    }

    pub(super) fn client(&self) -> &Rc<ClientConnection> {
        &self.client
    }

    /// Whether it may be kept, to make the call again: not when too many are.
    pub(super) fn keep(&self) -> bool {
        self.count(MOST_KEPT)
    }

    /// It waits for what may take its time. What there is no room for is as little served as with no upstream at all.
    pub(super) fn wait(&self) -> Result<(), Unreachable> {
        let room = self.count(MOST_HELD);
        if room { Ok(()) } else { Err(Unreachable("too many calls of one client connection wait for it already".into())) }
    }

    fn count(&self, most: usize) -> bool {
        let held = self.client.held.get() + self.bytes();
        if !self.counted.get() && held <= most {
            self.client.held.set(held);
            self.counted.set(true);
        }
        self.counted.get()
    }

    fn bytes(&self) -> usize {
        EACH + self.block.capacity()
    }

    /// It waits only until the heads before it are written, for as long as the result lives.
    pub(super) fn in_a_crowd(&self) -> InACrowd<'_> {
        let crowd = (!self.counted.get()).then_some(&self.client.crowd);
        if let Some(crowd) = crowd {
            crowd.set(crowd.get() + 1);
        }
        InACrowd(crowd)
    }
}

impl Drop for HeldHead {
    fn drop(&mut self) {
        if self.counted.get() {
            self.client.held.set(self.client.held.get() - self.bytes());
        }
    }
}

/// One of those that wait until the heads before theirs are written; heads that are counted are bounded otherwise.
pub(super) struct InACrowd<'a>(Option<&'a Cell<u32>>);

impl Drop for InACrowd<'_> {
    fn drop(&mut self) {
        if let Some(crowd) = self.0 {
            crowd.set(crowd.get() - 1);
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Rc<ClientConnection> {
        ClientConnection::new(Rc::default())
    }

    fn heads(client: &Rc<ClientConnection>, bytes: usize) -> Vec<Rc<HeldHead>> {
        (0..1000).map(|_| HeldHead::new(client, EncodedHead(vec![0; bytes]))).collect()
    }

    #[test]
    fn heads_that_wait_and_heads_that_are_kept_share_one_bound_and_give_it_back() {
        const BYTES: usize = 16_000;
        let client = client();
        let (kept, waiting) = (heads(&client, BYTES), heads(&client, BYTES));
        assert_eq!(client.held.get(), 0, "what has not had to wait is not counted");
        assert_eq!(kept.iter().filter(|head| head.keep()).count(), (1 << 20) / (BYTES + EACH));
        let taken = waiting.iter().filter(|head| head.wait().is_ok()).count();
        assert!(taken < 1000 && client.held.get() <= MOST_HELD && MOST_HELD - client.held.get() < 2 * BYTES);
        drop(kept);
        assert!(waiting.last().unwrap().wait().is_ok(), "there is room again");
        drop(waiting);
        assert_eq!(client.held.get(), 0);
    }

    #[test]
    fn a_thousand_common_heads_may_wait() {
        assert!(heads(&client(), 2200).iter().all(|head| head.wait().is_ok()));
    }

    #[test]
    fn what_is_kept_of_a_call_is_what_waits() {
        let client = client();
        let heads = heads(&client, 100);
        assert!(heads[0].keep());
        let held = client.held.get();
        assert!(heads[0].wait().is_ok() && heads[0].wait().is_ok());
        assert_eq!(client.held.get(), held);
        drop(heads);
        assert_eq!(client.held.get(), 0);
    }

    #[test]
    fn a_crowd_is_of_calls_that_are_not_counted() {
        let client = client();
        let head = HeldHead::new(&client, EncodedHead(vec![0; 100]));
        let in_a_crowd = head.in_a_crowd();
        assert!(client.has_a_crowd());
        drop(in_a_crowd);
        assert!(!client.has_a_crowd());
        head.wait().unwrap();
        let _counted = head.in_a_crowd();
        assert!(!client.has_a_crowd());
    }
}
