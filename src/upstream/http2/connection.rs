//! One connection as its calls and its driver share it: what is to be written, the streams, the windows. One thread has all of it.

use super::failure::Failure;
use super::frame::{Head, MOST, flag, kind, setting};
use super::outbox::Outbox;
use super::stream::StreamState;
use super::windows::{INITIAL, ReceiveWindow, SendWindow};
use crate::http2::hpack::Decoder;
use bytes::Bytes;
use h2::Reason;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use tokio::sync::Notify;

/// What every client says first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What may wait to be written before calls have to wait with theirs, in bytes: most of a thousand heads, which go out in one write
/// when they come at once.
const MOST_WAITING: usize = 256 * 1024;

/// The state of one connection.
pub(in super::super) struct Connection {
    pub(super) outbox: RefCell<Outbox>,
    pub(super) streams: RefCell<HashMap<u32, Rc<StreamState>, BuildHasherDefault<ByNumber>>>,
    pub(super) next_stream: Cell<u32>,
    pub(super) decoder: RefCell<Decoder>,
    /// `limits.header_bytes`, for what the upstream sends.
    pub(super) header_bytes: usize,
    /// What each stream may have in flight towards us, in bytes.
    pub(super) stream_window: u32,
    pub(super) receive_window: RefCell<ReceiveWindow>,
    pub(super) send_window: Cell<SendWindow>,
    pub(super) peer: Cell<PeerSettings>,
    /// Streams that wait for the connection's window or for room in the outbox.
    waiting: RefCell<Vec<Rc<StreamState>>>,
    /// Of these, gone.
    gone: Cell<usize>,
    /// Whether there is something to wake them for.
    pub(super) moved: Cell<bool>,
    /// Who waits until the connection has been driven; made when somebody does.
    driven: RefCell<Option<Arc<Notify>>>,
    /// Of the driver, while it waits.
    pub(super) driver: Cell<Option<Waker>>,
    /// How often it has been driven.
    turn: Cell<u32>,
    /// Those who may open streams.
    pub(super) openers: Cell<u32>,
    pub(super) written: Cell<u64>,
    /// The socket takes nothing.
    pub(super) blocked: Cell<bool>,
    pub(super) stalled: Cell<bool>,
    pub(super) settings_seen: Cell<bool>,
    pub(super) going_away: Cell<bool>,
    /// The upstream has said GOAWAY with an error, in words.
    pub(super) complaint: RefCell<Option<Rc<str>>>,
    pub(super) ended: RefCell<Option<Rc<str>>>,
    pub(super) heard: Cell<bool>,
    pub(super) message: Cell<bool>,
    /// What frames have cost beyond their bytes, in bytes that cost as much.
    pub(super) toil: Cell<usize>,
    /// What was seen of `blocked` when those were last woken who wait to open streams.
    was_blocked: Cell<bool>,
    /// A PING of ours has not been answered.
    pub(super) asked: Cell<bool>,
    pub(super) answered: Notify,
}

/// What the upstream has said that it takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeerSettings {
    pub(super) streams: u32,
    pub(super) initial_window: i64,
}

impl Connection {
    /// One that has yet to be driven. `window`: what it may have in flight towards us, `stream_window`: what each stream may, in bytes.
    /// Larger header lists than `header_bytes` end their streams.
    pub(in super::super) fn new(window: u32, stream_window: u32, header_bytes: usize) -> Rc<Connection> {
        let connection = Connection {
            outbox: RefCell::default(),
            streams: RefCell::default(),
            next_stream: Cell::new(1),
            decoder: RefCell::new(Decoder::new()),
            header_bytes,
            stream_window,
            receive_window: RefCell::new(ReceiveWindow::new(window)),
            send_window: Cell::new(SendWindow(INITIAL)),
            peer: Cell::new(PeerSettings { streams: u32::MAX, initial_window: INITIAL }),
            waiting: RefCell::default(),
            gone: Cell::new(0),
            moved: Cell::new(false),
            driven: RefCell::default(),
            driver: Cell::default(),
            turn: Cell::new(0),
            openers: Cell::new(0),
            written: Cell::new(0),
            blocked: Cell::new(false),
            stalled: Cell::new(false),
            settings_seen: Cell::new(false),
            going_away: Cell::new(false),
            complaint: RefCell::default(),
            ended: RefCell::default(),
            heard: Cell::new(false),
            message: Cell::new(false),
            toil: Cell::new(0),
            was_blocked: Cell::new(false),
            asked: Cell::new(false),
            answered: Notify::new(),
        };
        connection.greet(window);
        Rc::new(connection)
    }

