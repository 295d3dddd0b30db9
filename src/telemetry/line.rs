//! One JSON object on one line, written field by field into a buffer that is used again and again.
//!
//! What a client chose is cut and escaped here, so that no field can grow without bound, end a line or break the JSON.

use std::borrow::Cow;
use std::io::Write as _;
use std::time::Duration;

/// How much is kept of a text that a client chose, in bytes.
const LONGEST_TEXT: usize = 256;
/// The same for words of ours about texts of theirs, which are cut already.
const LONGEST_WORDS: usize = 2048;

/// What more is looked at: two characters, so that the cut never makes an invalid character out of a valid one.
const BEYOND: usize = 8;

/// As much of a text as a line needs, in bytes.
pub(super) const TEXT_KEPT: usize = LONGEST_TEXT + BEYOND;

/// A line being written.
pub(super) struct Line<'a> {
    out: &'a mut Vec<u8>,
    separator: u8,
}

impl<'a> Line<'a> {
    pub(super) fn begin(out: &'a mut Vec<u8>) -> Line<'a> {
        Line { out, separator: b'{' }
    }

    /// A text, cut at 256 bytes.
    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.bytes(name, value.as_bytes());
    }

    /// Words of ours, cut at 2 KiB.
    pub(super) fn long_text(&mut self, name: &str, value: &str) {
        self.cut_text(name, value.as_bytes(), LONGEST_WORDS);
    }

    /// A text that need not be UTF-8, cut at 256 bytes.
    pub(super) fn bytes(&mut self, name: &str, value: &[u8]) {
        self.cut_text(name, value, LONGEST_TEXT);
    }

    fn cut_text(&mut self, name: &str, value: &[u8], longest: usize) {
        self.name(name);
        // Writing to a vector and serialising a string do not fail.
        let _ = serde_json::to_writer(&mut *self.out, &*cut(value, longest));
    }

    /// Something of ours whose text needs no escaping.
    pub(super) fn plain(&mut self, name: &str, value: impl std::fmt::Display) {
        self.name(name);
        let _ = write!(self.out, "\"{value}\"");
    }

    pub(super) fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        let _ = write!(self.out, "{value}");
    }

    /// Milliseconds, to the microsecond.
    pub(super) fn millis(&mut self, name: &str, value: Duration) {
        self.name(name);
        let _ = write!(self.out, "{}.{:03}", value.as_millis(), value.as_micros() % 1000);
    }

    pub(super) fn end(self) {
        self.out.extend_from_slice(b"}\n");
    }

    fn name(&mut self, name: &str) {
        let _ = write!(self.out, "{}\"{name}\":", char::from(self.separator));
        self.separator = b',';
    }
}

/// At most `longest` bytes of `value`, whole characters only; what is no UTF-8 becomes U+FFFD.
fn cut(value: &[u8], longest: usize) -> Cow<'_, str> {
    let head = value.get(..longest + BEYOND).unwrap_or(value);
    match String::from_utf8_lossy(head) {
        Cow::Borrowed(text) => Cow::Borrowed(text.get(..boundary(text, longest)).unwrap_or_default()),
        Cow::Owned(mut text) => {
            text.truncate(boundary(&text, longest));
            Cow::Owned(text)
        }
    }
}

/// A text, cut at 256 bytes between characters.
pub(super) fn cut_text(text: &str) -> &str {
    text.get(..boundary(text, LONGEST_TEXT)).unwrap_or_default()
}

/// The last character boundary within the first `longest` bytes.
fn boundary(text: &str, longest: usize) -> usize {
    (0..=longest.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn written(write: impl FnOnce(&mut Line<'_>)) -> String {
        let mut out = Vec::new();
        let mut line = Line::begin(&mut out);
        write(&mut line);
        line.end();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_are_json_on_one_line() {
        let line = written(|line| {
            line.plain("a", 1);
            line.bytes("b", b"x\"\n\x1b[31m\xff");
            line.number("c", 7);
            line.millis("d", Duration::from_micros(12_045));
        });
        assert_eq!(line, "{\"a\":\"1\",\"b\":\"x\\\"\\n\\u001b[31m\u{fffd}\",\"c\":7,\"d\":12.045}\n");
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("a".repeat(257).as_bytes(), LONGEST_TEXT), "a".repeat(256));
        assert_eq!(cut("a".repeat(256).as_bytes(), LONGEST_TEXT), "a".repeat(256));
        assert_eq!(cut(format!("{}é", "a".repeat(255)).as_bytes(), LONGEST_TEXT), "a".repeat(255));
        assert_eq!(cut("€".repeat(1000).as_bytes(), LONGEST_TEXT), "€".repeat(85));
        assert_eq!(cut(&[0xff; 1000], LONGEST_TEXT), "\u{fffd}".repeat(85));
    }

    proptest! {
        #[test]
        fn any_bytes_make_one_line_of_json(value in proptest::collection::vec(any::<u8>(), 0..600)) {
            let line = written(|line| line.bytes("x", &value));
            prop_assert_eq!(line.matches('\n').count(), 1);
            let parsed: Value = serde_json::from_str(&line).unwrap();
            let text = parsed["x"].as_str().unwrap();
            prop_assert!(text.len() <= LONGEST_TEXT);
            prop_assert!(String::from_utf8_lossy(&value).starts_with(text));
        }
    }
}
