//! PROTOCOL-HTTP2.md and RFC 9113 towards the client, as it is on the wire: early answers, half-closed streams, interim and
//! bodiless answers, resets, and deadlines that several clocks race for.

use crate::harness::raw_upstream::{RawCall, response};
use crate::harness::wire::message;
use crate::harness::*;
use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue, Response};
use std::time::Duration;

const OPEN: &str = "authentication: { mode: disabled }\n";

fn running<F, T>(behaviour: F) -> (RawUpstream, Doorward)
where
    F: Fn(RawCall) -> T + Send + Sync + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let upstream = RawUpstream::start(behaviour);
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    (upstream, doorward)
}

fn status(code: &'static str) -> HeaderMap {
    HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(code))])
}

/// Answers with this much data and a status as soon as the head has come; the request is never read.
async fn answer_early(mut call: RawCall, bytes: usize) {
    let mut stream = call.respond.send_response(response(), false).unwrap();
    let mut left = Bytes::from(vec![0; bytes]);
    while !left.is_empty() {
        stream.reserve_capacity(left.len());
        let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
        stream.send_data(left.split_to(room.min(left.len())), false).unwrap();
    }
    stream.send_trailers(status("9")).unwrap();
}

#[tokio::test]
async fn an_early_answer_is_followed_by_a_reset_without_an_error() {
    let (_upstream, doorward) = running(|call| answer_early(call, 5));
    let mut frames = Frames::open(&doorward).await;
    let fields = frames::grpc_fields("/demo.v1.Echo/Bidi", &[]);
    frames.send(kind::HEADERS, frames::END_HEADERS, 1, &frames::block(&fields)).await;
    let mut seen = Vec::new();
    let reset = loop {
        let frame = frames.on_stream(1).await.unwrap();
        match frame.kind {
            kind::RST_STREAM => break frame.number(0),
            kind => seen.push((kind, frame.flags & frames::END_STREAM != 0)),
        }
    };
    assert_eq!(seen, [(kind::HEADERS, false), (kind::DATA, false), (kind::HEADERS, true)]);
    assert_eq!(reset, u32::from(Reason::NO_ERROR));
    assert!(frames.is_alive().await);
}

#[tokio::test]
async fn an_early_answer_reaches_a_slow_reader_whole() {
    const BYTES: usize = 1 << 20;
    let (_upstream, doorward) = running(|call| answer_early(call, BYTES));
    let mut wire = Wire::connect(&doorward).await;
    let mut ready = wire.send.clone().ready().await.unwrap();
    // Its request stays open.
    let (head, _open) = ready.send_request(request("/demo.v1.Echo/Bidi", &[]), false).unwrap();
    let mut body = head.await.unwrap().into_body();
    let mut got = 0;
    while let Some(chunk) = body.data().await {
        let chunk = chunk.unwrap();
        got += chunk.len();
        tokio::time::sleep(Duration::from_millis(2)).await;
        body.flow_control().release_capacity(chunk.len()).unwrap();
    }
    assert_eq!((got, body.trailers().await.unwrap()), (BYTES, Some(status("9"))));
    assert_eq!(wire.call(request("/demo.v1.Echo/Unary", &[])).await.grpc_status(), Some(9), "the connection lives");
}

#[tokio::test]
async fn each_half_of_a_stream_may_end_long_before_the_other() {
    // The request ends first, and the answer takes its time; or the head of the answer is all there is until the request ends.
    let (upstream, doorward) = running(|mut call| async move {
        let slow = call.path.ends_with("AnswerLater");
        let mut stream = (!slow).then(|| call.respond.send_response(response(), false).unwrap());
        call.read().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut stream = stream.take().unwrap_or_else(|| call.respond.send_response(response(), false).unwrap());
        stream.send_data(Bytes::from_static(&[0; 5]), false).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        stream.send_trailers(status("0")).unwrap();
    });
    let mut wire = Wire::connect(&doorward).await;
    for method in ["AnswerLater", "RequestLater"] {
        let (answer, mut stream) = wire.open(request(&format!("/demo.v1.Echo/{method}"), &[])).await.unwrap();
        for part in [b"a", b"b"] {
            stream.send_data(message(part), false).unwrap();
            tokio::time::sleep(Duration::from_millis(if method == "RequestLater" { 200 } else { 0 })).await;
        }
        stream.send_data(Bytes::new(), true).unwrap();
        let answer = answer.await;
        assert_eq!((answer.grpc_status(), answer.body.as_slice()), (Some(0), &[0; 5][..]), "{method}: {answer:?}");
    }
    let bodies: Vec<Vec<u8>> = upstream.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, [[message(b"a"), message(b"b")].concat(), [message(b"a"), message(b"b")].concat()]);
}

