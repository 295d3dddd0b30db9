//! OpenTelemetry's protobuf as far as spans need it (opentelemetry/proto/trace/v1/trace.proto and
//! collector/trace/v1/trace_service.proto), written straight into the buffer that it is sent from.
//!
//! A span is encoded when its call ends, on the thread of calls: so it allocates nothing, which generated types do for
//! each text. A queue of such bytes is, behind a few bytes of our own, the message that the collector wants.

use super::line::cut_text;
use crate::grpc::{
    Code, FieldValue, append_chosen_number, append_field, append_fixed32, append_fixed64, append_message, append_number, begin_frame,
    end_frame, fields,
};
use bytes::Bytes;

/// A call as a span of kind SERVER.
pub(super) struct Span<'a> {
    pub(super) trace_id: u128,
    pub(super) span_id: u64,
    /// The client's span.
    pub(super) parent_id: Option<u64>,
    pub(super) trace_state: Option<&'a str>,
    pub(super) service: &'a str,
    pub(super) method: &'a str,
    /// Nanoseconds since 1970.
    pub(super) begin: u64,
    /// Nanoseconds since 1970.
    pub(super) end: u64,
    pub(super) code: Code,
    /// Ours; an upstream's own words are none of it.
    pub(super) reason: Option<&'a str>,
    /// Beside those that follow from the above. What is `None` is left out.
    pub(super) attributes: &'a [(&'static str, Option<Attribute<'a>>)],
}

/// The value of an attribute.
#[derive(Clone, Copy)]
pub(super) enum Attribute<'a> {
    Text(&'a str),
    Number(u64),
}

impl Span<'_> {
    /// Appends it to a queue of spans.
    pub(super) fn append_to(&self, queue: &mut Vec<u8>) {
        append_message(queue, SCOPE_SPANS_SPANS, |out| self.append_fields(out));
    }

    fn append_fields(&self, out: &mut Vec<u8>) {
        append_field(out, 1, &self.trace_id.to_be_bytes());
        append_field(out, 2, &self.span_id.to_be_bytes());
        if let Some(state) = self.trace_state {
            append_field(out, 3, state.as_bytes());
        }
        if let Some(parent_id) = self.parent_id {
            append_field(out, 4, &parent_id.to_be_bytes());
        }
        append_message(out, 5, |out| {
            let (service, method) = (cut_text(self.service).as_bytes(), cut_text(self.method).as_bytes());
            [service, b"/", method].into_iter().for_each(|part| out.extend_from_slice(part));
        });
        append_number(out, 6, KIND_SERVER);
        append_fixed64(out, 7, self.begin);
        append_fixed64(out, 8, self.end);
        append_attribute(out, 9, "rpc.system", Attribute::Text("grpc"));
        append_attribute(out, 9, "rpc.service", Attribute::Text(self.service));
        append_attribute(out, 9, "rpc.method", Attribute::Text(self.method));
        append_attribute(out, 9, "rpc.grpc.status_code", Attribute::Number(self.code as u64));
        for (name, value) in self.attributes {
            if let Some(value) = value {
                append_attribute(out, 9, name, *value);
            }
        }
        if is_error(self.code) {
            append_message(out, 15, |out| {
                append_field(out, 2, self.reason.unwrap_or_default().as_bytes());
                append_number(out, 3, STATUS_ERROR);
            });
        }
        let remote = if self.parent_id.is_some() { PARENT_IS_REMOTE } else { 0 };
        append_fixed32(out, 16, SAMPLED | PARENT_IS_REMOTE_IS_KNOWN | remote);
    }
}

const SCOPE_SPANS_SPANS: u8 = 2;
const KIND_SERVER: u64 = 2;
const STATUS_ERROR: u64 = 2;
const SAMPLED: u32 = 1;
const PARENT_IS_REMOTE_IS_KNOWN: u32 = 0x100;
const PARENT_IS_REMOTE: u32 = 0x200;

/// What OpenTelemetry's conventions for gRPC call an error of the server; the others are the client's.
fn is_error(code: Code) -> bool {
    matches!(code, Code::Unknown | Code::DeadlineExceeded | Code::Unimplemented | Code::Internal | Code::Unavailable | Code::DataLoss)
}

