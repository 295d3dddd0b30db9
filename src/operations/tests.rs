//! The port over real sockets: a raw HTTP/1.1 client, and gRPC by the h2 crate.

use super::*;
use crate::drain::{DrainTrigger, drain};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::Full;
use std::future::poll_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

struct Port {
    address: std::net::SocketAddr,
    readiness: Readiness,
    trigger: DrainTrigger,
}

/// Answers with the question, unless it is `nonsense`; never, when it is `wait`.
fn explain() -> Explain {
    Box::new(|question| {
        Box::pin(async move {
            match &*question {
                b"nonsense" => Err("what?".to_owned()),
                b"wait" => std::future::pending().await,
                _ => Ok(question.to_vec()),
            }
        })
    })
}

async fn port() -> Port {
    port_for(CONNECTIONS).await
}

/// Serves `most` connections at a time.
async fn port_for(most: usize) -> Port {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (trigger, drain) = drain();
    let readiness = Readiness::new();
    let begin = trigger.clone();
    let announce = move || {
        begin.announce();
    };
    let operations = Operations::new(Arc::new(Metrics::new()), readiness.clone(), drain, announce, explain());
    tokio::spawn(serve_at_a_time(most, listener, Arc::new(operations)));
    Port { address, readiness, trigger }
}

impl Port {
    async fn http(&self, request: &str) -> (u16, String) {
        self.send(&format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
    }

    async fn ask(&self, question: &str, more: &str) -> (u16, String) {
        let length = question.len();
        self.send(&format!("POST /explain HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{more}\r\n{question}"))
            .await
    }

    async fn send(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn grpc(&self, path: &str, body: &'static [u8]) -> Call {
        self.grpc_from([127, 0, 0, 1], path, body).await
    }

    async fn grpc_from(&self, peer: [u8; 4], path: &str, body: &'static [u8]) -> Call {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((peer, 0).into()).unwrap();
        let stream = socket.connect(self.address).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://x{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let mut sender = sender.ready().await.unwrap();
        let (response, mut stream) = sender.send_request(request, false).unwrap();
        stream.send_data(Bytes::from_static(body), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "application/grpc");
        let (head, body) = response.into_parts();
        Call { headers: head.headers, body, _sender: sender }
    }
}

struct Call {
    headers: HeaderMap,
    body: h2::RecvStream,
    _sender: h2::client::SendRequest<Bytes>,
}

impl Call {
    async fn message(&mut self) -> Option<Bytes> {
        self.body.data().await.map(Result::unwrap)
    }

    /// The code, from trailers or a trailers-only answer.
    async fn status(mut self) -> String {
        while self.message().await.is_some() {}
        let trailers = poll_fn(|context| self.body.poll_trailers(context)).await.unwrap();
        trailers.unwrap_or(self.headers)["grpc-status"].to_str().unwrap().to_owned()
    }
}

const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";
const NOT_SERVING: &[u8] = b"\0\0\0\0\x02\x08\x02";
const SERVICE_UNKNOWN: &[u8] = b"\0\0\0\0\x02\x08\x03";
const NO_NAME: &[u8] = b"\0\0\0\0\0";
const READINESS: &[u8] = b"\0\0\0\0\x0b\x0a\x09readiness";
const LIVENESS: &[u8] = b"\0\0\0\0\x0a\x0a\x08liveness";
const UNKNOWN: &[u8] = b"\0\0\0\0\x04\x0a\x02no";
const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

#[tokio::test]
async fn probes_tell_alive_started_and_ready_apart() {
    let port = port().await;
    let upstream = port.readiness.guard("upstream");
    assert_eq!(port.http("GET /livez").await, (200, "alive\n".into()));
    assert_eq!(port.http("GET /startupz").await, (503, "not started\n".into()));
    port.readiness.set_started();
    assert_eq!(port.http("GET /startupz").await.0, 200, "the upstream is not waited for");
    assert_eq!(port.http("GET /readyz").await, (503, "not ready\n".into()));
    upstream.not_ready("connection refused");
    let verbose = "[+] start\n[+] drain\n[-] upstream: connection refused\nnot ready\n";
    assert_eq!(port.http("GET /readyz?verbose").await, (503, verbose.into()));
    upstream.remark("a new configuration was refused");
    let verbose = "[+] start\n[+] drain\n[+] upstream: a new configuration was refused\nready\n";
    assert_eq!(port.http("GET /readyz?verbose=1").await, (200, verbose.into()));
    assert_eq!(port.http("HEAD /readyz").await, (200, String::new()));
}

#[tokio::test]
async fn a_drain_makes_it_not_ready_and_leaves_it_alive() {
    let port = port().await;
    port.readiness.set_started();
    assert_eq!(port.http("GET /readyz").await.0, 200);
    assert_eq!(port.http("GET /drain").await.0, 405);
    assert_eq!(port.http("POST /drain HTTP/1.1\r\norigin: http://evil.example\r\nx: ").await.0, 403);
    assert_eq!(port.http("GET /readyz").await.0, 200);
    assert_eq!(port.http("POST /drain").await.0, 200);
    assert_eq!(port.http("GET /readyz").await.0, 503);
    assert!(port.http("GET /readyz?verbose").await.1.contains("[-] drain: has begun\n"));
    assert_eq!(port.http("GET /livez").await.0, 200);
    assert_eq!(port.http("GET /startupz").await.0, 200);
}

fn ends(peer: &str, ours: &str) -> Ends {
    Ends { peer: peer.parse().unwrap(), ours: ours.parse().unwrap() }
}

#[test]
fn a_drain_is_begun_from_this_machine_only() {
    let begun = Arc::new(AtomicUsize::new(0));
    let count = begun.clone();
    let begin = move || {
        count.fetch_add(1, Ordering::Relaxed);
    };
    let operations = Operations::new(Arc::new(Metrics::new()), Readiness::new(), drain().1, begin, explain());
    let request = Request::post("/drain").body(()).unwrap();
    for (peer, ours, status) in [
        ("10.0.0.7", "10.0.0.8", 403),
        ("fe80::1", "fe80::2", 403),
        ("::ffff:10.0.0.7", "::ffff:10.0.0.8", 403),
        // As the proxy of a mesh carries them to the pod.
        ("127.0.0.6", "10.0.0.8", 403),
        ("::ffff:127.0.0.6", "::ffff:10.0.0.8", 403),
        ("::1", "fd00::8", 403),
        ("127.0.0.1", "127.0.0.1", 200),
        ("::1", "::1", 200),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", 200),
    ] {
        assert_eq!(probes::respond(&request, ends(peer, ours), &operations).status(), status, "{peer} {ours}");
    }
    for name in ["origin", "x-forwarded-for", "forwarded", "via"] {
        let request = Request::post("/drain").header(name, "").body(()).unwrap();
        assert_eq!(probes::respond(&request, ends("127.0.0.1", "127.0.0.1"), &operations).status(), 403, "{name}");
    }
    assert_eq!(begun.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn the_ends_of_a_connection_are_the_sockets() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.6:0".parse().unwrap()).unwrap();
    let client = socket.connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    let of = Ends::of(&accepted.unwrap().0).unwrap();
    assert_eq!((of.peer.to_string(), of.ours.to_string()), ("127.0.0.6".to_owned(), "127.0.0.1".to_owned()));
    drop(client);
}

#[tokio::test]
async fn one_peer_that_watches_with_all_connections_keeps_nobody_out() {
    let port = port_for(3).await;
    let watch = async |peer| {
        let begun = async {
            let mut watch = port.grpc_from([127, 0, 0, peer], WATCH, NO_NAME).await;
            assert_eq!(watch.message().await.unwrap(), NOT_SERVING);
            watch
        };
        tokio::time::timeout(Duration::from_secs(20), begun).await.expect("let in")
    };
    let mut others = watch(2).await;
    let mut watches = Vec::new();
    for _ in 0..5 {
        watches.push(watch(3).await);
    }
    assert_eq!(port.http("GET /livez").await, (200, "alive\n".into()));
    let (newest, older) = watches.split_last_mut().unwrap();
    for watch in older {
        assert!(watch.body.data().await.is_none_or(|ended| ended.is_err()), "an older watch has ended");
    }
    port.readiness.set_started();
    for watch in [newest, &mut others] {
        assert_eq!(watch.message().await.unwrap(), SERVING);
    }
}

#[tokio::test]
async fn metrics_are_there_and_nothing_else_is() {
    let port = port().await;
    let (status, text) = port.http("GET /metrics").await;
    assert!(status == 200 && text.contains("\ndoorward_panics_total 0\n"));
    for (request, expected) in [("GET /", 404), ("GET /metrics/", 404), ("POST /metrics", 405), ("DELETE /livez", 405)] {
        let (status, text) = port.http(request).await;
        assert_eq!((status, text.lines().count()), (expected, 1), "{request}");
    }
}

#[tokio::test]
async fn grpc_probes_are_told_the_same() {
    let port = port().await;
    for request in [NO_NAME, READINESS] {
        assert_eq!(port.grpc(CHECK, request).await.message().await.unwrap(), NOT_SERVING);
    }
    port.readiness.set_started();
    for request in [NO_NAME, READINESS, LIVENESS] {
        let mut call = port.grpc(CHECK, request).await;
        assert_eq!(call.message().await.unwrap(), SERVING);
        assert_eq!(call.status().await, "0");
    }
    port.trigger.announce();
    assert_eq!(port.grpc(CHECK, READINESS).await.message().await.unwrap(), NOT_SERVING);
    assert_eq!(port.grpc(CHECK, LIVENESS).await.message().await.unwrap(), SERVING);
    assert_eq!(port.grpc(CHECK, UNKNOWN).await.status().await, "5");
    assert_eq!(port.grpc("/grpc.health.v1.Health/List", NO_NAME).await.status().await, "12");
    assert_eq!(port.grpc(CHECK, b"\x01\0\0\0\0").await.status().await, "12");
    assert_eq!(port.grpc(CHECK, b"\0\0").await.status().await, "13");
    static LONG: [u8; 5000] = [0; 5000];
    assert_eq!(port.grpc(CHECK, &LONG).await.status().await, "8");
}

#[tokio::test]
async fn a_watch_sees_each_change_once() {
    let port = port().await;
    port.readiness.set_started();
    let mut call = port.grpc(WATCH, NO_NAME).await;
    assert_eq!(call.message().await.unwrap(), SERVING);
    let guard = port.readiness.guard("keys");
    assert_eq!(call.message().await.unwrap(), NOT_SERVING);
    guard.not_ready("still not");
    // A round trip, in which the watch has its turn.
    port.http("GET /livez").await;
    guard.ready();
    assert_eq!(call.message().await.unwrap(), SERVING);
    port.trigger.announce();
    assert_eq!(call.message().await.unwrap(), NOT_SERVING);
    assert_eq!(port.grpc(WATCH, UNKNOWN).await.message().await.unwrap(), SERVICE_UNKNOWN);
}

#[tokio::test]
async fn who_says_nothing_is_hung_up_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let operations = Arc::new(Operations::new(Arc::new(Metrics::new()), Readiness::new(), drain().1, || {}, explain()));
    for (sent, answered) in
        [("", false), ("PRI * HTTP/2.0\r\n", false), ("GET /livez HTT", false), ("GET /livez HTTP/1.1\r\nhost: x\r\n\r\n", true)]
    {
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(sent.as_bytes()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        serve_connection(stream, operations.clone(), Duration::from_millis(400)).await;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.starts_with("HTTP/1.1 200"), answered, "{sent:?}: {answer}");
    }
}

#[tokio::test]
async fn a_watch_is_no_idleness() {
    let activity = Arc::new(Activity::default());
    let watch = Activity::begin(&activity);
    let long = Duration::from_millis(1);
    let idle = activity.idle(long);
    tokio::pin!(idle);
    assert!(tokio::time::timeout(20 * long, &mut idle).await.is_err());
    drop(watch);
    idle.await;
}

#[tokio::test]
async fn an_explanation_is_for_this_machine_bounded_and_posted() {
    let port = port().await;
    assert_eq!(port.ask("who may?", "").await, (200, "who may?".into()));
    assert_eq!(port.ask("nonsense", "").await, (400, "what?\n".into()));
    assert_eq!(port.ask("who may?", "origin: http://x\r\n").await.0, 403, "a web page");
    assert_eq!(port.http("GET /explain").await.0, 405);
    assert_eq!(port.ask(&"x".repeat(98_304), "").await.0, 200);
    assert_eq!(port.ask(&"x".repeat(98_305), "").await.0, 413);
    let request = Request::builder().method("POST").body(Full::new(Bytes::from("who may?"))).unwrap();
    let operations = Operations::new(Arc::new(Metrics::new()), Readiness::new(), drain().1, || {}, explain());
    for (peer, ours, status) in [
        ("127.0.0.1", "127.0.0.1", 200),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", 200),
        ("10.0.0.7", "10.0.0.8", 403),
        ("127.0.0.6", "10.0.0.8", 403),
        ("2001:db8::1", "2001:db8::2", 403),
    ] {
        let answer = explanation::respond(request.clone(), ends(peer, ours), &operations).await;
        assert_eq!(answer.status(), status, "{peer} {ours}");
    }
    for by in ["x-forwarded-for: 10.0.0.7\r\n", "forwarded: for=10.0.0.7\r\n", "via: 1.1 envoy\r\n"] {
        assert_eq!(port.ask("who may?", by).await.0, 403, "{by}");
    }
}

#[tokio::test]
async fn few_questions_are_answered_at_a_time() {
    let port = port().await;
    let waiting: Vec<TcpStream> = {
        let mut streams = Vec::new();
        for _ in 0..explanation::AT_ONCE {
            let mut stream = TcpStream::connect(port.address).await.unwrap();
            stream.write_all(b"POST /explain HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nwait").await.unwrap();
            streams.push(stream);
        }
        streams
    };
    let until = async |status| while port.ask("who may?", "").await.0 != status {};
    tokio::time::timeout(Duration::from_secs(20), until(503)).await.unwrap();
    assert_eq!(port.http("GET /livez").await.0, 200);
    drop(waiting);
    tokio::time::timeout(Duration::from_secs(20), until(200)).await.unwrap();
}
