//! Wiring: a configuration in, rooms joined, sockets bound, run, reload, drain, exit.
//!
//! Fail before bind; bind everything before serving anything. One control thread (this one) does everything that is
//! nobody's call: accepting, key sets, reloads, the operations port, signals; `workers` threads carry calls.

mod assembly;
mod background;
mod explain;
mod fixed;
mod likely_mistakes;
mod ports;
mod reload;
mod running;
mod unknown_methods;
mod way_down;

pub use assembly::{Assembly, Loaded, load};
pub use explain::{Explanation, Question, explain};
pub use likely_mistakes::unasked_permissions;
pub use ports::Ports;
pub use reload::Sources;
pub use unknown_methods::{refuse_unknown_methods, why_no_such_method};

use crate::authentication::TokenDigests;
use crate::bell::{Bell, LocalBell};
use crate::config::Config;
use crate::drain::{Drain, drain};
use crate::listener::{self, Door, Worker, Workers};
use crate::operations::{self, Operations};
use crate::proxy::{Generation, Proxy};
use crate::readiness::Readiness;
use crate::telemetry::{Diagnostics, Metrics, RequestIds, SpanExport};
use crate::upstream::Pool;
use arc_swap::ArcSwap;
use background::Surroundings;
use reload::Reload;
use running::Running;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::LocalSet;
use way_down::{Signals, empty, signalled, told_to_close};

/// How long a normal exit waits for a collector that does not take the last spans.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// What readiness calls the configuration.
const CONFIGURATION: &str = "configuration";

/// Serves `ports` until a signal has drained it. `sources` is what `config` was loaded from. The error is why it could not start.
pub fn run(ports: Ports, config: Config, assembly: Assembly, sources: Sources, diagnostics: Diagnostics) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let metrics = Arc::new(Metrics::new());
    count_panics(metrics.clone());
    let served = LocalSet::new().block_on(&runtime, serve(ports, config, assembly, sources, diagnostics, metrics));
    // A name resolution or a fetch that still runs must not hold up the exit.
    runtime.shutdown_background();
    served
}

async fn serve(
    ports: Ports,
    config: Config,
    assembly: Assembly,
    sources: Sources,
    diagnostics: Diagnostics,
    metrics: Arc<Metrics>,
) -> io::Result<()> {
    let signals = Signals::new()?;
    let (readiness, bell) = (Readiness::new(), Bell::default());
    let (trigger, drain) = drain();
    let trigger = Arc::new(trigger);

    let ours = vec![ports.traffic.local_addr()?, ports.operations.local_addr()?];
    let span_export = SpanExport::start(metrics.clone());
    let spans = span_export.spans().clone();
    let surroundings = Surroundings { readiness: readiness.clone(), bell: bell.clone(), metrics: metrics.clone(), spans, ours };
    let workers = config.workers;
    let running = Running::begin(config, assembly, surroundings, diagnostics)?;
    let (generation, door, limits) = (running.generation.clone(), running.door.clone(), running.limits.clone());
    let explained = running.explained.clone();
    let workers = start_workers(workers, generation, door.clone(), &drain, &bell, &metrics)?;
    ports.announce()?;
    let (traffic, operations_port) = (TcpListener::from_std(ports.traffic)?, TcpListener::from_std(ports.operations)?);

    let begin = trigger.clone();
    let begin_drain = move || {
        if begin.announce() {
            tracing::info!("draining, as POST /drain asked");
        }
    };
    let explain: operations::Explain = Box::new(move |question| {
        let in_force = explained.load_full();
        Box::pin(async move { in_force.answer(&question).await })
    });
    let operations = Operations::new(metrics.clone(), readiness.clone(), drain.clone(), begin_drain, explain);
    tokio::task::spawn_local(operations::serve(operations_port, Arc::new(operations)));
    let reload = Reload::new(running, sources, readiness.guard(CONFIGURATION), metrics.clone())?;
    tokio::task::spawn_local(reload.run());
    readiness.set_started();

    let interrupted = Notify::new();
    let way_down = async {
        let closing = told_to_close(drain, || limits.load().drain_delay, &interrupted);
        let workers = listener::accept(traffic, workers, &door, closing, metrics).await;
        empty(workers, &trigger, &bell, limits.load().drain).await;
        span_export.finish(LAST_SPANS).await;
    };
    tokio::select! {
        () = way_down => {}
        () = signalled(signals, &trigger, &interrupted) => {}
    }
    Ok(())
}

fn start_workers(
    count: usize,
    generation: Arc<ArcSwap<Generation>>,
    door: Arc<ArcSwap<Door>>,
    drain: &Drain,
    bell: &Bell,
    metrics: &Arc<Metrics>,
) -> io::Result<Workers> {
    let (drain, bell, metrics) = (drain.clone(), bell.clone(), metrics.clone());
    Workers::start(count, move || Worker {
        door: door.clone(),
        intakes: Rc::default(),
        metrics: metrics.clone(),
        proxy: Rc::new(Proxy {
            pool: RefCell::new(Pool::new(generation.load().connector.clone(), metrics.clone())),
            generation: generation.clone(),
            drain: drain.clone(),
            bell: LocalBell::default(),
            digests: TokenDigests::default(),
            request_ids: RequestIds::new(),
        }),
        bell: bell.clone(),
    })
}

/// A panic ends the task it happens in and nothing else; it must be seen all the same.
fn count_panics(metrics: Arc<Metrics>) {
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        metrics.panics.inc();
        previous(info);
    }));
}
