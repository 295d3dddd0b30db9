//! One client connection: TLS, preface and SETTINGS within the handshake's deadline, then its streams until it ends or
//! the drain sends it away. What goes wrong here is this connection's affair alone.

use super::Door;
use super::lifetime::{Activity, Farewell};
use super::worker::Worker;
use crate::http2::{
    CLIENT_CONNECTION_WINDOW, CLIENT_STREAM_WINDOW, DATA_FRAME_BUDGET, FrameTap, HEADER_LIST_HEADROOM, Io, Pause, SEND_BUFFER, TapState,
    TimedOut, after_everybody_else, weight,
};
use crate::proxy::{self, Ending};
use crate::telemetry::{Limit, Metrics};
use crate::tls::PeerCertificate;
use crate::upstream::{ClientConnection, ClientStream};
use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

pub(super) async fn serve(worker: &Worker, socket: std::net::TcpStream, peer: SocketAddr) {
    let door = worker.door.load_full();
    // Boxed, both: a task holds room for everything that it will ever do at once, and most connections do nothing.
    let Some((visit, mut connection)) = Box::pin(open(worker, &door, socket, peer)).await else { return };
    if let Err(error) = serve_streams(&visit, &mut connection).await {
        visit.note_end(&error);
    }
}

/// `None` when nothing comes of it, which has been noted.
async fn open<'a>(worker: &'a Worker, door: &'a Door, socket: std::net::TcpStream, peer: SocketAddr) -> Option<(Visit<'a>, Box<Secured>)> {
    let deadline = Instant::now() + door.handshake;
    let (io, certificate) = match tokio::time::timeout_at(deadline, secure(door, socket)).await {
        Ok(Ok(secured)) => secured,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "a TLS handshake failed");
            return None;
        }
        Err(_) => {
            worker.metrics.limit_hits.inc(Limit::Handshake);
            return None;
        }
    };
    let (tap, state) = FrameTap::accepted(io, worker.intakes.clone(), deadline, door.handshake, door.stream.stalled);
    let streams = Streams { activity: Rc::default(), most: door.streams, metrics: worker.metrics.clone() };
    let (resets, shared) = (Rc::default(), ClientConnection::new(state.outlet().clone()));
    let (streams, heads_begun) = (Rc::new(streams), Cell::new(0));
    let visit = Visit { worker, door, peer, certificate, tap: state, resets, streams, shared, heads_begun };
    match settings(door).handshake(tap).await {
        Ok(connection) => Some((visit, Box::new(connection))),
        Err(error) => {
            visit.note_end(&error);
            None
        }
    }
}

type Secured = Connection<FrameTap, Bytes>;

/// The secured stream, and who the client is by its certificate, which is read once for all its calls.
async fn secure(door: &Door, socket: std::net::TcpStream) -> io::Result<(Io, Option<Rc<PeerCertificate>>)> {
    let socket = TcpStream::from_std(socket)?;
    match &door.tls {
        None => Ok((Io::Tcp(socket), None)),
        Some(acceptor) => {
            let tls = acceptor.accept(socket).await?;
            let certificate = PeerCertificate::of(tls.get_ref().1).map(Rc::new);
            // A client that offers no ALPN at all passes rustls; h2 is all we speak, and its preface is checked next.
            Ok((Io::Tls(Box::new(tls.into())), certificate))
        }
    }
}

fn settings(door: &Door) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(CLIENT_STREAM_WINDOW)
        .initial_connection_window_size(CLIENT_CONNECTION_WINDOW)
        .max_concurrent_streams(door.streams)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(door.header_bytes.saturating_mul(HEADER_LIST_HEADROOM)).unwrap_or(u32::MAX))
        .data_frame_budget(DATA_FRAME_BUDGET)
        .max_local_error_reset_streams(None)
        // Those that were reset before they became calls are then counted with the others, by one rule.
        .max_pending_accept_reset_streams(ResetWatch::STREAMS as usize / 2);
    builder
}

