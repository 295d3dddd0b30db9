//! Making one connection to the upstream: name resolution, TCP or Unix socket, TLS, HTTP/2. Up means that the upstream's
//! first SETTINGS frame has come, all within `connect_timeout`.

use crate::config::{Upstream, UpstreamAddress};
use crate::http2::{CONNECTION_WINDOW, DATA_FRAME_BUDGET, FrameTap, HEADER_LIST_HEADROOM, Io, SEND_BUFFER, STREAM_WINDOW, TapState};
use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// Why no connection could be had; words for the operator's log.
#[derive(Debug, Clone)]
pub struct Unreachable(pub Arc<str>);

/// How to reach the upstream: everything one connection needs, made once at load.
#[derive(Clone)]
pub struct Connector {
    address: UpstreamAddress,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    timeout: Duration,
    header_bytes: usize,
}

/// A connection that is up; its `Connection` has yet to be driven by a task.
pub(super) struct Connected {
    pub(super) sender: SendRequest<Bytes>,
    pub(super) driver: Connection<FrameTap, Bytes>,
    pub(super) tap: Rc<TapState>,
}

impl Connector {
    /// `tls` is the client configuration for an `https://` upstream; `header_bytes` as in `limits`.
    pub fn new(upstream: &Upstream, tls: Option<(Arc<ClientConfig>, ServerName<'static>)>, header_bytes: usize) -> Connector {
        Connector { address: upstream.address.clone(), tls, timeout: upstream.connect_timeout, header_bytes }
    }

    pub(super) async fn connect(&self) -> Result<Connected, Unreachable> {
        let attempt = tokio::time::timeout(self.timeout, self.attempt()).await;
        let seconds = self.timeout.as_secs_f32();
        attempt.unwrap_or_else(|_| Err(unreachable(format!("no HTTP/2 SETTINGS from it within connect_timeout ({seconds} s)"))))
    }

    async fn attempt(&self) -> Result<Connected, Unreachable> {
        let io = self.dial().await.map_err(|error| unreachable(format!("connecting failed: {error}")))?;
        // A server that leaves a header block unfinished is cut off as a client would be.
        let (io, tap) = FrameTap::connected(io, Duration::from_secs(10), self.header_bytes);
        let limit = u32::try_from(self.header_bytes.saturating_mul(HEADER_LIST_HEADROOM)).unwrap_or(u32::MAX);
        let handshake = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(limit)
            .data_frame_budget(DATA_FRAME_BUDGET)
            .enable_push(false)
            .handshake(io)
            .await;
        let (sender, mut driver) = handshake.map_err(|error| unreachable(format!("HTTP/2 preface failed: {error}")))?;
        // h2 returns before the peer's SETTINGS: drive the connection until they have come.
        let settings = std::future::poll_fn(|cx| tap.poll_settings(cx));
        tokio::select! {
            biased;
            ended = pin!(&mut driver) => {
                let why = ended.map_or_else(|error| error.to_string(), |()| "closed".to_owned());
                Err(unreachable(format!("it ended the connection before its first SETTINGS ({why}); does it speak HTTP/2 in cleartext?")))
            }
            () = settings => Ok(()),
        }?;
        Ok(Connected { sender, driver, tap })
    }

    async fn dial(&self) -> io::Result<Io> {
        let tcp = match &self.address {
            UpstreamAddress::Unix(path) => return Ok(Io::Unix(UnixStream::connect(path).await?)),
            UpstreamAddress::Tcp { host, port } => connect_any(host, *port).await?,
        };
        tcp.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Io::Tcp(tcp)),
            Some((config, name)) => {
                let tls = TlsConnector::from(config.clone()).connect(name.clone(), tcp).await?;
                if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
                    return Err(io::Error::other("it did not choose h2 by ALPN"));
                }
                Ok(Io::Tls(Box::new(tls.into())))
            }
        }
    }
}

/// Tries every address of the name in order.
async fn connect_any(host: &str, port: u16) -> io::Result<TcpStream> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return TcpStream::connect(SocketAddr::new(ip, port)).await;
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for address in tokio::net::lookup_host((host, port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn unreachable(why: String) -> Unreachable {
    Unreachable(why.into())
}
