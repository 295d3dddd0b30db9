//! Calls that outlive their credential: real trailers, or nothing at all, as `long_calls` says.

use crate::harness::site::sha256_hex;
use crate::harness::*;
use crate::revocations::revoking;
use serde_json::json;
use std::time::Duration;

/// A stream of a message every 50 ms for `seconds`.
fn stream(name: &str, seconds: f64) -> Call {
    let behaviour = json!({ "count": (seconds / 0.05) as u64, "sleep": 0.05 });
    call(&format!("/demo.v1.Echo/ServerStream{name}")).behaviour(behaviour).with("together", true)
}

fn site() -> Site {
    let site = Site::new();
    site.write("revocations.yaml", "revoked: []\n");
    site
}

#[test]
fn a_stream_ends_as_its_token_expires() {
    let (upstream, site) = (PythonUpstream::start(), site());
    let key = "key-of-a-few-seconds";
    let expires = jiff::Timestamp::from_second(now() + 12).unwrap();
    let record = format!("keys: [{{ id: short, client_id: c, sha256: {}, expires_at: {expires} }}]\n", sha256_hex(key));
    site.write("api-keys.yaml", record);
    let yaml = revoking(&upstream.url(), "{ on_expiry: end }").replace("leeway: 0s", "leeway: 1s");
    let doorward = site.start(&yaml);
    // Connected already: on a busy machine the client's start may take longer than a credential lasts.
    let mut client = doorward.client();
    assert_eq!(client.calls(&[call("/demo.v1.Public/Unary")])[0].code(), 0);
    let expiring = token(json!({ "exp": now() + 5 }));
    let started = now();
    let answers = client.calls(&[
        stream("Expiring", 15.0).bearer(&expiring),
        stream("WithTime", 1.0).bearer(&expiring),
        stream("Lasting", 8.0).bearer(&token(json!({}))),
        stream("OfAKey", 15.0).api_key(key),
        stream("OfBoth", 15.0).api_key(key).bearer(&token(json!({ "exp": now() + 60 }))),
        call("/demo.v1.Echo/BidiQuiet").with("together", true).behaviour(json!({ "sleep": 15.0 })).bearer(&expiring),
    ]);
    let refusals: Vec<(u64, &str)> = answers.iter().map(Answer::refusal).collect();
    let (token, key) = ((16, "TOKEN_EXPIRED"), (16, "API_KEY_EXPIRED"));
    assert_eq!(refusals, [token, (0, ""), (0, ""), key, key, token]);
    assert_eq!(answers[0].trailing("www-authenticate"), ["Bearer"], "real trailers");
    // exp + leeway is six seconds after the start, give or take one of each clock's roundings; the key has twelve.
    for (index, most) in [(0, 9.0), (3, 14.0), (5, 9.0)] {
        let seconds = answers[index].seconds();
        assert!((0.5..most).contains(&seconds), "{index}: {seconds} s");
    }
    assert!(answers[0].messages().len() > 5, "what came before stays");
    assert!(now() >= started + 6, "not before leeway is over");
    assert!(upstream.ended("/demo.v1.Echo/ServerStreamExpiring")["seconds"].as_f64().unwrap() < 12.0, "the service was told");
    let line = doorward.access_lines(7).into_iter().find(|line| line["grpc.method"] == "ServerStreamExpiring").unwrap();
    assert_eq!(
        (&line["grpc.code"], &line["reason"], &line["user_id"]),
        (&json!("UNAUTHENTICATED"), &json!("TOKEN_EXPIRED"), &json!("alice"))
    );
}

