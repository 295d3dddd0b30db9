//! WHAT HAPPENED: the record of each call, and its sinks, metrics, access log and spans; diagnostics for the operator.
//!
//! Rooms on the path of a call return facts, the proxy puts them into the call's [`CallRecord`]; only background work
//! holds [`Metrics`] itself.

mod access_log;
mod call_record;
mod collector;
mod diagnostics;
mod families;
mod line;
mod metrics;
mod otlp;
mod process;
mod request_id;
mod resource;
mod routes;
mod span_export;
mod spans;
mod trace_context;

pub use access_log::{AccessLog, AccessLogWriter};
pub use call_record::CallRecord;
pub use diagnostics::Diagnostics;
pub use families::{CountedBy, Word};
pub use metrics::{CacheOutcome, Limit, Metrics, OTHER, SpanOutcome, UpstreamEnd};
pub use request_id::{RequestId, RequestIds};
pub use routes::{AuthKind, RouteMetrics, call_labels};
pub use span_export::SpanExport;
pub use spans::Spans;

use std::sync::Arc;

/// Where the records of calls go: one a configuration generation, as its `log` keys may change.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// Counts every call.
    pub metrics: Arc<Metrics>,
    /// `None` with `log.access: none`.
    pub access_log: Option<AccessLog>,
    /// `None` without `log.otlp`. Without an access log too a call allocates nothing for its record.
    pub spans: Option<Spans>,
    /// `log.explain_refusals`: lines carry the operator's detail.
    pub explain_refusals: bool,
}
