//! A service that speaks HTTP/2 by hand: what no library would answer, or not at that moment.

use super::frames::{ACK, END_HEADERS, END_STREAM, Frame, Frames, block, kind};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// One connection from Doorward.
pub type Connection = Frames<TcpStream>;

pub struct FrameUpstream {
    pub address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl FrameUpstream {
    /// Does with each connection what `behaviour` says. The number 0 is the health check's, when Doorward has been waited for
    /// and is configured as [`FrameUpstream::configuration`] says.
    pub fn start<F, T>(behaviour: F) -> FrameUpstream
    where
        F: Fn(Connection, usize) -> T + Send + Sync + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let (bound, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                bound.send(listener.local_addr().unwrap()).unwrap();
                let behaviour = Arc::new(behaviour);
                let serve = async {
                    for number in 0.. {
                        let Ok((io, _)) = listener.accept().await else { return };
                        io.set_nodelay(true).unwrap();
                        let behaviour = behaviour.clone();
                        tokio::spawn(async move {
                            let mut connection = Frames::over(io);
                            if connection.io.read_exact(&mut [0; 24]).await.is_ok() {
                                behaviour(connection, number).await;
                            }
                        });
                    }
                };
                tokio::select! { () = serve => {}, _ = stopped => {} }
            });
        });
        FrameUpstream { address: address.recv().unwrap(), _stop: stop }
    }

    /// One worker, no authentication, and a health check that needs no answer; then `rest`.
    pub fn configuration(&self, rest: &str) -> String {
        let upstream = format!("upstream: {{ address: \"http://{}\", health_service: none }}\n", self.address);
        super::configuration("", &format!("workers: 1\nauthentication: {{ mode: disabled }}\n{upstream}{rest}"))
    }
}

impl Connection {
    /// Sends SETTINGS of these identifiers and values.
    pub async fn settings(&mut self, settings: &[(u16, u32)]) {
        let payload: Vec<u8> = settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        self.send(kind::SETTINGS, 0, 0, &payload).await;
    }

    /// The next request's stream; acknowledges SETTINGS and PINGs on the way. `None` when the connection has ended.
    pub async fn accept(&mut self) -> Option<u32> {
        loop {
            let frame = self.read().await?;
            if frame.kind == kind::HEADERS {
                return Some(frame.stream);
            }
            self.acknowledge(&frame).await;
        }
    }

    async fn acknowledge(&mut self, frame: &Frame) {
        if matches!(frame.kind, kind::SETTINGS | kind::PING) && frame.flags & ACK == 0 {
            let payload = if frame.kind == kind::PING { &frame.payload[..] } else { &[] };
            self.send(frame.kind, ACK, 0, payload).await;
        }
    }

    /// HEADERS of an answer that goes on.
    pub async fn begin(&mut self, stream: u32) {
        self.send(kind::HEADERS, END_HEADERS, stream, &block(&[(":status", "200"), ("content-type", "application/grpc")])).await;
    }

    /// An answer of HEADERS alone: OK.
    pub async fn ok(&mut self, stream: u32) {
        let fields = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "0")];
        self.send(kind::HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields)).await;
    }

    pub async fn reset(&mut self, stream: u32, reason: h2::Reason) {
        self.send(kind::RST_STREAM, 0, stream, &u32::from(reason).to_be_bytes()).await;
    }

    /// GOAWAY without an error.
    pub async fn go_away(&mut self, last: u32) {
        self.send(kind::GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat()).await;
    }

    /// OK for every request to the end of the connection.
    pub async fn go_on(&mut self) {
        while let Some(stream) = self.accept().await {
            self.ok(stream).await;
        }
    }
}
