//! Drives one connection to the upstream: reads what comes, a part at a time, and writes what waits. Every task that holds a connection
//! does it through this.

use super::connection::Connection;
use super::frame::kind;
use super::inlet::Inlet;
use super::requests::Requests;
use crate::http2::{Io, Standstill, after_everybody_else};
use h2::Reason;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;

/// What is read before others get their turn, in bytes: a millisecond or two of the worst of floods. With half as much long streams
/// of small messages take a tenth more CPU.
const PART: usize = 128 * 1024;

/// What waits to be written before nothing more is read, in bytes: far more than calls put there. Beyond it are answers to what has come
/// (window that was given back, acknowledgements, resets), which whoever takes nothing could ask for without end.
pub(super) const MOST_UNWRITTEN: usize = 512 * 1024;

/// How long a header block may stay unfinished.
const HEADER_BLOCK: Duration = Duration::from_secs(10);

/// Ready when the connection has ended; the error is why, in words, unless it ended as it should.
pub(in super::super) struct Driver<S = Io> {
    connection: Rc<Connection>,
    io: S,
    inlet: Inlet,
    /// For a header block that is not ended.
    timer: Option<Pin<Box<Sleep>>>,
    /// For a socket that takes nothing.
    standstill: Standstill,
    /// Grows with all the socket takes: its bytes, and each flush that came to its end.
    moved: u64,
    /// Bytes have been written and not flushed.
    unflushed: bool,
    /// There may be more to be read than was: too much waited to be written.
    held_back: bool,
}

/// Why a connection ended.
enum End {
    /// As it should: nobody needs it any more, or the upstream closed it.
    Closed,
    Failed(Rc<str>),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        End::Failed(error.to_string().into())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Drives `connection` on `io`, which may take nothing for `stalled`; and what opens streams on it.
    pub(in super::super) fn new(connection: Rc<Connection>, io: S, stalled: Duration) -> (Driver<S>, Requests) {
        let requests = Requests::new(&connection);
        let (inlet, standstill) = (Inlet::default(), Standstill::new(stalled));
        (Driver { connection, io, inlet, timer: None, standstill, moved: 0, unflushed: false, held_back: false }, requests)
    }

