//! What has been read of a connection: cut into frames, header blocks joined. One buffer a connection; what of it is for a call is copied
//! from it, so that nothing that waits keeps more than itself.

use super::connection::Connection;
use super::frame::{HEAD, Head, MOST, content, flag, kind};
use super::receive::Breach;
use h2::Reason;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};

/// What is read at a time, in bytes: two of the largest frames.
const ROOM: usize = 2 * (HEAD + MOST);

/// A header block of more bytes ends the connection; below, only its stream. Far above every limit on what it stands for.
const LARGEST_BLOCK: usize = 2 * 1024 * 1024;

/// Bytes that have come and have not been taken.
#[derive(Debug, Default)]
pub(super) struct Inlet {
    /// Of [`ROOM`], once something has been read.
    bytes: Box<[u8]>,
    filled: usize,
    /// A header block whose end has not come.
    block: Option<(Head, Vec<u8>)>,
}

impl Inlet {
    /// Reads once, and has `connection` take the frames that are whole; how many bytes came. A breach is the end of it.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncRead + Unpin),
        connection: &Connection,
    ) -> Poll<io::Result<Result<usize, Breach>>> {
        if self.bytes.is_empty() {
            self.bytes = vec![0; ROOM].into();
        }
        let mut room = ReadBuf::new(self.bytes.get_mut(self.filled..).unwrap_or_default());
        ready!(Pin::new(io).poll_read(cx, &mut room))?;
        let came = room.filled().len();
        self.filled += came;
        Poll::Ready(Ok(self.take_frames(connection).map(|()| came)))
    }

    /// Whether a header block has begun and its last byte has not come.
    pub(super) fn is_within_a_block(&self) -> bool {
        self.block.is_some() || self.begun().is_some_and(|head| head.kind == kind::HEADERS)
    }

    /// The frame that has begun, as far as it is known.
    fn begun(&self) -> Option<Head> {
        self.bytes.get(..self.filled)?.first_chunk().map(|head| Head::parse(*head))
    }

    fn take_frames(&mut self, connection: &Connection) -> Result<(), Breach> {
        let bytes = std::mem::take(&mut self.bytes);
        let mut rest = bytes.get(..self.filled).unwrap_or_default();
        let taken = loop {
            let Some((head, after)) = rest.split_first_chunk::<HEAD>() else { break Ok(()) };
            let head = Head::parse(*head);
            if head.length > MOST {
                break Err(Reason::FRAME_SIZE_ERROR);
            }
            let Some((payload, after)) = after.split_at_checked(head.length) else { break Ok(()) };
            rest = after;
            if let Err(breach) = self.take_frame(connection, head, payload) {
                break Err(breach);
            }
        };
        let left = rest.len();
        let from = self.filled - left;
        (self.bytes, self.filled) = (bytes, left);
        if from > 0 && left > 0 {
            self.bytes.copy_within(from..from + left, 0);
        }
        taken
    }

    fn take_frame(&mut self, connection: &Connection, head: Head, payload: &[u8]) -> Result<(), Breach> {
        match (&mut self.block, head.kind) {
            (None, kind::HEADERS) => {
                let part = content(head, payload)?;
                if head.has(flag::END_HEADERS) {
                    return connection.receive_headers(head, part);
                }
                self.block = Some((head, part.to_vec()));
                Ok(())
            }
            (Some((first, block)), kind::CONTINUATION) if first.stream == head.stream => {
                if block.len() + payload.len() > LARGEST_BLOCK {
                    connection.receive_too_large(*first);
                    return Err(Reason::ENHANCE_YOUR_CALM);
                }
                block.extend_from_slice(payload);
                match self.block.take_if(|_| head.has(flag::END_HEADERS)) {
                    Some((first, block)) => connection.receive_headers(first, &block),
                    None => Ok(()),
                }
            }
            // Nothing may come between the frames of a header block (RFC 9113 §4.3).
            (Some(_), _) => Err(Reason::PROTOCOL_ERROR),
            (None, _) => connection.receive(head, payload),
        }
    }
}
