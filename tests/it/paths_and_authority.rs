//! Paths and authorities: what is decided on is what the upstream sees, and nothing else has a way through.

use crate::harness::frames::{END_HEADERS, block, grpc_fields};
use crate::harness::token::bearer;
use crate::harness::*;
use http::Uri;
use serde_json::json;

/// A rule that would let everything in shows that the path alone refuses.
fn open(upstream: &RawUpstream) -> Doorward {
    Site::new().start(&configuration(&upstream.url(), "authentication: { mode: disabled }\n"))
}

#[tokio::test]
async fn a_path_outside_the_grammar_is_method_malformed_for_everyone() {
    let upstream = RawUpstream::echo();
    let (open, closed) = (open(&upstream), Site::new().start(&standard(&upstream.url())));
    for doorward in [&open, &closed] {
        let mut wire = Wire::connect(doorward).await;
        for path in [
            "/",
            "//",
            "/demo.v1.Public",
            "/demo.v1.Public/",
            "//Unary",
            "/demo.v1.Public//Unary",
            "/demo.v1.Public/Unary/",
            "/a/b/c",
            "/demo.v1.Public/Unary?x=1",
            "/demo.v1.Public/Unary?",
            "/demo.v1.Public%2FUnary",
            "/demo.v1.Public/%55nary",
            "/demo.v1.Public/Unary;v=1",
            "/.demo/Unary",
            "/demo./Unary",
            "/demo..v1/Unary",
            "/1demo/Unary",
            "/demo/1Unary",
            "/demo-v1/Unary",
            "/demo/Una.ry",
            "/../demo.v1.Public/Unary",
            "/demo.v1.Public/*",
            "/demo/\u{fc}",
        ] {
            let Ok(uri) = format!("https://localhost{path}").parse::<Uri>() else { continue };
            let mut request = request("/a/b", &[]);
            *request.uri_mut() = uri;
            let answer = wire.call(request).await;
            assert_eq!(answer.refusal(), (12, "METHOD_MALFORMED".to_owned()), "{path}");
        }
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn what_http2_forbids_in_a_path_ends_only_its_stream() {
    let upstream = RawUpstream::echo();
    let doorward = open(&upstream);
    for path in ["", "demo.v1.Echo/Unary", "*", "http://localhost/demo.v1.Echo/Unary", "/demo.v1.Echo/Un ary", "/demo\\Unary"] {
        let mut frames = Frames::open(&doorward).await;
        frames.request(1, &grpc_fields(path, &[])).await;
        let answer = frames.on_stream(1).await.unwrap_or_else(|| panic!("{path:?} ended the connection"));
        assert!(matches!(answer.kind, kind::RST_STREAM | kind::HEADERS), "{path:?}: {answer:?}");
        frames.request(3, &grpc_fields("/demo.v1.Echo/Unary", &[])).await;
        assert_eq!(frames.on_stream(3).await.unwrap().kind, kind::HEADERS, "{path:?}: the connection lives");
    }
    let paths: Vec<String> = upstream.seen().into_iter().map(|seen| seen.path).collect();
    assert!(paths.iter().all(|path| path == "/demo.v1.Echo/Unary"), "{paths:?}");
}

#[tokio::test]
async fn decision_and_upstream_see_the_same_path_also_behind_a_fragment() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&standard(&upstream.url()));
    let authorization = bearer(json!({}));
    let mut frames = Frames::open(&doorward).await;
    // The role viewer may Get and not Delete.
    frames.request(1, &grpc_fields("/demo.v1.Users/Get#/demo.v1.Users/Delete", &[("authorization", &authorization)])).await;
    frames.on_stream(1).await.unwrap();
    frames.request(3, &grpc_fields("/demo.v1.Users/Delete#/demo.v1.Users/Get", &[("authorization", &authorization)])).await;
    frames.on_stream(3).await.unwrap();
    for seen in upstream.seen() {
        assert_eq!(seen.path, "/demo.v1.Users/Get");
    }
}

#[tokio::test]
async fn the_path_forwarded_is_the_path_that_was_authorised() {
    let upstream = RawUpstream::echo();
    let doorward = open(&upstream);
    let mut wire = Wire::connect(&doorward).await;
    for path in ["/a/b", "/_a.B_1.c/_D9", "/demo.v1.Echo/unary", "/DEMO.V1.ECHO/UNARY"] {
        assert_eq!(wire.call(request(path, &[])).await.refusal(), (0, String::new()), "{path}");
        assert_eq!(upstream.seen().last().unwrap().path, path);
    }
}

