//! Encodes a request's head (RFC 7541 §6): a number where the static table has the field, or its name, and bytes as they are.

use super::block::append_integer;
use http::header::{self, HeaderName};
use http::uri::Scheme;
use http::{Method, header::ACCEPT_ENCODING};

const INDEXED: u8 = 0x80;
const WITHOUT_INDEXING: u8 = 0x00;
const NEVER_INDEXED: u8 = 0x10;

const AUTHORITY: usize = 1;
const METHOD: usize = 2;
const POST: usize = 3;
const PATH: usize = 4;
const SCHEME: usize = 6;
const HTTPS: usize = 7;

/// Appends the pseudo-headers of a request, in the order `:method`, `:scheme`, `:authority`, `:path`. They come before every field.
pub fn encode_request_line(block: &mut Vec<u8>, method: &Method, scheme: &Scheme, authority: &str, path: &str) {
    match *method {
        Method::POST => append_indexed(block, POST),
        Method::GET => append_indexed(block, METHOD),
        _ => append_literal(block, WITHOUT_INDEXING, METHOD, method.as_str().as_bytes()),
    }
    if *scheme == Scheme::HTTP {
        append_indexed(block, SCHEME);
    } else if *scheme == Scheme::HTTPS {
        append_indexed(block, HTTPS);
    } else {
        append_literal(block, WITHOUT_INDEXING, SCHEME, scheme.as_str().as_bytes());
    }
    append_literal(block, WITHOUT_INDEXING, AUTHORITY, authority.as_bytes());
    match path {
        "/" => append_indexed(block, PATH),
        _ => append_literal(block, WITHOUT_INDEXING, PATH, path.as_bytes()),
    }
}

/// Appends a field. One that is `sensitive` is never indexed, neither by us nor by whoever passes it on (RFC 7541 §6.2.3 and §7.1.3).
pub fn encode_field(block: &mut Vec<u8>, name: &HeaderName, value: &[u8], sensitive: bool) {
    let form = if sensitive { NEVER_INDEXED } else { WITHOUT_INDEXING };
    match static_index(name) {
        Some(index) if value == static_value(name) && !sensitive => append_indexed(block, index),
        Some(index) => append_literal(block, form, index, value),
        None => {
            let name = name.as_str().as_bytes();
            block.reserve(3 * LENGTH + name.len() + value.len());
            block.push(form);
            append_text(block, name);
            append_text(block, value);
        }
    }
}

/// What a length takes at most, in bytes, that anybody would read.
const LENGTH: usize = 5;

fn append_indexed(block: &mut Vec<u8>, index: usize) {
    append_integer(INDEXED, 7, index, block);
}

/// With a name of the static table.
fn append_literal(block: &mut Vec<u8>, form: u8, index: usize, value: &[u8]) {
    block.reserve(2 * LENGTH + value.len());
    append_integer(form, 4, index, block);
    append_text(block, value);
}

fn append_text(block: &mut Vec<u8>, text: &[u8]) {
    append_integer(0, 7, text.len(), block);
    block.extend_from_slice(text);
}

/// The value that the static table has with a name.
fn static_value(name: &HeaderName) -> &'static [u8] {
    if *name == ACCEPT_ENCODING { b"gzip, deflate" } else { b"" }
}

/// Of a name, in the static table.
fn static_index(name: &HeaderName) -> Option<usize> {
    Some(match *name {
        header::ACCEPT_CHARSET => 15,
        header::ACCEPT_ENCODING => 16,
        header::ACCEPT_LANGUAGE => 17,
        header::ACCEPT_RANGES => 18,
        header::ACCEPT => 19,
        header::ACCESS_CONTROL_ALLOW_ORIGIN => 20,
        header::AGE => 21,
        header::ALLOW => 22,
        header::AUTHORIZATION => 23,
        header::CACHE_CONTROL => 24,
        header::CONTENT_DISPOSITION => 25,
        header::CONTENT_ENCODING => 26,
        header::CONTENT_LANGUAGE => 27,
        header::CONTENT_LENGTH => 28,
        header::CONTENT_LOCATION => 29,
        header::CONTENT_RANGE => 30,
        header::CONTENT_TYPE => 31,
        header::COOKIE => 32,
        header::DATE => 33,
        header::ETAG => 34,
        header::EXPECT => 35,
        header::EXPIRES => 36,
        header::FROM => 37,
        header::HOST => 38,
        header::IF_MATCH => 39,
        header::IF_MODIFIED_SINCE => 40,
        header::IF_NONE_MATCH => 41,
        header::IF_RANGE => 42,
        header::IF_UNMODIFIED_SINCE => 43,
        header::LAST_MODIFIED => 44,
        header::LINK => 45,
        header::LOCATION => 46,
        header::MAX_FORWARDS => 47,
        header::PROXY_AUTHENTICATE => 48,
        header::PROXY_AUTHORIZATION => 49,
        header::RANGE => 50,
        header::REFERER => 51,
        header::REFRESH => 52,
        header::RETRY_AFTER => 53,
        header::SERVER => 54,
        header::SET_COOKIE => 55,
        header::STRICT_TRANSPORT_SECURITY => 56,
        header::TRANSFER_ENCODING => 57,
        header::USER_AGENT => 58,
        header::VARY => 59,
        header::VIA => 60,
        header::WWW_AUTHENTICATE => 61,
        _ => return None,
    })
}
