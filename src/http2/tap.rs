//! The frame tap: sits between the socket and h2, reads the frame headers that come in, and holds the timers that h2
//! cannot: the handshake (until the first SETTINGS), any unfinished header block, and a socket that takes nothing. Costs
//! nothing while none runs. Counts the frames that carry no call, for a flood of them.

use super::Standstill;
use super::allowance::{Allowance, Pause};
use super::frames::FrameScanner;
use super::intake::{Intake, Intakes};
use super::io::Io;
use super::join::join;
use super::outlet::Outlet;
use super::timed_out::TimedOut;
use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What the owner of a connection can ask about it while h2 owns the socket.
#[derive(Debug, Default)]
pub struct TapState {
    settings_seen: Cell<bool>,
    timed_out: Cell<Option<TimedOut>>,
    flood: Cell<bool>,
    outlet: Rc<Outlet>,
    /// What may still be read before the connection's owner has been asked.
    allowance: Cell<Allowance>,
    /// What that is each time.
    part: Allowance,
}

impl TapState {
    /// Whether the socket takes what is written to it.
    pub fn outlet(&self) -> &Rc<Outlet> {
        &self.outlet
    }

    /// Why the connection reads no further, if it does not: nothing but the owner's word makes it go on.
    pub fn pause(&self) -> Option<Pause> {
        self.allowance.get().pause()
    }

    /// Lets an accepted connection read on after [`Pause::Heads`].
    pub fn read_more_heads(&self) {
        self.allowance.set(self.allowance.get().more_heads(self.part));
    }

    /// Lets the connection read its next part.
    pub fn read_on(&self) {
        self.allowance.set(self.part);
    }

    /// Which of the tap's own timers ended the connection.
    pub fn timed_out(&self) -> Option<TimedOut> {
        self.timed_out.get()
    }

    /// Ready once the peer has flooded the connection with frames that carry no call; nothing more is read from it then.
    /// Wakes nobody: whoever polls it polls the connection as well, which is woken.
    pub fn poll_flood(&self) -> Poll<()> {
        if self.flood.get() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Frames that carry no call, beyond what those that do and the bytes we sent account for, which a client may send in
/// [`FLOOD_TIME`]. Clients acknowledge data and measure round trips with one such frame for several kilobytes or calls.
const FLOOD: u32 = 10_000;

const FLOOD_TIME: Duration = Duration::from_secs(1);

/// Bytes sent by us for which a client may send one such frame.
const BYTES_A_FRAME: u64 = 1024;

/// A socket whose inbound frames are watched.
#[derive(Debug)]
pub struct FrameTap {
    io: Io,
    /// `None` while it is read from.
    intake: Option<Intake>,
    scanner: FrameScanner,
    state: Rc<TapState>,
    /// How long a header block may stay unfinished.
    header_block: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// For a socket that takes nothing.
    standstill: Standstill,
    /// Grows with all the socket takes: its bytes, and each flush that came to its end.
    moved: u64,
    /// When frames that carry no call, and what they are weighed against, were last counted from zero.
    flood_since: (Instant, u64),
}

impl FrameTap {
    /// A connection accepted from a client: 24 bytes of preface come first, and everything up to its first SETTINGS must
    /// have come by `handshake`. It may take nothing for `stalled`.
    pub fn accepted(
        io: Io,
        intakes: Rc<Intakes>,
        handshake: Instant,
        header_block: Duration,
        stalled: Duration,
    ) -> (FrameTap, Rc<TapState>) {
        let part = Allowance::OF_A_CLIENT;
        let state = Rc::new(TapState { allowance: Cell::new(part), part, ..TapState::default() });
        let tap = FrameTap {
            io,
            intake: Some(Intake::new(intakes)),
            scanner: FrameScanner::new(24),
            state: state.clone(),
            header_block,
            timer: Some(Box::pin(tokio::time::sleep_until(handshake))),
            standstill: Standstill::new(stalled),
            moved: 0,
            flood_since: (Instant::now(), 0),
        };
        (tap, state)
    }

    fn inbound(&mut self, bytes: &[u8]) {
        self.scanner.advance(bytes);
        let heads = std::mem::take(&mut self.scanner.header_bytes);
        self.state.allowance.set(self.state.allowance.get().less(bytes.len(), heads));
        if self.scanner.settings_seen && !self.state.settings_seen.replace(true) {
            self.timer = None;
        }
        if !self.scanner.settings_seen {
            return; // the handshake's own timer runs, and covers blocks sent before SETTINGS
        }
        if !self.scanner.block_open {
            self.timer = None;
        } else if self.timer.is_none() {
            self.timer = Some(Box::pin(tokio::time::sleep(self.header_block)));
        }
        if self.scanner.idle_frames >= FLOOD {
            self.look_for_flood();
        }
    }

    /// The clock is read once in so many frames that carry no call.
    fn look_for_flood(&mut self) {
        let (since, moved) = self.flood_since;
        let accounted = (self.moved - moved) / BYTES_A_FRAME;
        if u64::from(self.scanner.idle_frames) < u64::from(FLOOD) + accounted {
            return;
        }
        let now = Instant::now();
        self.state.flood.set(now - since < FLOOD_TIME);
        self.flood_since = (now, self.moved);
        self.scanner.idle_frames = 0;
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(timer) = self.timer.as_mut() else { return Poll::Pending };
        ready!(timer.as_mut().poll(cx));
        self.timed_out(if self.scanner.settings_seen { TimedOut::HeaderBlock } else { TimedOut::Handshake })
    }

    fn timed_out(&mut self, which: TimedOut) -> Poll<io::Error> {
        self.state.timed_out.set(Some(which));
        Poll::Ready(which.error())
    }

    /// Reads from the socket, and looks at what has come.
    fn read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, next_frame) = (buf.filled().len(), self.scanner.next_frame());
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                let came = buf.filled_mut().get_mut(before..).unwrap_or_default();
                self.inbound(came);
                if let Some(next_frame) = next_frame {
                    let left = join(came, next_frame);
                    buf.set_filled(before + left);
                }
                if self.state.flood.get() {
                    cx.waker().wake_by_ref();
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_timer(cx).map(Err),
        }
    }

