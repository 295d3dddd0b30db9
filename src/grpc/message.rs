//! The little protobuf that we write ourselves (<https://protobuf.dev/programming-guides/encoding/>), and gRPC's
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
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    frame.freeze()
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
    }
}
