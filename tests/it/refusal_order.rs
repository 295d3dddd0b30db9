//! Refusals are decided in one order: 431, 405, 415, METHOD_MALFORMED, TIMEOUT_MALFORMED, DRAINING, authentication,
//! authorization. Each request here is wrong in one way and in every later way too, and hears of the first only.

use crate::harness::token::bearer;
use crate::harness::*;
use http::{HeaderValue, Method, Request};
use serde_json::json;

/// Wrong from step `first` on; steps before it are right.
fn wrong_from(first: usize) -> Request<()> {
    let path = if first <= 3 { "/demo.v1.Users/Delete/" } else { "/demo.v1.Users/Delete" };
    let mut request = request(path, &[]);
    if first == 0 {
        request.headers_mut().insert("padding", HeaderValue::from_str(&"x".repeat(17 << 10)).unwrap());
    }
    if first <= 1 {
        *request.method_mut() = Method::PUT;
    }
    if first <= 2 {
        request.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    }
    if first <= 4 {
        request.headers_mut().insert("grpc-timeout", HeaderValue::from_static("+5S"));
    }
    if first == 6 {
        // Known, but not allowed: the role viewer does not delete.
        request.headers_mut().insert("authorization", bearer(json!({})).parse().unwrap());
    }
    request
}

#[tokio::test]
async fn each_step_is_decided_before_the_next() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&standard(&upstream.url()));
    let mut wire = Wire::connect(&doorward).await;
    for (first, status) in [(0, 431), (1, 405), (2, 415)] {
        let answer = wire.call(wrong_from(first)).await;
        assert_eq!((answer.status, answer.grpc_status()), (status, None), "step {first}: {answer:?}");
    }
    for (first, expected) in
        [(3, (12, "METHOD_MALFORMED")), (4, (13, "TIMEOUT_MALFORMED")), (5, (16, "CREDENTIALS_MISSING")), (6, (7, "PERMISSION_MISSING"))]
    {
        let answer = wire.call(wrong_from(first)).await;
        assert_eq!(answer.refusal(), (expected.0, expected.1.to_owned()), "step {first}");
        assert!(answer.is_trailers_only(), "step {first}: {answer:?}");
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn an_unauthenticated_caller_cannot_probe_which_methods_exist() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&standard(&upstream.url()));
    let mut wire = Wire::connect(&doorward).await;
    let mut answers = Vec::new();
    for path in ["/demo.v1.Users/Get", "/demo.v1.Users/Nothing", "/no.Such/Thing"] {
        let answer = wire.call(request(path, &[])).await;
        answers.push((answer.refusal(), answer.field("grpc-message").map(str::to_owned)));
    }
    assert_eq!(answers[0].0, (16, "CREDENTIALS_MISSING".to_owned()));
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[tokio::test]
async fn what_is_no_grpc_request_gets_http_answers_with_a_line_for_people() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&standard(&upstream.url()));
    let mut wire = Wire::connect(&doorward).await;
    let authorization = bearer(json!({}));
    for (content_type, accepted) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc;charset=utf-8", true),
        ("application/grpc-web", false),
        ("application/grpcx", false),
        ("application/json", false),
        ("", false),
    ] {
        let mut request = request("/demo.v1.Echo/Unary", &[("authorization", &authorization)]);
        request.headers_mut().insert("content-type", HeaderValue::from_str(content_type).unwrap());
        let answer = wire.call(request).await;
        if accepted {
            assert_eq!((answer.status, answer.grpc_status()), (200, Some(0)), "{content_type}");
        } else {
            assert_eq!((answer.status, answer.grpc_status()), (415, None), "{content_type}");
            assert!(answer.body.is_ascii() && (10..200).contains(&answer.body.len()), "{answer:?}");
        }
    }
    let mut without = request("/demo.v1.Echo/Unary", &[("authorization", &authorization)]);
    without.headers_mut().remove("content-type");
    assert_eq!(wire.call(without).await.status, 415);
    for method in [Method::GET, Method::PUT, Method::OPTIONS, Method::HEAD, Method::DELETE] {
        let mut request = request("/demo.v1.Echo/Unary", &[("authorization", &authorization)]);
        *request.method_mut() = method.clone();
        let answer = wire.call(request).await;
        assert_eq!((answer.status, answer.grpc_status()), (405, None), "{method}");
        assert!(method == Method::HEAD || (10..200).contains(&answer.body.len()), "{answer:?}");
    }
    assert_eq!(upstream.seen().len(), 3);
}
