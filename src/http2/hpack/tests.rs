//! With a real server at the other end, h2's: it hears of a request what was said, and what it says is decoded over the whole
//! life of a connection, its table and its Huffman code in use.

use super::field::{Entry, Field};
use super::static_table::STATIC_TABLE;
use super::*;
use crate::http2::testing::frame;
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, request};
use proptest::prelude::*;
use std::future::Future;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a duplex stream holds, in bytes: all that is said in a test, so that nobody waits for the other.
const ROOM: usize = 1 << 22;

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), test).await.expect("the peer answers") })
}

/// Names of the static table, what gRPC uses, and others; none that HTTP/2 refuses.
fn name() -> impl Strategy<Value = HeaderName> {
    let of_the_table = STATIC_TABLE.iter().filter_map(|entry| match &entry.field {
        Field::Regular(name, _) if name != http::header::CONTENT_LENGTH => Some(name.clone()),
        _ => None,
    });
    let grpc = ["grpc-status", "grpc-message", "grpc-encoding", "grpc-status-details-bin", "x-a", "x-b"].map(HeaderName::from_static);
    let known: Vec<HeaderName> = of_the_table.chain(grpc).collect();
    prop_oneof![
        3 => prop::sample::select(known),
        1 => "x[a-z0-9_.-]{1,90}".prop_map(|name| HeaderName::try_from(name).unwrap()),
    ]
}

fn value() -> impl Strategy<Value = HeaderValue> {
    let octet = prop_oneof![8 => 0x20u8..0x7f, 1 => prop::sample::select((0x80..=0xff).chain([b'\t']).collect::<Vec<u8>>())];
    let text = prop_oneof![
        4 => prop::sample::select(vec!["", "0", "application/grpc", "gzip, deflate", "identity", "same"]).prop_map(|text| text.as_bytes().to_vec()),
        4 => prop::collection::vec(octet, 0..60),
        1 => (100usize..1500).prop_map(|length| vec![b'v'; length]),
    ];
    (text, prop::bool::weighted(0.2)).prop_map(|(text, sensitive)| {
        let mut value = HeaderValue::from_bytes(&text).unwrap();
        value.set_sensitive(sensitive);
        value
    })
}

fn fields(most: usize) -> impl Strategy<Value = HeaderMap> {
    prop::collection::vec((name(), value()), 0..most).prop_map(|fields| {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(name, value);
        }
        map
    })
}

#[derive(Clone, Debug)]
struct Line {
    method: Method,
    scheme: Scheme,
    authority: String,
    path: String,
}

fn line() -> impl Strategy<Value = Line> {
    let method = prop_oneof![prop::sample::select(vec!["GET", "POST", "PUT"]).prop_map(str::to_owned), "X[A-Z]{1,12}"];
    let path = prop_oneof![prop::sample::select(vec!["/", "/index.html"]).prop_map(str::to_owned), "/[A-Za-z0-9._/-]{1,200}"];
    (method, prop::sample::select(vec!["http", "https", "other"]), "[a-z][a-z0-9.-]{0,150}[a-z](:[1-9][0-9]{1,3})?", path).prop_map(
        |(method, scheme, authority, path)| Line {
            method: Method::from_bytes(method.as_bytes()).unwrap(),
            scheme: Scheme::try_from(scheme).unwrap(),
            authority,
            path,
        },
    )
}

/// The block of a request, and where its fields begin, with each of them.
fn encoded<'a>(line: &Line, fields: &'a HeaderMap) -> (Vec<u8>, Vec<(usize, &'a HeaderValue)>) {
    let mut block = Vec::new();
    encode_request_line(&mut block, &line.method, &line.scheme, &line.authority, &line.path);
    let mut begin = Vec::new();
    for (name, value) in fields {
        begin.push((block.len(), value));
        encode_field(&mut block, name, value.as_bytes(), value.is_sensitive());
    }
    (block, begin)
}

/// What a server hears of these header blocks, each a request, on one connection.
async fn heard(blocks: Vec<Vec<u8>>) -> Vec<request::Parts> {
    let (mut client, server) = tokio::io::duplex(ROOM);
    client.write_all(PREFACE).await.unwrap();
    client.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    let mut server = h2::server::handshake(server).await.unwrap();
    let mut requests = Vec::new();
    for (block, stream) in blocks.iter().zip((1..).step_by(2)) {
        client.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, stream, block)).await.unwrap();
        let (request, _) = server.accept().await.expect("a request").expect("well-formed");
        requests.push(request.into_parts().0);
    }
    requests
}

#[derive(Clone, Debug)]
struct Answer {
    status: StatusCode,
    fields: HeaderMap,
    trailers: Option<HeaderMap>,
    /// What the client grants from then on: at most 4096.
    table: Option<u16>,
}

fn answer() -> impl Strategy<Value = Answer> {
    let status = prop_oneof![3 => Just(200u16), 1 => prop::sample::select(vec![204, 206, 304, 400, 404, 500, 999]), 1 => 200u16..600];
    let table = prop::option::weighted(0.2, prop::sample::select(vec![0, 40, 100, 256, 1000, 4096]));
    (status, fields(8), prop::option::of(fields(4)), table).prop_map(|(status, fields, trailers, table)| Answer {
        status: StatusCode::from_u16(status).unwrap(),
        fields,
        trailers,
        table,
    })
}

/// Answers each request with the next answer, until the connection ends.
async fn serve(io: DuplexStream, answers: Vec<Answer>) {
    let mut server = h2::server::handshake(io).await.unwrap();
    for answer in answers {
        let (_, mut respond) = server.accept().await.expect("a request").expect("well-formed");
        let mut response = Response::new(());
        (*response.status_mut(), *response.headers_mut()) = (answer.status, answer.fields);
        let mut stream = respond.send_response(response, answer.trailers.is_none()).unwrap();
        if let Some(trailers) = answer.trailers {
            stream.send_trailers(trailers).unwrap();
        }
    }
    while let Some(Ok(_)) = server.accept().await {}
}