/// A KeyValue (opentelemetry/proto/common/v1/common.proto).
pub(super) fn append_attribute(out: &mut Vec<u8>, field: u8, name: &str, value: Attribute<'_>) {
    append_message(out, field, |out| {
        append_field(out, 1, name.as_bytes());
        append_message(out, 2, |out| match value {
            Attribute::Text(text) => append_field(out, 1, cut_text(text).as_bytes()),
            Attribute::Number(number) => append_chosen_number(out, 3, number),
        });
    });
}

/// The gRPC message ExportTraceServiceRequest with a queue of spans. `resource` is an encoded Resource.
pub(super) fn export_request(resource: &[u8], spans: &[u8]) -> Bytes {
    let mut frame = begin_frame(spans.len() + resource.len() + 64);
    append_message(&mut frame, 1, |resource_spans| {
        append_field(resource_spans, 1, resource);
        append_message(resource_spans, 2, |scope_spans| {
            append_message(scope_spans, 1, |scope| {
                append_field(scope, 1, b"doorward");
                append_field(scope, 2, env!("CARGO_PKG_VERSION").as_bytes());
            });
            scope_spans.extend_from_slice(spans);
        });
    });
    end_frame(frame)
}

/// How many spans the collector did not want, and why in its own words: of the gRPC message ExportTraceServiceResponse.
pub(super) fn rejected(response: &[u8]) -> (u64, &[u8]) {
    let message = response.get(5..).unwrap_or_default();
    let (mut count, mut why) = (0, &[][..]);
    for (number, value) in fields(message) {
        let (1, FieldValue::Bytes(partial_success)) = (number, value) else { continue };
        for field in fields(partial_success) {
            match field {
                (1, FieldValue::Number(rejected)) => count = rejected,
                (2, FieldValue::Bytes(words)) => why = words,
                _ => {}
            }
        }
    }
    (count, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_as_the_proto_has_it() {
        let long = "m".repeat(300);
        let span = Span {
            trace_id: 1,
            span_id: 2,
            parent_id: Some(3),
            trace_state: Some("a=1"),
            service: "s",
            method: &long,
            begin: 4,
            end: 5,
            code: Code::Unavailable,
            reason: Some("R"),
            attributes: &[("none", None), ("n", Some(Attribute::Number(0)))],
        };
        let mut queue = Vec::new();
        span.append_to(&mut queue);
        let [(2, FieldValue::Bytes(span))] = fields(&queue).collect::<Vec<_>>()[..] else { panic!("one span") };
        let found: Vec<_> = fields(span).collect();
        assert_eq!(found[0], (1, FieldValue::Bytes(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])));
        assert_eq!(found[2], (3, FieldValue::Bytes(b"a=1")));
        assert_eq!(found[3], (4, FieldValue::Bytes(&[0, 0, 0, 0, 0, 0, 0, 3])));
        let name = format!("s/{}", &long[..256]);
        assert_eq!(found[4], (5, FieldValue::Bytes(name.as_bytes())), "bounded");
        let attributes: Vec<_> = found.iter().filter(|(number, _)| *number == 9).collect();
        assert_eq!(attributes.len(), 5);
        assert_eq!(attributes[4].1, FieldValue::Bytes(b"\x0a\x01n\x12\x02\x18\x00"), "zero is a value");
        assert_eq!(found[found.len() - 1], (15, FieldValue::Bytes(b"\x12\x01R\x18\x02")));
        assert!(span.ends_with(&[0x85, 1, 1, 3, 0, 0]));
    }

    #[test]
    fn what_the_collector_did_not_want_is_counted() {
        assert_eq!(rejected(b""), (0, &b""[..]));
        assert_eq!(rejected(b"\0\0\0\0\0"), (0, &b""[..]));
        assert_eq!(rejected(b"\0\0\0\0\x08\x0a\x06\x08\x07\x12\x02no"), (7, &b"no"[..]));
        assert_eq!(rejected(b"\0\0\0\0\x08\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), (0, &b""[..]));
    }
}
