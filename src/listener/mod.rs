//! THE FRONT DOOR: accepts connections on the control thread, hands each to the least loaded worker thread, and there
//! serves its streams; every stream becomes one [`crate::proxy::call`].

mod accept;
mod connection;
mod files;
mod lifetime;
mod worker;

pub use accept::{accept, bind};
pub use worker::{Worker, Workers};

use crate::config::Limits;
use crate::upstream::StreamLimits;
use jiff::Timestamp;
use lifetime::Lifetime;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// What a new connection meets. One a configuration generation; a connection keeps the one it began with.
pub struct Door {
    /// Client connections at a time, those that came through other doors included.
    connections: usize,
    /// `None` with `listen.insecure_plaintext`.
    tls: Option<TlsAcceptor>,
    /// TLS, preface and first SETTINGS together; and any unfinished header block.
    handshake: Duration,
    /// MAX_CONCURRENT_STREAMS.
    streams: u32,
    /// `limits.header_bytes`.
    header_bytes: usize,
    /// Of each call.
    stream: StreamLimits,
    lifetime: Lifetime,
    /// Of `listen.tls.certificate`.
    certificate_expiry: Option<Timestamp>,
}

impl Door {
    /// `tls` and `certificate_expiry` are `None` with `listen.insecure_plaintext`.
    pub fn new(tls: Option<Arc<ServerConfig>>, certificate_expiry: Option<Timestamp>, limits: &Limits) -> Door {
        Door {
            connections: limits.connections,
            tls: tls.map(TlsAcceptor::from),
            handshake: limits.handshake,
            streams: limits.streams,
            header_bytes: limits.header_bytes,
            stream: StreamLimits { stalled: limits.stalled, idle: limits.stream_idle },
            lifetime: Lifetime::new(limits),
            certificate_expiry,
        }
    }

    /// When the certificate that it shows expires.
    pub fn certificate_expiry(&self) -> Option<Timestamp> {
        self.certificate_expiry
    }
}
