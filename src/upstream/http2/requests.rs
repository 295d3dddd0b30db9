//! Who may open streams on a connection: it ends once nobody may.

use super::connection::Connection;
use super::frame::flag;
use super::stream::{Stream, StreamState};
use std::rc::Rc;

/// The last stream that is opened: a connection does not live to see the end of its numbers (RFC 9113 §5.1.1).
pub(super) const LAST_STREAM: u32 = (1 << 31) - 1025;

/// How the first header block begins: our fields are in nobody's table, however large the upstream would have it (RFC 7541 §4.2, §6.3).
const NO_TABLE: u8 = 0x20;

/// Opens streams on a connection, which ends when nobody is left who could.
pub(in super::super) struct Requests(Rc<Connection>);

impl Requests {
    pub(super) fn new(connection: &Rc<Connection>) -> Requests {
        connection.openers.set(connection.openers.get() + 1);
        Requests(connection.clone())
    }

    /// What it opens them on.
    pub(in super::super) fn connection(&self) -> &Rc<Connection> {
        &self.0
    }

    /// Streams that the upstream takes at a time.
    pub(in super::super) fn most_streams(&self) -> usize {
        self.0.peer.get().streams as usize
    }

    /// Opens a stream with the header block of a request, which is the whole request if it is `last`. `None`: there will be none
    /// any more on this connection.
    pub(in super::super) fn open(&self, head: &[u8], last: bool) -> Option<Stream> {
        let connection = &self.0;
        let id = connection.next_stream.get();
        if !connection.is_open() || connection.going_away.get() || id > LAST_STREAM {
            connection.going_away.set(true);
            return None;
        }
        connection.next_stream.set(id + 2);
        let begins_at = connection.outbox.borrow().put();
        let flags = if last { flag::END_STREAM } else { 0 };
        match id {
            1 => connection.header_block(flags, id, &[&[NO_TABLE], head].concat()),
            _ => connection.header_block(flags, id, head),
        }
        let state = StreamState::new(id, begins_at, connection.peer.get().initial_window, connection.stream_window, last);
        connection.streams.borrow_mut().insert(id, state.clone());
        Some(Stream::new(state, connection.clone()))
    }
}

impl Clone for Requests {
    fn clone(&self) -> Requests {
        Requests::new(&self.0)
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.0.openers.set(self.0.openers.get() - 1);
        if self.0.openers.get() == 0 {
            self.0.wake_driver();
        }
    }
}
