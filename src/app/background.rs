//! What a configuration keeps running beside the calls: its key sets, its revocations, and who looks after its upstream.
//! Ends when dropped; what the next configuration has in common with it goes on.

use super::assembly::Assembly;
use crate::authentication::{Authenticator, RevocationsWatch};
use crate::bell::Bell;
use crate::config::{InputFile, Upstream};
use crate::readiness::Readiness;
use crate::telemetry::{Metrics, Spans};
use crate::upstream::{watch_exposure, watch_health};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::task::JoinSet;

/// What the tasks of every configuration share.
pub(super) struct Surroundings {
    pub(super) readiness: Readiness,
    pub(super) bell: Bell,
    pub(super) metrics: Arc<Metrics>,
    /// Where calls leave their spans.
    pub(super) spans: Spans,
    /// Our own listening sockets.
    pub(super) ours: Vec<SocketAddr>,
}

/// Fetches key sets, lets readiness wait for those that are required, and follows the revocations file. Those of the
/// previous configuration are dropped only after these have begun, lest readiness flickers.
pub(super) fn look_after_credentials(authenticator: &Authenticator, revocations: Option<InputFile>, with: &Surroundings) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for set in authenticator.key_sets() {
        tasks.spawn(set.clone().run());
        if set.readiness_required() {
            let (set, guard) = (set.clone(), with.readiness.guard(format!("key set {}", set.name())));
            match set.has_keys() {
                true => guard.ready(),
                false => guard.not_ready("no key set has been had yet"),
            }
            tasks.spawn(async move {
                set.first_had().await;
                guard.ready();
                std::future::pending::<()>().await; // a guard that is dropped is no part any more
            });
        }
    }
    // They have just been loaded, if there are any.
    with.metrics.revocations_last_reload_successful.set(1);
    if let Some(file) = revocations {
        let watch = RevocationsWatch::new(authenticator.revocations().clone(), file);
        let guard = with.readiness.guard("revocations");
        guard.ready();
        tasks.spawn(watch.run(guard, with.bell.clone(), with.metrics.clone()));
    }
    tasks
}

/// Asks whether the upstream answers and, when it is on loopback, whether others can reach it: what is elsewhere is
/// protected by others. Runs on a `LocalSet`.
pub(super) fn look_after_upstream(upstream: &Upstream, assembly: &Assembly, with: &Surroundings) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn_local(watch_health(
        assembly.connector.clone(),
        assembly.upstream_scheme.clone(),
        assembly.upstream_authority.clone(),
        upstream.health.clone(),
        with.readiness.guard("upstream"),
    ));
    tasks.spawn_local(assembly.connector.clone().keep_resolved());
    if let Some(port) = upstream.address.loopback_port() {
        let (guard, accepted) = (with.readiness.guard("upstream exposure"), upstream.insecure_exposed);
        tasks.spawn(watch_exposure(port, with.ours.clone(), accepted, guard, with.readiness.watch(), with.metrics.clone()));
    } else {
        with.metrics.upstream_exposed.set(0);
    }
    tasks
}
