//! What is made of long strings that come again and again, remembered: a client sends the same token with every call. By the whole
//! string, which is compared in a time that does not tell where two differ. Small, and what is no longer used is forgotten.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

/// The longest string that is remembered, in bytes.
pub const MOST: usize = 3 * 1024;

/// How long one may go unused before it is forgotten; up to twice that.
pub const FORGET: Duration = Duration::from_secs(60);

const SLOTS: usize = 64;

/// Strings and what was made of them; at most 64 of them. One a worker thread.
pub struct Memo<T> {
    /// Of [`SLOTS`], once something has been remembered. A string has one place: who floods it with others loses others the time
    /// that they would have saved, and nothing else.
    slots: Vec<Option<Known<T>>>,
    /// By which a place is chosen. Nobody can tell which strings share one.
    factor: u64,
}

struct Known<T> {
    string: Vec<u8>,
    made: T,
    /// Since unused ones were last forgotten.
    used: bool,
}

impl<T> Default for Memo<T> {
    fn default() -> Memo<T> {
        Memo { slots: Vec::new(), factor: RandomState::new().hash_one(()) | 1 }
    }
}

impl<T> Memo<T> {
    /// What `make` makes of `string`, or has made of it before; `None` if it makes nothing or the string is longer than [`MOST`].
    pub fn get(&mut self, string: &[u8], make: impl FnOnce(&[u8]) -> Option<T>) -> Option<&T> {
        if string.len() > MOST {
            return None;
        }
        let place = self.place(string);
        if self.slots.is_empty() {
            self.slots.resize_with(SLOTS, || None);
        }
        let slot = self.slots.get_mut(place)?;
        if !slot.as_ref().is_some_and(|known| same(&known.string, string)) {
            *slot = Some(Known { made: make(string)?, string: string.to_vec(), used: true });
        }
        let known = slot.as_mut()?;
        known.used = true;
        Some(&known.made)
    }

    /// Forgets what has not been used since this was last done.
    pub fn forget_unused(&mut self) {
        for slot in &mut self.slots {
            *slot = slot.take().filter(|known| known.used).map(|known| Known { used: false, ..known });
        }
    }

    /// How many are remembered.
    #[cfg(test)]
    #[allow(clippy::len_without_is_empty)]
    pub(crate) fn len(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// By the length and the last bytes, which of a token are its signature.
    fn place(&self, string: &[u8]) -> usize {
        let end = string.last_chunk().map_or(0, |end| u64::from_le_bytes(*end));
        let mixed = (end ^ string.len() as u64).wrapping_mul(self.factor);
        (mixed >> (u64::BITS - SLOTS.ilog2())) as usize
    }
}

/// Looks at all bytes whatever they are: how long it takes says nothing about a string that somebody else has sent. Many at a time,
/// which aws-lc's comparison does not do.
fn same(known: &[u8], other: &[u8]) -> bool {
    known.len() == other.len() && known.iter().zip(other).fold(0, |differs, (known, other)| differs | (known ^ other)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is held, in bytes.
    fn held(memo: &Memo<Vec<u8>>) -> usize {
        memo.slots.iter().flatten().map(|known| known.string.capacity() + known.made.capacity()).sum()
    }

    fn reversed(string: &[u8]) -> Option<Vec<u8>> {
        (string.first() != Some(&b'!')).then(|| string.iter().rev().copied().collect())
    }

    #[test]
    fn strings_that_share_a_place_are_told_apart_by_every_byte() {
        // All are as long and end alike, so that all have the same place.
        let strings: Vec<Vec<u8>> = (0..200).map(|at| (0..300).map(|other| if at == other { b'1' } else { b'2' }).collect()).collect();
        let mut memo = Memo::default();
        for string in strings.iter().chain(&strings) {
            assert_eq!(memo.place(string), memo.place(&strings[0]));
            assert_eq!(memo.get(string, reversed), reversed(string).as_ref());
            assert_eq!(memo.get(string, |_| panic!("it is known")), reversed(string).as_ref());
        }
    }

    #[test]
    fn what_nothing_is_made_of_or_is_too_long_is_not_known_and_displaces_nothing() {
        let mut memo = Memo::default();
        let (good, bad) = ([b'0'; 160], [&b"!"[..], &[b'0'; 159]].concat());
        assert!(memo.get(&good, reversed).is_some());
        assert_eq!(memo.place(&bad), memo.place(&good));
        assert!(memo.get(&bad, reversed).is_none() && memo.get(&bad, reversed).is_none());
        assert!(memo.get(&good, |_| None).is_some());
        assert!(memo.get(&[b'0'; MOST], reversed).is_some());
        assert_eq!(memo.get(&[b'0'; MOST + 1], reversed), None);
    }

    #[test]
    fn a_flood_of_strings_holds_little() {
        let mut memo = Memo::default();
        for number in 0..2000_u32 {
            let string = [&vec![b'0'; MOST - 20][..], format!("{number:020}").as_bytes()].concat();
            assert_eq!(memo.get(&string, reversed), reversed(&string).as_ref());
            assert!(held(&memo) <= 2 * SLOTS * MOST);
        }
        assert!(memo.len() > SLOTS * 3 / 4, "the places are used: {}", memo.len());
    }

    #[test]
    fn what_is_not_used_is_forgotten() {
        let mut memo = Memo::default();
        // In other places, or else the second is the only one.
        let (used, unused) = ([b'a'; 100], [b'b'; 300]);
        memo.get(&used, reversed);
        memo.get(&unused, reversed);
        memo.forget_unused();
        memo.get(&used, reversed);
        memo.forget_unused();
        assert!(memo.slots.iter().flatten().all(|known| known.string == used));
        memo.forget_unused();
        assert_eq!(held(&memo), 0);
    }

    proptest! {
        #[test]
        fn same_is_equal(a in prop::collection::vec(any::<u8>(), 0..100), at in any::<prop::sample::Index>(), bit in 0..8) {
            prop_assert!(same(&a, &a.clone()));
            if !a.is_empty() {
                let mut b = a.clone();
                b[at.index(a.len())] ^= 1_u8 << bit;
                prop_assert!(!same(&a, &b));
                prop_assert!(!same(&a, &a[..at.index(a.len())]) && !same(&a[..at.index(a.len())], &a));
            }
        }
    }
}
