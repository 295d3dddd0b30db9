//! HTTP/2 as the upstream's client (RFC 9113), and no more of it than calls need: one task drives a connection ([`Driver`]); calls
//! write their frames into its outbox and are woken when something of theirs has come ([`Stream`]).
//!
//! Ours and not h2's because it is half of a call's way: header lists go out without state, so that what is said of a caller is encoded
//! once for all its calls, and the head of a call that waits or may be made again is its encoded form.

mod connection;
mod driver;
mod failure;
#[cfg(test)]
mod floods;
mod frame;
mod inlet;
mod outbox;
mod receive;
mod requests;
mod stream;
#[cfg(test)]
mod testing;
mod windows;

pub(super) use connection::Connection;
pub(super) use driver::Driver;
pub(super) use failure::{Failure, Lost};
pub(super) use requests::Requests;
pub(super) use stream::Stream;
