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

/// Bytes are no protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotProtobuf;

/// The value of one field of a message that somebody else wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValue<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The numbers and length-delimited fields of a message, in order; others are skipped. Ends after an error. Allocates nothing.
pub(crate) fn fields(message: &[u8]) -> impl Iterator<Item = Result<(u64, FieldValue<'_>), NotProtobuf>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            match take_field(&mut rest) {
                Some((number, Some(value))) => return Some(Ok((number, value))),
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

/// Of these, the length-delimited ones: texts, bytes, messages.
pub fn length_delimited(message: &[u8]) -> impl Iterator<Item = Result<(u64, &[u8]), NotProtobuf>> {
    fields(message).filter_map(|field| match field {
        Ok((number, FieldValue::Bytes(content))) => Some(Ok((number, content))),
        Ok((_, FieldValue::Number(_))) => None,
        Err(not) => Some(Err(not)),
    })
}

/// A field's number, and its value unless its type is one that nobody here reads. Groups are no part of the language any more.
fn take_field<'a>(message: &mut &'a [u8]) -> Option<(u64, Option<FieldValue<'a>>)> {
    let tag = take_varint(message)?;
    let value = match (tag & 7) as u8 {
        VARINT => Some(FieldValue::Number(take_varint(message)?)),
        LENGTH_DELIMITED => {
            let length = usize::try_from(take_varint(message)?).ok()?;
            Some(FieldValue::Bytes(message.split_off(..length)?))
        }
        FIXED64 => message.split_off(..8).map(|_| None)?,
        FIXED32 => message.split_off(..4).map(|_| None)?,
        _ => return None,
    };
    Some((tag >> 3, value))
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

/// One uncompressed gRPC message whose field `number`, below 16, is `text`: also when that is empty, as in a oneof.
pub fn frame_field(number: u8, text: &str) -> Bytes {
    let mut frame = begin_frame(text.len() + 4);
    append_field(&mut frame, number, text.as_bytes());
    end_frame(frame)
}

/// Why bytes are not the one message that they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// Or at least said to be.
    Compressed,
    /// No whole message, more than one, too long, or not of the form that is expected.
    Malformed,
}

impl From<NotProtobuf> for FrameError {
    fn from(NotProtobuf: NotProtobuf) -> FrameError {
        FrameError::Malformed
    }
}

/// The text that is field 1 of the one message that `frame` is: what [`frame_text`] made, or a peer.
///
/// # Errors
/// It is none.
pub fn framed_text(frame: &[u8]) -> Result<&str, FrameError> {
    let Some((message, [])) = split_frame(frame, frame.len())? else { return Err(FrameError::Malformed) };
    let mut text = "";
    for field in length_delimited(message) {
        if let (1, value) = field? {
            text = std::str::from_utf8(value).map_err(|_| FrameError::Malformed)?;
        }
    }
    Ok(text)
}

/// A message, and what comes after its frame.
type Split<'a> = (&'a [u8], &'a [u8]);

/// The first message of `bytes`; `None` while it is not whole.
///
/// # Errors
/// It is compressed, or says that it is longer than `most` bytes.
pub(crate) fn split_frame(bytes: &[u8], most: usize) -> Result<Option<Split<'_>>, FrameError> {
    let Some(([compressed, length @ ..], rest)) = bytes.split_first_chunk::<PREFIX>() else { return Ok(None) };
    if *compressed != 0 {
        return Err(FrameError::Compressed);
    }
    let length = u32::from_be_bytes(*length) as usize;
    if length > most { Err(FrameError::Malformed) } else { Ok(rest.split_at_checked(length)) }
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
        assert_eq!(&frame_field(7, "")[..], b"\0\0\0\0\x02\x3a\0");
    }

    #[test]
    fn one_frame_with_a_text_is_read_and_nothing_else() {
        let framed = |message: &[u8]| [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat();
        let text = |message: &[u8]| framed_text(&framed(message)).map(str::to_owned);
        assert_eq!(text(b""), Ok(String::new()));
        assert_eq!(text(b"\x0a\x08liveness"), Ok("liveness".into()));
        assert_eq!(text(b"\x10\x96\x01\x0a\x01a\x1a\x02xx\x25abcd\x29abcdefgh"), Ok("a".into()), "unknown fields are skipped");
        for bad in [&b"\x0a"[..], b"\x0a\x05abc", b"\x0a\x01\xff", b"\x0b", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"] {
            assert_eq!(text(bad), Err(FrameError::Malformed), "{bad:?}");
        }
        for bad in [&b""[..], b"\0\0\0\0", b"\0\0\0\0\x01", b"\0\0\0\0\0\0", &framed(b"").repeat(2)] {
            assert_eq!(framed_text(bad), Err(FrameError::Malformed), "{bad:?}");
        }
        assert_eq!(framed_text(b"\x01\0\0\0\0"), Err(FrameError::Compressed));
    }

    #[test]
    fn a_frame_is_split_off_as_soon_as_it_is_whole() {
        let frames = [&frame_text("a")[..], b"\0\0\0\0\x01"].concat();
        assert_eq!(split_frame(&frames, 3), Ok(Some((&b"\x0a\x01a"[..], &b"\0\0\0\0\x01"[..]))));
        for cut in 0..8 {
            assert_eq!(split_frame(&frames[..cut], 3), Ok(None), "{cut}");
        }
        // Known before it is whole.
        assert_eq!(split_frame(b"\0\0\0\0\x04", 3), Err(FrameError::Malformed));
        assert_eq!(split_frame(b"\x01\0\0\0\x09", 9), Err(FrameError::Compressed));
    }

    #[test]
    fn what_is_length_delimited_is_found_and_the_rest_skipped() {
        let all = |message| length_delimited(message).collect::<Result<Vec<_>, _>>();
        assert_eq!(all(b""), Ok(vec![]));
        let message = b"\x10\x96\x01\x0a\x01a\x1a\x02xx\x25abcd\x29abcdefgh\xfa\x01\0";
        assert_eq!(all(message), Ok(vec![(1, &b"a"[..]), (3, b"xx"), (31, b"")]));
        for bad in [&b"\x0a"[..], b"\x0a\x05abc", b"\x0b", b"\x0c", b"\x08", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"] {
            assert_eq!(all(bad), Err(NotProtobuf), "{bad:?}");
        }
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
        let read: Vec<_> = fields(&out).map_while(Result::ok).collect();
        assert_eq!(read, [(2, FieldValue::Number(0)), (3, FieldValue::Number(u64::MAX)), (5, FieldValue::Bytes(b"five"))]);
        assert_eq!(fields(&out[..out.len() - 1]).map_while(Result::ok).count(), 2, "cut short");
    }

    proptest! {
        #[test]
        fn a_text_that_is_framed_is_read(words in ".{0,300}") {
            let frame = frame_text(&words);
            prop_assert_eq!(framed_text(&frame), Ok(words.as_str()));
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = framed_text(&bytes);
            let _ = framed_text(&[&[0, 0, 0, 0, bytes.len() as u8], &bytes[..]].concat());
        }

        #[test]
        fn anything_can_be_read_to_its_end(message in proptest::collection::vec(any::<u8>(), 0..64)) {
            let bytes = fields(&message).map_while(Result::ok).map(|(_, value)| if let FieldValue::Bytes(bytes) = value { bytes.len() } else { 0 });
            prop_assert!(bytes.sum::<usize>() <= message.len());
        }
    }
}