async fn serve_streams(visit: &Visit<'_>, connection: &mut Secured) -> Result<(), h2::Error> {
    let distrusted = visit.door.client_trust.lost(visit.certificate.is_some());
    let farewells = visit.door.lifetime.watch(visit.streams.activity.clone(), visit.worker.proxy.drain.clone(), distrusted);
    let mut stay = Stay::Open;
    loop {
        tokio::select! {
            biased;
            accepted = accept(connection, visit) => match accepted {
                Some(Ok(_)) if visit.resets.is_a_flood() && !stay.is_ending() => stay = calm_down(visit, connection),
                Some(Ok((_, mut respond))) if stay.is_over() => respond.send_reset(Reason::REFUSED_STREAM),
                Some(Ok((request, respond))) => visit.begin_call(request, respond),
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            () = poll_fn(|_| visit.tap.poll_flood()), if !stay.is_ending() => stay = calm_down(visit, connection),
            // Two GOAWAYs: the first lets streams through that are on their way already.
            farewell = farewells.next(), if !stay.is_over() => {
                visit.count_farewell(farewell);
                connection.graceful_shutdown();
                stay = Stay::Leaving(Box::pin(sleep(visit.time_to_leave(farewell))));
            }
            () = stay.over() => {
                if stay.is_ending() || visit.streams.activity.active.get() == 0 {
                    return Ok(());
                }
                stay = Stay::Overstayed(Box::pin(sleep(LAST_WORDS)));
            }
        }
    }
}

/// For the last frames to be written, of a connection that ends by itself if its client reads.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Ends a flood: GOAWAY, and no more.
fn calm_down(visit: &Visit<'_>, connection: &mut Secured) -> Stay {
    visit.worker.metrics.limit_hits.inc(Limit::Flood);
    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
    Stay::Ending(Box::pin(sleep(LAST_WORDS)))
}

/// How long a connection may stay, and what happens to it then.
enum Stay {
    /// As long as it likes.
    Open,
    /// Told to go away; a client that goes needs no more than a round trip, and its answers are bounded by `stalled`.
    Leaving(Pin<Box<Sleep>>),
    /// It had that time: new calls are refused, which gRPC clients send elsewhere, and it ends with the last it has.
    Overstayed(Pin<Box<Sleep>>),
    /// It ends, whatever it does.
    Ending(Pin<Box<Sleep>>),
}

impl Stay {
    fn is_over(&self) -> bool {
        matches!(self, Stay::Overstayed(_) | Stay::Ending(_))
    }

    fn is_ending(&self) -> bool {
        matches!(self, Stay::Ending(_))
    }

    async fn over(&mut self) {
        match self {
            Stay::Open => pending().await,
            Stay::Leaving(time) | Stay::Overstayed(time) | Stay::Ending(time) => time.await,
        }
    }
}

/// One connection and what its calls share.
struct Visit<'a> {
    worker: &'a Worker,
    door: &'a Door,
    peer: SocketAddr,
    certificate: Option<Rc<PeerCertificate>>,
    tap: Rc<TapState>,
    resets: Rc<ResetWatch>,
    streams: Rc<Streams>,
    shared: Rc<ClientConnection>,
    /// What the heads held of the calls begun since the connection was last let read its part.
    heads_begun: Cell<usize>,
}

impl Visit<'_> {
    /// Every stream becomes a task of this worker.
    fn begin_call(&self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let (head, body) = request.into_parts();
        self.heads_begun.set(self.heads_begun.get() + weight(&head.headers));
        let client = ClientStream::new(body, respond, self.shared.clone(), self.door.stream);
        let (resets, arrived, stream) = (self.resets.clone(), Instant::now(), self.streams.begin());
        let ended = move |ending| {
            resets.ended(ending, arrived);
            drop(stream);
        };
        let (proxy, certificate) = (self.worker.proxy.clone(), self.certificate.clone());
        let request = Box::new(Request::from_parts(head, ()));
        // Boxed: a task's future is moved when it is spawned, and room for it once more when it ends.
        tokio::task::spawn_local(Box::pin(proxy::call(proxy, Some(self.peer), certificate, request, client, arrived, ended)));
    }

    fn count_farewell(&self, farewell: Farewell) {
        match farewell {
            Farewell::Drain | Farewell::Distrust => {}
            Farewell::Idle => self.worker.metrics.limit_hits.inc(Limit::ConnectionIdle),
            Farewell::Age => self.worker.metrics.limit_hits.inc(Limit::ConnectionAge),
        }
    }

    /// Who is not trusted any more has a round trip to learn of it; then its new calls are refused.
    fn time_to_leave(&self, farewell: Farewell) -> Duration {
        match farewell {
            Farewell::Drain | Farewell::Idle | Farewell::Age => self.door.stream.stalled,
            Farewell::Distrust => self.door.stream.stalled.min(LAST_WORDS),
        }
    }

    /// Counts the limit that ended the connection, if it was one.
    fn note_end(&self, error: &h2::Error) {
        let hit = match self.tap.timed_out() {
            Some(TimedOut::Handshake) => Some(Limit::Handshake),
            Some(TimedOut::HeaderBlock) => Some(Limit::HeaderBlock),
            Some(TimedOut::Stalled) => Some(Limit::Stalled),
            None if !error.is_remote() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM) => Some(Limit::Flood),
            None => None,
        };
        if let Some(limit) = hit {
            self.worker.metrics.limit_hits.inc(limit);
        }
        let peer = self.peer;
        tracing::debug!(%peer, %error, "a client connection ended");
    }
}

