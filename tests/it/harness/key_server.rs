//! A key server on loopback: serves whatever the test puts there, or does to a connection whatever a hostile one would,
//! and keeps what it was asked.

use super::Site;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig, ServerConnection, StreamOwned};

pub struct KeyServer {
    address: SocketAddr,
    tls: bool,
    state: Arc<State>,
}

/// What is done with a connection.
type Act = Arc<dyn Fn(&mut Exchange) + Send + Sync>;

#[derive(Default)]
struct State {
    /// By path; without one the connection is closed without an answer.
    answers: Mutex<HashMap<String, Act>>,
    /// Instead of TLS and a look at the request.
    at_accept: Mutex<Option<Act>>,
    fetches: AtomicUsize,
    asked: Mutex<Vec<Asked>>,
    stopped: AtomicBool,
}

/// A request, noted before anything of its answer is sent.
#[derive(Clone, Debug)]
pub struct Asked {
    pub at: Instant,
    pub head: String,
}

/// One connection, whose request has been read.
pub struct Exchange {
    /// Empty at accept.
    pub head: String,
    stream: Box<dyn Stream>,
    tcp: TcpStream,
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

impl Exchange {
    /// Whether the client still wanted it.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).and_then(|()| self.stream.flush()).is_ok()
    }

    /// A whole answer; further header lines may follow the status.
    pub fn answer(&mut self, status: &str, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
        self.send([head.as_bytes(), body].concat());
    }

    /// These bytes one by one, for as long as the client bears it.
    pub fn drip(&mut self, bytes: impl AsRef<[u8]>, pause: Duration) {
        for byte in bytes.as_ref() {
            if !self.send([*byte]) {
                return;
            }
            std::thread::sleep(pause);
        }
    }

    /// Nothing, until the client goes away.
    pub fn hang(&mut self) {
        let _ = std::io::copy(&mut self.stream, &mut std::io::sink());
    }

    /// The connection ends as it does when its server has crashed.
    pub fn reset(&mut self) {
        socket2::SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO)).unwrap();
    }
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
        KeyServer::start(None)
    }

    /// The same behind TLS, with the site's certificate of this name.
    pub fn down_with_tls(site: &Site, name: &str) -> KeyServer {
        let chain = vec![CertificateDer::from_pem_file(site.path(&format!("{name}.crt"))).unwrap()];
        let key = PrivateKeyDer::from_pem_file(site.path(&format!("{name}.key"))).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let config = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth().with_single_cert(chain, key);
        KeyServer::start(Some(Arc::new(config.unwrap())))
    }

    fn start(tls: Option<Arc<ServerConfig>>) -> KeyServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = KeyServer { address: listener.local_addr().unwrap(), tls: tls.is_some(), state: Arc::default() };
        let state = server.state.clone();
        std::thread::spawn(move || {
            while let Ok((tcp, _)) = listener.accept() {
                if state.stopped.load(Ordering::SeqCst) {
                    return;
                }
                state.fetches.fetch_add(1, Ordering::SeqCst);
                let (state, tls) = (state.clone(), tls.clone());
                std::thread::spawn(move || state.serve(tcp, tls));
            }
        });
        server
    }

    /// Where the keys are.
    pub fn url(&self) -> String {
        format!("{}/jwks.json", self.origin())
    }

    pub fn origin(&self) -> String {
        // The name that the certificates of a site have.
        if self.tls { format!("https://localhost:{}", self.address.port()) } else { format!("http://{}", self.address) }
    }

    pub fn publish(&self, keys: &[&Value]) {
        self.answer("200 OK", &json!({ "keys": keys }).to_string());
    }

    /// What is answered where the keys would be; further header lines may follow the status.
    pub fn answer(&self, status: &str, body: &str) {
        self.answer_at("/jwks.json", status, body);
    }

    pub fn answer_at(&self, path: &str, status: &str, body: &str) {
        let (status, body) = (status.to_owned(), body.to_owned());
        self.act_at(path, move |exchange| exchange.answer(&status, &body));
    }

    /// What is done where the keys would be.
    pub fn act(&self, act: impl Fn(&mut Exchange) + Send + Sync + 'static) {
        self.act_at("/jwks.json", act);
    }

    pub fn act_at(&self, path: &str, act: impl Fn(&mut Exchange) + Send + Sync + 'static) {
        *self.state.at_accept.lock().unwrap() = None;
        self.state.answers.lock().unwrap().insert(path.to_owned(), Arc::new(act));
    }

    /// What is done with each connection before a word is heard from it.
    pub fn act_at_accept(&self, act: impl Fn(&mut Exchange) + Send + Sync + 'static) {
        *self.state.at_accept.lock().unwrap() = Some(Arc::new(act));
    }

    /// From now on connections are closed without an answer.
    pub fn fail(&self) {
        self.state.answers.lock().unwrap().clear();
    }

    /// Connections so far.
    pub fn fetches(&self) -> usize {
        self.state.fetches.load(Ordering::SeqCst)
    }

    /// Requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().clone()
    }
}

impl State {
    fn serve(&self, tcp: TcpStream, tls: Option<Arc<ServerConfig>>) {
        let stream = tcp.try_clone().unwrap();
        let at_accept = self.at_accept.lock().unwrap().clone();
        if let Some(act) = at_accept {
            return act(&mut Exchange { head: String::new(), stream: Box::new(stream), tcp });
        }
        let stream: Box<dyn Stream> = match tls {
            Some(tls) => Box::new(StreamOwned::new(ServerConnection::new(tls).unwrap(), stream)),
            None => Box::new(stream),
        };
        let mut exchange = Exchange { head: String::new(), stream, tcp };
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if !matches!(exchange.stream.read(&mut byte), Ok(1)) {
                return;
            }
            head.push(byte[0]);
        }
        exchange.head = String::from_utf8(head).unwrap();
        let path = exchange.head.split(' ').nth(1).unwrap_or_default();
        let act = self.answers.lock().unwrap().get(path).cloned();
        self.asked.lock().unwrap().push(Asked { at: Instant::now(), head: exchange.head.clone() });
        if let Some(act) = act {
            act(&mut exchange);
        }
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}
