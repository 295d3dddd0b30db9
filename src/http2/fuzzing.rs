//! The narrow way into this room for the fuzz targets `frames` and `hpack` (`fuzz/`), compiled for them only.

use super::frames::{DATA, END_HEADERS, FrameScanner, HEADER, HEADERS};
use super::hpack::reference;
use super::intake::{Intake, Intakes};
use super::join::{MOST, join};
use super::testing::{decoded, integer};
use std::rc::Rc;
use std::task::Poll;
use tokio::io::ReadBuf;

/// Frames of a client, of which the first byte says in what pieces they come. Whatever they are, what h2 gets says the same.
pub fn frames(input: &[u8]) {
    let Some((piece, sent)) = input.split_first() else { return };
    let intakes = Rc::default();
    // The second time everything is known.
    for piece in [usize::from(*piece) * 8 + 1, usize::MAX] {
        assert_eq!(meaning(&passed_on(sent, piece, &intakes)), meaning(sent));
    }
}

/// Header blocks of an upstream, of which the first byte says how much of them is kept, and a byte before each how long it is.
/// Whatever they are, they are read as they are when they are read in another way, and no more is held than may be.
pub fn hpack(input: &[u8]) {
    let Some((limit, mut rest)) = input.split_first() else { return };
    let mut blocks = Vec::new();
    while let Some((length, others)) = rest.split_first() {
        let (block, others) = others.split_at(others.len().min(usize::from(*length)));
        blocks.push(block);
        rest = others;
    }
    reference::read_twice(&blocks, usize::from(*limit) * 16);
}

/// What h2 is given.
fn passed_on(mut sent: &[u8], piece: usize, intakes: &Rc<Intakes>) -> Vec<u8> {
    let (mut intake, mut scanner, mut passed_on) = (Intake::new(intakes.clone()), FrameScanner::new(0), Vec::new());
    loop {
        let next_frame = scanner.next_frame();
        let mut to = [0; 1000];
        let mut to = ReadBuf::new(&mut to);
        let passed = intake.pass(next_frame, &mut to, |room| {
            let (came, later) = sent.split_at(piece.min(sent.len()).min(room.remaining()));
            room.put_slice(came);
            sent = later;
            scanner.advance(came);
            let left = next_frame.map_or(came.len(), |next_frame| join(room.filled_mut(), next_frame));
            room.set_filled(left);
            Poll::Ready(Ok(()))
        });
        let more = matches!(passed, Poll::Ready(Ok(true)));
        passed_on.extend_from_slice(to.filled());
        while !intake.is_empty() {
            to.clear();
            intake.give(&mut to);
            passed_on.extend_from_slice(to.filled());
        }
        if !more {
            return passed_on;
        }
    }
}

#[derive(Debug, PartialEq)]
enum Part {
    /// Of a message, wherever its frames end.
    Octet([u8; 4], u8),
    /// An end of a stream, or a frame without anything.
    Mark([u8; 4], u8),
    Fields(Vec<u8>, Vec<Field>),
    /// Anything else.
    Bytes(Vec<u8>),
}

#[derive(Debug, PartialEq)]
struct Field {
    /// Form and index, as they are written.
    head: Vec<u8>,
    texts: Vec<Text>,
}

#[derive(Debug, PartialEq)]
enum Text {
    Plain(Vec<u8>),
    Malformed(Vec<u8>),
}

fn meaning(mut bytes: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    while let Some((header @ [l0, l1, l2, kind, flags, stream @ ..], rest)) = bytes.split_first_chunk::<HEADER>() {
        let length = usize::from(*l0) << 16 | usize::from(*l1) << 8 | usize::from(*l2);
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        bytes = rest;
        match (*kind, *flags) {
            (DATA, 0 | 1) => {
                parts.extend(payload.iter().map(|octet| Part::Octet(*stream, *octet)));
                if payload.is_empty() || *flags != 0 {
                    parts.push(Part::Mark(*stream, *flags));
                }
            }
            (HEADERS, _) if flags & (END_HEADERS | 0x28) == END_HEADERS && length <= MOST => match fields(payload) {
                Some(fields) => parts.push(Part::Fields([&[*flags], &stream[..]].concat(), fields)),
                None => parts.push(Part::Bytes([&header[..], payload].concat())),
            },
            // Its length may be another only with that of the block.
            (HEADERS, _) if flags & (END_HEADERS | 0x28) == END_HEADERS | 0x20 && length <= MOST => {
                match payload.split_at_checked(5).and_then(|(priority, block)| Some((priority, fields(block)?))) {
                    Some((priority, fields)) => parts.push(Part::Fields([&[*flags], &stream[..], priority].concat(), fields)),
                    None => parts.push(Part::Bytes([&header[..], payload].concat())),
                }
            }
            _ => parts.push(Part::Bytes([&header[..], payload].concat())),
        }
    }
    parts.push(Part::Bytes(bytes.to_vec()));
    parts
}

fn fields(mut block: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while let Some(first) = block.first() {
        let (prefix, literal) = match first.leading_zeros() {
            0 => (7, false),
            1 => (6, true),
            2 => (5, false),
            _ => (4, true),
        };
        let before = block;
        let (index, rest) = integer(block, prefix)?;
        let mut field = Field { head: before.get(..before.len() - rest.len())?.to_vec(), texts: Vec::new() };
        block = rest;
        for _ in 0..if !literal { 0 } else { 1 + usize::from(index == 0) } {
            let encoded = block.first()? & 0x80 != 0;
            let (length, rest) = integer(block, 7)?;
            let (text, rest) = rest.split_at_checked(length)?;
            block = rest;
            field.texts.push(match encoded {
                false => Text::Plain(text.to_vec()),
                true => decoded(text).map_or_else(|| Text::Malformed(text.to_vec()), Text::Plain),
            });
        }
        fields.push(field);
    }
    Some(fields)
}