    fn greet(&self, window: u32) {
        self.outbox.borrow_mut().bytes(PREFACE);
        // Nothing of header lists: servers that are told a limit fail calls by themselves, in their own words.
        let settings = [(setting::ENABLE_PUSH, 0), (setting::INITIAL_WINDOW_SIZE, self.stream_window)];
        let payload: Vec<u8> = settings.iter().flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        self.frame(kind::SETTINGS, 0, 0, &payload);
        let more = i64::from(window) - INITIAL;
        if let Some(more) = u32::try_from(more).ok().filter(|more| *more > 0) {
            self.window_update(0, more);
        }
    }

    /// Puts a whole frame.
    pub(super) fn frame(&self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.outbox.borrow_mut().frame(Head { length: payload.len(), kind, flags, stream }, payload);
        self.wake_driver();
    }

    /// Puts a frame of a message.
    pub(super) fn data(&self, flags: u8, stream: u32, payload: Bytes) {
        self.outbox.borrow_mut().data(Head { length: payload.len(), kind: kind::DATA, flags, stream }, payload);
        self.wake_driver();
    }

    /// Puts a header list (§4.3): with nothing between its frames.
    pub(super) fn header_block(&self, flags: u8, stream: u32, block: &[u8]) {
        let mut outbox = self.outbox.borrow_mut();
        let (mut kind, mut flags, mut rest) = (kind::HEADERS, flags, block);
        loop {
            let (part, after) = rest.split_at(rest.len().min(MOST));
            let last = if after.is_empty() { flag::END_HEADERS } else { 0 };
            outbox.frame(Head { length: part.len(), kind, flags: flags | last, stream }, part);
            (kind, flags, rest) = (kind::CONTINUATION, 0, after);
            if rest.is_empty() {
                break;
            }
        }
        drop(outbox);
        self.wake_driver();
    }

    pub(super) fn window_update(&self, stream: u32, increment: u32) {
        self.frame(kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
    }

    pub(super) fn reset(&self, stream: u32, reason: Reason) {
        self.frame(kind::RST_STREAM, 0, stream, &u32::from(reason).to_be_bytes());
    }

    /// Received bytes are done with.
    pub(super) fn give_back(&self, bytes: u32) {
        let due = self.receive_window.borrow_mut().give_back(bytes);
        if let Some(increment) = due {
            self.window_update(0, increment);
        }
    }

    /// What may still be put before something has been written, in bytes.
    pub(super) fn room(&self) -> usize {
        if self.blocked.get() { 0 } else { MOST_WAITING.saturating_sub(self.unwritten()) }
    }

    /// Whether so much may still wait though the socket takes nothing.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.unwritten() + bytes <= MOST_WAITING
    }

    /// Bytes that wait to be written.
    pub(super) fn unwritten(&self) -> usize {
        self.outbox.borrow().len()
    }

    /// How often it has been driven.
    pub(super) fn turn(&self) -> u32 {
        self.turn.get()
    }

    /// Has `stream` woken when there may be window or room for it.
    pub(super) fn wait(&self, stream: Rc<StreamState>) {
        self.waiting.borrow_mut().push(stream);
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.borrow().iter().filter(|stream| stream.is_queued()).count()
    }

    /// A stream is gone that waited. All that are gone are taken out at once, lest many of them that go take long.
    pub(super) fn waits_no_more(&self) {
        let mut waiting = self.waiting.borrow_mut();
        self.gone.set(self.gone.get() + 1);
        if self.gone.get() * 2 >= waiting.len() {
            waiting.retain(|stream| stream.is_queued());
            self.gone.set(0);
        }
    }

    pub(super) fn wake_driver(&self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// Whether nobody needs it: no stream is open, and none will be.
    pub(super) fn is_needed_no_more(&self) -> bool {
        (self.openers.get() == 0 || self.going_away.get()) && self.streams.borrow().is_empty()
    }

    /// It has been driven. Each time another of those who wait is first: a window that opens by little is everybody's.
    pub(super) fn driven(&self) {
        self.turn.set(self.turn.get().wrapping_add(1));
        let blocked = self.blocked.get();
        // Who waits for the socket has nothing to do before it takes something; that it does not, everybody is told once.
        if (self.takes_heads() || blocked != self.was_blocked.replace(blocked))
            && let Some(driven) = self.driven.take()
        {
            driven.notify_waiters();
        }
        if !blocked && self.send_window.get().room() > 0 && self.moved.take() {
            let mut waiting = self.waiting.take();
            self.gone.set(0);
            let first = self.turn.get() as usize % waiting.len().max(1);
            waiting.rotate_left(first);
            waiting.iter().for_each(|stream| stream.look_again());
        }
    }

    /// It has ended, and its calls with it; in words, why.
    pub(in super::super) fn end(&self, why: Rc<str>) {
        self.ended.replace(Some(why.clone()));
        self.outbox.take();
        self.blocked.set(false);
        let streams = self.streams.take();
        for stream in streams.values() {
            stream.fail(Failure::connection(why.clone(), self.written.get() <= stream.begins_at()));
        }
        self.waiting.take();
        self.driven();
    }
}

/// What the owners of a connection ask.
impl Connection {
    /// Whether the upstream's first SETTINGS have come: only then is a connection up.
    pub(in super::super) fn is_up(&self) -> bool {
        self.settings_seen.get()
    }

