//! HTTP/2 by hand: frames of a client over TLS or of a service, for what no library would send. Fields are literals, never
//! indexed or Huffman-coded.

use super::{Doorward, PATIENCE, Site, Stopwatch, wire};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Frame types (RFC 9113 §6).
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const PRIORITY: u8 = 32;
pub const ACK: u8 = 1;

/// A frame as it came.
#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The 32-bit number at `offset`: a reset's code (0), a GOAWAY's last stream (0) and code (4).
    pub fn number(&self, offset: usize) -> u32 {
        u32::from_be_bytes(self.payload[offset..offset + 4].try_into().unwrap())
    }
}

pub struct Frames<S = TlsStream<TcpStream>> {
    pub io: S,
    /// What has come of the next frame; kept when the wait for its rest is given up.
    begun: Vec<u8>,
}

impl Frames {
    /// Handshakes TLS and says nothing more.
    pub async fn connect(doorward: &Doorward) -> Frames {
        Frames::over(wire::tls(doorward, &[b"h2"]).await.unwrap())
    }

    /// Also sends the preface and empty SETTINGS, and acknowledges the server's.
    pub async fn open(doorward: &Doorward) -> Frames {
        Frames::connect(doorward).await.opened().await
    }

    /// The same with the certificate `<name>.crt` of the site.
    pub async fn open_as(doorward: &Doorward, site: &Site, name: &str) -> Frames {
        Frames::over(wire::tls_as(doorward, site, name).await.unwrap()).opened().await
    }

    async fn opened(self) -> Frames {
        let mut frames = self;
        frames.io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        frames.send(kind::SETTINGS, 0, 0, &[]).await;
        frames.send(kind::SETTINGS, ACK, 0, &[]).await;
        frames
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    pub fn over(io: S) -> Frames<S> {
        Frames { io, begun: Vec::new() }
    }

    /// Sends one frame; a connection that is closed already is the reader's business.
    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.burst(&frame(kind, flags, stream, payload)).await;
    }

    /// Sends bytes, as of several frames, so that they arrive together as far as they go into one TLS record.
    pub async fn burst(&mut self, bytes: &[u8]) {
        let _ = self.io.write_all(bytes).await;
        let _ = self.io.flush().await;
    }

    /// A request whose header block is complete.
    pub async fn request(&mut self, stream: u32, fields: &[(&str, &str)]) {
        self.send(kind::HEADERS, END_HEADERS | END_STREAM, stream, &block(fields)).await;
    }

    /// The next frame; `None` once the connection is closed.
    pub async fn next(&mut self) -> Option<Frame> {
        tokio::time::timeout(PATIENCE, self.read()).await.expect("a frame or the end, in time")
    }

    /// The same without a bound.
    pub async fn read(&mut self) -> Option<Frame> {
        const HEAD: usize = 9;
        self.read_until(HEAD).await?;
        let length = u32::from_be_bytes([0, self.begun[0], self.begun[1], self.begun[2]]);
        self.read_until(HEAD + usize::try_from(length).unwrap()).await?;
        let mut head = std::mem::take(&mut self.begun);
        let payload = head.split_off(HEAD);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads until so many bytes of the frame have come, and none beyond.
    async fn read_until(&mut self, bytes: usize) -> Option<()> {
        while self.begun.len() < bytes {
            let missing = u64::try_from(bytes - self.begun.len()).unwrap();
            if (&mut self.io).take(missing).read_buf(&mut self.begun).await.ok()? == 0 {
                return None;
            }
        }
        Some(())
    }

    /// The first frame of a kind; `None` when the connection closes before.
    pub async fn until(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// The first frame on a stream.
    pub async fn on_stream(&mut self, stream: u32) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.stream == stream {
                return Some(frame);
            }
        }
    }

    /// How long it takes until the server closes the connection.
    pub async fn closed(&mut self) -> Duration {
        let started = Stopwatch::start();
        while self.next().await.is_some() {}
        started.elapsed()
    }

    /// Whether the connection still answers a PING.
    pub async fn is_alive(&mut self) -> bool {
        self.send(kind::PING, 0, 0, b"12345678").await;
        loop {
            match self.next().await {
                Some(frame) if frame.kind == kind::PING && frame.flags & ACK != 0 => return true,
                Some(_) => {}
                None => return false,
            }
        }
    }
}

/// The bytes of one frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The pseudo-headers and usual fields of a gRPC request for `path`, then `more`.
pub fn grpc_fields<'a>(path: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![(":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", path)];
    fields.extend([("content-type", "application/grpc"), ("te", "trailers")]);
    fields.extend_from_slice(more);
    fields
}

/// A header block of literals without indexing (RFC 7541 §6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A header block of literals that are added to the table of what came before, beginning with the first (RFC 7541 §6.2.1).
pub fn indexed_block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|field| [&[0x40], &block(&[*field])[1..]].concat()).collect()
}

/// A header block that refers to entries of that table, a byte each (RFC 7541 §6.1); 0 is the newest, 64 the oldest there may be.
pub fn references(entries: impl IntoIterator<Item = usize>) -> Vec<u8> {
    const FIRST: usize = 62;
    entries.into_iter().map(|entry| 0x80 | u8::try_from(FIRST + entry).unwrap()).collect()
}

/// An integer with a seven-bit prefix (RFC 7541 §5.1).
fn integer(block: &mut Vec<u8>, value: usize) {
    if value < 127 {
        return block.push(u8::try_from(value).unwrap());
    }
    block.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}
