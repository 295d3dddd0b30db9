//! The fields that a peer may name by a number (RFC 7541 §2.3): those that every connection knows, and those that it has said
//! before, newest first, as many as have room.

use super::field::Entry;
use super::static_table::STATIC_TABLE;
use std::collections::VecDeque;

/// What the peer's fields may count together, in bytes: what SETTINGS grant when they do not say (RFC 9113 §6.5.2).
pub(super) const MOST: usize = 4096;

/// The fields of one connection.
pub(super) struct Table {
    /// Newest first.
    entries: VecDeque<Entry>,
    /// What they count together.
    size: usize,
    /// What the peer lets them count.
    most: usize,
}

impl Table {
    pub(super) fn new() -> Table {
        Table { entries: VecDeque::new(), size: 0, most: MOST }
    }

    /// `None`: the index stands for nothing.
    pub(super) fn get(&self, index: usize) -> Option<&Entry> {
        let place = index.checked_sub(1)?;
        match place.checked_sub(STATIC_TABLE.len()) {
            None => STATIC_TABLE.get(place),
            Some(place) => self.entries.get(place),
        }
    }

    /// One that is larger than the table leaves it empty (RFC 7541 §4.4).
    pub(super) fn insert(&mut self, entry: Entry) {
        self.make_room(entry.size);
        if entry.size <= self.most {
            self.size += entry.size;
            self.entries.push_front(entry);
        }
    }

    /// `None`: it is more than we have granted.
    pub(super) fn resize(&mut self, most: usize) -> Option<()> {
        if most > MOST {
            return None;
        }
        self.most = most;
        self.make_room(0);
        Some(())
    }

    /// The oldest go first.
    fn make_room(&mut self, size: usize) {
        while self.size.saturating_add(size) > self.most {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size -= oldest.size;
        }
    }

    /// What they count together, and how many they are.
    #[cfg(any(test, fuzzing))]
    pub(super) fn held(&self) -> (usize, usize) {
        (self.size, self.entries.len())
    }
}
