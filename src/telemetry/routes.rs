//! What calls count, resolved at load: the labels are the configuration's methods, rules and providers, so that a call
//! neither hashes a label nor takes a lock to find its counters.

use super::metrics::{Metrics, OTHER};
use crate::grpc::{Code, MethodPattern};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};
use std::sync::{Arc, OnceLock};

/// Which credentials a caller presented, for the `kind` label and the `auth` field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthKind(u8);

impl AuthKind {
    /// No credential.
    pub const NONE: AuthKind = AuthKind(0);
    /// A bearer token.
    pub const JWT: AuthKind = AuthKind(1);
    /// An API key.
    pub const API_KEY: AuthKind = AuthKind(2);
    /// A client certificate that matches an entry.
    pub const CLIENT_CERTIFICATE: AuthKind = AuthKind(4);

    const NAMES: [&'static str; 8] = [
        "none",
        "jwt",
        "api_key",
        "jwt+api_key",
        "client_certificate",
        "jwt+client_certificate",
        "api_key+client_certificate",
        "jwt+api_key+client_certificate",
    ];

    /// Both together.
    #[must_use]
    pub const fn and(self, other: AuthKind) -> AuthKind {
        AuthKind(self.0 | other.0)
    }

    /// `none`, `jwt`, `jwt+api_key` and so on.
    pub fn name(self) -> &'static str {
        AuthKind::NAMES.get(usize::from(self.0)).copied().unwrap_or(OTHER)
    }
}

/// The label values `(grpc_service, grpc_method)` of the calls that a pattern matches: only what the pattern itself names.
pub fn call_labels(pattern: &MethodPattern) -> (&str, &str) {
    match pattern {
        MethodPattern::Exact(path) => path.trim_start_matches('/').split_once('/').unwrap_or((OTHER, OTHER)),
        MethodPattern::Service(service) => (service, OTHER),
        MethodPattern::Package(_) => (OTHER, OTHER),
    }
}

/// The counters of one configuration's routes and providers.
#[derive(Debug)]
pub struct RouteMetrics {
    metrics: Arc<Metrics>,
    routes: Box<[Route]>,
    providers: Box<[(Arc<str>, ByKind)]>,
}

/// Made at their first use, as most kinds are never seen together with most providers.
type ByKind = [OnceLock<IntCounter>; AuthKind::NAMES.len()];

impl RouteMetrics {
    /// Resolves the handles of `(grpc_service, grpc_method, rule)`, in an order the caller knows by index, and of the
    /// token providers. Rules that cover several methods, the default and public methods are routes like any other.
    pub fn resolve(metrics: &Arc<Metrics>, routes: &[(&str, &str, &str)], providers: &[Arc<str>]) -> RouteMetrics {
        let m = &**metrics;
        let providers = [Arc::from(NO_PROVIDER)].into_iter().chain(providers.iter().cloned());
        RouteMetrics {
            metrics: metrics.clone(),
            routes: routes.iter().map(|labels| Route::new(&m.handled, &m.started, &m.handling, &m.authorization, *labels)).collect(),
            providers: providers.map(|name| (name, Default::default())).collect(),
        }
    }

    /// The route of that index; calls of an index nobody resolved count as `other`.
    pub(super) fn route(&self, index: usize) -> &Route {
        self.routes.get(index).unwrap_or(&self.metrics.unrouted)
    }

    /// Counts a caller whose credentials were all verified.
    pub(super) fn authenticated(&self, kind: AuthKind, provider: Option<&str>) {
        let provider = provider.unwrap_or(NO_PROVIDER);
        let handle = self
            .providers
            .iter()
            .find(|(name, _)| **name == *provider)
            .and_then(|(_, kinds)| kinds.get(usize::from(kind.0)))
            .map(|handle| handle.get_or_init(|| self.metrics.authentication.with_label_values(&[kind.name(), provider, "ok"])));
        match handle {
            Some(counter) => counter.inc(),
            None => self.metrics.authentication.with_label_values(&[kind.name(), OTHER, "ok"]).inc(),
        }
    }
}

