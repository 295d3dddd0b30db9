//! Every metric of the process, in a registry of its own: what `/metrics` shows. `docs/metrics.md` explains each.
//!
//! Labels come from the configuration or from closed sets in this code, never from a client: what neither names is
//! `other`. What a call counts is resolved at load (`routes`); the rest are handles that background work keeps.

use super::families::{CountedBy, Families, Family, Word};
use super::process::ProcessMetrics;
use super::routes::Route;
use prometheus::{GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// The label value of whatever the configuration does not name.
pub const OTHER: &str = "other";

/// Calls last from a millisecond to, for streams, hours: those are all above the last bucket.
const HANDLING_SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// A warm call takes Doorward some ten microseconds, a signature a hundred, a key-set fetch seconds.
const OVERHEAD_SECONDS: &[f64] = &[5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5, 1.0, 5.0];

/// A limit that bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `limits.connections`.
    Connections,
    /// `limits.streams`: a connection has all its streams in use; one more is refused.
    Streams,
    /// `limits.header_bytes`, of a request, a response or trailers.
    HeaderBytes,
    /// `limits.header_fields`, likewise.
    HeaderFields,
    /// `limits.handshake`: TLS, preface or first SETTINGS took too long.
    Handshake,
    /// `limits.handshake`, for a header block that was begun and not ended.
    HeaderBlock,
    /// A connection closed with ENHANCE_YOUR_CALM.
    Flood,
    /// `limits.stream_idle`.
    StreamIdle,
    /// `limits.stalled`, of a call or of a whole client connection.
    Stalled,
    /// `limits.connection_idle`.
    ConnectionIdle,
    /// `limits.connection_age`.
    ConnectionAge,
    /// `rate_limits.per_identity`.
    PerIdentity,
    /// `rate_limits.failed_authentication_per_peer`.
    FailedAuthenticationPerPeer,
}

impl Word for Limit {
    const ALL: &'static [Limit] = &[
        Limit::Connections,
        Limit::Streams,
        Limit::HeaderBytes,
        Limit::HeaderFields,
        Limit::Handshake,
        Limit::HeaderBlock,
        Limit::Flood,
        Limit::StreamIdle,
        Limit::Stalled,
        Limit::ConnectionIdle,
        Limit::ConnectionAge,
        Limit::PerIdentity,
        Limit::FailedAuthenticationPerPeer,
    ];

    fn word(self) -> &'static str {
        match self {
            Limit::Connections => "connections",
            Limit::Streams => "streams",
            Limit::HeaderBytes => "header_bytes",
            Limit::HeaderFields => "header_fields",
            Limit::Handshake => "handshake",
            Limit::HeaderBlock => "header_block",
            Limit::Flood => "flood",
            Limit::StreamIdle => "stream_idle",
            Limit::Stalled => "stalled",
            Limit::ConnectionIdle => "connection_idle",
            Limit::ConnectionAge => "connection_age",
            Limit::PerIdentity => "per_identity",
            Limit::FailedAuthenticationPerPeer => "failed_authentication_per_peer",
        }
    }
}

/// What the cache of verified tokens had to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheOutcome {
    /// A verdict that still holds.
    Hit,
    /// Nothing, or a verdict that holds no longer: the credentials were verified.
    Miss,
}

impl Word for CacheOutcome {
    const ALL: &'static [CacheOutcome] = &[CacheOutcome::Hit, CacheOutcome::Miss];

    fn word(self) -> &'static str {
        match self {
            CacheOutcome::Hit => "hit",
            CacheOutcome::Miss => "miss",
        }
    }
}

/// How a connection to the upstream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamEnd {
    /// In good order, by either side.
    Closed,
    /// Lost, or ended for an error of HTTP/2.
    Failed,
    /// By us: it did not answer a PING.
    Silent,
    /// By us, once its calls had finished: the upstream's name has that address no longer.
    Retired,
}

impl Word for UpstreamEnd {
    const ALL: &'static [UpstreamEnd] = &[UpstreamEnd::Closed, UpstreamEnd::Failed, UpstreamEnd::Silent, UpstreamEnd::Retired];

    fn word(self) -> &'static str {
        match self {
            UpstreamEnd::Closed => "closed",
            UpstreamEnd::Failed => "failed",
            UpstreamEnd::Silent => "silent",
            UpstreamEnd::Retired => "retired",
        }
    }
}

/// What became of a call's span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanOutcome {
    /// The collector has it.
    Exported,
    /// There was no room for it while others waited to be exported.
    Dropped,
    /// It could not be exported, also after some time.
    Failed,
    /// The collector did not want it.
    Rejected,
}

impl Word for SpanOutcome {
    const ALL: &'static [SpanOutcome] = &[SpanOutcome::Exported, SpanOutcome::Dropped, SpanOutcome::Failed, SpanOutcome::Rejected];

    fn word(self) -> &'static str {
        match self {
            SpanOutcome::Exported => "exported",
            SpanOutcome::Dropped => "dropped",
            SpanOutcome::Failed => "failed",
            SpanOutcome::Rejected => "rejected",
        }
    }
}

