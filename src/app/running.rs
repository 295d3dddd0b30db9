//! The part of a running process that a configuration decides and a reload exchanges, as one generation: calls in flight
//! keep the one they began with, connections the door they came through.

use super::assembly::Assembly;
use super::background::{Surroundings, look_after_credentials, look_after_upstream};
use super::fixed::Fixed;
use crate::config::{Config, Limits, Upstream};
use crate::http2::HeaderLimits;
use crate::listener::Door;
use crate::proxy::Generation;
use crate::rate_limits::RateLimits;
use crate::telemetry::{AccessLog, AccessLogWriter, Diagnostics, RouteMetrics, Telemetry};
use arc_swap::ArcSwap;
use std::io;
use std::mem;
use std::sync::Arc;
use tokio::task::JoinSet;

/// What runs now.
pub(super) struct Running {
    /// What new calls are carried with.
    pub(super) generation: Arc<ArcSwap<Generation>>,
    /// What new connections meet.
    pub(super) door: Arc<ArcSwap<Door>>,
    /// The `limits` in force.
    pub(super) limits: Arc<ArcSwap<Limits>>,
    fixed: Fixed,
    upstream: Upstream,
    surroundings: Surroundings,
    diagnostics: Diagnostics,
    output: Output,
    credentials_watch: JoinSet<()>,
    /// Goes on while the upstream stays the same.
    upstream_watch: JoinSet<()>,
}

impl Running {
    /// The first generation. Within the control thread's `LocalSet`.
    ///
    /// # Errors
    /// When the operating system gives no thread for the access log.
    pub(super) fn begin(config: Config, assembly: Assembly, surroundings: Surroundings, diagnostics: Diagnostics) -> io::Result<Running> {
        let mut output = Output(None);
        let telemetry = output.telemetry(&config, &surroundings)?;
        let upstream_watch = look_after_upstream(&config.upstream, &assembly, &surroundings);
        let credentials_watch = look_after_credentials(&assembly.authenticator, config.authentication.revocations.clone(), &surroundings);
        let (generation, door) = made(&config, assembly, telemetry, RateLimits::new(&config.rate_limits));
        let running = Running {
            generation: Arc::new(ArcSwap::from_pointee(generation)),
            door: Arc::new(ArcSwap::from_pointee(door)),
            limits: Arc::new(ArcSwap::from_pointee(config.limits.clone())),
            fixed: Fixed::of(&config),
            upstream: config.upstream,
            surroundings,
            diagnostics,
            output,
            credentials_watch,
            upstream_watch,
        };
        running.collect_at_scrape();
        Ok(running)
    }

    /// Puts the next generation into the place of this one. Nothing has changed after an error.
    ///
    /// # Errors
    /// Why it cannot be: the operator's words.
    pub(super) fn exchange(&mut self, config: Config, mut assembly: Assembly) -> Result<(), String> {
        self.fixed.forbids(&config)?;
        let telemetry = self.output.telemetry(&config, &self.surroundings);
        let telemetry = telemetry.map_err(|error| format!("the access log cannot be started: {error}"))?;
        self.fixed.tell_what_needs_a_restart(&config);
        self.diagnostics.set_level(config.log.level);
        let previous = self.generation.load_full();
        assembly.authenticator.succeed(&previous.authenticator);
        let revocations = config.authentication.revocations.clone();
        let next = look_after_credentials(&assembly.authenticator, revocations, &self.surroundings);
        drop(mem::replace(&mut self.credentials_watch, next));
        let limits = self.limits.swap(Arc::new(config.limits.clone()));
        let same_limits = (limits.header_bytes, limits.stalled) == (config.limits.header_bytes, config.limits.stalled);
        if self.upstream.is_same(&config.upstream) && same_limits {
            // Then the workers keep their connections to it.
            assembly.connector = previous.connector.clone();
        } else {
            let next = look_after_upstream(&config.upstream, &assembly, &self.surroundings);
            drop(mem::replace(&mut self.upstream_watch, next));
            self.upstream = config.upstream.clone();
        }
        // Nobody has more left because a file was touched.
        let rate_limits = previous.rate_limits.succeeded_by(&config.rate_limits);
        let (generation, door) = made(&config, assembly, telemetry, rate_limits);
        self.generation.store(Arc::new(generation));
        if self.fixed.allows_the_door_of(&config) {
            self.door.store(Arc::new(door));
        }
        // What runs looks whether its credentials still stand.
        self.surroundings.bell.ring();
        Ok(())
    }

    fn collect_at_scrape(&self) {
        let (generation, door) = (self.generation.clone(), self.door.clone());
        self.surroundings.metrics.at_scrape(move |metrics| {
            if let Some(expiry) = door.load().certificate_expiry() {
                metrics.certificate_expiry.with_label_values(&["listen"]).set(expiry.as_second());
            }
            for set in generation.load().authenticator.key_sets() {
                if let Some(age) = set.age() {
                    metrics.key_set_age.with_label_values(&[&**set.name()]).set(age.as_secs_f64());
                }
                set.take_fetches().for_each(|(outcome, more)| metrics.key_set_fetches(set.name(), outcome.label(), more));
            }
        });
    }
}

/// The generation and the door of a configuration.
fn made(config: &Config, assembly: Assembly, telemetry: Telemetry, rate_limits: RateLimits) -> (Generation, Door) {
    let Assembly { authenticator, policy, identity_headers, door, connector, upstream_scheme, upstream_authority } = assembly;
    let labels = policy.route_labels();
    let routes: Vec<_> = labels.iter().map(|labels| (&*labels.grpc_service, &*labels.grpc_method, &*labels.rule)).collect();
    let generation = Generation {
        routes: Arc::new(RouteMetrics::resolve(&telemetry.metrics, &routes, &authenticator.provider_names())),
        authenticator,
        policy,
        identity_headers,
        rate_limits,
        limits: HeaderLimits { bytes: config.limits.header_bytes, fields: config.limits.header_fields },
        forward_credentials: config.forward_credentials,
        insecure_audit: config.authentication.insecure_audit,
        connector,
        upstream_scheme,
        upstream_authority,
        telemetry: Arc::new(telemetry),
    };
    (generation, door)
}

/// Standard output for the access log, from the first configuration that asks for it on.
struct Output(Option<(AccessLog, AccessLogWriter)>);

impl Output {
    fn telemetry(&mut self, config: &Config, with: &Surroundings) -> io::Result<Telemetry> {
        if config.log.access && self.0.is_none() {
            self.0 = Some(AccessLog::start(io::stdout(), &with.metrics)?);
        }
        let access_log = self.0.as_ref().filter(|_| config.log.access).map(|(log, _)| log.clone());
        let spans = with.spans.towards(config.log.otlp.as_ref());
        Ok(Telemetry { metrics: with.metrics.clone(), access_log, spans, explain_refusals: config.log.explain_refusals })
    }
}