    /// Whether it has not ended.
    pub(in super::super) fn is_open(&self) -> bool {
        self.ended.borrow().is_none()
    }

    /// Whether no new stream may be opened.
    pub(in super::super) fn going_away(&self) -> bool {
        self.going_away.get()
    }

    /// Whether the connection ended because the upstream took nothing on it.
    pub(in super::super) fn stalled(&self) -> bool {
        self.stalled.get()
    }

    /// Whether the socket takes nothing.
    pub(in super::super) fn is_blocked(&self) -> bool {
        self.blocked.get()
    }

    /// Whether a call may open a stream at once.
    pub(in super::super) fn takes_heads(&self) -> bool {
        !self.is_open() || self.room() > 0
    }

    /// Waits until the connection has done what it could and takes heads again, until its socket takes nothing, or until it has ended.
    pub(in super::super) async fn until_driven(&self) {
        if self.is_open() {
            let driven = self.driven.borrow_mut().get_or_insert_default().clone();
            driven.notified().await;
        }
    }

    /// Whether anything has come since this was last asked.
    pub(in super::super) fn take_heard(&self) -> bool {
        self.heard.take()
    }

    /// Whether HEADERS or DATA has come since this was last asked: what gRPC servers count PINGs by.
    pub(in super::super) fn take_message(&self) -> bool {
        self.message.take()
    }

    /// Sends a PING and waits for its answer.
    pub(in super::super) async fn ping(&self) {
        if !self.asked.replace(true) {
            self.frame(kind::PING, 0, 0, PING);
        }
        self.answered.notified().await;
    }
}

/// What our PINGs hold.
pub(super) const PING: &[u8; 8] = b"doorward";

/// Streams are numbered by us, one after the other: nobody can make them collide.
#[derive(Default)]
pub(super) struct ByNumber(u64);

impl Hasher for ByNumber {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        // Spread over the lower bits, which choose the place, and the upper ones, which tell neighbours apart.
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(20);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::requests::LAST_STREAM;
    use super::super::testing::{OK, frame, hears, up, written};
    use super::*;

    #[test]
    fn it_is_needed_as_long_as_a_stream_is_open_or_may_be_opened() {
        let (connection, requests) = up();
        let other = requests.clone();
        drop(requests);
        assert!(!connection.is_needed_no_more());
        let stream = other.open(OK, true).unwrap();
        drop(other);
        assert!(!connection.is_needed_no_more());
        drop(stream);
        assert!(connection.is_needed_no_more());
        let (connection, requests) = up();
        hears(&connection, &frame(kind::GOAWAY, 0, 0, &[0; 8])).unwrap();
        assert!(connection.is_needed_no_more() && requests.open(OK, true).is_none());
    }

    #[test]
    fn streams_are_opened_until_their_numbers_run_out() {
        let (connection, requests) = up();
        connection.next_stream.set(LAST_STREAM);
        let stream = requests.open(OK, true).unwrap();
        assert_eq!(written(&connection)[0].0.stream, LAST_STREAM);
        assert!(requests.open(OK, true).is_none() && connection.going_away());
        drop((stream, requests));
        assert!(connection.is_needed_no_more());
    }

    #[test]
    fn a_header_list_is_cut_into_frames_with_nothing_between_them() {
        for length in [0, 1, MOST, MOST + 1, 3 * MOST] {
            let (connection, requests) = up();
            connection.next_stream.set(3);
            let block: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let _stream = requests.open(&block, true);
            let frames = written(&connection);
            assert_eq!(frames.len(), length.div_ceil(MOST).max(1));
            for (at, (head, _)) in frames.iter().enumerate() {
                let (first, last) = (at == 0, at + 1 == frames.len());
                assert_eq!((head.kind, head.has(flag::END_HEADERS)), (if first { kind::HEADERS } else { kind::CONTINUATION }, last));
                assert_eq!(head.has(flag::END_STREAM), first);
            }
            assert_eq!(frames.into_iter().flat_map(|(_, payload)| payload).collect::<Vec<_>>(), block);
        }
    }

    #[test]
    fn there_is_room_for_so_much_and_none_while_the_socket_takes_nothing() {
        let (connection, requests) = up();
        assert_eq!(connection.room(), MOST_WAITING);
        let _stream = requests.open(&vec![0; MOST_WAITING], true);
        assert!(connection.room() == 0 && !connection.takes_heads());
        written(&connection);
        assert!(connection.takes_heads());
        connection.blocked.set(true);
        assert!(connection.room() == 0 && !connection.takes_heads());
        connection.end("lost".into());
        assert!(connection.takes_heads(), "to learn that there will be none");
    }
}
