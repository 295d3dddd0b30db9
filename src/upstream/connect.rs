//! Making one connection to the upstream: name resolution, TCP or Unix socket, TLS, HTTP/2. Up means that the upstream's
//! first SETTINGS frame has come, all within `connect_timeout`.

use super::addresses::{Addresses, INTERVAL};
use super::http2::{Connection, Driver, Requests};
use crate::config::{Limits, Upstream, UpstreamAddress};
use crate::http2::{Io, UPSTREAM_STREAM_WINDOW};
use socket2::{SockRef, TcpKeepalive};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// Between attempts at a connection that the upstream ends before its first SETTINGS, in milliseconds. Together longer than a
/// service takes to close its listeners.
const PAUSES: [u64; 5] = [0, 1, 4, 10, 25];

/// Why no connection could be had; words for the operator's log.
#[derive(Debug, Clone)]
pub struct Unreachable(pub Arc<str>);

/// How to reach the upstream: everything one connection needs, made once at load.
pub struct Connector {
    address: UpstreamAddress,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    timeout: Duration,
    header_bytes: usize,
    stalled: Duration,
    pub(super) addresses: Addresses,
}

/// A connection that is up; it has yet to be driven by a task.
pub(super) struct Connected {
    pub(super) requests: Requests,
    pub(super) driver: Driver,
    /// The address it leads to; `None` for a Unix socket.
    pub(super) peer: Option<IpAddr>,
}

/// Why one attempt failed, in words.
enum Failed {
    /// No connection, or no TLS on it.
    ToConnect(String),
    /// The upstream ended it before its first SETTINGS.
    BeforeUse(String),
}

impl Connector {
    /// `tls` is the client configuration for an `https://` upstream.
    pub fn new(upstream: &Upstream, tls: Option<(Arc<ClientConfig>, ServerName<'static>)>, limits: &Limits) -> Connector {
        let (address, timeout) = (upstream.address.clone(), upstream.connect_timeout);
        let (header_bytes, stalled) = (limits.header_bytes, limits.stalled);
        Connector { address, tls, timeout, header_bytes, stalled, addresses: Addresses::default() }
    }

    /// Resolves the upstream's name every 30 s; ends at once when it is no name.
    pub async fn keep_resolved(self: Arc<Connector>) {
        if let UpstreamAddress::Tcp { host, port } = &self.address
            && host.parse::<IpAddr>().is_err()
        {
            let resolve = async || Ok(tokio::net::lookup_host((&**host, *port)).await?.map(|address| address.ip()).collect());
            self.addresses.keep_resolved(INTERVAL, resolve).await;
        }
    }

    /// Waits until the upstream's name has that address no longer; for ever when there is no name or no address.
    pub(super) fn left_by(&self, peer: Option<IpAddr>) -> impl Future<Output = ()> + use<> {
        self.addresses.left_by(peer)
    }

    /// `window`: what the connection may have in flight towards us, in bytes.
    pub(super) async fn connect(&self, window: u32) -> Result<Connected, Unreachable> {
        let (address, seconds) = (&self.address, self.timeout.as_secs_f32());
        match tokio::time::timeout(self.timeout, self.attempts(window)).await {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(Failed::ToConnect(why) | Failed::BeforeUse(why))) => {
                Err(Unreachable(format!("connecting to {address} failed: {why}").into()))
            }
            Err(_) => Err(Unreachable(format!("no HTTP/2 SETTINGS from {address} within connect_timeout ({seconds} s)").into())),
        }
    }

    /// A service that is being replaced closes its listeners one after the other, and each resets what waits in its queue, while
    /// the successor on the same port (SO_REUSEPORT) takes connections already: what ends before it was of use is tried again.
    async fn attempts(&self, window: u32) -> Result<Connected, Failed> {
        let began = Instant::now();
        for pause in PAUSES {
            match self.attempt(window).await {
                // Whoever takes its time to end connections is not being replaced, and there must be time left to say why it failed.
                Err(Failed::BeforeUse(_)) if began.elapsed() < self.timeout / 4 => tokio::time::sleep(Duration::from_millis(pause)).await,
                outcome => return outcome,
            }
        }
        self.attempt(window).await
    }

