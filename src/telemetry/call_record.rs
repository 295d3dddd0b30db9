//! The record of one call: exactly one for each, filled while the call goes on, consumed when it ends. Metrics, access
//! log and spans are sinks of it, so that they never disagree.
//!
//! A record that is dropped unfinished belongs to a call that nobody waits for any more: CANCELLED, or INTERNAL when a
//! panic is unwinding its task. Without access log and spans a record allocates nothing.

mod span;

use super::Telemetry;
use super::line::{Line, TEXT_KEPT};
use super::request_id::RequestId;
use super::routes::{AuthKind, NO_PROVIDER, Route, RouteMetrics};
use super::trace_context::TraceContext;
use crate::grpc::{Code, MethodPath};
use crate::identity::Identity;
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is known of one call. Lives in the call's own task; what the copying of both directions tells it goes through
/// `&self`, the rest through `&mut self`.
#[derive(Debug)]
pub struct CallRecord {
    telemetry: Arc<Telemetry>,
    request_id: RequestId,
    peer: Option<SocketAddr>,
    started: Instant,
    upstream_started: Cell<Option<Instant>>,
    upstream_ended: Cell<Option<Instant>>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    route: Option<(Arc<RouteMetrics>, usize)>,
    kind: AuthKind,
    provider: Option<Arc<str>>,
    api_key_id: Option<Arc<str>>,
    authentication: Verdict,
    authorization: Verdict,
    reason: Option<&'static str>,
    audited: Option<&'static str>,
    told: Option<Box<Told>>,
    finished: bool,
}

/// What only access log and spans want to know; handles, rendered when the call ends.
#[derive(Debug, Default)]
struct Told {
    method: Option<MethodPath>,
    user_id: Option<Arc<str>>,
    client_id: Option<Arc<str>>,
    user_agent: Option<Box<[u8]>>,
    trace: Option<TraceContext>,
    detail: Option<String>,
}

/// What a check said of this call. The first word counts: a token that expires during a stream was good when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    NotAsked,
    Passed,
    Failed(&'static str),
}

impl Verdict {
    fn set(&mut self, verdict: Verdict) {
        if *self == Verdict::NotAsked {
            *self = verdict;
        }
    }
}

impl CallRecord {
    /// A call whose request head had come at `started`. `peer` is `None` for a Unix socket.
    pub fn begin(telemetry: Arc<Telemetry>, request_id: RequestId, peer: Option<SocketAddr>, started: Instant) -> CallRecord {
        telemetry.metrics.streams.inc();
        let told = (telemetry.access_log.is_some() || telemetry.spans.is_some()).then(Box::default);
        CallRecord {
            telemetry,
            request_id,
            peer,
            started,
            upstream_started: Cell::new(None),
            upstream_ended: Cell::new(None),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            route: None,
            kind: AuthKind::NONE,
            provider: None,
            api_key_id: None,
            authentication: Verdict::NotAsked,
            authorization: Verdict::NotAsked,
            reason: None,
            audited: None,
            told,
            finished: false,
        }
    }

    /// The id in the log line and in the details of a refusal.
    pub fn request_id(&self) -> RequestId {
        self.request_id
    }

    /// Where the client's connection comes from.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// When the request head had come.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The well-formed path; any other is never logged.
    pub fn method(&mut self, path: &MethodPath) {
        if let Some(told) = &mut self.told {
            told.method = Some(path.detached());
        }
    }

    /// The `user-agent` field.
    pub fn user_agent(&mut self, value: &HeaderValue) {
        if let Some(told) = &mut self.told {
            told.user_agent = Some(detached(value));
        }
    }

    /// The trace that the client has put the call into, if these headers name one.
    pub fn trace(&mut self, headers: &HeaderMap) {
        if let Some(told) = &mut self.told {
            told.trace = TraceContext::read(headers, self.telemetry.spans.is_some());
        }
    }

    /// The route that the call takes, by its index in `routes`: counts it as started. At most once a call.
    pub fn route(&mut self, routes: &Arc<RouteMetrics>, index: usize) {
        routes.route(index).started.inc();
        self.route = Some((routes.clone(), index));
    }

