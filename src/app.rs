//! Wiring: a configuration in, rooms joined, sockets bound, run, drain, exit.
//!
//! Fail before bind; bind everything before serving anything. One control thread (this one) does everything that is
//! nobody's call: accepting, key sets, the operations port, signals; `workers` threads carry calls.

use crate::authentication::{Authenticator, RevocationsWatch};
use crate::authorization::Policy;
use crate::bell::{Bell, LocalBell};
use crate::config::{Config, Problems, Transport, Upstream, UpstreamAddress};
use crate::drain::{Drain, DrainTrigger, drain};
use crate::http2::HeaderLimits;
use crate::identity_headers::IdentityHeaders;
use crate::listener::{self, Door, Worker, Workers};
use crate::operations::{self, Operations};
use crate::proxy::{Generation, Proxy};
use crate::readiness::Readiness;
use crate::telemetry::{AccessLog, Metrics, RequestIds, RouteMetrics, Telemetry};
use crate::tls;
use crate::upstream::{Connector, Pool, watch_exposure, watch_health};
use arc_swap::ArcSwap;
use http::uri::{Authority, Scheme};
use jiff::Timestamp;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::LocalSet;
use tokio::time::Instant;

/// The rooms of one configuration, made and checked, before anything is bound.
pub struct Assembly {
    /// Who is calling.
    pub authenticator: Authenticator,
    /// May they.
    pub policy: Arc<Policy>,
    /// What the upstream is told.
    pub identity_headers: Arc<IdentityHeaders>,
    door: Door,
    /// Of `listen.tls.certificate`; `None` without TLS.
    certificate_expiry: Option<Timestamp>,
    connector: Connector,
    upstream_scheme: Scheme,
    upstream_authority: Authority,
}

/// Makes every room of the configuration; what is wrong with the files it names is added to `problems`. `None` when there
/// are errors, of this or of an earlier stage.
pub fn assemble(config: &Config, problems: &mut Problems) -> Option<Assembly> {
    let policy = Arc::new(Policy::compile(&config.authorization, config.authentication.mode, &config.authentication.public_methods));
    let identity_headers = Arc::new(IdentityHeaders::compile(&config.identity_headers));
    let claims: Vec<_> = config.identity_headers.claims.iter().map(|(claim, _)| claim.clone()).collect();
    let authenticator = Authenticator::load(&config.authentication, &claims, policy.clone(), identity_headers.clone(), problems);
    let (server_tls, certificate_expiry) = match &config.listen.transport {
        Transport::Tls(listen) => (tls::server_config(listen, problems), tls::expiry(&listen.certificate)),
        Transport::InsecurePlaintext => (None, None),
    };
    let upstream = &config.upstream;
    let client_tls = upstream.tls.as_ref().and_then(|tls| tls::client_config(tls, &upstream.at, problems));
    let upstream_authority = upstream_authority(upstream, problems);
    if problems.has_errors() {
        return None;
    }
    Some(Assembly {
        authenticator,
        policy,
        identity_headers,
        door: Door::new(server_tls, &config.limits),
        certificate_expiry,
        upstream_scheme: if client_tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP },
        connector: Connector::new(upstream, client_tls, &config.limits),
        upstream_authority: upstream_authority?,
    })
}

/// `host:port` of the address, `localhost` for a Unix socket.
fn upstream_authority(upstream: &Upstream, problems: &mut Problems) -> Option<Authority> {
    let text = match &upstream.address {
        UpstreamAddress::Unix(_) => "localhost".to_owned(),
        tcp @ UpstreamAddress::Tcp { .. } => tcp.to_string(),
    };
    let authority = Authority::try_from(text);
    if authority.is_err() {
        problems.error(&upstream.at, "the host is not a name or an address");
    }
    authority.ok()
}

/// Runs until a signal has drained it. The error is why it could not start.
pub fn run(config: Config, assembly: Assembly) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let metrics = Arc::new(Metrics::new());
    count_panics(metrics.clone());
    let (access_log, _writer) = match config.log.access {
        true => AccessLog::start(io::stdout(), &metrics).map(|(log, writer)| (Some(log), Some(writer)))?,
        false => (None, None),
    };
    let telemetry = Arc::new(Telemetry { metrics, access_log, explain_refusals: config.log.explain_refusals });
    let served = LocalSet::new().block_on(&runtime, serve(config, assembly, telemetry));
    // A name resolution or a fetch that still runs must not hold up the exit.
    runtime.shutdown_background();
    served
}

