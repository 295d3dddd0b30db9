//! The little protobuf that we write and read ourselves (<https://protobuf.dev/programming-guides/encoding/>), and gRPC's
//! length prefix (PROTOCOL-HTTP2.md, "Length-Prefixed-Message").

use bytes::Bytes;

/// Appends one length-delimited field.
pub(crate) fn append_field(out: &mut Vec<u8>, number: u8, content: &[u8]) {
    append_tag(out, number, LENGTH_DELIMITED);
    append_varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// Appends one length-delimited field whose content `write` appends.
pub(crate) fn append_message(out: &mut Vec<u8>, number: u8, write: impl FnOnce(&mut Vec<u8>)) {
    append_tag(out, number, LENGTH_DELIMITED);
    let begin = out.len();
    write(out);
    let end = out.len();
    // The length stands first on the wire and is known last.
    append_varint(out, (end - begin) as u64);
    let length = out.len() - end;
    out.get_mut(begin..).expect("what was there still is").rotate_right(length);
}

/// Appends one number that is not negative, left out when zero as protobuf has it.
pub(crate) fn append_number(out: &mut Vec<u8>, number: u8, value: u64) {
    if value > 0 {
        append_chosen_number(out, number, value);
    }
}

/// Appends one number that is not negative, also when zero: as a member of a `oneof` it says which one it is.
pub(crate) fn append_chosen_number(out: &mut Vec<u8>, number: u8, value: u64) {
    append_tag(out, number, VARINT);
    append_varint(out, value);
}

/// Appends a `fixed64`.
pub(crate) fn append_fixed64(out: &mut Vec<u8>, number: u8, value: u64) {
    append_tag(out, number, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a `fixed32`.
pub(crate) fn append_fixed32(out: &mut Vec<u8>, number: u8, value: u32) {
    append_tag(out, number, FIXED32);
    out.extend_from_slice(&value.to_le_bytes());
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;
const FIXED32: u8 = 5;

fn append_tag(out: &mut Vec<u8>, number: u8, wire_type: u8) {
    append_varint(out, u64::from(number) << 3 | u64::from(wire_type));
}

fn append_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The value of one field of a message that somebody else wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValue<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The numbers and length-delimited fields of a message, up to its end or to what is no protobuf.
pub(crate) fn fields(mut message: &[u8]) -> impl Iterator<Item = (u64, FieldValue<'_>)> {
    std::iter::from_fn(move || {
        loop {
            let tag = take_varint(&mut message)?;
            let value = match (tag & 7) as u8 {
                VARINT => FieldValue::Number(take_varint(&mut message)?),
                LENGTH_DELIMITED => {
                    let length = usize::try_from(take_varint(&mut message)?).ok()?;
                    FieldValue::Bytes(message.split_off(..length)?)
                }
                FIXED64 => {
                    message.split_off(..8)?;
                    continue;
                }
                FIXED32 => {
                    message.split_off(..4)?;
                    continue;
                }
                _ => return None,
            };
            return Some((tag >> 3, value));
        }
    })
}

fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *message.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// One uncompressed gRPC message whose field 1 is `text`, left out when empty as protobuf has it. `text` is far below
/// the 4 GiB that a message may have.
pub fn frame_text(text: &str) -> Bytes {
    let mut frame = begin_frame(text.len() + 4);
    if !text.is_empty() {
        append_field(&mut frame, 1, text.as_bytes());
    }
    end_frame(frame)
}

/// An empty gRPC message, to be appended to.
pub(crate) fn begin_frame(capacity: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(capacity + PREFIX);
    frame.resize(PREFIX, 0);
    frame
}

/// The message begun with [`begin_frame`], uncompressed. Far below the 4 GiB that it may have.
pub(crate) fn end_frame(mut frame: Vec<u8>) -> Bytes {
    let length = u32::try_from(frame.len() - PREFIX).unwrap_or(u32::MAX);
    frame.get_mut(1..PREFIX).expect("a frame has its prefix").copy_from_slice(&length.to_be_bytes());
    frame.into()
}

const PREFIX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_text_is_field_one_behind_a_length_prefix() {
        assert_eq!(&frame_text("")[..], b"\0\0\0\0\0");
        assert_eq!(&frame_text("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
        let long = frame_text(&"x".repeat(300));
        assert_eq!((&long[..8], long.len()), (&b"\0\0\0\x01\x2f\x0a\xac\x02"[..], 308));
    }

    #[test]
    fn a_message_within_a_message_has_its_length_before_it() {
        let long = [7; 300];
        let mut out = vec![1];
        append_message(&mut out, 2, |out| {
            append_message(out, 16, |_| {});
            append_field(out, 1, &long);
        });
        let expected = [&[1, 0x12, 0xb2, 0x02, 0x82, 0x01, 0x00, 0x0a, 0xac, 0x02][..], &long].concat();
        assert_eq!(out, expected);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let mut out = Vec::new();
        append_number(&mut out, 1, 0);
        append_chosen_number(&mut out, 2, 0);
        append_fixed32(&mut out, 16, 1);
        append_number(&mut out, 3, u64::MAX);
        append_fixed64(&mut out, 4, 1);
        append_field(&mut out, 5, b"five");
        let read: Vec<_> = fields(&out).collect();
        assert_eq!(read, [(2, FieldValue::Number(0)), (3, FieldValue::Number(u64::MAX)), (5, FieldValue::Bytes(b"five"))]);
        assert_eq!(fields(&out[..out.len() - 1]).count(), 2, "cut short");
    }

    proptest! {
        #[test]
        fn anything_can_be_read_to_its_end(message in proptest::collection::vec(any::<u8>(), 0..64)) {
            let bytes = fields(&message).map(|(_, value)| if let FieldValue::Bytes(bytes) = value { bytes.len() } else { 0 });
            prop_assert!(bytes.sum::<usize>() <= message.len());
        }
    }
}
