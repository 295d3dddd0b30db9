//! DATA that has come and waits to be sent on, in order and in as little memory as it has bytes.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// Chunks below this are copied together while they wait, in bytes. A chunk is a part of the buffer it was read into, which
/// is of this size or little more than the chunk, and keeps all of it: so a sender of small frames, with whatever between
/// them, cannot make us hold a multiple of what its window allows.
const SMALL: usize = 8 * 1024;

/// Data that has been taken and not yet given, in order.
#[derive(Debug, Default)]
pub(super) struct Backlog {
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
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Puts data after everything else.
    pub(super) fn push(&mut self, data: Bytes) {
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
    pub(super) fn put_back(&mut self, data: Bytes) {
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
    pub(super) fn pop(&mut self, most: usize) -> Bytes {
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

    /// What is left will wait: a small front lets go of the buffer it came in.
    pub(super) fn settle(&mut self) {
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
