//! One connection from the moment it is up to its end: drives it, notices when it falls silent, retires it when the
//! upstream's name has moved, and says how it ended.

use super::silence::{Patience, Watched, fell_silent};
use crate::http2::{FrameTap, TapState};
use crate::telemetry::{Metrics, UpstreamEnd};
use bytes::Bytes;
use h2::PingPong;
use h2::client::Connection;
use std::cell::Cell;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::JoinError;

/// What a connection shares with the task that tends it.
pub(super) struct State {
    pub(super) tap: Rc<TapState>,
    /// Calls that have a slot.
    pub(super) active: Cell<usize>,
    /// A call has had one.
    pub(super) used: Cell<bool>,
    /// It has ended, or is to take no further call.
    pub(super) dead: Cell<bool>,
    /// Its PINGs are used up: should it freeze now, nobody would notice.
    pub(super) spent: Cell<bool>,
}

impl State {
    pub(super) fn new(tap: Rc<TapState>) -> Rc<State> {
        Rc::new(State { tap, active: Cell::new(0), used: Cell::new(false), dead: Cell::new(false), spent: Cell::new(false) })
    }
}

/// A connection to be tended. Holds no `SendRequest`: h2 ends a connection only when its last one is gone.
pub(super) struct Tended<Left> {
    pub(super) state: Rc<State>,
    pub(super) driver: Connection<FrameTap, Bytes>,
    pub(super) pings: PingPong,
    /// For the log.
    pub(super) peer: Option<IpAddr>,
    /// Ready when the upstream's name has this connection's address no longer.
    pub(super) left: Left,
    pub(super) metrics: Arc<Metrics>,
    /// Told when the connection is to take no further call.
    pub(super) changed: Rc<Notify>,
}

impl<Left: Future<Output = ()>> Tended<Left> {
    /// Tends the connection to its end; in words, why it came.
    pub(super) async fn tend(self) -> String {
        let Tended { state, driver, pings, peer, left, metrics, changed } = self;
        // A task of its own: what is watched here must not be polled with every frame.
        let mut driving = tokio::task::spawn_local(drive(driver, state.tap.clone()));
        let watched = Watched { tap: &state.tap, active: &state.active, spent: &state.spent, metrics: &metrics };
        let (mut silent, mut left) = (pin!(fell_silent(watched, pings, Patience::UPSTREAM)), pin!(left));
        let mut retired = false;
        let (end, why) = loop {
            tokio::select! {
                ended = &mut driving => break how(ended, retired),
                () = &mut silent => {
                    driving.abort();
                    break (UpstreamEnd::Silent, "it did not answer a PING while calls waited".to_owned());
                }
                () = &mut left, if !retired => {
                    retired = true;
                    tracing::info!(?peer, "the upstream's name has this address no longer: no further calls on its connection");
                    state.dead.set(true);
                    changed.notify_waiters();
                }
            }
        };
        if !matches!(end, UpstreamEnd::Closed | UpstreamEnd::Retired) {
            tracing::info!(error = %why, "an upstream connection ended");
        }
        metrics.upstream_connections_ended.inc(end);
        state.dead.set(true);
        state.tap.outlet().end();
        changed.notify_waiters();
        why
    }
}

/// Drives a connection, a part of what it reads at a time, and each time it has done what it could lets those know who wait for its
/// socket.
async fn drive(mut driver: Connection<FrameTap, Bytes>, tap: Rc<TapState>) -> Result<(), h2::Error> {
    poll_fn(|cx| {
        tap.read_on();
        let ended = Pin::new(&mut driver).poll(cx);
        tap.outlet().settle();
        if let Some(pause) = tap.pause() {
            pause.until_others_have_had_their_turn(cx);
        }
        ended
    })
    .await
}

fn how(ended: Result<Result<(), h2::Error>, JoinError>, retired: bool) -> (UpstreamEnd, String) {
    match ended {
        Ok(Ok(())) if retired => (UpstreamEnd::Retired, "its address is no longer the upstream's".to_owned()),
        Ok(Ok(())) => (UpstreamEnd::Closed, "closed".to_owned()),
        Ok(Err(error)) => (UpstreamEnd::Failed, error.to_string()),
        // A panic, which the process counts.
        Err(error) => (UpstreamEnd::Failed, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::Io;
    use socket2::SockRef;
    use std::io::{ErrorKind, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;
    use tokio::task::{LocalSet, yield_now};

    /// What is read of a connection in one turn, in bytes; the last read of it may bring a quarter more.
    const PART: usize = 128 * 1024;

    #[test]
    fn a_flood_is_read_in_parts_and_everybody_else_comes_between_them() {
        /// A frame that says nothing: of a type that nobody knows (RFC 9113 §4.1), and as long as a frame may be.
        const HEAD: [u8; 9] = [0, 0x40, 0, 0xff, 0, 0, 0, 0, 0];
        const MINUTE: Duration = Duration::from_secs(60);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let (near, mut far) = UnixStream::pair().unwrap();
            near.set_nonblocking(true).unwrap();
            far.set_nonblocking(true).unwrap();
            SockRef::from(&far).set_send_buffer_size(208 << 10).unwrap(); // twice that is had, on every Linux
            let near = tokio::net::UnixStream::from_std(near).unwrap();
            let (io, tap) = FrameTap::connected(Io::Unix(near), MINUTE, 1024, MINUTE);
            let (_calls, driver) = h2::client::handshake(io).await.unwrap();
            far.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap(); // SETTINGS
            let frame = [&HEAD[..], &[0; 0x4000]].concat();
            let mut sent = 0;
            // As much as the socket has room for: what has been read since it was last full.
            let mut fill = || {
                let before = sent;
                loop {
                    match far.write(&frame[sent % frame.len()..]) {
                        Ok(bytes) => sent += bytes,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return sent - before,
                        Err(error) => panic!("{error}"),
                    }
                }
            };
            assert!(fill() > 2 * PART, "or it would prove nothing");
            let driving = tokio::task::spawn_local(drive(driver, tap));
            let mut read = 0;
            for turn in 0..100 {
                yield_now().await;
                let part = fill();
                assert!(part < 2 * PART, "turn {turn}: {part} bytes");
                read += part;
            }
            assert!(read >= 25 * PART && !driving.is_finished(), "{read} bytes in 100 turns");
        });
    }
}
