//! Whether the socket of a connection takes what is written to it. While it does not, the connection's relays keep what
//! they have: what h2 has been given has left the windows that bound it, and would be bounded by nothing but the number
//! of streams.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// What the heads may hold that h2 has queued and not written, in bytes by a rough count: most of a hundred common ones, which go
/// out in one write when they come at once, and ten of the largest. As much again may be their encoded form.
const MOST_QUEUED: usize = 256 * 1024;

/// Bytes that may be handed to h2 for streams it has not opened, since it was last seen that the peer gives window: what
/// waits there is not missed by anybody should the peer give none.
const MOST_EARLY: usize = 64 * 1024;

/// One connection's way out. Written by its frame tap, read by its relays.
#[derive(Debug, Default)]
pub struct Outlet {
    blocked: Cell<bool>,
    /// The connection has ended: nobody drives it any more, so nothing may wait for that.
    ended: Cell<bool>,
    /// What the heads hold that h2 has been given since all it had was written.
    queued: Cell<usize>,
    /// What is left of [`MOST_EARLY`].
    early: Cell<usize>,
    /// Who waits for the socket; made when somebody does.
    opened: RefCell<Option<Arc<Notify>>>,
    /// Who waits until the connection has been driven; likewise.
    driven: RefCell<Option<Arc<Notify>>>,
}

/// A place among those who wait; given up when dropped.
pub type Turn = Option<Pin<Box<OwnedNotified>>>;

impl Outlet {
    /// Ready while the socket takes what is written.
    pub fn poll_open(&self, cx: &mut Context<'_>, turn: &mut Turn) -> Poll<()> {
        while self.is_blocked() {
            ready!(turn.get_or_insert_with(|| Box::pin(wait_for(&self.opened))).as_mut().poll(cx));
            *turn = None;
        }
        *turn = None;
        Poll::Ready(())
    }

    /// Waits until the connection has done what it could: then what h2 had been given is written, or the socket takes nothing.
    pub async fn driven(&self) {
        wait_for(&self.driven).await;
    }

    /// Whether h2 may be given a head at once.
    pub fn takes_heads(&self) -> bool {
        self.ended.get() || (!self.blocked.get() && self.queued.get() < MOST_QUEUED)
    }

    /// h2 has been given a head that holds so many bytes: the connection is going to be driven.
    pub fn queued(&self, bytes: usize) {
        self.queued.set(self.queued.get() + bytes);
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
        wake(&self.driven);
        if !self.blocked.get() {
            self.queued.set(0);
            wake(&self.opened);
        }
    }

    /// The connection has ended: nobody needs to wait for it.
    pub fn end(&self) {
        self.ended.set(true);
        self.blocked.set(false);
        self.settle();
    }
}

fn wait_for(event: &RefCell<Option<Arc<Notify>>>) -> OwnedNotified {
    event.borrow_mut().get_or_insert_default().clone().notified_owned()
}

fn wake(event: &RefCell<Option<Arc<Notify>>>) {
    if let Some(waiting) = event.take() {
        waiting.notify_waiters();
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
    fn heads_go_in_only_as_fast_as_the_connection_is_driven() {
        let (outlet, mut cx) = (Outlet::default(), Context::from_waker(Waker::noop()));
        for _ in 0..3 {
            assert!(outlet.takes_heads());
            outlet.queued(MOST_QUEUED - 1);
            assert!(outlet.takes_heads());
            outlet.queued(1);
            assert!(!outlet.takes_heads());
            assert!(outlet.poll_open(&mut cx, &mut None).is_ready(), "what has windows goes on");
            let mut driven = Box::pin(outlet.driven());
            assert!(driven.as_mut().poll(&mut cx).is_pending());
            outlet.tried(&Poll::<()>::Pending);
            assert!(driven.as_mut().poll(&mut cx).is_pending(), "not yet");
            outlet.settle();
            assert!(driven.as_mut().poll(&mut cx).is_ready());
            assert!(!outlet.takes_heads(), "they have not been written");
            outlet.tried(&Poll::Ready(()));
            outlet.settle();
        }
    }

    #[test]
    fn nobody_waits_for_a_connection_that_has_ended() {
        let (outlet, mut cx) = (Outlet::default(), Context::from_waker(Waker::noop()));
        outlet.queued(MOST_QUEUED);
        let mut driven: Vec<_> = (0..1000).map(|_| Box::pin(outlet.driven())).collect();
        assert!(driven.iter_mut().all(|driven| driven.as_mut().poll(&mut cx).is_pending()));
        outlet.tried(&Poll::<()>::Pending);
        let mut turns: Vec<Turn> = (0..1000).map(|_| None).collect();
        assert!(turns.iter_mut().all(|turn| outlet.poll_open(&mut cx, turn).is_pending()));
        outlet.end();
        assert!(turns.iter_mut().all(|turn| outlet.poll_open(&mut cx, turn).is_ready()));
        assert!(driven.iter_mut().all(|driven| driven.as_mut().poll(&mut cx).is_ready()) && outlet.takes_heads());
        // h2 may still take heads for a moment, which nobody will write.
        outlet.queued(MOST_QUEUED);
        assert!(outlet.takes_heads());
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