/// The `provider` label of callers without a token.
pub(super) const NO_PROVIDER: &str = "none";

/// The `outcome` label of a decision that lets a call through; others are the reason in lower case.
const ALLOWED: &str = "allowed";

/// The counters of the calls that one rule decides.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) rule: Arc<str>,
    pub(super) started: IntCounter,
    pub(super) handling: Histogram,
    labels: (String, String),
    handled_by_code: IntCounterVec,
    handled: [OnceLock<IntCounter>; Code::ALL.len()],
    authorization: IntCounterVec,
    allowed: OnceLock<IntCounter>,
}

impl Route {
    pub(super) fn new(
        handled: &IntCounterVec,
        started: &IntCounterVec,
        handling: &HistogramVec,
        authorization: &IntCounterVec,
        (service, method, rule): (&str, &str, &str),
    ) -> Route {
        Route {
            rule: rule.into(),
            started: started.with_label_values(&[service, method]),
            handling: handling.with_label_values(&[service, method]),
            labels: (service.to_owned(), method.to_owned()),
            handled_by_code: handled.clone(),
            handled: Default::default(),
            authorization: authorization.clone(),
            allowed: OnceLock::new(),
        }
    }

    /// The service and method of its metrics.
    pub(super) fn names(&self) -> (&str, &str) {
        (&self.labels.0, &self.labels.1)
    }

    /// The counter of calls that ended with `code`. Made at its first use: most routes see few of the seventeen codes.
    pub(super) fn handled(&self, code: Code) -> Option<&IntCounter> {
        let (service, method) = &self.labels;
        let handle = self.handled.get(code as usize)?;
        Some(handle.get_or_init(|| self.handled_by_code.with_label_values(&[service.as_str(), method, code.name()])))
    }

    /// Counts a call that the rule lets through.
    pub(super) fn allowed(&self) {
        self.allowed.get_or_init(|| self.authorization.with_label_values(&[&*self.rule, ALLOWED])).inc();
    }

    /// Counts a call that the rule refuses.
    pub(super) fn denied(&self, reason: &'static str) {
        self.authorization.with_label_values(&[&*self.rule, &reason.to_ascii_lowercase()]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_names_everything_presented() {
        assert_eq!(AuthKind::default().name(), "none");
        assert_eq!(AuthKind::JWT.and(AuthKind::API_KEY).name(), "jwt+api_key");
        assert_eq!(AuthKind::CLIENT_CERTIFICATE.and(AuthKind::JWT).name(), "jwt+client_certificate");
    }

    #[test]
    fn labels_hold_only_what_the_pattern_names() {
        let labels = |text| {
            let pattern = MethodPattern::parse(text).unwrap();
            let (service, method) = call_labels(&pattern);
            format!("{service} {method}")
        };
        assert_eq!(labels("/a.B/C"), "a.B C");
        assert_eq!(labels("/a.B/*"), "a.B other");
        assert_eq!(labels("/a.*"), "other other");
    }

    #[test]
    fn a_provider_nobody_configured_is_other() {
        let metrics = Arc::new(Metrics::new());
        let routes = RouteMetrics::resolve(&metrics, &[], &["corporate".into()]);
        routes.authenticated(AuthKind::JWT, Some("corporate"));
        routes.authenticated(AuthKind::API_KEY, None);
        routes.authenticated(AuthKind::JWT, Some("invented"));
        let text = metrics.render();
        for labels in ["kind=\"jwt\",provider=\"corporate\"", "kind=\"api_key\",provider=\"none\"", "kind=\"jwt\",provider=\"other\""] {
            assert!(text.contains(&format!("doorward_authentication_total{{{labels},reason=\"ok\"}} 1\n")), "{labels} in {text}");
        }
        assert!(!text.contains("invented"));
    }
}