/// The next call, while the connection does all it can. When it has read its part, the calls it has begun go first, and it reads on
/// once those have gone that wait only for each other.
async fn accept(connection: &mut Secured, visit: &Visit<'_>) -> Option<Result<Incoming, h2::Error>> {
    let mut others_first = false;
    poll_fn(|cx| {
        if std::mem::take(&mut others_first) && !visit.shared.has_a_crowd() {
            visit.heads_begun.set(0);
            visit.tap.read_on();
        }
        loop {
            let accepted = connection.poll_accept(cx);
            visit.tap.outlet().settle();
            match visit.tap.pause().filter(|_| accepted.is_pending()) {
                Some(Pause::Heads) if visit.heads_begun.get() < MOST_BEGUN => visit.tap.read_more_heads(),
                Some(_) => {
                    others_first = true;
                    after_everybody_else(cx);
                    return accepted;
                }
                None => return accepted,
            }
        }
    })
    .await
}

/// What the heads of the calls may hold that are begun before they have their turn, in bytes by a rough count: most of a hundred
/// common ones.
const MOST_BEGUN: usize = 256 * 1024;

type Incoming = (Request<RecvStream>, SendResponse<Bytes>);

/// The streams in use of one connection, to count how often and how long all of them are: h2 refuses one more by itself
/// and tells nobody.
struct Streams {
    activity: Rc<Activity>,
    most: u32,
    metrics: Arc<Metrics>,
}

/// One of them; in use until dropped.
struct Stream(Rc<Streams>);

impl Streams {
    fn begin(self: &Rc<Streams>) -> Stream {
        let Activity { active, begun } = &*self.activity;
        begun.set(begun.get() + 1);
        active.set(active.get() + 1);
        if active.get() == self.most {
            self.metrics.limit_hits.inc(Limit::Streams);
            self.metrics.connections_at_stream_limit.inc();
        }
        Stream(self.clone())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let streams = &self.0;
        let active = &streams.activity.active;
        if active.get() == streams.most {
            streams.metrics.connections_at_stream_limit.dec();
        }
        active.set(active.get() - 1);
    }
}

/// Tells a reset flood ("rapid reset", CVE-2023-44487) from clients that cancel: over half of the streams reset within a
/// second of their request, among the last 500. h2 bounds only those that are reset before they are accepted.
#[derive(Default)]
struct ResetWatch {
    streams: Cell<u32>,
    premature: Cell<u32>,
}

impl ResetWatch {
    /// Streams that are judged together: as many as Envoy takes.
    const STREAMS: u32 = 500;
    const PREMATURE: Duration = Duration::from_secs(1);

    fn ended(&self, ending: Ending, arrived: Instant) {
        if self.streams.get() >= Self::STREAMS {
            self.streams.set(0);
            self.premature.set(0);
        }
        self.streams.set(self.streams.get() + 1);
        if ending == Ending::ClientGone && arrived.elapsed() < Self::PREMATURE {
            self.premature.set(self.premature.get() + 1);
        }
    }

    /// Over half of 500, whatever the rest of them may do.
    fn is_a_flood(&self) -> bool {
        self.premature.get() > Self::STREAMS / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_over_half_of_the_streams_and_cancelling_is_none() {
        let watch = ResetWatch::default();
        let now = Instant::now();
        let end = |ending, count: u32| (0..count).for_each(|_| watch.ended(ending, now));
        end(Ending::Answered, 250);
        end(Ending::ClientGone, 250);
        assert!(!watch.is_a_flood(), "half");
        end(Ending::ClientGone, 250);
        assert!(!watch.is_a_flood(), "judged afresh");
        end(Ending::ClientGone, 1);
        assert!(watch.is_a_flood());
    }

    #[test]
    fn a_late_reset_is_a_cancellation() {
        let watch = ResetWatch::default();
        let long_ago = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        (0..500).for_each(|_| watch.ended(Ending::ClientGone, long_ago));
        assert!(!watch.is_a_flood());
    }
}
