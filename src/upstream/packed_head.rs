//! A request head in as few bytes as it has: what a call keeps of it while it waits, and should it have to be made again.
//!
//! A `HeaderMap` takes some hundred bytes a field beside its text, its text is cut from the buffers of eight kilobytes that it was
//! read into, and keeps them whole. That is cheap for a head that is gone in a moment, and not for a thousand that stay.

use bytes::{Buf, Bytes};
use http::uri::{Authority, Parts, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

/// What was a request without a body.
pub(super) struct PackedHead {
    method: Method,
    scheme: Option<Scheme>,
    /// Authority, path, then the names and values of all fields, each with its length before it.
    texts: Bytes,
}

/// A length, and whether the value may be remembered by a peer (RFC 7541 §7.1.3).
const LENGTH: usize = size_of::<u32>();
const SENSITIVE: u32 = 1 << 31;

impl PackedHead {
    /// A copy of `head`, of which [`PackedHead::size`] is known.
    pub(super) fn of(head: &Request<()>, size: usize) -> PackedHead {
        let mut texts = Vec::with_capacity(size);
        put(&mut texts, authority(head.uri()).as_bytes(), 0);
        put(&mut texts, path(head.uri()).as_bytes(), 0);
        for (name, value) in head.headers() {
            put(&mut texts, name.as_str().as_bytes(), 0);
            put(&mut texts, value.as_bytes(), if value.is_sensitive() { SENSITIVE } else { 0 });
        }
        PackedHead { method: head.method().clone(), scheme: head.uri().scheme().cloned(), texts: texts.into() }
    }

    /// Bytes of the texts of a packed `head`.
    pub(super) fn size(head: &Request<()>) -> usize {
        let fields: usize = head.headers().iter().map(|(name, value)| 2 * LENGTH + name.as_str().len() + value.len()).sum();
        2 * LENGTH + authority(head.uri()).len() + path(head.uri()).len() + fields
    }

    /// The request as it was. Its texts are parts of one buffer.
    pub(super) fn unpack(&self) -> Box<Request<()>> {
        let mut texts = Texts(self.texts.clone());
        let mut uri = Parts::default();
        uri.scheme = self.scheme.clone();
        uri.authority = texts.parsed(Authority::from_maybe_shared);
        uri.path_and_query = texts.parsed(PathAndQuery::from_maybe_shared);
        let mut request = Box::new(Request::new(()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from_parts(uri).expect("parts of a URI make a URI");
        *request.headers_mut() = texts.fields();
        request
    }
}

fn authority(uri: &Uri) -> &str {
    uri.authority().map_or("", Authority::as_str)
}

fn path(uri: &Uri) -> &str {
    uri.path_and_query().map_or("", PathAndQuery::as_str)
}

fn put(texts: &mut Vec<u8>, text: &[u8], flag: u32) {
    let length = u32::try_from(text.len()).expect("a text of a header list that was taken is below 2 GiB");
    texts.extend_from_slice(&(length | flag).to_be_bytes());
    texts.extend_from_slice(text);
}

/// What is left of the texts of a packed head.
struct Texts(Bytes);

impl Texts {
    /// The next one, and its flag.
    fn next(&mut self) -> Option<(Bytes, bool)> {
        if self.0.is_empty() {
            return None;
        }
        let length = self.0.get_u32();
        let text = self.0.split_to((length & !SENSITIVE) as usize);
        Some((text, length & SENSITIVE != 0))
    }

    /// The next one, of a kind that is absent when empty.
    fn parsed<T, E>(&mut self, parse: impl FnOnce(Bytes) -> Result<T, E>) -> Option<T> {
        let (text, _) = self.next().filter(|(text, _)| !text.is_empty())?;
        parse(text).ok()
    }

    fn fields(&mut self) -> HeaderMap {
        let mut fields = HeaderMap::new();
        while let (Some((name, _)), Some((value, sensitive))) = (self.next(), self.next()) {
            let name = HeaderName::from_bytes(&name).expect("it was a name");
            let mut value = HeaderValue::from_maybe_shared(value).expect("it was a value");
            value.set_sensitive(sensitive);
            fields.append(name, value);
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Request<()> {
        let mut secret = HeaderValue::from_static("Bearer x");
        secret.set_sensitive(true);
        let head = Request::post("http://user.example:50051/demo.v1.Echo/Unary?a=b").header("content-type", "application/grpc");
        let head = head.header("x", "1").header("authorization", secret).header("x", "2").header("empty", "");
        head.header("bytes", HeaderValue::from_bytes(&[0x80, 0xff, b' ', b'z']).unwrap()).body(()).unwrap()
    }

    fn packed(head: &Request<()>) -> PackedHead {
        PackedHead::of(head, PackedHead::size(head))
    }

    #[test]
    fn what_is_unpacked_is_what_was_packed() {
        for head in [head(), Request::new(()), Request::builder().uri("*").method("OPTIONS").body(()).unwrap()] {
            let packed = packed(&head);
            assert_eq!(packed.texts.len(), PackedHead::size(&head));
            for _ in 0..2 {
                let again = packed.unpack();
                assert_eq!((again.method(), again.uri()), (head.method(), head.uri()));
                let fields = |head: &Request<()>| {
                    let of = |(name, value): (&HeaderName, &HeaderValue)| (name.clone(), value.clone(), value.is_sensitive());
                    head.headers().iter().map(of).collect::<Vec<_>>()
                };
                assert_eq!(fields(&again), fields(&head));
            }
        }
    }

    #[test]
    fn it_holds_its_texts_and_little_more_and_nothing_of_where_they_came_from() {
        let buffer = Bytes::from(vec![b'v'; 8192]);
        let mut head = Request::new(());
        head.headers_mut().insert("name", HeaderValue::from_maybe_shared(buffer.slice(..16)).unwrap());
        let packed = packed(&head);
        drop(head);
        assert!(buffer.is_unique(), "the buffer is kept");
        assert_eq!(packed.texts.len(), 4 * LENGTH + "/name".len() + 16);
    }
}
