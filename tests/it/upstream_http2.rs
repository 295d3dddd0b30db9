//! RFC 9113 towards the upstream, frame by frame, with a service that reads every frame of Doorward's, keeps account of all
//! windows, and does with each call what the test's table says. What is asserted is what callers feel: what becomes of the call, of
//! the others on its connection, and of the next one.

mod answers; // heads, messages and trailers in every shape that is allowed; malformed ones
mod downloads; // the windows that Doorward gives
mod endings; // GOAWAY, the end of a connection, resets
mod errors; // what ends a connection, and what does not
mod requests; // what Doorward sends
mod streams; // SETTINGS, and how many streams there may be
mod uploads; // the windows that Doorward is given

use crate::harness::frame_upstream::Connection;
use crate::harness::frames::{ACK, END_HEADERS, END_STREAM, Frame, block, frame};
use crate::harness::hpack::{Decoder, Field};
use crate::harness::*;
use http::Response;
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Identifiers of settings (RFC 9113 §6.5.2).
mod setting {
    pub(super) const HEADER_TABLE_SIZE: u16 = 1;
    pub(super) const ENABLE_PUSH: u16 = 2;
    pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(super) const MAX_FRAME_SIZE: u16 = 5;
}

/// The default of both kinds of window.
const WINDOW: i64 = 65_535;

const OK: (u16, &str) = (0, "");
const RESET: (u16, &str) = (13, "UPSTREAM_RESET");
const LOST: (u16, &str) = (14, "UPSTREAM_UNAVAILABLE");

type Done<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// What the service does with a call, on this stream.
type Play = Arc<dyn for<'a> Fn(&'a mut Peer, u32) -> Done<'a> + Send + Sync>;

fn play(does: impl for<'a> Fn(&'a mut Peer, u32) -> Done<'a> + Send + Sync + 'static) -> Play {
    Arc::new(does)
}