/// Every metric of the process. Made once; it outlives every configuration, so that a reload resets no counter.
#[allow(missing_docs)] // each field says what it is to people in `Metrics::catalogued` and docs/metrics.md
pub struct Metrics {
    registry: Registry,
    at_scrape: Mutex<Vec<AtScrape>>,
    process: ProcessMetrics,

    // Counted by the record of a call alone: what they say is then true of every call.
    pub(super) started: IntCounterVec,
    pub(super) handled: IntCounterVec,
    pub(super) handling: HistogramVec,
    pub(super) overhead: Histogram,
    pub(super) authentication: IntCounterVec,
    pub(super) authorization: IntCounterVec,
    pub(super) api_key_calls: IntCounterVec,
    pub(super) refusals: IntCounterVec,
    pub(super) audited: IntCounterVec,
    pub(super) streams: IntGauge,
    /// Calls that ended before it was known what they are about.
    pub(super) unrouted: Route,
    pub(super) access_log_dropped: IntCounter,
    pub(super) spans: CountedBy<SpanOutcome>,
    key_set_fetches: IntCounterVec,

    pub connections: IntGauge,
    pub connections_total: IntCounter,
    pub connections_at_stream_limit: IntGauge,
    pub limit_hits: CountedBy<Limit>,
    pub token_cache: CountedBy<CacheOutcome>,
    pub configuration_generation: IntGauge,
    pub configuration_last_reload_success: IntGauge,
    pub configuration_last_reload_successful: IntGauge,
    pub revocations_last_reload_successful: IntGauge,
    /// By `certificate`; emptied before each scrape, for an `at_scrape` to fill.
    pub certificate_expiry: IntGaugeVec,
    /// By `provider`; emptied before each scrape, for an `at_scrape` to fill.
    pub key_set_age: GaugeVec,
    pub upstream_exposed: IntGauge,
    pub upstream_connections_ended: CountedBy<UpstreamEnd>,
    pub upstream_pings: IntCounter,
    pub(super) upstream_retries: IntCounter,
    pub panics: IntCounter,
}

type AtScrape = Box<dyn Fn(&Metrics) + Send + Sync>;

impl Metrics {
    /// All metrics, at zero.
    #[allow(clippy::new_without_default)] // there is one a process, and nothing default about it
    pub fn new() -> Metrics {
        Metrics::catalogued().0
    }

