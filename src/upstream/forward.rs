//! One call's bytes to the upstream and back: the request head, both directions at once, the deadline, and whoever
//! resets first. Ends with the upstream's own answer, or says why there was none; never answers by itself.

use super::client_connection::HeldHead;
use super::client_stream::ClientStream;
use super::connect::Unreachable;
use super::http2::{Failure, Lost, Stream};
use super::pool::{Pool, Slot};
use super::request_head::EncodedHead;
use crate::authorization::Permit;
use crate::grpc::{Code, GRPC_STATUS};
use crate::http2::{Broken, HeaderLimits, Relay, Relayed, Standstill, Unacceptable};
use crate::telemetry::CallRecord;
use h2::Reason;
use http::{HeaderMap, Response};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// What one call needs on its way, apart from its bytes.
pub struct Passage<'a> {
    /// Where to.
    pub pool: &'a Rc<Pool>,
    /// For the answer's headers and trailers, and the request's trailers.
    pub limits: HeaderLimits,
    /// Removes from request trailers what no client may send.
    pub scrub: &'a dyn Fn(&mut HeaderMap),
    /// When the call ends, whatever the upstream does.
    pub deadline: Option<Instant>,
    /// Told when the request head went to the upstream.
    pub record: &'a CallRecord,
}

/// The upstream's own answer has been passed on.
#[derive(Debug)]
pub struct Finished {
    /// `grpc-status`, or what an HTTP answer without one means (http-grpc-status-mapping.md).
    pub code: Code,
    /// Bytes of messages passed to the client.
    pub bytes_out: u64,
}

/// Why the upstream's own answer did not come, or not whole.
#[derive(Debug)]
pub enum Ended {
    /// No connection.
    Unreachable(Unreachable),
    /// The connection was lost under the call.
    Lost(String),
    /// It reset the stream.
    Reset(Reason),
    /// Its headers or trailers are over our limits, or malformed.
    Headers(Unacceptable),
    /// The deadline has passed.
    Deadline,
    /// Nothing has come or gone for `limits.stream_idle`.
    Idle,
    /// It has taken nothing for `limits.stalled` while bytes of the request waited for it.
    Stalled,
    /// The client has taken nothing for `limits.stalled` while bytes of the answer waited for it.
    ClientStalled,
    /// The client reset the stream (or its connection is gone): nobody is left to answer.
    ClientGone,
    /// The client's request is malformed beyond its headers: trailers over the limit, a bad frame.
    ClientMalformed,
}

/// How often a call is made again that the upstream has not seen. A connection may turn out to be going away, and so may the
/// one that replaces it; who refuses a third time means it.
const MOST_RETRIES: usize = 2;

/// Forwards one call. Taking the permit by value is what makes an unauthorised call impossible to write; that a call may be
/// made again, when the upstream has surely not seen it, is this function's own affair.
///
/// A block within a function: an `async fn` holds its arguments twice, and a call's future is most of what it holds.
#[allow(clippy::manual_async_fn)]
pub fn forward<'a>(
    _permit: Permit,
    passage: Passage<'a>,
    head: EncodedHead,
    client: &'a mut ClientStream,
) -> impl Future<Output = Result<Finished, Ended>> {
    async move {
        let sleep = pin!(passage.deadline.map(tokio::time::sleep_until));
        let mut timer = Timer(sleep.as_pin_mut());
        let mut head = HeldHead::new(&client.connection, head);
        client.keep(&head, passage.pool.kept.clone());
        for _ in 0..MOST_RETRIES {
            let failed = match attempt(&passage, head, client, &mut timer).await {
                Ok(finished) => return Ok(finished),
                Err(failed) => failed,
            };
            if !failed.unseen {
                return Err(at_deadline(failed.ended, passage.deadline));
            }
            // The client may have kept what we have not: its library tries again by itself.
            let Some(same) = client.rewind() else { return Err(at_deadline(Ended::Reset(Reason::REFUSED_STREAM), passage.deadline)) };
            passage.record.upstream_retried();
            head = same;
        }
        client.forget();
        attempt(&passage, head, client, &mut timer).await.map_err(|failed| at_deadline(failed.ended, passage.deadline))
    }
}

/// Why an attempt did not bring the upstream's own answer.
struct Failed {
    ended: Ended,
    /// The upstream has surely not seen the call.
    unseen: bool,
}

impl From<Ended> for Failed {
    fn from(ended: Ended) -> Failed {
        Failed { ended, unseen: false }
    }
}

