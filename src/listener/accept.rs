//! Binding the traffic port and the accept loop: it survives every error, pauses when the process is out of something,
//! and ends only when it is told to close the port.

use super::Door;
use super::files::room_for;
use super::worker::Workers;
use crate::telemetry::{Limit, Metrics};
use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// Connections the kernel holds while the control thread is busy; the kernel's own limit (somaxconn) is below.
const BACKLOG: i32 = 4096;

/// While file descriptors or memory are out, accepting again at once would only spin.
const PAUSE: Duration = Duration::from_millis(50);

/// The log is not to be flooded by whoever uses up our files.
const SAID_AGAIN: Duration = Duration::from_secs(10);

/// Binds `address`, not to block; `[::]` takes IPv4 as well.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restart must not wait for connections of the last run that linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until `close` is over, and gives the workers back; the port is closed then. At most as many connections at a time
/// as the `door` that stands then allows.
pub async fn accept(
    listener: TcpListener,
    workers: Workers,
    door: &ArcSwap<Door>,
    close: impl Future<Output = ()>,
    metrics: Arc<Metrics>,
) -> Workers {
    let mut close = pin!(close);
    let mut said = None::<Instant>;
    let mut wanted = door.load().connections;
    let mut room = room_for(wanted);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut close => return workers,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                let allowed = door.load().connections;
                if allowed != wanted {
                    (wanted, room) = (allowed, room_for(allowed)); // a reload changed it
                }
                if workers.connections() >= room {
                    metrics.limit_hits.inc(Limit::Connections);
                    continue; // dropping the socket closes it
                }
                metrics.connections_total.inc();
                // An error is that of this connection alone: the peer is gone already.
                if let Ok(socket) = socket.set_nodelay(true).and_then(|()| socket.into_std()) {
                    workers.hand_over(socket, peer);
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if said.is_none_or(|said| said.elapsed() >= SAID_AGAIN) {
                    said = Some(Instant::now());
                    tracing::warn!(%error, "accepting connections pauses: the process is out of file descriptors or memory");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// accept(2) also reports what went wrong with a connection before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::TimedOut
    )
}
