//! Whether the socket of a connection takes what is written to it. While it does not, the connection's relays keep what
//! they have: what h2 has been given has left the windows that bound it, and would be bounded by nothing but the number
//! of streams.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// One connection's way out. Written by its frame tap, read by its relays.
#[derive(Debug, Default)]
pub struct Outlet {
    blocked: Cell<bool>,
    /// Who waits for the socket; made when somebody does.
    opened: RefCell<Option<Arc<Notify>>>,
}

/// A place among those who wait; given up when dropped.
pub type Turn = Option<Pin<Box<OwnedNotified>>>;

impl Outlet {
    /// Ready while the socket takes what is written.
    pub fn poll_open(&self, cx: &mut Context<'_>, turn: &mut Turn) -> Poll<()> {
        while self.is_blocked() {
            let opened = || self.opened.borrow_mut().get_or_insert_default().clone();
            ready!(turn.get_or_insert_with(|| Box::pin(opened().notified_owned())).as_mut().poll(cx));
            *turn = None;
        }
        *turn = None;
        Poll::Ready(())
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
            && let Some(waiting) = self.opened.take()
        {
            waiting.notify_waiters();
        }
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
}
