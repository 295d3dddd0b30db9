//! What strings in Huffman code stand for, remembered: clients send the same token with every call. By the whole encoded string,
//! which is compared in a time that does not tell where two differ. Small, and what is no longer used is forgotten.

use super::huffman;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// The longest string that is remembered, in encoded bytes; decoded it is at most 8/5 of that. With [`SLOTS`] it bounds the whole
/// to half a MiB.
pub(super) const MOST: usize = 3 * 1024;

const SLOTS: usize = 64;

/// Strings and what they stand for. One a worker thread.
pub(super) struct Memo {
    /// Of [`SLOTS`], once something has been remembered. A string has one place: who floods it with others loses others the time
    /// that they would have saved, and nothing else.
    slots: Vec<Option<Known>>,
    /// By which a place is chosen. Nobody can tell which strings share one.
    factor: u64,
}

struct Known {
    encoded: Vec<u8>,
    decoded: Vec<u8>,
    /// Since unused ones were last forgotten.
    used: bool,
}

impl Default for Memo {
    fn default() -> Memo {
        Memo { slots: Vec::new(), factor: RandomState::new().hash_one(()) | 1 }
    }
}

impl Memo {
    /// What `encoded` stands for; `None` if it is malformed or longer than [`MOST`].
    pub(super) fn decoded(&mut self, encoded: &[u8]) -> Option<&[u8]> {
        if encoded.len() > MOST {
            return None;
        }
        let place = self.place(encoded);
        if self.slots.is_empty() {
            self.slots.resize_with(SLOTS, || None);
        }
        let slot = self.slots.get_mut(place)?;
        if !slot.as_ref().is_some_and(|known| same(&known.encoded, encoded)) {
            let mut decoded = Vec::with_capacity(encoded.len() * 8 / 5);
            if !huffman::decode(encoded, &mut decoded) {
                return None;
            }
            *slot = Some(Known { encoded: encoded.to_vec(), decoded, used: true });
        }
        let known = slot.as_mut()?;
        known.used = true;
        Some(&known.decoded)
    }

    /// Forgets what has not been used since this was last done.
    pub(super) fn forget_unused(&mut self) {
        for slot in &mut self.slots {
            *slot = slot.take().filter(|known| known.used).map(|known| Known { used: false, ..known });
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// By the length and the last bytes, which of a token are its signature.
    fn place(&self, encoded: &[u8]) -> usize {
        let end = encoded.last_chunk().map_or(0, |end| u64::from_le_bytes(*end));
        let mixed = (end ^ encoded.len() as u64).wrapping_mul(self.factor);
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
    use super::super::testing::encode;
    use super::*;
    use proptest::prelude::*;

    /// What is held, in bytes.
    fn held(memo: &Memo) -> usize {
        memo.slots.iter().flatten().map(|known| known.encoded.capacity() + known.decoded.capacity()).sum()
    }

    #[test]
    fn strings_that_share_a_place_are_told_apart_by_every_byte() {
        // Texts of one length whose codes are as long: digits of five bits. All end alike, so that all have the same place.
        let texts = (0..1024_u32).map(|number| format!("{number:b}").replace('0', "2").into_bytes());
        let texts: Vec<Vec<u8>> = texts.map(|text| [&text[..], &[b'1'; 200][text.len()..]].concat()).collect();
        let mut memo = Memo::default();
        for text in texts.iter().chain(&texts) {
            let encoded = encode(text);
            assert_eq!(memo.place(&encoded), memo.place(&encode(&texts[0])));
            assert_eq!(memo.decoded(&encoded), Some(&text[..]));
            assert_eq!(memo.decoded(&encoded), Some(&text[..]), "and once it is known");
        }
    }

    #[test]
    fn what_is_malformed_or_too_long_is_not_known_and_displaces_nothing() {
        let mut memo = Memo::default();
        let good = encode(&[b'0'; 160]);
        assert!(memo.decoded(&good).is_some());
        let mut bad = good.clone();
        bad[50] = 0xff;
        bad[51..55].fill(0xff); // EOS
        assert_eq!(memo.place(&bad), memo.place(&good));
        assert_eq!(memo.decoded(&bad), None);
        assert_eq!(memo.decoded(&bad), None);
        assert!(memo.slots[memo.place(&good)].as_ref().is_some_and(|known| known.encoded == good));
        assert_eq!(memo.decoded(&encode(&vec![b'0'; MOST * 8 / 5 + 2])), None);
    }

    #[test]
    fn a_flood_of_strings_holds_half_a_megabyte() {
        let mut memo = Memo::default();
        for number in 0..2000_u32 {
            let text = [&vec![b'0'; MOST * 8 / 5 - 20][..], number.to_string().as_bytes()].concat();
            assert_eq!(memo.decoded(&encode(&text)), Some(&text[..]));
            assert!(held(&memo) <= 512 * 1024);
        }
        assert!(held(&memo) > 400 * 1024, "all places are used: {}", held(&memo));
    }

    #[test]
    fn what_is_not_used_is_forgotten() {
        let mut memo = Memo::default();
        let (used, unused) = (encode(&[b'a'; 100]), encode(&[b'b'; 300]));
        // In other places, or else the second is the only one.
        memo.decoded(&used);
        memo.decoded(&unused);
        memo.forget_unused();
        memo.decoded(&used);
        memo.forget_unused();
        assert!(memo.slots.iter().flatten().all(|known| known.encoded == used));
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
