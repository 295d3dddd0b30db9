//! Compressed headers (HPACK, RFC 7541), towards an upstream: requests are encoded, responses and trailers decoded.
//!
//! What we say uses no dynamic table and no Huffman code: a connection's encoder has no state, and bytes cost less than looking
//! for them in a table. What we hear is decoded with a table of fields that are ready for use, so that one that comes again is
//! neither parsed nor copied. What is kept of a hostile block is bounded by a limit and by the table, never by what it expands to.

mod block;
mod decode;
mod encode;
mod field;
#[cfg(any(test, fuzzing))]
pub(super) mod reference;
mod static_table;
mod table;
#[cfg(test)]
mod tests;

pub(super) use block::{Block, Text, append_integer};
pub use decode::{CompressionError, Decoder, HeaderList};
pub use encode::{encode_field, encode_request_line};