/// Makes the call once.
#[allow(clippy::manual_async_fn)] // as above
fn attempt<'a>(
    passage: &'a Passage<'a>,
    head: Rc<HeldHead>,
    client: &'a mut ClientStream,
    timer: &'a mut Timer<'_>,
) -> impl Future<Output = Result<Finished, Failed>> {
    async move {
        let opened = {
            let mut opening = pin!(open(passage, head, client.has_no_body()));
            poll_fn(|cx| match client.poll_gone(cx) {
                Poll::Ready(_) => Poll::Ready(Err(Ended::ClientGone.into())),
                Poll::Pending => match opening.as_mut().poll(cx) {
                    Poll::Pending => timer.poll(cx, &mut client.idle, client.upload.moved()).map(|ended| Err(ended.into())),
                    ready => ready,
                },
            })
            .await?
        };
        let mut handed_over = HandedOver(None);
        let mut exchange = Exchange { passage, client, upstream: handed_over.0.insert(opened) };
        poll_fn(|cx| exchange.poll(cx, timer)).await
    }
}

/// A server whose own clock is first resets the stream or drops it: near the deadline a failure is the deadline's.
fn at_deadline(ended: Ended, deadline: Option<Instant>) -> Ended {
    match ended {
        Ended::Reset(_) | Ended::Lost(_) | Ended::Unreachable(_) if is_near(deadline) => Ended::Deadline,
        ended => ended,
    }
}

/// The same for servers that answer when their clock is first: nobody but a clock cancels a call whose client still waits.
fn unless_at_deadline(code: Code, deadline: Option<Instant>) -> Result<Code, Ended> {
    if code == Code::Cancelled && is_near(deadline) { Err(Ended::Deadline) } else { Ok(code) }
}

fn is_near(deadline: Option<Instant>) -> bool {
    /// Clocks that were started by messages some milliseconds apart.
    const NEAR: Duration = Duration::from_millis(20);
    deadline.is_some_and(|deadline| Instant::now() + NEAR >= deadline)
}

/// The call's deadline, if it has one.
struct Timer<'a>(Option<Pin<&'a mut Sleep>>);

impl Timer<'_> {
    /// The deadline, or the end of the patience with a call on which no more than `moved` has come and gone.
    fn poll(&mut self, cx: &mut Context<'_>, idle: &mut Option<Standstill>, moved: u64) -> Poll<Ended> {
        if let Some(sleep) = &mut self.0
            && sleep.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Ended::Deadline);
        }
        match idle {
            Some(idle) => idle.poll(cx, moved).map(|()| Ended::Idle),
            None => Poll::Pending,
        }
    }
}

/// A call in the upstream's hands. However it ends, also when it is dropped (its credentials expire or are revoked, the drain is
/// over), this lets the upstream go in one way.
struct HandedOver(Option<UpstreamStream>);

impl Drop for HandedOver {
    fn drop(&mut self) {
        if let Some(upstream) = self.0.take() {
            upstream.let_go();
        }
    }
}

/// The upstream's side of one call. Dropping it before the answer is whole resets the stream with CANCEL at once: see
/// [`UpstreamStream::let_go`].
struct UpstreamStream {
    stream: Stream,
    /// There is more of the request to be sent, and the upstream may want it.
    uploading: bool,
    answer: Answer,
    slot: Slot,
}

impl UpstreamStream {
    /// What the loss of this stream means.
    fn broken(&self, Failure { lost, unseen }: Failure) -> Failed {
        let ended = match lost {
            Lost::Reset(reason) => Ended::Reset(reason),
            Lost::Oversized => Ended::Headers(Unacceptable::Bytes),
            Lost::Connection(_) if self.slot.stalled() => Ended::Stalled,
            Lost::Connection(why) => Ended::Lost(why.to_string()),
        };
        Failed { ended, unseen }
    }
}

impl UpstreamStream {
    /// Resets the stream, if there is anything left of it, though not before the upstream can have looked at it: HTTP/2 servers take
    /// requests that are reset while they wait to be accepted for an attack (h2's at twenty), and would end the connection under
    /// everybody's calls for what one client did: it resets its calls, or gives them a deadline of a millisecond, or a token that is
    /// about to expire. Who has answered has accepted it.
    fn let_go(self) {
        /// Well below the 100 ms within which an upstream learns of a cancellation.
        const UNSEEN: Duration = Duration::from_millis(25);
        if matches!(self.answer, Answer::Awaited) {
            tokio::task::spawn_local(async move {
                tokio::time::sleep(UNSEEN).await;
                drop(self);
            });
        }
    }
}

#[allow(clippy::large_enum_variant)] // one a call; a box would be an allocation of each
enum Answer {
    Awaited,
    /// It has come: a head that has not been passed on, or an error.
    Come,
    Begun {
        relay: Relay,
        code: Code,
    },
}

impl Answer {
    /// Grows with everything that comes or goes.
    fn moved(&self) -> u64 {
        match self {
            Answer::Awaited | Answer::Come => 0,
            Answer::Begun { relay, .. } => 1 + relay.moved(),
        }
    }
}

