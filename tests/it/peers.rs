//! Every gRPC client with every gRPC server, Doorward between them: grpcio, grpc-js and tonic. What each pair can do without
//! it, it can do with it.

use crate::harness::*;
use serde_json::{Value, json};

type Client = (&'static str, fn(&Doorward, &[Call]) -> Vec<Answer>);

const CLIENTS: [Client; 3] = [("grpcio", |doorward, calls| doorward.calls(calls)), ("grpc-js", node::calls), ("tonic", tonic::calls)];

const UNARY: &str = "/demo.v1.Echo/Unary";
const SERVER: &str = "/demo.v1.Echo/ServerStream";
const CLIENT: &str = "/demo.v1.Echo/ClientStream";
const BIDI: &str = "/demo.v1.Echo/Bidi";

/// What is particular to a server library, and no affair of ours.
struct Server {
    url: String,
    /// Trailing metadata of an answer that is OK; tonic has none.
    trailers_with_ok: bool,
    /// The report says how much of the deadline is left; tonic does not tell.
    tells_deadline: bool,
}

#[test]
fn a_server_on_grpcio() {
    let upstream = PythonUpstream::start();
    let server = Server { url: upstream.url(), trailers_with_ok: true, tells_deadline: true };
    with_every_client(&server, |method| upstream.ended(method));
}

#[test]
fn a_server_on_grpc_js() {
    let upstream = NodeServer::start();
    let server = Server { url: upstream.url.clone(), trailers_with_ok: true, tells_deadline: true };
    with_every_client(&server, |method| upstream.ended(method));
}

#[test]
fn a_server_on_tonic() {
    let upstream = TonicServer::start();
    let server = Server { url: upstream.url.clone(), trailers_with_ok: false, tells_deadline: false };
    with_every_client(&server, |_| json!({"seconds": 0.0}));
}

/// `ended` gives the server's own word on the end of a call.
fn with_every_client(server: &Server, ended: impl Fn(&str) -> Value) {
    let doorward = Site::new().start(&standard(&server.url));
    for (name, calls) in CLIENTS {
        let topics = [every_kind(), every_status(), metadata(), sizes_and_compression(), deadlines(), cancellation()];
        // All with one start of the client, for that takes longest.
        let asked: Vec<Call> = topics.iter().flat_map(|topic| topic.calls.clone()).collect();
        let mut answers = calls(&doorward, &asked);
        for topic in topics {
            let rest = answers.split_off(topic.calls.len());
            (topic.check)(&answers, name, server);
            answers = rest;
        }
    }
    let seconds = ended(BIDI)["seconds"].as_f64().unwrap();
    assert!(seconds < 8.0, "the service learnt of the cancellation after {seconds} s");
}

/// Some calls, and what is expected of their answers, by the name of the client.
struct Topic {
    calls: Vec<Call>,
    check: fn(&[Answer], &str, &Server),
}

fn of(method: &str) -> Call {
    call(method).api_key(API_KEY)
}

fn every_kind() -> Topic {
    // The answer is whole before the request is.
    let early = json!({"before_end": 1, "status": 11, "message": "enough"});
    let calls = vec![
        of(UNARY).with("messages", json!(["hello"])),
        of(SERVER).with("messages", json!(["x"])),
        of(CLIENT).with("messages", json!(["a", "bc", ""])),
        of(BIDI).with("messages", json!(["1", "2", "3"])).with("lockstep", true),
        of(SERVER).behaviour(json!({"count": 0})),
        of(BIDI).with("messages", json!([])),
        of(BIDI).with("messages", json!(["1", "2", "3"])).with("lockstep", true).behaviour(early),
    ];
    let check = |answers: &[Answer], name: &str, _: &Server| {
        assert_eq!(answers[0].report()["sizes"], json!([5]), "{name}");
        assert_eq!(answers[1].messages(), ["0:x", "1:x", "2:x"], "{name}");
        assert_eq!(answers[2].report()["sizes"], json!([1, 2, 0]), "{name}");
        assert_eq!(answers[3].messages(), ["1", "2", "3"], "{name}");
        assert!(answers[..6].iter().all(|answer| answer.code() == 0), "{name}: {answers:?}");
        assert_eq!((answers[6].code(), answers[6].details(), answers[6].messages()), (11, "enough", vec!["1"]), "{name}");
    };
    Topic { calls, check }
}

/// What must be percent-encoded, what looks as if it were, and white space everywhere.
const MESSAGE: &str = "\t naïve %25 50% \u{1F600}\r\nline \u{7f}";

/// No google.rpc.Status at all: nobody on the way may care.
const DETAILS: &str = "CAESAnjDqf8A";

fn every_status() -> Topic {
    let behaviour = |code: usize| json!({"status": code, "message": MESSAGE, "details": DETAILS});
    let calls = (1..=16).map(|code| of([UNARY, SERVER, CLIENT, BIDI][code % 4]).behaviour(behaviour(code))).collect();
    let check = |answers: &[Answer], name: &str, _: &Server| {
        for (code, answer) in (1..).zip(answers) {
            assert_eq!((answer.code(), answer.details()), (code, MESSAGE), "{name}");
            // tonic's client keeps the details apart from the metadata.
            assert!(name == "tonic" || answer.trailing("grpc-status-details-bin") == [DETAILS], "{name}: {answer:?}");
        }
    };
    Topic { calls, check }
}

/// Every byte there is, in base64.
fn every_byte() -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, (0..=255).collect::<Vec<u8>>())
}

