//! THE FRONT DOOR: accepts connections on the control thread, hands each to the least loaded worker thread, and there
//! serves its streams; every stream becomes one [`crate::proxy::call`].

mod accept;
mod client_trust;
mod connection;
mod files;
mod lifetime;
mod worker;

pub use accept::{accept, bind};
pub use worker::{Worker, Workers};

use crate::config::{Limits, Transport};
use crate::upstream::StreamLimits;
use arc_swap::ArcSwap;
use client_trust::ClientTrust;
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
    client_trust: ClientTrust,
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
    /// `tls` and `certificate_expiry` are those of `transport`, `None` with `listen.insecure_plaintext`.
    pub fn new(transport: &Transport, tls: Option<Arc<ServerConfig>>, certificate_expiry: Option<Timestamp>, limits: &Limits) -> Door {
        Door {
            connections: limits.connections,
            tls: tls.map(TlsAcceptor::from),
            client_trust: ClientTrust::new(transport),
            handshake: limits.handshake,
            streams: limits.streams,
            header_bytes: limits.header_bytes,
            stream: StreamLimits { stalled: limits.stalled, idle: limits.stream_idle },
            lifetime: Lifetime::new(limits),
            certificate_expiry,
        }
    }

    /// Puts this door into the place of another. Connections stay, but for those that would have to show a certificate anew.
    pub fn replace(mut self, place: &ArcSwap<Door>) {
        self.client_trust.succeed(&place.load().client_trust);
        let door = Arc::new(self);
        place.store(door.clone());
        // Only now, lest those who are sent away come back through the same door.
        door.client_trust.enforce();
    }

    /// When the certificate that it shows expires.
    pub fn certificate_expiry(&self) -> Option<Timestamp> {
        self.certificate_expiry
    }
}