    /// Does all that can be done now.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Poll::Ready(end) = self.read(cx) {
            // What it is told of why, or waited only to be written.
            let _ = self.write(cx);
            return Poll::Ready(end);
        }
        if let Poll::Ready(end) = self.write(cx) {
            // What it said last tells more than that it takes nothing any more.
            let _ = self.read(cx);
            return Poll::Ready(end);
        }
        if self.held_back && self.connection.unwritten() <= MOST_UNWRITTEN {
            self.held_back = false;
            after_everybody_else(cx);
        }
        if let Poll::Ready(end) = self.watch_block(cx) {
            return Poll::Ready(end);
        }
        if self.connection.is_needed_no_more() { self.close(cx) } else { Poll::Pending }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let mut left = PART;
        while left > 0 {
            if self.connection.unwritten() > MOST_UNWRITTEN {
                self.held_back = true;
                return Poll::Pending;
            }
            match ready!(self.inlet.poll_read(cx, &mut self.io, &self.connection)) {
                Ok(Ok(0)) => return Poll::Ready(self.closed()),
                Ok(Ok(came)) => {
                    self.connection.heard.set(true);
                    if std::mem::take(&mut self.inlet.block_ended) {
                        self.timer = None; // what is unfinished now is another
                    }
                    left = left.saturating_sub(came + self.connection.toil.take());
                }
                Ok(Err(breach)) => return Poll::Ready(self.breach(breach)),
                Err(error) => return Poll::Ready(error.into()),
            }
        }
        after_everybody_else(cx);
        Poll::Pending
    }

    /// The upstream has ended it.
    fn closed(&self) -> End {
        match self.connection.complaint.take() {
            Some(why) => End::Failed(why),
            None if self.connection.streams.borrow().is_empty() => End::Closed,
            None => End::Failed("it closed the connection".into()),
        }
    }

    fn breach(&self, reason: Reason) -> End {
        // There is no stream of its own that we could have seen.
        self.connection.frame(kind::GOAWAY, 0, 0, &[[0; 4], u32::from(reason).to_be_bytes()].concat());
        End::Failed(format!("it broke the rules of HTTP/2: {reason}").into())
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        match self.write_all(cx) {
            Poll::Pending => {
                self.connection.blocked.set(true);
                ready!(self.standstill.poll(cx, self.moved));
                self.connection.stalled.set(true);
                Poll::Ready(End::Failed("it takes nothing while bytes wait for it".into()))
            }
            Poll::Ready(Ok(())) => {
                self.connection.blocked.set(false);
                Poll::Pending
            }
            Poll::Ready(Err(error)) => Poll::Ready(error.into()),
        }
    }

    fn write_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut outbox = self.connection.outbox.borrow_mut();
        while outbox.len() > 0 {
            let written = ready!(outbox.poll_write(cx, &mut self.io))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.moved += written as u64;
            self.unflushed = true;
            self.connection.written.set(self.connection.written.get() + written as u64);
            self.connection.moved.set(true);
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
            self.moved += 1;
            self.connection.moved.set(true);
        }
        Poll::Ready(Ok(()))
    }

    /// An error when a header block was begun and not ended.
    fn watch_block(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if !self.inlet.is_within_a_block() {
            self.timer = None;
            return Poll::Pending;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(HEADER_BLOCK)));
        timer.as_mut().poll(cx).map(|()| End::Failed("an unfinished header block".into()))
    }

    /// Nobody needs it any more.
    fn close(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let Poll::Ready(shut) = Pin::new(&mut self.io).poll_shutdown(cx) else {
            return self.standstill.poll(cx, self.moved).map(|()| End::Closed);
        };
        Poll::Ready(match (self.connection.complaint.take(), shut) {
            (Some(why), _) => End::Failed(why),
            (None, Err(error)) => error.into(),
            (None, Ok(())) => End::Closed,
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Driver<S> {
    type Output = Result<(), Rc<str>>;

    fn poll(mut self: Pin<&mut Driver<S>>, cx: &mut Context<'_>) -> Poll<Result<(), Rc<str>>> {
        let this = &mut *self;
        // Nobody needs to wake it for what is put before it writes.
        let waker = this.connection.driver.take().filter(|waker| waker.will_wake(cx.waker()));
        match this.turn(cx) {
            Poll::Pending => {
                this.connection.driver.set(Some(waker.unwrap_or_else(|| cx.waker().clone())));
                this.connection.driven();
                Poll::Pending
            }
            Poll::Ready(End::Closed) => {
                this.connection.end("closed".into());
                Poll::Ready(Ok(()))
            }
            Poll::Ready(End::Failed(why)) => {
                this.connection.end(why.clone());
                Poll::Ready(Err(why))
            }
        }
    }
}

/// However it ends, also when its task is aborted, calls do not wait for it.
impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        if self.connection.is_open() {
            self.connection.end("nobody drives it any more".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{OK, Once, Woken, frame};
    use super::*;
    use socket2::SockRef;
    use std::collections::VecDeque;
    use std::io::{ErrorKind, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::task::Waker;
    use tokio::io::ReadBuf;
    use tokio::task::{LocalSet, yield_now};

    #[test]
    fn a_flood_is_read_in_parts_and_everybody_else_comes_between_them() {
        /// A frame that says nothing: of a type that nobody knows (RFC 9113 §4.1), and as long as a frame may be.
        const HEAD: [u8; 9] = [0, 0x40, 0, 0xff, 0, 0, 0, 0, 0];
        const MINUTE: Duration = Duration::from_secs(60);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let (near, mut far) = UnixStream::pair().unwrap();
            near.set_nonblocking(true).unwrap();
            far.set_nonblocking(true).unwrap();
            SockRef::from(&far).set_send_buffer_size(208 << 10).unwrap(); // twice that is had, on every Linux
            let near = tokio::net::UnixStream::from_std(near).unwrap();
            let (driver, _requests) = Driver::new(Connection::new(1 << 20, 1 << 16, 1024), Io::Unix(near), MINUTE);
            far.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap(); // SETTINGS
            let frame = [&HEAD[..], &[0; 0x4000]].concat();
            let mut sent = 0;
            // As much as the socket has room for: what has been read since it was last full.
            let mut fill = || {
                let before = sent;
                loop {
                    match far.write(&frame[sent % frame.len()..]) {
                        Ok(bytes) => sent += bytes,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return sent - before,
                        Err(error) => panic!("{error}"),
                    }
                }
            };
            assert!(fill() > 2 * PART, "or it would prove nothing");
            let driving = tokio::task::spawn_local(driver);
            let mut read = 0;
            for turn in 0..100 {
                yield_now().await;
                let part = fill();
                assert!(part < 2 * PART, "turn {turn}: {part} bytes");
                read += part;
            }
            assert!(read >= 25 * PART && !driving.is_finished(), "{read} bytes in 100 turns");
        });
    }

    /// A socket of which nothing is real.
    #[derive(Default)]
    struct Fake {
        /// What comes with each read, and nothing after it; nothing at all at one that is empty.
        comes: VecDeque<Vec<u8>>,
        /// Bytes it takes, or else it is broken.
        takes: Option<usize>,
    }

    impl AsyncRead for Fake {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let Some(mut came) = self.comes.pop_front().filter(|came| !came.is_empty()) else { return Poll::Pending };
            let later = came.split_off(came.len().min(to.remaining()));
            to.put_slice(&came);
            if !later.is_empty() {
                self.comes.push_front(later);
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Fake {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            match self.takes {
                None => Poll::Ready(Err(ErrorKind::BrokenPipe.into())),
                Some(0) => Poll::Pending,
                Some(takes) => {
                    let taken = takes.min(bytes.len());
                    self.takes = Some(takes - taken);
                    Poll::Ready(Ok(taken))
                }
            }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn driven(fake: Fake, stalled: Duration) -> (Rc<Connection>, Driver<Fake>, Requests) {
        let connection = Connection::new(1 << 16, 100, 1024);
        let (driver, requests) = Driver::new(connection.clone(), fake, stalled);
        (connection, driver, requests)
    }

    const HOUR: Duration = Duration::from_secs(3600);
    const NOTHING: Vec<u8> = Vec::new();
    const END_HEADERS: u8 = super::super::frame::flag::END_HEADERS;

    fn settings() -> Vec<u8> {
        frame(kind::SETTINGS, 0, 0, &[])
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    #[test]
    fn a_socket_that_takes_nothing_ends_it() {
        let (connection, driver, _requests) = driven(Fake { takes: Some(10), ..Fake::default() }, Duration::from_millis(50));
        let why = run(driver).unwrap_err();
        assert!(connection.stalled() && why.contains("takes nothing"), "{why}");
    }

    #[test]
    fn a_header_block_that_is_not_ended_ends_it() {
        run(async {
            let block = [settings(), frame(kind::HEADERS, 0, 1, OK)].concat();
            let (_, mut driver, requests) = driven(Fake { comes: [block].into(), takes: Some(usize::MAX) }, HOUR);
            let _stream = requests.open(OK, true);
            assert!(once(&mut driver).is_pending());
            let timer = driver.timer.as_mut().unwrap().as_mut();
            assert!(timer.deadline() <= tokio::time::Instant::now() + HEADER_BLOCK);
            timer.reset(tokio::time::Instant::now());
            assert_eq!(&*driver.await.unwrap_err(), "an unfinished header block");
        });
    }

    #[test]
    fn each_header_block_has_all_the_time() {
        run(async {
            let begun = |stream| frame(kind::HEADERS, 0, stream, OK);
            let (_, mut driver, requests) = driven(Fake { comes: [[settings(), begun(1)].concat()].into(), takes: Some(usize::MAX) }, HOUR);
            let _streams = [requests.open(OK, true), requests.open(OK, true)];
            assert!(once(&mut driver).is_pending());
            driver.timer.as_mut().unwrap().as_mut().reset(tokio::time::Instant::now());
            // In one read the first ends, and another begins.
            driver.io.comes.push_back([frame(kind::CONTINUATION, END_HEADERS, 1, &[]), begun(3)].concat());
            assert!(once(&mut driver).is_pending());
            assert!(driver.timer.as_ref().unwrap().deadline() > tokio::time::Instant::now() + HEADER_BLOCK / 2);
        });
    }

    #[test]
    fn one_that_is_dropped_takes_its_calls_along() {
        let (_, driver, requests) = driven(Fake::default(), HOUR);
        let mut stream = requests.open(OK, true).unwrap();
        assert!(stream.head().is_none());
        drop(driver);
        assert!(stream.head().unwrap().unwrap_err().unseen && requests.open(OK, true).is_none());
    }

    #[test]
    fn what_it_said_last_is_read_although_it_takes_nothing_any_more() {
        run(async {
            let goaway = frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
            let answer = frame(kind::HEADERS, 5, 1, OK);
            let comes = [settings(), NOTHING, NOTHING, [answer, goaway].concat()].into();
            let (connection, mut driver, requests) = driven(Fake { comes, takes: Some(usize::MAX) }, HOUR);
            assert!(once(&mut driver).is_pending());
            let (mut stream, mut unseen) = (requests.open(OK, true).unwrap(), requests.open(OK, true).unwrap());
            driver.io.takes = None;
            assert!(once(&mut driver).is_ready());
            assert!(stream.head().unwrap().is_ok() && unseen.head().unwrap().unwrap_err().unseen && connection.going_away());
        });
    }

    #[test]
    fn it_ends_when_nobody_needs_it_and_not_before() {
        run(async {
            let fake = Fake { comes: [settings()].into(), takes: Some(usize::MAX) };
            let (_, mut driver, requests) = driven(fake, HOUR);
            let stream = requests.open(OK, true);
            drop(requests);
            assert!(once(&mut driver).is_pending());
            drop(stream);
            assert_eq!(once(&mut driver), Poll::Ready(Ok(())));
        });
    }

    /// Padding in windows that are used up is given back at once: 26 bytes for each 10 that come.
    #[test]
    fn what_waits_for_who_takes_nothing_has_a_bound() {
        run(async {
            let fill = [frame(kind::HEADERS, 4, 1, OK), frame(kind::DATA, 0, 1, &[0; 98])].concat();
            let flood = frame(kind::DATA, 8, 1, &[0]).repeat(10_000);
            let comes = [vec![settings(), fill], vec![flood; 20]].concat().into();
            let (connection, mut driver, requests) = driven(Fake { comes, takes: Some(usize::MAX) }, HOUR);
            let _stream = requests.open(OK, true);
            driver.io.takes = Some(1000);
            for _ in 0..100 {
                assert!(once(&mut driver).is_pending());
            }
            let waits = connection.outbox.borrow().len();
            assert!((MOST_UNWRITTEN..MOST_UNWRITTEN + 128 * 1024).contains(&waits), "{waits}");
            driver.io.takes = Some(usize::MAX);
            // From here on only when it is woken.
            for turn in 0..100 {
                let woken = Arc::new(Woken::default());
                assert!(Pin::new(&mut driver).poll(&mut Context::from_waker(&woken.clone().into())).is_pending());
                yield_now().await;
                if woken.times() == 0 {
                    assert!(turn > 10);
                    break;
                }
            }
            assert!(driver.io.comes.is_empty(), "it goes on as soon as something is taken");
        });
    }

    fn once<S: AsyncRead + AsyncWrite + Unpin>(driver: &mut Driver<S>) -> Poll<Result<(), Rc<str>>> {
        Pin::new(driver).poll(&mut Context::from_waker(Waker::noop()))
    }
}
