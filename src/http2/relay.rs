//! One direction of a call: DATA from one stream to another through one bounded buffer.
//!
//! What h2 has received is taken at once (unread small frames would use up the connection's budget), but window is given
//! back to the sender only for what the receiver's window and socket took: the buffer never exceeds the stream's window,
//! and a slow reader slows its writer and nobody else.

use super::Standstill;
use super::outlet::{Outlet, Turn};
use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use http::HeaderMap;
use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// How a direction ended well.
#[derive(Debug)]
pub enum Relayed {
    /// The last DATA frame carried END_STREAM; nothing is left to send.
    Ended,
    /// All data is forwarded and the source closed with these trailers, which are the caller's to examine and send.
    Trailers(HeaderMap),
}

/// How a direction broke.
#[derive(Debug)]
pub enum Broken {
    /// The side that sends was reset or lost.
    Source(h2::Error),
    /// The side that receives was reset or lost, or wants no more.
    Sink,
    /// The side that receives has given no window for `limits.stalled` while bytes waited for it.
    Stalled,
}

/// What is still to come from the source. Trailers stay with h2 until everything before them is given: they take no room in each
/// relay, and what has come of an answer is whole, whatever becomes of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Data,
    Trailers,
    Nothing,
}

/// The state of one direction.
#[derive(Debug)]
pub struct Relay {
    source: RecvStream,
    backlog: Backlog,
    rest: Rest,
    bytes: u64,
    /// Bytes the sink has taken.
    given: u64,
    standstill: Standstill,
    /// Waits for the sink's connection.
    turn: Turn,
    kept: Option<Kept>,
    /// The sink's head has not been written yet.
    opening: bool,
    /// Bytes at the front of the backlog that have been given before: their window has been returned.
    again: usize,
}

impl Relay {
    /// Relays what `source` receives. A sink that takes nothing for `stalled` while bytes wait for it breaks the relay.
    pub fn new(source: RecvStream, stalled: Duration) -> Relay {
        Relay {
            source,
            backlog: Backlog::default(),
            rest: Rest::Data,
            bytes: 0,
            given: 0,
            standstill: Standstill::new(stalled),
            turn: None,
            kept: None,
            opening: false,
            again: 0,
        }
    }

    /// The next sink is a stream that h2 has not opened yet: it has no window until its head is written, and what little
    /// there is goes along with that, rather than in a write of its own after another turn of the call.
    pub fn opening(&mut self) {
        self.opening = true;
    }

    /// Whether the source ended with its headers: then there is nothing to relay.
    pub fn is_empty(&self) -> bool {
        self.source.is_end_stream() && self.backlog.is_empty()
    }

    /// Bytes taken from the source so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Grows with everything that comes or goes.
    pub fn moved(&self) -> u64 {
        self.bytes + self.given
    }

    /// From now on keeps a copy of what is given, should it have to be given to another sink, as long as there is little of
    /// it. `total` counts what all relays of a worker keep, in bytes.
    pub fn keep(&mut self, total: Rc<Cell<usize>>) {
        self.kept = Some(Kept { bytes: Vec::new(), total });
    }

    /// Keeps nothing any more.
    pub fn forget(&mut self) {
        self.kept = None;
    }

    /// Puts back everything that was given since [`Relay::keep`], for another sink. False when not all of it was kept.
    pub fn rewind(&mut self) -> bool {
        let Some(kept) = self.kept.take() else { return false };
        self.again += kept.bytes.len();
        self.backlog.put_back(Bytes::copy_from_slice(&kept.bytes));
        self.keep(kept.total.clone());
        true
    }

    /// Moves what can be moved now to `sink`, whose connection writes to `outlet`. Ready once, when the direction has ended.
    pub fn poll(&mut self, cx: &mut Context<'_>, sink: &mut SendStream<Bytes>, outlet: &Outlet) -> Poll<Result<Relayed, Broken>> {
        let moved = self.relay(cx, sink, outlet);
        self.opening = false;
        match moved {
            Poll::Pending if !self.backlog.is_empty() => self.standstill.poll(cx, self.given).map(|()| Err(Broken::Stalled)),
            moved => moved,
        }
    }

    fn relay(&mut self, cx: &mut Context<'_>, sink: &mut SendStream<Bytes>, outlet: &Outlet) -> Poll<Result<Relayed, Broken>> {
        loop {
            self.take(cx)?;
            if !self.backlog.is_empty() {
                match self.give(cx, sink, outlet) {
                    Poll::Ready(Ok(Given::AndEnded)) => return Poll::Ready(Ok(Relayed::Ended)),
                    Poll::Ready(Ok(Given::All)) => continue, // that returned window, so more may have come
                    Poll::Ready(Err(broken)) => return Poll::Ready(Err(broken)),
                    Poll::Pending => {
                        self.backlog.settle();
                        return Poll::Pending;
                    }
                }
            }
            return if self.rest == Rest::Data { Poll::Pending } else { self.end(cx, sink) };
        }
    }

