//! New connections, one after the other: TCP, a full TLS handshake, HTTP/2 preface and the peer's SETTINGS, then closed.

use super::wire::Wire;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection};

/// How many were made in the time, so many of them at once.
pub fn make(port: u16, tls: &Arc<ClientConfig>, at_once: usize, time: Duration) -> usize {
    let ready = epoll::create(CreateFlags::CLOEXEC).expect("epoll");
    let mut under_way: HashMap<u64, Wire> = HashMap::new();
    let (mut begun, mut made, mut buffer) = (0, 0, vec![0; 1 << 16]);
    let end = Instant::now() + time;
    let mut events = Vec::with_capacity(256);
    while Instant::now() < end || !under_way.is_empty() {
        while Instant::now() < end && under_way.len() < at_once {
            let mut wire = connect(port, tls);
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
            epoll::add(&ready, &wire.socket, EventData::new_u64(begun), flags).expect("epoll");
            wire.flush();
            under_way.insert(begun, wire);
            begun += 1;
        }
        events.clear();
        let _ = epoll::wait(&ready, rustix::buffer::spare_capacity(&mut events), None);
        for event in &events {
            let Some(wire) = under_way.get_mut(&event.data.u64()) else { continue };
            assert!(wire.receive(&mut buffer), "the proxy closed a new connection");
            while wire.event().is_some() {}
            wire.flush();
            if wire.ready {
                under_way.remove(&event.data.u64());
                made += 1;
            }
        }
    }
    made
}

fn connect(port: u16, tls: &Arc<ClientConfig>) -> Wire {
    let socket = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut connection = ClientConnection::new(tls.clone(), name).expect("TLS");
    connection.set_buffer_limit(None);
    Wire::client(socket, Some(Box::new(connection)))
}
