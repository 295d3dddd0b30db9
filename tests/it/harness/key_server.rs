//! A key server on loopback: serves whatever the test puts there, and counts.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

pub struct KeyServer {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Status line and body; `None`: the connection is closed without an answer.
    answer: Mutex<Option<(String, String)>>,
    fetches: AtomicUsize,
    stopped: AtomicBool,
}

impl KeyServer {
    /// A server that has these keys.
    pub fn with_keys(keys: &[&Value]) -> KeyServer {
        let server = KeyServer::down();
        server.publish(keys);
        server
    }

    /// A server that closes every connection without an answer.
    pub fn down() -> KeyServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = KeyServer { address: listener.local_addr().unwrap(), state: Arc::default() };
        let state = server.state.clone();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                if state.stopped.load(Ordering::SeqCst) {
                    return;
                }
                state.fetches.fetch_add(1, Ordering::SeqCst);
                let request = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).count();
                let answer = state.answer.lock().unwrap().clone();
                if let Some((status, body)) = answer.filter(|_| request > 0) {
                    let length = body.len();
                    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                    let _ = stream.write_all((head + &body).as_bytes());
                }
            }
        });
        server
    }

    pub fn url(&self) -> String {
        format!("http://{}/jwks.json", self.address)
    }

    pub fn publish(&self, keys: &[&Value]) {
        self.answer("200 OK", &json!({ "keys": keys }).to_string());
    }

    pub fn answer(&self, status: &str, body: &str) {
        *self.state.answer.lock().unwrap() = Some((status.to_owned(), body.to_owned()));
    }

    /// From now on connections are closed without an answer.
    pub fn fail(&self) {
        *self.state.answer.lock().unwrap() = None;
    }

    pub fn fetches(&self) -> usize {
        self.state.fetches.load(Ordering::SeqCst)
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        let _ = std::net::TcpStream::connect(self.address);
    }
}