async fn serve(config: Config, assembly: Assembly, telemetry: Arc<Telemetry>) -> io::Result<()> {
    let traffic = bind("listen.address", config.listen.address)?;
    let operations_port = bind("operations.address", config.operations)?;
    let signals = Signals::new()?;
    let readiness = Readiness::new();
    let (trigger, drain) = drain();
    let trigger = Arc::new(trigger);

    let Assembly { authenticator, policy, identity_headers, door, certificate_expiry, connector, upstream_scheme, upstream_authority } =
        assembly;
    watch_key_sets(&authenticator, &readiness, &telemetry.metrics);
    let bell = Bell::default();
    if let Some(file) = config.authentication.revocations {
        let watch = RevocationsWatch::new(authenticator.revocations().clone(), file);
        tokio::spawn(watch.run(readiness.guard("revocations"), bell.clone(), telemetry.metrics.clone()));
    }
    if let Some(expiry) = certificate_expiry {
        telemetry.metrics.at_scrape(move |metrics| metrics.certificate_expiry.with_label_values(&["listen"]).set(expiry.as_second()));
    }
    let ours = vec![traffic.local_addr()?, operations_port.local_addr()?];
    let health = watch_health(
        connector.clone(),
        upstream_scheme.clone(),
        upstream_authority.clone(),
        config.upstream.health.clone(),
        readiness.guard("upstream"),
    );
    tokio::task::spawn_local(health);
    watch_who_reaches(&config.upstream, ours, &readiness, &telemetry.metrics);

    let generation = Arc::new(ArcSwap::from_pointee(Generation {
        routes: Arc::new(route_metrics(&telemetry.metrics, &policy, &authenticator)),
        authenticator,
        policy,
        identity_headers,
        limits: HeaderLimits { bytes: config.limits.header_bytes, fields: config.limits.header_fields },
        forward_credentials: config.forward_credentials,
        insecure_audit: config.authentication.insecure_audit,
        upstream_scheme,
        upstream_authority,
        telemetry: telemetry.clone(),
    }));
    let door = Arc::new(ArcSwap::from_pointee(door));
    let workers = start_workers(config.workers, generation, door, connector, &drain, &bell, &telemetry.metrics)?;
    announce(&traffic, "traffic")?;
    announce(&operations_port, "operations")?;

    let begin = trigger.clone();
    let operations = Operations {
        metrics: telemetry.metrics.clone(),
        readiness: readiness.clone(),
        drain: drain.clone(),
        begin_drain: Box::new(move || {
            if begin.announce() {
                tracing::info!("draining, as POST /drain asked");
            }
        }),
    };
    tokio::task::spawn_local(operations::serve(operations_port, Arc::new(operations)));
    note_configuration(&telemetry.metrics);
    let loaded = readiness.guard("configuration");
    loaded.ready();
    readiness.set_started();

    let interrupted = Notify::new();
    let (most, limits) = (listener::room_for(config.limits.connections), &config.limits);
    let way_down = async {
        let closing = told_to_close(drain, limits.drain_delay, &interrupted);
        let workers = listener::accept(traffic, workers, most, closing, telemetry.metrics.clone()).await;
        empty(workers, &trigger, &bell, limits.drain).await;
    };
    tokio::select! {
        () = way_down => {}
        () = signalled(signals, &trigger, &interrupted) => {}
    }
    Ok(())
}

/// The one generation of this process has been applied.
fn note_configuration(metrics: &Metrics) {
    metrics.configuration_generation.set(1);
    metrics.configuration_last_reload_successful.set(1);
    metrics.configuration_last_reload_success.set(jiff::Timestamp::now().as_second());
}

/// Fetches key sets for as long as the process runs, and lets readiness wait for those that are required.
fn watch_key_sets(authenticator: &Authenticator, readiness: &Readiness, metrics: &Metrics) {
    let sets: Vec<_> = authenticator.key_sets().cloned().collect();
    for set in &sets {
        tokio::spawn(set.clone().run());
        if set.readiness_required() {
            let (set, guard) = (set.clone(), readiness.guard(format!("key set {}", set.name())));
            guard.not_ready("no key set has been had yet");
            tokio::spawn(async move {
                set.first_had().await;
                guard.ready();
                std::future::pending::<()>().await; // a guard that is dropped is no part any more
            });
        }
    }
    metrics.at_scrape(move |metrics| {
        for set in &sets {
            if let Some(age) = set.age() {
                metrics.key_set_age.with_label_values(&[&**set.name()]).set(age.as_secs_f64());
            }
            set.fetches().for_each(|(outcome, total)| metrics.key_set_fetches(set.name(), outcome.label(), total));
        }
    });
}

