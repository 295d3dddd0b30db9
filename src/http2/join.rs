//! Joins DATA frames of one stream that have come one right after the other (RFC 9113 §6.1) into one, before h2 sees them. Where
//! a frame ends means nothing to gRPC, and to h2 each costs the same however little it carries: streams of small messages, which
//! most servers write many at a time, would cost several times as much.

use super::frames::{DATA, HEADER};

/// The payload that every peer may send and every receiver takes (RFC 9113 §6.5.2); h2 takes no more by itself.
pub(super) const MOST: usize = 16_384;

const END_STREAM: u8 = 0x1;

/// A frame that another may be joined to.
struct Open {
    at: usize,
    length: usize,
    stream: [u8; 4],
}

/// Joins frames in place; the first of them begins at `start`. What is left is that many bytes long. A frame that has not come
/// whole stays as it is: those before it must not wait for it.
pub(super) fn join(bytes: &mut [u8], start: usize) -> usize {
    let (mut from, mut to) = (start, start);
    let mut open: Option<Open> = None;
    while let Some(([l0, l1, l2, kind, flags, stream @ ..], rest)) = bytes.get(from..).and_then(<[u8]>::split_first_chunk::<HEADER>) {
        let (kind, flags, stream) = (*kind, *flags, *stream);
        let length = usize::from(*l0) << 16 | usize::from(*l1) << 8 | usize::from(*l2);
        if rest.len() < length {
            break;
        }
        // Neither padded, nor with a flag that nobody knows.
        let plain = kind == DATA && flags & !END_STREAM == 0;
        // An empty frame that ends nothing is one that h2 counts.
        let counts = length == 0 && flags == 0;
        let joined = open.as_ref().filter(|open| plain && !counts && open.stream == stream && open.length + length <= MOST);
        let end = from + HEADER + length;
        if let Some(Open { at, length: before, .. }) = joined {
            let (at, length) = (*at, before + length);
            bytes.copy_within(from + HEADER..end, to);
            to += end - from - HEADER;
            head(bytes, at, length, flags);
            open = (flags == 0).then_some(Open { at, length, stream });
        } else {
            let at = to;
            if from != to {
                bytes.copy_within(from..end, to);
            }
            to += end - from;
            open = (plain && flags == 0 && length > 0).then_some(Open { at, length, stream });
        }
        from = end;
    }
    if from != to {
        bytes.copy_within(from.., to);
    }
    bytes.len() - (from - to)
}