    /// Takes everything that has come.
    fn take(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        while self.rest == Rest::Data {
            match self.source.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => {
                    self.bytes += data.len() as u64;
                    self.backlog.push(data);
                }
                Poll::Ready(Some(Err(error))) => return Err(Broken::Source(error)),
                Poll::Ready(None) => self.rest = if self.source.is_end_stream() { Rest::Nothing } else { Rest::Trailers },
                Poll::Pending => return Ok(()),
            }
        }
        Ok(())
    }

    /// Sends as much of the backlog as the sink's window takes, while its socket takes anything.
    fn give(&mut self, cx: &mut Context<'_>, sink: &mut SendStream<Bytes>, outlet: &Outlet) -> Poll<Result<Given, Broken>> {
        while !self.backlog.is_empty() {
            ready!(outlet.poll_open(cx, &mut self.turn));
            sink.reserve_capacity(self.backlog.len());
            let data = match sink.capacity() {
                0 if self.opening && self.backlog.len() <= EARLY && outlet.take_early(self.backlog.len()) => self.backlog.pop_copied(),
                0 => {
                    let capacity = sink.poll_capacity(cx);
                    outlet.window(matches!(capacity, Poll::Ready(Some(Ok(_)))));
                    match ready!(capacity) {
                        Some(Ok(capacity)) => self.backlog.pop(capacity),
                        Some(Err(_)) | None => return Poll::Ready(Err(Broken::Sink)),
                    }
                }
                capacity => {
                    outlet.window(true);
                    self.backlog.pop(capacity)
                }
            };
            let length = data.len();
            let again = length.min(self.again);
            self.again -= again;
            if self.kept.as_mut().is_some_and(|kept| !kept.take(&data)) {
                self.kept = None;
            }
            let last = self.backlog.is_empty() && (self.rest == Rest::Nothing || self.source.is_end_stream());
            self.given += length as u64;
            let sent = sink.send_data(data, last).map_err(|_| Broken::Sink);
            // An error here means the stream is gone, which the next poll of the source reports with its reason.
            let _ = self.source.flow_control().release_capacity(length - again);
            sent?;
            if last {
                return Poll::Ready(Ok(Given::AndEnded));
            }
        }
        Poll::Ready(Ok(Given::All))
    }

    /// All data is given.
    fn end(&mut self, cx: &mut Context<'_>, sink: &mut SendStream<Bytes>) -> Poll<Result<Relayed, Broken>> {
        let trailers = match self.rest {
            Rest::Trailers => ready!(self.source.poll_trailers(cx)).map_err(Broken::Source)?,
            Rest::Data | Rest::Nothing => None,
        };
        Poll::Ready(match trailers {
            Some(trailers) => {
                self.kept = None; // trailers are the caller's from here on
                Ok(Relayed::Trailers(trailers))
            }
            None => sink.send_data(Bytes::new(), true).map(|()| Relayed::Ended).map_err(|_| Broken::Sink),
        })
    }
}

/// What became of the backlog.
enum Given {
    /// It is sent.
    All,
    /// END_STREAM went with it.
    AndEnded,
}

/// What one call may keep of its request, in bytes: unary requests, mostly.
const MOST_KEPT: usize = 16 * 1024;

/// What all calls of a worker may keep, in bytes; beyond it a call is not made again.
const MOST_KEPT_IN_ALL: usize = 1024 * 1024;

/// A copy of what was given. Not the chunks themselves: each may hold a whole buffer of its connection in memory.
#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    total: Rc<Cell<usize>>,
}

impl Kept {
    /// False when it is too much.
    fn take(&mut self, data: &[u8]) -> bool {
        let fits = self.bytes.len() + data.len() <= MOST_KEPT && self.total.get() + data.len() <= MOST_KEPT_IN_ALL;
        if fits {
            self.bytes.extend_from_slice(data);
            self.total.set(self.total.get() + data.len());
        }
        fits
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.total.set(self.total.get() - self.bytes.len());
    }
}

/// What may go along with the head of a stream, in bytes: unary requests, mostly.
const EARLY: usize = 4 * 1024;

/// Chunks below this are copied together while they wait, in bytes. A chunk is a part of the buffer it was read into, which
/// is of this size or little more than the chunk, and keeps all of it: so a sender of small frames, with whatever between
/// them, cannot make us hold a multiple of what its window allows.
const SMALL: usize = 8 * 1024;

/// Data that has been taken and not yet given, in order.
#[derive(Debug, Default)]
struct Backlog {
    /// Empty only when there is none behind it: most calls have one chunk at a time, and need no queue.
    front: Bytes,
    behind: VecDeque<Bytes>,
    /// The newest data, when it came in small pieces while others waited; at most [`SMALL`].
    joined: BytesMut,
    length: usize,
    /// The front has a buffer of its own.
    settled: bool,
}

impl Backlog {
    fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn len(&self) -> usize {
        self.length
    }

