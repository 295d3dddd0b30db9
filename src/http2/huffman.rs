//! Decodes HPACK's Huffman code (RFC 7541 §5.2 and Appendix B). The code is canonical: ordered by length and symbol, each code is
//! the one before it plus one. So the lengths say it all.

/// The end of a string, which no string may hold.
const EOS: u16 = 256;

/// Of every octet's code and that of EOS, in bits.
#[rustfmt::skip]
pub(super) const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// What a token is made of takes no more bits than this, and one look-up.
const SHORT: u8 = 8;

const LONGEST: u8 = 30;

/// Appends what `encoded` stands for. `false`: it is malformed, and what has been appended means nothing.
pub(super) fn decode(encoded: &[u8], decoded: &mut Vec<u8>) -> bool {
    let (mut rest, mut bits, mut count) = (encoded, 0_u64, 0_u8);
    loop {
        if count < LONGEST {
            (rest, bits, count) = refilled(rest, bits, count);
        }
        let [next, ..] = bits.to_be_bytes();
        let (mut symbol, mut length) = BY_FIRST_BITS.get(usize::from(next)).copied().unwrap_or_default();
        if length == 0 {
            (symbol, length) = long(bits, count).unwrap_or((0, u8::MAX));
        }
        if length > count {
            // Padding is the beginning of EOS, and less than an octet of it.
            return rest.is_empty() && count < 8 && bits.leading_ones() == u32::from(count);
        }
        decoded.push(symbol);
        bits <<= length;
        count -= length;
    }
}

/// With all the octets that there is room for. `bits` are from the highest down; below `count` of them may be more of what comes
/// next, which is then written there again.
fn refilled(mut rest: &[u8], mut bits: u64, mut count: u8) -> (&[u8], u64, u8) {
    if let Some(word) = rest.first_chunk::<8>() {
        let octets = (63 - count) / 8;
        bits |= u64::from_be_bytes(*word) >> count;
        return (rest.get(usize::from(octets)..).unwrap_or_default(), bits, count + 8 * octets);
    }
    while let Some((octet, others)) = rest.split_first().filter(|_| count <= 56) {
        bits |= u64::from(*octet) << (56 - count);
        (rest, count) = (others, count + 8);
    }
    (rest, bits, count)
}

/// The symbol whose code comes next, longer than [`SHORT`], and its length. EOS is none.
fn long(bits: u64, count: u8) -> Option<(u8, u8)> {
    (SHORT + 1..=LONGEST.min(count)).find_map(|length| {
        let Codes { first, end, at } = CODES.get(usize::from(length))?;
        let code = (bits >> (64 - length)) as u32;
        let place = (*first..*end).contains(&code).then(|| usize::from(*at) + (code - first) as usize)?;
        Some((u8::try_from(*SYMBOLS.get(place)?).ok()?, length))
    })
}

/// The codes of one length.
#[derive(Clone, Copy)]
pub(super) struct Codes {
    pub(super) first: u32,
    /// The one after the last.
    end: u32,
    /// Where the first one's symbol is among [`SYMBOLS`].
    pub(super) at: u16,
}

/// Ordered by their codes.
pub(super) const SYMBOLS: [u16; 257] = symbols();

/// By length.
pub(super) const CODES: [Codes; LONGEST as usize + 1] = codes();

/// The symbol whose code a byte begins with, and that code's length; 0 where it is longer than [`SHORT`].
static BY_FIRST_BITS: [(u8, u8); 1 << SHORT] = by_first_bits();

