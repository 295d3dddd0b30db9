//! Reads the nine-byte frame headers (RFC 9113 §4.1) off a byte stream that comes in pieces of any size, to know what h2
//! does not tell: that SETTINGS came, that a header block is unfinished.

/// What has been seen so far on one direction of a connection.
#[derive(Debug)]
pub(super) struct FrameScanner {
    /// Bytes to pass over: the rest of the preface, or of a frame's payload.
    skip: usize,
    header: [u8; HEADER],
    filled: usize,
    /// The frame whose payload is being passed over ends a header block.
    ends_block: bool,
    /// The frame whose payload is being passed over is the first SETTINGS.
    ends_settings: bool,
    in_payload: bool,
    /// That is a part of a header block.
    in_block: bool,
    /// Bytes of header blocks that have come; for the tap to take.
    pub(super) header_bytes: usize,
    /// A header block has begun and its last byte has not come.
    pub(super) block_open: bool,
    /// The first SETTINGS frame has come whole.
    pub(super) settings_seen: bool,
    /// Frames that carry no call, beyond what those that do account for. None are counted before the first SETTINGS.
    pub(super) idle_frames: u32,
}

/// Length, type, flags and stream of a frame, in bytes.
pub(super) const HEADER: usize = 9;

/// So many frames that carry no call are accounted for by one that does: acknowledgements, resets.
const ACCOUNTED: u32 = 4;

pub(super) const DATA: u8 = 0x0;
pub(super) const HEADERS: u8 = 0x1;
const SETTINGS: u8 = 0x4;
const CONTINUATION: u8 = 0x9;
pub(super) const END_HEADERS: u8 = 0x4;
const ACK: u8 = 0x1;

impl FrameScanner {
    /// `preface`: bytes before the first frame; 24 from a client.
    pub(super) fn new(preface: usize) -> FrameScanner {
        FrameScanner {
            skip: preface,
            header: [0; HEADER],
            filled: 0,
            ends_block: false,
            ends_settings: false,
            in_payload: false,
            in_block: false,
            header_bytes: 0,
            block_open: false,
            settings_seen: false,
            idle_frames: 0,
        }
    }

    /// Where in the next piece a frame begins, unless that piece begins within a frame's header.
    pub(super) fn next_frame(&self) -> Option<usize> {
        (self.filled == 0).then_some(self.skip)
    }

    /// Takes the next piece.
    pub(super) fn advance(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            if self.in_block {
                self.header_bytes += skipped;
            }
            bytes = bytes.get(skipped..).unwrap_or_default();
            if self.skip > 0 {
                return;
            }
            if std::mem::take(&mut self.in_payload) {
                self.frame_ended();
            }
            if bytes.is_empty() {
                return;
            }
            let room = self.header.get_mut(self.filled..).unwrap_or_default();
            let taken = room.len().min(bytes.len());
            let (head, rest) = bytes.split_at(taken);
            room.iter_mut().zip(head).for_each(|(to, from)| *to = *from);
            self.filled += taken;
            bytes = rest;
            if self.filled == self.header.len() {
                self.filled = 0;
                self.frame_began();
            }
        }
    }

    fn frame_began(&mut self) {
        let [l0, l1, l2, kind, flags, ..] = self.header;
        self.skip = usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2);
        self.idle_frames = match kind {
            DATA if self.skip == 0 => self.idle_frames.saturating_add(u32::from(self.settings_seen)),
            DATA | HEADERS | CONTINUATION => self.idle_frames.saturating_sub(ACCOUNTED),
            _ => self.idle_frames.saturating_add(u32::from(self.settings_seen)),
        };
        self.in_payload = true;
        self.in_block = matches!(kind, HEADERS | CONTINUATION);
        self.ends_block = matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS != 0;
        self.ends_settings = kind == SETTINGS && flags & ACK == 0;
        self.block_open |= kind == HEADERS;
    }

    fn frame_ended(&mut self) {
        if self.ends_block {
            self.block_open = false;
        }
        self.settings_seen |= self.ends_settings;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![0, (payload >> 8) as u8, payload as u8, kind, flags, 0, 0, 0, 1];
        bytes.resize(9 + payload, 0xff);
        bytes
    }

    #[test]
    fn a_block_is_open_until_the_last_byte_of_its_last_frame() {
        let mut scanner = FrameScanner::new(24);
        scanner.advance(&[b'x'; 24]);
        let settings = frame(SETTINGS, 0, 6);
        scanner.advance(&settings[..14]);
        assert!(!scanner.settings_seen);
        scanner.advance(&settings[14..]);
        assert!(scanner.settings_seen && !scanner.block_open);
        scanner.advance(&frame(HEADERS, 0, 10));
        assert!(scanner.block_open, "END_HEADERS has not come");
        let last = frame(CONTINUATION, END_HEADERS, 10);
        scanner.advance(&last[..18]);
        assert!(scanner.block_open, "its payload has not come");
        scanner.advance(&last[18..]);
        assert!(!scanner.block_open);
    }

    #[test]
    fn bytes_of_header_blocks_are_counted_as_they_come() {
        let mut scanner = FrameScanner::new(0);
        let stream = [frame(DATA, 0, 50), frame(HEADERS, 0, 30), frame(CONTINUATION, END_HEADERS, 20), frame(DATA, 0, 50)].concat();
        let (first, rest) = stream.split_at(59 + 9 + 10);
        scanner.advance(first);
        assert_eq!(std::mem::take(&mut scanner.header_bytes), 10);
        scanner.advance(rest);
        assert_eq!(scanner.header_bytes, 40);
    }

    #[test]
    fn frames_that_carry_no_call_are_counted_once_settings_have_come() {
        let mut scanner = FrameScanner::new(0);
        let ping = frame(0x6, 0, 8);
        scanner.advance(&ping);
        scanner.advance(&frame(SETTINGS, 0, 0));
        (0..10).for_each(|_| scanner.advance(&ping));
        scanner.advance(&frame(DATA, 0, 0));
        // That of the SETTINGS themselves is not: their last byte came after their first.
        assert_eq!(scanner.idle_frames, 11);
        scanner.advance(&frame(HEADERS, END_HEADERS, 3));
        scanner.advance(&frame(DATA, 0, 1));
        assert_eq!(scanner.idle_frames, 3);
    }

    #[test]
    fn an_acknowledgement_is_not_the_first_settings() {
        let mut scanner = FrameScanner::new(0);
        scanner.advance(&frame(SETTINGS, ACK, 0));
        assert!(!scanner.settings_seen);
        scanner.advance(&frame(SETTINGS, 0, 0));
        assert!(scanner.settings_seen);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(kinds in prop::collection::vec((0u8..12, any::<u8>(), 0usize..40), 0..12), cut in 1usize..17) {
            let stream: Vec<u8> = kinds.iter().flat_map(|(kind, flags, length)| frame(*kind, *flags, *length)).collect();
            let (mut whole, mut pieces) = (FrameScanner::new(0), FrameScanner::new(0));
            whole.advance(&stream);
            stream.chunks(cut).for_each(|piece| pieces.advance(piece));
            prop_assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
        }
    }
}
