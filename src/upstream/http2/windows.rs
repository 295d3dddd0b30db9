//! Flow control (RFC 9113 §6.9), in both directions.

use h2::Reason;

/// Of a stream or connection, before anybody says anything, in bytes.
pub(super) const INITIAL: i64 = 65_535;

const LARGEST: i64 = (1 << 31) - 1;

/// What may be sent, in bytes; a change of SETTINGS can make it less than nothing (§6.9.2).
#[derive(Debug, Clone, Copy)]
pub(super) struct SendWindow(pub(super) i64);

impl SendWindow {
    /// Changes it. More than there can be is an error of the peer.
    pub(super) fn change(&mut self, by: i64) -> Result<(), Reason> {
        self.0 += by;
        if self.0 > LARGEST { Err(Reason::FLOW_CONTROL_ERROR) } else { Ok(()) }
    }

    pub(super) fn take(&mut self, bytes: usize) {
        self.0 -= bytes as i64;
    }

    /// Bytes that may be sent.
    pub(super) fn room(self) -> usize {
        usize::try_from(self.0).unwrap_or_default()
    }
}

/// What the peer may send.
#[derive(Debug)]
pub(super) struct ReceiveWindow {
    /// What it may still send, as it knows.
    left: u32,
    /// What it may send beyond that, once it is told.
    owed: u32,
}

impl ReceiveWindow {
    pub(super) fn new(size: u32) -> ReceiveWindow {
        ReceiveWindow { left: size, owed: 0 }
    }

    /// So many bytes have come.
    pub(super) fn take(&mut self, bytes: u32) -> Result<(), Reason> {
        self.left = self.left.checked_sub(bytes).ok_or(Reason::FLOW_CONTROL_ERROR)?;
        Ok(())
    }

    /// So many of them are done with; what the peer is to be told, if that is worth while: half of what it may still send. When it
    /// may send nothing, that is anything.
    pub(super) fn give_back(&mut self, bytes: u32) -> Option<u32> {
        self.owed += bytes;
        if self.owed == 0 || self.owed < self.left / 2 {
            return None;
        }
        self.left += self.owed;
        Some(std::mem::take(&mut self.owed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_is_allowed_is_not_taken() {
        let mut window = ReceiveWindow::new(100);
        assert!(window.take(60).is_ok() && window.take(41).is_err());
    }

    #[test]
    fn what_is_done_with_is_given_back_once_it_is_half_of_what_is_left() {
        let mut window = ReceiveWindow::new(100);
        window.take(60).unwrap();
        assert_eq!((window.give_back(19), window.give_back(1), window.give_back(0)), (None, Some(20), None));
        window.take(60).unwrap();
        assert_eq!(window.give_back(1), Some(1), "what others hold is no reason to wait");
        assert!(window.take(2).is_err());
    }

    #[test]
    fn a_window_may_be_less_than_nothing_and_never_more_than_there_can_be() {
        let mut window = SendWindow(INITIAL);
        window.take(60_000);
        window.change(-INITIAL).unwrap();
        assert_eq!((window.0, window.room()), (5535 - INITIAL, 0));
        assert!(window.change(LARGEST - window.0).is_ok() && window.change(1).is_err());
    }
}
