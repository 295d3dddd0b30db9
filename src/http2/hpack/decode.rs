//! Decodes the header blocks of one connection (RFC 7541 §3 and §6), each to its end, for the table must be the peer's whatever
//! becomes of a block's message; keeps no more of it than its limit allows, and says whether it is malformed.

use super::block::{Block, Text};
use super::field::{Entry, Field, Name};
use super::table::Table;
use crate::http2::huffman;
use http::{HeaderMap, StatusCode};
use std::fmt;

/// Size updates that a block may begin with: a smaller one, and what it is in the end (RFC 7541 §4.2).
const SIZE_UPDATES: usize = 2;

/// What strings are decoded in stays from block to block up to this size, in bytes.
const SCRATCH: usize = 4096;

/// Decodes the header blocks that come on one connection, in their order. Its table counts at most 4096 bytes, which is what
/// SETTINGS grant that do not say otherwise.
pub struct Decoder {
    table: Table,
    /// What was in Huffman code.
    scratch: Vec<u8>,
}

/// What a response or trailers say, as far as that is kept: once they are `malformed` or `oversized`, nothing more is, and what
/// comes after is not judged.
#[derive(Debug, Default)]
pub struct HeaderList {
    /// `:status`. Trailers may have none, and a response must: that is for the caller, who knows which it is.
    pub status: Option<StatusCode>,
    /// Everything else, in its order. Values that came as never indexed are marked sensitive (RFC 7541 §6.2.3).
    pub fields: HeaderMap,
    /// Larger than the limit, or more fields than a `HeaderMap` takes.
    pub oversized: bool,
    /// Malformed as a response or as trailers (RFC 9113 §8.1.1, §8.2, §8.3): a pseudo-header that is unknown or a request's, comes
    /// twice or after another field; a `:status` that is not three digits; a name that is no token in lower case; a value with NUL,
    /// CR, LF or another control character; a field of the connection (`connection`, `transfer-encoding`, …), a `te` that is not
    /// `trailers`.
    pub malformed: bool,
}

/// The block cannot be read, or the table no longer be the peer's: the connection has to end (COMPRESSION_ERROR, RFC 9113 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompressionError;

impl Decoder {
    /// Of a connection on which nothing has come. Takes no memory before it has to.
    #[allow(clippy::new_without_default)] // a connection's, never somebody's default
    pub fn new() -> Decoder {
        Decoder { table: Table::new(), scratch: Vec::new() }
    }

    /// Decodes a whole block: what HEADERS and all their CONTINUATIONs carry. `limit`: what its fields may count, in bytes: the sum
    /// of name + value + 32 of each (RFC 9113 §6.5.2).
    ///
    /// # Errors
    /// The block is no HPACK. Nothing must be decoded on this connection any more.
    pub fn decode(&mut self, block: &[u8], limit: usize) -> Result<HeaderList, CompressionError> {
        let mut taken = Taken { list: HeaderList::default(), left: limit };
        let read = self.read(Block::new(block, 0), &mut taken);
        if self.scratch.capacity() > SCRATCH {
            self.scratch = Vec::new();
        }
        read.map(|()| taken.list).ok_or(CompressionError)
    }

    fn read(&mut self, mut block: Block<'_>, taken: &mut Taken) -> Option<()> {
        for _ in 0..SIZE_UPDATES {
            if let Some(0x20..=0x3f) = block.peek() {
                self.table.resize(block.integer(5)?)?;
            }
        }
        while let Some(first) = block.peek() {
            match first {
                0x80.. => {
                    let entry = self.table.get(block.integer(7)?)?;
                    if taken.has_room(entry.size) {
                        taken.add(entry.field.clone());
                    }
                }
                0x40.. => {
                    let entry = self.literal(&mut block, 6, false)?;
                    if taken.has_room(entry.size) {
                        taken.add(entry.field.clone());
                    }
                    self.table.insert(entry);
                }
                0x20.. => return None, // a size update where none may be
                form => {
                    let entry = self.literal(&mut block, 4, form & 0x10 != 0)?;
                    if taken.has_room(entry.size) {
                        taken.add(entry.field);
                    }
                }
            }
        }
        Some(())
    }

