//! What Doorward sends: heads as RFC 9113 §8.3 and gRPC's protocol want them, split where they are too large for a frame, ended in one
//! of two ways, given up with CANCEL.

use super::*;
use crate::harness::hpack::Form;
use crate::harness::token::bearer;
use crate::harness::wire::message;
use h2::Reason;
use std::sync::Mutex;

/// Everything that came with a call, in order.
#[derive(Debug, Clone, Default)]
struct Seen {
    stream: u32,
    head: Vec<Field>,
    trailers: Option<Vec<Field>>,
    body: Vec<u8>,
    /// The frame that ended the request: its type and length.
    end: (u8, usize),
}

impl Seen {
    fn values(&self, name: &str) -> Vec<String> {
        self.head.iter().filter(|field| field.name == name).map(Field::text).collect()
    }
}

/// A service that answers every `R0` once the request is whole, and keeps what it was.
fn keeping(rest: &str) -> (Stage, Arc<Mutex<Vec<Seen>>>) {
    keeping_with(|upstream| upstream.configuration(rest))
}

fn keeping_with(yaml: impl FnOnce(&FrameUpstream) -> String) -> (Stage, Arc<Mutex<Vec<Seen>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    let stage = Stage::configured(
        yaml,
        &[],
        vec![play(move |peer, stream| {
            let kept = kept.clone();
            Box::pin(async move {
                let mut seen = Seen { stream, head: peer.heads[&stream].clone(), ..Seen::default() };
                seen.end = (kind::HEADERS, 0);
                while !peer.bodies[&stream].ended {
                    let frame = peer.next().await.expect("the rest of the request");
                    if frame.stream == stream && frame.kind == kind::HEADERS {
                        seen.trailers = Some(peer.heads[&stream].clone());
                    }
                    seen.end = (frame.kind, frame.payload.len());
                }
                seen.body = peer.bodies[&stream].bytes.clone();
                kept.lock().unwrap().push(seen);
                peer.burst(&ok(stream)).await;
            })
        })],
    );
    (stage, seen)
}

#[tokio::test]
async fn heads_are_as_they_must_be() {
    let (stage, seen) = keeping("");
    let mut wire = stage.wire().await;
    let fields = [
        ("x-n", "b"),
        ("cookie", "one=1"),
        ("x-data-bin", "AAEC/w"),
        ("x-n", "a"),
        ("cookie", "two=2; three=3"),
        ("x-data-bin", "AA=="),
        ("x-empty", ""),
        ("x-odd", "~!'|{}^ \\\""),
        ("user-agent", "tests"),
        ("grpc-timeout", "30S"),
    ];
    for _ in 0..3 {
        assert_eq!(wire.call(request("/demo.v1.Echo/R0", &fields)).await.refusal(), owned(OK));
    }
    let seen = seen.lock().unwrap().clone();
    for seen in &seen {
        let pseudo: Vec<_> = seen.head.iter().take_while(|field| field.name.starts_with(':')).map(|field| field.name.as_str()).collect();
        let mut sorted = pseudo.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [":authority", ":method", ":path", ":scheme"], "{:?}", seen.head);
        assert!(!seen.head[4..].iter().any(|field| field.name.starts_with(':')), "pseudo-headers come first: {:?}", seen.head);
        let pseudo = [":method", ":scheme", ":authority", ":path"].map(|name| seen.values(name).concat());
        assert_eq!((&*pseudo[0], &*pseudo[2], &*pseudo[3]), ("POST", "localhost", "/demo.v1.Echo/R0"));
        assert!(["http", "https"].contains(&&*pseudo[1]), "{pseudo:?}");
        let forbidden = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "host"];
        assert!(!seen.head.iter().any(|field| forbidden.contains(&field.name.as_str())), "{:?}", seen.head);
        assert!(seen.head.iter().all(|field| !field.name.is_empty() && field.name == field.name.to_lowercase()), "{:?}", seen.head);
        assert_eq!((seen.values("te"), seen.values("content-type")), (vec!["trailers".to_owned()], vec!["application/grpc".to_owned()]));
        assert_eq!(seen.values("x-n"), ["b", "a"]);
        assert_eq!(seen.values("cookie").join("; "), "one=1; two=2; three=3");
        assert_eq!(seen.values("x-data-bin"), ["AAEC/w", "AA=="]);
        assert_eq!((seen.values("x-empty"), seen.values("x-odd")), (vec![String::new()], vec!["~!'|{}^ \\\"".to_owned()]));
    }
    let streams: Vec<u32> = seen.iter().map(|seen| seen.stream).collect();
    assert!(streams.iter().all(|stream| stream % 2 == 1) && streams.is_sorted_by(|one, next| one < next), "{streams:?}");
}

