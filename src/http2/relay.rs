//! One direction of a call: DATA from one stream to another through one bounded buffer.
//!
//! What h2 has received is taken at once (unread small frames would use up the connection's budget), but window is given
//! back to the sender only for what the receiver's window and socket took: the buffer never exceeds the stream's window,
//! and a slow reader slows its writer and nobody else.

use super::Standstill;
use super::backlog::Backlog;
use bytes::Bytes;
use http::HeaderMap;
use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Where a direction's bytes come from. To be polled by one task.
pub trait Source {
    /// Why nothing more comes.
    type Error;

    /// The next bytes; `None` when there are no more of them.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Self::Error>>;

    /// The trailers, if there are any; the data has come to its end.
    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, Self::Error>>;

    /// Whether it has ended and nothing of it is left to take.
    fn is_over(&self) -> bool;

    /// So many bytes that it gave are done with: their sender may send as many more.
    fn release(&mut self, bytes: usize);
}

/// Where they go to.
pub trait Sink {
    /// How many of so many bytes, more than none, it takes now; `None`: it takes no more at all.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Option<usize>>;

    /// Gives it as many bytes as it takes, which are the end of all when they are the `last`. `None`: it is gone.
    fn send(&mut self, data: Bytes, last: bool) -> Option<()>;
}

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
pub enum Broken<E> {
    /// The side that sends was reset or lost.
    Source(E),
    /// The side that receives was reset or lost, or wants no more.
    Sink,
    /// The side that receives has given no window for `limits.stalled` while bytes waited for it.
    Stalled,
}

/// What is still to come from the source. Trailers stay with their stream until everything before them is given: they take no room in each
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
    backlog: Backlog,
    rest: Rest,
    bytes: u64,
    /// Bytes the sink has taken.
    given: u64,
    standstill: Standstill,
    kept: Option<Kept>,
    /// Bytes at the front of the backlog that have been given before: their window has been returned.
    again: usize,
}

impl Relay {
    /// A sink that takes nothing for `stalled` while bytes wait for it breaks the relay.
    pub fn new(stalled: Duration) -> Relay {
        Relay {
            backlog: Backlog::default(),
            rest: Rest::Data,
            bytes: 0,
            given: 0,
            standstill: Standstill::new(stalled),
            kept: None,
            again: 0,
        }
    }

    /// Whether nothing will come of `source`: it has ended, and all of it was given.
    pub fn is_empty(&self, source: &impl Source) -> bool {
        source.is_over() && self.backlog.is_empty()
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

    /// Moves what can be moved now. Ready once, when the direction has ended.
    pub fn poll<S: Source>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
        sink: &mut impl Sink,
    ) -> Poll<Result<Relayed, Broken<S::Error>>> {
        match self.relay(cx, source, sink) {
            Poll::Pending if !self.backlog.is_empty() => self.standstill.poll(cx, self.given).map(|()| Err(Broken::Stalled)),
            moved => moved,
        }
    }

    fn relay<S: Source>(&mut self, cx: &mut Context<'_>, source: &mut S, sink: &mut impl Sink) -> Poll<Result<Relayed, Broken<S::Error>>> {
        loop {
            self.take(cx, source)?;
            if !self.backlog.is_empty() {
                match self.give(cx, source, sink) {
                    Poll::Ready(Some(Given::AndEnded)) => return Poll::Ready(Ok(Relayed::Ended)),
                    Poll::Ready(Some(Given::All)) => continue, // that returned window, so more may have come
                    Poll::Ready(None) => return Poll::Ready(Err(Broken::Sink)),
                    Poll::Pending => {
                        self.backlog.settle();
                        return Poll::Pending;
                    }
                }
            }
            return if self.rest == Rest::Data { Poll::Pending } else { self.end(cx, source, sink) };
        }
    }

    /// Takes everything that has come.
    fn take<S: Source>(&mut self, cx: &mut Context<'_>, source: &mut S) -> Result<(), Broken<S::Error>> {
        while self.rest == Rest::Data {
            match source.poll_data(cx) {
                Poll::Ready(Ok(Some(data))) => {
                    self.bytes += data.len() as u64;
                    self.backlog.push(data);
                }
                Poll::Ready(Err(error)) => return Err(Broken::Source(error)),
                Poll::Ready(Ok(None)) => self.rest = if source.is_over() { Rest::Nothing } else { Rest::Trailers },
                Poll::Pending => return Ok(()),
            }
        }
        Ok(())
    }

    /// Sends as much of the backlog as the sink takes. `None`: it takes no more.
    fn give(&mut self, cx: &mut Context<'_>, source: &mut impl Source, sink: &mut impl Sink) -> Poll<Option<Given>> {
        while !self.backlog.is_empty() {
            let Some(room) = ready!(sink.poll_room(cx, self.backlog.len())) else { return Poll::Ready(None) };
            let data = self.backlog.pop(room);
            let length = data.len();
            let again = length.min(self.again);
            self.again -= again;
            if self.kept.as_mut().is_some_and(|kept| !kept.take(&data)) {
                self.kept = None;
            }
            let last = self.backlog.is_empty() && (self.rest == Rest::Nothing || source.is_over());
            self.given += length as u64;
            let sent = sink.send(data, last);
            source.release(length - again);
            if sent.is_none() {
                return Poll::Ready(None);
            }
            if last {
                return Poll::Ready(Some(Given::AndEnded));
            }
        }
        Poll::Ready(Some(Given::All))
    }

    /// All data is given.
    fn end<S: Source>(&mut self, cx: &mut Context<'_>, source: &mut S, sink: &mut impl Sink) -> Poll<Result<Relayed, Broken<S::Error>>> {
        let trailers = match self.rest {
            Rest::Trailers => ready!(source.poll_trailers(cx)).map_err(Broken::Source)?,
            Rest::Data | Rest::Nothing => None,
        };
        Poll::Ready(match trailers {
            Some(trailers) => {
                self.kept = None; // trailers are the caller's from here on
                Ok(Relayed::Trailers(trailers))
            }
            None => sink.send(Bytes::new(), true).map(|()| Relayed::Ended).ok_or(Broken::Sink),
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