    /// What was presented, as far as it is known before it is verified: for the outcome of a refusal. `provider` is a
    /// name of the configuration.
    pub fn presented(&mut self, kind: AuthKind, provider: Option<&Arc<str>>) {
        self.kind = kind;
        self.provider = provider.cloned();
    }

    /// Authentication is through, and this is the caller; the anonymous one too.
    pub fn authenticated(&mut self, kind: AuthKind, identity: &Identity) {
        self.presented(kind, identity.provider.as_ref());
        self.authentication.set(Verdict::Passed);
        self.api_key_id.clone_from(&identity.api_key_id);
        if let Some(told) = &mut self.told {
            told.user_id.clone_from(&identity.user_id);
            told.client_id.clone_from(&identity.client_id);
        }
    }

    /// The rule of the route lets the caller through.
    pub fn authorized(&mut self) {
        self.authorization.set(Verdict::Passed);
    }

    /// The call is refused or ended by us. `reason` is one of the interface's, `detail` is for the operator only, and asked for
    /// only when lines carry it.
    pub fn refused(&mut self, reason: &'static str, detail: impl FnOnce() -> Option<String>) {
        self.reason = Some(reason);
        self.check_failed(reason, detail);
    }

    /// The call would be refused, were it not for an audit mode: it goes on.
    pub fn audited(&mut self, reason: &'static str, detail: impl FnOnce() -> Option<String>) {
        self.audited = Some(reason);
        self.check_failed(reason, detail);
    }

    fn check_failed(&mut self, reason: &'static str, detail: impl FnOnce() -> Option<String>) {
        match reason {
            "PERMISSION_MISSING" | "METHOD_NOT_ALLOWED" | "CREDENTIALS_NOT_ACCEPTED" => self.authorization.set(Verdict::Failed(reason)),
            // Of a caller that had passed it changes nothing.
            "KEYS_UNAVAILABLE" | "RATE_LIMITED" => self.authentication.set(Verdict::Failed(reason)),
            _ if ["CREDENTIALS_", "TOKEN_", "API_KEY_"].iter().any(|check| reason.starts_with(check)) => {
                self.authentication.set(Verdict::Failed(reason));
            }
            _ => {}
        }
        if self.telemetry.explain_refusals
            && let Some(told) = &mut self.told
        {
            told.detail = detail();
        }
    }

    /// The request head goes to the upstream now.
    pub fn upstream_started(&self) {
        self.upstream_started.set(Some(Instant::now()));
    }

    /// The upstream has not seen the call, and gets it once more.
    pub fn upstream_retried(&self) {
        self.telemetry.metrics.upstream_retries.inc();
    }

    /// The upstream's part is over: its trailers, its reset, or the loss of its connection has been seen.
    pub fn upstream_ended(&self) {
        self.upstream_ended.set(Some(Instant::now()));
    }

    /// Message bytes (DATA frames, without padding) that came from the client so far.
    pub fn bytes_in(&self, count: u64) {
        self.bytes_in.set(count);
    }

    /// Message bytes that went to the client so far.
    pub fn bytes_out(&self, count: u64) {
        self.bytes_out.set(count);
    }

    /// The call has ended, and this is the status the client was given.
    pub fn finish(mut self, code: Code) {
        self.tell(code, Instant::now());
    }

    fn tell(&mut self, code: Code, now: Instant) {
        self.finished = true;
        let times = self.times(now);
        self.count(code, &times);
        let Some(told) = &self.told else { return };
        let time = Timestamp::now();
        if let Some(access_log) = &self.telemetry.access_log {
            access_log.line(|out| self.write_line(out, told, code, &times, time));
        }
        if let Some(spans) = self.telemetry.spans.as_ref().filter(|_| told.trace.as_ref().is_none_or(|trace| trace.sampled)) {
            spans.push(|out| self.write_span(out, told, code, &times, time));
        }
    }

