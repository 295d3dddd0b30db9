//! One stream, as its call sees it: what came of the answer, room for the request, and how it was lost. Who drops it before both
//! sides have ended resets it.

use super::connection::Connection;
use super::failure::Failure;
use super::frame::{MOST, flag};
use super::windows::{ReceiveWindow, SendWindow};
use crate::http2::hpack::encode_field;
use crate::http2::{Sink, Source};
use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Response};
use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// What one stream may put between two turns of its connection, in bytes: then others have theirs.
const AT_A_TURN: usize = 32 * 1024;

/// What a connection knows of one of its streams.
pub(super) struct StreamState {
    id: u32,
    /// Where its first byte is among all that the connection writes.
    begins_at: u64,
    pub(super) inner: RefCell<Inner>,
}

/// What changes of it.
pub(super) struct Inner {
    /// What of the answer comes next.
    pub(super) next: Next,
    pub(super) head: Option<Response<()>>,
    pub(super) received: Vec<u8>,
    pub(super) trailers: Option<HeaderMap>,
    /// Bytes that `content-length` promises and that have not come.
    pub(super) promised: Option<u64>,
    pub(super) receive_window: ReceiveWindow,
    /// Bytes that have come and have not been given back.
    pub(super) in_flight: u32,
    pub(super) send_window: SendWindow,
    /// END_STREAM was sent, or the upstream wants no more.
    pub(super) sent: bool,
    failure: Option<Failure>,
    /// Put since the connection's turn.
    put: (u32, usize),
    /// Waits for the connection.
    queued: bool,
    waker: Option<Waker>,
}

/// What comes next from the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Head,
    Data,
    /// END_STREAM has come.
    Nothing,
}

impl StreamState {
    pub(super) fn new(id: u32, begins_at: u64, send_window: i64, receive_window: u32, sent: bool) -> Rc<StreamState> {
        let inner = Inner {
            next: Next::Head,
            head: None,
            received: Vec::new(),
            trailers: None,
            promised: None,
            receive_window: ReceiveWindow::new(receive_window),
            in_flight: 0,
            send_window: SendWindow(send_window),
            sent,
            failure: None,
            put: (0, 0),
            queued: false,
            waker: None,
        };
        Rc::new(StreamState { id, begins_at, inner: RefCell::new(inner) })
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn begins_at(&self) -> u64 {
        self.begins_at
    }

    /// The stream is lost, but for what has come of it.
    pub(super) fn fail(&self, failure: Failure) {
        let mut inner = self.inner.borrow_mut();
        inner.sent = true;
        inner.failure.get_or_insert(failure);
        inner.wake();
    }

    /// Whether it waits for its connection, and is not gone.
    pub(super) fn is_queued(&self) -> bool {
        self.inner.borrow().queued
    }

    /// There may be room for it.
    pub(super) fn look_again(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.queued = false;
        inner.wake();
    }
}

impl Inner {
    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn wait<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Waits for what is still to come of the answer.
    fn wait_for_more<T>(&mut self, cx: &Context<'_>) -> Poll<Result<T, Failure>> {
        match &self.failure {
            Some(failure) => Poll::Ready(Err(failure.clone())),
            None => self.wait(cx),
        }
    }
}

/// A call's hold on its stream. All its methods are to be polled by one task.
pub(in super::super) struct Stream {
    state: Rc<StreamState>,
    connection: Rc<Connection>,
}

impl Stream {
    pub(super) fn new(state: Rc<StreamState>, connection: Rc<Connection>) -> Stream {
        Stream { state, connection }
    }

