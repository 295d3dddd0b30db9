//! A service on the `h2` crate that behaves as badly as a test asks, and keeps what it saw, exactly.

use super::{PATIENCE, eventually};
use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    pub authority: Option<String>,
    pub headers: HeaderMap,
    /// Whole body and trailers, once a behaviour has read them.
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Seen {
    /// Every value of a field, in order.
    pub fn values(&self, name: &str) -> Vec<String> {
        self.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    }
}

/// A call in the hands of a behaviour.
pub struct RawCall {
    pub path: String,
    pub body: RecvStream,
    pub respond: SendResponse<Bytes>,
    /// `grpc-timeout`, when it is in milliseconds.
    pub timeout: Option<Duration>,
    seen: Arc<Mutex<Vec<Seen>>>,
    index: usize,
    cut: Arc<Notify>,
}

impl RawCall {
    /// Reads the request to its end and keeps what it was.
    pub async fn read(&mut self) {
        let mut whole = Vec::new();
        while let Some(Ok(chunk)) = self.body.data().await {
            let _ = self.body.flow_control().release_capacity(chunk.len());
            whole.extend_from_slice(&chunk);
        }
        let trailers = self.body.trailers().await.ok().flatten();
        let mut seen = self.seen.lock().unwrap();
        seen[self.index].body = whole;
        seen[self.index].trailers = trailers;
    }

    /// Answers with one empty message and this status.
    pub async fn answer(mut self, status: &str) {
        self.read().await;
        let Ok(mut stream) = self.respond.send_response(response(), false) else { return };
        let _ = stream.send_data(Bytes::from_static(&[0; 5]), false);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_str(status).unwrap());
        let _ = stream.send_trailers(trailers);
    }

    /// Closes the connection under everybody on it. Never returns: dropping a stream first would reset it.
    pub async fn cut_connection(&self) {
        self.cut.notify_one();
        std::future::pending().await
    }
}

/// The headers of a gRPC answer.
pub fn response() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

pub struct RawUpstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl RawUpstream {
    /// Answers every call with an empty message and OK.
    pub fn echo() -> RawUpstream {
        RawUpstream::start(|call| call.answer("0"))
    }

    /// Answers the same, each call once it is told to.
    pub fn holding() -> (RawUpstream, Arc<Notify>) {
        let release = Arc::new(Notify::new());
        let released = release.clone();
        let upstream = RawUpstream::start(move |call| {
            let released = released.clone();
            async move {
                released.notified().await;
                call.answer("0").await;
            }
        });
        (upstream, release)
    }

    /// Does with each call what `behaviour` says; health checks are answered with UNIMPLEMENTED before it.
    pub fn start<F, T>(behaviour: F) -> RawUpstream
    where
        F: Fn(RawCall) -> T + Send + Sync + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        RawUpstream::start_at("127.0.0.1:0".parse().unwrap(), Builder::new(), behaviour)
    }

    /// The same at a given address, with HTTP/2 settings of its own.
    pub fn start_at<F, T>(address: SocketAddr, settings: Builder, behaviour: F) -> RawUpstream
    where
        F: Fn(RawCall) -> T + Send + Sync + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = oneshot::channel();
        let (bound, address_of) = std::sync::mpsc::channel();
        let log = seen.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind(address).await.unwrap();
                bound.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = serve(listener, settings, Arc::new(behaviour), log) => {}
                    _ = stopped => {}
                }
            });
        });
        RawUpstream { address: address_of.recv().unwrap(), seen, stop: Some(stop), thread: Some(thread) }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request that reached the service, health checks aside.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The only request there was.
    #[track_caller]
    pub fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen[0].clone()
    }

    /// The latest request, once there are `count`.
    #[track_caller]
    pub fn nth(&self, count: usize) -> Seen {
        eventually("a request at the service", || self.seen().get(count - 1).cloned())
    }

    /// Waits for `count` requests while the test's own connections go on.
    pub async fn reached(&self, count: usize) {
        let started = Instant::now();
        while self.seen().len() < count {
            assert!(started.elapsed() < PATIENCE, "{} of {count} requests at the service", self.seen().len());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for RawUpstream {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn serve<F, T>(listener: TcpListener, settings: Builder, behaviour: Arc<F>, seen: Arc<Mutex<Vec<Seen>>>)
where
    F: Fn(RawCall) -> T + Send + Sync + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    while let Ok((stream, _)) = listener.accept().await {
        let (settings, behaviour, seen) = (settings.clone(), behaviour.clone(), seen.clone());
        tokio::spawn(async move {
            let cut = Arc::new(Notify::new());
            tokio::select! {
                () = connection(stream, settings, behaviour, seen, cut.clone()) => {}
                () = cut.notified() => {}
            }
        });
    }
}

async fn connection<F, T>(
    stream: tokio::net::TcpStream,
    settings: Builder,
    behaviour: Arc<F>,
    seen: Arc<Mutex<Vec<Seen>>>,
    cut: Arc<Notify>,
) where
    F: Fn(RawCall) -> T + Send + Sync + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let Ok(mut connection) = settings.handshake::<_, Bytes>(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        if request.uri().path().starts_with("/grpc.health.v1.") {
            let mut answer = response();
            answer.headers_mut().insert("grpc-status", HeaderValue::from_static("12"));
            let _ = respond.send_response(answer, true);
            continue;
        }
        let index = record(&seen, &request);
        let path = request.uri().path().to_owned();
        let timeout = request.headers().get("grpc-timeout").and_then(|value| value.to_str().ok()?.strip_suffix('m')?.parse().ok());
        let timeout = timeout.map(Duration::from_millis);
        let call = RawCall { path, body: request.into_body(), respond, timeout, seen: seen.clone(), index, cut: cut.clone() };
        tokio::spawn(behaviour(call));
    }
}

fn record(seen: &Mutex<Vec<Seen>>, request: &Request<RecvStream>) -> usize {
    let mut seen = seen.lock().unwrap();
    seen.push(Seen {
        path: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
        authority: request.uri().authority().map(ToString::to_string),
        headers: request.headers().clone(),
        body: Vec::new(),
        trailers: None,
    });
    seen.len() - 1
}