    /// Doorward's own time is from the request head until it is on its way to the upstream, and from the upstream's end
    /// until ours: waiting for keys or for an upstream connection is in it, waiting for the upstream or for either peer
    /// during the call is not. Without an upstream it is the whole call.
    fn times(&self, now: Instant) -> Times {
        let duration = now.saturating_duration_since(self.started);
        let upstream =
            self.upstream_started.get().map(|started| self.upstream_ended.get().unwrap_or(now).min(now).saturating_duration_since(started));
        Times { duration, upstream, overhead: duration.saturating_sub(upstream.unwrap_or_default()) }
    }

    fn count(&self, code: Code, times: &Times) {
        let metrics = &*self.telemetry.metrics;
        let route = self.counted_route();
        if self.route.is_none() {
            route.started.inc();
        }
        if let Some(counter) = route.handled(code) {
            counter.inc();
        }
        route.handling.observe(times.duration.as_secs_f64());
        metrics.overhead.observe(times.overhead.as_secs_f64());
        metrics.streams.dec();
        match (self.authentication, &self.route) {
            (Verdict::NotAsked, _) => {}
            (Verdict::Passed, Some((routes, _))) => routes.authenticated(self.kind, self.provider.as_deref()),
            (Verdict::Passed, None) => self.count_authentication("ok"),
            (Verdict::Failed(reason), _) => self.count_authentication(reason),
        }
        match self.authorization {
            Verdict::NotAsked => {}
            Verdict::Passed => route.allowed(),
            Verdict::Failed(reason) => route.denied(reason),
        }
        if let Some(id) = &self.api_key_id {
            metrics.api_key_calls.with_label_values(&[&**id]).inc();
        }
        if let Some(reason) = self.reason {
            metrics.refusals.with_label_values(&[reason]).inc();
        }
        if let Some(reason) = self.audited {
            metrics.audited.with_label_values(&[reason]).inc();
        }
    }

    fn counted_route(&self) -> &Route {
        self.route.as_ref().map_or(&self.telemetry.metrics.unrouted, |(routes, index)| routes.route(*index))
    }

    fn count_authentication(&self, reason: &str) {
        let provider = self.provider.as_deref().unwrap_or(NO_PROVIDER);
        self.telemetry.metrics.authentication.with_label_values(&[self.kind.name(), provider, reason]).inc();
    }

    /// The line of the interface; what is not known is left out. `time` is when the call ended.
    fn write_line(&self, out: &mut Vec<u8>, told: &Told, code: Code, times: &Times, time: Timestamp) {
        let mut line = Line::begin(out);
        line.plain("time", format_args!("{time:.3}"));
        line.plain("request_id", self.request_id);
        if let Some(method) = &told.method {
            line.text("grpc.service", method.service());
            line.text("grpc.method", method.method());
        }
        line.plain("grpc.code", code.name());
        let mut text = |name, value: Option<&str>| {
            if let Some(value) = value {
                line.text(name, value);
            }
        };
        text("reason", self.reason);
        text("auth", Some(self.kind.name()));
        text("provider", self.provider.as_deref());
        text("user_id", told.user_id.as_deref());
        text("client_id", told.client_id.as_deref());
        text("api_key_id", self.api_key_id.as_deref());
        text("rule", self.rule());
        line.millis("duration_ms", times.duration);
        if let Some(upstream) = times.upstream {
            line.millis("upstream_ms", upstream);
        }
        line.number("overhead_us", times.overhead.as_micros() as u64);
        line.number("bytes_in", self.bytes_in.get());
        line.number("bytes_out", self.bytes_out.get());
        if let Some(peer) = self.peer {
            // A dual-stack socket shows IPv4 peers as ::ffff:a.b.c.d.
            line.plain("peer", SocketAddr::new(peer.ip().to_canonical(), peer.port()));
        }
        if let Some(user_agent) = &told.user_agent {
            line.bytes("user_agent", user_agent);
        }
        if let Some(trace_id) = self.trace_id(told) {
            line.plain("trace_id", format_args!("{trace_id:032x}"));
        }
        if let Some(reason) = self.audited {
            line.text("audited", reason);
        }
        if let Some(detail) = &told.detail {
            line.long_text("detail", detail);
        }
        line.end();
    }

