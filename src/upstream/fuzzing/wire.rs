//! The socket between the two sides: what comes in pieces, what it takes, and who was woken.

use super::ledger::Ledger;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Whether somebody was woken.
#[derive(Default)]
pub(super) struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Flag>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Flag {
    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// The upstream's end.
pub(super) struct Wire {
    pub(super) coming: VecDeque<u8>,
    /// Read at a time, in bytes.
    pub(super) piece: usize,
    pub(super) closed: bool,
    reader: Option<Waker>,
    /// Bytes it still takes.
    pub(super) takes: usize,
    pub(super) broken: bool,
    writer: Option<Waker>,
    pub(super) ledger: Ledger,
}

impl Wire {
    /// One that takes everything, and gives what there is.
    pub(super) fn new(ledger: Ledger) -> Rc<RefCell<Wire>> {
        let (piece, takes) = (usize::MAX, usize::MAX);
        let coming = VecDeque::new();
        Rc::new(RefCell::new(Wire { coming, piece, closed: false, reader: None, takes, broken: false, writer: None, ledger }))
    }

    /// Whoever waits for it is woken.
    pub(super) fn changed(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

/// Doorward's end.
pub(super) struct Socket(pub(super) Rc<RefCell<Wire>>);

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.0.borrow_mut();
        assert!(buf.remaining() > 0, "what has no room looks like an end");
        let length = wire.piece.min(buf.remaining()).min(wire.coming.len());
        if length == 0 && !wire.closed {
            wire.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let came: Vec<u8> = wire.coming.drain(..length).collect();
        buf.put_slice(&came);
        wire.ledger.heard(&came);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut wire = self.0.borrow_mut();
        assert!(!bytes.is_empty(), "nothing is to be written");
        if wire.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let taken = wire.takes.min(bytes.len());
        if taken == 0 {
            wire.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        wire.takes -= if wire.takes == usize::MAX { 0 } else { taken };
        wire.ledger.said(bytes.get(..taken).unwrap_or_default());
        Poll::Ready(Ok(taken))
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.as_mut().poll_write(cx, &all)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
