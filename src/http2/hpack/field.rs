//! A field as it is kept: its name and value ready for use, judged once (RFC 9113 §8.2 and §8.3), however often it comes again.
//! What makes a response malformed has its place in the table all the same, for the peer counts on that.

use http::header::{HeaderName, HeaderValue, TE};
use http::status::StatusCode;

/// What each field counts beyond its name and value, in bytes (RFC 7541 §4.1, RFC 9113 §6.5.2).
const OVERHEAD: usize = 32;

/// A field of a response or of trailers.
#[derive(Clone)]
pub(super) enum Field {
    Regular(HeaderName, HeaderValue),
    Status(StatusCode),
    /// A response that has it is malformed. The name may be good, and others may be made with it.
    Malformed(Name),
}

/// The name of a field.
#[derive(Clone)]
pub(super) enum Name {
    Regular(HeaderName),
    /// `:status`
    Status,
    /// No response may have it; it is so many bytes long.
    Malformed(usize),
}

/// A field and what it counts, in bytes.
pub(super) struct Entry {
    pub(super) field: Field,
    pub(super) size: usize,
}

impl Entry {
    /// `sensitive`: it came as never indexed, and whoever passes it on does the same (RFC 7541 §6.2.3).
    pub(super) fn new(name: Name, value: &[u8], sensitive: bool) -> Entry {
        let size = OVERHEAD + name.len() + value.len();
        let field = match name {
            Name::Regular(name) if name != TE || value == b"trailers" => match ready_value(value) {
                Some(mut value) => {
                    value.set_sensitive(sensitive);
                    Field::Regular(name, value)
                }
                None => Field::Malformed(Name::Regular(name)),
            },
            Name::Status => StatusCode::from_bytes(value).map_or(Field::Malformed(Name::Status), Field::Status),
            name => Field::Malformed(name),
        };
        Entry { field, size }
    }

    /// One that is good in a response.
    pub(super) const fn regular(name: &'static str, value: &'static str) -> Entry {
        let field = Field::Regular(HeaderName::from_static(name), HeaderValue::from_static(value));
        Entry { field, size: OVERHEAD + name.len() + value.len() }
    }

    /// One that no response may have.
    pub(super) const fn malformed(name: &'static str, value: &'static str) -> Entry {
        Entry { field: Field::Malformed(Name::Malformed(name.len())), size: OVERHEAD + name.len() + value.len() }
    }

    pub(super) const fn status(status: StatusCode) -> Entry {
        Entry { field: Field::Status(status), size: OVERHEAD + STATUS.len() + 3 }
    }
}

impl Field {
    pub(super) fn name(&self) -> Name {
        match self {
            Field::Regular(name, _) => Name::Regular(name.clone()),
            Field::Status(_) => Name::Status,
            Field::Malformed(name) => name.clone(),
        }
    }
}

const STATUS: &str = ":status";

impl Name {
    pub(super) fn new(name: &[u8]) -> Name {
        let name = match name {
            b":status" => return Name::Status,
            b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding" | b"upgrade" => {
                return Name::Malformed(name.len());
            }
            // Every answer has some of them: not parsed each time, not copied.
            b"grpc-status" => const { HeaderName::from_static("grpc-status") },
            b"grpc-message" => const { HeaderName::from_static("grpc-message") },
            b"grpc-encoding" => const { HeaderName::from_static("grpc-encoding") },
            b"grpc-accept-encoding" => const { HeaderName::from_static("grpc-accept-encoding") },
            b"grpc-status-details-bin" => const { HeaderName::from_static("grpc-status-details-bin") },
            _ => match HeaderName::from_lowercase(name) {
                Ok(name) => name,
                Err(_) => return Name::Malformed(name.len()),
            },
        };
        Name::Regular(name)
    }

    fn len(&self) -> usize {
        match self {
            Name::Regular(name) => name.as_str().len(),
            Name::Status => STATUS.len(),
            Name::Malformed(length) => *length,
        }
    }
}

/// What every answer has costs neither memory nor a count of its users.
fn ready_value(value: &[u8]) -> Option<HeaderValue> {
    match value {
        b"0" => Some(const { HeaderValue::from_static("0") }),
        b"application/grpc" => Some(const { HeaderValue::from_static("application/grpc") }),
        b"application/grpc+proto" => Some(const { HeaderValue::from_static("application/grpc+proto") }),
        _ => HeaderValue::from_bytes(value).ok(),
    }
}