#[tokio::test]
async fn interim_answers_are_not_forwarded() {
    let (_upstream, doorward) = running(|mut call| async move {
        for code in [100, 103] {
            let interim = Response::builder().status(code).header("link", "</x>").body(()).unwrap();
            call.respond.send_informational(interim).unwrap();
        }
        call.answer("0").await;
    });
    let mut frames = Frames::open(&doorward).await;
    frames.request(1, &frames::grpc_fields("/demo.v1.Echo/Unary", &[])).await;
    let mut heads = 0;
    loop {
        let frame = frames.on_stream(1).await.unwrap();
        heads += u32::from(frame.kind == kind::HEADERS);
        if frame.flags & frames::END_STREAM != 0 {
            break;
        }
    }
    assert_eq!(heads, 2, "the answer's head and its trailers");
}

#[tokio::test]
async fn an_answer_may_be_a_head_and_nothing_more() {
    let (_upstream, doorward) = running(|mut call| async move {
        call.read().await;
        let mut answer = Response::builder().header("x-proof", "1");
        answer = match call.path.rsplit('/').next().unwrap() {
            "TrailersOnly" => answer.header("content-type", "application/grpc").header("grpc-status", "5").header("grpc-message", "a%20b"),
            status => answer.status(status[1..].parse::<u16>().unwrap()),
        };
        call.respond.send_response(answer.body(()).unwrap(), true).unwrap();
    });
    let mut wire = Wire::connect(&doorward).await;
    let answer = wire.call(request("/demo.v1.Echo/TrailersOnly", &[])).await;
    assert!(answer.is_trailers_only() && answer.field("grpc-message") == Some("a%20b"), "{answer:?}");
    for code in [204, 302, 401, 404, 500, 502] {
        let answer = wire.call(request(&format!("/demo.v1.Echo/S{code}"), &[])).await;
        assert_eq!((answer.status, answer.field("x-proof"), answer.grpc_status()), (code, Some("1"), None), "{answer:?}");
        assert!(answer.body.is_empty() && answer.trailers.is_none() && answer.error.is_none(), "{answer:?}");
    }
    let codes: Vec<_> = doorward.access_lines(7).iter().map(|line| line["grpc.code"].as_str().unwrap().to_owned()).collect();
    let expected = ["NOT_FOUND", "UNKNOWN", "UNKNOWN", "UNAUTHENTICATED", "UNIMPLEMENTED", "UNKNOWN", "UNAVAILABLE"];
    assert_eq!(codes, expected, "as http-grpc-status-mapping.md reads them");
}

/// How an upstream ends a call whose time is up, by its own clock. None of it may hide that the deadline has passed.
const ENDS: [&str; 7] = ["Cancel", "InternalError", "NoError", "Refused", "Cancelled", "Trailers", "Cut"];

