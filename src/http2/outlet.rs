//! Whether the socket of a connection takes what is written to it. While it does not, the connection's relays keep what
//! they have: what h2 has been given has left the windows that bound it, and would be bounded by nothing but the number
//! of streams.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// Bytes that may be handed to h2 for streams it has not opened, since it was last seen that the peer gives window: what
/// waits there is not missed by anybody should the peer give none.
const MOST_EARLY: usize = 64 * 1024;

/// One connection's way out. Written by its frame tap, read by its relays.
#[derive(Debug, Default)]
pub struct Outlet {
    blocked: Cell<bool>,
    /// What is left of [`MOST_EARLY`].
    early: Cell<usize>,
    /// Who waits; made when somebody does.
    opened: RefCell<Option<Arc<Notify>>>,
}

/// A place among those who wait; given up when dropped.
pub type Turn = Option<Pin<Box<OwnedNotified>>>;

impl Outlet {
    /// Ready while the socket takes what is written.
    pub fn poll_open(&self, cx: &mut Context<'_>, turn: &mut Turn) -> Poll<()> {
        while self.blocked.get() {
            let wait = || Box::pin(self.opened.borrow_mut().get_or_insert_default().clone().notified_owned());
            ready!(turn.get_or_insert_with(wait).as_mut().poll(cx));
            *turn = None;
        }
        *turn = None;
        Poll::Ready(())
    }

    /// Whether bytes may go with the head of a stream, before its window is known; they are then counted.
    pub(super) fn take_early(&self, bytes: usize) -> bool {
        let left = self.early.get().checked_sub(bytes);
        self.early.set(left.unwrap_or(self.early.get()));
        left.is_some()
    }

    /// Whether the peer has given window to a stream that waits for it.
    pub(super) fn window(&self, given: bool) {
        self.early.set(if given { MOST_EARLY } else { 0 });
    }

    /// Whether the socket takes nothing.
    pub fn is_blocked(&self) -> bool {
        self.blocked.get()
    }

    /// What came of a write or a flush.
    pub(super) fn tried<T>(&self, outcome: &Poll<T>) {
        self.blocked.set(outcome.is_pending());
    }

    /// Wakes those who wait, if there is something to wake them for. Called each time the connection has done what it
    /// could: only then is it known whether all that was queued has been written.
    pub fn settle(&self) {
        if !self.blocked.get()
            && let Some(opened) = self.opened.take()
        {
            opened.notify_waiters();
        }
    }

    /// The connection has ended: nobody needs to wait for it.
    pub fn end(&self) {
        self.blocked.set(false);
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn who_waits_is_woken_once_the_connection_has_written_everything() {
        let (outlet, mut cx) = (Outlet::default(), Context::from_waker(Waker::noop()));
        let (mut first, mut second) = (None, None);
        assert!(outlet.poll_open(&mut cx, &mut first).is_ready());
        outlet.tried(&Poll::<()>::Pending);
        assert!(outlet.poll_open(&mut cx, &mut first).is_pending() && outlet.poll_open(&mut cx, &mut second).is_pending());
        outlet.settle();
        assert!(outlet.poll_open(&mut cx, &mut first).is_pending(), "nothing has been written");
        outlet.tried(&Poll::Ready(()));
        outlet.tried(&Poll::<()>::Pending);
        outlet.settle();
        assert!(outlet.poll_open(&mut cx, &mut first).is_pending(), "not everything has been written");
        outlet.tried(&Poll::Ready(()));
        outlet.settle();
        assert!(outlet.poll_open(&mut cx, &mut first).is_ready() && outlet.poll_open(&mut cx, &mut second).is_ready());
        assert!(first.is_none() && second.is_none());
    }

    #[test]
    fn what_goes_before_its_window_is_known_is_little_and_none_where_window_lacks() {
        let outlet = Outlet::default();
        assert!(!outlet.take_early(1), "nobody has seen that the peer gives any");
        for _ in 0..2 {
            outlet.window(true);
            assert!(outlet.take_early(MOST_EARLY - 1) && !outlet.take_early(2) && outlet.take_early(1) && !outlet.take_early(1));
        }
        outlet.window(true);
        outlet.window(false);
        assert!(!outlet.take_early(1));
    }
}
