//! One JSON line a call, when it ends, with no secret in it.

use crate::harness::token::{SECRET, bearer};
use crate::harness::*;
use serde_json::{Value, json};

#[test]
fn every_call_has_one_line_with_all_its_fields() {
    let upstream = PythonUpstream::start();
    let doorward = Site::new().start(&standard(&upstream.url()));
    let token = token(json!({}));
    let answers = doorward.calls(&[
        call("/demo.v1.Users/Get").bearer(&token).api_key(API_KEY).with("messages", json!(["12345"])),
        call("/demo.v1.Users/Delete").bearer(&token),
        call("/demo.v1.Echo/Bidi").bearer(&token).with("messages", json!(["a", "b"])),
        call("/demo.v1.Echo/Unary").bearer(&token).behaviour(json!({"status": 5})),
        call("/demo.v1.Public/Unary"),
    ]);
    let lines = doorward.access_lines(5);
    assert_eq!(lines.len(), 5);
    let fine = &lines[0];
    for (name, value) in [
        ("grpc.service", "demo.v1.Users"),
        ("grpc.method", "Get"),
        ("grpc.code", "OK"),
        ("provider", "corporate"),
        ("user_id", "alice"),
        ("client_id", "analytics-service"),
        ("api_key_id", "analytics"),
    ] {
        assert_eq!(fine[name], value, "{name} in {fine}");
    }
    for name in ["time", "request_id", "auth", "rule", "peer"] {
        assert!(fine[name].as_str().is_some_and(|text| !text.is_empty()), "{name} in {fine}");
    }
    for name in ["duration_ms", "upstream_ms", "overhead_us", "bytes_in", "bytes_out"] {
        assert!(fine[name].is_number(), "{name} in {fine}");
    }
    assert!(fine["bytes_in"].as_u64() >= Some(10) && fine["user_agent"].as_str().is_some_and(|agent| agent.starts_with("grpc-python")));
    assert!(fine["reason"].is_null());
    assert_eq!((&lines[1]["grpc.code"], &lines[1]["reason"]), (&json!("PERMISSION_DENIED"), &json!("PERMISSION_MISSING")));
    assert_eq!(lines[1]["request_id"], answers[1].0["error_metadata"]["request_id"]);
    assert_eq!((&lines[2]["grpc.method"], &lines[2]["grpc.code"]), (&json!("Bidi"), &json!("OK")));
    assert_eq!((&lines[3]["grpc.code"], &lines[3]["reason"]), (&json!("NOT_FOUND"), &Value::Null), "the upstream's status is no refusal");
    assert!(lines[4]["user_id"].is_null());
    let mut ids: Vec<&str> = lines.iter().map(|line| line["request_id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 5, "request ids differ");
}

#[test]
fn no_secret_is_in_any_output() {
    let upstream = PythonUpstream::start();
    let rest = site::STANDARD.to_owned() + "log: { level: debug, explain_refusals: true }\n";
    let doorward = Site::new().start(&configuration(&upstream.url(), &rest));
    let tokens = [
        token(json!({"secret_claim": "claim-that-nobody-may-see"})),
        token(json!({"exp": 1})),
        token(json!({"exp": 1, "secret_claim": "claim-that-nobody-may-see"})),
        token(json!({"sub": 1})),
        "token-that-is-none".to_owned(),
    ];
    let mut calls: Vec<Call> = tokens.iter().map(|token| call("/demo.v1.Echo/Unary").bearer(token)).collect();
    calls.extend([API_KEY, "key-of-nobody", "key-that-expired"].map(|key| call("/demo.v1.Echo/Unary").api_key(key)));
    calls.push(call("/demo.v1.Echo/Unary").metadata("authorization", "Basic dXNlcjpwYXNzd29yZA=="));
    let answers = doorward.calls(&calls);
    doorward.access_lines(calls.len());
    let said = [doorward.stderr(), doorward.stdout().text(), doorward.get("/metrics").1, format!("{answers:?}")].concat();
    let signatures = tokens.iter().map(|token| token.rsplit('.').next().unwrap());
    for secret in
        [SECRET, API_KEY, "key-of-nobody", "key-that-expired", "nobody-may-see", "dXNlcjpwYXNzd29yZA"].into_iter().chain(signatures)
    {
        assert!(!said.contains(secret), "{secret} in the output");
    }
}

#[tokio::test]
async fn what_a_client_chose_is_bounded_and_does_not_break_the_line() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&standard(&upstream.url()));
    let mut wire = Wire::connect(&doorward).await;
    let (long, authorization) = ("\"\\ü".repeat(1000), bearer(json!({})));
    let fields = [("user-agent", long.as_str()), ("x-request-id", "mine"), ("request_id", "mine"), ("authorization", &authorization)];
    wire.call(request("/demo.v1.Echo/Unary", &fields)).await;
    wire.call(request("/demo.v1.Echo/Unary/with/more", &fields)).await;
    let lines = doorward.access_lines(2);
    assert!(lines[0]["user_agent"].as_str().unwrap().len() <= 256);
    assert_ne!(lines[0]["request_id"], "mine");
    assert_eq!(
        (&lines[1]["reason"], &lines[1]["grpc.method"], &lines[1]["grpc.service"]),
        (&json!("METHOD_MALFORMED"), &Value::Null, &Value::Null)
    );
    assert!(!doorward.stdout().text().contains("with/more"));
}

#[test]
fn a_cancelled_call_has_its_line_too() {
    let upstream = PythonUpstream::start();
    let doorward = Site::new().start(&standard(&upstream.url()));
    doorward.call(call("/demo.v1.Echo/Bidi").bearer(&token(json!({}))).behaviour(json!({"sleep": 5})).with("cancel_after", 0.2));
    assert_eq!(doorward.access_lines(1)[0]["grpc.code"], "CANCELLED");
}

#[test]
fn access_none_writes_nothing() {
    let upstream = PythonUpstream::start();
    let doorward = Site::new().start(&configuration(&upstream.url(), &(site::STANDARD.to_owned() + "log: { access: none }\n")));
    doorward.calls(&[call("/demo.v1.Echo/Unary").bearer(&token(json!({}))), call("/demo.v1.Echo/Unary")]);
    eventually("both calls in the metrics", || (doorward.metric("grpc_server_handled_total", &[]) == 2.0).then_some(()));
    assert_eq!(doorward.stdout().all(), Vec::<String>::new());
}
