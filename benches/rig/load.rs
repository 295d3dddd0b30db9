//! The load generator: calls on so many connections, as many at a time as are asked for, or at a fixed rate. A call counts
//! when all the bytes of its answer have come: a refusal has none, and ends the program. The time of a call offered at a rate
//! begins when it was due, not when there was room for it: nothing that waits is left out.

use super::head::{Blocks, Form, blocks};
use super::wire::{Event, Sending, Wire};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use std::collections::{HashMap, VecDeque};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection};

/// Without an answer for so long the run is over.
const PATIENCE: Duration = Duration::from_secs(20);

/// What each call sends, and how many bytes of DATA answer it.
pub struct Request {
    blocks: Blocks,
    body: Rc<[u8]>,
    answer: usize,
}

impl Request {
    pub fn new(secure: bool, method: &str, token: Option<&str>, form: Form, body: &[u8], answer: usize) -> Request {
        Request { blocks: blocks(secure, method, token, form), body: body.into(), answer }
    }
}

/// Connections, and what their calls gave.
pub struct Load {
    lines: Vec<Line>,
    ready: OwnedFd,
    request: Rc<Request>,
    buffer: Vec<u8>,
    /// Of the calls that have ended.
    latencies: Vec<Duration>,
}

/// One connection.
struct Line {
    wire: Wire,
    next: u32,
    calls: HashMap<u32, Call>,
    /// Due, and the peer takes no more streams.
    waiting: VecDeque<Instant>,
}

struct Call {
    begun: Instant,
    received: usize,
    sending: Option<Sending>,
}

impl Load {
    /// Connected, each connection with the peer's SETTINGS.
    pub fn connect(port: u16, tls: Option<&Arc<ClientConfig>>, connections: usize, request: Request) -> Load {
        let ready = epoll::create(CreateFlags::CLOEXEC).expect("epoll");
        let lines = (0..connections).map(|_| Line::connect(port, tls)).collect();
        let mut load = Load { lines, ready, request: Rc::new(request), buffer: vec![0; 1 << 18], latencies: Vec::new() };
        for (index, line) in load.lines.iter_mut().enumerate() {
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
            epoll::add(&load.ready, &line.wire.socket, EventData::new_u64(index as u64), flags).expect("epoll");
            line.wire.flush();
        }
        let started = Instant::now();
        while load.lines.iter().any(|line| !line.wire.ready) {
            load.turn(PATIENCE, |_| None);
            assert!(started.elapsed() < PATIENCE, "no SETTINGS");
        }
        load
    }

    /// Calls one after the other, `streams` at a time on each connection; how long they took, in order.
    pub fn closed(&mut self, streams: usize, time: Duration) -> Vec<Duration> {
        let end = Instant::now() + time;
        for line in &mut self.lines {
            (0..streams).for_each(|_| line.begin(Instant::now(), &self.request));
            line.push();
        }
        while self.busy() {
            self.turn(PATIENCE, |now| (now < end).then_some(now));
        }
        self.outcome()
    }

    /// As many calls a second as `rate` says, at equal distances, on each connection in turn; how long after they were due
    /// they had ended, in order.
    pub fn offered(&mut self, rate: f64, time: Duration) -> Vec<Duration> {
        sleep_exactly();
        let total = (rate * time.as_secs_f64()) as u64;
        let start = Instant::now();
        let due = |number: u64| start + Duration::from_secs_f64(number as f64 / rate);
        let mut next = 0;
        while next < total || self.busy() {
            let now = Instant::now();
            while next < total && due(next) <= now {
                let index = next as usize % self.lines.len();
                let line = self.lines.get_mut(index).expect("a connection");
                line.begin(due(next), &self.request);
                line.push();
                next += 1;
            }
            let pause = if next < total { due(next).saturating_duration_since(Instant::now()) } else { PATIENCE };
            self.turn(pause, |_| None);
            assert!(next < total || due(total).elapsed() < PATIENCE, "calls are not answered");
        }
        self.outcome()
    }

    fn busy(&self) -> bool {
        self.lines.iter().any(|line| !line.calls.is_empty() || !line.waiting.is_empty())
    }

