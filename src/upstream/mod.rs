//! THE REAL SERVER: connections to it, and one call's bytes there and back. Nothing gets here without a
//! [`crate::authorization::Permit`].

mod addresses;
mod client_connection;
mod client_stream;
mod connect;
mod exposure;
mod exposure_watch;
mod forward;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod http2;
mod own_call;
mod pool;
mod reflection;
mod request_head;
mod silence;
mod tended;

pub use client_connection::ClientConnection;
pub use client_stream::{ClientStream, StreamLimits};
pub use connect::{Connector, Unreachable};
pub use exposure_watch::watch_exposure;
pub use forward::{Ended, Finished, Passage, forward};
pub use health::watch_health;
pub use pool::Pool;
pub use request_head::{EncodedHead, RequestHead};