#[tokio::test]
async fn streams_are_odd_and_grow_however_many_calls_there_are_at_once() {
    let (stage, seen) = keeping("");
    let mut wires = [stage.wire().await, stage.wire().await, stage.wire().await];
    for _ in 0..5 {
        let mut calls = Vec::new();
        for wire in &mut wires {
            for _ in 0..10 {
                let (answer, mut stream) = wire.open(request("/demo.v1.Echo/R0", &[])).await.unwrap();
                stream.send_data(message(b"x"), true).unwrap();
                calls.push(tokio::spawn(answer));
            }
        }
        for call in calls {
            assert_eq!(call.await.unwrap().refusal(), owned(OK));
        }
    }
    let seen = seen.lock().unwrap();
    assert_eq!((seen.len(), stage.opened()), (150, 1));
    let streams: Vec<u32> = seen.iter().map(|seen| seen.stream).collect();
    assert!(streams.iter().all(|stream| stream % 2 == 1) && streams.is_sorted_by(|one, next| one < next), "{streams:?}");
}

#[tokio::test]
async fn a_head_too_large_for_a_frame_goes_in_several_with_nothing_between() {
    // The service itself looks at the size of each frame, and at what is between them.
    let (stage, seen) = keeping("limits: { header_bytes: 128KiB }\n");
    let mut wire = stage.wire().await;
    for count in [14, 16, 33, 60] {
        // Letters that Huffman code makes longer.
        let names: Vec<String> = (0..count).map(|number| format!("x-{count}-{number}")).collect();
        let value = "\\{}<>^`|~".repeat(110);
        let fields: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
        // Beside others, whose frames may not come within.
        let mut busy = Vec::new();
        for _ in 0..5 {
            let (answer, mut stream) = wire.open(request("/demo.v1.Echo/Unary", &[])).await.unwrap();
            stream.send_data(message(&[0; 1000]), true).unwrap();
            busy.push(answer);
        }
        assert_eq!(wire.call(request("/demo.v1.Echo/R0", &fields)).await.refusal(), owned(OK), "{count} KB");
        for answer in busy {
            assert_eq!(answer.await.refusal(), owned(OK));
        }
        let seen = seen.lock().unwrap();
        let last = seen.last().unwrap();
        assert!(names.iter().all(|name| last.values(name) == [value.as_str()]), "{count} KB");
    }
}

#[tokio::test]
async fn a_credential_that_is_forwarded_is_remembered_by_no_table() {
    let (stage, seen) = keeping_with(|upstream| {
        let upstream = format!("upstream: {{ address: \"http://{}\", health_service: none }}\n", upstream.address);
        configuration("", &format!("{upstream}workers: 1\n{}forward_credentials: true\n", site::STANDARD))
    });
    let (token, mut frames) = (bearer(serde_json::json!({})), Frames::open(&stage.doorward).await);
    // As clients write it: added to a table, not added, and never to be added to any.
    for (number, first) in [0x40, 0, 0x10, 0x40].into_iter().enumerate() {
        let mut credential = block(&[("authorization", &token)]);
        credential[0] = first;
        let stream = 1 + 2 * u32::try_from(number).unwrap();
        let head = [block(&frames::grpc_fields("/demo.v1.Echo/R0", &[])), credential].concat();
        frames.send(kind::HEADERS, END_HEADERS | END_STREAM, stream, &head).await;
        assert_eq!(frames.on_stream(stream).await.unwrap().kind, kind::HEADERS);
        let seen = seen.lock().unwrap();
        let sent: Vec<_> = seen[number].head.iter().filter(|field| field.name == "authorization").collect();
        assert_eq!((sent.len(), sent[0].text()), (1, token.clone()));
        assert_eq!(sent[0].form, Form::NeverIndexed, "{first:#x}: {sent:?}");
    }
}

