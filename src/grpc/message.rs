//! The little protobuf that we write and read ourselves (<https://protobuf.dev/programming-guides/encoding/>), and gRPC's
//! length prefix (PROTOCOL-HTTP2.md, "Length-Prefixed-Message").

use bytes::{BufMut, Bytes, BytesMut};

/// Appends one length-delimited field; `number` is below 16.
pub(crate) fn append_field(out: &mut Vec<u8>, number: u8, content: &[u8]) {
    out.push(number << 3 | 2);
    append_varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// Appends one number that is not negative, left out when zero as protobuf has it; `number` is below 16.
pub(crate) fn append_number(out: &mut Vec<u8>, number: u8, value: u64) {
    if value > 0 {
        out.push(number << 3);
        append_varint(out, value);
    }
}

fn append_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// One uncompressed gRPC message whose field 1 is `text`, left out when empty as protobuf has it. `text` is far below
/// the 4 GiB that a message may have.
pub fn frame_text(text: &str) -> Bytes {
    let mut message = Vec::with_capacity(text.len() + 4);
    if !text.is_empty() {
        append_field(&mut message, 1, text.as_bytes());
    }
    frame(&message)
}

/// One uncompressed gRPC message whose field `number`, below 16, is `text`: also when that is empty, as in a oneof.
pub fn frame_field(number: u8, text: &str) -> Bytes {
    let mut message = Vec::with_capacity(text.len() + 4);
    append_field(&mut message, number, text.as_bytes());
    frame(&message)
}

fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

/// Bytes are no protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotProtobuf;

/// The length-delimited fields of a message (texts, bytes, messages) with their numbers, in order; others are skipped. Ends
/// after an error. Allocates nothing.
pub fn fields(message: &[u8]) -> impl Iterator<Item = Result<(u64, &[u8]), NotProtobuf>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            match next_field(&mut rest) {
                Some((number, Some(content))) => return Some(Ok((number, content))),
                Some((_, None)) => {}
                None => {
                    rest = &[];
                    return Some(Err(NotProtobuf));
                }
            }
        }
        None
    })
}

/// Takes a field: its number, and its content if it is length-delimited. Groups are no part of the language any more.
fn next_field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Option<&'a [u8]>)> {
    let tag = varint(rest)?;
    let length = match tag & 7 {
        0 => {
            varint(rest)?;
            0
        }
        1 => 8,
        2 => usize::try_from(varint(rest)?).ok()?,
        5 => 4,
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some((tag >> 3, (tag & 7 == 2).then_some(content)))
}

/// Takes a base-128 varint of at most ten bytes.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_field_one_behind_a_length_prefix() {
        assert_eq!(&frame_text("")[..], b"\0\0\0\0\0");
        assert_eq!(&frame_text("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
        let long = frame_text(&"x".repeat(300));
        assert_eq!((&long[..8], long.len()), (&b"\0\0\0\x01\x2f\x0a\xac\x02"[..], 308));
        assert_eq!(&frame_field(7, "")[..], b"\0\0\0\0\x02\x3a\0");
    }

    #[test]
    fn what_is_length_delimited_is_found_and_the_rest_skipped() {
        let all = |message| fields(message).collect::<Result<Vec<_>, _>>();
        assert_eq!(all(b""), Ok(vec![]));
        let message = b"\x10\x96\x01\x0a\x01a\x1a\x02xx\x25abcd\x29abcdefgh\xfa\x01\0";
        assert_eq!(all(message), Ok(vec![(1, &b"a"[..]), (3, b"xx"), (31, b"")]));
        for bad in [&b"\x0a"[..], b"\x0a\x05abc", b"\x0b", b"\x0c", b"\x08", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"] {
            assert_eq!(all(bad), Err(NotProtobuf), "{bad:?}");
        }
    }
}
