//! What header blocks say, read in another way than the connection's decoder does, to compare: as bytes, a step at a time, nothing
//! ready for use, and judged only when it is all there. For the tests and the fuzz target `hpack`.

use super::decode::{CompressionError, Decoder, HeaderList};
use crate::http2::testing::{decoded, integer};
use std::mem;

/// The static table (RFC 7541 Appendix A), a field a line.
const STATIC_TABLE: &str = "\
:authority
:method GET
:method POST
:path /
:path /index.html
:scheme http
:scheme https
:status 200
:status 204
:status 206
:status 304
:status 400
:status 404
:status 500
accept-charset
accept-encoding gzip, deflate
accept-language
accept-ranges
accept
access-control-allow-origin
age
allow
authorization
cache-control
content-disposition
content-encoding
content-language
content-length
content-location
content-range
content-type
cookie
date
etag
expect
expires
from
host
if-match
if-modified-since
if-none-match
if-range
if-unmodified-since
last-modified
link
location
max-forwards
proxy-authenticate
proxy-authorization
range
referer
refresh
retry-after
server
set-cookie
strict-transport-security
transfer-encoding
user-agent
vary
via
www-authenticate";

const OF_THE_CONNECTION: [&[u8]; 5] = [b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"];

#[derive(Clone, Debug, PartialEq)]
struct Field {
    name: Vec<u8>,
    value: Vec<u8>,
    sensitive: bool,
}

impl Field {
    fn size(&self) -> usize {
        self.name.len() + self.value.len() + 32
    }
}

/// What is kept of a block.
#[derive(Debug, Default, PartialEq)]
struct Said {
    status: Option<Vec<u8>>,
    /// Ordered by their names; those of one name as they came.
    fields: Vec<Field>,
    oversized: bool,
    malformed: bool,
}

/// Asserts that the decoder of a connection reads these blocks as they are read here, and never holds more than it may.
pub(in crate::http2) fn read_twice(blocks: &[&[u8]], limit: usize) {
    let (mut decoder, mut reference) = (Decoder::new(), Reference { entries: Vec::new(), most: 4096 });
    for block in blocks {
        let list = decoder.decode(block, limit);
        let fields = reference.read(block);
        assert_eq!(list.is_err(), fields.is_none(), "{block:x?}");
        let (Ok(list), Some(fields)) = (list, fields) else { return };
        assert_eq!(said(&list), judged(fields, limit), "{block:x?}");
        assert!(said(&list).fields.iter().map(Field::size).sum::<usize>() <= limit);
        assert_eq!(decoder.held(), (reference.size(), reference.entries.len()));
        assert!(reference.size() <= 4096);
    }
    assert_eq!(decoder.decode(&[0x80], limit).err(), Some(CompressionError));
}

fn said(list: &HeaderList) -> Said {
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| Field {
        name: name.as_str().into(),
        value: value.as_bytes().to_vec(),
        sensitive: value.is_sensitive(),
    };
    let mut fields: Vec<Field> = list.fields.iter().map(field).collect();
    fields.sort_by(|one, other| one.name.cmp(&other.name));
    Said { status: list.status.map(|status| status.as_str().into()), fields, oversized: list.oversized, malformed: list.malformed }
}

/// What is kept of such fields.
fn judged(fields: Vec<Field>, limit: usize) -> Said {
    let (mut said, mut size) = (Said::default(), 0);
    for field in fields {
        size += field.size();
        said.oversized = size > limit;
        said.malformed = !said.oversized && is_malformed(&field, &said);
        match &field.name[..] {
            _ if said.oversized || said.malformed => break,
            b":status" => said.status = Some(field.value),
            _ => said.fields.push(field),
        }
    }
    said.fields.sort_by(|one, other| one.name.cmp(&other.name));
    said
}

fn is_malformed(Field { name, value, .. }: &Field, before: &Said) -> bool {
    // A quotation mark is in no token; `HeaderName` takes it, and RFC 9113 §8.2.1 lets it pass.
    let token = |octet: &u8| matches!(octet, b'a'..=b'z' | b'0'..=b'9') || b"!#$%&'*+-.^_`|~\"".contains(octet);
    match &name[..] {
        b":status" => {
            let number = matches!(value[..], [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9']);
            !number || before.status.is_some() || !before.fields.is_empty()
        }
        b"te" => value != b"trailers",
        name if name.is_empty() || !name.iter().all(token) || OF_THE_CONNECTION.contains(&name) => true,
        _ => value.iter().any(|octet| *octet < 0x20 && *octet != b'\t' || *octet == 0x7f),
    }
}

struct Reference {
    /// Newest first.
    entries: Vec<Field>,
    most: usize,
}

impl Reference {
    fn size(&self) -> usize {
        self.entries.iter().map(Field::size).sum()
    }

    fn read(&mut self, mut block: &[u8]) -> Option<Vec<Field>> {
        let (mut fields, mut updates) = (Vec::new(), 0);
        while let Some(first) = block.first() {
            let rest = &mut block;
            match first.leading_zeros() {
                0 => fields.push(self.get(number(rest, 7)?)?),
                1 => {
                    let field = self.literal(rest, 6)?;
                    self.entries.insert(0, field.clone());
                    fields.push(field);
                }
                2 => {
                    self.most = number(rest, 5)?;
                    updates += 1;
                    if !fields.is_empty() || updates > 2 || self.most > 4096 {
                        return None;
                    }
                }
                zeros => {
                    let field = self.literal(rest, 4)?;
                    fields.push(Field { sensitive: zeros == 3, ..field });
                }
            }
            while self.size() > self.most {
                self.entries.pop();
            }
        }
        Some(fields)
    }

    fn literal(&self, rest: &mut &[u8], prefix: u32) -> Option<Field> {
        let name = match number(rest, prefix)? {
            0 => text(rest)?,
            index => self.get(index)?.name,
        };
        Some(Field { name, value: text(rest)?, sensitive: false })
    }

    fn get(&self, index: usize) -> Option<Field> {
        let field = |line: &str| {
            let (name, value) = line.split_once(' ').unwrap_or((line, ""));
            Field { name: name.into(), value: value.into(), sensitive: false }
        };
        let mut known = STATIC_TABLE.lines().map(field).chain(self.entries.iter().cloned());
        known.nth(index.checked_sub(1)?)
    }
}

fn number(rest: &mut &[u8], prefix: u32) -> Option<usize> {
    let (number, after) = integer(rest, prefix)?;
    *rest = after;
    Some(number)
}

fn text(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let encoded = rest.first()? & 0x80 != 0;
    let length = number(rest, 7)?;
    let (text, after) = mem::take(rest).split_at_checked(length)?;
    *rest = after;
    if encoded { decoded(text) } else { Some(text.to_vec()) }
}
