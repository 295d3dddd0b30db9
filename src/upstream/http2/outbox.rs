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

#[cfg(test)]
mod tests {
    use super::super::frame::kind;
    use super::super::testing;
    use super::*;
    use proptest::prelude::*;
    use std::task::Waker;

    /// Takes so many bytes at a time.
    struct Narrow(Vec<u8>, usize);

    impl AsyncWrite for Narrow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let taken = self.1.min(bytes.len());
            self.0.extend_from_slice(&bytes[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(self.1).collect();
            self.poll_write(cx, &all)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn write(outbox: &mut Outbox, socket: &mut Narrow) {
        let before = outbox.len();
        let Poll::Ready(written) = outbox.poll_write(&mut Context::from_waker(Waker::noop()), socket) else { unreachable!() };
        assert_eq!(outbox.len(), before - written.unwrap());
    }

    proptest! {
        #[test]
        fn all_comes_out_whole_and_in_order(
            steps in proptest::collection::vec((any::<u8>(), prop_oneof![0..20_usize, SMALL - 2..SMALL + 2, 6_000..9_000_usize], 0..4_usize), 1..50),
            at_a_time in prop_oneof![300..3000_usize, 3000..100_000_usize],
        ) {
            let (mut outbox, mut socket, mut expected) = (Outbox::default(), Narrow(Vec::new(), at_a_time), Vec::new());
            for (filling, length, writes) in steps {
                let payload = vec![filling; length];
                let head = Head { length, kind: kind::DATA, flags: 0, stream: 1 };
                expected.extend(testing::frame(kind::DATA, 0, 1, &payload));
                if filling % 2 == 0 { outbox.frame(head, &payload) } else { outbox.data(head, payload.into()) }
                for _ in 0..writes {
                    if outbox.len() > 0 {
                        write(&mut outbox, &mut socket);
                    }
                }
                prop_assert_eq!(outbox.len(), expected.len() - socket.0.len());
                prop_assert_eq!(outbox.put(), expected.len() as u64);
            }
            while outbox.len() > 0 {
                write(&mut outbox, &mut socket);
            }
            prop_assert!(socket.0 == expected);
            prop_assert!(outbox.tail.capacity() <= SPARE && outbox.pieces.is_empty() && outbox.taken == 0);
        }
    }

    #[test]
    fn nothing_is_kept_of_a_burst_beyond_little() {
        let (mut outbox, mut socket) = (Outbox::default(), Narrow(Vec::new(), usize::MAX));
        outbox.bytes(&[0; 100 * SPARE]);
        write(&mut outbox, &mut socket);
        assert!((1..=SPARE).contains(&outbox.tail.capacity()), "{}", outbox.tail.capacity());
    }

    #[test]
    fn large_payloads_are_not_copied() {
        let mut outbox = Outbox::default();
        let payload = Bytes::from(vec![1; SMALL]);
        let at = payload.as_ptr();
        outbox.data(Head { length: SMALL, kind: kind::DATA, flags: 0, stream: 1 }, payload);
        assert!(outbox.pieces.iter().any(|piece| piece.as_ptr() == at));
    }
}
