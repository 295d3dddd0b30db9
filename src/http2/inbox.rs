//! What has been read from a socket and not yet been taken: h2 reads some kilobytes at a time, a system call each; and frames can
//! be joined only where they are together.

use std::io;
use std::task::{Poll, ready};
use tokio::io::ReadBuf;

/// What is read at a time, in bytes: two of the largest frames.
const ROOM: usize = 32 * 1024;

/// Bytes between a socket and who reads from it.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// Of [`ROOM`], once something has been read.
    bytes: Box<[u8]>,
    taken: usize,
    filled: usize,
}

impl Inbox {
    pub(super) fn is_empty(&self) -> bool {
        self.taken == self.filled
    }

    /// Takes what `read` puts into it; it is empty.
    pub(super) fn fill(&mut self, read: impl FnOnce(&mut ReadBuf<'_>) -> Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        if self.bytes.is_empty() {
            self.bytes = vec![0; ROOM].into();
        }
        let mut room = ReadBuf::new(&mut self.bytes);
        ready!(read(&mut room))?;
        (self.taken, self.filled) = (0, room.filled().len());
        Poll::Ready(Ok(()))
    }

    /// Gives as much as there is, or room for it.
    pub(super) fn give(&mut self, to: &mut ReadBuf<'_>) {
        let left = self.bytes.get(self.taken..self.filled).unwrap_or_default();
        let given = left.get(..to.remaining()).unwrap_or(left);
        to.put_slice(given);
        self.taken += given.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_read_is_given_once_in_order_and_the_end_is_passed_on() {
        let mut inbox = Inbox::default();
        let sent: Vec<u8> = (0..100_000_u32).map(|byte| byte as u8).collect();
        let (mut source, mut got) = (&sent[..], Vec::new());
        loop {
            if inbox.is_empty() {
                let filled = inbox.fill(|room| {
                    let (now, later) = source.split_at(source.len().min(room.remaining()).min(20_000));
                    room.put_slice(now);
                    source = later;
                    Poll::Ready(Ok(()))
                });
                assert!(filled.is_ready());
            }
            let mut to = [0; 8192];
            let mut to = ReadBuf::new(&mut to);
            inbox.give(&mut to);
            if to.filled().is_empty() {
                break;
            }
            got.extend_from_slice(to.filled());
        }
        assert!(got == sent);
    }

    #[test]
    fn nothing_is_given_while_nothing_has_come_or_the_socket_is_broken() {
        let mut inbox = Inbox::default();
        let mut to = [0; 8];
        let mut to = ReadBuf::new(&mut to);
        assert!(inbox.fill(|_| Poll::Pending).is_pending());
        assert!(matches!(inbox.fill(|_| Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))), Poll::Ready(Err(_))));
        inbox.give(&mut to);
        assert!(to.filled().is_empty() && inbox.is_empty());
    }
}