#[test]
fn a_stream_may_outlive_its_token() {
    let (upstream, site) = (PythonUpstream::start(), site());
    for yaml in [
        revoking(&upstream.url(), "{ on_expiry: continue }"),
        revoking(&upstream.url(), "{}"),
        revoking(&upstream.url(), "{ on_expiry: end }\n  insecure_audit: true"),
    ] {
        let doorward = site.start(&yaml);
        let mut client = doorward.client();
        assert_eq!(client.calls(&[call("/demo.v1.Public/Unary")])[0].code(), 0, "connected from here on");
        let late = |answers: &Vec<Answer>| answers[0].reason() == "TOKEN_EXPIRED" && answers[0].messages().is_empty();
        // Far enough for the call to begin, mostly; over before the stream is. One that begins later is refused outright.
        let mut lasting = |seconds: i64| {
            let exp = now() + seconds;
            let answers = client.calls(&[stream("", seconds as f64 + 1.0).bearer(&token(json!({ "exp": exp })))]);
            assert!(late(&answers) || now() > exp, "or it would prove nothing");
            answers
        };
        let answers = Some(lasting(4)).filter(|answers| !late(answers)).unwrap_or_else(|| lasting(12));
        assert_eq!(answers[0].refusal(), (0, ""), "{yaml}");
    }
}

#[test]
fn a_stream_ends_as_its_caller_is_revoked_and_the_others_do_not() {
    let (upstream, site) = (PythonUpstream::start(), site());
    let doorward = site.start(&revoking(&upstream.url(), "{}"));
    let calls = [
        stream("OfAToken", 15.0).bearer(&token(json!({ "jti": "t-1" }))),
        stream("OfAUser", 15.0).bearer(&token(json!({ "sub": "mallory" }))),
        stream("OfAKey", 15.0).api_key(API_KEY),
        // In the service's hands, nothing sent yet.
        call("/demo.v1.Echo/UnaryLong").with("together", true).behaviour(json!({ "sleep": 15.0 })).bearer(&token(json!({ "jti": "t-1" }))),
        stream("OfAnother", 5.0).bearer(&token(json!({ "jti": "t-2" }))),
    ];
    let answers = std::thread::scope(|scope| {
        let client = scope.spawn(|| doorward.calls(&calls));
        eventually("all calls at the service", || (upstream.calls().len() == 5).then_some(()));
        site.write(
            "revocations.yaml",
            "revoked:\n- { jti: t-1, issuer: https://issuer.test/ }\n- { user_id: mallory, issuer: https://issuer.test/, before: 2199-01-01T00:00:00Z }\n- { api_key: analytics }\n",
        );
        let revoked = Stopwatch::start();
        for method in ["ServerStreamOfAToken", "ServerStreamOfAUser", "ServerStreamOfAKey", "UnaryLong"] {
            upstream.ended(&format!("/demo.v1.Echo/{method}"));
        }
        let took = revoked.elapsed();
        assert!(took < Duration::from_millis(1500), "a second, and half of one for a busy machine: {took:?}");
        client.join().unwrap()
    });
    let refusals: Vec<(u64, &str)> = answers.iter().map(Answer::refusal).collect();
    let revoked = (16, "CREDENTIALS_REVOKED");
    assert_eq!(refusals, [revoked, revoked, revoked, revoked, (0, "")]);
    let lines = doorward.access_lines(5);
    assert_eq!(lines.iter().filter(|line| line["reason"] == "CREDENTIALS_REVOKED").count(), 4);
}

#[test]
fn a_stream_may_outlive_its_revocation() {
    let (upstream, site) = (PythonUpstream::start(), site());
    let doorward = site.start(&revoking(&upstream.url(), "{ on_revocation: continue }"));
    let answers = std::thread::scope(|scope| {
        let client = scope.spawn(|| doorward.calls(&[stream("OfAKey", 4.0).api_key(API_KEY)]));
        eventually("the call at the service", || (upstream.calls().len() == 1).then_some(()));
        site.write("revocations.yaml", "revoked: [{ api_key: analytics }]\n");
        let new = || doorward.call(call("/demo.v1.Echo/Unary").api_key(API_KEY));
        eventually("new calls are refused", || (new().reason() == "CREDENTIALS_REVOKED").then_some(()));
        client.join().unwrap()
    });
    assert_eq!(answers[0].refusal(), (0, ""));
}