    /// A field whose name's index has a prefix of so many bits; 0: the name is written out as well.
    fn literal(&mut self, block: &mut Block<'_>, prefix: u32, sensitive: bool) -> Option<Entry> {
        let name = match block.integer(prefix)? {
            0 => Name::new(plain(block.text()?, &mut self.scratch)?),
            index => self.table.get(index)?.field.name(),
        };
        Some(Entry::new(name, plain(block.text()?, &mut self.scratch)?, sensitive))
    }

    /// What the table counts, in bytes, and how many fields it has.
    #[cfg(any(test, fuzzing))]
    pub(super) fn held(&self) -> (usize, usize) {
        self.table.held()
    }
}

/// What a string says.
fn plain<'a>(text: Text<'a>, scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    if !text.encoded {
        return Some(text.bytes);
    }
    scratch.clear();
    scratch.reserve(text.bytes.len() * 8 / 5); // no code is shorter than five bits
    huffman::decode(text.bytes, scratch).then_some(scratch)
}

/// What is kept of a block.
struct Taken {
    list: HeaderList,
    /// Of the limit.
    left: usize,
}

impl Taken {
    /// Whether a field that counts so much is kept. It counts from now on.
    fn has_room(&mut self, size: usize) -> bool {
        if self.list.oversized || self.list.malformed {
            return false;
        }
        let left = self.left.checked_sub(size);
        self.left = left.unwrap_or_default();
        self.list.oversized = left.is_none();
        left.is_some()
    }

    fn add(&mut self, field: Field) {
        let list = &mut self.list;
        match field {
            // A map of few fields is of the right size when it begins by itself.
            Field::Regular(name, value) => list.oversized = list.fields.try_append(name, value).is_err(),
            Field::Status(status) if list.status.is_none() && list.fields.is_empty() => list.status = Some(status),
            Field::Status(_) | Field::Malformed(_) => list.malformed = true,
        }
    }
}

impl fmt::Display for CompressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed header compression")
    }
}

impl std::error::Error for CompressionError {}

#[cfg(test)]
mod tests {
    use super::super::reference::read_twice;
    use super::super::table::MOST;
    use super::*;
    use crate::http2::testing::text;
    use http::header::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    const INDEXING: u8 = 0x40;
    const WITHOUT_INDEXING: u8 = 0x00;
    const NEVER_INDEXED: u8 = 0x10;
    const ENOUGH: usize = 1 << 20;

