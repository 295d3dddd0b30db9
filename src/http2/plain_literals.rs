//! Writes long values in plain that clients send in Huffman code (RFC 7541 §5.2), before h2 sees them: a token comes with every
//! call, and decoding it each time would be an eighth of the CPU of a call. Only values that go into no table: those that do come
//! once, and there they would keep all that was read along with them. Whatever is not understood stays as it came; h2 judges it.

use super::frames::{END_HEADERS, HEADER, HEADERS};
use super::hpack::{Block, Text, append_integer};
use super::huffman;
use super::join::MOST;
use crate::memo::{self, Memo};
use std::ops::RangeInclusive;

/// Encoded lengths that are worth a look into the memo.
const LONG: RangeInclusive<usize> = 64..=memo::MOST;

/// The largest frame that is waited for, in bytes, when only its beginning has come.
pub(super) const WAITED_FOR: usize = 4 * 1024;

const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// How far [`append_plainly`] has come.
pub(super) struct Appended {
    /// What comes from here on is as it should be, and has not been appended.
    pub(super) up_to: usize,
    /// At the end is the beginning of a frame that is rewritten once it has come whole: from here on.
    pub(super) whole: usize,
}

/// Appends `bytes` to `to`, as far as anything in them is rewritten. The first frame in them begins at `start`.
pub(super) fn append_plainly(bytes: &[u8], start: usize, memo: &mut Memo<Vec<u8>>, to: &mut Vec<u8>) -> Appended {
    let mut from = start;
    let mut done = Appended { up_to: 0, whole: bytes.len() };
    while let Some(left @ [_, ..]) = bytes.get(from..) {
        let Some(([l0, l1, l2, kind, flags, ..], _)) = left.split_first_chunk::<HEADER>() else {
            done.whole = from;
            break;
        };
        let length = HEADER + (usize::from(*l0) << 16 | usize::from(*l1) << 8 | usize::from(*l2));
        if *kind == HEADERS && flags & (END_HEADERS | PADDED) == END_HEADERS {
            let Some(frame) = left.get(..length) else {
                if length <= WAITED_FOR {
                    done.whole = from;
                }
                break;
            };
            if append_frame(bytes.get(done.up_to..from).unwrap_or_default(), frame, *flags, memo, to) {
                done.up_to = from + length;
            }
        }
        from += length;
    }
    done
}

/// Appends what comes `before` a frame of one whole header block, and the frame; or nothing, when it had better stay as it is.
fn append_frame(before: &[u8], frame: &[u8], flags: u8, memo: &mut Memo<Vec<u8>>, to: &mut Vec<u8>) -> bool {
    let start = to.len();
    let appended = append_rewritten(before, frame, flags, memo, to).is_some();
    if !appended {
        to.truncate(start);
    }
    appended
}

/// The same, but leaves behind what it has appended when there is nothing to append.
fn append_rewritten(before: &[u8], frame: &[u8], flags: u8, memo: &mut Memo<Vec<u8>>, to: &mut Vec<u8>) -> Option<()> {
    let mut block = Block::new(frame, HEADER + if flags & PRIORITY == 0 { 0 } else { 5 });
    let start = to.len() + before.len();
    let mut appended = 0;
    while block.peek().is_some() {
        let Some(value) = value(&mut block)?.filter(|value| value.encoded && LONG.contains(&value.bytes.len())) else { continue };
        if appended == 0 {
            to.extend_from_slice(before); // not sooner: many frames have nothing that is rewritten
        }
        to.extend_from_slice(frame.get(appended..value.at)?);
        let plain = memo.get(value.bytes, plain)?;
        append_integer(0, 7, plain.len(), to);
        to.extend_from_slice(plain);
        appended = block.at();
    }
    if appended == 0 {
        return None;
    }
    to.extend_from_slice(frame.get(appended..)?);
    let length = to.len() - start - HEADER;
    let [.., l0, l1, l2] = length.to_be_bytes();
    to.get_mut(start..)?.first_chunk_mut::<3>().map(|place| *place = [l0, l1, l2]).filter(|()| length <= MOST)
}

fn plain(encoded: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(encoded.len() * 8 / 5); // no code is shorter than five bits
    huffman::decode(encoded, &mut plain).then_some(plain)
}

/// The value of the next field, if it is written out and goes into no table (RFC 7541 §6). `None` where the block is malformed.
fn value<'a>(block: &mut Block<'a>) -> Option<Option<Text<'a>>> {
    match block.peek()? {
        0x80.. => block.integer(7).map(|_| None),  // indexed
        0x40.. => literal(block, 6).map(|_| None), // goes into the table
        0x20.. => block.integer(5).map(|_| None),  // the table's size
        _ => literal(block, 4).map(Some),
    }
}