    /// The client's, else, when there will be a span, one that it begins with.
    fn trace_id(&self, told: &Told) -> Option<u128> {
        let begun_here = || self.telemetry.spans.is_some().then(|| self.request_id.as_trace_id());
        told.trace.as_ref().map(|trace| trace.trace_id).or_else(begun_here)
    }

    fn rule(&self) -> Option<&str> {
        self.route.as_ref().map(|_| &*self.counted_route().rule)
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        if !self.finished {
            let code = if std::thread::panicking() { Code::Internal } else { Code::Cancelled };
            self.tell(code, Instant::now());
        }
    }
}

/// As much of a value as a line shows: the value itself would keep the buffer that the request was read into.
fn detached(value: &HeaderValue) -> Box<[u8]> {
    let bytes = value.as_bytes();
    bytes.get(..TEXT_KEPT).unwrap_or(bytes).into()
}

struct Times {
    duration: Duration,
    upstream: Option<Duration>,
    overhead: Duration,
}

#[cfg(test)]
mod tests {
    use super::super::access_log::tests::Memory;
    use super::super::{AccessLog, AccessLogWriter, Metrics, RequestIds, Spans};
    use super::*;
    use serde_json::Value;

    struct Fixture {
        telemetry: Arc<Telemetry>,
        routes: Arc<RouteMetrics>,
        log: Option<AccessLogWriter>,
        sink: Memory,
    }

    impl Fixture {
        fn new(explain_refusals: bool) -> Fixture {
            let (sink, metrics) = (Memory::default(), Arc::new(Metrics::new()));
            let (access_log, log) = AccessLog::start(sink.clone(), &metrics).unwrap();
            let routes = [("api.Users", "Get", "/api.Users/Get"), ("other", "other", "default")];
            let routes = Arc::new(RouteMetrics::resolve(&metrics, &routes, &["corporate".into()]));
            let telemetry = Arc::new(Telemetry { metrics, access_log: Some(access_log), spans: None, explain_refusals });
            Fixture { telemetry, routes, log: Some(log), sink }
        }

        fn begin(&self) -> CallRecord {
            let peer = "[::ffff:10.1.2.3]:4711".parse().ok();
            CallRecord::begin(self.telemetry.clone(), RequestIds::new().next(), peer, Instant::now())
        }

        fn lines(&mut self) -> Vec<Value> {
            self.log = None;
            self.sink.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }

        fn counts(&self, line: &str) {
            let text = self.telemetry.metrics.render();
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }

    fn traced() -> HeaderMap {
        let traceparent = HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        HeaderMap::from_iter([(http::HeaderName::from_static("traceparent"), traceparent)])
    }

    fn alice() -> Identity {
        Identity {
            user_id: Some("alice".into()),
            client_id: Some("web".into()),
            api_key_id: Some("analytics".into()),
            provider: Some("corporate".into()),
            ..Identity::default()
        }
    }