    /// Calls `collect` before each scrape, for facts that are cheaper to ask for than to keep up to date.
    pub fn at_scrape(&self, collect: impl Fn(&Metrics) + Send + Sync + 'static) {
        self.at_scrape.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(collect));
    }

    /// So many more fetches of `provider`'s key set have ended with `outcome`: `success` or the kind of failure in one word.
    pub fn key_set_fetches(&self, provider: &str, outcome: &'static str, more: u64) {
        self.key_set_fetches.with_label_values(&[provider, outcome]).inc_by(more);
    }

    /// The text format of Prometheus, version 0.0.4.
    pub fn render(&self) -> String {
        self.process.collect();
        self.key_set_age.reset();
        self.certificate_expiry.reset();
        for collect in self.at_scrape.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            collect(self);
        }
        // Fails only for a family without metrics, which `gather` leaves out.
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }

    /// The metrics, and the list of families that docs/metrics.md must hold.
    fn catalogued() -> (Metrics, Vec<Family>) {
        let mut families = Families::default();
        let f = &mut families;
        f.gauges("doorward_build_info", "Always 1; the version is in the label.", &["version"])
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        let call = &["grpc_service", "grpc_method"];
        let started = f.counters("grpc_server_started_total", "Calls begun.", call);
        let handled = f.counters(
            "grpc_server_handled_total",
            "Calls ended, by the status the client was given.",
            &["grpc_service", "grpc_method", "grpc_code"],
        );
        let handling = f.histograms("grpc_server_handling_seconds", "How long calls took, streams included.", call, HANDLING_SECONDS);
        let authorization =
            f.counters("doorward_authorization_total", "Decisions of authorization, by the rule that decided.", &["rule", "outcome"]);
        let metrics = Metrics {
            registry: f.registry.clone(),
            at_scrape: Mutex::default(),
            process: ProcessMetrics::new(f),
            unrouted: Route::new(&handled, &started, &handling, &authorization, (OTHER, OTHER, "none")),
            started,
            handled,
            handling,
            authorization,
            overhead: f.histogram("doorward_overhead_seconds", "Time a call spent in Doorward, apart from the upstream.", OVERHEAD_SECONDS),
            authentication: f.counters(
                "doorward_authentication_total",
                "Outcomes of authentication; reason ok, or why not.",
                &["kind", "provider", "reason"],
            ),
            api_key_calls: f.counters("doorward_api_key_calls_total", "Calls with a valid API key.", &["api_key_id"]),
            refusals: f.counters("doorward_refusals_total", "Calls Doorward refused or ended, by reason.", &["reason"]),
            audited: f.counters("doorward_audited_total", "Refusals that an audit mode let through, by reason.", &["reason"]),
            streams: f.gauge("doorward_streams", "Calls in flight."),
            connections: f.gauge("doorward_connections", "Client connections open."),
            connections_total: f.counter("doorward_connections_total", "Client connections accepted."),
            connections_at_stream_limit: f.gauge("doorward_connections_at_stream_limit", "Connections with all their streams in use."),
            limit_hits: f.counted_by("doorward_limit_hits_total", "How often a limit bit.", "limit"),
            token_cache: f.counted_by("doorward_token_cache_total", "Look-ups in the cache of verified tokens.", "outcome"),
            access_log_dropped: f.counter("doorward_access_log_dropped_total", "Access log lines that could not be written."),
            configuration_generation: f.gauge("doorward_configuration_generation", "Counts the configurations applied."),
            configuration_last_reload_success: f.gauge(
                "doorward_configuration_last_reload_success_timestamp_seconds",
                "When a configuration was last applied, in seconds since 1970.",
            ),
            configuration_last_reload_successful: f
                .gauge("doorward_configuration_last_reload_successful", "0 while the files hold a configuration that was refused."),
            revocations_last_reload_successful: f
                .gauge("doorward_revocations_last_reload_successful", "0 while the revocations file holds something that was refused."),
            certificate_expiry: f.gauges(
                "doorward_certificate_expiry_timestamp_seconds",
                "When a certificate of ours expires, in seconds since 1970.",
                &["certificate"],
            ),
            key_set_age: f.floats("doorward_key_set_age_seconds", "Time since a provider's key set was last fetched.", &["provider"]),
            key_set_fetches: f.counters("doorward_key_set_fetches_total", "Fetches of key sets.", &["provider", "outcome"]),
            upstream_exposed: f.gauge("doorward_upstream_exposed", "1 while others can reach the upstream without passing Doorward."),
            upstream_connections_ended: f.counted_by(
                "doorward_upstream_connections_ended_total",
                "Connections to the upstream that ended, by how.",
                "why",
            ),
            upstream_pings: f.counter("doorward_upstream_pings_total", "PINGs sent to an upstream that was silent while calls waited."),
            upstream_retries: f.counter("doorward_upstream_retries_total", "Calls made again because the upstream had not seen them."),
            spans: f.counted_by("doorward_spans_total", "Spans of calls, by what became of them.", "outcome"),
            panics: f.counter("doorward_panics_total", "Panics of tasks; each is a bug."),
        };
        (metrics, families.catalogue)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::RouteMetrics;
    use std::sync::Arc;

    /// `| `name` | kind | labels | meaning |`
    fn documented() -> Vec<(String, String, String)> {
        include_str!("../../docs/metrics.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .map(|row| {
                let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`').to_owned());
                let mut cell = || cells.next().unwrap();
                (cell(), cell(), cell().replace('`', ""))
            })
            .collect()
    }

    #[test]
    fn every_metric_is_documented_and_nothing_else() {
        let mut expected: Vec<_> = Metrics::catalogued()
            .1
            .into_iter()
            .map(|family| (family.name.to_owned(), family.kind.to_owned(), family.labels.join(", ")))
            .collect();
        let mut documented = documented();
        expected.sort();
        documented.sort();
        assert_eq!(documented, expected);
    }

    #[test]
    fn closed_sets_are_there_from_the_start() {
        let metrics = Metrics::new();
        metrics.limit_hits.inc(Limit::Flood);
        metrics.token_cache.inc_by(CacheOutcome::Hit, 3);
        let text = metrics.render();
        for line in [
            "doorward_limit_hits_total{limit=\"flood\"} 1\n",
            "doorward_limit_hits_total{limit=\"header_block\"} 0\n",
            "doorward_token_cache_total{outcome=\"hit\"} 3\n",
            "doorward_panics_total 0\n",
            concat!("doorward_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1\n"),
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn facts_are_collected_at_each_scrape_and_old_ones_forgotten() {
        let metrics = Metrics::new();
        metrics.key_set_age.with_label_values(&["removed by a reload"]).set(1.0);
        metrics.at_scrape(|metrics| metrics.key_set_age.with_label_values(&["corporate"]).set(1.5));
        metrics.key_set_fetches("corporate", "success", 1);
        let text = metrics.render();
        assert!(text.contains("doorward_key_set_age_seconds{provider=\"corporate\"} 1.5\n"));
        assert!(text.contains("doorward_key_set_fetches_total{outcome=\"success\",provider=\"corporate\"} 1\n"));
        assert!(!text.contains("removed"));
    }

    #[test]
    fn a_reload_resets_no_counter() {
        let metrics = Arc::new(Metrics::new());
        for _ in 0..2 {
            RouteMetrics::resolve(&metrics, &[("a.B", "C", "/a.B/C")], &[]).route(0).started.inc();
        }
        assert!(metrics.render().contains("grpc_server_started_total{grpc_method=\"C\",grpc_service=\"a.B\"} 2\n"));
    }
}
