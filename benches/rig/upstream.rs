//! The service behind every proxy: an h2c echo on the `h2` crate, so fast that it is never what is measured. It runs as a
//! child process of this same program, on the load generator's core.

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use tokio::net::{TcpListener, TcpStream};

/// The running service.
pub struct Service {
    child: Child,
    pub port: u16,
}

impl Service {
    pub fn start() -> Service {
        let program = env::current_exe().expect("the path of this program");
        let mut child = Command::new("taskset")
            .args(["-c", super::process::LOAD_CORE])
            .arg(program)
            .arg("upstream")
            .stdout(Stdio::piped())
            .spawn()
            .expect("taskset (util-linux)");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("the service's port");
        Service { child, port: line.trim().parse().expect("a port") }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves until killed; prints its port first.
pub fn serve() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("{}", listener.local_addr().expect("an address").port());
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(connection(stream));
        }
    });
}

async fn connection(stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let Ok(mut connection) = Builder::new().max_concurrent_streams(10_000).handshake::<_, Bytes>(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(echo(request, respond));
    }
}

async fn echo(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let health = request.uri().path().starts_with("/grpc.health.v1.");
    let mut body = request.into_body();
    let mut message = BytesMut::new();
    while let Some(Ok(chunk)) = body.data().await {
        let _ = body.flow_control().release_capacity(chunk.len());
        message.extend_from_slice(&chunk);
    }
    let mut response = Response::new(());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    if health {
        response.headers_mut().insert("grpc-status", HeaderValue::from_static("12"));
        let _ = respond.send_response(response, true);
        return;
    }
    let Ok(mut stream) = respond.send_response(response, false) else { return };
    let _ = stream.send_data(message.freeze(), false);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let _ = stream.send_trailers(trailers);
}
