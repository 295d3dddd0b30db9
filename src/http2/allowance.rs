//! What may be read of an accepted connection before its owner has been asked: others come first, and what header blocks grow to is
//! not known here.

/// What is read of a client connection before the calls it has begun get their turn, in bytes. Nobody waits long for a flood.
const AT_A_TIME: usize = 64 * 1024;

/// What is read of header blocks before it is asked what they have grown to, in bytes: they grow by a hundred and more as they are
/// decoded, and a burst of them must not be in memory all at once. Looked at before each read, which brings some 8 KiB.
const HEADS_AT_A_TIME: usize = 4 * 1024;

/// Why an accepted connection is not read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// Some header blocks have been read. Whoever knows what they have grown to says whether there may be more.
    Heads,
    /// It has read its part: others come first.
    Part,
}

/// What may still be read of a connection, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    /// Of anything.
    all: usize,
    /// Of header blocks.
    heads: usize,
}

impl Allowance {
    pub(super) const WHOLE: Allowance = Allowance { all: AT_A_TIME, heads: HEADS_AT_A_TIME };

    pub(super) fn less(self, all: usize, heads: usize) -> Allowance {
        Allowance { all: self.all.saturating_sub(all), heads: self.heads.saturating_sub(heads) }
    }

    pub(super) fn more_heads(self) -> Allowance {
        Allowance { heads: HEADS_AT_A_TIME, ..self }
    }

    pub(super) fn pause(self) -> Option<Pause> {
        match self {
            Allowance { all: 0, .. } => Some(Pause::Part),
            Allowance { heads: 0, .. } => Some(Pause::Heads),
            _ => None,
        }
    }
}
