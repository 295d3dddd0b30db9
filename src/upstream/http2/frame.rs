//! Frames as they are on the wire (RFC 9113 §4.1 and §6).

use h2::Reason;

/// Length, type, flags and stream, in bytes.
pub(super) const HEAD: usize = 9;

/// The largest payload that every peer takes, and that we take (RFC 9113 §6.5.2).
pub(super) const MOST: usize = 16_384;

/// Frame types.
pub(super) mod kind {
    pub(in super::super) const DATA: u8 = 0x0;
    pub(in super::super) const HEADERS: u8 = 0x1;
    pub(in super::super) const PRIORITY: u8 = 0x2;
    pub(in super::super) const RST_STREAM: u8 = 0x3;
    pub(in super::super) const SETTINGS: u8 = 0x4;
    pub(in super::super) const PUSH_PROMISE: u8 = 0x5;
    pub(in super::super) const PING: u8 = 0x6;
    pub(in super::super) const GOAWAY: u8 = 0x7;
    pub(in super::super) const WINDOW_UPDATE: u8 = 0x8;
    pub(in super::super) const CONTINUATION: u8 = 0x9;
}

/// Their flags.
pub(super) mod flag {
    pub(in super::super) const END_STREAM: u8 = 0x1;
    pub(in super::super) const ACK: u8 = 0x1;
    pub(in super::super) const END_HEADERS: u8 = 0x4;
    pub(in super::super) const PADDED: u8 = 0x8;
    pub(in super::super) const PRIORITY: u8 = 0x20;
}

/// SETTINGS that concern us.
pub(super) mod setting {
    pub(in super::super) const ENABLE_PUSH: u16 = 0x2;
    pub(in super::super) const MAX_CONCURRENT_STREAMS: u16 = 0x3;
    pub(in super::super) const INITIAL_WINDOW_SIZE: u16 = 0x4;
    pub(in super::super) const MAX_FRAME_SIZE: u16 = 0x5;
}

/// The beginning of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    pub(super) fn parse([l0, l1, l2, kind, flags, stream @ ..]: [u8; HEAD]) -> Head {
        let length = usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2);
        Head { length, kind, flags, stream: u32::from_be_bytes(stream) & STREAM }
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn bytes(self) -> [u8; HEAD] {
        let [.., l0, l1, l2] = self.length.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        [l0, l1, l2, self.kind, self.flags, s0, s1, s2, s3]
    }
}

/// The bits of a stream's number, and of a window's increment; the one above them means nothing.
pub(super) const STREAM: u32 = (1 << 31) - 1;

/// The payload without its padding and, in HEADERS, without priority (§6.1, §6.2).
pub(super) fn content(head: Head, payload: &[u8]) -> Result<&[u8], Reason> {
    let (payload, padding) = match payload.split_first() {
        _ if !head.has(flag::PADDED) => (payload, 0),
        Some((padding, rest)) => (rest, usize::from(*padding)),
        None => return Err(Reason::FRAME_SIZE_ERROR),
    };
    let length = payload.len().checked_sub(padding).ok_or(Reason::PROTOCOL_ERROR)?;
    let content = payload.get(..length).unwrap_or_default();
    if head.kind == kind::HEADERS && head.has(flag::PRIORITY) {
        return content.get(5..).ok_or(Reason::FRAME_SIZE_ERROR);
    }
    Ok(content)
}
