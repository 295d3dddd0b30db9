//! Reads header blocks as RFC 7541 says, and keeps how each field was written: which of them a peer may remember.

use std::collections::VecDeque;

/// How a field was written (RFC 7541 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Indexed,
    /// A literal that is added to the table.
    Added,
    Literal,
    /// A literal that nobody on the way may ever add to a table.
    NeverIndexed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    pub value: Vec<u8>,
    pub form: Form,
}

impl Field {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.value).into_owned()
    }
}

/// One direction's table. Panics when a block is not as it must be.
pub struct Decoder {
    table: VecDeque<(String, Vec<u8>)>,
    /// What the writer has said the table's size is.
    size: usize,
    /// What it may be, as the writer has acknowledged.
    allowed: usize,
    /// The least that it was allowed to be since the writer has last said its size, if that is less (RFC 7541 §4.2).
    due: Option<usize>,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder { table: VecDeque::new(), size: 4096, allowed: 4096, due: None }
    }
}

impl Decoder {
    /// A SETTINGS_HEADER_TABLE_SIZE of the reader's was acknowledged.
    pub fn allow(&mut self, size: usize) {
        self.allowed = size;
        self.due = self.due.into_iter().chain((size < self.size).then_some(size)).min();
    }

    /// The fields of a whole block.
    pub fn decode(&mut self, block: &[u8]) -> Vec<Field> {
        let (mut rest, mut fields) = (block, Vec::new());
        while let Some(&first) = rest.first() {
            if first & 0xe0 == 0x20 {
                let size = integer(&mut rest, 5);
                assert!(fields.is_empty(), "a table's size changes only before the first field");
                assert!(size <= self.allowed, "a table of {size} bytes, though {} are allowed", self.allowed);
                self.size = size;
                self.due = self.due.filter(|due| *due < size);
                self.evict();
                continue;
            }
            assert_eq!(self.due, None, "a smaller table was acknowledged, and a field comes before its size");
            fields.push(self.field(first, &mut rest));
        }
        fields
    }

    fn field(&mut self, first: u8, rest: &mut &[u8]) -> Field {
        let (form, prefix) = match first {
            0x80.. => (Form::Indexed, 7),
            0x40.. => (Form::Added, 6),
            0x10.. => (Form::NeverIndexed, 4),
            _ => (Form::Literal, 4),
        };
        let index = integer(rest, prefix);
        if form == Form::Indexed {
            let (name, value) = self.entry(index);
            return Field { name, value, form };
        }
        let name = if index == 0 { String::from_utf8(string(rest)).expect("a name of text") } else { self.entry(index).0 };
        let value = string(rest);
        if form == Form::Added {
            self.table.push_front((name.clone(), value.clone()));
            self.evict();
        }
        Field { name, value, form }
    }

    fn entry(&self, index: usize) -> (String, Vec<u8>) {
        match index.checked_sub(1).expect("an index above 0") {
            index if index < STATIC.len() => (STATIC[index].0.to_owned(), STATIC[index].1.as_bytes().to_vec()),
            index => self.table.get(index - STATIC.len()).expect("an entry of the table").clone(),
        }
    }

    fn evict(&mut self) {
        let size = |table: &VecDeque<(String, Vec<u8>)>| table.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>();
        while size(&self.table) > self.size {
            self.table.pop_back();
        }
    }
}

fn integer(rest: &mut &[u8], prefix: u32) -> usize {
    let mask = (1 << prefix) - 1;
    let mut value = usize::from(octet(rest)) & mask;
    if value == mask {
        for shift in (0..28).step_by(7) {
            let next = usize::from(octet(rest));
            value += (next & 0x7f) << shift;
            if next < 0x80 {
                break;
            }
        }
    }
    value
}

fn octet(rest: &mut &[u8]) -> u8 {
    let (first, others) = rest.split_first().expect("a block that is whole");
    *rest = others;
    *first
}

fn string(rest: &mut &[u8]) -> Vec<u8> {
    let encoded = rest[0] & 0x80 != 0;
    let length = integer(rest, 7);
    let (text, others) = rest.split_at(length);
    *rest = others;
    if encoded { from_huffman(text) } else { text.to_vec() }
}

/// The Huffman code of each octet: its bits, and how many (RFC 7541 Appendix B). It is canonical, so that the lengths say it all.
fn codes() -> Vec<(u32, u32)> {
    let mut codes = vec![(0, 0); 256];
    let mut code = 0;
    for length in 5..=30 {
        code <<= 1;
        for (symbol, _) in LENGTHS.iter().enumerate().filter(|(_, l)| u32::from(**l) == length) {
            codes[symbol] = (code, length);
            code += 1;
        }
    }
    codes
}

fn from_huffman(encoded: &[u8]) -> Vec<u8> {
    let (codes, mut text, mut code, mut length) = (codes(), Vec::new(), 0_u32, 0_u32);
    for bit in encoded.iter().flat_map(|octet| (0..8).rev().map(move |bit| u32::from(octet >> bit & 1))) {
        (code, length) = (code << 1 | bit, length + 1);
        if let Some(symbol) = codes.iter().position(|known| *known == (code, length)) {
            text.push(u8::try_from(symbol).unwrap());
            (code, length) = (0, 0);
        }
    }
    assert!(length < 8 && code == (1 << length) - 1, "padding is the beginning of EOS");
    text
}

/// A text in Huffman code, as a string of a header block.
pub fn huffman(text: &str) -> Vec<u8> {
    let codes = codes();
    let bits: Vec<u32> = text
        .bytes()
        .flat_map(|octet| {
            let (code, length) = codes[usize::from(octet)];
            (0..length).rev().map(move |bit| code >> bit & 1)
        })
        .collect();
    let octets = bits.chunks(8).map(|bits| {
        let padded = bits.iter().chain(std::iter::repeat(&1)).take(8);
        padded.fold(0, |octet, bit| octet << 1 | u8::try_from(*bit).unwrap())
    });
    let octets: Vec<u8> = octets.collect();
    [&[0x80 | u8::try_from(octets.len()).ok().filter(|length| *length < 127).expect("a short text")], &octets[..]].concat()
}

#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// RFC 7541 Appendix A.
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"), (":scheme", "http"),
    (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""), ("accept-encoding", "gzip, deflate"), ("accept-language", ""),
    ("accept-ranges", ""), ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""),
    ("cache-control", ""), ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""), ("expect", ""),
    ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""), ("max-forwards", ""),
    ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""), ("referer", ""), ("refresh", ""), ("retry-after", ""),
    ("server", ""), ("set-cookie", ""), ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""),
    ("via", ""), ("www-authenticate", ""),
];
