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
const LARGEST_BLOCK: usize = 1024 * 1024;

/// Bytes that have come and have not been taken.
#[derive(Debug, Default)]
pub(super) struct Inlet {
    /// Of [`ROOM`], once something has been read.
    bytes: Box<[u8]>,
    filled: usize,
    /// A header block whose end has not come.
    block: Option<(Head, Vec<u8>)>,
    /// One has ended; for the driver to take.
    pub(super) block_ended: bool,
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
                    self.block_ended = true;
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
                    Some((first, block)) => {
                        self.block_ended = true;
                        connection.receive_headers(first, &block)
                    }
                    None => Ok(()),
                }
            }
            // Nothing may come between the frames of a header block (RFC 9113 §4.3).
            (Some(_), _) => Err(Reason::PROTOCOL_ERROR),
            (None, _) => connection.receive(head, payload),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::failure::Lost;
    use super::super::testing::{OK, Once, TRAILERS, frame, hears, up, written};
    use super::*;
    use proptest::prelude::*;
    use std::task::Waker;

    /// Reads once.
    fn read(inlet: &mut Inlet, connection: &Connection, mut bytes: &[u8]) -> Result<usize, Breach> {
        match inlet.poll_read(&mut Context::from_waker(Waker::noop()), &mut bytes, connection) {
            Poll::Ready(came) => came.unwrap(),
            Poll::Pending => unreachable!("bytes are there"),
        }
    }

    proptest! {
        #[test]
        fn frames_in_pieces_say_what_whole_ones_do(mut cuts in proptest::collection::vec(0..40_000_usize, 0..40)) {
            let sent = [
                frame(kind::HEADERS, 0, 1, OK),
                frame(kind::CONTINUATION, 0, 1, &[]),
                frame(kind::CONTINUATION, flag::END_HEADERS, 1, TRAILERS),
                frame(kind::DATA, 0, 1, &[1; MOST]),
                frame(kind::PING, 0, 0, b"anything"),
                frame(kind::DATA, flag::PADDED, 1, &[3, 7, 7, 0, 0, 0]),
                frame(kind::DATA, 0, 1, &[2; MOST]),
                frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, TRAILERS),
            ]
            .concat();
            cuts.extend([0, sent.len()]);
            cuts.sort_unstable();
            let (connection, requests) = up();
            let mut stream = requests.open(OK, true).unwrap();
            written(&connection);
            let mut inlet = Inlet::default();
            for cut in cuts.windows(2) {
                let mut piece = &sent[cut[0].min(sent.len())..cut[1].min(sent.len())];
                while !piece.is_empty() {
                    let came = read(&mut inlet, &connection, piece).unwrap();
                    prop_assert!(came > 0, "there is always room");
                    piece = &piece[came..];
                }
            }
            let head = stream.head().unwrap().unwrap();
            prop_assert_eq!(&head.headers()["a"], "b");
            prop_assert!(stream.data().unwrap().unwrap() == [&[1; MOST][..], &[7, 7], &[2; MOST]].concat());
            prop_assert!(stream.data().unwrap().unwrap().is_empty() && !inlet.is_within_a_block());
            prop_assert_eq!(written(&connection).iter().filter(|(head, _)| head.kind == kind::PING).count(), 1);
        }
    }

    #[test]
    fn the_largest_of_frames_fill_the_room_and_leave_it_again() {
        let (connection, _requests) = up();
        let mut inlet = Inlet::default();
        let largest = frame(0xff, 0, 0, &[0; MOST]);
        let all = largest.repeat(3);
        assert_eq!(read(&mut inlet, &connection, &all), Ok(ROOM));
        assert_eq!(inlet.filled, 0);
        assert_eq!(read(&mut inlet, &connection, &largest[..HEAD + MOST - 1]), Ok(HEAD + MOST - 1));
        assert_eq!(read(&mut inlet, &connection, &[&[0][..], &all].concat()), Ok(HEAD + MOST + 1), "all the room there is");
        assert_eq!(inlet.filled, 0);
        assert_eq!(hears(&connection, &frame(0xff, 0, 0, &[0; MOST + 1])[..HEAD]), Err(Reason::FRAME_SIZE_ERROR));
    }

    #[test]
    fn a_header_block_has_a_bound_and_its_stream_is_told_of_it() {
        let (connection, requests) = up();
        let mut stream = requests.open(OK, true).unwrap();
        let mut inlet = Inlet::default();
        read(&mut inlet, &connection, &frame(kind::HEADERS, 0, 1, &[0; MOST])).unwrap();
        for _ in 1..LARGEST_BLOCK / MOST {
            read(&mut inlet, &connection, &frame(kind::CONTINUATION, 0, 1, &[0; MOST])).unwrap();
        }
        assert!(inlet.is_within_a_block() && stream.head().is_none());
        assert_eq!(read(&mut inlet, &connection, &frame(kind::CONTINUATION, 0, 1, &[0])), Err(Reason::ENHANCE_YOUR_CALM));
        assert!(matches!(stream.head().unwrap().unwrap_err().lost, Lost::Oversized));
    }

    #[test]
    fn nothing_comes_between_the_frames_of_a_header_block() {
        for between in [
            frame(kind::PING, 0, 0, &[0; 8]),
            frame(kind::HEADERS, flag::END_HEADERS, 1, OK),
            frame(kind::CONTINUATION, flag::END_HEADERS, 3, OK),
            frame(0xff, 0, 1, &[]),
        ] {
            let (connection, requests) = up();
            let _streams = [requests.open(OK, true), requests.open(OK, true)];
            assert_eq!(hears(&connection, &[frame(kind::HEADERS, 0, 1, &[]), between].concat()), Err(Reason::PROTOCOL_ERROR));
            assert_eq!(hears(&connection, &frame(kind::CONTINUATION, flag::END_HEADERS, 1, OK)), Err(Reason::PROTOCOL_ERROR));
        }
    }

    #[test]
    fn a_block_has_begun_with_the_head_of_its_first_frame() {
        let (connection, requests) = up();
        let _stream = requests.open(OK, true).unwrap();
        let mut inlet = Inlet::default();
        let headers = frame(kind::HEADERS, flag::END_HEADERS, 1, OK);
        read(&mut inlet, &connection, &headers[..HEAD]).unwrap();
        assert!(inlet.is_within_a_block());
        read(&mut inlet, &connection, &headers[HEAD..]).unwrap();
        assert!(!inlet.is_within_a_block());
    }
}
