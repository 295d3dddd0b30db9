//! As much of reading protobuf and gRPC framing as the demo needs: messages whose first field is a text.
//! <https://protobuf.dev/programming-guides/encoding/>, PROTOCOL-HTTP2.md "Length-Prefixed-Message".

/// A field whose length goes before it.
const LENGTH_DELIMITED: u64 = 2;

/// Field 1 of the one message in `frame`; empty when it is left out, as protobuf has it.
pub(super) fn text(frame: &[u8]) -> Option<&str> {
    let (prefix, message) = frame.split_at_checked(5)?;
    let [0, length @ ..] = prefix else { return None };
    if u32::from_be_bytes(length.try_into().ok()?) as usize != message.len() {
        return None;
    }
    std::str::from_utf8(if message.is_empty() { b"" } else { field(message, 1)? }).ok()
}

/// The first length-delimited field `number` of a message.
pub(super) fn field(mut message: &[u8], number: u64) -> Option<&[u8]> {
    loop {
        let (tag, rest) = varint(message)?;
        let (content, rest) = match tag & 7 {
            0 => (None, varint(rest)?.1),
            1 => (None, rest.get(8..)?),
            LENGTH_DELIMITED => {
                let (length, rest) = varint(rest)?;
                let (content, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                (Some(content), rest)
            }
            5 => (None, rest.get(4..)?),
            _ => return None,
        };
        if tag >> 3 == number && content.is_some() {
            return content;
        }
        message = rest;
    }
}

/// Seven bits a byte, the low ones first.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(7 * u32::try_from(index).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::frame_text;
    use proptest::prelude::*;

    #[test]
    fn fields_are_found_behind_others() {
        let message = b"\x08\x96\x01\x21\0\0\0\0\0\0\0\0\x15\0\0\0\0\x12\x03abc\x1a\x01d";
        assert_eq!(field(message, 2), Some(&b"abc"[..]));
        assert_eq!(field(message, 3), Some(&b"d"[..]));
        assert_eq!(field(message, 1), None);
        assert_eq!(&frame_text("world")[..], b"\0\0\0\0\x07\x0a\x05world");
        assert_eq!(text(b"\0\0\0\0\0"), Some(""));
        for bad in [&b""[..], b"\0\0\0\0", b"\x01\0\0\0\0", b"\0\0\0\0\x01", b"\0\0\0\0\x03\x0a\x05x", b"\0\0\0\0\x03\x0a\x01\xff"] {
            assert_eq!(text(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_framed_is_read(words in ".{0,300}") {
            let framed = frame_text(&words);
            prop_assert_eq!(text(&framed), Some(words.as_str()));
        }

        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = (text(&bytes), field(&bytes, 1));
        }
    }
}