    #[test]
    fn a_call_that_is_served() {
        let mut fixture = Fixture::new(true);
        let mut record = fixture.begin();
        let request_id = record.request_id().to_string();
        record.method(&MethodPath::parse("/api.Users/Get").unwrap());
        record.user_agent(&HeaderValue::from_bytes(b"grpc-python/1.0 \xff\"").unwrap());
        record.trace(&traced());
        record.route(&fixture.routes, 0);
        record.authenticated(AuthKind::JWT.and(AuthKind::API_KEY), &alice());
        record.authorized();
        record.upstream_started();
        record.bytes_in(15);
        record.bytes_out(7);
        record.upstream_ended();
        fixture.counts("doorward_streams 1");
        record.finish(Code::Ok);

        let lines = fixture.lines();
        let [Value::Object(line)] = &lines[..] else { panic!("one line, not {lines:?}") };
        let names: Vec<&str> = line.keys().map(String::as_str).collect();
        let mut expected = vec![
            "time",
            "request_id",
            "grpc.service",
            "grpc.method",
            "grpc.code",
            "auth",
            "provider",
            "user_id",
            "client_id",
            "api_key_id",
            "rule",
            "duration_ms",
            "upstream_ms",
            "overhead_us",
            "bytes_in",
            "bytes_out",
            "peer",
            "user_agent",
            "trace_id",
        ];
        expected.sort_unstable();
        assert_eq!(names, expected);
        for (name, value) in [
            ("request_id", &*request_id),
            ("grpc.service", "api.Users"),
            ("grpc.method", "Get"),
            ("grpc.code", "OK"),
            ("auth", "jwt+api_key"),
            ("provider", "corporate"),
            ("user_id", "alice"),
            ("client_id", "web"),
            ("api_key_id", "analytics"),
            ("rule", "/api.Users/Get"),
            ("peer", "10.1.2.3:4711"),
            ("user_agent", "grpc-python/1.0 \u{fffd}\""),
            ("trace_id", "0af7651916cd43dd8448eb211c80319c"),
        ] {
            assert_eq!(line[name], value, "{name}");
        }
        assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&15.into(), &7.into()));
        let time: Timestamp = line["time"].as_str().unwrap().parse().unwrap();
        assert!(Timestamp::now().duration_since(time).as_secs().abs() < 60);
        assert!(line["time"].as_str().unwrap().ends_with('Z') && line["time"].as_str().unwrap().len() == "2026-01-01T00:00:00.000Z".len());

