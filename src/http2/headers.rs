//! The header rules that are ours and not h2's, in one pass and one function for requests, responses and trailers of
//! either side: size, number of fields, and in requests values that begin or end with white space (RFC 9113 §8.2.1).
//!
//! h2's own limit is set several times higher: it answers by itself, never tells us, and truncates trailers silently.

use http::{HeaderMap, Request, Response};

/// `limits.header_bytes` and `limits.header_fields`.
#[derive(Debug, Clone, Copy)]
pub struct HeaderLimits {
    /// Sum of name + value + 32 for each field (RFC 9113 §6.5.2).
    pub bytes: usize,
    /// Fields, pseudo-headers included.
    pub fields: usize,
}

/// Why a header list is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unacceptable {
    /// More than `header_bytes`.
    Bytes,
    /// More than `header_fields`.
    Fields,
    /// A field value begins or ends with white space.
    Malformed,
}

impl HeaderLimits {
    /// Examines the head of a request as it came.
    pub fn examine_request<B>(&self, request: &Request<B>) -> Result<(), Unacceptable> {
        let uri = request.uri();
        let mut pseudo = Tally::default();
        pseudo.add(":method".len(), request.method().as_str().len());
        pseudo.add(":scheme".len(), uri.scheme_str().map_or(0, str::len));
        pseudo.add(":path".len(), uri.path_and_query().map_or(0, |path| path.as_str().len()));
        if let Some(authority) = uri.authority() {
            pseudo.add(":authority".len(), authority.as_str().len());
        }
        self.examine(pseudo, request.headers(), WhiteSpace::Malformed)
    }

    /// Examines the head of a response as it came.
    pub fn examine_response<B>(&self, response: &Response<B>) -> Result<(), Unacceptable> {
        let mut pseudo = Tally::default();
        pseudo.add(":status".len(), 3);
        self.examine(pseudo, response.headers(), WhiteSpace::Passes)
    }

    /// Examines a request's trailers as they came.
    pub fn examine_request_trailers(&self, trailers: &HeaderMap) -> Result<(), Unacceptable> {
        self.examine(Tally::default(), trailers, WhiteSpace::Malformed)
    }

    /// Examines a response's trailers as they came.
    pub fn examine_response_trailers(&self, trailers: &HeaderMap) -> Result<(), Unacceptable> {
        self.examine(Tally::default(), trailers, WhiteSpace::Passes)
    }

    fn examine(&self, mut tally: Tally, headers: &HeaderMap, white_space: WhiteSpace) -> Result<(), Unacceptable> {
        let mut malformed = false;
        for (name, value) in headers {
            let value = value.as_bytes();
            tally.add(name.as_str().len(), value.len());
            malformed |= is_white(value.first()) || is_white(value.last());
        }
        match () {
            () if tally.bytes > self.bytes => Err(Unacceptable::Bytes),
            () if tally.fields > self.fields => Err(Unacceptable::Fields),
            () if malformed && white_space == WhiteSpace::Malformed => Err(Unacceptable::Malformed),
            () => Ok(()),
        }
    }
}

/// What white space at the end of a value is. A `grpc-message` may well end in a space: gRPC does not percent-encode it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WhiteSpace {
    Malformed,
    Passes,
}

#[derive(Default)]
struct Tally {
    bytes: usize,
    fields: usize,
}

impl Tally {
    fn add(&mut self, name: usize, value: usize) {
        self.bytes += name + value + 32;
        self.fields += 1;
    }
}

fn is_white(byte: Option<&u8>) -> bool {
    matches!(byte, Some(b' ' | b'\t'))
}

/// About what a header list holds in memory, in bytes.
pub fn weight(headers: &HeaderMap) -> usize {
    /// What a field costs beyond its bytes.
    const FIELD: usize = 128;
    headers.iter().map(|(name, value)| FIELD + name.as_str().len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&'static str, &str)]) -> Request<()> {
        let mut builder = Request::post("https://a/b/c");
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    #[test]
    fn pseudo_headers_and_the_overhead_of_32_count() {
        let request = request(&[("x", "y")]);
        let bytes = (7 + 4) + (7 + 5) + (5 + 4) + (10 + 1) + (1 + 1) + 5 * 32;
        assert_eq!(HeaderLimits { bytes, fields: 5 }.examine_request(&request), Ok(()));
        assert_eq!(HeaderLimits { bytes: bytes - 1, fields: 5 }.examine_request(&request), Err(Unacceptable::Bytes));
        assert_eq!(HeaderLimits { bytes, fields: 4 }.examine_request(&request), Err(Unacceptable::Fields));
    }

    #[test]
    fn white_space_at_either_end_is_malformed() {
        let limits = HeaderLimits { bytes: 16384, fields: 100 };
        for bad in [" a", "a ", "\ta", "a\t", " "] {
            assert_eq!(limits.examine_request(&request(&[("x", bad)])), Err(Unacceptable::Malformed), "{bad:?}");
        }
        assert_eq!(limits.examine_request(&request(&[("x", "a b"), ("y", "")])), Ok(()));
        let answer = Response::builder().header("grpc-message", "no such user: ").body(()).unwrap();
        assert_eq!(limits.examine_response(&answer), Ok(()));
        assert_eq!(limits.examine_response_trailers(answer.headers()), Ok(()));
        assert_eq!(limits.examine_request_trailers(answer.headers()), Err(Unacceptable::Malformed));
    }
}
