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
