//! What both sides of a call share of HTTP/2: the socket with its frame tap, our own header rules, one direction's relay,
//! and the windows. Knows neither who is client nor what a call means.

mod frames;
mod headers;
mod io;
mod relay;
mod tap;

pub use headers::{HeaderLimits, Unacceptable};
pub use io::Io;
pub use relay::{Broken, Relay, Relayed};
pub use tap::{FrameTap, TapState};

/// What one stream may have in flight towards us before it is forwarded, in bytes. It bounds our buffer of one stream.
pub const STREAM_WINDOW: u32 = 256 * 1024;

/// What one connection may have in flight towards us, in bytes: more than sixteen stalled streams' worth, so that
/// sixteen peers that do not read never stop the seventeenth on a shared connection.
pub const CONNECTION_WINDOW: u32 = 17 * STREAM_WINDOW;

/// The same for a connection to the upstream, which many clients share: one of them that does not read must not stop the
/// others before new calls are given another connection.
pub const UPSTREAM_CONNECTION_WINDOW: u32 = 64 * STREAM_WINDOW;

/// What h2 may queue for one stream before the socket takes it, in bytes.
pub const SEND_BUFFER: usize = 64 * 1024;

/// h2 ends a connection whose small unread DATA frames use up this budget (bytes of framing overhead). We take frames as
/// they come, so only those of refused and cancelled streams count: set so high that they never end a shared connection
/// while a flood still does.
pub const DATA_FRAME_BUDGET: usize = 16 * 1024 * 1024;

/// How many times our own header limit h2 is given, so that it is we who answer (with the right status) up to there.
pub const HEADER_LIST_HEADROOM: usize = 4;
