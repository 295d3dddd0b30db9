//! HTTP/2 frames over one socket that never blocks, with TLS or without: as little work as sending and receiving calls can
//! be, so that load generator and service together need less of their core than the proxy between them needs of its own.
//! Header blocks are made elsewhere and never decoded; what belongs to the connection (SETTINGS, PING, its windows) is done here.

#![allow(clippy::indexing_slicing)] // a panic is how a measurement fails

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::rc::Rc;
use tokio_rustls::rustls::ClientConnection;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
/// What we give, to streams and connection: nothing waits for a window of ours.
const OUR_WINDOW: u32 = (1 << 31) - 1;
/// Given back in pieces of this size.
const GIVE_BACK: usize = 1 << 24;
/// Of one DATA frame: nobody has to take more.
const FRAME: usize = 16_384;
/// Bytes that are made ready before the socket is asked to take them.
const AHEAD: usize = 1 << 18;

/// One end of a connection.
pub struct Wire {
    pub socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    input: Vec<u8>,
    /// How far `input` has been looked at.
    seen: usize,
    output: Vec<u8>,
    written: usize,
    /// The socket took no more the last time.
    blocked: bool,
    preface_to_come: bool,
    /// The peer's first SETTINGS are here.
    pub ready: bool,
    /// What the peer takes: of the connection, of a new stream.
    window: i64,
    initial_window: i64,
    pub max_streams: usize,
    pub header_table: u32,
    received: usize,
}

/// What concerns a stream.
pub enum Event {
    Head { stream: u32, end: bool },
    Data { stream: u32, payload: Range<usize>, end: bool },
    Reset { stream: u32, code: u32 },
    Window { stream: u32, more: i64 },
    AllWindows { more: i64 },
    Goaway,
}

/// A body on its way, as fast as the peer's windows let it.
pub struct Sending {
    body: Rc<[u8]>,
    /// How often it is still sent.
    times: u32,
    offset: usize,
    pub window: i64,
    end: bool,
}

impl Wire {
    pub fn client(socket: TcpStream, tls: Option<Box<ClientConnection>>) -> Wire {
        let mut wire = Wire::new(socket, tls, false);
        wire.output.extend_from_slice(PREFACE);
        wire.introduce();
        wire
    }

    pub fn server(socket: TcpStream) -> Wire {
        let mut wire = Wire::new(socket, None, true);
        wire.introduce();
        wire
    }

    fn new(socket: TcpStream, tls: Option<Box<ClientConnection>>, preface_to_come: bool) -> Wire {
        socket.set_nodelay(true).expect("TCP_NODELAY");
        socket.set_nonblocking(true).expect("a socket that never blocks");
        let (input, output) = (Vec::new(), Vec::new());
        Wire {
            socket,
            tls,
            input,
            seen: 0,
            output,
            written: 0,
            blocked: false,
            preface_to_come,
            ready: false,
            window: 65_535,
            initial_window: 65_535,
            max_streams: usize::MAX,
            header_table: 4_096,
            received: 0,
        }
    }

    /// SETTINGS (no push, many streams, the window of each) and the connection's window.
    fn introduce(&mut self) {
        self.frame(SETTINGS, 0, 0, 18);
        for (setting, value) in [(2u16, 0u32), (3, 10_000), (4, OUR_WINDOW)] {
            self.output.extend_from_slice(&setting.to_be_bytes());
            self.output.extend_from_slice(&value.to_be_bytes());
        }
        self.give_back(OUR_WINDOW - 65_535);
    }

    /// Reads what has come. `false`: the peer has closed.
    pub fn receive(&mut self, buffer: &mut [u8]) -> bool {
        loop {
            let read = match self.socket.read(buffer) {
                Ok(0) => return false,
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            match &mut self.tls {
                None => self.input.extend_from_slice(&buffer[..read]),
                Some(tls) => decrypt(tls, &buffer[..read], &mut self.input),
            }
            // What comes later makes the socket ready anew.
            if read < buffer.len() {
                return true;
            }
        }
    }

    /// The next thing of those that have come. The payload of DATA stays until this is asked again.
    pub fn event(&mut self) -> Option<Event> {
        if self.preface_to_come && self.input.len() >= PREFACE.len() {
            (self.seen, self.preface_to_come) = (PREFACE.len(), false);
        }
        while !self.preface_to_come {
            let Some(head) = self.input.get(self.seen..self.seen + 9) else { break };
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, flags, stream) = (head[3], head[4], number(&head[5..]) & OUR_WINDOW);
            let payload = self.seen + 9..self.seen + 9 + length;
            if self.input.len() < payload.end {
                break;
            }
            self.seen = payload.end;
            if let Some(event) = self.take(kind, flags, stream, payload) {
                return Some(event);
            }
        }
        self.input.drain(..self.seen);
        self.seen = 0;
        None
    }

    pub fn payload(&self, range: Range<usize>) -> &[u8] {
        &self.input[range]
    }

