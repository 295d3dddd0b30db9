//! Drives one connection to the upstream. Every task that holds one does it through this: a connection is read a part at a time, and
//! no further until it is driven again.

use crate::http2::{FrameTap, TapState};
use bytes::Bytes;
use h2::PingPong;
use h2::client::Connection;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Ready when the connection has ended. Each time it has done what it could those are told who wait for its socket.
pub(super) struct Driver {
    connection: Connection<FrameTap, Bytes>,
    tap: Rc<TapState>,
}

impl Driver {
    /// `tap` is that of `connection`.
    pub(super) fn new(connection: Connection<FrameTap, Bytes>, tap: Rc<TapState>) -> Driver {
        Driver { connection, tap }
    }

    /// What sends PINGs on it; to be asked for once.
    pub(super) fn ping_pong(&mut self) -> PingPong {
        self.connection.ping_pong().expect("asked for once")
    }
}

impl Future for Driver {
    type Output = Result<(), h2::Error>;

    fn poll(mut self: Pin<&mut Driver>, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        self.tap.read_on();
        let ended = Pin::new(&mut self.connection).poll(cx);
        self.tap.outlet().settle();
        if let Some(pause) = self.tap.pause() {
            pause.until_others_have_had_their_turn(cx);
        }
        ended
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
            let (_calls, connection) = h2::client::handshake(io).await.unwrap();
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
            let driving = tokio::task::spawn_local(Driver::new(connection, tap));
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
