//! What may be read of a connection before its owner has been asked: others come first, and what a client's header blocks grow to is
//! not known here.

use std::future::Future;
use std::pin::pin;
use std::task::Context;
use tokio::task::yield_now;

/// What is read of a client connection before the calls it has begun get their turn, in bytes. Nobody waits long for a flood.
const AT_A_TIME: usize = 64 * 1024;

/// What is read of header blocks before it is asked what they have grown to, in bytes: they grow by a hundred and more as they are
/// decoded, and a burst of them must not be in memory all at once. Looked at before each read, which brings some 8 KiB.
const HEADS_AT_A_TIME: usize = 4 * 1024;

/// Why a connection is not read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// Some header blocks have been read. Whoever knows what they have grown to says whether there may be more.
    Heads,
    /// It has read its part: others come first.
    Part,
}

/// Has the task of `cx` woken when nobody else on this thread is left who could go on, and what has come for others has been
/// looked for. A task that wakes itself goes on before that is done: sixty times over, in a `LocalSet`.
pub fn after_everybody_else(cx: &mut Context<'_>) {
    let _ = pin!(yield_now()).poll(cx); // it sees to that when it is first polled
}

/// What may still be read of a connection, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Allowance {
    /// Of anything.
    all: usize,
    /// Of header blocks.
    heads: usize,
}

impl Allowance {
    pub(super) const OF_A_CLIENT: Allowance = Allowance { all: AT_A_TIME, heads: HEADS_AT_A_TIME };

    pub(super) fn less(self, all: usize, heads: usize) -> Allowance {
        Allowance { all: self.all.saturating_sub(all), heads: self.heads.saturating_sub(heads) }
    }

    /// As many heads as in the whole of `part`.
    pub(super) fn more_heads(self, part: Allowance) -> Allowance {
        Allowance { heads: part.heads, ..self }
    }

    pub(super) fn pause(self) -> Option<Pause> {
        match self {
            Allowance { all: 0, .. } => Some(Pause::Part),
            Allowance { heads: 0, .. } => Some(Pause::Heads),
            _ => None,
        }
    }
}