/// Writes what has changed of the frame at `at`.
fn head(bytes: &mut [u8], at: usize, length: usize, flags: u8) {
    let [.., l0, l1, l2] = length.to_be_bytes();
    if let Some(([length @ .., _, flag], _)) = bytes.get_mut(at..).and_then(<[u8]>::split_first_chunk_mut::<5>) {
        *length = [l0, l1, l2];
        *flag = flags;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PADDED: u8 = 0x8;

    #[derive(Debug, Clone, PartialEq)]
    struct Frame {
        kind: u8,
        flags: u8,
        stream: u8,
        payload: Vec<u8>,
    }

    fn data(stream: u8, flags: u8, payload: &[u8]) -> Frame {
        Frame { kind: DATA, flags, stream, payload: payload.to_vec() }
    }

    fn bytes(frames: &[Frame]) -> Vec<u8> {
        let one = |Frame { kind, flags, stream, payload }: &Frame| {
            let [.., l0, l1, l2] = payload.len().to_be_bytes();
            [&[l0, l1, l2, *kind, *flags, 0, 0, 0, *stream], &payload[..]].concat()
        };
        frames.iter().flat_map(one).collect()
    }

    fn frames(mut bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(([l0, l1, l2, kind, flags, _, _, _, stream], rest)) = bytes.split_first_chunk::<HEADER>() {
            let (payload, rest) = rest.split_at(usize::from(*l0) << 16 | usize::from(*l1) << 8 | usize::from(*l2));
            frames.push(Frame { kind: *kind, flags: *flags, stream: *stream, payload: payload.to_vec() });
            bytes = rest;
        }
        frames
    }

    fn joined(came: &[Frame]) -> Vec<Frame> {
        let mut bytes = bytes(came);
        let length = join(&mut bytes, 0);
        frames(&bytes[..length])
    }

    #[test]
    fn neighbours_of_one_stream_become_one_frame() {
        let came = [data(1, 0, b"a"), data(1, 0, b"bc"), data(3, 0, b"d"), data(1, 0, b"e"), data(1, END_STREAM, b"")];
        assert_eq!(joined(&came), [data(1, 0, b"abc"), data(3, 0, b"d"), data(1, END_STREAM, b"e")]);
    }

    #[test]
    fn what_is_not_plain_data_stays_apart() {
        let headers = Frame { kind: 1, flags: 4, stream: 1, payload: vec![0x88] };
        for apart in [data(1, PADDED, b"\x01a\0"), data(1, 0x40, b"a"), data(1, 0, b""), data(3, 0, b"a"), headers] {
            let came = [data(1, 0, b"x"), apart.clone(), apart, data(1, END_STREAM, b"y")];
            let last_two = came[2] == data(3, 0, b"a");
            assert_eq!(joined(&came).len(), if last_two { 3 } else { 4 }, "{came:?}");
        }
        let after_the_end = [data(1, END_STREAM, b"x"), data(1, 0, b"y")];
        assert_eq!(joined(&after_the_end), after_the_end);
    }

    #[test]
    fn a_joined_frame_is_no_larger_than_any_peer_may_send() {
        let came = [data(1, 0, &[1; MOST - 1]), data(1, 0, &[2]), data(1, 0, &[3])];
        assert_eq!(joined(&came).iter().map(|frame| frame.payload.len()).collect::<Vec<_>>(), [MOST, 1]);
    }

    #[test]
    fn what_has_come_whole_does_not_wait_for_what_has_not() {
        let came = bytes(&[data(1, 0, b"abc"), data(1, 0, b"def")]);
        for cut in 12..came.len() {
            let mut part = came[..cut].to_vec();
            assert_eq!((join(&mut part, 0), &part[..]), (cut, &came[..cut]));
        }
    }

    proptest! {
        #[test]
        fn every_stream_has_its_bytes_and_its_end_and_other_frames_their_place(
            came in prop::collection::vec((0u8..3, 0u8..2, prop::sample::select(vec![0u8, 0, 0, END_STREAM, PADDED]), 0usize..9000), 0..30),
            skipped in 0usize..20,
            cut in 0usize..30,
        ) {
            let frame = |(index, (kind, stream, flags, length)): (usize, &(u8, u8, u8, usize))| {
                Frame { kind: kind / 2, flags: *flags, stream: *stream, payload: vec![index as u8; *length] }
            };
            let came: Vec<Frame> = came.iter().enumerate().map(frame).collect();
            // The rest of a frame that has begun before, then frames, then the beginning of one.
            let tail = bytes(&[data(1, 0, &[7; 30])])[..cut].to_vec();
            let mut all = [vec![0xff; skipped], bytes(&came), tail.clone()].concat();
            let length = join(&mut all, skipped);
            prop_assert!(all[..skipped].iter().all(|byte| *byte == 0xff) && all[..length].ends_with(&tail));
            let left = frames(&all[skipped..length - tail.len()]);
            let plain = |frame: &Frame| frame.kind == DATA && frame.flags & PADDED == 0;
            // Without the cuts between plain DATA of one stream both are the same.
            let unfolded = |frames: &[Frame]| {
                let each = |frame: &Frame| match plain(frame) {
                    true => {
                        let mut parts: Vec<_> = frame.payload.iter().map(|byte| data(frame.stream, 0, &[*byte])).collect();
                        if frame.payload.is_empty() || frame.flags != 0 {
                            parts.push(data(frame.stream, frame.flags, b""));
                        }
                        parts
                    }
                    false => vec![frame.clone()],
                };
                frames.iter().flat_map(each).collect::<Vec<Frame>>()
            };
            prop_assert_eq!(unfolded(&left), unfolded(&came));
            prop_assert!(left.iter().all(|frame| frame.payload.len() <= MOST));
        }
    }
}