#[tokio::test]
async fn there_is_exactly_one_authority() {
    let upstream = RawUpstream::echo();
    let doorward = open(&upstream);
    let mut frames = Frames::open(&doorward).await;
    let (method, scheme, path) = ((":method", "POST"), (":scheme", "https"), (":path", "/demo.v1.Echo/Unary"));
    let usual = [("content-type", "application/grpc"), ("te", "trailers")];
    let upstream_address = upstream.address.to_string();
    for (number, (authority, hosts, expected)) in (0u32..).zip([
        (Some("api.example.com:8443"), vec![], "api.example.com:8443"),
        (Some("api.example.com"), vec!["other.example.com"], "api.example.com"),
        (None, vec!["host.example.com"], "host.example.com"),
        (None, vec![], upstream_address.as_str()),
    ]) {
        let mut fields = vec![method, scheme, path];
        fields.extend(authority.map(|authority| (":authority", authority)));
        fields.extend(usual);
        fields.extend(hosts.iter().map(|host| ("host", *host)));
        frames.request(1 + 2 * number, &fields).await;
        frames.on_stream(1 + 2 * number).await.unwrap();
        let seen = upstream.nth(usize::try_from(number).unwrap() + 1);
        assert_eq!(seen.authority.as_deref(), Some(expected));
        assert!(seen.values("host").is_empty());
    }
}

#[tokio::test]
async fn a_malformed_request_ends_only_its_own_stream() {
    let upstream = RawUpstream::echo();
    let doorward = open(&upstream);
    let good = grpc_fields("/demo.v1.Echo/Unary", &[]);
    let with = |more: &[(&'static str, &'static str)]| grpc_fields("/demo.v1.Echo/Unary", more);
    let without = |name: &str| good.iter().copied().filter(|(field, _)| *field != name).collect::<Vec<_>>();
    let mut userinfo = good.clone();
    userinfo[2].1 = "user:secret@localhost";
    for (what, fields) in [
        ("userinfo in the authority", userinfo),
        ("two hosts", with(&[("host", "a"), ("host", "b")])),
        ("a value that begins with a space", with(&[("x-odd", " a")])),
        ("a value that ends with a tab", with(&[("x-odd", "a\t")])),
        ("a credential that begins with a space", with(&[("authorization", " Bearer x")])),
        ("a pseudo-header after a field", with(&[(":path", "/demo.v1.Echo/Other")])),
        ("two paths", [vec![(":path", "/demo.v1.Echo/Other")], good.clone()].concat()),
        ("no method", without(":method")),
        ("no path", without(":path")),
        ("a connection field", with(&[("connection", "close")])),
        ("another te", with(&[("te", "gzip")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
    ] {
        let mut frames = Frames::open(&doorward).await;
        frames.request(1, &fields).await;
        let end = frames.on_stream(1).await.unwrap_or_else(|| panic!("{what} ended the connection"));
        assert_eq!(end.kind, kind::RST_STREAM, "{what}: {end:?}");
        assert!(frames.is_alive().await, "{what}");
    }
    let seen = upstream.seen();
    assert!(seen.is_empty(), "{seen:?}");
}

#[tokio::test]
async fn what_no_field_may_hold_never_reaches_the_upstream_and_harms_nobody_else() {
    let upstream = RawUpstream::echo();
    let doorward = open(&upstream);
    let mut other = Wire::connect(&doorward).await;
    // The HPACK layer itself refuses these, which may end the connection that sent them.
    for field in [("x-odd", "a\nb: c"), ("x-odd", "a\0b"), ("X-Odd", "a"), ("x odd", "a"), ("", "a"), ("x-odd\r", "a"), (":odd", "a")] {
        let mut frames = Frames::open(&doorward).await;
        frames.request(1, &grpc_fields("/demo.v1.Echo/Odd", &[field])).await;
        while let Some(frame) = frames.next().await {
            assert_ne!(frame.kind, kind::HEADERS, "{field:?}");
            if matches!(frame.kind, kind::RST_STREAM | kind::GOAWAY) {
                break;
            }
        }
        assert_eq!(other.call(request("/demo.v1.Echo/Unary", &[])).await.refusal(), (0, String::new()), "{field:?}");
    }
    assert!(upstream.seen().iter().all(|seen| seen.path == "/demo.v1.Echo/Unary"));
}

#[tokio::test]
async fn connect_is_refused_and_extended_connect_not_advertised() {
    let upstream = RawUpstream::echo();
    let doorward = open(&upstream);
    let mut frames = Frames::open(&doorward).await;
    frames.request(1, &[(":method", "CONNECT"), (":authority", "localhost:22")]).await;
    let mut refused = false;
    while let Some(frame) = frames.next().await {
        if frame.kind == kind::SETTINGS && frame.flags == 0 {
            let identifiers: Vec<u16> = frame.payload.chunks(6).map(|setting| u16::from_be_bytes([setting[0], setting[1]])).collect();
            assert!(!identifiers.contains(&8), "SETTINGS_ENABLE_CONNECT_PROTOCOL");
        }
        if frame.stream == 1 {
            refused = true;
            break;
        }
    }
    assert!(refused);
    frames
        .send(
            kind::HEADERS,
            END_HEADERS,
            3,
            &block(&[
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "https"),
                (":authority", "localhost"),
                (":path", "/a/b"),
            ]),
        )
        .await;
    assert!(frames.on_stream(3).await.is_some(), "the connection lives");
    assert!(upstream.seen().is_empty());
}