/// Makes the requests, and says what their answers' header blocks decode to.
async fn hear(mut io: DuplexStream, answers: &[Answer]) -> Vec<HeaderList> {
    let (mut decoder, mut lists) = (Decoder::new(), Vec::new());
    io.write_all(PREFACE).await.unwrap();
    io.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    let mut request = Vec::new();
    encode_request_line(&mut request, &Method::POST, &Scheme::HTTP, "a", "/");
    for (answer, stream) in answers.iter().zip((1..).step_by(2)) {
        if let Some(table) = answer.table {
            let [high, low] = table.to_be_bytes();
            io.write_all(&frame(SETTINGS, 0, 0, &[0, 1, 0, 0, high, low])).await.unwrap();
        }
        io.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &request)).await.unwrap();
        let (mut block, mut ends) = (Vec::new(), false);
        loop {
            let mut header = [0; 9];
            io.read_exact(&mut header).await.unwrap();
            let [l0, l1, l2, kind, flags, ..] = header;
            let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
            io.read_exact(&mut payload).await.unwrap();
            if !matches!(kind, HEADERS | CONTINUATION) {
                continue;
            }
            block.append(&mut payload);
            ends |= kind == HEADERS && flags & END_STREAM != 0;
            if flags & END_HEADERS != 0 {
                lists.push(decoder.decode(&block, ROOM).unwrap());
                block.clear();
                if ends {
                    break;
                }
            }
        }
    }
    lists
}

#[test]
fn every_field_of_the_static_table_is_encoded_by_its_number() {
    for (Entry { field, .. }, index) in STATIC_TABLE.iter().zip(1..) {
        let Field::Regular(name, value) = field else { continue };
        let encoded = |value: &[u8], sensitive| {
            let mut block = Vec::new();
            encode_field(&mut block, name, value, sensitive);
            block
        };
        assert_eq!(encoded(value.as_bytes(), false), [0x80 | index], "{name}");
        assert_eq!(encoded(b"other", false), [&[0x0f, index - 15, 5], &b"other"[..]].concat(), "{name}");
        assert_eq!(encoded(b"other", true), [&[0x1f, index - 15, 5], &b"other"[..]].concat(), "{name}");
        // Who is told a number would put it into any table.
        assert_eq!(encoded(value.as_bytes(), true)[0], 0x1f, "{name}");
    }
}

#[test]
fn the_line_of_a_request_is_short_where_it_is_as_usual() {
    let encoded = |method, scheme, path| {
        let mut block = Vec::new();
        encode_request_line(&mut block, &method, &scheme, "a", path);
        block
    };
    assert_eq!(encoded(Method::POST, Scheme::HTTP, "/"), [0x83, 0x86, 1, 1, b'a', 0x84]);
    assert_eq!(encoded(Method::GET, Scheme::HTTPS, "/s"), [0x82, 0x87, 1, 1, b'a', 4, 2, b'/', b's']);
    assert_eq!(encoded(Method::PUT, Scheme::HTTP, "/"), [&[2, 3], &b"PUT"[..], &[0x86, 1, 1, b'a', 0x84]].concat());
}

#[test]
fn what_belongs_to_a_connection_is_encoded_as_it_is_told() {
    let mut block = Vec::new();
    encode_field(&mut block, &http::header::TRANSFER_ENCODING, b"", false);
    encode_field(&mut block, &http::header::TE, b"trailers", false);
    assert_eq!(block, [&[0x80 | 57, 0, 2], &b"te"[..], &[8], b"trailers"].concat());
}

proptest! {
    // What a server refuses it does not hand out: a failure is a deadline, and is not looked for often.
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 4, ..ProptestConfig::default() })]

    #[test]
    fn a_server_hears_what_was_said(said in prop::collection::vec((line(), fields(8)), 1..4)) {
        let mut blocks = Vec::new();
        for (line, fields) in &said {
            let (block, begin) = encoded(line, fields);
            for (at, value) in begin {
                prop_assert_eq!(block[at] & 0xf0 == 0x10, value.is_sensitive());
                // None asks to be put into a table.
                prop_assert!(block[at] & 0x80 != 0 || block[at] < 0x20);
            }
            blocks.push(block);
        }
        let requests = run(heard(blocks));
        prop_assert_eq!(requests.len(), said.len());
        for (request, (line, fields)) in requests.into_iter().zip(said) {
            prop_assert_eq!(request.method, line.method);
            prop_assert_eq!(request.uri.scheme(), Some(&line.scheme));
            prop_assert_eq!(request.uri.authority().map(|authority| authority.as_str()), Some(&line.authority[..]));
            prop_assert_eq!(request.uri.path(), line.path);
            prop_assert_eq!(request.headers, fields);
        }
    }

    #[test]
    fn what_a_server_says_is_decoded(answers in prop::collection::vec(answer(), 1..40)) {
        let lists = run(async {
            let (client, server) = tokio::io::duplex(ROOM);
            tokio::join!(hear(client, &answers), serve(server, answers.clone())).0
        });
        let mut lists = lists.into_iter();
        let mut next = |status, fields: HeaderMap| {
            let list = lists.next().expect("a block");
            prop_assert!(!list.malformed && !list.oversized);
            prop_assert_eq!(list.status, status);
            prop_assert_eq!(list.fields, fields);
            Ok(())
        };
        for answer in answers {
            next(Some(answer.status), answer.fields)?;
            if let Some(trailers) = answer.trailers {
                next(None, trailers)?;
            }
        }
        prop_assert!(lists.next().is_none());
    }
}