    fn octets(hex: &str) -> Vec<u8> {
        let hex: String = hex.split_whitespace().collect();
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// Whose name is written out.
    fn literal(form: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
        [vec![form], text(name, false), text(value, false)].concat()
    }

    fn decoded(block: &[u8]) -> HeaderList {
        Decoder::new().decode(block, ENOUGH).unwrap()
    }

    #[track_caller]
    fn is(list: HeaderList, status: u16, fields: &[(&str, &str)]) {
        assert!(!list.malformed && !list.oversized);
        assert_eq!(list.status, StatusCode::from_u16(status).ok());
        let found: Vec<(&str, &str)> = list.fields.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(found, fields);
    }

    /// RFC 7541 C.5 and C.6: three responses, with a table of 256 bytes.
    #[track_caller]
    fn responses_of_the_rfc(blocks: [&str; 3]) {
        let mut decoder = Decoder::new();
        let [first, second, third] = blocks.map(octets);
        let (date, later) = ("Mon, 21 Oct 2013 20:13:21 GMT", "Mon, 21 Oct 2013 20:13:22 GMT");
        let cookie = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
        let kept = [("cache-control", "private"), ("date", date), ("location", "https://www.example.com")];
        is(decoder.decode(&[&[0x3f, 0xe1, 0x01], &first[..]].concat(), ENOUGH).unwrap(), 302, &kept);
        assert_eq!(decoder.held(), (222, 4));
        is(decoder.decode(&second, ENOUGH).unwrap(), 307, &kept);
        assert_eq!(decoder.held(), (222, 4));
        let others = [kept[0], ("date", later), kept[2], ("content-encoding", "gzip"), ("set-cookie", cookie)];
        is(decoder.decode(&third, ENOUGH).unwrap(), 200, &others);
        assert_eq!(decoder.held(), (215, 3));
        // What is left, newest first.
        is(decoder.decode(&[0x88, 0xbe, 0xbf, 0xc0], ENOUGH).unwrap(), 200, &[others[4], others[3], others[1]]);
        assert_eq!(decoder.decode(&[0xc1], ENOUGH).err(), Some(CompressionError));
    }

    #[test]
    fn the_responses_of_the_rfc() {
        responses_of_the_rfc([
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d 546e 1768
             7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "4803 3330 37c1 c0bf",
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f 6f3d 4153
             444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e
             3d31",
        ]);
    }

    #[test]
    fn the_responses_of_the_rfc_in_huffman_code() {
        responses_of_the_rfc([
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8
             e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b
             3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        ]);
    }

    /// RFC 7541 C.3 and C.4: a table is kept right whoever the fields are for.
    #[test]
    fn the_requests_of_the_rfc_are_no_responses() {
        for blocks in [
            [
                "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                "8286 84be 5808 6e6f 2d63 6163 6865",
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            ],
            [
                "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
                "8286 84be 5886 a8eb 1064 9cbf",
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            ],
        ] {
            let mut decoder = Decoder::new();
            for (block, held) in blocks.into_iter().zip([(57, 1), (110, 2), (164, 3)]) {
                let list = decoder.decode(&octets(block), ENOUGH).unwrap();
                assert!(list.malformed && list.status.is_none() && list.fields.is_empty());
                assert_eq!(decoder.held(), held);
            }
            is(decoder.decode(&[0x88, 0xbf, 0xbe], ENOUGH).unwrap(), 200, &[("cache-control", "no-cache"), ("custom-key", "custom-value")]);
        }
    }

    #[test]
    fn a_warm_answer_of_grpc_is_three_octets() {
        let mut decoder = Decoder::new();
        let first = [vec![0x88, 0x40 | 31], text(b"application/grpc", true)].concat();
        is(decoder.decode(&first, ENOUGH).unwrap(), 200, &[("content-type", "application/grpc")]);
        let trailers = [literal(INDEXING, b"grpc-status", b"0"), literal(WITHOUT_INDEXING, b"grpc-message", b"")].concat();
        is(decoder.decode(&trailers, ENOUGH).unwrap(), 0, &[("grpc-status", "0"), ("grpc-message", "")]);
        is(decoder.decode(&[0x88, 0xbf], ENOUGH).unwrap(), 200, &[("content-type", "application/grpc")]);
        is(decoder.decode(&[0xbe], ENOUGH).unwrap(), 0, &[("grpc-status", "0")]);
    }

    #[test]
    fn what_no_response_may_have_makes_it_malformed_and_stays_in_the_table() {
        for (name, value) in [
            (&b":path"[..], &b"/"[..]),
            (b":unknown", b"x"),
            (b":", b""),
            (b"", b"x"),
            (b":status", b"20"),
            (b":status", b"2000"),
            (b":status", b"099"),
            (b":status", b"abc"),
            (b"X-Name", b"x"),
            (b"Grpc-Status", b"0"),
            (b"a b", b"x"),
            (b"a\xe4", b"x"),
            (b"x", b"a\0b"),
            (b"x", b"a\rb"),
            (b"x", b"a\nb"),
            (b"x", b"a\x7fb"),
            (b"connection", b"close"),
            (b"proxy-connection", b"close"),
            (b"keep-alive", b"timeout=5"),
            (b"transfer-encoding", b"chunked"),
            (b"upgrade", b"h2c"),
            (b"te", b"gzip"),
            (&[b'x'; 1 << 16], b"x"),
        ] {
            for form in [INDEXING, WITHOUT_INDEXING, NEVER_INDEXED] {
                let mut decoder = Decoder::new();
                let good = literal(INDEXING, b"x-before", b"1");
                let more = literal(INDEXING, b"x-after", b"2");
                let list = decoder.decode(&[&good[..], &literal(form, name, value), &more].concat(), ENOUGH).unwrap();
                assert!(list.malformed && !list.oversized, "{name:?} {value:?}");
                assert_eq!(list.fields.len(), 1, "nothing more is kept");
                let size = name.len() + value.len() + 32;
                if form == INDEXING && size < 1000 {
                    assert_eq!(decoder.held(), (41 + 40 + size, 3));
                    // Only what has it is malformed.
                    is(decoder.decode(&[0xc0, 0xbe], ENOUGH).unwrap(), 0, &[("x-before", "1"), ("x-after", "2")]);
                    assert!(decoder.decode(&[0xbf], ENOUGH).unwrap().malformed);
                }
            }
        }
        for form in [INDEXING, WITHOUT_INDEXING, NEVER_INDEXED] {
            is(decoded(&literal(form, b"te", b"trailers")), 0, &[("te", "trailers")]);
            is(decoded(&literal(form, b":status", b"999")), 999, &[]);
            is(decoded(&literal(form, b"x", b" \ta ")), 0, &[("x", " \ta ")]);
        }
        // Of the static table.
        for index in (1..=7).chain([57]) {
            assert!(decoded(&[0x80 | index]).malformed, "{index}");
        }
    }

    #[test]
    fn a_name_may_be_taken_from_a_field_that_is_malformed() {
        let mut decoder = Decoder::new();
        assert!(decoder.decode(&literal(INDEXING, b"x-name", b"\0"), ENOUGH).unwrap().malformed);
        is(decoder.decode(&[&[0x0f, 62 - 15][..], &text(b"good", false)].concat(), ENOUGH).unwrap(), 0, &[("x-name", "good")]);
        assert!(decoder.decode(&literal(INDEXING, b":status", b"x"), ENOUGH).unwrap().malformed);
        is(decoder.decode(&[&[0x0f, 62 - 15][..], &text(b"204", false)].concat(), ENOUGH).unwrap(), 204, &[]);
        assert!(decoder.decode(&literal(INDEXING, b"Name", b"x"), ENOUGH).unwrap().malformed);
        assert!(decoder.decode(&[&[0x7e][..], &text(b"good", false)].concat(), ENOUGH).unwrap().malformed);
        assert_eq!(decoder.held(), (32 + 6 + 1 + 32 + 7 + 1 + 32 + 4 + 1 + 32 + 4 + 4, 4));
    }

    #[test]
    fn there_is_one_status_and_it_comes_first() {
        assert!(decoded(&[0x88, 0x88]).malformed);
        assert!(decoded(&[&literal(WITHOUT_INDEXING, b"x", b"y"), &[0x88][..]].concat()).malformed);
        assert_eq!(decoded(&[0x89]).status, Some(StatusCode::NO_CONTENT));
        assert_eq!(decoded(&[]).status, None);
    }

    #[test]
    fn never_indexed_is_sensitive() {
        let sensitive = |form| decoded(&literal(form, b"x", b"y")).fields["x"].is_sensitive();
        assert!(sensitive(NEVER_INDEXED) && !sensitive(WITHOUT_INDEXING) && !sensitive(INDEXING));
    }

    #[test]
    fn up_to_the_limit_is_kept_and_the_table_is_right_beyond_it() {
        let block = [&[0x88][..], &literal(INDEXING, b"x", b"1"), &literal(INDEXING, b"y", b"2"), &literal(INDEXING, b"z", b"3")].concat();
        let size = 32 + 7 + 3 + 3 * 34;
        for (limit, kept) in [(size, 3), (size - 1, 2), (42 + 34, 1), (42 + 33, 0), (41, 0), (0, 0)] {
            let mut decoder = Decoder::new();
            let list = decoder.decode(&block, limit).unwrap();
            assert_eq!((list.fields.len(), list.oversized, list.malformed), (kept, limit < size, false));
            assert_eq!(list.status.is_some(), limit >= 42);
            assert_eq!(decoder.held(), (3 * 34, 3));
        }
        // What would fit again, and what would be malformed.
        let after = [&literal(WITHOUT_INDEXING, b"x", &[b'a'; 90])[..], &literal(WITHOUT_INDEXING, b"y", b""), &[0x81]].concat();
        let list = Decoder::new().decode(&after, 100).unwrap();
        assert!(list.oversized && !list.malformed && list.fields.is_empty());
    }

    /// An octet of the block stands for 4 KiB of fields.
    #[test]
    fn a_block_that_expands_is_not_kept() {
        let mut decoder = Decoder::new();
        let large = literal(INDEXING, b"x", &[b'a'; 4000]);
        let list = decoder.decode(&[large, vec![0xbe; 1 << 20]].concat(), 5 * 4033).unwrap();
        assert!(list.oversized);
        assert_eq!(list.fields.len(), 5);
        assert_eq!(decoder.held(), (4033, 1));
    }

    /// Of one name as many as the limit allows; of names, what a map takes.
    #[test]
    fn more_fields_than_a_map_takes_are_too_many() {
        let names =
            |count: u32| (0..count).flat_map(|name| literal(WITHOUT_INDEXING, format!("{name:x}").as_bytes(), b"")).collect::<Vec<u8>>();
        let list = Decoder::new().decode(&names(40_000), usize::MAX).unwrap();
        assert!(list.oversized && !list.malformed);
        assert!(list.fields.len() < 40_000);
        assert!(!Decoder::new().decode(&names(20_000), usize::MAX).unwrap().oversized);
    }

    #[test]
    fn the_size_of_the_table_is_changed_at_the_beginning_twice_at_most_and_not_beyond_what_was_granted() {
        let update = |size| {
            let mut update = Vec::new();
            super::super::append_integer(0x20, 5, size, &mut update);
            update
        };
        let mut decoder = Decoder::new();
        decoder.decode(&literal(INDEXING, b"x", b"y"), ENOUGH).unwrap();
        decoder.decode(&update(34), ENOUGH).unwrap();
        assert_eq!(decoder.held(), (34, 1));
        decoder.decode(&[update(33), update(MOST), vec![0x88]].concat(), ENOUGH).unwrap();
        assert_eq!(decoder.held(), (0, 0));
        // The last one counts.
        decoder.decode(&[update(MOST), update(33), literal(INDEXING, b"x", b"y")].concat(), ENOUGH).unwrap();
        assert_eq!(decoder.held(), (0, 0));
        for wrong in [
            update(MOST + 1),
            [update(0), update(MOST + 1)].concat(),
            [update(0), update(0), update(0)].concat(),
            [vec![0x88], update(0)].concat(),
            [literal(INDEXING, b"x", b"y"), update(0)].concat(),
        ] {
            assert_eq!(Decoder::new().decode(&wrong, ENOUGH).err(), Some(CompressionError), "{wrong:x?}");
        }
    }

    #[test]
    fn a_field_larger_than_the_table_leaves_it_empty() {
        let mut decoder = Decoder::new();
        let list = decoder.decode(&[literal(INDEXING, b"x", b"y"), literal(INDEXING, b"z", &[b'a'; MOST - 33])].concat(), ENOUGH).unwrap();
        assert_eq!(list.fields.len(), 2);
        assert_eq!(decoder.held(), (MOST, 1));
        decoder.decode(&literal(INDEXING, b"z", &[b'a'; MOST - 32]), ENOUGH).unwrap();
        assert_eq!(decoder.held(), (0, 0));
    }

    #[test]
    fn what_cannot_be_read_ends_the_connection() {
        for wrong in [
            &[0x80][..],                                       // index 0
            &[0xbe],                                           // beyond the table
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00],       // an integer too long
            &[0xff],                                           // cut
            &[0x7e, 0x01, b'a'],                               // a name beyond the table
            &[0x0f, 47, 0x01, b'a'],                           // likewise
            &[0x00, 0x01],                                     // a name cut
            &[0x00, 0x01, b'a'],                               // no value
            &[0x40, 0x01, b'a', 0x02, b'b'],                   // a value cut
            &[0x40, 0x81, 0x00, 0x01, b'b'],                   // padding that is none
            &[0x00, 0x01, b'a', 0x84, 0xff, 0xff, 0xff, 0xff], // EOS
        ] {
            assert_eq!(Decoder::new().decode(wrong, ENOUGH).err(), Some(CompressionError), "{wrong:x?}");
            // Also when nothing is kept any more.
            assert_eq!(Decoder::new().decode(&[&[0x81], wrong].concat(), 0).err(), Some(CompressionError), "{wrong:x?}");
        }
    }

