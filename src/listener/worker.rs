//! Worker threads: each a single-threaded runtime with its own connections to the upstream, so that a call never changes
//! threads. New connections go to the worker with the fewest.

use super::connection;
use crate::bell::Bell;
use crate::http2::Intakes;
use crate::listener::Door;
use crate::memo::FORGET;
use crate::proxy::Proxy;
use crate::telemetry::Metrics;
use arc_swap::ArcSwap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};

/// What a worker's connections share.
pub struct Worker {
    /// What new connections meet.
    pub door: Arc<ArcSwap<Door>>,
    /// What calls are carried with.
    pub proxy: Rc<Proxy>,
    /// What their sockets are read with.
    pub intakes: Rc<Intakes>,
    /// Counts connections.
    pub metrics: Arc<Metrics>,
    /// What the thread's own bell passes on.
    pub bell: Bell,
}

/// The worker threads, as the accept loop sees them. Dropping this lets them end once their connections have.
pub struct Workers {
    workers: Vec<Handle>,
    /// Ends when every worker has ended.
    ended: mpsc::Receiver<()>,
}

struct Handle {
    sender: mpsc::UnboundedSender<(TcpStream, SocketAddr)>,
    connections: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts `count` threads; `make` runs on each of them, within its runtime, to make what its connections share.
    pub fn start(count: usize, make: impl Fn() -> Worker + Clone + Send + 'static) -> io::Result<Workers> {
        let (alive, ended) = mpsc::channel(1);
        let start = |number| {
            let (sender, receiver) = mpsc::unbounded_channel();
            let connections = Arc::new(AtomicUsize::new(0));
            let (make, alive, count) = (make.clone(), alive.clone(), connections.clone());
            let runtime = Builder::new_current_thread().enable_all().build()?;
            std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                let local = LocalSet::new();
                local.block_on(&runtime, run(make, receiver, count));
                drop(alive);
            })?;
            Ok(Handle { sender, connections })
        };
        let workers = (0..count).map(start).collect::<io::Result<Vec<Handle>>>()?;
        Ok(Workers { workers, ended })
    }

    /// Connections of all workers.
    pub fn connections(&self) -> usize {
        self.workers.iter().map(|worker| worker.connections.load(Ordering::Relaxed)).sum()
    }

    /// Gives a connection to the worker with the fewest.
    pub(super) fn hand_over(&self, socket: TcpStream, peer: SocketAddr) {
        let Some(worker) = self.workers.iter().min_by_key(|worker| worker.connections.load(Ordering::Relaxed)) else { return };
        worker.connections.fetch_add(1, Ordering::Relaxed);
        // A closed channel means that the worker has ended; dropping the socket closes the connection.
        let _ = worker.sender.send((socket, peer));
    }

    /// No more connections: waits until every worker has ended.
    pub async fn ended(mut self) {
        self.workers.clear();
        let _ = self.ended.recv().await;
    }
}

/// A worker's life: serves what it is handed until the accept loop is gone and the last connection has ended.
async fn run(make: impl Fn() -> Worker, mut incoming: mpsc::UnboundedReceiver<(TcpStream, SocketAddr)>, count: Arc<AtomicUsize>) {
    let worker = Rc::new(make());
    let (proxy, bell) = (worker.proxy.clone(), worker.bell.clone());
    tokio::task::spawn_local(async move { proxy.bell.follow(&bell).await });
    tokio::task::spawn_local(forget(worker.intakes.clone(), worker.proxy.clone()));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = incoming.recv() => match accepted {
                Some((socket, peer)) => {
                    let counted = Counted::new(count.clone(), worker.metrics.clone());
                    let worker = worker.clone();
                    connections.spawn_local(async move {
                        let _counted = counted;
                        connection::serve(&worker, socket, peer).await;
                    });
                }
                None => break,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    while connections.join_next().await.is_some() {}
}

/// Forgets credentials that nobody has sent for a minute or two. Without end.
async fn forget(intakes: Rc<Intakes>, proxy: Rc<Proxy>) {
    loop {
        tokio::time::sleep(FORGET).await;
        intakes.forget_unused();
        proxy.digests.forget_unused();
    }
}

/// Counts one connection for as long as it lives.
struct Counted(Arc<AtomicUsize>, Arc<Metrics>);

impl Counted {
    /// `count` was raised when the connection was handed over, lest a burst goes to one worker.
    fn new(count: Arc<AtomicUsize>, metrics: Arc<Metrics>) -> Counted {
        metrics.connections.inc();
        Counted(count, metrics)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        self.1.connections.dec();
    }
}
