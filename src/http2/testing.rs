//! What the tests and fuzz targets of this room write by hand.

use super::huffman::{CODES, LENGTHS, SYMBOLS};
use std::collections::HashMap;
use std::sync::LazyLock;

/// In Huffman code.
#[cfg(test)]
pub(super) fn encode(text: &[u8]) -> Vec<u8> {
    let mut bits: Vec<bool> = text.iter().flat_map(|octet| code(u16::from(*octet))).collect();
    bits.resize(bits.len().next_multiple_of(8), true);
    bits.chunks(8).map(|octet| octet.iter().fold(0, |octet, bit| octet << 1 | u8::from(*bit))).collect()
}

/// The code of an octet, or of EOS.
pub(super) fn code(symbol: u16) -> Vec<bool> {
    let length = LENGTHS.get(usize::from(symbol)).copied().expect("an octet or EOS");
    let codes = CODES.get(usize::from(length)).expect("no longer than the longest");
    let place = SYMBOLS.iter().position(|other| *other == symbol).expect("all are there") as u32;
    let code = codes.first + place - u32::from(codes.at);
    (0..length).rev().map(|bit| code >> bit & 1 == 1).collect()
}

/// An integer of a header block with a prefix of so many bits, and what comes after it.
pub(super) fn integer(bytes: &[u8], prefix: u32) -> Option<(usize, &[u8])> {
    let (first, mut rest) = bytes.split_first()?;
    let most = (1 << prefix) - 1;
    let mut value = usize::from(*first) & most;
    for place in 0..if value < most { 0 } else { 5 } {
        let (octet, more) = rest.split_first().filter(|_| place < 4)?;
        value += usize::from(octet & 0x7f) << (7 * place);
        rest = more;
        if octet & 0x80 == 0 {
            break;
        }
    }
    Some((value, rest))
}

/// What is in Huffman code, bit by bit.
pub(super) fn decoded(encoded: &[u8]) -> Option<Vec<u8>> {
    static SYMBOLS: LazyLock<HashMap<Vec<bool>, u8>> =
        LazyLock::new(|| (0..=u8::MAX).map(|octet| (code(u16::from(octet)), octet)).collect());
    let (mut bits, mut text) = (Vec::new(), Vec::new());
    for bit in encoded.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1)) {
        bits.push(bit);
        if let Some(octet) = SYMBOLS.get(&bits) {
            text.push(*octet);
            bits.clear();
        }
    }
    (bits.len() < 8 && bits.iter().all(|bit| *bit)).then_some(text)
}

/// A string of a header block, as it is or in Huffman code.
#[cfg(test)]
pub(super) fn text(text: &[u8], encoded: bool) -> Vec<u8> {
    let (flag, bytes) = if encoded { (0x80, encode(text)) } else { (0, text.to_vec()) };
    let mut written = Vec::new();
    match bytes.len().checked_sub(0x7f) {
        None => written.push(flag | bytes.len() as u8),
        Some(mut rest) => {
            written.push(flag | 0x7f);
            while rest >= 0x80 {
                written.push(0x80 | rest as u8);
                rest >>= 7;
            }
            written.push(rest as u8);
        }
    }
    [written, bytes].concat()
}

/// A frame of a stream with a small number.
#[cfg(test)]
pub(super) fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let [.., l0, l1, l2] = payload.len().to_be_bytes();
    [&[l0, l1, l2, kind, flags, 0, 0, 0, stream], payload].concat()
}
