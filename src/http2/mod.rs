//! What both sides of a call share of HTTP/2: the socket, our own header rules, one direction's relay, and the windows; what stands
//! between a client's socket and h2; and header compression towards the upstream. Knows nothing of what a call means.

mod allowance;
mod authority;
mod backlog;
mod frames;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod headers;
pub mod hpack;
mod huffman;
mod intake;
mod io;
mod join;
mod outlet;
mod plain_literals;
mod relay;
mod standstill;
mod tap;
#[cfg(any(test, fuzzing))]
mod testing;
mod timed_out;

pub use allowance::{Pause, after_everybody_else};
pub use authority::{MalformedAuthority, authority};
pub use headers::{HeaderLimits, Unacceptable, weight};
pub use intake::Intakes;
pub use io::Io;
pub use outlet::{Outlet, Turn};
pub use relay::{Broken, Relay, Relayed, Sink, Source};
pub use standstill::Standstill;
pub use tap::{FrameTap, TapState};
pub use timed_out::TimedOut;

/// What one stream of a client may have in flight towards us before it is forwarded, in bytes; its buffer here, at most.
pub const CLIENT_STREAM_WINDOW: u32 = 96 * 1024;

/// What a client connection may have in flight towards us, in bytes: more than sixteen stalled streams' worth. However
/// many streams it has, its uploads hold no more than that here.
pub const CLIENT_CONNECTION_WINDOW: u32 = 17 * CLIENT_STREAM_WINDOW;

/// What the answer of one call may have in flight towards us before the client takes it, in bytes; its buffer here, at
/// most. Smaller than a client's: the upstream is on the same machine, so a window's way there and back is short.
pub const UPSTREAM_STREAM_WINDOW: u32 = 32 * 1024;

/// What an upstream connection that many clients share may have in flight, in bytes: no bound (RFC 9113 §6.9.1 allows no
/// more), for what one client does not read would use it up for all. Each stream has its own.
pub const SHARED_CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// What an upstream connection that one client has to itself may have in flight, in bytes: this bounds what its many
/// calls hold, and sixteen of them that are not read do not stop the seventeenth.
pub const OWN_CONNECTION_WINDOW: u32 = 17 * UPSTREAM_STREAM_WINDOW;

/// What h2 may queue for one stream before the socket takes it, in bytes: one DATA frame of the usual size. Nothing is
/// queued at all while the socket takes nothing ([`Outlet`]).
pub const SEND_BUFFER: usize = 16 * 1024;

/// h2 ends a connection whose small unread DATA frames use up this budget (bytes of framing overhead). We take frames as
/// they come, so only those of refused and cancelled streams count: set so high that they never end a shared connection
/// while a flood still does.
pub const DATA_FRAME_BUDGET: usize = 16 * 1024 * 1024;

/// How many times our own header limit h2 is given, so that it is we who answer (with the right status) up to there.
pub const HEADER_LIST_HEADROOM: usize = 4;
