//! Whether the other end of a connection is still there: a PING when calls wait and nothing comes.
//!
//! gRPC servers take two PINGs within five minutes without a message of their own; more of them end the connection and
//! every call on it (`too_many_pings`). So there are two for each silence, and a stream may be quiet for hours. What they
//! cannot tell, that a host has vanished later, TCP's own probes do (`connect`).

use super::http2::Connection;
use crate::telemetry::Metrics;
use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// PINGs since the upstream's last HEADERS or DATA.
const MOST_PINGS: u32 = 2;

/// How long what is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Between two looks at a connection. Costs a timer a connection, and nothing on the path of a call.
    pub(super) look: Duration,
    /// Without a byte while a call waits, until a PING is sent.
    pub(super) quiet: Duration,
    /// Without a byte after a PING, until the connection is given up.
    pub(super) answer: Duration,
}

impl Patience {
    /// Together, with a look at either end, well below the 20 seconds after which an upstream's silence must be noticed.
    pub(super) const UPSTREAM: Patience =
        Patience { look: Duration::from_secs(1), quiet: Duration::from_secs(10), answer: Duration::from_secs(5) };
}

/// One connection, as this watch sees it.
pub(super) struct Watched<'a> {
    pub(super) http2: &'a Connection,
    /// Calls that wait for it.
    pub(super) active: &'a Cell<usize>,
    /// Set while its PINGs are used up: whether it is still there cannot be asked any more.
    pub(super) spent: &'a Cell<bool>,
    /// Counts the PINGs.
    pub(super) metrics: &'a Metrics,
}

/// Ends when the peer has not answered a PING.
pub(super) async fn fell_silent(watched: Watched<'_>, patience: Patience) {
    let Watched { http2, active, spent, metrics } = watched;
    let mut sent = 0;
    // Since when calls have waited without a byte. Outlives the calls: many short deadlines are one silence.
    let mut silence = None;
    loop {
        sleep(patience.look).await;
        if http2.take_message() {
            sent = 0;
            spent.set(false);
        }
        if http2.take_heard() {
            silence = None;
        }
        if active.get() == 0 || sent == MOST_PINGS {
            continue;
        }
        let since = *silence.get_or_insert_with(Instant::now);
        if since.elapsed() < patience.quiet {
            continue;
        }
        sent += 1;
        spent.set(sent == MOST_PINGS);
        metrics.upstream_pings.inc();
        let mut pong = pin!(http2.ping());
        // The answer may be behind much else: whatever comes is a sign of life.
        while timeout(patience.answer, &mut pong).await.is_err() {
            if !http2.take_heard() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::http2::Driver;
    use super::*;
    use crate::http2::Io;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const PING: u8 = 6;
    const QUICK: Patience =
        Patience { look: Duration::from_millis(10), quiet: Duration::from_millis(40), answer: Duration::from_millis(1000) };
    /// With a peer that does answer, though a busy machine may take its time.
    const CONFIDENT: Patience = Patience { answer: Duration::from_secs(20), ..QUICK };
    /// In which each of them would ask several times.
    const WHILE: Duration = Duration::from_millis(400);

    /// What an upstream does when a PING has come, given how many there have been.
    type Behaviour = fn(&mut TcpStream, &[u8], u32);

    /// Reads frames until the peer is gone, and counts the PINGs.
    fn upstream(mut stream: TcpStream, behaviour: Behaviour, pings: &AtomicU32) {
        stream.write_all(&SETTINGS).unwrap();
        let (mut preface, mut head) = ([0; 24], [0; 9]);
        stream.read_exact(&mut preface).unwrap();
        while let Ok(()) = stream.read_exact(&mut head) {
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            stream.read_exact(&mut payload).unwrap();
            if head[3] == PING && head[4] == 0 {
                behaviour(&mut stream, &payload, pings.fetch_add(1, Ordering::Relaxed) + 1);
            }
        }
    }

    fn acknowledge(stream: &mut TcpStream, payload: &[u8], _: u32) {
        stream.write_all(&[&[0, 0, 8, PING, 1, 0, 0, 0, 0], payload].concat()).unwrap();
    }

    /// Watches a connection with `active` calls until it falls silent, or for some time after so many PINGs; whether it fell
    /// silent, whether it was spent, and the PINGs that came.
    fn watched(behaviour: Behaviour, active: usize, patience: Patience, (pings, after): (u32, Duration)) -> (bool, bool, u32) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let come = Arc::new(AtomicU32::new(0));
        let counted = come.clone();
        let server = std::thread::spawn(move || upstream(listener.accept().unwrap().0, behaviour, &counted));
        let enough = async {
            while come.load(Ordering::Relaxed) < pings {
                sleep(Duration::from_millis(5)).await;
            }
            sleep(after).await;
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let spent = Cell::new(false);
        let silent = tokio::task::LocalSet::new().block_on(&runtime, async {
            let io = Io::Tcp(tokio::net::TcpStream::connect(address).await.unwrap());
            let http2 = Connection::new(1 << 20, 1 << 16, 1024);
            let (driver, requests) = Driver::new(http2.clone(), io, Duration::from_secs(60));
            let driving = tokio::task::spawn_local(driver);
            let _call = requests.open(&[], false).unwrap();
            let watched = Watched { http2: &http2, active: &Cell::new(active), spent: &spent, metrics: &Metrics::new() };
            let silent = async {
                tokio::select! {
                    () = fell_silent(watched, patience) => true,
                    () = enough => false,
                }
            };
            let silent = timeout(Duration::from_secs(30), silent).await.expect("PINGs");
            driving.abort();
            silent
        });
        server.join().unwrap();
        (silent, spent.get(), come.load(Ordering::Relaxed))
    }

    #[test]
    fn a_peer_that_does_not_answer_is_given_up() {
        assert_eq!(watched(|_, _, _| {}, 1, QUICK, (2, WHILE)), (true, false, 1));
    }

    #[test]
    fn a_quiet_peer_is_asked_twice_and_no_more() {
        assert_eq!(watched(acknowledge, 1, CONFIDENT, (2, WHILE)), (false, true, 2));
    }

    #[test]
    fn a_message_allows_two_more() {
        let behaviour: Behaviour = |stream, payload, count| {
            acknowledge(stream, payload, count);
            match count {
                2 => stream.write_all(&[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88]).unwrap(), // HEADERS: `:status: 200`
                4 => stream.write_all(&[0, 0, 1, 0, 0, 0, 0, 0, 1, b'x']).unwrap(), // DATA
                _ => {}
            }
        };
        assert_eq!(watched(behaviour, 1, CONFIDENT, (6, WHILE)), (false, true, 6));
    }

    #[test]
    fn nobody_is_asked_while_no_call_waits() {
        assert_eq!(watched(|_, _, _| {}, 0, QUICK, (0, WHILE)), (false, false, 0));
    }

    #[test]
    fn whatever_comes_is_a_sign_of_life() {
        let behaviour: Behaviour = |stream, payload, count| {
            // Longer than a PING may take, with something to be heard of it all the time.
            for _ in 0..100 {
                match stream.write_all(&SETTINGS) {
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => return,
                    _ => std::thread::sleep(Duration::from_millis(20)),
                }
            }
            acknowledge(stream, payload, count);
        };
        let (silent, _, pings) = watched(behaviour, 1, QUICK, (1, QUICK.answer + WHILE));
        assert_eq!((silent, pings), (false, 1));
    }
}