#[tokio::test]
async fn a_request_ends_with_its_last_data_or_with_an_empty_frame_or_with_trailers() {
    let (stage, seen) = keeping("");
    let mut wire = stage.wire().await;
    // Nothing at all; a message and its end; an end that comes later; trailers.
    let empty = wire.call_with(request("/demo.v1.Echo/R0", &[]), bytes::Bytes::new(), None).await;
    assert_eq!(empty.refusal(), owned(OK));
    assert_eq!(wire.call(request("/demo.v1.Echo/R0", &[])).await.refusal(), owned(OK));
    let (answer, mut stream) = wire.open(request("/demo.v1.Echo/R0", &[])).await.unwrap();
    stream.send_data(message(b"first"), false).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stream.send_data(bytes::Bytes::new(), true).unwrap();
    assert_eq!(answer.await.refusal(), owned(OK));
    let trailers = [("x-one", "1"), ("x-two-bin", "AAEC"), ("x-one", "2"), ("x-doorward-user-id", "somebody")];
    let mut map = http::HeaderMap::new();
    for (name, value) in trailers {
        map.append(http::HeaderName::from_static(name), http::HeaderValue::from_static(value));
    }
    let answer = wire.call_with(request("/demo.v1.Echo/R0", &[]), message(b"x"), Some(map)).await;
    assert_eq!(answer.refusal(), owned(OK));
    let seen = seen.lock().unwrap();
    let bodies: Vec<_> = seen.iter().map(|seen| seen.body.clone()).collect();
    assert_eq!(bodies, [Vec::new(), message(b"").to_vec(), message(b"first").to_vec(), message(b"x").to_vec()]);
    assert_eq!(seen[2].end, (kind::DATA, 0));
    assert!(seen[..3].iter().all(|seen| seen.trailers.is_none()));
    let last: Vec<_> = seen[3].trailers.as_ref().unwrap().iter().map(|field| (field.name.clone(), field.text())).collect();
    let due = [("x-one", "1"), ("x-one", "2"), ("x-two-bin", "AAEC")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut sorted = last.clone();
    sorted.sort();
    assert!(last.iter().filter(|(name, _)| name == "x-one").map(|(_, value)| value.as_str()).eq(["1", "2"]), "{last:?}");
    assert!(due.iter().all(|field| sorted.contains(field)), "{last:?}");
}

#[tokio::test]
async fn a_call_whose_answer_has_begun_is_given_up_with_cancel() {
    let codes = Arc::new(Mutex::new(Vec::new()));
    let kept = codes.clone();
    let stage = Stage::new(
        &[],
        vec![play(move |peer, stream| {
            let kept = kept.clone();
            Box::pin(async move {
                peer.burst(&[head(stream), frame(kind::DATA, 0, stream, &message(b"first"))].concat()).await;
                let code = peer.reset(stream).await;
                kept.lock().unwrap().push(code);
            })
        })],
    );
    let mut wire = stage.wire().await;
    let reset = async |count: usize| until("the reset", || codes.lock().unwrap().len() == count).await;
    // The client cancels, with its request open or whole.
    for (number, whole) in [false, true].into_iter().enumerate() {
        let mut ready = wire.send.clone().ready().await.unwrap();
        let (response, mut stream) = ready.send_request(request("/demo.v1.Echo/R0", &[]), false).unwrap();
        stream.send_data(message(b""), whole).unwrap();
        let mut body = response.await.unwrap().into_body();
        body.data().await.unwrap().unwrap();
        stream.send_reset(Reason::CANCEL);
        reset(number + 1).await;
    }
    // Its deadline passes.
    let answer = wire.call(request("/demo.v1.Echo/R0", &[("grpc-timeout", "300m")])).await;
    assert_eq!((answer.refusal(), answer.body), ((4, "DEADLINE".to_owned()), message(b"first").to_vec()));
    reset(3).await;
    // It leaves.
    let mut ready = wire.send.clone().ready().await.unwrap();
    let (response, stream) = ready.send_request(request("/demo.v1.Echo/R0", &[]), false).unwrap();
    let response = response.await.unwrap();
    wire.connection.abort();
    reset(4).await;
    drop((response, stream));
    assert_eq!(*codes.lock().unwrap(), vec![Some(u32::from(Reason::CANCEL)); 4]);
    assert_eq!(stage.wire().await.call(request("/demo.v1.Echo/Unary", &[])).await.refusal(), owned(OK));
    assert_eq!(stage.opened(), 1);
}