    /// Not where the connection's owner sends it away, nor until the owner lets it go on.
    fn may_read(&self) -> bool {
        !self.state.flood.get() && self.state.pause().is_none()
    }

    fn read_through(&mut self, cx: &mut Context<'_>, intake: &mut Intake, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.may_read() {
            if !intake.is_empty() {
                intake.give(buf);
                return Poll::Ready(Ok(()));
            }
            let next_frame = self.scanner.next_frame();
            // What is left of a frame that h2 has room for, most of a message, goes there without being copied.
            if intake.holds_nothing() && next_frame.is_some_and(|left| left > buf.remaining() / 2) {
                return self.read(cx, buf);
            }
            let before = buf.filled().len();
            let more = ready!(intake.pass(next_frame, buf, |room| self.read(cx, room)))?;
            if !more || buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }

    /// What came of giving the socket something, which may take its time but not for ever.
    fn written<T>(&mut self, cx: &mut Context<'_>, given: Poll<io::Result<T>>, bytes: impl Fn(&T) -> usize) -> Poll<io::Result<T>> {
        self.state.outlet.tried(&given);
        match given {
            Poll::Pending => match self.poll_timer(cx) {
                Poll::Pending => {
                    ready!(self.standstill.poll(cx, self.moved));
                    self.timed_out(TimedOut::Stalled).map(Err)
                }
                ready => ready.map(Err),
            },
            Poll::Ready(Ok(taken)) => {
                let bytes = bytes(&taken) as u64;
                self.moved += bytes.max(1);
                Poll::Ready(Ok(taken))
            }
            failed => failed,
        }
    }
}

impl AsyncRead for FrameTap {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(mut intake) = self.intake.take() else { return Poll::Pending };
        let read = self.read_through(cx, &mut intake, buf);
        self.intake = Some(intake);
        read
    }
}

impl AsyncWrite for FrameTap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let given = Pin::new(&mut self.io).poll_write(cx, buf);
        self.written(cx, given, |bytes| *bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let given = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.written(cx, given, |bytes| *bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let given = Pin::new(&mut self.io).poll_flush(cx);
        self.written(cx, given, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let given = Pin::new(&mut self.io).poll_shutdown(cx);
        self.written(cx, given, |()| 0)
    }
}
