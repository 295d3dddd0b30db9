//! The service behind every proxy: h2c on `wire`, so fast that it is never what is measured. It runs as a child process of
//! this same program, on the load generator's core. What a call asks for is in its message: it comes back as it is, but an
//! empty one (a health check) is UNIMPLEMENTED, and one that begins with `stream` is answered with that many messages.

#![allow(clippy::indexing_slicing)] // a panic is how a measurement fails

use super::wire::{Event, Sending, Wire};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::collections::HashMap;
use std::env;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

/// The running service.
pub struct Service {
    child: Child,
    pub port: u16,
}

impl Service {
    pub fn start() -> Service {
        let program = env::current_exe().expect("the path of this program");
        let mut child = Command::new("taskset")
            .args(["-c", super::process::LOAD_CORE])
            .arg(program)
            .arg("upstream")
            .stdout(Stdio::piped())
            .spawn()
            .expect("taskset (util-linux)");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("the service's port");
        Service { child, port: line.trim().parse().expect("a port") }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The gRPC message that asks for `count` messages of `size` bytes.
pub fn ask_for_stream(count: u32, size: u32) -> Vec<u8> {
    let text = format!("stream {count} {size}");
    message(text.as_bytes())
}

/// With its prefix of five bytes.
pub fn message(content: &[u8]) -> Vec<u8> {
    [&[0], &(content.len() as u32).to_be_bytes()[..], content].concat()
}

const LISTENER: u64 = u64::MAX;

/// Serves until killed; prints its port first.
pub fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("{}", listener.local_addr().expect("an address").port());
    let ready = epoll::create(CreateFlags::CLOEXEC).expect("epoll");
    epoll::add(&ready, &listener, EventData::new_u64(LISTENER), EventFlags::IN).expect("epoll");
    let mut connections: HashMap<u64, Connection> = HashMap::new();
    let (mut next, mut buffer) = (0, vec![0; 1 << 18]);
    let mut events = Vec::with_capacity(256);
    loop {
        events.clear();
        let _ = epoll::wait(&ready, rustix::buffer::spare_capacity(&mut events), None);
        for event in &events {
            let id = event.data.u64();
            if id == LISTENER {
                let Ok((socket, _)) = listener.accept() else { continue };
                let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
                epoll::add(&ready, &socket, EventData::new_u64(next), flags).expect("epoll");
                connections.insert(next, Connection::new(socket));
                next += 1;
            } else if !connections.get_mut(&id).is_none_or(|connection| connection.turn(&mut buffer)) {
                connections.remove(&id);
            }
        }
    }
}

struct Connection {
    wire: Wire,
    calls: HashMap<u32, Call>,
    /// What is in the peer's table.
    knows_type: bool,
    knows_status: bool,
}

#[derive(Default)]
struct Call {
    request: Vec<u8>,
    answer: Option<Sending>,
    /// More window that came before the answer.
    window: i64,
}

impl Connection {
    fn new(socket: TcpStream) -> Connection {
        Connection { wire: Wire::server(socket), calls: HashMap::new(), knows_type: false, knows_status: false }
    }

    /// `false`: the peer has gone.
    fn turn(&mut self, buffer: &mut [u8]) -> bool {
        let open = self.wire.receive(buffer);
        while let Some(event) = self.wire.event() {
            self.take(event);
        }
        // As long as the socket takes it, there may be more to send than is made ready at a time.
        while self.wire.flush() && self.go_on() {}
        open
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Head { stream, end } => {
                self.calls.entry(stream).or_default();
                if end {
                    self.answer(stream);
                }
            }
            Event::Data { stream, payload, end } => {
                let Some(call) = self.calls.get_mut(&stream) else { return };
                call.request.extend_from_slice(self.wire.payload(payload));
                if end {
                    self.answer(stream);
                }
            }
            Event::Reset { stream, .. } => drop(self.calls.remove(&stream)),
            Event::Window { stream, more } => {
                let Some(call) = self.calls.get_mut(&stream) else { return };
                match &mut call.answer {
                    Some(answer) => answer.window += more,
                    None => call.window += more,
                }
            }
            Event::AllWindows { more } => {
                self.calls.values_mut().filter_map(|call| call.answer.as_mut()).for_each(|answer| answer.window += more)
            }
            Event::Goaway => {}
        }
    }

    fn answer(&mut self, stream: u32) {
        let Some(call) = self.calls.get_mut(&stream) else { return };
        let request = std::mem::take(&mut call.request);
        if request.len() <= 5 {
            self.calls.remove(&stream);
            return self.wire.head(stream, b"\x88\x0f\x10\x10application/grpc\x00\x0bgrpc-status\x0212", true);
        }
        let (body, times) = match asked_for(&request) {
            Some((count, size)) => (message(&vec![b'x'; size]), count),
            None => (request, 1),
        };
        let mut answer = self.wire.sending(Rc::from(body), times, false);
        answer.window += call.window;
        let known: &[u8] = if self.knows_status { b"\x88\xbf" } else { b"\x88\xbe" };
        let (head, table) = match (self.knows_type, self.wire.header_table >= 4_096) {
            (true, _) => (known, true),
            (false, true) => (&b"\x88\x5f\x10application/grpc"[..], true),
            (false, false) => (&b"\x88\x0f\x10\x10application/grpc"[..], false),
        };
        self.knows_type = table;
        self.wire.head(stream, head, false);
        if self.wire.send(stream, &mut answer) {
            self.end(stream);
        } else if let Some(call) = self.calls.get_mut(&stream) {
            call.answer = Some(answer);
        }
    }

    fn end(&mut self, stream: u32) {
        self.calls.remove(&stream);
        let trailers: &[u8] = match (self.knows_status, self.wire.header_table >= 4_096) {
            (true, _) => b"\xbe",
            (false, true) => b"\x40\x0bgrpc-status\x010",
            (false, false) => b"\x00\x0bgrpc-status\x010",
        };
        self.knows_status = self.wire.header_table >= 4_096;
        self.wire.head(stream, trailers, true);
    }

    /// Sends more of the answers; `true` when anything was made ready.
    fn go_on(&mut self) -> bool {
        let mut ended = Vec::new();
        let mut any = false;
        for (stream, call) in &mut self.calls {
            let Some(answer) = &mut call.answer else { continue };
            let before = answer.window;
            if self.wire.send(*stream, answer) {
                ended.push(*stream);
            }
            any |= answer.window != before;
        }
        any |= !ended.is_empty();
        ended.into_iter().for_each(|stream| self.end(stream));
        any
    }
}

fn asked_for(request: &[u8]) -> Option<(u32, usize)> {
    let text = std::str::from_utf8(request.get(5..64.min(request.len()))?).ok()?;
    let (count, size) = text.strip_prefix("stream ")?.split_once(' ')?;
    Some((count.parse().ok()?, size.parse().ok()?))
}
