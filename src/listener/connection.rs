//! One client connection: TLS, preface and SETTINGS within the handshake's deadline, then its streams until it ends or
//! the drain sends it away. What goes wrong here is this connection's affair alone.

use super::Door;
use super::worker::Worker;
use crate::http2::{CONNECTION_WINDOW, DATA_FRAME_BUDGET, FrameTap, HEADER_LIST_HEADROOM, Io, SEND_BUFFER, STREAM_WINDOW, TapState};
use crate::proxy;
use crate::telemetry::Limit;
use bytes::Bytes;
use h2::Reason;
use h2::server::Connection;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use tokio::net::TcpStream;
use tokio::time::Instant;

pub(super) async fn serve(worker: &Worker, socket: std::net::TcpStream, peer: SocketAddr) {
    let door = worker.door.load_full();
    let deadline = Instant::now() + door.handshake;
    let io = match tokio::time::timeout_at(deadline, secure(&door, socket)).await {
        Ok(Ok(io)) => io,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "a TLS handshake failed"),
        Err(_) => return worker.metrics.limit_hits.inc(Limit::Handshake),
    };
    let (tap, state) = FrameTap::accepted(io, deadline, door.handshake);
    let ended = match settings(&door).handshake(tap).await {
        Ok(connection) => serve_streams(worker, connection, peer).await,
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        note(worker, &state, peer, &error);
    }
}

async fn secure(door: &Door, socket: std::net::TcpStream) -> io::Result<Io> {
    let socket = TcpStream::from_std(socket)?;
    match &door.tls {
        None => Ok(Io::Tcp(socket)),
        Some(acceptor) => {
            let tls = acceptor.accept(socket).await?;
            // A client that offers no ALPN at all passes rustls; h2 is all we speak, and its preface is checked next.
            Ok(Io::Tls(Box::new(tls.into())))
        }
    }
}

fn settings(door: &Door) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(door.streams)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(door.header_bytes.saturating_mul(HEADER_LIST_HEADROOM)).unwrap_or(u32::MAX))
        .data_frame_budget(DATA_FRAME_BUDGET);
    builder
}

async fn serve_streams(worker: &Worker, mut connection: Connection<FrameTap, Bytes>, peer: SocketAddr) -> Result<(), h2::Error> {
    let mut drain = worker.proxy.drain.clone();
    let mut draining = pin!(drain.draining());
    let mut sent_away = false;
    loop {
        tokio::select! {
            biased;
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    tokio::task::spawn_local(proxy::call(worker.proxy.clone(), Some(peer), request, respond));
                }
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            // Two GOAWAYs: the first lets streams through that are on their way already.
            _ = &mut draining, if !sent_away => {
                connection.graceful_shutdown();
                sent_away = true;
            }
        }
    }
}

/// Counts the limit that ended the connection, if it was one.
fn note(worker: &Worker, state: &TapState, peer: SocketAddr, error: &h2::Error) {
    let hit = match state.timed_out() {
        Some("handshake") => Some(Limit::Handshake),
        Some(_) => Some(Limit::HeaderBlock),
        None if error.is_library() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM) => Some(Limit::Flood),
        None => None,
    };
    if let Some(limit) = hit {
        worker.metrics.limit_hits.inc(limit);
    }
    tracing::debug!(%peer, %error, "a client connection ended");
}
