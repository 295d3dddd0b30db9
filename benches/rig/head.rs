//! Header blocks of requests, made once, with the token in each of the forms in which clients send it (RFC 7541).

#![allow(clippy::indexing_slicing)] // a panic is how a measurement fails

use std::fmt;

/// How a token travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// nghttp2, tonic, curl: a literal with Huffman coding.
    Huffman,
    /// C-core (Python, C++, Ruby, PHP): a literal as it is.
    Plain,
    /// grpc-go, grpc-java: a reference into the table, after the first call of a connection.
    Indexed,
}

impl Form {
    pub const ALL: [Form; 3] = [Form::Huffman, Form::Plain, Form::Indexed];
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Form::Huffman => "Huffman",
            Form::Plain => "plain",
            Form::Indexed => "indexed",
        })
    }
}

/// The block of a connection's first request, and that of every later one.
pub struct Blocks {
    pub first: Vec<u8>,
    pub later: Vec<u8>,
}

const TOKEN_NAME: u8 = 23; // authorization, in the static table

/// A gRPC request of `method`. All but the token is in the table after the first one, as all libraries do.
pub fn blocks(secure: bool, method: &str, token: Option<&str>, form: Form) -> Blocks {
    let scheme = if secure { 0x87 } else { 0x86 };
    let mut first = vec![0x83, scheme];
    // Names of the static table: :path, :authority, content-type; then what is not in it.
    let known = [(4, method), (1, "localhost"), (31, "application/grpc")];
    let unknown = [("te", "trailers"), ("user-agent", "doorward-bench/1.0")];
    for (name, value) in known {
        first.push(0x40 | name);
        literal(&mut first, value.as_bytes());
    }
    for (name, value) in unknown {
        first.push(0x40);
        literal(&mut first, name.as_bytes());
        literal(&mut first, value.as_bytes());
    }
    let mut entries = (known.len() + unknown.len()) as u8;
    let value = token.map(|token| format!("Bearer {token}").into_bytes());
    let mut every = Vec::new(); // what the token is on each call
    match (&value, form) {
        (None, _) => {}
        (Some(value), Form::Indexed) => {
            first.push(0x40 | TOKEN_NAME);
            literal(&mut first, value);
            entries += 1;
        }
        (Some(value), form) => {
            every.extend([0x1f, TOKEN_NAME - 15]); // never indexed
            if form == Form::Huffman { huffman(&mut every, value) } else { literal(&mut every, value) }
        }
    }
    let mut later = vec![0x83, scheme];
    later.extend((0..entries).map(|entry| 0x80 | (61 + entries - entry)));
    first.extend_from_slice(&every);
    later.extend_from_slice(&every);
    Blocks { first, later }
}

fn literal(block: &mut Vec<u8>, text: &[u8]) {
    length(block, 0, text.len());
    block.extend_from_slice(text);
}

fn huffman(block: &mut Vec<u8>, text: &[u8]) {
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0u64, 0u32);
    for byte in text {
        let (code, length) = CODES[usize::from(byte - b' ')];
        bits = bits << length | u64::from(code);
        count += length;
        while count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    if count > 0 {
        bytes.push((bits << (8 - count)) as u8 | (0xff >> count)); // ends with the beginning of EOS: ones
    }
    length(block, 0x80, bytes.len());
    block.extend(bytes);
}

/// An integer with a prefix of seven bits.
fn length(block: &mut Vec<u8>, flag: u8, length: usize) {
    if length < 127 {
        return block.push(flag | length as u8);
    }
    block.push(flag | 127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    block.push(rest as u8);
}

/// Codes of printable ASCII and their lengths in bits (RFC 7541, Appendix B).
#[rustfmt::skip]
const CODES: [(u32, u32); 95] = [
    (0x14, 6), (0x3f8, 10), (0x3f9, 10), (0xffa, 12), (0x1ff9, 13), (0x15, 6), (0xf8, 8), (0x7fa, 11), (0x3fa, 10), (0x3fb, 10),
    (0xf9, 8), (0x7fb, 11), (0xfa, 8), (0x16, 6), (0x17, 6), (0x18, 6), (0x0, 5), (0x1, 5), (0x2, 5), (0x19, 6), (0x1a, 6), (0x1b, 6),
    (0x1c, 6), (0x1d, 6), (0x1e, 6), (0x1f, 6), (0x5c, 7), (0xfb, 8), (0x7ffc, 15), (0x20, 6), (0xffb, 12), (0x3fc, 10), (0x1ffa, 13),
    (0x21, 6), (0x5d, 7), (0x5e, 7), (0x5f, 7), (0x60, 7), (0x61, 7), (0x62, 7), (0x63, 7), (0x64, 7), (0x65, 7), (0x66, 7), (0x67, 7),
    (0x68, 7), (0x69, 7), (0x6a, 7), (0x6b, 7), (0x6c, 7), (0x6d, 7), (0x6e, 7), (0x6f, 7), (0x70, 7), (0x71, 7), (0x72, 7), (0xfc, 8),
    (0x73, 7), (0xfd, 8), (0x1ffb, 13), (0x7fff0, 19), (0x1ffc, 13), (0x3ffc, 14), (0x22, 6), (0x7ffd, 15), (0x3, 5), (0x23, 6), (0x4, 5),
    (0x24, 6), (0x5, 5), (0x25, 6), (0x26, 6), (0x27, 6), (0x6, 5), (0x74, 7), (0x75, 7), (0x28, 6), (0x29, 6), (0x2a, 6), (0x7, 5),
    (0x2b, 6), (0x76, 7), (0x2c, 6), (0x8, 5), (0x9, 5), (0x2d, 6), (0x77, 7), (0x78, 7), (0x79, 7), (0x7a, 7), (0x7b, 7), (0x7ffe, 15),
    (0x7fc, 11), (0x3ffd, 14), (0x1ffd, 13),
];