/// Sends these bytes at once.
fn sends(bytes: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> Play {
    let bytes = Arc::new(bytes);
    play(move |peer, stream| {
        let bytes = bytes(stream);
        Box::pin(async move { peer.burst(&bytes).await })
    })
}

/// The service's end of one connection.
struct Peer {
    wire: Connection,
    decoder: Decoder,
    /// The latest header block of each stream.
    heads: HashMap<u32, Vec<Field>>,
    /// Requests whose head has come, in order, until they are accepted; and what has come of their bodies.
    requests: VecDeque<u32>,
    bodies: HashMap<u32, Body>,
    /// Settings that count, and those that were sent and not acknowledged yet.
    acknowledged: HashMap<u16, u32>,
    pending: VecDeque<Vec<(u16, u32)>>,
    /// What Doorward may still send, in all and, beside the initial window, on each stream.
    given: i64,
    given_to: HashMap<u32, i64>,
    /// What Doorward takes: its initial window, in all and, beside the initial window, on each stream.
    initial: i64,
    window: i64,
    windows: HashMap<u32, i64>,
}

/// What has come of a request after its head.
#[derive(Default)]
struct Body {
    bytes: Vec<u8>,
    ended: bool,
    /// The code of its RST_STREAM.
    reset: Option<u32>,
}

impl Peer {
    fn new(wire: Connection) -> Peer {
        let acknowledged = HashMap::from([(setting::INITIAL_WINDOW_SIZE, 65_535), (setting::MAX_FRAME_SIZE, 16_384)]);
        Peer {
            wire,
            decoder: Decoder::default(),
            heads: HashMap::new(),
            requests: VecDeque::new(),
            bodies: HashMap::new(),
            acknowledged,
            pending: VecDeque::new(),
            given: WINDOW,
            given_to: HashMap::new(),
            initial: WINDOW,
            window: WINDOW,
            windows: HashMap::new(),
        }
    }

    /// The next frame, header blocks as one; `None` at the connection's end. Acknowledges what is to be acknowledged, and sees to it
    /// that Doorward sends nothing that it may not.
    async fn next(&mut self) -> Option<Frame> {
        let mut frame = self.wire.read().await?;
        self.within_frame_size(&frame);
        if frame.kind == kind::HEADERS {
            while frame.flags & END_HEADERS == 0 {
                let more = self.wire.read().await?;
                assert_eq!((more.kind, more.stream), (kind::CONTINUATION, frame.stream), "nothing may come within a header block");
                self.within_frame_size(&more);
                frame.payload.extend(more.payload);
                frame.flags |= more.flags & END_HEADERS;
            }
            self.heads.insert(frame.stream, self.decoder.decode(&frame.payload));
            if self.field(frame.stream, ":path").is_some() {
                self.requests.push_back(frame.stream);
            }
        }
        if matches!(frame.kind, kind::HEADERS | kind::DATA) {
            self.bodies.entry(frame.stream).or_default().ended |= frame.flags & END_STREAM != 0;
        }
        match frame.kind {
            kind::DATA => {
                self.within_windows(frame.stream, frame.payload.len());
                self.bodies.entry(frame.stream).or_default().bytes.extend_from_slice(&frame.payload);
            }
            kind::RST_STREAM => self.bodies.entry(frame.stream).or_default().reset = Some(frame.number(0)),
            kind::SETTINGS if frame.flags & ACK != 0 => self.settled(),
            kind::SETTINGS => {
                for setting in frame.payload.chunks(6) {
                    if setting[..2] == setting::INITIAL_WINDOW_SIZE.to_be_bytes() {
                        self.initial = i64::from(u32::from_be_bytes(setting[2..].try_into().unwrap()));
                    }
                }
                self.wire.send(kind::SETTINGS, ACK, 0, &[]).await;
            }
            kind::PING if frame.flags & ACK == 0 => self.wire.send(kind::PING, ACK, 0, &frame.payload).await,
            kind::WINDOW_UPDATE if frame.stream == 0 => self.window += i64::from(frame.number(0)),
            kind::WINDOW_UPDATE => *self.windows.entry(frame.stream).or_default() += i64::from(frame.number(0)),
            _ => {}
        }
        Some(frame)
    }

    /// The greatest value of a setting that Doorward may go by.
    fn greatest(&self, id: u16) -> i64 {
        let pending = self.pending.iter().flatten().filter(|(pending, _)| *pending == id).map(|(_, value)| *value);
        i64::from(pending.chain(self.acknowledged.get(&id).copied()).max().unwrap_or_default())
    }

    fn within_frame_size(&self, frame: &Frame) {
        let most = self.greatest(setting::MAX_FRAME_SIZE);
        assert!(i64::try_from(frame.payload.len()).unwrap() <= most, "a frame of {} bytes", frame.payload.len());
    }

    fn within_windows(&mut self, stream: u32, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap();
        let of_stream = self.greatest(setting::INITIAL_WINDOW_SIZE) + self.given_to.get(&stream).copied().unwrap_or_default();
        assert!(bytes == 0 || bytes <= self.given.min(of_stream), "{bytes} bytes, windows of {of_stream} and, in all, {}", self.given);
        self.given -= bytes;
        *self.given_to.entry(stream).or_default() -= bytes;
    }

    /// Sends frames at once, and keeps account of them.
    async fn burst(&mut self, frames: &[u8]) {
        self.account(frames);
        self.wire.burst(frames).await;
    }

    fn account(&mut self, frames: &[u8]) {
        let mut rest = frames;
        while let Some((head, after)) = rest.split_first_chunk::<9>() {
            let payload = &after[..after.len().min(usize::from(head[1]) << 8 | usize::from(head[2]))];
            let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
            let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
            match (head[3], payload.len()) {
                (kind::SETTINGS, _) if head[4] & ACK == 0 => {
                    let settings = payload.chunks_exact(6).map(|s| (u16::from_be_bytes([s[0], s[1]]), number(&s[2..])));
                    self.pending.push_back(settings.collect());
                }
                (kind::WINDOW_UPDATE, 4) if stream == 0 => self.given += i64::from(number(payload)),
                (kind::WINDOW_UPDATE, 4) => *self.given_to.entry(stream).or_default() += i64::from(number(payload)),
                (kind::DATA, bytes) => {
                    self.window -= i64::try_from(bytes).unwrap();
                    *self.windows.entry(stream).or_default() -= i64::try_from(bytes).unwrap();
                }
                _ => {}
            }
            rest = &after[payload.len()..];
        }
    }

    /// Sends SETTINGS, which count as soon as they are acknowledged.
    async fn settings(&mut self, settings: &[(u16, u32)]) {
        self.burst(&settings_frame(settings)).await;
    }

    fn settled(&mut self) {
        for (id, value) in self.pending.pop_front().expect("no more acknowledgements than SETTINGS") {
            self.acknowledged.insert(id, value);
            if id == setting::HEADER_TABLE_SIZE {
                self.decoder.allow(usize::try_from(value).unwrap());
            }
        }
    }

    /// Sends SETTINGS and reads until they are acknowledged; the DATA that has come meanwhile.
    async fn settle(&mut self, settings: &[(u16, u32)]) -> Vec<Frame> {
        self.settings(settings).await;
        let mut data = Vec::new();
        while !self.pending.is_empty() {
            let Some(frame) = self.next().await else { break };
            if frame.kind == kind::DATA {
                data.push(frame);
            }
        }
        data
    }

    /// Gives Doorward more window on a stream, or in all (0).
    async fn give(&mut self, stream: u32, bytes: usize) {
        self.burst(&window_update(stream, u32::try_from(bytes).unwrap())).await;
    }

    /// The next request's stream and the last part of its path.
    async fn accept(&mut self) -> Option<(u32, String)> {
        while self.requests.is_empty() {
            self.next().await?;
        }
        let stream = self.requests.pop_front()?;
        let path = self.field(stream, ":path")?;
        Some((stream, path.rsplit('/').next()?.to_owned()))
    }

    /// A field of the stream's latest header block.
    fn field(&self, stream: u32, name: &str) -> Option<String> {
        self.heads.get(&stream)?.iter().find(|field| field.name == name).map(Field::text)
    }

    /// Reads the request's body to its end, giving back the window of all that has come.
    async fn body(&mut self, stream: u32) -> Vec<u8> {
        let mut given = 0;
        loop {
            let body = &self.bodies[&stream];
            let (come, over) = (body.bytes.len(), body.ended || body.reset.is_some());
            if come > given {
                self.give(0, come - given).await;
                if !over {
                    self.give(stream, come - given).await;
                }
                given = come;
            }
            if over || self.next().await.is_none() {
                return std::mem::take(&mut self.bodies.get_mut(&stream).unwrap().bytes);
            }
        }
    }

    /// Reads until Doorward resets the stream; the code. `None` when the connection ended before.
    async fn reset(&mut self, stream: u32) -> Option<u32> {
        loop {
            if let Some(code) = self.bodies[&stream].reset {
                return Some(code);
            }
            self.next().await?;
        }
    }

    /// What Doorward takes on a stream now.
    fn takes(&self, stream: u32) -> i64 {
        self.window.min(self.initial + self.windows.get(&stream).copied().unwrap_or_default())
    }

    /// Sends a frame that is known to count against the windows, once they have room for it; `false` when the connection ended before.
    async fn data(&mut self, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let bytes = i64::try_from(payload.len()).unwrap();
        while self.takes(stream) < bytes {
            if self.bodies[&stream].reset.is_some() || self.next().await.is_none() {
                return false;
            }
        }
        self.burst(&frame(kind::DATA, flags, stream, payload)).await;
        true
    }

    /// Reads until Doorward has seen all that was sent before; `false` when the connection ended before.
    async fn seen(&mut self) -> bool {
        self.wire.send(kind::PING, 0, 0, b"seen all").await;
        while let Some(frame) = self.next().await {
            if (frame.kind, frame.flags & ACK) == (kind::PING, ACK) {
                return true;
            }
        }
        false
    }

    async fn end(&mut self, stream: u32) {
        self.burst(&trailers(stream)).await;
    }
}

fn window_update(stream: u32, bytes: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

fn settings_frame(settings: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(kind::SETTINGS, 0, 0, &payload)
}

/// HEADERS of an answer that goes on.
fn head(stream: u32) -> Vec<u8> {
    frame(kind::HEADERS, END_HEADERS, stream, &block(&HEAD))
}

/// Trailers that say OK.
fn trailers(stream: u32) -> Vec<u8> {
    frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &block(&[("grpc-status", "0")]))
}

/// A whole answer of a head alone, that says OK.
fn ok(stream: u32) -> Vec<u8> {
    frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &block(&TRAILERS_ONLY))
}

