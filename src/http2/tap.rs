//! The frame tap: sits between the socket and h2, reads the frame headers that come in, and holds the timers that h2
//! cannot: the handshake (until the first SETTINGS) and any unfinished header block. Costs nothing while neither runs.

use super::frames::FrameScanner;
use super::io::Io;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What the owner of a connection can ask about it while h2 owns the socket.
#[derive(Debug, Default)]
pub struct TapState {
    settings_seen: Cell<bool>,
    going_away: Cell<bool>,
    timed_out: Cell<Option<&'static str>>,
    /// Something has come since this was last asked.
    heard: Cell<bool>,
    /// HEADERS or DATA has come since this was last asked.
    message: Cell<bool>,
    /// Bytes the socket has taken.
    written: Cell<u64>,
    /// Streams with a header block larger on the wire than any acceptable one.
    oversized: RefCell<Vec<u32>>,
    /// Who waits for the first SETTINGS.
    waiting: RefCell<Option<Waker>>,
}

impl TapState {
    /// Ready once the peer's first SETTINGS frame has come whole: only then is a connection up.
    pub fn poll_settings(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.settings_seen.get() {
            return Poll::Ready(());
        }
        *self.waiting.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether the peer has sent GOAWAY: no new stream may be opened.
    pub fn going_away(&self) -> bool {
        self.going_away.get()
    }

    /// Whether a header block of this stream was larger on the wire than any acceptable one. h2 drops what exceeds its
    /// limit from trailers without a word, so what it hands over proves nothing.
    pub fn take_oversized(&self, stream: u32) -> bool {
        let mut oversized = self.oversized.borrow_mut();
        let before = oversized.len();
        oversized.retain(|noted| *noted != stream);
        oversized.len() < before
    }

    /// Whether anything has come since this was last asked.
    pub fn take_heard(&self) -> bool {
        self.heard.replace(false)
    }

    /// Whether HEADERS or DATA has come since this was last asked: what gRPC servers count PINGs by.
    pub fn take_message(&self) -> bool {
        self.message.replace(false)
    }

    /// Bytes the socket has taken so far.
    pub fn written(&self) -> u64 {
        self.written.get()
    }

    fn wrote(&self, outcome: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = outcome {
            self.written.set(self.written.get() + *bytes as u64);
        }
    }

    /// Which of the tap's own timers ended the connection: `handshake` or `header_block`.
    pub fn timed_out(&self) -> Option<&'static str> {
        self.timed_out.get()
    }
}

/// Streams noted at a time.
const MOST_OVERSIZED: usize = 1024;

/// A socket whose inbound frames are watched.
#[derive(Debug)]
pub struct FrameTap {
    io: Io,
    scanner: FrameScanner,
    state: Rc<TapState>,
    /// How long a header block may stay unfinished.
    header_block: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl FrameTap {
    /// A connection accepted from a client: 24 bytes of preface come first, and everything up to its first SETTINGS must
    /// have come by `handshake`.
    pub fn accepted(io: Io, handshake: Instant, header_block: Duration) -> (FrameTap, Rc<TapState>) {
        // Oversized requests are answered from what h2 hands over, and requests have no trailers worth a status.
        FrameTap::new(io, FrameScanner::new(24, usize::MAX), Some(handshake), header_block)
    }

    /// A connection made to a server; who connects watches the time until its first SETTINGS. Header blocks of more than
    /// `header_bytes` on the wire are noted.
    pub fn connected(io: Io, header_block: Duration, header_bytes: usize) -> (FrameTap, Rc<TapState>) {
        FrameTap::new(io, FrameScanner::new(0, header_bytes), None, header_block)
    }

    fn new(io: Io, scanner: FrameScanner, handshake: Option<Instant>, header_block: Duration) -> (FrameTap, Rc<TapState>) {
        let state = Rc::new(TapState::default());
        let timer = handshake.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
        (FrameTap { io, scanner, state: state.clone(), header_block, timer }, state)
    }

    fn inbound(&mut self, bytes: &[u8]) {
        self.scanner.advance(bytes);
        self.state.heard.set(true);
        if std::mem::take(&mut self.scanner.message) {
            self.state.message.set(true);
        }
        for stream in self.scanner.oversized.drain(..) {
            let mut oversized = self.state.oversized.borrow_mut();
            // Calls take theirs when they end; a peer that sends more than that to streams nobody reads is not counted.
            if oversized.len() < MOST_OVERSIZED && !oversized.contains(&stream) {
                oversized.push(stream);
            }
        }
        if self.scanner.going_away {
            self.state.going_away.set(true);
        }
        if self.scanner.settings_seen && !self.state.settings_seen.replace(true) {
            self.timer = None;
            if let Some(waker) = self.state.waiting.borrow_mut().take() {
                waker.wake();
            }
        }
        if !self.scanner.settings_seen {
            return; // the handshake's own timer runs, and covers blocks sent before SETTINGS
        }
        if !self.scanner.block_open {
            self.timer = None;
        } else if self.timer.is_none() {
            self.timer = Some(Box::pin(tokio::time::sleep(self.header_block)));
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(timer) = self.timer.as_mut() else { return Poll::Pending };
        std::task::ready!(timer.as_mut().poll(cx));
        let which = if self.scanner.settings_seen { "header_block" } else { "handshake" };
        self.state.timed_out.set(Some(which));
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, which))
    }
}

impl AsyncRead for FrameTap {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                self.inbound(buf.filled().get(before..).unwrap_or_default());
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_timer(cx).map(Err),
        }
    }
}

impl AsyncWrite for FrameTap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(cx, buf);
        self.state.wrote(&outcome);
        match outcome {
            Poll::Pending => self.poll_timer(cx).map(Err),
            ready => ready,
        }
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.state.wrote(&outcome);
        match outcome {
            Poll::Pending => self.poll_timer(cx).map(Err),
            ready => ready,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Pending => self.poll_timer(cx).map(Err),
            ready => ready,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
