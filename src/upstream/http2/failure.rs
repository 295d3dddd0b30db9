//! Why a call got no whole answer from a connection, as far as the connection knows.

use h2::Reason;
use std::rc::Rc;

/// What became of a stream.
#[derive(Debug, Clone)]
pub(in super::super) struct Failure {
    pub(in super::super) lost: Lost,
    /// The upstream has surely not seen the call: it says so (RFC 9113 §8.7), or not a byte of it was written.
    pub(in super::super) unseen: bool,
}

/// How it was lost.
#[derive(Debug, Clone)]
pub(in super::super) enum Lost {
    /// The upstream reset it, or we did because of what it sent.
    Reset(Reason),
    /// A header list was larger than our limit.
    Oversized,
    /// With its connection, or before it had one; in words.
    Connection(Rc<str>),
}

impl Failure {
    /// The upstream has reset the stream.
    pub(super) fn reset_by_upstream(reason: Reason) -> Failure {
        Failure { lost: Lost::Reset(reason), unseen: reason == Reason::REFUSED_STREAM }
    }

    /// The upstream has broken the rules on it.
    pub(super) fn breach(reason: Reason) -> Failure {
        Failure { lost: Lost::Reset(reason), unseen: false }
    }

    /// There is no connection for it any more.
    pub(in super::super) fn no_connection() -> Failure {
        Failure::connection("its connection ended".into(), true)
    }

    pub(super) fn oversized() -> Failure {
        Failure { lost: Lost::Oversized, unseen: false }
    }

    pub(super) fn connection(why: Rc<str>, unseen: bool) -> Failure {
        Failure { lost: Lost::Connection(why), unseen }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.lost {
            Lost::Reset(reason) => write!(f, "the stream was reset: {reason}"),
            Lost::Oversized => f.write_str("a header list is larger than limits.header_bytes"),
            Lost::Connection(why) => f.write_str(why),
        }
    }
}