const HEAD: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/grpc")];
const TRAILERS_ONLY: [(&str, &str); 3] = [HEAD[0], HEAD[1], ("grpc-status", "0")];

/// A service with a table, and Doorward before it.
struct Stage {
    doorward: Doorward,
    account: Arc<Account>,
    _upstream: FrameUpstream,
}

/// Of the connections that are not the health check's.
#[derive(Default)]
struct Account {
    opened: AtomicUsize,
    ended: AtomicUsize,
    /// Something came of Doorward that may not come.
    broken: AtomicBool,
}

impl Stage {
    /// A service that sends these SETTINGS first, and does with the method `R0` what the table says first, and so on. `Held` is
    /// answered with a head, and with trailers once `After` is called; that, and all else, is answered at once.
    fn new(settings: &[(u16, u32)], table: Vec<Play>) -> Stage {
        Stage::with("", settings, table)
    }

    /// The same with more in Doorward's configuration.
    fn with(rest: &str, settings: &[(u16, u32)], table: Vec<Play>) -> Stage {
        Stage::configured(|upstream| upstream.configuration(rest), settings, table)
    }

    /// The same with a configuration of its own.
    fn configured(yaml: impl FnOnce(&FrameUpstream) -> String, settings: &[(u16, u32)], table: Vec<Play>) -> Stage {
        let (table, first, account) = (Arc::new(table), Arc::new(settings.to_vec()), Arc::<Account>::default());
        let kept = account.clone();
        let upstream = FrameUpstream::start(move |wire, number| {
            let (table, first, account) = (table.clone(), first.clone(), kept.clone());
            async move {
                account.opened.fetch_add(usize::from(number > 0), Ordering::Relaxed);
                let served = tokio::spawn(async move {
                    let mut peer = Peer::new(wire);
                    peer.settings(&first).await;
                    serve(&mut peer, &table).await;
                });
                if served.await.is_err() {
                    account.broken.store(true, Ordering::Relaxed);
                }
                account.ended.fetch_add(usize::from(number > 0), Ordering::Relaxed);
            }
        });
        let doorward = Site::new().start(&yaml(&upstream));
        Stage { doorward, account, _upstream: upstream }
    }

