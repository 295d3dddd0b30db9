<<<<<<< HEAD
//! THE REAL SERVER: connections to it, and one call's bytes there and back. Nothing gets here without a
//! [`crate::authorization::Permit`].

mod client_stream;
mod connect;
mod forward;
mod pool;

pub use client_stream::ClientStream;
pub use connect::{Connector, Unreachable};
pub use forward::{Ended, Finished, Passage, forward};
pub use pool::Pool;
=======
//! THE REAL SERVER: the service behind us.

pub mod exposure;
>>>>>>> ops
