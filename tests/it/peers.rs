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
    for client in CLIENTS {
        every_kind(&doorward, client);
        every_status(&doorward, client);
        metadata(&doorward, client, server);
        sizes_and_compression(&doorward, client);
        deadlines(&doorward, client, server);
        cancellation(&doorward, client);
    }
    let seconds = ended(BIDI)["seconds"].as_f64().unwrap();
    assert!(seconds < 8.0, "the service learnt of the cancellation after {seconds} s");
}

fn of(method: &str) -> Call {
    call(method).api_key(API_KEY)
}

fn every_kind(doorward: &Doorward, (name, calls): Client) {
    let answers = calls(
        doorward,
        &[
            of(UNARY).with("messages", json!(["hello"])),
            of(SERVER).with("messages", json!(["x"])),
            of(CLIENT).with("messages", json!(["a", "bc", ""])),
            of(BIDI).with("messages", json!(["1", "2", "3"])).with("lockstep", true),
            of(SERVER).behaviour(json!({"count": 0})),
            of(BIDI).with("messages", json!([])),
            // The answer is whole before the request is.
            of(BIDI)
                .with("messages", json!(["1", "2", "3"]))
                .with("lockstep", true)
                .behaviour(json!({"before_end": 1, "status": 11, "message": "enough"})),
        ],
    );
    assert_eq!(answers[0].report()["sizes"], json!([5]), "{name}");
    assert_eq!(answers[1].messages(), ["0:x", "1:x", "2:x"], "{name}");
    assert_eq!(answers[2].report()["sizes"], json!([1, 2, 0]), "{name}");
    assert_eq!(answers[3].messages(), ["1", "2", "3"], "{name}");
    assert!(answers[..6].iter().all(|answer| answer.code() == 0), "{name}: {answers:?}");
    assert_eq!((answers[6].code(), answers[6].details(), answers[6].messages()), (11, "enough", vec!["1"]), "{name}");
}

fn every_status(doorward: &Doorward, (name, calls): Client) {
    // What must be percent-encoded, what looks as if it were, and white space everywhere.
    let message = "\t naïve %25 50% \u{1F600}\r\nline \u{7f}";
    let details = "CAESAnjDqf8A";
    let methods = [UNARY, SERVER, CLIENT, BIDI];
    let asked: Vec<Call> = (1..=16)
        .map(|code: usize| of(methods[code % 4]).behaviour(json!({"status": code, "message": message, "details": details})))
        .collect();
    for (code, answer) in (1..).zip(calls(doorward, &asked)) {
        assert_eq!((answer.code(), answer.details()), (code, message), "{name}");
        // tonic's client keeps the details apart from the metadata.
        assert!(name == "tonic" || answer.trailing("grpc-status-details-bin") == [details], "{name}: {answer:?}");
    }
}

fn metadata(doorward: &Doorward, (name, calls): Client, server: &Server) {
    let every_byte: Vec<u8> = (0..=255).collect();
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &every_byte);
    let pairs = |prefix: &str| json!([[prefix, "a b"], [prefix, "c"], [format!("{prefix}-bin"), base64]]);
    let sent = |method: &str| of(method).metadata("many", "1").metadata("many", "2").binary("bytes-bin", &every_byte);
    let behaviour = json!({"initial": pairs("early"), "trailing": pairs("late")});
    let mut failing = behaviour.clone();
    failing["status"] = 9.into();
    let answers = calls(doorward, &[sent(UNARY).behaviour(behaviour), sent(BIDI).behaviour(failing)]);
    // grpc-js joins what has several values into one, as HTTP allows.
    let joined = |values: Vec<String>| values.join(", ");
    assert_eq!(joined(answers[0].upstream_saw("many")), "1, 2", "{name}");
    assert_eq!(answers[0].upstream_saw("bytes-bin"), [base64.as_str()], "{name}");
    for (answer, trailers) in answers.iter().zip([server.trailers_with_ok, true]) {
        assert_eq!(answer.initial("early").join(", "), "a b, c", "{name}");
        assert_eq!(answer.initial("early-bin"), [base64.as_str()], "{name}");
        assert!(!trailers || answer.trailing("late").join(", ") == "a b, c", "{name}: {answer:?}");
        assert!(!trailers || answer.trailing("late-bin") == [base64.as_str()], "{name}: {answer:?}");
    }
    assert_eq!(answers[1].code(), 9, "{name}");
}

fn sizes_and_compression(doorward: &Doorward, (name, calls): Client) {
    let text = "long enough to be worth it ".repeat(100);
    let size = 5 << 20;
    let gzip = |call: Call| call.with("gzip", true).behaviour(json!({"gzip": true}));
    let answers = calls(
        doorward,
        &[
            gzip(of(UNARY).with("messages", json!([text]))),
            gzip(of(BIDI).with("messages", json!([text, "", text]))),
            of(CLIENT).with("messages", json!([{"size": size}, {"size": size}])),
            of(SERVER).behaviour(json!({"size": size, "count": 2})),
            of(BIDI).with("messages", json!([{"size": size}])),
        ],
    );
    assert_eq!(answers[0].report()["sizes"], json!([text.len()]), "{name}");
    assert_eq!(answers[1].messages(), [&text, "", &text], "{name}");
    assert_eq!(answers[2].report()["sizes"], json!([size, size]), "{name}");
    for (answer, count) in answers[3..].iter().zip([2, 1]) {
        let sizes: Vec<&Value> = answer.0["messages"].as_array().unwrap().iter().map(|message| &message["size"]).collect();
        assert_eq!((answer.code(), sizes), (0, vec![&json!(size); count]), "{name}");
    }
}

fn deadlines(doorward: &Doorward, (name, calls): Client, server: &Server) {
    let slow = |method| of(method).with("timeout", 0.4).behaviour(json!({"sleep": 5}));
    let answers = calls(doorward, &[of(UNARY).with("timeout", 17), slow(UNARY), slow(SERVER), slow(CLIENT), slow(BIDI)]);
    if server.tells_deadline {
        let remaining = answers[0].report()["remaining"].as_f64().unwrap();
        assert!((5.0..=17.0).contains(&remaining), "{name}: {remaining}");
    }
    for answer in &answers[1..] {
        // tonic's client says CANCELLED when its own clock is first.
        assert!(answer.code() == 4 || (name == "tonic" && answer.code() == 1), "{name}: {answer:?}");
        assert!(answer.seconds() < 4.0, "{name}: {answer:?}");
    }
}

fn cancellation(doorward: &Doorward, (name, calls): Client) {
    for answer in calls(doorward, &[of(BIDI), of(UNARY)].map(|call| call.behaviour(json!({"sleep": 10})).with("cancel_after", 0.3))) {
        assert_eq!(answer.code(), 1, "{name}: {answer:?}");
    }
}