/// Of an upstream on loopback only: what is elsewhere is protected by others.
fn watch_who_reaches(upstream: &Upstream, ours: Vec<SocketAddr>, readiness: &Readiness, metrics: &Arc<Metrics>) {
    if let Some(port) = upstream.address.loopback_port() {
        let (guard, accepted) = (readiness.guard("upstream exposure"), upstream.insecure_exposed);
        tokio::spawn(watch_exposure(port, ours, accepted, guard, readiness.watch(), metrics.clone()));
    }
}

/// Ends when the port is to be closed. Until then every call is served, after the drain has begun too: load balancers have
/// yet to notice.
async fn told_to_close(mut drain: Drain, delay: Duration, interrupted: &Notify) {
    drain.changed().await;
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        () = interrupted.notified() => {}
    }
}

/// From a port that is closed, so that nobody who is sent away comes back to it, to the end of the last connection, or as
/// far as `limit` allows.
async fn empty(workers: Workers, trigger: &DrainTrigger, bell: &Bell, limit: Duration) {
    trigger.begin(Instant::now() + limit);
    let mut ended = pin!(workers.ended());
    tokio::select! {
        () = &mut ended => return tracing::info!("drained: every connection has ended"),
        () = tokio::time::sleep(limit) => {}
    }
    trigger.finish();
    bell.ring();
    tracing::warn!("the drain's time is up: what was left was answered with DRAINING");
    // For those answers to be written, and no longer.
    const LAST_WORDS: Duration = Duration::from_secs(1);
    let _ = tokio::time::timeout(LAST_WORDS, ended).await;
}

/// Ends when a second signal says that everything is to end at once. The first begins the drain; one that `POST /drain` has
/// begun it leaves alone, as a preStop hook asks for that and SIGTERM follows. SIGINT skips what is left of the delay.
async fn signalled(mut signals: Signals, trigger: &DrainTrigger, interrupted: &Notify) {
    let signal = signals.next().await;
    // Before the log line: what stands in one is not even evaluated at a level that is off.
    let first = trigger.announce();
    tracing::info!(signal = signal.name(), "{}", if first { "draining" } else { "draining already" });
    if signal == Ended::Interrupt {
        interrupted.notify_one();
    }
    let signal = signals.next().await;
    tracing::warn!(signal = signal.name(), "ending at once");
}

/// Which signal came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Terminate,
    Interrupt,
}

impl Ended {
    fn name(self) -> &'static str {
        match self {
            Ended::Terminate => "SIGTERM",
            Ended::Interrupt => "SIGINT",
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> Ended {
        tokio::select! {
            _ = self.terminate.recv() => Ended::Terminate,
            _ = self.interrupt.recv() => Ended::Interrupt,
        }
    }
}

fn start_workers(
    count: usize,
    generation: Arc<ArcSwap<Generation>>,
    door: Arc<ArcSwap<Door>>,
    connector: Connector,
    drain: &Drain,
    bell: &Bell,
    metrics: &Arc<Metrics>,
) -> io::Result<Workers> {
    let (drain, bell, metrics) = (drain.clone(), bell.clone(), metrics.clone());
    Workers::start(count, move || Worker {
        door: door.clone(),
        metrics: metrics.clone(),
        proxy: Rc::new(Proxy {
            generation: generation.clone(),
            pool: Pool::new(connector.clone()),
            drain: drain.clone(),
            bell: LocalBell::default(),
            request_ids: RequestIds::new(),
        }),
        bell: bell.clone(),
    })
}

fn route_metrics(metrics: &Arc<Metrics>, policy: &Policy, authenticator: &Authenticator) -> RouteMetrics {
    let routes: Vec<_> = policy.route_labels().iter().map(|labels| (&*labels.grpc_service, &*labels.grpc_method, &*labels.rule)).collect();
    RouteMetrics::resolve(metrics, &routes, &authenticator.provider_names())
}

/// What a start says on stderr, so that an operator (or a test with port 0) knows where to knock.
fn announce(listener: &TcpListener, what: &str) -> io::Result<()> {
    let address = listener.local_addr()?;
    tracing::info!("listening on {address} ({what})");
    Ok(())
}

fn bind(key: &str, address: SocketAddr) -> io::Result<TcpListener> {
    listener::bind(address).map_err(|error| io::Error::new(error.kind(), format!("{key} {address} cannot be listened on: {error}")))
}

/// A panic ends the task it happens in and nothing else; it must be seen all the same.
fn count_panics(metrics: Arc<Metrics>) {
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        metrics.panics.inc();
        previous(info);
    }));
}