        fixture.counts("doorward_streams 0");
        fixture.counts("grpc_server_started_total{grpc_method=\"Get\",grpc_service=\"api.Users\"} 1");
        fixture.counts("grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Get\",grpc_service=\"api.Users\"} 1");
        fixture.counts("grpc_server_handling_seconds_count{grpc_method=\"Get\",grpc_service=\"api.Users\"} 1");
        fixture.counts("doorward_overhead_seconds_count 1");
        fixture.counts("doorward_authentication_total{kind=\"jwt+api_key\",provider=\"corporate\",reason=\"ok\"} 1");
        fixture.counts("doorward_authorization_total{outcome=\"allowed\",rule=\"/api.Users/Get\"} 1");
        fixture.counts("doorward_api_key_calls_total{api_key_id=\"analytics\"} 1");
    }

    #[test]
    fn a_call_that_is_refused() {
        let mut fixture = Fixture::new(true);
        let mut record = fixture.begin();
        record.route(&fixture.routes, 0);
        record.authenticated(AuthKind::JWT, &Identity { provider: Some("corporate".into()), ..Identity::default() });
        record.refused("PERMISSION_MISSING", || Some("alice has no users:read".into()));
        record.finish(Code::PermissionDenied);
        let mut record = fixture.begin();
        record.presented(AuthKind::JWT, Some(&"corporate".into()));
        record.refused("TOKEN_EXPIRED", || None);
        record.finish(Code::Unauthenticated);

        let lines = fixture.lines();
        assert_eq!(lines[0]["detail"], "alice has no users:read");
        assert_eq!(lines[1]["reason"], "TOKEN_EXPIRED");
        assert_eq!(lines[1].get("rule"), None);
        fixture.counts("doorward_authorization_total{outcome=\"permission_missing\",rule=\"/api.Users/Get\"} 1");
        fixture.counts("doorward_authentication_total{kind=\"jwt\",provider=\"corporate\",reason=\"ok\"} 1");
        fixture.counts("doorward_authentication_total{kind=\"jwt\",provider=\"corporate\",reason=\"TOKEN_EXPIRED\"} 1");
        fixture.counts("doorward_refusals_total{reason=\"TOKEN_EXPIRED\"} 1");
        fixture.counts("grpc_server_started_total{grpc_method=\"other\",grpc_service=\"other\"} 1");
        fixture.counts("grpc_server_handled_total{grpc_code=\"UNAUTHENTICATED\",grpc_method=\"other\",grpc_service=\"other\"} 1");
    }

    #[test]
    fn details_are_for_those_who_asked_for_them() {
        let mut fixture = Fixture::new(false);
        let mut record = fixture.begin();
        record.refused("TOKEN_AUDIENCE", || Some("aud is x".into()));
        record.finish(Code::Unauthenticated);
        assert_eq!(fixture.lines()[0].get("detail"), None);
    }

    #[test]
    fn what_an_audit_lets_through_is_recorded() {
        let mut fixture = Fixture::new(false);
        let mut record = fixture.begin();
        record.route(&fixture.routes, 0);
        record.authenticated(AuthKind::JWT, &alice());
        record.audited("METHOD_NOT_ALLOWED", || None);
        record.authorized();
        record.finish(Code::Ok);
        let lines = fixture.lines();
        assert_eq!((&lines[0]["audited"], lines[0].get("reason")), (&"METHOD_NOT_ALLOWED".into(), None));
        fixture.counts("doorward_audited_total{reason=\"METHOD_NOT_ALLOWED\"} 1");
        fixture.counts("doorward_authorization_total{outcome=\"method_not_allowed\",rule=\"/api.Users/Get\"} 1");
    }

    #[test]
    fn every_field_is_documented_and_nothing_else() {
        let mut fixture = Fixture::new(true);
        let mut record = fixture.begin();
        record.method(&MethodPath::parse("/api.Users/Get").unwrap());
        record.user_agent(&HeaderValue::from_static("a"));
        record.trace(&traced());
        record.route(&fixture.routes, 0);
        record.authenticated(AuthKind::JWT, &alice());
        record.audited("METHOD_NOT_ALLOWED", || None);
        record.upstream_started();
        record.refused("DEADLINE", || Some("after 1 s".into()));
        record.finish(Code::DeadlineExceeded);
        let written: Vec<String> = fixture.lines()[0].as_object().unwrap().keys().cloned().collect();
        let rows = include_str!("../../docs/access-log.md").lines().filter(|line| line.starts_with("| `"));
        let names = rows.flat_map(|row| row.split('|').nth(1).unwrap().split(','));
        let mut documented: Vec<String> = names.map(|name| name.trim().trim_matches('`').to_owned()).collect();
        documented.sort();
        assert_eq!(written, documented);
    }

    #[test]
    fn a_call_nobody_finishes_was_cancelled_or_panicked() {
        let mut fixture = Fixture::new(false);
        drop(fixture.begin());
        let record = fixture.begin();
        let panicked = std::thread::spawn(move || {
            let _record = record;
            std::panic::resume_unwind(Box::new("a bug"));
        });
        panicked.join().unwrap_err();
        let lines = fixture.lines();
        let codes: Vec<_> = lines.iter().map(|line| &line["grpc.code"]).collect();
        assert_eq!(codes, ["CANCELLED", "INTERNAL"]);
        fixture.counts("doorward_streams 0");
    }

    #[test]
    fn overhead_is_what_the_upstream_did_not_take() {
        let fixture = Fixture::new(false);
        let mut record = fixture.begin();
        let start = record.started;
        let at = |ms| start + Duration::from_millis(ms);
        let times = |record: &CallRecord, now| {
            let times = record.times(now);
            (times.duration.as_millis(), times.upstream.map(|time| time.as_millis()), times.overhead.as_millis())
        };
        assert_eq!(times(&record, at(9)), (9, None, 9), "no upstream: all of it is ours");
        record.upstream_started.set(Some(at(2)));
        assert_eq!(times(&record, at(9)), (9, Some(7), 2), "an upstream that has not ended is still at work");
        record.upstream_ended.set(Some(at(8)));
        assert_eq!(times(&record, at(9)), (9, Some(6), 3));
        record.tell(Code::Ok, at(9));
    }

    #[test]
    fn without_a_log_nothing_is_kept_for_it() {
        let telemetry = Telemetry { metrics: Arc::new(Metrics::new()), access_log: None, spans: None, explain_refusals: true };
        let mut record = CallRecord::begin(Arc::new(telemetry), RequestIds::new().next(), None, Instant::now());
        record.method(&MethodPath::parse("/a.B/C").unwrap());
        record.authenticated(AuthKind::JWT, &alice());
        record.refused("TOKEN_AUDIENCE", || Some("detail".into()));
        assert!(record.told.is_none());
    }

    /// A record that makes spans, and what it left when `fill` had done with it, searched for texts.
    fn spanned(headers: &HeaderMap, fill: impl FnOnce(&mut CallRecord, &Arc<RouteMetrics>), code: Code) -> (String, u64) {
        let mut fixture = Fixture::new(false);
        let spans = Spans::new(fixture.telemetry.metrics.clone());
        let Telemetry { metrics, access_log, .. } = (*fixture.telemetry).clone();
        fixture.telemetry = Arc::new(Telemetry { metrics, access_log, spans: Some(spans.clone()), explain_refusals: false });
        let mut record = fixture.begin();
        record.trace(headers);
        fill(&mut record, &fixture.routes);
        let request_id = record.request_id().to_string();
        record.finish(code);
        let lines = fixture.lines();
        let (bytes, count) = spans.take();
        let logged = lines[0]["trace_id"].as_str().unwrap();
        if count > 0 {
            let id = u128::from_str_radix(logged, 16).unwrap().to_be_bytes();
            assert!(bytes.windows(16).any(|window| window == id), "log and span agree");
            assert_eq!(logged == request_id, headers.is_empty(), "a trace that begins here has the call's own id");
        }
        (String::from_utf8_lossy(&bytes).into_owned(), count)
    }

    #[test]
    fn a_call_leaves_a_span_unless_its_client_records_none() {
        let unsampled = HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");
        let unsampled = HeaderMap::from_iter([(http::HeaderName::from_static("traceparent"), unsampled)]);
        let malformed = HeaderMap::from_iter([(http::HeaderName::from_static("traceparent"), HeaderValue::from_static("00-x"))]);
        for (headers, count) in [(HeaderMap::new(), 1), (traced(), 1), (unsampled, 0)] {
            assert_eq!(spanned(&headers, |_, _| {}, Code::Ok).1, count, "{headers:?}");
        }
        assert_eq!(spanned(&HeaderMap::new(), |record, _| record.trace(&malformed), Code::Ok).1, 1);
    }

    #[test]
    fn a_span_has_no_name_that_only_a_client_knows() {
        let call = |path: &'static str, route: usize, upstream: bool, code| {
            let fill = |record: &mut CallRecord, routes: &Arc<RouteMetrics>| {
                record.method(&MethodPath::parse(path).unwrap());
                record.route(routes, route);
                if upstream {
                    record.upstream_started();
                }
            };
            spanned(&HeaderMap::new(), fill, code).0
        };
        let invented = "rpc.method_original";
        let named = call("/api.Users/Get", 0, false, Code::Unauthenticated);
        assert!(named.contains("api.Users/Get") && !named.contains(invented), "the configuration names it: {named}");
        let served = call("/api.Users/List", 1, true, Code::NotFound);
        assert!(served.contains("api.Users/List") && !served.contains(invented), "the upstream knows it: {served}");
        for (upstream, code) in [(false, Code::PermissionDenied), (true, Code::Unimplemented), (true, Code::Cancelled)] {
            let other = call("/made.Up/Name", 1, upstream, code);
            assert!(other.contains("other/other") && other.contains(invented) && other.matches("made.Up").count() == 1, "{other}");
        }
    }

    #[test]
    fn a_span_says_what_happened_and_not_who_it_was() {
        let fill = |record: &mut CallRecord, routes: &Arc<RouteMetrics>| {
            record.route(routes, 0);
            record.user_agent(&HeaderValue::from_static("agent"));
            record.authenticated(AuthKind::JWT, &alice());
            record.refused("UPSTREAM_UNAVAILABLE", || None);
        };
        let (span, _) = spanned(&traced(), fill, Code::Unavailable);
        for part in ["doorward.reason", "UPSTREAM_UNAVAILABLE", "doorward.rule", "corporate", "jwt", "10.1.2.3", "doorward.overhead_us"] {
            assert!(span.contains(part), "{part} in {span}");
        }
        for secret in ["alice", "web", "analytics", "agent"] {
            assert!(!span.contains(secret), "{secret} in {span}");
        }
    }
}