    /// The head of the answer, once.
    pub(in super::super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, Failure>> {
        let mut inner = self.state.inner.borrow_mut();
        match inner.head.take() {
            Some(head) => Poll::Ready(Ok(head)),
            None => inner.wait_for_more(cx),
        }
    }

    /// Ends the request with trailers. `false`: they would have to wait, and nothing bounds what waits so. No gRPC client sends any.
    pub(in super::super) fn send_trailers(&mut self, trailers: &HeaderMap) -> bool {
        if std::mem::replace(&mut self.state.inner.borrow_mut().sent, true) {
            return true; // what became of it, the answer says
        }
        let mut block = Vec::new();
        for (name, value) in trailers {
            encode_field(&mut block, name, value.as_bytes(), value.is_sensitive());
        }
        let room = self.connection.has_room_for(block.len());
        if room {
            self.connection.header_block(flag::END_STREAM, self.state.id, &block);
        }
        room
    }
}

impl Source for Stream {
    type Error = Failure;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        let mut inner = self.state.inner.borrow_mut();
        match inner.next {
            _ if !inner.received.is_empty() => Poll::Ready(Ok(Some(std::mem::take(&mut inner.received).into()))),
            Next::Nothing => Poll::Ready(Ok(None)),
            Next::Head | Next::Data => inner.wait_for_more(cx),
        }
    }

    fn poll_trailers(&mut self, _: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, Failure>> {
        Poll::Ready(Ok(self.state.inner.borrow_mut().trailers.take()))
    }

    fn is_over(&self) -> bool {
        let inner = self.state.inner.borrow();
        inner.next == Next::Nothing && inner.received.is_empty() && inner.trailers.is_none()
    }

    fn release(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let mut inner = self.state.inner.borrow_mut();
        inner.in_flight = inner.in_flight.saturating_sub(bytes);
        let due = inner.receive_window.give_back(bytes).filter(|_| inner.next != Next::Nothing && inner.failure.is_none());
        drop(inner);
        if let Some(increment) = due {
            self.connection.window_update(self.state.id, increment);
        }
        self.connection.give_back(bytes);
    }
}

impl Sink for Stream {
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Option<usize>> {
        let mut inner = self.state.inner.borrow_mut();
        if inner.sent {
            return Poll::Ready(None);
        }
        let turn = self.connection.turn();
        if inner.put.0 != turn {
            inner.put = (turn, 0);
        }
        let mine = inner.send_window.room();
        let room = mine.min(AT_A_TURN - inner.put.1).min(self.connection.send_window.get().room()).min(self.connection.room());
        if room > 0 {
            return Poll::Ready(Some(room.min(wanted)));
        }
        if mine > 0 && !std::mem::replace(&mut inner.queued, true) {
            self.connection.wait(self.state.clone());
        }
        inner.wait(cx)
    }