    fn take(&mut self, kind: u8, flags: u8, stream: u32, payload: Range<usize>) -> Option<Event> {
        let end = flags & END_STREAM != 0;
        match kind {
            HEADERS => return Some(Event::Head { stream, end }),
            DATA => {
                self.received += payload.len();
                if self.received >= GIVE_BACK {
                    self.give_back(self.received as u32);
                    self.received = 0;
                }
                return Some(Event::Data { stream, payload, end });
            }
            RESET => return Some(Event::Reset { stream, code: number(&self.input[payload]) }),
            SETTINGS if flags & ACK == 0 => {
                self.frame(SETTINGS, ACK, 0, 0);
                return self.settings(payload);
            }
            PING if flags & ACK == 0 => {
                self.frame(PING, ACK, 0, 8);
                self.output.extend_from_slice(&self.input[payload]);
            }
            GOAWAY => return Some(Event::Goaway),
            WINDOW => {
                let more = i64::from(number(&self.input[payload]));
                if stream != 0 {
                    return Some(Event::Window { stream, more });
                }
                self.window += more;
                // Streams may go on, none has more of its own.
                return Some(Event::AllWindows { more: 0 });
            }
            _ => {}
        }
        None
    }

    fn settings(&mut self, payload: Range<usize>) -> Option<Event> {
        self.ready = true;
        let before = self.initial_window;
        for setting in self.input[payload].chunks_exact(6) {
            let value = number(&setting[2..]);
            match setting[1] {
                1 => self.header_table = value,
                3 => self.max_streams = value as usize,
                4 => self.initial_window = i64::from(value),
                _ => {}
            }
        }
        Some(Event::AllWindows { more: self.initial_window - before })
    }

    pub fn head(&mut self, stream: u32, block: &[u8], end: bool) {
        self.frame(HEADERS, if end { END_HEADERS | END_STREAM } else { END_HEADERS }, stream, block.len());
        self.output.extend_from_slice(block);
    }

    /// A body that will be sent `times` times, the stream's `end` with the last of it.
    pub fn sending(&self, body: Rc<[u8]>, times: u32, end: bool) -> Sending {
        Sending { body, times, offset: 0, window: self.initial_window, end }
    }

    /// Sends what may be sent of it; `true` once nothing is left.
    pub fn send(&mut self, stream: u32, sending: &mut Sending) -> bool {
        while sending.times > 0 {
            let left = sending.body.len() - sending.offset;
            let length = left.min(FRAME).min(usize::try_from(sending.window.min(self.window)).unwrap_or(0));
            if length == 0 || self.blocked || self.output.len() >= AHEAD {
                return false;
            }
            if length == left {
                sending.times -= 1;
            }
            let end = sending.end && sending.times == 0;
            self.frame(DATA, if end { END_STREAM } else { 0 }, stream, length);
            self.output.extend_from_slice(&sending.body[sending.offset..sending.offset + length]);
            sending.offset = if length == left { 0 } else { sending.offset + length };
            sending.window -= length as i64;
            self.window -= length as i64;
        }
        true
    }

    /// Gives the socket what is ready. `true` when it took everything, so that more can be made ready at once.
    pub fn flush(&mut self) -> bool {
        let done = match &mut self.tls {
            None => write(&mut self.socket, &mut self.output, &mut self.written),
            Some(tls) => encrypt(tls, &mut self.output, &mut self.socket),
        };
        self.blocked = !done;
        done
    }

    fn give_back(&mut self, bytes: u32) {
        self.frame(WINDOW, 0, 0, 4);
        self.output.extend_from_slice(&bytes.to_be_bytes());
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, length: usize) {
        let [_, a, b, c] = (length as u32).to_be_bytes();
        self.output.extend_from_slice(&[a, b, c, kind, flags]);
        self.output.extend_from_slice(&stream.to_be_bytes());
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn write(socket: &mut TcpStream, output: &mut Vec<u8>, written: &mut usize) -> bool {
    while *written < output.len() {
        match socket.write(&output[*written..]) {
            Ok(count) => *written += count,
            Err(error) => return lost(&error),
        }
    }
    output.clear();
    *written = 0;
    true
}

fn encrypt(tls: &mut ClientConnection, output: &mut Vec<u8>, socket: &mut TcpStream) -> bool {
    tls.writer().write_all(output).expect("a buffer without bound");
    output.clear();
    while tls.wants_write() {
        if let Err(error) = tls.write_tls(socket) {
            return lost(&error);
        }
    }
    true
}

/// A peer that has gone is noticed when reading.
fn lost(error: &io::Error) -> bool {
    error.kind() != ErrorKind::WouldBlock
}

fn decrypt(tls: &mut ClientConnection, mut bytes: &[u8], input: &mut Vec<u8>) {
    while !bytes.is_empty() {
        tls.read_tls(&mut bytes).expect("bytes in memory");
        let state = tls.process_new_packets().expect("TLS");
        let from = input.len();
        input.resize(from + state.plaintext_bytes_to_read(), 0);
        tls.reader().read_exact(&mut input[from..]).expect("as many as were named");
    }
}
