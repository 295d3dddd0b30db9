//! PLAIN PORT: probes, metrics and `grpc.health.v1`, over HTTP/1.1 and h2c on one port, for the cluster and the operator; a
//! drain and explanations for this machine alone.
//!
//! Nothing that others are told is secret and nothing here carries calls; whoever reaches the port must still not be able to wear the
//! process out, so connections, idleness and request bodies are bounded.

mod connections;
mod explanation;
mod health;
mod probes;

pub use explanation::Explain;

use crate::drain::{Drain, Phase};
use crate::readiness::Readiness;
use crate::telemetry::Metrics;
use bytes::Bytes;
use connections::Connections;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Probes and scrapers need a handful.
const CONNECTIONS: usize = 256;

/// A connection without a request for this long is closed (at the latest after twice as long).
const IDLE: Duration = Duration::from_secs(15);

/// For a request's head, and for its body.
const READ: Duration = Duration::from_secs(10);

/// How often a peer that watches health is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// After `accept` failed, as it does while file descriptors are used up: trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the port tells, and what it can set going.
pub struct Operations {
    /// `/metrics`.
    pub metrics: Arc<Metrics>,
    /// `/readyz` and `/startupz`.
    pub readiness: Readiness,
    /// A drain that has begun makes the process not ready.
    pub drain: Drain,
    /// `POST /drain` from this machine. Returns at once; called again for each request.
    pub begin_drain: Box<dyn Fn() + Send + Sync>,
    /// `POST /explain` from this machine.
    pub explain: Explain,
    /// A slot for each question that may be answered at a time.
    explanations: Semaphore,
}

impl Operations {
    /// `begin_drain` and `explain` are asked from this machine only; neither may take long by itself.
    pub fn new(
        metrics: Arc<Metrics>,
        readiness: Readiness,
        drain: Drain,
        begin_drain: impl Fn() + Send + Sync + 'static,
        explain: Explain,
    ) -> Operations {
        let explanations = Semaphore::new(explanation::AT_ONCE);
        Operations { metrics, readiness, drain, begin_drain: Box::new(begin_drain), explain, explanations }
    }

    /// What readiness probes are told.
    fn is_ready(&self) -> bool {
        self.readiness.is_ready() && self.drain.phase() == Phase::Serving
    }
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operations").field("readiness", &self.readiness).field("drain", &self.drain).finish_non_exhaustive()
    }
}

/// Serves the port until the future is dropped; no error of one connection or of `accept` ends it.
pub async fn serve(listener: TcpListener, operations: Arc<Operations>) {
    serve_at_a_time(CONNECTIONS, listener, operations).await;
}

async fn serve_at_a_time(most: usize, listener: TcpListener, operations: Arc<Operations>) {
    let mut connections = Connections::new(most);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let peer = peer.ip().to_canonical();
                connections.make_room(peer).await;
                connections.add(peer, tokio::spawn(serve_connection(stream, operations.clone(), IDLE)));
            }
            Err(error) => {
                tracing::warn!(%error, "the operations port cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, operations: Arc<Operations>, idle: Duration) {
    // One that is broken already has no ends.
    let Ok(ends) = Ends::of(&stream) else { return };
    let activity = Arc::new(Activity::default());
    let service = service_fn(|request| {
        let (operations, in_flight) = (operations.clone(), Activity::begin(&activity));
        async move { Ok::<_, Infallible>(respond(request, ends, &operations, in_flight).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(READ).max_buf_size(16 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(READ)
        .max_concurrent_streams(16)
        .max_header_list_size(16 * 1024);
    tokio::select! {
        // An error of the connection is its peer's business.
        _ = builder.serve_connection(TokioIo::new(stream), service) => {}
        () = activity.idle(idle) => {}
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn respond(request: Request<Incoming>, ends: Ends, operations: &Arc<Operations>, in_flight: InFlight) -> Response<Body> {
    if health::is_grpc(&request) {
        health::respond(request, operations.clone(), in_flight).await
    } else if request.uri().path() == "/explain" {
        explanation::respond(request, ends, operations).await
    } else {
        probes::respond(&request, ends, operations)
    }
}

/// The two addresses of a connection.
#[derive(Debug, Clone, Copy)]
struct Ends {
    peer: IpAddr,
    ours: IpAddr,
}

impl Ends {
    fn of(stream: &TcpStream) -> io::Result<Ends> {
        Ok(Ends { peer: stream.peer_addr()?.ip(), ours: stream.local_addr()?.ip() })
    }

    /// Both: a proxy in the pod, as a mesh has one, carries what strangers send from a loopback address to the pod's own.
    fn are_loopback(self) -> bool {
        [self.peer, self.ours].iter().all(|end| end.to_canonical().is_loopback())
    }
}

/// Whether anything goes on on a connection: this also ends those that never get as far as a request.
#[derive(Default)]
struct Activity {
    begun: AtomicUsize,
    in_flight: AtomicUsize,
}

/// A request that has not been answered, or a watch that goes on.
struct InFlight(Arc<Activity>);

impl Activity {
    fn begin(activity: &Arc<Activity>) -> InFlight {
        activity.begun.fetch_add(1, Ordering::Relaxed);
        activity.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(activity.clone())
    }

    /// Waits until nothing has been asked for a while and nothing is being answered.
    async fn idle(&self, long: Duration) {
        let mut seen = 0;
        loop {
            tokio::time::sleep(long).await;
            let begun = self.begun.load(Ordering::Relaxed);
            if begun == seen && self.in_flight.load(Ordering::Relaxed) == 0 {
                return;
            }
            seen = begun;
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