    fn opened(&self) -> usize {
        self.account.opened.load(Ordering::Relaxed)
    }

    /// Waits until so many connections have ended.
    async fn ended(&self, count: usize) {
        until("the end of connections", || self.account.ended.load(Ordering::Relaxed) >= count).await;
    }

    async fn wire(&self) -> Wire {
        Wire::connect(&self.doorward).await
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(!self.account.broken.load(Ordering::Relaxed), "the service has seen what may not come: see its panic above");
        }
    }
}

async fn serve(peer: &mut Peer, table: &[Play]) {
    let mut held = None;
    while let Some((stream, method)) = peer.accept().await {
        match method.as_str() {
            "Held" => {
                peer.burst(&head(stream)).await;
                held = Some(stream);
            }
            "After" => {
                if let Some(held) = held.take() {
                    peer.end(held).await;
                }
                peer.burst(&ok(stream)).await;
            }
            row => match row[1..].parse::<usize>() {
                Ok(row) => table[row](peer, stream).await,
                Err(_) => peer.burst(&ok(stream)).await,
            },
        }
    }
}

/// What becomes of the connection, and with it of another call.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Ends {
    Stream,
    Connection,
}

/// One line of a table of calls with an empty message: a name, what the service does, and what the client must see.
type Row = (&'static str, Play, (u16, &'static str));

/// Plays every row while another client's call is open on the same connection.
async fn rows(rows: &[Row], ends: Ends) {
    let stage = Stage::new(&[], rows.iter().map(|(_, play, _)| play.clone()).collect());
    let (mut wire, mut other) = (stage.wire().await, stage.wire().await);
    let mut wrong = Vec::new();
    for (number, (what, _, (code, reason))) in rows.iter().enumerate() {
        let (held, _request) = hold(&mut other).await;
        let opened = stage.opened();
        let answer = wire.call(request(&format!("/demo.v1.Echo/R{number}"), &[("grpc-timeout", "20S")])).await;
        let after = wire.call(request("/demo.v1.Echo/After", &[("grpc-timeout", "20S")])).await.refusal();
        let held = tokio::time::timeout(PATIENCE, WireAnswer::rest(held)).await.expect("its end").refusal();
        let seen = (answer.refusal(), after, held, stage.opened());
        let (own, others, connections) = match ends {
            Ends::Stream => ((*code, *reason), OK, opened),
            Ends::Connection => ((*code, *reason), LOST, opened + 1),
        };
        let due = (owned(own), owned(OK), owned(others), connections);
        if seen != due {
            wrong.push(format!("{what}: {seen:?}, and not {due:?}; {answer:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    if ends == Ends::Connection {
        stage.ended(rows.len()).await;
    }
}

fn owned((code, reason): (u16, &str)) -> (u16, String) {
    (code, reason.to_owned())
}

/// Waits until it is so, while the test's own connections go on.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A call whose answer has begun, and goes on until `After` is called.
async fn hold(wire: &mut Wire) -> (Response<h2::RecvStream>, h2::SendStream<bytes::Bytes>) {
    let mut ready = wire.send.clone().ready().await.unwrap();
    let (response, stream) = ready.send_request(request("/demo.v1.Echo/Held", &[]), false).unwrap();
    let response = tokio::time::timeout(PATIENCE, response).await.expect("its head, in time");
    (response.unwrap(), stream)
}
