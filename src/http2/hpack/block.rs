//! What a header block is made of (RFC 7541 §5): integers and strings, read and written. `None` wherever a block is malformed.

/// A header block, as far as it has been read.
pub(in crate::http2) struct Block<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A string of a header block.
pub(in crate::http2) struct Text<'a> {
    /// Where its length is.
    pub(in crate::http2) at: usize,
    /// In Huffman code.
    pub(in crate::http2) encoded: bool,
    pub(in crate::http2) bytes: &'a [u8],
}

impl<'a> Block<'a> {
    /// The block that begins at `at`, to the end of `bytes`.
    pub(in crate::http2) fn new(bytes: &'a [u8], at: usize) -> Block<'a> {
        Block { bytes, at }
    }

    /// How far it has been read.
    pub(in crate::http2) fn at(&self) -> usize {
        self.at
    }

    /// The octet that comes next, which says what it is the beginning of.
    pub(in crate::http2) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(in crate::http2) fn text(&mut self) -> Option<Text<'a>> {
        let at = self.at;
        let encoded = self.peek()? & 0x80 != 0;
        let length = self.integer(7)?;
        let bytes = self.bytes.get(self.at..)?.get(..length)?;
        self.at += length;
        Some(Text { at, encoded, bytes })
    }

    /// An integer with a prefix of so many bits. No longer than h2 takes them: below 2²⁸ and a prefix.
    pub(in crate::http2) fn integer(&mut self, prefix: u32) -> Option<usize> {
        let mask = (1 << prefix) - 1;
        let mut value = usize::from(self.octet()?) & mask;
        if value < mask {
            return Some(value);
        }
        for shift in [0, 7, 14, 21] {
            let octet = usize::from(self.octet()?);
            value += (octet & 0x7f) << shift;
            if octet & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn octet(&mut self) -> Option<u8> {
        let octet = self.peek()?;
        self.at += 1;
        Some(octet)
    }
}

/// Appends an integer with a prefix of so many bits; the bits before them are those of `form`.
pub(in crate::http2) fn append_integer(form: u8, prefix: u32, value: usize, to: &mut Vec<u8>) {
    let most = (1 << prefix) - 1;
    let Some(mut rest) = value.checked_sub(most) else { return to.push(form | value as u8) };
    to.push(form | most as u8);
    while rest >= 0x80 {
        to.push(0x80 | rest as u8);
        rest >>= 7;
    }
    to.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn integer(bytes: &[u8], prefix: u32) -> Option<(usize, usize)> {
        let mut block = Block::new(bytes, 0);
        block.integer(prefix).map(|value| (value, block.at()))
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7541 C.1.
        for (value, prefix, form, bytes) in [(10, 5, 0xe0, &[0xea][..]), (1337, 5, 0x00, &[0x1f, 0x9a, 0x0a]), (42, 8, 0x00, &[0x2a])] {
            let mut written = Vec::new();
            append_integer(form, prefix, value, &mut written);
            assert_eq!(written, bytes);
            assert_eq!(integer(bytes, prefix), Some((value, bytes.len())));
        }
    }

    #[test]
    fn an_integer_has_an_end_and_is_not_too_long() {
        assert_eq!(integer(&[], 7), None);
        assert_eq!(integer(&[0x7f], 7), None);
        assert_eq!(integer(&[0x7f, 0x80], 7), None);
        assert_eq!(integer(&[0x7f, 0xff, 0xff, 0xff, 0x7f], 7), Some((0x7f + (1 << 28) - 1, 5)));
        assert_eq!(integer(&[0x7f, 0x80, 0x80, 0x80, 0x80, 0x00], 7), None);
        assert_eq!(integer(&[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], 7), None);
    }

    #[test]
    fn a_text_is_no_longer_than_the_block() {
        let text = |bytes| Block::new(bytes, 0).text().map(|text| (text.encoded, text.bytes.to_vec()));
        assert_eq!(text(&[0x02, b'a', b'b', b'c']), Some((false, b"ab".to_vec())));
        assert_eq!(text(&[0x82, b'a', b'b']), Some((true, b"ab".to_vec())));
        assert_eq!(text(&[0x00]), Some((false, Vec::new())));
        assert_eq!(text(&[0x03, b'a', b'b']), None);
        assert_eq!(text(&[]), None);
        assert!(Block::new(&[1, 2], 3).text().is_none());
    }

    proptest! {
        #[test]
        fn every_integer_comes_back(value in 0usize..1 << 28, prefix in 4u32..=7, more in 0u8..=255) {
            let mut written = Vec::new();
            append_integer(0, prefix, value, &mut written);
            let length = written.len();
            written.push(more);
            prop_assert_eq!(integer(&written, prefix), Some((value, length)));
        }
    }
}
