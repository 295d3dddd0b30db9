//! A key server on loopback: serves whatever the test puts there, and counts.

use serde_json::{Value, json};
use std::collections::HashMap;
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
    /// Status line and body by path; without one the connection is closed without an answer.
    answers: Mutex<HashMap<String, (String, String)>>,
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
                let request: Vec<String> =
                    BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                let path = request.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
                let answer = state.answers.lock().unwrap().get(path).cloned();
                if let Some((status, body)) = answer {
                    let length = body.len();
                    let head = format!(
                        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
                    );
                    let _ = stream.write_all((head + &body).as_bytes());
                }
            }
        });
        server
    }

    /// Where the keys are.
    pub fn url(&self) -> String {
        format!("{}/jwks.json", self.origin())
    }

    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn publish(&self, keys: &[&Value]) {
        self.answer("200 OK", &json!({ "keys": keys }).to_string());
    }

    /// What is answered where the keys would be; further header lines may follow the status.
    pub fn answer(&self, status: &str, body: &str) {
        self.answer_at("/jwks.json", status, body);
    }

    pub fn answer_at(&self, path: &str, status: &str, body: &str) {
        self.state.answers.lock().unwrap().insert(path.to_owned(), (status.to_owned(), body.to_owned()));
    }

    /// From now on connections are closed without an answer.
    pub fn fail(&self) {
        self.state.answers.lock().unwrap().clear();
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
