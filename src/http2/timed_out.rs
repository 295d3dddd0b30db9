//! The times that the frame tap watches, by what it says when one of them has ended a connection.

use std::io;

/// A timer of the tap that has ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimedOut {
    /// The first SETTINGS have not come.
    Handshake,
    /// A header block was begun and not ended.
    HeaderBlock,
    /// The socket has taken nothing while bytes waited.
    Stalled,
}

impl TimedOut {
    pub(super) fn error(self) -> io::Error {
        let what = match self {
            TimedOut::Handshake => "no SETTINGS in time",
            TimedOut::HeaderBlock => "an unfinished header block",
            TimedOut::Stalled => "it takes nothing while bytes wait for it",
        };
        io::Error::new(io::ErrorKind::TimedOut, what)
    }
}
