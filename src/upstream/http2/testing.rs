//! What the tests of this room have in common: a connection without a socket, what its upstream says, what was written to it.

use super::connection::Connection;
use super::failure::Failure;
use super::frame::{HEAD, Head, kind};
use super::inlet::Inlet;
use super::receive::Breach;
use super::requests::Requests;
use super::stream::Stream;
use crate::http2::{Sink, Source};
use bytes::Bytes;
use http::Response;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Windows of the connections here, in bytes.
pub(super) const WINDOW: u32 = 100_000;
pub(super) const STREAM_WINDOW: u32 = 40_000;

/// The head of an answer, and trailers, as header blocks.
pub(super) const OK: &[u8] = &[0x88];
pub(super) const TRAILERS: &[u8] = &[0, 1, b'a', 1, b'b'];

/// A connection that is up, with nothing left to be written.
pub(super) fn up() -> (Rc<Connection>, Requests) {
    let connection = Connection::new(WINDOW, STREAM_WINDOW, 1024);
    let requests = Requests::new(&connection);
    hears(&connection, &frame(kind::SETTINGS, 0, 0, &[])).unwrap();
    written(&connection);
    connection.moved.set(false);
    (connection, requests)
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    [&Head { length: payload.len(), kind, flags, stream }.bytes()[..], payload].concat()
}

/// The upstream says something, of which the last breach is told.
pub(super) fn hears(connection: &Connection, bytes: &[u8]) -> Result<(), Breach> {
    let (mut inlet, mut rest) = (Inlet::default(), bytes);
    while !rest.is_empty() {
        match inlet.poll_read(&mut Context::from_waker(Waker::noop()), &mut rest, connection) {
            Poll::Ready(read) => read.unwrap().map(drop)?,
            Poll::Pending => unreachable!("bytes are there"),
        }
    }
    Ok(())
}

/// The frames that wait, written.
pub(super) fn written(connection: &Connection) -> Vec<(Head, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut outbox = connection.outbox.borrow_mut();
    while outbox.len() > 0 {
        let count = connection.written.get();
        let Poll::Ready(written) = outbox.poll_write(&mut Context::from_waker(Waker::noop()), &mut bytes) else { unreachable!() };
        connection.written.set(count + written.unwrap() as u64);
        connection.moved.set(true);
    }
    let mut rest = bytes.strip_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap_or(&bytes);
    let mut frames = Vec::new();
    while let Some((head, after)) = rest.split_first_chunk::<HEAD>() {
        let head = Head::parse(*head);
        let (payload, after) = after.split_at(head.length);
        frames.push((head, payload.to_vec()));
        rest = after;
    }
    frames
}

/// Counts how often it was woken.
#[derive(Default)]
pub(super) struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Woken>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Woken {
    pub(super) fn times(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream's methods, polled once.
pub(super) trait Once {
    fn head(&mut self) -> Option<Result<Response<()>, Failure>>;
    /// At the end, nothing.
    fn data(&mut self) -> Option<Result<Bytes, Failure>>;
    /// What there is room for.
    fn room(&mut self, wanted: usize, waker: &Arc<Woken>) -> Poll<Option<usize>>;
    fn puts(&mut self, bytes: usize);
}

impl Once for Stream {
    fn head(&mut self) -> Option<Result<Response<()>, Failure>> {
        ready(self.poll_head(&mut Context::from_waker(Waker::noop())))
    }

    fn data(&mut self) -> Option<Result<Bytes, Failure>> {
        ready(self.poll_data(&mut Context::from_waker(Waker::noop()))).map(|data| data.map(Option::unwrap_or_default))
    }

    fn room(&mut self, wanted: usize, waker: &Arc<Woken>) -> Poll<Option<usize>> {
        self.poll_room(&mut Context::from_waker(&waker.clone().into()), wanted)
    }

    fn puts(&mut self, bytes: usize) {
        self.send(vec![0; bytes].into(), false).unwrap();
    }
}

fn ready<T>(poll: Poll<T>) -> Option<T> {
    match poll {
        Poll::Ready(ready) => Some(ready),
        Poll::Pending => None,
    }
}