    #[test]
    fn names_and_values_that_are_known_are_what_they_are() {
        for name in ["grpc-status", "grpc-message", "grpc-encoding", "grpc-accept-encoding", "grpc-status-details-bin", "x-other"] {
            for value in ["0", "1", "", "application/grpc", "application/grpc+proto", "application/grpc+json"] {
                let list = decoded(&literal(NEVER_INDEXED, name.as_bytes(), value.as_bytes()));
                assert_eq!(list.fields.get(HeaderName::from_static(name)), Some(&HeaderValue::from_static(value)));
            }
        }
    }

    #[test]
    fn a_connection_that_says_nothing_takes_no_memory_and_a_large_text_leaves_none() {
        let mut decoder = Decoder::new();
        assert_eq!(decoder.scratch.capacity(), 0);
        decoder.decode(&[vec![0], text(b"x", true), text(&[b'a'; 100], true)].concat(), ENOUGH).unwrap();
        assert!((1..=SCRATCH).contains(&decoder.scratch.capacity()));
        decoder.decode(&[vec![0], text(b"x", true), text(&[b'a'; 1 << 16], true)].concat(), ENOUGH).unwrap();
        assert!(decoder.scratch.capacity() <= SCRATCH);
    }

    /// Parts of blocks, most of them well formed, of what is somewhere judged.
    fn part() -> impl Strategy<Value = Vec<u8>> {
        let name = prop::sample::select(vec![
            &b":status"[..],
            b":path",
            b":x",
            b"",
            b"te",
            b"connection",
            b"keep-alive",
            b"upgrade",
            b"proxy-connection",
            b"transfer-encoding",
            b"grpc-status",
            b"grpc-message",
            b"content-type",
            b"set-cookie",
            b"X",
            b"x",
            b"x y",
            b"x-y\"",
            b"a-name-of-some-length",
        ]);
        let value = prop_oneof![
            prop::sample::select(vec![&b"200"[..], b"trailers", b"0", b"application/grpc", b"", b"a\0", b"a\n", b"a b", b"\xff"])
                .prop_map(<[u8]>::to_vec),
            (0usize..3000).prop_map(|length| vec![b'v'; length]),
        ];
        let form = || prop::sample::select(vec![(INDEXING, 6), (INDEXING, 6), (WITHOUT_INDEXING, 4), (NEVER_INDEXED, 4)]);
        let number = |form, prefix, number| {
            let mut written = Vec::new();
            super::super::append_integer(form, prefix, number, &mut written);
            written
        };
        prop_oneof![
            8 => (1usize..70).prop_map(move |index| number(0x80, 7, index)),
            8 => (form(), name, value.clone(), any::<[bool; 2]>())
                .prop_map(|((form, _), name, value, encoded)| [vec![form], text(name, encoded[0]), text(&value, encoded[1])].concat()),
            8 => (form(), 1usize..70, value, any::<bool>())
                .prop_map(move |((form, prefix), index, value, encoded)| [number(form, prefix, index), text(&value, encoded)].concat()),
            1 => (0usize..4200).prop_map(move |size| number(0x20, 5, size)),
            1 => prop::collection::vec(any::<u8>(), 0..4),
        ]
    }

    proptest! {
        #[test]
        fn blocks_are_read_as_they_are_in_another_way(
            blocks in prop::collection::vec(prop::collection::vec(part(), 0..6), 0..8),
            limit in prop::sample::select(vec![0usize, 50, 100, 200, 5000, ENOUGH]),
        ) {
            let blocks: Vec<Vec<u8>> = blocks.iter().map(|parts| parts.concat()).collect();
            read_twice(&blocks.iter().map(Vec::as_slice).collect::<Vec<_>>(), limit);
        }

        #[test]
        fn nothing_panics(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..4), limit in 0usize..300) {
            read_twice(&blocks.iter().map(Vec::as_slice).collect::<Vec<_>>(), limit);
        }
    }
}