    fn send(&mut self, mut data: Bytes, last: bool) -> Option<()> {
        let mut inner = self.state.inner.borrow_mut();
        if inner.sent {
            return None;
        }
        inner.sent = last;
        inner.send_window.take(data.len());
        inner.put.1 += data.len();
        let mut window = self.connection.send_window.get();
        window.take(data.len());
        self.connection.send_window.set(window);
        drop(inner);
        loop {
            let part = data.split_to(data.len().min(MOST));
            let end = if last && data.is_empty() { flag::END_STREAM } else { 0 };
            self.connection.data(end, self.state.id, part);
            if data.is_empty() {
                return Some(());
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut inner = self.state.inner.borrow_mut();
        let (in_flight, open) = (std::mem::take(&mut inner.in_flight), !inner.sent || inner.next != Next::Nothing);
        inner.waker = None;
        let (lost, queued) = (inner.failure.is_some(), std::mem::take(&mut inner.queued));
        drop(inner);
        if queued {
            self.connection.waits_no_more();
        }
        self.connection.streams.borrow_mut().remove(&self.state.id);
        if open && !lost {
            self.connection.reset(self.state.id, Reason::CANCEL);
        }
        self.connection.give_back(in_flight);
        if self.connection.is_needed_no_more() {
            self.connection.wake_driver();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::kind;
    use super::super::testing::{OK, Once, Woken, frame, hears, up, written};
    use super::*;
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    /// Window for the connection or one stream, in bytes.
    fn window(connection: &Connection, stream: u32, bytes: u32) {
        hears(connection, &frame(kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())).unwrap();
    }

    #[test]
    fn a_stream_puts_its_part_and_then_others_have_theirs() {
        let (connection, requests) = up();
        let (mut one, mut other) = (requests.open(OK, false).unwrap(), requests.open(OK, false).unwrap());
        let woken = Arc::new(Woken::default());
        assert_eq!(one.room(1 << 20, &woken), Poll::Ready(Some(AT_A_TURN)));
        one.puts(AT_A_TURN);
        assert_eq!(one.room(1, &woken), Poll::Pending);
        assert_eq!(other.room(1, &woken), Poll::Ready(Some(1)));
        connection.driven();
        assert_eq!(woken.times(), 0, "nothing has moved");
        written(&connection);
        connection.driven();
        assert_eq!((woken.times(), one.room(1, &woken)), (1, Poll::Ready(Some(1))));
    }

    /// Says who was woken first.
    struct First(u32, Arc<AtomicU32>);

    impl Wake for First {
        fn wake(self: Arc<First>) {
            let _ = self.1.compare_exchange(0, self.0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    #[test]
    fn each_time_another_of_those_who_wait_is_first() {
        let (connection, requests) = up();
        let mut streams: Vec<Stream> = (0..3).map(|_| requests.open(OK, false).unwrap()).collect();
        connection.blocked.set(true);
        let firsts: BTreeSet<u32> = (0..3)
            .map(|_| {
                let first = Arc::new(AtomicU32::new(0));
                for stream in &mut streams {
                    let waker = Arc::new(First(stream.state.id, first.clone())).into();
                    assert!(stream.poll_room(&mut Context::from_waker(&waker), 1).is_pending());
                }
                connection.moved.set(true);
                connection.blocked.set(false);
                connection.driven();
                connection.blocked.set(true);
                first.load(Ordering::Relaxed)
            })
            .collect();
        assert_eq!(firsts, [1, 3, 5].into());
    }

    #[test]
    fn who_is_dropped_waits_no_more() {
        let (connection, requests) = up();
        let mut streams: Vec<Stream> = (0..2).map(|_| requests.open(OK, false).unwrap()).collect();
        let woken = Arc::new(Woken::default());
        connection.blocked.set(true);
        streams.iter_mut().for_each(|stream| assert!(stream.room(1, &woken).is_pending()));
        let states: Vec<_> = streams.iter().map(|stream| Rc::downgrade(&stream.state)).collect();
        drop(streams.remove(0));
        assert!(states[0].upgrade().is_none() && states[1].upgrade().is_some(), "nothing is left of it");
        connection.moved.set(true);
        connection.blocked.set(false);
        connection.driven();
        assert_eq!(woken.times(), 1);
    }

    #[test]
    fn who_waits_is_woken_by_whatever_it_waits_for() {
        let cases: [fn(&Connection); 5] = [
            |connection| window(connection, 1, 1),
            |connection| hears(connection, &frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 1, 0x80, 0])).unwrap(),
            |connection| hears(connection, &frame(kind::RST_STREAM, 0, 1, &[0; 4])).unwrap(),
            |connection| hears(connection, &frame(kind::GOAWAY, 0, 0, &[0; 8])).unwrap(),
            |connection| connection.end("lost".into()),
        ];
        for case in cases {
            let (connection, requests) = up();
            let mut stream = requests.open(OK, false).unwrap();
            hears(&connection, &frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).unwrap();
            let woken = Arc::new(Woken::default());
            assert!(stream.room(1, &woken).is_pending());
            case(&connection);
            assert_eq!(woken.times(), 1);
            assert!(stream.room(1, &woken).is_ready());
        }
    }

    #[test]
    fn who_drops_a_stream_before_both_sides_have_ended_resets_it() {
        for (last, answered, reset) in [(true, true, false), (false, true, true), (true, false, true)] {
            let (connection, requests) = up();
            let stream = requests.open(OK, last).unwrap();
            if answered {
                hears(&connection, &frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, OK)).unwrap();
            }
            written(&connection);
            drop(stream);
            assert_eq!(written(&connection).iter().any(|(head, _)| head.kind == kind::RST_STREAM), reset);
            assert!(connection.streams.borrow().is_empty());
        }
    }
}