#[tokio::test]
async fn whoever_is_first_at_the_deadline_the_call_ends_with_it() {
    let (_upstream, doorward) = running(|mut call| async move {
        // Its clock starts when the request comes and is as long as the deadline, or a little shorter, as coarse clocks are.
        let timeout = call.timeout.expect("grpc-timeout");
        let early = if timeout.as_millis().is_multiple_of(2) { 0 } else { 10 };
        tokio::time::sleep(timeout - Duration::from_millis(early)).await;
        match call.path.rsplit('/').next().unwrap() {
            "Cancel" => call.respond.send_reset(Reason::CANCEL),
            "InternalError" => call.respond.send_reset(Reason::INTERNAL_ERROR),
            "NoError" => call.respond.send_reset(Reason::NO_ERROR),
            "Refused" => call.respond.send_reset(Reason::REFUSED_STREAM),
            // As tonic's servers do.
            "Cancelled" => {
                let mut answer = response();
                answer.headers_mut().extend(status("1"));
                let _ = call.respond.send_response(answer, true);
            }
            "Trailers" => {
                let Ok(mut stream) = call.respond.send_response(response(), false) else { return };
                let _ = stream.send_trailers(status("1"));
            }
            _ => call.cut_connection().await,
        }
    });
    let mut wrong = Vec::new();
    for end in ENDS {
        let mut wire = Wire::connect(&doorward).await;
        let mut running = Vec::new();
        // One that cuts its connection ends every call on it.
        for number in 0..if end == "Cut" { 1 } else { 60 } {
            let timeout = format!("{}m", 150 + number % 20);
            let request = request(&format!("/demo.v1.Echo/{end}"), &[("grpc-timeout", &timeout)]);
            let (answer, mut stream) = wire.open(request).await.unwrap();
            stream.send_data(message(b""), true).unwrap();
            running.push(tokio::spawn(answer));
        }
        for answer in running {
            let answer = answer.await.unwrap();
            if answer.refusal() != (4, "DEADLINE".to_owned()) {
                wrong.push((end, answer));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong: {:?}", wrong.len(), wrong.first());
}

#[tokio::test]
async fn an_upstream_that_turns_out_unreachable_at_the_deadline_is_the_deadlines() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = format!("upstream: {{ address: \"http://{}\", connect_timeout: 300ms }}\n", silent.local_addr().unwrap());
    let doorward = Site::new().start_unready(&configuration("", &format!("{OPEN}{upstream}")));
    let mut wire = Wire::connect(&doorward).await;
    let answer = wire.call(request("/demo.v1.Echo/Unary", &[("grpc-timeout", "310m")])).await;
    assert_eq!(answer.refusal(), (4, "DEADLINE".to_owned()), "{answer:?}");
}

#[tokio::test]
async fn an_answer_of_its_own_before_the_deadline_is_not_touched() {
    let (_upstream, doorward) = running(|call| async move {
        let code = if call.path.ends_with("Cancelled") { "1" } else { "5" };
        call.answer(code).await;
    });
    let mut wire = Wire::connect(&doorward).await;
    for (method, code) in [("Cancelled", 1), ("NotFound", 5)] {
        let answer = wire.call(request(&format!("/demo.v1.Echo/{method}"), &[("grpc-timeout", "20S")])).await;
        assert_eq!(answer.refusal(), (code, String::new()), "{method}");
    }
}

#[tokio::test]
async fn a_stream_that_the_upstream_refuses_is_refused_so_that_the_client_may_try_again() {
    let (_upstream, doorward) = running(|mut call| async move {
        if call.path.ends_with("Late") {
            let mut stream = call.respond.send_response(response(), false).unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            return stream.send_reset(Reason::REFUSED_STREAM);
        }
        call.respond.send_reset(Reason::REFUSED_STREAM);
    });
    let mut wire = Wire::connect(&doorward).await;
    let answer = wire.call(request("/demo.v1.Echo/Unary", &[])).await;
    assert_eq!((answer.status, answer.error), (0, Some(Reason::REFUSED_STREAM)), "{answer:?}");
    // Once an answer has begun no client would try again: the status says more.
    let answer = wire.call(request("/demo.v1.Echo/Late", &[])).await;
    assert_eq!(answer.refusal(), (14, "UPSTREAM_RESET".to_owned()), "{answer:?}");
    for line in doorward.access_lines(2) {
        assert_eq!((&line["grpc.code"], &line["reason"]), (&"UNAVAILABLE".into(), &"UPSTREAM_RESET".into()));
    }
}