    fn push(&mut self, data: Bytes) {
        let waiting = self.length > 0;
        self.length += data.len();
        if waiting && data.len() < SMALL {
            self.join(&data);
        } else if !data.is_empty() {
            self.seal();
            self.append(data);
        }
    }

    fn append(&mut self, chunk: Bytes) {
        if self.front.is_empty() { self.front = chunk } else { self.behind.push_back(chunk) }
    }

    fn join(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let (fits, rest) = data.split_at(data.len().min(SMALL - self.joined.len()));
            self.joined.extend_from_slice(fits);
            if self.joined.len() == SMALL {
                self.seal();
            }
            data = rest;
        }
    }

    /// Puts data before everything else.
    fn put_back(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.length += data.len();
            let second = std::mem::replace(&mut self.front, data);
            if !second.is_empty() {
                self.behind.push_front(second);
            }
            self.settled = false;
        }
    }

    /// Takes at most `most` bytes from the front.
    fn pop(&mut self, most: usize) -> Bytes {
        if self.front.is_empty() {
            self.seal();
        }
        self.settled = false;
        let data = if self.front.len() > most {
            self.front.split_to(most)
        } else {
            std::mem::replace(&mut self.front, self.behind.pop_front().unwrap_or_default())
        };
        self.length -= data.len();
        data
    }

    /// Takes the front, in a buffer of its own: nobody knows how long it will wait.
    fn pop_copied(&mut self) -> Bytes {
        Bytes::copy_from_slice(&self.pop(usize::MAX))
    }

    /// What is left will wait: a small front lets go of the buffer it came in.
    fn settle(&mut self) {
        if !self.settled && (1..SMALL).contains(&self.front.len()) {
            self.front = Bytes::copy_from_slice(&self.front);
            self.settled = true;
        }
    }

    fn seal(&mut self) {
        if !self.joined.is_empty() {
            let joined = std::mem::take(&mut self.joined).freeze();
            self.append(joined);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_kept_is_little_in_each_call_and_in_all() {
        let total = Rc::new(Cell::new(0));
        let keep = || Kept { bytes: Vec::new(), total: total.clone() };
        let mut one = keep();
        assert!(one.take(&[0; MOST_KEPT - 1]) && !one.take(&[0; 2]) && one.take(&[0]));
        assert_eq!(total.get(), MOST_KEPT);
        let mut many: Vec<_> = (0..MOST_KEPT_IN_ALL / MOST_KEPT).map(|_| keep()).collect();
        assert_eq!(many.iter_mut().filter_map(|kept| kept.take(&[0; MOST_KEPT]).then_some(())).count(), MOST_KEPT_IN_ALL / MOST_KEPT - 1);
        drop((one, many));
        assert_eq!(total.get(), 0);
    }

    proptest! {
        #[test]
        fn the_backlog_keeps_every_byte_in_order(
            steps in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..12_000), 0usize..14_000), 0..20),
        ) {
            let (mut backlog, mut expected, mut got) = (Backlog::default(), Vec::new(), Vec::new());
            for (data, most) in steps {
                expected.extend_from_slice(&data);
                backlog.push(data.into());
                if most > 0 {
                    let piece = backlog.pop(most);
                    prop_assert!(piece.len() <= most);
                    got.extend_from_slice(&piece);
                }
                if most % 3 == 0 {
                    backlog.put_back(got.split_off(got.len() / 2).into());
                }
                if most % 5 == 0 {
                    backlog.settle();
                }
                prop_assert_eq!(backlog.len(), expected.len() - got.len());
            }
            while !backlog.is_empty() {
                got.extend_from_slice(&backlog.pop(usize::MAX));
            }
            prop_assert_eq!(got, expected);
        }
    }

    #[test]
    fn a_small_piece_that_waits_at_the_front_lets_go_of_the_buffer_it_came_in() {
        let buffers = [(); 3].map(|()| Bytes::from(vec![b'x'; 2 * SMALL]));
        let mut backlog = Backlog::default();
        backlog.push(buffers[0].slice(..16));
        backlog.push(buffers[1].slice(..SMALL));
        backlog.settle();
        assert!(buffers[0].is_unique() && !buffers[1].is_unique());
        assert_eq!((backlog.pop(16).len(), backlog.pop(1).len()), (16, 1));
        backlog.settle();
        assert!(buffers[1].is_unique(), "what has come to the front since");
        assert_eq!(backlog.pop(usize::MAX).len(), SMALL - 1);
        backlog.settle();
        backlog.push(buffers[2].slice(..16));
        backlog.settle();
        assert!(buffers[2].is_unique(), "what has come since nothing waited");
    }

    #[test]
    fn tiny_pieces_that_wait_are_joined() {
        let mut backlog = Backlog::default();
        (0..100_000).for_each(|_| backlog.push(Bytes::from_static(b"x")));
        assert_eq!(backlog.pop(usize::MAX).len(), 1);
        assert_eq!(backlog.behind.len() + 1, 99_999 / SMALL);
        while !backlog.is_empty() {
            assert!(backlog.pop(usize::MAX).len() <= SMALL);
        }
    }
}
