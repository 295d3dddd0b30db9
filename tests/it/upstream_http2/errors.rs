//! What ends a connection and all its calls, and what only seems to. The next call is served on a new one.

use super::*;
use crate::harness::frames::{PADDED, PRIORITY};

/// Before a call that goes on: what comes then is on a stream that is open in both directions.
fn after_head(more: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> Play {
    sends(move |stream| [head(stream), more(stream)].concat())
}

fn raw(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(kind, flags, stream, payload)
}

/// HEADERS that end the answer, of these octets after `:status: 200`.
fn hpack(stream: u32, octets: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &[&[0x88], octets].concat())
}

#[tokio::test]
async fn frames_where_they_may_not_be_end_the_connection() {
    rows(
        &[
            ("HEADERS on stream 0", sends(|_| ok(0)), LOST),
            ("DATA on a stream that was never opened", sends(|_| raw(kind::DATA, 0, 1001, b"x")), LOST),
            ("DATA on an even stream", sends(|_| raw(kind::DATA, 0, 2, b"x")), LOST),
            ("RST_STREAM on stream 0", sends(|_| raw(kind::RST_STREAM, 0, 0, &[0; 4])), LOST),
            ("RST_STREAM on a stream that was never opened", sends(|_| raw(kind::RST_STREAM, 0, 1001, &[0; 4])), LOST),
            ("WINDOW_UPDATE on a stream that was never opened", sends(|_| window_update(1001, 1)), LOST),
            ("PING on a stream", sends(|s| raw(kind::PING, 0, s, &[0; 8])), LOST),
            ("GOAWAY on a stream", sends(|s| raw(kind::GOAWAY, 0, s, &[0; 8])), LOST),
            ("PRIORITY on stream 0", sends(|_| raw(kind::PRIORITY, 0, 0, &[0; 5])), LOST),
            ("CONTINUATION after a whole block", after_head(|s| raw(kind::CONTINUATION, END_HEADERS, s, &[])), LOST),
        ],
        Ends::Connection,
    )
    .await;
}

#[tokio::test]
async fn frames_of_a_size_they_cannot_have_end_the_connection() {
    rows(
        &[
            ("SETTINGS over SETTINGS_MAX_FRAME_SIZE", sends(|_| raw(kind::SETTINGS, 0, 0, &[0; 16_386])), LOST),
            ("PING of nine bytes", sends(|_| raw(kind::PING, 0, 0, &[0; 9])), LOST),
            ("SETTINGS of five bytes", sends(|_| raw(kind::SETTINGS, 0, 0, &[0; 5])), LOST),
            ("an acknowledgement of SETTINGS with a payload", sends(|_| raw(kind::SETTINGS, ACK, 0, &[0; 6])), LOST),
            ("RST_STREAM of three bytes", sends(|s| raw(kind::RST_STREAM, 0, s, &[0; 3])), LOST),
            ("RST_STREAM of five bytes", sends(|s| raw(kind::RST_STREAM, 0, s, &[0; 5])), LOST),
            ("WINDOW_UPDATE of three bytes", sends(|s| raw(kind::WINDOW_UPDATE, 0, s, &[1; 3])), LOST),
            ("WINDOW_UPDATE of five bytes", sends(|_| raw(kind::WINDOW_UPDATE, 0, 0, &[1; 5])), LOST),
            ("GOAWAY of seven bytes", sends(|_| raw(kind::GOAWAY, 0, 0, &[0; 7])), LOST),
            ("PRIORITY of four bytes", sends(|s| raw(kind::PRIORITY, 0, s, &[0; 4])), LOST),
            ("padded DATA without a length of it", after_head(|s| raw(kind::DATA, PADDED, s, &[])), LOST),
            ("DATA that is less than its padding", after_head(|s| raw(kind::DATA, PADDED, s, &[5, 0, 0, 0, 0])), LOST),
            (
                "HEADERS that are less than their padding",
                sends(|s| raw(kind::HEADERS, PADDED | END_HEADERS, s, &[&[200][..], &block(&HEAD)].concat())),
                LOST,
            ),
            ("HEADERS with no room for their priority", sends(|s| raw(kind::HEADERS, PRIORITY | END_HEADERS, s, &[0; 3])), LOST),
        ],
        Ends::Connection,
    )
    .await;
}

