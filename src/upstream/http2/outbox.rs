//! What a connection has to write: frames in the order in which they were put here. Small ones are gathered and go out in one write;
//! large payloads are written from where they are.

use super::frame::Head;
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// Payloads below this are copied, in bytes.
const SMALL: usize = 4 * 1024;

/// What is kept of an outbox that is empty, in bytes.
const SPARE: usize = 16 * 1024;

/// Written at a time.
const PIECES: usize = 32;

/// Bytes on their way to a socket.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Before the tail.
    pieces: VecDeque<Bytes>,
    tail: Vec<u8>,
    /// Of the tail, when there are no pieces.
    taken: usize,
    length: usize,
    /// Bytes that were ever put here.
    put: u64,
}

impl Outbox {
    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Bytes that were ever put here.
    pub(super) fn put(&self) -> u64 {
        self.put
    }

    /// Puts a whole frame.
    pub(super) fn frame(&mut self, head: Head, payload: &[u8]) {
        self.bytes(&head.bytes());
        self.bytes(payload);
    }

    /// Puts a frame with a payload that may be large.
    pub(super) fn data(&mut self, head: Head, payload: Bytes) {
        self.bytes(&head.bytes());
        if payload.len() < SMALL {
            return self.bytes(&payload);
        }
        self.count(payload.len());
        let mut before = Bytes::from(std::mem::take(&mut self.tail));
        before.advance(std::mem::take(&mut self.taken));
        self.pieces.extend([before, payload]);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.tail.extend_from_slice(bytes);
    }

    fn count(&mut self, bytes: usize) {
        self.length += bytes;
        self.put += bytes as u64;
    }

    /// Writes some of what waits, which is not nothing; how many bytes of it.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, io: &mut (impl AsyncWrite + Unpin)) -> Poll<io::Result<usize>> {
        let written = if self.pieces.is_empty() {
            let rest = self.tail.get(self.taken..).unwrap_or_default();
            ready!(Pin::new(io).poll_write(cx, rest))?
        } else {
            let mut slices = [IoSlice::new(&[]); PIECES];
            let all = self.pieces.iter().map(|piece| &piece[..]).chain([&self.tail[..]]);
            let count = slices.iter_mut().zip(all).map(|(slice, piece)| *slice = IoSlice::new(piece)).count();
            ready!(Pin::new(io).poll_write_vectored(cx, slices.get(..count).unwrap_or_default()))?
        };
        self.take(written);
        Poll::Ready(Ok(written))
    }

    fn take(&mut self, mut written: usize) {
        self.length -= written;
        while let Some(piece) = self.pieces.front_mut() {
            let taken = written.min(piece.len());
            piece.advance(taken);
            written -= taken;
            if !piece.is_empty() {
                return;
            }
            self.pieces.pop_front();
        }
        self.taken += written;
        if self.taken == self.tail.len() {
            self.taken = 0;
            self.tail.clear();
            self.tail.shrink_to(SPARE);
        }
    }
}
