//! Header lists over their limit, in both directions.

use crate::harness::raw_upstream::response;
use crate::harness::*;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request};

const OPEN: &str = "authentication: { mode: disabled }\n";

/// The size of a request's header list as RFC 9113 §6.5.2 counts it.
fn size_of(request: &Request<()>) -> (usize, usize) {
    let pseudo = [":method", "POST", ":scheme", "https", ":authority", "localhost", ":path", request.uri().path()];
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum::<usize>();
    (fields + pseudo.iter().map(|text| text.len()).sum::<usize>() + 4 * 32, request.headers().len() + 4)
}

/// A request of exactly this many bytes.
fn of_bytes(bytes: usize) -> Request<()> {
    let mut request = request("/demo.v1.Echo/Unary", &[("padding", "")]);
    let missing = bytes - size_of(&request).0;
    request.headers_mut().insert("padding", HeaderValue::from_str(&"p".repeat(missing)).unwrap());
    assert_eq!(size_of(&request).0, bytes);
    request
}

/// A request of exactly this many fields.
fn of_fields(fields: usize) -> Request<()> {
    let mut request = request("/demo.v1.Echo/Unary", &[]);
    for number in size_of(&request).1..fields {
        request.headers_mut().append("many", HeaderValue::from_str(&number.to_string()).unwrap());
    }
    assert_eq!(size_of(&request).1, fields);
    request
}

#[tokio::test]
async fn a_header_list_over_either_limit_is_431_and_the_connection_lives() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let mut wire = Wire::connect(&doorward).await;
    for (what, request, status) in [
        ("16 KiB", of_bytes(16 << 10), 200),
        ("one byte more", of_bytes((16 << 10) + 1), 431),
        ("four times as many", of_bytes(60 << 10), 431),
        ("100 fields", of_fields(100), 200),
        ("101 fields", of_fields(101), 431),
        ("400 fields", of_fields(390), 431),
        ("a usual one after all that", of_fields(10), 200),
    ] {
        let answer = wire.call(request).await;
        assert_eq!(answer.status, status, "{what}: {answer:?}");
    }
    assert_eq!(upstream.seen().len(), 3);
}

#[tokio::test]
async fn the_limits_are_the_configurations() {
    let upstream = RawUpstream::echo();
    let doorward =
        Site::new().start(&configuration(&upstream.url(), &format!("{OPEN}limits: {{ header_bytes: 2KiB, header_fields: 20 }}\n")));
    let mut wire = Wire::connect(&doorward).await;
    for (request, status) in [(of_bytes(2048), 200), (of_bytes(2049), 431), (of_fields(20), 200), (of_fields(21), 431)] {
        assert_eq!(wire.call(request).await.status, status);
    }
}

#[tokio::test]
async fn far_over_the_limit_only_that_connection_may_end() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let mut other = Wire::connect(&doorward).await;
    let mut wire = Wire::connect(&doorward).await;
    let answer = wire.call(of_bytes(400 << 10)).await;
    assert!(answer.status == 431 || answer.error.is_some(), "{answer:?}");
    assert_eq!(other.call(of_fields(10)).await.status, 200);
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn request_trailers_over_the_limit_do_not_reach_the_upstream() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let mut wire = Wire::connect(&doorward).await;
    let answer = wire.call_with(request("/demo.v1.Echo/Unary", &[]), wire::message(b""), Some(big(20 << 10))).await;
    assert_ne!((answer.status, answer.grpc_status()), (200, Some(0)), "{answer:?}");
    assert!(upstream.seen().iter().all(|seen| seen.trailers.is_none()), "{:?}", upstream.seen());
    assert_eq!(wire.call(of_fields(10)).await.status, 200, "the connection lives");
}

fn big(bytes: usize) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for number in 0..bytes / 1024 {
        let name = HeaderName::from_bytes(format!("part-{number}").as_bytes()).unwrap();
        fields.insert(name, HeaderValue::from_str(&"x".repeat(1024)).unwrap());
    }
    fields
}

fn many() -> HeaderMap {
    let mut fields = HeaderMap::new();
    for number in 0..120 {
        fields.append("many", HeaderValue::from_str(&number.to_string()).unwrap());
    }
    fields
}

#[tokio::test]
async fn headers_and_trailers_of_the_upstream_over_the_limit_are_an_internal_error() {
    let upstream = RawUpstream::start(|mut call| async move {
        let path = call.path.clone();
        let oversized = if path.ends_with("Many") {
            many()
        } else if path.ends_with("Huge") {
            big(40 << 10)
        } else {
            big(17 << 10)
        };
        if path.contains("Trailers") {
            call.read().await;
            let Ok(mut stream) = call.respond.send_response(response(), false) else { return };
            let _ = stream.send_data(Bytes::from_static(&[0; 5]), false);
            let mut trailers = oversized;
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let _ = stream.send_trailers(trailers);
        } else if path.contains("Headers") {
            let mut answer = response();
            answer.headers_mut().extend(oversized);
            if let Ok(mut stream) = call.respond.send_response(answer, false) {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                let _ = stream.send_trailers(trailers);
            }
        } else {
            call.answer("0").await;
        }
    });
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let mut wire = Wire::connect(&doorward).await;
    for method in ["Headers", "HeadersMany", "HeadersHuge", "Trailers", "TrailersMany", "TrailersHuge"] {
        let answer = wire.call(request(&format!("/demo.v1.Big/{method}"), &[])).await;
        assert_eq!(answer.refusal(), (13, "UPSTREAM_HEADERS".to_owned()), "{method}: {answer:?}");
        assert_eq!(wire.call(request("/demo.v1.Echo/Unary", &[])).await.refusal(), (0, String::new()), "others go on after {method}");
    }
}

#[tokio::test]
async fn an_answers_head_over_the_limit_is_the_same_error_whatever_its_size() {
    let upstream = RawUpstream::start(|mut call| async move {
        let fields: usize = call.path.rsplit("Fields").next().unwrap().parse().unwrap();
        let mut answer = response();
        answer.headers_mut().insert("grpc-status", HeaderValue::from_static("0"));
        for number in 0..fields {
            let name = HeaderName::try_from(format!("x-{number}")).unwrap();
            answer.headers_mut().insert(name, HeaderValue::from_static("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
        }
        let _ = call.respond.send_response(answer, true);
    });
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    let mut wire = Wire::connect(&doorward).await;
    // Around our limits, and around the HTTP/2 library's own, which resets instead of telling.
    for fields in [50, 150, 500, 900, 915, 925, 950, 1200, 2000] {
        let expected = if fields == 50 { (0, String::new()) } else { (13, "UPSTREAM_HEADERS".to_owned()) };
        assert_eq!(wire.call(request(&format!("/demo.v1.Big/Fields{fields}"), &[])).await.refusal(), expected, "{fields} fields");
    }
}
