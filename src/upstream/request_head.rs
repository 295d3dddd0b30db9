//! The head of a call as the upstream gets it, encoded once (RFC 7541): what a call has of it from then on, while it waits for a
//! connection, and should it have to be made again. Nothing in it depends on the connection.

use crate::http2::hpack::{encode_field, encode_request_line};
use http::header::AUTHORIZATION;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method};

/// What a request says before its body.
pub struct RequestHead<'a> {
    /// `:scheme`.
    pub scheme: &'a Scheme,
    /// `:authority`.
    pub authority: &'a Authority,
    /// `:path`.
    pub path: &'a PathAndQuery,
    /// The client's fields that the upstream gets.
    pub fields: &'a HeaderMap,
    /// What the upstream is told about the caller: the same header block for all its calls.
    pub identity: &'a [u8],
}

/// It in its encoded form.
pub struct EncodedHead(pub(super) Vec<u8>);

impl EncodedHead {
    /// As it goes on the wire, in HEADERS and CONTINUATION.
    pub(super) fn block(&self) -> &[u8] {
        &self.0
    }
}

impl RequestHead<'_> {
    /// As a header block.
    pub fn encode(&self) -> EncodedHead {
        /// More than a name's and a value's lengths, and what comes before them, usually take.
        const FIELD: usize = 8;
        let fields: usize = self.fields.iter().map(|(name, value)| FIELD + name.as_str().len() + value.len()).sum();
        let line = 4 * FIELD + self.authority.as_str().len() + self.path.as_str().len();
        let mut block = Vec::with_capacity(line + fields + self.identity.len());
        encode_request_line(&mut block, &Method::POST, self.scheme, self.authority.as_str(), self.path.as_str());
        for (name, value) in self.fields {
            // What clients have others never put into a table, h2 does not tell.
            let sensitive = value.is_sensitive() || name == AUTHORIZATION;
            encode_field(&mut block, name, value.as_bytes(), sensitive);
        }
        block.extend_from_slice(self.identity);
        EncodedHead(block)
    }
}
