//! What a record leaves for a trace when its call ends: one span, by OpenTelemetry's conventions for gRPC as far as they go.
//! `docs/traces.md` explains each attribute.

use super::super::otlp::{Attribute, Span};
use super::{CallRecord, Times, Told};
use crate::grpc::Code;
use jiff::Timestamp;
use std::time::Duration;

impl CallRecord {
    /// The span of the call. Who called stays in the log, which the trace id leads to: what collects traces is often
    /// somebody else's. `ended` is when.
    pub(super) fn write_span(&self, out: &mut Vec<u8>, told: &Told, code: Code, times: &Times, ended: Timestamp) {
        let trace = told.trace.as_ref();
        let path = told.method.as_ref();
        let (service, method) =
            path.filter(|_| self.was_answered(code)).map_or(self.counted_route().names(), |path| (path.service(), path.method()));
        let invented = path.filter(|path| (path.service(), path.method()) != (service, method));
        let peer = self.peer.map(|peer| (peer.ip().to_canonical().to_string(), peer.port()));
        let request_id = self.request_id.to_string();
        let micros = |time: Duration| Attribute::Number(time.as_micros() as u64);
        let text = |text: Option<&'static str>| text.map(Attribute::Text);
        let end = ended.as_nanosecond() as u64;
        let attributes = [
            ("rpc.method_original", invented.map(|path| Attribute::Text(path.as_str()))),
            ("network.peer.address", peer.as_ref().map(|(address, _)| Attribute::Text(address))),
            ("network.peer.port", peer.as_ref().map(|(_, port)| Attribute::Number((*port).into()))),
            ("doorward.request_id", Some(Attribute::Text(&request_id))),
            ("doorward.auth", text(Some(self.kind.name()))),
            ("doorward.provider", self.provider.as_deref().map(Attribute::Text)),
            ("doorward.rule", self.rule().map(Attribute::Text)),
            ("doorward.reason", text(self.reason)),
            ("doorward.audited", text(self.audited)),
            ("doorward.overhead_us", Some(micros(times.overhead))),
            ("doorward.upstream_us", times.upstream.map(micros)),
        ];
        let span = Span {
            trace_id: trace.map_or(self.request_id.as_trace_id(), |trace| trace.trace_id),
            span_id: self.request_id.as_span_id(),
            parent_id: trace.map(|trace| trace.parent_id),
            trace_state: trace.and_then(|trace| trace.state.as_deref()),
            service,
            method,
            begin: end.saturating_sub(times.duration.as_nanos() as u64),
            end,
            code,
            reason: self.reason,
            attributes: &attributes,
        };
        span.append_to(out);
    }

    /// By the upstream, and not as something that it does not know: then the method exists, and its name is no invention
    /// of the client's.
    fn was_answered(&self, code: Code) -> bool {
        self.upstream_started.get().is_some() && self.reason.is_none() && !matches!(code, Code::Unimplemented | Code::Cancelled)
    }
}
