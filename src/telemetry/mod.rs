//! WHAT HAPPENED: the record of each call, and its two sinks, metrics and access log; diagnostics for the operator.
//!
//! Rooms on the path of a call return facts, the proxy puts them into the call's [`CallRecord`]; only background work
//! holds [`Metrics`] itself.

mod access_log;
mod call_record;
mod diagnostics;
mod families;
mod line;
mod metrics;
mod process;
mod request_id;
mod routes;

pub use access_log::{AccessLog, AccessLogWriter};
pub use call_record::CallRecord;
pub use diagnostics::Diagnostics;
pub use families::{CountedBy, Word};
pub use metrics::{CacheOutcome, Limit, Metrics, OTHER, UpstreamEnd};
pub use request_id::{RequestId, RequestIds};
pub use routes::{AuthKind, RouteMetrics, call_labels};

use std::sync::Arc;

/// Where the records of calls go: one a configuration generation, as its `log` keys may change.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// Counts every call.
    pub metrics: Arc<Metrics>,
    /// `None` with `log.access: none`: a call then allocates nothing for its record.
    pub access_log: Option<AccessLog>,
    /// `log.explain_refusals`: lines carry the operator's detail.
    pub explain_refusals: bool,
}
