//! Answers in every shape that is allowed, at once and octet by octet, and malformed ones, which end their own call only.

use super::*;
use crate::harness::frames::{PADDED, PRIORITY, indexed_block, references};
use crate::harness::hpack::huffman;
use crate::harness::wire::message;
use std::sync::Mutex;

/// What comes of the service for a stream, and what the client must see: fields of head and trailers, the body.
type Shape = (&'static str, fn(u32) -> Vec<u8>, &'static [(&'static str, &'static str)], &'static [u8]);

fn data(stream: u32, bytes: &[u8]) -> Vec<u8> {
    frame(kind::DATA, 0, stream, bytes)
}

/// A head in as many frames as it has octets.
fn in_pieces(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    let block = block(fields);
    let mut frames = frame(kind::HEADERS, flags, stream, &block[..1]);
    for (at, octet) in block.iter().enumerate().skip(1) {
        let last = if at + 1 == block.len() { END_HEADERS } else { 0 };
        frames.extend(frame(kind::CONTINUATION, last, stream, &[*octet]));
        if at % 16 == 0 {
            frames.extend(frame(kind::CONTINUATION, 0, stream, &[]));
        }
    }
    frames
}

const HI: &[u8] = &[0, 0, 0, 0, 2, b'h', b'i'];

const SHAPES: &[Shape] = &[
    ("a head alone", ok, &[("grpc-status", "0")], b""),
    ("head, message, trailers", |s| [head(s), data(s, HI), trailers(s)].concat(), &[("grpc-status", "0")], HI),
    ("trailers after a head", |s| [head(s), trailers(s)].concat(), &[("grpc-status", "0")], b""),
    ("trailers after an empty frame", |s| [head(s), data(s, HI), data(s, b""), trailers(s)].concat(), &[("grpc-status", "0")], HI),
    ("an end in an empty frame", |s| [head(s), data(s, HI), frame(kind::DATA, END_STREAM, s, b"")].concat(), &[], HI),
    ("an end with the message", |s| [head(s), frame(kind::DATA, END_STREAM, s, HI)].concat(), &[], HI),
    ("nothing but an end after the head", |s| [head(s), frame(kind::DATA, END_STREAM, s, b"")].concat(), &[], b""),
    (
        "DATA in frames of one octet",
        |s| [head(s), HI.iter().flat_map(|octet| data(s, &[*octet])).collect(), trailers(s)].concat(),
        &[("grpc-status", "0")],
        HI,
    ),
    (
        "DATA with every kind of padding",
        |s| {
            let padded =
                |padding: u8, bytes: &[u8]| frame(kind::DATA, PADDED, s, &[&[padding], bytes, &vec![0; usize::from(padding)]].concat());
            [head(s), padded(0, &HI[..2]), padded(255, &HI[2..]), padded(9, b""), padded(0, b""), trailers(s)].concat()
        },
        &[("grpc-status", "0")],
        HI,
    ),
    ("an end in padded DATA", |s| [head(s), frame(kind::DATA, PADDED | END_STREAM, s, &[&[3], HI, &[0; 3]].concat())].concat(), &[], HI),
    (
        "padded HEADERS",
        |s| {
            let padded = |flags, fields: &[(&str, &str)]| {
                frame(kind::HEADERS, PADDED | END_HEADERS | flags, s, &[&[7], &block(fields)[..], &[0; 7]].concat())
            };
            [padded(0, &HEAD), data(s, HI), padded(END_STREAM, &[("grpc-status", "0")])].concat()
        },
        &[("grpc-status", "0")],
        HI,
    ),
    (
        "HEADERS with a priority, and padding",
        |s| {
            let first = [&[2, 0x80, 0, 0, 0, 15][..], &block(&TRAILERS_ONLY), &[0; 2]].concat();
            frame(kind::HEADERS, PADDED | PRIORITY | END_HEADERS | END_STREAM, s, &first)
        },
        &[("grpc-status", "0")],
        b"",
    ),
    (
        "heads and trailers an octet a frame",
        |s| [in_pieces(s, 0, &HEAD), data(s, HI), in_pieces(s, END_STREAM, &[("grpc-status", "0"), ("x-last", "1")])].concat(),
        &[("grpc-status", "0"), ("x-last", "1")],
        HI,
    ),
    (
        "a block whose first frame is empty",
        |s| [frame(kind::HEADERS, END_STREAM, s, b""), frame(kind::CONTINUATION, END_HEADERS, s, &block(&TRAILERS_ONLY))].concat(),
        &[("grpc-status", "0")],
        b"",
    ),
    (
        "interim answers in pieces",
        |s| [in_pieces(s, 0, &[(":status", "100")]), in_pieces(s, 0, &[(":status", "103"), ("link", "</x>")]), ok(s)].concat(),
        &[("grpc-status", "0")],
        b"",
    ),
    (
        "names and values in Huffman code",
        |s| {
            let field = |name: &str, value: &str| [&[0][..], &huffman(name), &huffman(value)].concat();
            let block =
                [&[0x88][..], &field("content-type", "application/grpc"), &field("x-odd", "~!'|{}^ \\"), &field("grpc-status", "0")]
                    .concat();
            frame(kind::HEADERS, END_HEADERS | END_STREAM, s, &block)
        },
        &[("grpc-status", "0")],
        b"",
    ),
    (
        "literals that are never indexed, names of the table",
        |s| {
            // 0x1f 0x10: never indexed, the name of entry 31 (content-type).
            let block = [&[0x88, 0x1f, 0x10, 16][..], b"application/grpc", &[0x10, 11], b"grpc-status", &[1, b'0']].concat();
            frame(kind::HEADERS, END_HEADERS | END_STREAM, s, &block)
        },
        &[("grpc-status", "0"), ("content-type", "application/grpc")],
        b"",
    ),
    (
        "tables of changing sizes",
        |s| {
            let sizes = [&[0x20, 0x3f, 0xe1, 0x1f][..], &block(&HEAD)].concat(); // 0, then 4096
            [
                frame(kind::HEADERS, END_HEADERS, s, &sizes),
                frame(
                    kind::HEADERS,
                    END_HEADERS | END_STREAM,
                    s,
                    &[&[0x20, 0x3f, 0xe1, 0x1f][..], &block(&[("grpc-status", "0")])].concat(),
                ),
            ]
            .concat()
        },
        &[("grpc-status", "0")],
        b"",
    ),
    (
        "a field that is empty, one that comes three times",
        |s| {
            let fields = [HEAD[0], HEAD[1], ("x-empty", ""), ("x-three", "1"), ("x-three", "2"), ("x-three", "3"), ("grpc-status", "0")];
            frame(kind::HEADERS, END_HEADERS | END_STREAM, s, &block(&fields))
        },
        &[("grpc-status", "0"), ("x-empty", ""), ("x-three", "1")],
        b"",
    ),
    (
        "a content-length that is true",
        |s| {
            let fields = [HEAD[0], HEAD[1], ("content-length", "7")];
            [frame(kind::HEADERS, END_HEADERS, s, &block(&fields)), data(s, HI), trailers(s)].concat()
        },
        &[("grpc-status", "0")],
        HI,
    ),
];

fn plays(drip: bool) -> Vec<Play> {
    let each = |(_, bytes, _, _): &Shape| {
        let bytes = *bytes;
        if !drip {
            return sends(bytes);
        }
        play(move |peer, stream| {
            Box::pin(async move {
                let bytes = bytes(stream);
                peer.account(&bytes);
                for octet in bytes {
                    peer.wire.burst(&[octet]).await;
                    tokio::task::yield_now().await;
                }
            })
        })
    };
    SHAPES.iter().map(each).collect()
}

#[tokio::test]
async fn an_answer_of_any_shape_that_is_allowed_passes_whole() {
    for drip in [false, true] {
        let stage = Stage::new(&[], plays(drip));
        let mut wire = stage.wire().await;
        for (number, (what, _, fields, body)) in SHAPES.iter().enumerate() {
            let answer = wire.call(request(&format!("/demo.v1.Echo/R{number}"), &[("grpc-timeout", "20S")])).await;
            let seen: Vec<_> = fields.iter().map(|(name, _)| (*name, answer.field(name).unwrap_or("-"))).collect();
            let whole = (answer.status, answer.body.as_slice(), seen.as_slice(), answer.error);
            assert_eq!(whole, (200, *body, *fields, None), "{what}, octet by octet: {drip}: {answer:?}");
            let ended = answer.trailers.is_none() || answer.grpc_status().is_some();
            assert!(ended && answer.error_info().is_none(), "{what}: {answer:?}");
        }
        assert_eq!(stage.opened(), 1, "all of them on one connection");
    }
}

#[tokio::test]
async fn repeated_and_binary_fields_of_an_answer_keep_their_order_and_their_octets() {
    let fields = [
        HEAD[0],
        HEAD[1],
        ("x-n", "b"),
        ("set-cookie", "one=1"),
        ("x-n", "a"),
        ("x-bin", "AAEC/w"),
        ("set-cookie", "two=2"),
        ("x-bin", "AA=="),
    ];
    let stage = Stage::new(
        &[],
        vec![sends(move |s| {
            [
                frame(kind::HEADERS, END_HEADERS, s, &block(&fields)),
                frame(kind::HEADERS, END_HEADERS | END_STREAM, s, &block(&[("grpc-status", "0"), ("x-t", "2"), ("x-t", "1")])),
            ]
            .concat()
        })],
    );
    let answer = stage.wire().await.call(request("/demo.v1.Echo/R0", &[])).await;
    let all =
        |map: &http::HeaderMap, name: &str| map.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(all(&answer.headers, "x-n"), ["b", "a"]);
    assert_eq!(all(&answer.headers, "set-cookie"), ["one=1", "two=2"]);
    assert_eq!(all(&answer.headers, "x-bin"), ["AAEC/w", "AA=="]);
    assert_eq!(all(answer.trailers.as_ref().unwrap(), "x-t"), ["2", "1"]);
}

#[tokio::test]
async fn large_trailers_pass_and_too_large_ones_end_their_call_only() {
    fn trailers_of(bytes: usize) -> Play {
        sends(move |s| {
            let value = "x".repeat(bytes);
            let block = block(&[("grpc-status", "0"), ("x-large", &value)]);
            let (first, rest) = block.split_at(block.len().min(16_384));
            let ends = if rest.is_empty() { END_HEADERS } else { 0 };
            let mut frames = [head(s), data(s, HI), frame(kind::HEADERS, END_STREAM | ends, s, first)].concat();
            if !rest.is_empty() {
                frames.extend(frame(kind::CONTINUATION, END_HEADERS, s, rest));
            }
            frames
        })
    }
    rows(
        &[
            ("15 KB", trailers_of(15_000), OK),
            ("20 KB", trailers_of(20_000), (13, "UPSTREAM_HEADERS")),
            ("15 KB again", trailers_of(15_000), OK),
        ],
        Ends::Stream,
    )
    .await;
}

#[tokio::test]
async fn the_table_of_header_fields_is_kept_over_many_answers() {
    // The latest entries of the table, as their values were.
    let written = Arc::new(Mutex::new(Vec::<String>::new()));
    let table = written.clone();
    let answers = sends(move |s| {
        let mut table = table.lock().unwrap();
        let value = format!("value {} {}", table.len(), "x".repeat(table.len() * 7 % 200));
        // What was added ten answers ago, by its number; then a new one, which moves all others. Old ones fall out of the table.
        let old = if table.len() >= 10 { references([9]) } else { Vec::new() };
        let block = [block(&TRAILERS_ONLY), old, indexed_block(&[("x-new", &value)])].concat();
        table.push(value);
        frame(kind::HEADERS, END_HEADERS | END_STREAM, s, &block)
    });
    let stage = Stage::new(&[], vec![answers]);
    let mut wire = stage.wire().await;
    for number in 0..200 {
        let answer = wire.call(request("/demo.v1.Echo/R0", &[])).await;
        let due = written.lock().unwrap().clone();
        let due: Vec<&str> =
            due.iter().enumerate().filter(|(at, _)| *at == number || at + 10 == number).map(|(_, value)| value.as_str()).collect();
        let seen: Vec<_> = answer.headers.get_all("x-new").iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!((seen, answer.grpc_status()), (due, Some(0)), "answer {number}");
    }
    assert_eq!(stage.opened(), 1);
}

#[tokio::test]
async fn fields_that_are_dropped_or_fail_are_part_of_the_table_all_the_same() {
    // What is added by an interim answer, by the answer to a call that is over, and by a malformed one.
    let stage = Stage::new(
        &[],
        vec![
            sends(|s| {
                let interim = [block(&[(":status", "103")]), indexed_block(&[("x-interim", "1")])].concat();
                [frame(kind::HEADERS, END_HEADERS, s, &interim), ok(s)].concat()
            }),
            sends(|s| {
                let malformed = [block(&HEAD), indexed_block(&[("connection", "close"), ("x-malformed", "2")])].concat();
                frame(kind::HEADERS, END_HEADERS | END_STREAM, s, &malformed)
            }),
            sends(|s| frame(kind::HEADERS, END_HEADERS | END_STREAM, s, &[block(&TRAILERS_ONLY), references([0, 2])].concat())),
        ],
    );
    let mut wire = stage.wire().await;
    assert_eq!(wire.call(request("/demo.v1.Echo/R0", &[])).await.refusal(), owned(OK));
    assert_eq!(wire.call(request("/demo.v1.Echo/R1", &[])).await.refusal(), owned(RESET));
    let answer = wire.call(request("/demo.v1.Echo/R2", &[])).await;
    assert_eq!((answer.field("x-malformed"), answer.field("x-interim")), (Some("2"), Some("1")), "{answer:?}");
    assert_eq!(stage.opened(), 1);
}

#[tokio::test]
async fn a_malformed_head_ends_its_own_call_only() {
    fn malformed(fields: &'static [(&'static str, &'static str)]) -> Play {
        sends(move |s| frame(kind::HEADERS, END_HEADERS | END_STREAM, s, &block(fields)))
    }
    const STATUS: (&str, &str) = ("grpc-status", "0");
    rows(
        &[
            ("no :status", malformed(&[HEAD[1], STATUS]), RESET),
            (":status twice", malformed(&[HEAD[0], HEAD[0], HEAD[1], STATUS]), RESET),
            ("transfer-encoding", malformed(&[HEAD[0], ("transfer-encoding", "chunked"), HEAD[1], STATUS]), RESET),
            ("keep-alive", malformed(&[HEAD[0], ("keep-alive", "1"), HEAD[1], STATUS]), RESET),
            ("upgrade", malformed(&[HEAD[0], ("upgrade", "h3"), HEAD[1], STATUS]), RESET),
            ("101", malformed(&[(":status", "101"), HEAD[1], STATUS]), RESET),
        ],
        Ends::Stream,
    )
    .await;
    // Names and values that cannot be are an error of the stream and not of the header compression.
    rows(
        &[
            (":status of letters", malformed(&[(":status", "abc"), HEAD[1], STATUS]), RESET),
            (":status of two digits", malformed(&[(":status", "20"), HEAD[1], STATUS]), RESET),
            (":status of four digits", malformed(&[(":status", "2000"), HEAD[1], STATUS]), RESET),
            (":status of nothing", malformed(&[(":status", ""), HEAD[1], STATUS]), RESET),
            ("a pseudo-header of requests", malformed(&[HEAD[0], (":path", "/"), HEAD[1], STATUS]), RESET),
            ("a pseudo-header nobody knows", malformed(&[HEAD[0], (":colour", "red"), HEAD[1], STATUS]), RESET),
            ("an upper-case name", malformed(&[HEAD[0], HEAD[1], ("X-Upper", "1"), STATUS]), RESET),
            ("an empty name", malformed(&[HEAD[0], HEAD[1], ("", "1"), STATUS]), RESET),
            ("a space in a name", malformed(&[HEAD[0], HEAD[1], ("x y", "1"), STATUS]), RESET),
            ("NUL in a value", malformed(&[HEAD[0], HEAD[1], ("x-nul", "a\0b"), STATUS]), RESET),
            ("a line feed in a value", malformed(&[HEAD[0], HEAD[1], ("x-line", "a\nb"), STATUS]), RESET),
        ],
        Ends::Stream,
    )
    .await;
}

#[tokio::test]
async fn malformed_trailers_end_their_own_call_only() {
    fn malformed(fields: &'static [(&'static str, &'static str)]) -> Play {
        sends(move |s| [head(s), data(s, HI), frame(kind::HEADERS, END_HEADERS | END_STREAM, s, &block(fields))].concat())
    }
    rows(
        &[
            ("a pseudo-header after a field", malformed(&[("grpc-status", "0"), (":status", "200")]), RESET),
            ("a pseudo-header before a field", malformed(&[(":status", "200"), ("grpc-status", "0")]), RESET),
            ("a field of HTTP/1.1", malformed(&[("grpc-status", "0"), ("connection", "close")]), RESET),
            ("a second head", sends(|s| [head(s), head(s)].concat()), RESET),
            ("a second head after the message", sends(|s| [head(s), data(s, HI), head(s)].concat()), RESET),
            (
                "an interim answer after the head",
                sends(|s| [head(s), frame(kind::HEADERS, END_HEADERS, s, &block(&[(":status", "103")]))].concat()),
                RESET,
            ),
        ],
        Ends::Stream,
    )
    .await;
    rows(&[("an upper-case name", malformed(&[("grpc-status", "0"), ("X-Upper", "1")]), RESET)], Ends::Stream).await;
}

#[tokio::test]
async fn an_answer_before_the_request_is_whole_leaves_the_upload_as_it_is() {
    let stage = Stage::new(
        &[],
        vec![play(|peer, s| {
            Box::pin(async move {
                peer.burst(&[head(s), data(s, HI)].concat()).await;
                let body = peer.body(s).await;
                peer.burst(&data(s, &body)).await;
                peer.end(s).await;
            })
        })],
    );
    let mut wire = stage.wire().await;
    let mut ready = wire.send.clone().ready().await.unwrap();
    let (response, mut stream) = ready.send_request(request("/demo.v1.Echo/R0", &[]), false).unwrap();
    let response = tokio::time::timeout(PATIENCE, response).await.unwrap().unwrap();
    for part in [b"a", b"b"] {
        stream.send_data(message(part), part == b"b").unwrap();
    }
    let answer = WireAnswer::rest(response).await;
    assert_eq!((answer.refusal(), answer.body), (owned(OK), [HI, &message(b"a"), &message(b"b")].concat()));
    assert_eq!(wire.call(request("/demo.v1.Echo/Unary", &[])).await.refusal(), owned(OK));
}

#[tokio::test]
async fn an_answer_that_ends_before_the_request_does_ends_the_call() {
    let ending = |reset: bool| {
        play(move |peer, s| {
            Box::pin(async move {
                peer.burst(&[head(s), data(s, HI), trailers(s)].concat()).await;
                if reset {
                    peer.wire.reset(s, h2::Reason::NO_ERROR).await;
                    return;
                }
                // Then Doorward lets go of the stream, one way or the other.
                while peer.bodies[&s].reset.is_none() && !peer.bodies[&s].ended {
                    assert!(peer.next().await.is_some(), "the connection lives");
                }
            })
        })
    };
    let stage = Stage::new(&[], vec![ending(false), ending(true)]);
    let mut wire = stage.wire().await;
    for number in [0, 1, 0] {
        let (answer, mut stream) = wire.open(request(&format!("/demo.v1.Echo/R{number}"), &[])).await.unwrap();
        stream.send_data(message(b"more to come"), false).unwrap();
        let answer = answer.await;
        assert_eq!((answer.refusal(), answer.body.as_slice(), answer.error), (owned(OK), HI, None), "reset: {number}");
    }
    assert_eq!(wire.call(request("/demo.v1.Echo/Unary", &[])).await.refusal(), owned(OK));
    assert_eq!(stage.opened(), 1);
}