    fn outcome(&mut self) -> Vec<Duration> {
        let mut latencies = std::mem::take(&mut self.latencies);
        latencies.sort_unstable();
        latencies
    }

    /// Waits for something to happen, at most so long. For each call that ends, another one is begun at the time that `again` names.
    fn turn(&mut self, pause: Duration, again: impl Fn(Instant) -> Option<Instant>) {
        let mut events = Vec::with_capacity(256);
        let pause = Timespec { tv_sec: pause.as_secs() as i64, tv_nsec: i64::from(pause.subsec_nanos()) };
        match epoll::wait(&self.ready, rustix::buffer::spare_capacity(&mut events), Some(&pause)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("epoll: {error}"),
        }
        for event in events {
            let line = self.lines.get_mut(event.data.u64() as usize).expect("a connection");
            assert!(line.wire.receive(&mut self.buffer), "the proxy closed a connection");
            line.take(&self.request, &mut self.latencies, &again);
            line.push();
        }
    }
}

impl Line {
    fn connect(port: u16, tls: Option<&Arc<ClientConfig>>) -> Line {
        let socket = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = tls.map(|config| {
            let mut connection = ClientConnection::new(config.clone(), name).expect("TLS");
            connection.set_buffer_limit(None);
            Box::new(connection)
        });
        Line { wire: Wire::client(socket, tls), next: 1, calls: HashMap::new(), waiting: VecDeque::new() }
    }

    fn begin(&mut self, begun: Instant, request: &Request) {
        if self.calls.len() >= self.wire.max_streams {
            return self.waiting.push_back(begun);
        }
        assert!(self.wire.header_table >= 4_096, "a peer without a header table");
        let block = if self.next == 1 { &request.blocks.first } else { &request.blocks.later };
        self.wire.head(self.next, block, false);
        let mut sending = self.wire.sending(request.body.clone(), 1, true);
        let done = self.wire.send(self.next, &mut sending);
        self.calls.insert(self.next, Call { begun, received: 0, sending: (!done).then_some(sending) });
        self.next += 2;
    }

    /// Looks at what has come.
    fn take(&mut self, request: &Request, latencies: &mut Vec<Duration>, again: &impl Fn(Instant) -> Option<Instant>) {
        while let Some(event) = self.wire.event() {
            let (stream, bytes, end) = match event {
                Event::Head { stream, end } => (stream, 0, end),
                Event::Data { stream, payload, end } => (stream, payload.len(), end),
                Event::Reset { stream, code } => {
                    // After the end of the answer: RST_STREAM(NO_ERROR) and its like.
                    assert!(!self.calls.contains_key(&stream), "stream {stream} was reset: {code}");
                    continue;
                }
                Event::Window { stream, more } => {
                    self.calls
                        .get_mut(&stream)
                        .and_then(|call| call.sending.as_mut())
                        .into_iter()
                        .for_each(|sending| sending.window += more);
                    continue;
                }
                Event::AllWindows { more } => {
                    self.calls.values_mut().filter_map(|call| call.sending.as_mut()).for_each(|sending| sending.window += more);
                    continue;
                }
                Event::Goaway => panic!("the proxy sends us away"),
            };
            let Some(call) = self.calls.get_mut(&stream) else { continue };
            call.received += bytes;
            if end {
                assert_eq!(call.received, request.answer, "bytes of an answer: was the call refused?");
                let now = Instant::now();
                latencies.push(now.duration_since(call.begun));
                self.calls.remove(&stream);
                if let Some(next) = self.waiting.pop_front().or_else(|| again(now)) {
                    self.begin(next, request);
                }
            }
        }
    }

    /// Sends all that can be sent.
    fn push(&mut self) {
        while self.wire.flush() {
            let mut any = false;
            for (stream, call) in &mut self.calls {
                let Some(sending) = &mut call.sending else { continue };
                let before = sending.window;
                let done = self.wire.send(*stream, sending);
                any |= sending.window != before;
                if done {
                    call.sending = None;
                }
            }
            if !any {
                break;
            }
        }
    }
}

/// Timers of this thread are not put off to save power (proc_pid_timerslack_ns(5)): 50 µs by default.
fn sleep_exactly() {
    let _ = std::fs::write("/proc/self/timerslack_ns", "1");
}