    async fn attempt(&self, window: u32) -> Result<Connected, Failed> {
        let (io, peer) = self.dial().await.map_err(|error| match error.kind() {
            // It was there, and is gone again.
            ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::NotConnected
            | ErrorKind::UnexpectedEof => Failed::BeforeUse(error.to_string()),
            _ => Failed::ToConnect(error.to_string()),
        })?;
        let connection = Connection::new(window, UPSTREAM_STREAM_WINDOW, self.header_bytes);
        let (mut driver, requests) = Driver::new(connection.clone(), io, self.stalled);
        tokio::select! {
            biased;
            ended = &mut driver => {
                let cleartext = if self.tls.is_none() { " in cleartext" } else { "" };
                let why = ended.map_or_else(|why| why.to_string(), |()| "closed".to_owned());
                let why = format!("it ended the connection before its first SETTINGS ({why}); does it speak HTTP/2{cleartext}?");
                Err(Failed::BeforeUse(why))
            }
            // Polled each time the connection has been driven.
            () = poll_fn(|_| if connection.is_up() { Poll::Ready(()) } else { Poll::Pending }) => Ok(()),
        }?;
        Ok(Connected { requests, driver, peer })
    }

    async fn dial(&self) -> io::Result<(Io, Option<IpAddr>)> {
        let tcp = match &self.address {
            UpstreamAddress::Unix(path) => return Ok((Io::Unix(UnixStream::connect(path).await?), None)),
            UpstreamAddress::Tcp { host, port } => connect_any(host, *port, self.timeout).await?,
        };
        tcp.set_nodelay(true)?;
        notice_a_vanished_host(&tcp)?;
        let peer = Some(tcp.peer_addr()?.ip());
        match &self.tls {
            None => Ok((Io::Tcp(tcp), peer)),
            Some((config, name)) => {
                let tls = TlsConnector::from(config.clone()).connect(name.clone(), tcp).await?;
                if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
                    return Err(io::Error::other("it did not choose h2 by ALPN"));
                }
                Ok((Io::Tls(Box::new(tls.into())), peer))
            }
        }
    }
}

/// A host that is gone sends nothing, not even an end. TCP asks it after 10 s of silence and every 3 s from then on, and gives
/// the connection up 15 s after its last sign of life, or after that much time with bytes it has not taken. No server counts that
/// as PINGs, so it goes on for hours.
fn notice_a_vanished_host(tcp: &TcpStream) -> io::Result<()> {
    let probes = TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(3)).with_retries(3);
    let socket = SockRef::from(tcp);
    socket.set_tcp_keepalive(&probes)?;
    socket.set_tcp_user_timeout(Some(Duration::from_secs(15)))
}