fn metadata() -> Topic {
    let pairs = |prefix: &str| json!([[prefix, "a b"], [prefix, "c"], [format!("{prefix}-bin"), every_byte()]]);
    let sent = |method: &str| of(method).metadata("many", "1").metadata("many", "2").metadata("bytes-bin", &every_byte());
    let behaviour = json!({"initial": pairs("early"), "trailing": pairs("late")});
    let mut failing = behaviour.clone();
    failing["status"] = 9.into();
    let check = |answers: &[Answer], name: &str, server: &Server| {
        // grpc-js joins what has several values into one, as HTTP allows.
        assert_eq!(answers[0].upstream_saw("many").join(", "), "1, 2", "{name}");
        assert_eq!(answers[0].upstream_saw("bytes-bin"), [every_byte()], "{name}");
        for (answer, trailers) in answers.iter().zip([server.trailers_with_ok, true]) {
            assert_eq!(answer.initial("early").join(", "), "a b, c", "{name}");
            assert_eq!(answer.initial("early-bin"), [every_byte()], "{name}");
            assert!(!trailers || answer.trailing("late").join(", ") == "a b, c", "{name}: {answer:?}");
            assert!(!trailers || answer.trailing("late-bin") == [every_byte()], "{name}: {answer:?}");
        }
        assert_eq!(answers[1].code(), 9, "{name}");
    };
    Topic { calls: vec![sent(UNARY).behaviour(behaviour), sent(BIDI).behaviour(failing)], check }
}

/// Above every window, ours and theirs.
const LARGE: usize = 5 << 20;

fn compressible() -> String {
    "long enough to be worth it ".repeat(100)
}

fn sizes_and_compression() -> Topic {
    let gzip = |call: Call| call.with("gzip", true).behaviour(json!({"gzip": true}));
    let calls = vec![
        gzip(of(UNARY).with("messages", json!([compressible()]))),
        gzip(of(BIDI).with("messages", json!([compressible(), "", compressible()]))),
        of(CLIENT).with("messages", json!([{"size": LARGE}, {"size": LARGE}])),
        of(SERVER).behaviour(json!({"size": LARGE, "count": 2})),
        of(BIDI).with("messages", json!([{"size": LARGE}])),
    ];
    let check = |answers: &[Answer], name: &str, _: &Server| {
        let text = compressible();
        assert_eq!(answers[0].report()["sizes"], json!([text.len()]), "{name}");
        assert_eq!(answers[1].messages(), [&text, "", &text], "{name}");
        assert_eq!(answers[2].report()["sizes"], json!([LARGE, LARGE]), "{name}");
        for (answer, count) in answers[3..].iter().zip([2, 1]) {
            let sizes: Vec<&Value> = answer.0["messages"].as_array().unwrap().iter().map(|message| &message["size"]).collect();
            assert_eq!((answer.code(), sizes), (0, vec![&json!(LARGE); count]), "{name}");
        }
    };
    Topic { calls, check }
}

fn deadlines() -> Topic {
    let slow = |method| of(method).with("timeout", 0.4).with("together", true).behaviour(json!({"sleep": 5}));
    let calls = vec![of(UNARY).with("timeout", 17), slow(UNARY), slow(SERVER), slow(CLIENT), slow(BIDI)];
    let check = |answers: &[Answer], name: &str, server: &Server| {
        if server.tells_deadline {
            let remaining = answers[0].report()["remaining"].as_f64().unwrap();
            assert!((5.0..=18.0).contains(&remaining), "{name}: {remaining}");
        }
        for answer in &answers[1..] {
            // tonic's client says CANCELLED when its own clock is first.
            assert!(answer.code() == 4 || (name == "tonic" && answer.code() == 1), "{name}: {answer:?}");
            assert!(answer.seconds() < 4.0, "{name}: {answer:?}");
        }
    };
    Topic { calls, check }
}

fn cancellation() -> Topic {
    let cancelled = |method| of(method).behaviour(json!({"sleep": 10})).with("cancel_after", 0.3).with("together", true);
    let check = |answers: &[Answer], name: &str, _: &Server| {
        assert!(answers.iter().all(|answer| answer.code() == 1), "{name}: {answers:?}");
    };
    Topic { calls: vec![cancelled(UNARY), cancelled(BIDI)], check }
}