#[tokio::test]
async fn a_header_block_that_is_broken_or_broken_into_ends_the_connection() {
    // A head whose block is not at its end, then something else.
    fn within_a_head(more: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> Play {
        sends(move |s| [raw(kind::HEADERS, 0, s, &block(&HEAD)), more(s)].concat())
    }
    rows(
        &[
            ("DATA within a block", within_a_head(|s| raw(kind::DATA, 0, s, b"x")), LOST),
            ("HEADERS within a block", within_a_head(trailers), LOST),
            ("PING within a block", within_a_head(|_| raw(kind::PING, 0, 0, &[0; 8])), LOST),
            ("CONTINUATION of another stream", within_a_head(|s| raw(kind::CONTINUATION, END_HEADERS, s + 2, &[])), LOST),
            ("what nobody knows within a block", within_a_head(|s| raw(0xee, 0, s, b"x")), LOST),
            ("an index of 0", sends(|s| hpack(s, &[0x80])), LOST),
            ("an index of nothing", sends(|s| hpack(s, &[0xfe])), LOST),
            ("a name of nothing", sends(|s| hpack(s, &[0x7e, 1, b'x'])), LOST),
            ("an integer without end", sends(|s| hpack(s, &[&[0xff][..], &[0x80; 20], &[0]].concat())), LOST),
            ("a string that goes on beyond the block", sends(|s| hpack(s, &[0, 10, b'x'])), LOST),
            ("Huffman code of EOS", sends(|s| hpack(s, &[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff])), LOST),
            ("Huffman code with a whole octet of padding", sends(|s| hpack(s, &[0, 1, b'x', 0x82, 0x1f, 0xff])), LOST),
            ("Huffman code padded with zeros", sends(|s| hpack(s, &[0, 1, b'x', 0x81, 0x18])), LOST),
            (
                "a table larger than it may be",
                sends(|s| [raw(kind::HEADERS, END_HEADERS | END_STREAM, s, &[0x3f, 0xe1, 0xff, 0x7f, 0x88])].concat()),
                LOST,
            ),
            ("a table that changes its size after a field", sends(|s| hpack(s, &[0x20])), LOST),
        ],
        Ends::Connection,
    )
    .await;
}

#[tokio::test]
async fn settings_that_cannot_be_end_the_connection() {
    rows(
        &[
            ("INITIAL_WINDOW_SIZE of 2^31", sends(|_| settings_frame(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)])), LOST),
            ("MAX_FRAME_SIZE of 16,383", sends(|_| settings_frame(&[(setting::MAX_FRAME_SIZE, 16_383)])), LOST),
            ("MAX_FRAME_SIZE of 2^24", sends(|_| settings_frame(&[(setting::MAX_FRAME_SIZE, 1 << 24)])), LOST),
            ("ENABLE_PUSH of 2", sends(|_| settings_frame(&[(setting::ENABLE_PUSH, 2)])), LOST),
        ],
        Ends::Connection,
    )
    .await;
}

#[tokio::test]
async fn a_window_of_the_connection_that_overflows_ends_it() {
    const MOST: u32 = (1 << 31) - 1;
    let of_connection: [Row; 2] = [
        ("WINDOW_UPDATE of the connection", sends(|_| window_update(0, MOST)), LOST),
        ("many WINDOW_UPDATEs of the connection", sends(|_| (0..3).flat_map(|_| window_update(0, 1 << 30)).collect()), LOST),
    ];
    rows(&of_connection, Ends::Connection).await;
}

#[tokio::test]
async fn a_window_update_of_nothing_ends_its_call() {
    let rows: [Row; 2] =
        [("after a head", after_head(|s| window_update(s, 0)), RESET), ("before it", sends(|s| window_update(s, 0)), RESET)];
    super::rows(&rows, Ends::Stream).await;
}

#[tokio::test]
async fn what_only_seems_wrong_ends_nothing() {
    rows(
        &[
            ("WINDOW_UPDATE of a stream that is over", sends(|s| [ok(s), window_update(s, 10), window_update(s, 1 << 30)].concat()), OK),
            ("RST_STREAM of a stream that is over", sends(|s| [ok(s), raw(kind::RST_STREAM, 0, s, &[0, 0, 0, 8])].concat()), OK),
            (
                "PRIORITY of any stream",
                sends(|s| [raw(kind::PRIORITY, 0, s, &[0, 0, 0, 0, 9]), raw(kind::PRIORITY, 0, 2001, &[0, 0, 0, 0, 9]), ok(s)].concat()),
                OK,
            ),
            ("PRIORITY of a stream that is over", sends(|s| [ok(s), raw(kind::PRIORITY, 0, s, &[0, 0, 0, 0, 9])].concat()), OK),
            (
                "ALTSVC and ORIGIN",
                sends(|s| {
                    [raw(0xa, 0, s, &[0, 0, b'h', b'3']), raw(0xa, 0, 0, &[0, 1, b'a', b'h', b'3']), raw(0xc, 0, 0, &[0, 1, b'a']), ok(s)]
                        .concat()
                }),
                OK,
            ),
            (
                "frames nobody knows, on any stream",
                sends(|s| [raw(0xbb, 0xff, s, &[1; 300]), raw(0xbb, 0, 2001, &[]), raw(0xbb, 0, 4, &[1; 16_384]), ok(s)].concat()),
                OK,
            ),
            ("settings nobody knows", sends(|s| [settings_frame(&[(0, 1), (7, 1), (0xffff, u32::MAX)]), ok(s)].concat()), OK),
            (
                "flags nobody knows",
                sends(|s| {
                    [
                        frame(kind::SETTINGS, 0xfe, 0, &[]),
                        frame(kind::PING, 0xfe, 0, &[0; 8]),
                        frame(kind::HEADERS, END_HEADERS | 0xd2, s, &block(&HEAD)),
                        trailers(s),
                    ]
                    .concat()
                }),
                OK,
            ),
            ("an acknowledgement of a PING that was never sent", sends(|s| [raw(kind::PING, ACK, 0, b"nobody's"), ok(s)].concat()), OK),
            ("window that is never used", sends(|s| [window_update(s, 1 << 20), window_update(0, 1 << 20), ok(s)].concat()), OK),
            (
                "a bit of the stream's number that is reserved",
                sends(|s| {
                    let mut bytes = ok(s);
                    bytes[5] |= 0x80;
                    bytes
                }),
                OK,
            ),
        ],
        Ends::Stream,
    )
    .await;
}