#[allow(clippy::indexing_slicing)] // at compile time
const fn symbols() -> [u16; 257] {
    let (mut symbols, mut at, mut length) = ([0; 257], 0, 1);
    while length <= LONGEST {
        let mut symbol = 0;
        while symbol <= EOS {
            if LENGTHS[symbol as usize] == length {
                symbols[at] = symbol;
                at += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    symbols
}

#[allow(clippy::indexing_slicing)] // at compile time
const fn codes() -> [Codes; LONGEST as usize + 1] {
    let mut codes = [Codes { first: 0, end: 0, at: 0 }; LONGEST as usize + 1];
    let (mut next, mut at, mut length) = (0, 0, 1);
    while length <= LONGEST {
        let (first, first_at) = (next << 1, at);
        next = first;
        while at < SYMBOLS.len() && LENGTHS[SYMBOLS[at] as usize] == length {
            next += 1;
            at += 1;
        }
        codes[length as usize] = Codes { first, end: next, at: first_at as u16 };
        length += 1;
    }
    codes
}

#[allow(clippy::indexing_slicing)] // at compile time
const fn by_first_bits() -> [(u8, u8); 1 << SHORT] {
    let mut table = [(0, 0); 1 << SHORT];
    let mut length = 1;
    while length <= SHORT {
        let Codes { first, end, at } = CODES[length as usize];
        let mut code = first;
        while code < end {
            let symbol = SYMBOLS[at as usize + (code - first) as usize] as u8;
            let mut rest = 0;
            while rest < 1 << (SHORT - length) {
                table[(code << (SHORT - length)) as usize + rest] = (symbol, length);
                rest += 1;
            }
            code += 1;
        }
        length += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::testing::{code, encode};
    use super::*;
    use proptest::prelude::*;

    fn decoded(encoded: &[u8]) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        decode(encoded, &mut text).then_some(text)
    }

    fn octets(bits: &[bool]) -> Vec<u8> {
        assert_eq!(bits.len() % 8, 0);
        bits.chunks(8).map(|octet| octet.iter().fold(0, |octet, bit| octet << 1 | u8::from(*bit))).collect()
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7541 C.4 and C.6.
        for (encoded, text) in [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            ("25a849e95ba97d7f", "custom-key"),
            ("25a849e95bb8e8b4bf", "custom-value"),
            ("6402", "302"),
            ("d07abe941054d444a8200595040b8166e082a62d1bff", "Mon, 21 Oct 2013 20:13:21 GMT"),
            (
                "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            ),
        ] {
            let encoded: Vec<u8> = (0..encoded.len()).step_by(2).map(|at| u8::from_str_radix(&encoded[at..at + 2], 16).unwrap()).collect();
            assert_eq!(decoded(&encoded).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn the_longest_codes_of_appendix_b() {
        for (symbol, expected, length) in [(10, 0x3fff_fffc_u32, 30), (22, 0x3fff_fffe, 30), (249, 0xfff_fffe, 28), (EOS, 0x3fff_ffff, 30)]
        {
            assert_eq!(code(symbol), (0..length).rev().map(|bit| expected >> bit & 1 == 1).collect::<Vec<_>>());
        }
    }

    #[test]
    fn padding_is_less_than_an_octet_of_ones() {
        let ones = |count| vec![true; count];
        assert_eq!(decoded(&[]).unwrap(), b"");
        assert_eq!(decoded(&octets(&[code(b'a'.into()), ones(3)].concat())).unwrap(), b"a");
        assert_eq!(decoded(&octets(&[code(b'X'.into())].concat())).unwrap(), b"X");
        for wrong in [
            ones(8),
            [code(b'X'.into()), ones(8)].concat(),
            [code(b'a'.into()), vec![true, true, false]].concat(),
            [code(b'a'.into()), ones(11)].concat(),
            // A code that is cut: '!' begins with seven ones.
            [code(b'X'.into()), code(b'!'.into())[..8].to_vec()].concat(),
        ] {
            assert_eq!(decoded(&octets(&wrong)), None, "{wrong:?}");
        }
    }

    #[test]
    fn eos_ends_nothing() {
        let with_eos = [code(EOS), vec![true; 2]].concat();
        assert_eq!(decoded(&octets(&with_eos)), None);
        let between = [code(b'0'.into()), code(EOS), code(b'0'.into())].concat();
        assert_eq!(decoded(&octets(&between)), None);
    }

    proptest! {
        #[test]
        fn every_text_comes_back(text in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(decoded(&encode(&text)), Some(text));
        }

        /// Nothing is taken that is not what somebody would have encoded: the code leaves no choice.
        #[test]
        fn whatever_is_taken_is_what_encoding_gives(encoded in prop::collection::vec(prop::sample::select((0..=255).chain([255; 200]).collect::<Vec<u8>>()), 0..12)) {
            if let Some(text) = decoded(&encoded) {
                prop_assert_eq!(encode(&text), encoded);
            }
        }
    }
}