/// Tries every address of the name in order. None that is silent may use up the time of those after it: each has its
/// share of `timeout`.
async fn connect_any(host: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return TcpStream::connect(SocketAddr::new(ip, port)).await;
    }
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    let share = timeout / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut failures = Vec::new();
    for address in addresses {
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failures.push(format!("{address}: {error}")),
            Err(_) => failures.push(format!("{address}: no answer")),
        }
    }
    let none = if failures.is_empty() { "its name has no address".to_owned() } else { failures.join("; ") };
    Err(io::Error::other(none))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Position, UpstreamHealth};
    use std::io::Write;
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::runtime::Builder;
    use tokio_rustls::rustls::RootCertStore;
    use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;

    fn connector(address: UpstreamAddress, connect_timeout: Duration) -> Connector {
        let (health, at) = (UpstreamHealth::Connection, Position::default());
        let upstream = Upstream { address, tls: None, connect_timeout, health, insecure_exposed: false, at };
        Connector::new(&upstream, None, &Limits::default())
    }

    fn failure(address: UpstreamAddress, milliseconds: u64) -> String {
        let connector = connector(address, Duration::from_millis(milliseconds));
        let connected = Builder::new_current_thread().enable_all().build().unwrap().block_on(connector.connect(1 << 20));
        connected.err().unwrap().0.to_string()
    }

    fn tcp(host: &str, port: u16) -> UpstreamAddress {
        UpstreamAddress::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn a_failure_names_the_address_as_it_was_configured_and_each_that_was_tried() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let refused = failure(tcp("127.0.0.1", port), 5000);
        assert!(refused.starts_with(&format!("connecting to 127.0.0.1:{port} failed: ")) && refused.contains("refused"), "{refused}");
        let by_name = failure(tcp("localhost", port), 5000);
        assert!(by_name.starts_with(&format!("connecting to localhost:{port} failed: ")), "{by_name}");
        assert!(by_name.contains(&format!("127.0.0.1:{port}: ")), "{by_name}");
        let unix = failure(UpstreamAddress::Unix("/nowhere/app.sock".into()), 5000);
        assert!(unix.starts_with("connecting to unix:/nowhere/app.sock failed: "), "{unix}");
    }

    #[test]
    fn tcp_asks_after_a_host_that_may_have_vanished() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let tcp = TcpStream::connect(address).await.unwrap();
            notice_a_vanished_host(&tcp).unwrap();
            let socket = SockRef::from(&tcp);
            let times =
                (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap(), socket.tcp_user_timeout().unwrap());
            assert!(socket.keepalive().unwrap());
            assert_eq!(times, (Duration::from_secs(10), Duration::from_secs(3), Some(Duration::from_secs(15))));
        });
    }

    /// What becomes of a connection to an upstream that ends so many before it says its SETTINGS, and how many it saw.
    fn after_ended(ended: usize, tls: bool) -> (Result<(), String>, usize) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connector = connector(tcp("127.0.0.1", listener.local_addr().unwrap().port()), Duration::from_secs(5));
        connector.tls = tls.then(|| {
            let config = ClientConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions().unwrap();
            let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
            (Arc::new(config), ServerName::try_from("localhost").unwrap())
        });
        let seen = Arc::new(AtomicUsize::new(0));
        let counted = seen.clone();
        std::thread::spawn(move || {
            let mut served = Vec::new();
            for connection in listener.incoming().map(Result::unwrap) {
                if counted.fetch_add(1, Ordering::Relaxed) >= ended {
                    (&connection).write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
                    served.push(connection);
                }
            }
        });
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let outcome = runtime.block_on(connector.connect(1 << 20));
        (outcome.map(drop).map_err(|why| why.0.to_string()), seen.load(Ordering::Relaxed))
    }

    #[test]
    fn what_the_upstream_ends_before_its_settings_is_tried_again_and_not_for_ever() {
        for ended in [0, 1, 5] {
            assert_eq!(after_ended(ended, false), (Ok(()), ended + 1));
        }
        let (outcome, seen) = after_ended(usize::MAX, false);
        let why = outcome.unwrap_err();
        assert!(why.contains("it ended the connection before its first SETTINGS"), "{why}");
        assert_eq!(seen, 6);
        let (outcome, seen) = after_ended(usize::MAX, true);
        assert!(outcome.is_err());
        assert_eq!(seen, 6, "within the handshake of TLS too");
    }

    #[test]
    fn who_takes_its_time_to_end_connections_is_asked_once_and_the_reason_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                std::thread::sleep(Duration::from_millis(600));
                drop(connection);
            }
        });
        let why = failure(tcp("127.0.0.1", port), 2000);
        assert!(why.contains("does it speak HTTP/2 in cleartext?"), "{why}");
    }

    #[test]
    fn a_server_without_settings_is_not_up() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        assert_eq!(
            failure(tcp("127.0.0.1", port), 50),
            format!("no HTTP/2 SETTINGS from 127.0.0.1:{port} within connect_timeout (0.05 s)")
        );
    }
}
