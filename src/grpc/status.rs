//! The status a call ends with: percent-encoded `grpc-message` (PROTOCOL-HTTP2.md, "Status-Message") and the
//! `google.rpc.Status` with a `google.rpc.ErrorInfo`, and sometimes a `google.rpc.RetryInfo`, that goes into
//! `grpc-status-details-bin`.

use super::Code;
use super::message::{append_field, append_number};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::HeaderName;
use std::time::Duration;

/// Made once: a name given as text is parsed each time it is looked up.
pub static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// `google.rpc.ErrorInfo` (google/rpc/error_details.proto), borrowed for encoding.
#[derive(Debug, Clone, Copy)]
pub struct ErrorInfo<'a> {
    /// UPPER_SNAKE_CASE, one of the reasons of the interface.
    pub reason: &'a str,
    /// Always `doorward` for our own refusals.
    pub domain: &'a str,
    /// Key and value pairs; nothing secret, nothing a client chose.
    pub metadata: &'a [(&'a str, &'a str)],
}

/// Percent-encodes a `grpc-message`: printable ASCII but `%` stays, every other byte becomes `%XX`.
pub fn encode_message(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'$' | b'&'..=b'~' => out.push(char::from(byte)),
            _ => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                out.push('%');
                for nibble in [byte >> 4, byte & 15] {
                    out.extend(HEX.get(usize::from(nibble)).map(|hex| char::from(*hex)));
                }
            }
        }
    }
    out
}

/// The value of `grpc-status-details-bin`: a serialised `google.rpc.Status`, base64 without padding. With `retry_after` it
/// has a `google.rpc.RetryInfo` too (google/rpc/error_details.proto): not to be tried again any sooner.
pub fn encode_details(code: Code, message: &str, info: &ErrorInfo<'_>, retry_after: Option<Duration>) -> String {
    let mut error_info = Vec::with_capacity(128);
    append_field(&mut error_info, 1, info.reason.as_bytes());
    append_field(&mut error_info, 2, info.domain.as_bytes());
    for (key, value) in info.metadata {
        let mut entry = Vec::with_capacity(key.len() + value.len() + 8);
        append_field(&mut entry, 1, key.as_bytes());
        append_field(&mut entry, 2, value.as_bytes());
        append_field(&mut error_info, 3, &entry);
    }
    let mut status = Vec::with_capacity(error_info.len() + message.len() + 128);
    append_number(&mut status, 1, code as u64);
    append_field(&mut status, 2, message.as_bytes());
    append_any(&mut status, "google.rpc.ErrorInfo", &error_info);
    if let Some(delay) = retry_after {
        let (mut duration, mut retry_info) = (Vec::new(), Vec::new());
        append_number(&mut duration, 1, delay.as_secs());
        append_number(&mut duration, 2, delay.subsec_nanos().into());
        append_field(&mut retry_info, 1, &duration);
        append_any(&mut status, "google.rpc.RetryInfo", &retry_info);
    }
    STANDARD_NO_PAD.encode(status)
}

/// One of the `details` of a status: a `google.protobuf.Any`.
fn append_any(status: &mut Vec<u8>, name: &str, message: &[u8]) {
    let mut any = Vec::with_capacity(message.len() + 64);
    append_field(&mut any, 1, format!("type.googleapis.com/{name}").as_bytes());
    append_field(&mut any, 2, message);
    append_field(status, 3, &any);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(encode_message("plain, words~"), "plain, words~");
        assert_eq!(encode_message("100% ä\n"), "100%25 %C3%A4%0A");
    }

    #[test]
    fn details_are_a_serialised_google_rpc_status() {
        let info = ErrorInfo { reason: "R", domain: "doorward", metadata: &[("request_id", "x")] };
        let bytes = STANDARD_NO_PAD.decode(encode_details(Code::Unauthenticated, "no", &info, None)).unwrap();
        let mut expected = b"\x08\x10\x12\x02no\x1a".to_vec();
        let any = b"\x0a\x28type.googleapis.com/google.rpc.ErrorInfo\x12\x1e\x0a\x01R\x12\x08doorward\x1a\x0f\x0a\x0arequest_id\x12\x01x";
        expected.push(any.len() as u8);
        expected.extend_from_slice(any);
        assert_eq!(bytes, expected);
        let details = encode_details(Code::Unauthenticated, "no", &info, Some(Duration::new(300, 7)));
        let retry = b"\x1a\x33\x0a\x28type.googleapis.com/google.rpc.RetryInfo\x12\x07\x0a\x05\x08\xac\x02\x10\x07";
        expected.extend_from_slice(retry);
        assert_eq!(STANDARD_NO_PAD.decode(details).unwrap(), expected);
    }
}
