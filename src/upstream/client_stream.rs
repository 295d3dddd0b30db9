//! The client's side of one call: its body to read, and an answer that is sent once, in whatever state the call is.

use super::client_connection::{ClientConnection, HeldHead};
use crate::http2::{Broken, Outlet, Relay, Relayed, Sink, Source, Standstill, Turn};
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Response};
use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// How long the peers of a call are waited for.
#[derive(Debug, Clone, Copy)]
pub struct StreamLimits {
    /// `limits.stalled`: one that takes nothing while bytes wait for it.
    pub stalled: Duration,
    /// `limits.stream_idle`: both of them, while nothing comes or goes.
    pub idle: Option<Duration>,
}

/// One call as its client sees it.
pub struct ClientStream {
    body: RecvStream,
    pub(super) upload: Relay,
    pub(super) stalled: Duration,
    /// While nothing comes or goes.
    pub(super) idle: Option<Standstill>,
    reply: Reply,
    /// Waits for the connection's socket.
    turn: Turn,
    pub(super) connection: Rc<ClientConnection>,
    /// The head, should the call have to be made again.
    kept: Option<Rc<HeldHead>>,
}

enum Reply {
    /// No header has been sent.
    Awaited(SendResponse<Bytes>),
    /// Headers have been sent.
    Begun(SendStream<Bytes>),
    /// END_STREAM or RST_STREAM has been sent.
    Over,
}

impl ClientStream {
    /// A call whose request head has been read.
    pub fn new(body: RecvStream, respond: SendResponse<Bytes>, connection: Rc<ClientConnection>, limits: StreamLimits) -> ClientStream {
        let StreamLimits { stalled, idle } = limits;
        let (upload, idle) = (Relay::new(stalled), idle.map(Standstill::new));
        ClientStream { body, upload, stalled, idle, reply: Reply::Awaited(respond), turn: None, connection, kept: None }
    }

    /// Bytes of messages that came from the client.
    pub fn bytes_in(&self) -> u64 {
        self.upload.bytes()
    }

    /// Whether the request ended with its head.
    pub(super) fn has_no_body(&self) -> bool {
        self.upload.is_empty(&self.body)
    }

    /// Moves what can be moved of the request.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>, sink: &mut impl Sink) -> Poll<Result<Relayed, Broken<h2::Error>>> {
        self.upload.poll(cx, &mut self.body, sink)
    }

    /// From now on keeps what the client sends, should the call have to be made again, as long as there is little of it.
    /// `total` counts what all calls of a worker keep of their bodies, in bytes.
    pub(super) fn keep(&mut self, head: &Rc<HeldHead>, total: Rc<Cell<usize>>) {
        self.kept = head.keep().then(|| head.clone());
        if self.kept.is_some() {
            self.upload.keep(total);
        }
    }

    /// Keeps nothing any more.
    pub(super) fn forget(&mut self) {
        self.kept = None;
        self.upload.forget();
    }

    /// The head of the call for another attempt, with the body to follow; `None` when not all of it was kept.
    pub(super) fn rewind(&mut self) -> Option<Rc<HeldHead>> {
        let kept = self.kept.as_ref()?;
        self.upload.rewind().then(|| kept.clone())
    }

    /// Ready when the client reset the stream or its connection is gone.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Option<Reason>> {
        match &mut self.reply {
            Reply::Awaited(respond) => respond.poll_reset(cx).map(Result::ok),
            Reply::Begun(stream) => stream.poll_reset(cx).map(Result::ok),
            Reply::Over => Poll::Pending,
        }
    }

    /// Runs `work` to its end, or until the client is gone.
    pub async fn unless_gone<T>(&mut self, mut work: impl Future<Output = T> + Unpin) -> Option<T> {
        poll_fn(|cx| match Pin::new(&mut work).poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.poll_gone(cx).map(|_| None),
        })
        .await
    }

    /// Sends the head of the answer. An error means that the client is gone, which `poll_gone` tells as well.
    pub fn head(&mut self, response: Response<()>, last: bool) -> Result<(), h2::Error> {
        if let Reply::Awaited(respond) = &mut self.reply {
            let stream = respond.send_response(response, last)?;
            self.reply = if last { Reply::Over } else { Reply::Begun(stream) };
        }
        Ok(())
    }

    /// Ends the answer with trailers; `head` has been sent.
    pub fn trailers(&mut self, trailers: HeaderMap) -> Result<(), h2::Error> {
        match std::mem::replace(&mut self.reply, Reply::Over) {
            Reply::Begun(mut stream) => stream.send_trailers(trailers),
            reply => {
                self.reply = reply;
                Ok(())
            }
        }
    }

    /// Ends an answer that is not gRPC with one line of text; `head` has been sent. Errors mean that the client is gone.
    pub fn text(&mut self, line: &'static str) {
        if let Reply::Begun(mut stream) = std::mem::replace(&mut self.reply, Reply::Over) {
            let _ = stream.send_data(Bytes::from_static(line.as_bytes()), false);
            let _ = stream.send_data(Bytes::from_static(b"\n"), true);
        }
    }

    /// Whether the head of the answer has been sent.
    pub fn has_begun(&self) -> bool {
        !matches!(self.reply, Reply::Awaited(_))
    }

    /// Resets the stream.
    pub fn reset(&mut self, reason: Reason) {
        match std::mem::replace(&mut self.reply, Reply::Over) {
            Reply::Awaited(mut respond) => respond.send_reset(reason),
            Reply::Begun(mut stream) => stream.send_reset(reason),
            Reply::Over => {}
        }
    }

    /// Moves what can be moved of the answer; `head` has been sent.
    pub(super) fn poll_download<S: Source>(
        &mut self,
        cx: &mut Context<'_>,
        relay: &mut Relay,
        source: &mut S,
    ) -> Poll<Result<Relayed, Broken<S::Error>>> {
        match &mut self.reply {
            Reply::Begun(stream) => relay.poll(cx, source, &mut Answer { stream, outlet: &self.connection.outlet, turn: &mut self.turn }),
            Reply::Awaited(_) | Reply::Over => Poll::Pending,
        }
    }

    /// Notes that END_STREAM went with the last DATA.
    pub(super) fn ended(&mut self) {
        self.reply = Reply::Over;
    }
}

impl Source for RecvStream {
    type Error = h2::Error;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, h2::Error>> {
        RecvStream::poll_data(self, cx).map(Option::transpose)
    }

    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, h2::Error>> {
        RecvStream::poll_trailers(self, cx)
    }

    fn is_over(&self) -> bool {
        self.is_end_stream()
    }

    fn release(&mut self, bytes: usize) {
        // An error here means the stream is gone, which the next poll reports with its reason.
        let _ = self.flow_control().release_capacity(bytes);
    }
}

/// What the client takes of its answer: as much as its window, while its socket takes anything.
struct Answer<'a> {
    stream: &'a mut SendStream<Bytes>,
    outlet: &'a Outlet,
    turn: &'a mut Turn,
}

impl Sink for Answer<'_> {
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Option<usize>> {
        ready!(self.outlet.poll_open(cx, self.turn));
        self.stream.reserve_capacity(wanted);
        match self.stream.capacity() {
            0 => self.stream.poll_capacity(cx).map(|capacity| capacity.and_then(Result::ok)),
            capacity => Poll::Ready(Some(capacity)),
        }
    }

    fn send(&mut self, data: Bytes, last: bool) -> Option<()> {
        self.stream.send_data(data, last).ok()
    }
}
