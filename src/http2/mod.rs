//! What both sides of a call share of HTTP/2: the socket with its frame tap, our own header rules, one direction's relay,
//! and the windows. Knows neither who is client nor what a call means.

mod authority;
mod frames;
mod headers;
mod io;
mod relay;
mod standstill;
mod tap;

pub use authority::{MalformedAuthority, authority};
pub use headers::{HeaderLimits, Unacceptable};
pub use io::Io;
pub use relay::{Broken, Ledgers, Relay, Relayed};
pub use standstill::Standstill;
pub use tap::{FrameTap, TapState, TimedOut};

/// What one stream may have in flight towards us before it is forwarded, in bytes. It bounds our buffer of one stream.
pub const STREAM_WINDOW: u32 = 256 * 1024;

/// What one connection may have in flight towards us, in bytes: more than sixteen stalled streams' worth, so that
/// sixteen peers that do not read never stop the seventeenth on a shared connection.
pub const CONNECTION_WINDOW: u32 = 17 * STREAM_WINDOW;

/// What h2 may queue for one stream before the socket takes it, in bytes.
pub const SEND_BUFFER: usize = 32 * 1024;

/// h2 ends a connection whose small unread DATA frames use up this budget (bytes of framing overhead). We take frames as
/// they come, so only those of refused and cancelled streams count: set so high that they never end a shared connection
/// while a flood still does.
pub const DATA_FRAME_BUDGET: usize = 16 * 1024 * 1024;

/// How many times our own header limit h2 is given, so that it is we who answer (with the right status) up to there.
pub const HEADER_LIST_HEADROOM: usize = 4;

/// Never less than this for an answer, in bytes: h2 ends the whole connection at four times its limit, and with it the calls
/// of others; up to there an answer that is too large is its own call's loss alone.
pub const HEADER_LIST_LEAST: usize = 1024 * 1024;