/// Opens a stream. A connection that turns out dead before the request was handed to it is replaced: the upstream has
/// surely not seen the call.
async fn open(passage: &Passage<'_>, head: Rc<HeldHead>, last: bool) -> Result<UpstreamStream, Failed> {
    loop {
        let slot = passage.pool.slot(&head).await.map_err(Ended::Unreachable)?;
        let Some(stream) = slot.open(&head, last).await.map_err(Ended::Unreachable)? else {
            slot.condemn();
            continue;
        };
        passage.record.upstream_started();
        return Ok(UpstreamStream { stream, uploading: !last, answer: Answer::Awaited, slot });
    }
}

/// Both directions of one call at once.
struct Exchange<'a> {
    passage: &'a Passage<'a>,
    client: &'a mut ClientStream,
    upstream: &'a mut UpstreamStream,
}

impl Exchange<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, timer: &mut Timer<'_>) -> Poll<Result<Finished, Failed>> {
        if self.client.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Ended::ClientGone.into()));
        }
        self.upload(cx)?;
        match self.answer(cx) {
            Poll::Pending => {
                let moved = self.client.upload.moved() + self.upstream.answer.moved();
                timer.poll(cx, &mut self.client.idle, moved).map(|ended| Err(ended.into()))
            }
            ready => ready,
        }
    }

    /// Client to upstream. An upstream that wants no more may still answer: only its answer ends the call.
    fn upload(&mut self, cx: &mut Context<'_>) -> Result<(), Ended> {
        if !self.upstream.uploading {
            return Ok(());
        }
        let Poll::Ready(relayed) = self.client.poll_upload(cx, &mut self.upstream.stream) else { return Ok(()) };
        match relayed {
            Ok(Relayed::Ended) | Err(Broken::Sink) => {}
            Ok(Relayed::Trailers(mut trailers)) => {
                if self.passage.limits.examine_request_trailers(&trailers).is_err() {
                    return Err(Ended::ClientMalformed);
                }
                (self.passage.scrub)(&mut trailers);
                if !self.upstream.stream.send_trailers(&trailers) {
                    return Err(Ended::Lost("it takes nothing, and the trailers of requests do not wait for it".to_owned()));
                }
            }
            Err(Broken::Source(_)) => return Err(Ended::ClientGone),
            Err(Broken::Stalled) => return Err(Ended::Stalled),
        }
        self.upstream.uploading = false;
        Ok(())
    }

    /// Upstream to client.
    fn answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Finished, Failed>> {
        if let Answer::Awaited = self.upstream.answer {
            let head = ready!(self.upstream.stream.poll_head(cx));
            self.upstream.answer = Answer::Come;
            let head = head.map_err(|failure| self.upstream.broken(failure))?;
            self.client.forget(); // who has answered has seen the call: it is never made again
            self.passage.limits.examine_response(&head).map_err(Ended::Headers)?;
            let relay = Relay::new(self.client.stalled);
            let last = relay.is_empty(&self.upstream.stream);
            let code = unless_at_deadline(code_of_head(&head), self.passage.deadline)?;
            self.client.head(head, last).map_err(|_| Ended::ClientGone)?;
            if last {
                return Poll::Ready(Ok(Finished { code, bytes_out: 0 }));
            }
            self.upstream.answer = Answer::Begun { relay, code };
        }
        let Answer::Begun { relay, code } = &mut self.upstream.answer else { return Poll::Pending };
        let relayed = ready!(self.client.poll_download(cx, relay, &mut self.upstream.stream));
        let bytes_out = relay.bytes();
        match relayed {
            Ok(Relayed::Ended) => {
                self.client.ended();
                Poll::Ready(Ok(Finished { code: *code, bytes_out }))
            }
            Ok(Relayed::Trailers(trailers)) => {
                self.passage.limits.examine_response_trailers(&trailers).map_err(Ended::Headers)?;
                let code = trailers.get(&GRPC_STATUS).map_or(*code, |status| Code::from_header(status.as_bytes()));
                let code = unless_at_deadline(code, self.passage.deadline)?;
                self.client.trailers(trailers).map_err(|_| Ended::ClientGone)?;
                Poll::Ready(Ok(Finished { code, bytes_out }))
            }
            Err(Broken::Source(failure)) => Poll::Ready(Err(self.upstream.broken(failure))),
            Err(Broken::Sink) => Poll::Ready(Err(Ended::ClientGone.into())),
            Err(Broken::Stalled) => Poll::Ready(Err(Ended::ClientStalled.into())),
        }
    }
}

/// The code of an answer as far as its head tells: `grpc-status` of a trailers-only answer, else what the HTTP status
/// means (http-grpc-status-mapping.md); trailers overrule it.
fn code_of_head(head: &Response<()>) -> Code {
    match (head.headers().get(&GRPC_STATUS), head.status().as_u16()) {
        (Some(status), _) => Code::from_header(status.as_bytes()),
        (None, 400) => Code::Internal,
        (None, 401) => Code::Unauthenticated,
        (None, 403) => Code::PermissionDenied,
        (None, 404) => Code::Unimplemented,
        (None, 429 | 502..=504) => Code::Unavailable,
        (None, _) => Code::Unknown,
    }
}