/// The value of a field whose name's index has a prefix of so many bits; 0: the name is written out as well.
fn literal<'a>(block: &mut Block<'a>, prefix: u32) -> Option<Text<'a>> {
    if block.integer(prefix)? == 0 {
        block.text()?;
    }
    block.text()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{frame, text};
    use super::*;
    use proptest::prelude::*;

    const END_STREAM: u8 = 0x1;
    const WITHOUT_INDEX: u8 = 0x00;
    const NEVER_INDEXED: u8 = 0x10;

    /// `:method: POST`, `authorization`, whose name has an index, and a name that has none.
    fn block(form: u8, token: &[u8], encoded: bool) -> Vec<u8> {
        let authorization = match form {
            0x40 => vec![0x40 | 23],
            form => vec![form | 15, 23 - 15],
        };
        [vec![0x83], authorization, text(token, encoded), vec![0], text(b"x-name", true), text(b"value", true)].concat()
    }

    fn headers(flags: u8, block: &[u8]) -> Vec<u8> {
        frame(HEADERS, flags, 1, block)
    }

    /// What becomes of it, and how much of that had better wait.
    fn plainly(came: &[u8], start: usize) -> (Vec<u8>, usize) {
        let mut to = b"before".to_vec();
        let Appended { up_to, whole } = append_plainly(came, start, &mut Memo::default(), &mut to);
        assert_eq!(to[..6], *b"before");
        to.extend_from_slice(&came[up_to..]);
        (to.split_off(6), came.len() - whole)
    }

    #[track_caller]
    fn stays(came: &[u8]) {
        assert_eq!(plainly(came, 0), (came.to_vec(), 0));
    }

    #[test]
    fn a_long_value_in_huffman_code_is_written_in_plain_and_nothing_else() {
        for (form, flags) in [(WITHOUT_INDEX, END_HEADERS), (NEVER_INDEXED, END_HEADERS | END_STREAM)] {
            for length in [120, 160, 300, 4700] {
                let token = vec![b'1'; length];
                let data = frame(0, 0, 1, &[7; 30]);
                let came =
                    [&data[..], &headers(flags, &block(form, &token, true)), &data, &headers(flags, &block(form, &token, true))].concat();
                let plain = headers(flags, &block(form, &token, false));
                assert_eq!(plainly(&came, 0), ([&data[..], &plain, &data, &plain].concat(), 0));
                assert_eq!(plainly(&[b"skipped", &came[..]].concat(), 7).0, [b"skipped", &data[..], &plain, &data, &plain].concat());
            }
        }
    }

    #[test]
    fn a_priority_before_the_block_stays() {
        let priority = [0, 0, 0, 0, 15];
        let with = |encoded| headers(END_HEADERS | PRIORITY, &[&priority[..], &block(NEVER_INDEXED, &[b'1'; 300], encoded)].concat());
        assert_eq!(plainly(&with(true), 0), (with(false), 0));
        stays(&headers(END_HEADERS | PRIORITY, &priority[..4]));
    }

    #[test]
    fn what_goes_into_a_table_or_is_short_or_very_long_stays() {
        stays(&headers(END_HEADERS, &block(0x40, &[b'1'; 300], true)));
        stays(&headers(END_HEADERS, &block(NEVER_INDEXED, &[b'1'; 90], true)));
        stays(&headers(END_HEADERS, &block(NEVER_INDEXED, &[b'1'; 300], false)));
        stays(&headers(END_HEADERS, &block(NEVER_INDEXED, &vec![b'1'; memo::MOST * 8 / 5 + 8], true)));
        stays(&headers(END_HEADERS, &[]));
    }

    #[test]
    fn what_is_padded_unfinished_malformed_or_would_be_too_large_stays() {
        let good = block(NEVER_INDEXED, &[b'1'; 300], true);
        // The padding's length would pass for a field, and the padding for 43.
        stays(&headers(END_HEADERS | PADDED, &[&[0x81], &good[..], &[0; 129]].concat()));
        stays(&headers(END_STREAM, &good));
        stays(&frame(9, END_HEADERS, 1, &good));
        let token_ends = good.len() - 1 - text(b"x-name", true).len() - text(b"value", true).len();
        for cut in 1..good.len() {
            if cut != token_ends {
                stays(&headers(END_HEADERS, &good[..cut]));
            }
        }
        let mut eos = good.clone();
        eos[40..44].fill(0xff);
        stays(&headers(END_HEADERS, &eos));
        stays(&headers(END_HEADERS, &[&good[..], &[0xff, 0x80, 0x80, 0x80, 0x80, 0]].concat()));
        let most = MOST - block(NEVER_INDEXED, &[b'1'; 300], false).len() - 5;
        for (filler, fits) in [(most, true), (most + 1, false)] {
            let filler = [&[0x0f, 8][..], &text(&vec![b'x'; filler], false)].concat();
            let came = headers(END_HEADERS, &[&good[..], &filler].concat());
            assert_eq!(plainly(&came, 0).0 != came, fits);
        }
    }

    #[test]
    fn the_beginning_of_a_header_block_had_better_wait_and_of_nothing_else() {
        let came = headers(END_HEADERS, &block(NEVER_INDEXED, &[b'1'; 300], true));
        let two = [&came[..], &came].concat();
        let plain = plainly(&came, 0).0;
        for cut in 0..came.len() {
            let (written, begun) = plainly(&two[..came.len() + cut], 0);
            assert_eq!(written, [&plain[..], &came[..cut]].concat());
            assert_eq!(begun, cut);
        }
        let large = headers(END_HEADERS, &[0; WAITED_FOR]);
        assert_eq!(plainly(&large[..1000], 0).1, 0);
        for other in [frame(0, END_STREAM, 1, &[0; 99]), headers(END_STREAM, &[0; 99]), headers(END_HEADERS | PADDED, &[0; 99])] {
            assert_eq!(plainly(&other[..50], 0), (other[..50].to_vec(), 0));
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_what_is_no_header_block_stays(bytes in prop::collection::vec(any::<u8>(), 0..200), start in 0usize..220) {
            let (written, begun) = plainly(&bytes, start);
            prop_assert!(begun <= bytes.len());
            if !bytes.contains(&HEADERS) {
                prop_assert_eq!(written, bytes);
            }
        }
    }
}
