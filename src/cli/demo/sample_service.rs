//! The service behind the demo's Doorward: `demo.v1.Greeter` over h2c on loopback. It authenticates nobody; it answers
//! with what its metadata say about the caller, so that one sees what an upstream gets.

use crate::config::IdentityHeaders;
use crate::grpc::{Code, frame_text, framed_text};
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use std::io;
use std::net::TcpListener;
use std::thread;
use tokio::net::TcpStream;

pub(super) const SAY_HELLO: &str = "/demo.v1.Greeter/SayHello";
pub(super) const DELETE_GREETING: &str = "/demo.v1.Greeter/DeleteGreeting";
/// What the service shows of its metadata beside the identity: Doorward lets none of these through.
const MUST_NOT_ARRIVE: [&str; 3] = ["user-id", "authorization", "x-api-key"];
/// A name is short; whoever sends more is cut off.
const LONGEST_REQUEST: usize = 64 * 1024;

/// Serves on a thread of its own until the process ends.
pub(super) fn start(listener: TcpListener) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let thread = thread::Builder::new().name("sample-service".to_owned());
    thread.spawn(move || runtime.block_on(serve(listener))).map(drop)
}

async fn serve(listener: TcpListener) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (socket, _) = listener.accept().await?;
        tokio::spawn(connection(socket));
    }
}

/// Whatever goes wrong here ends this connection, and the demo shows it at the client.
async fn connection(socket: TcpStream) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(socket).await?;
    while let Some(call) = connection.accept().await {
        let (request, respond) = call?;
        tokio::spawn(answer(request, respond));
    }
    Ok(())
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    let mut message = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        message.extend_from_slice(&chunk);
        if message.len() > LONGEST_REQUEST {
            return Ok(());
        }
    }
    let reply = match (head.uri.path(), framed_text(&message)) {
        (SAY_HELLO, Ok(name)) => Ok(format!("Hello, {name}! {}", told(&head.headers))),
        (DELETE_GREETING, Ok(name)) => Ok(format!("The greeting of {name} is deleted. {}", told(&head.headers))),
        (SAY_HELLO | DELETE_GREETING, Err(_)) => Err(Code::InvalidArgument),
        _ => Err(Code::Unimplemented),
    };
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut out = respond.send_response(head, false)?;
    if let Ok(reply) = &reply {
        out.send_data(frame_text(reply), false)?;
    }
    let code = reply.err().unwrap_or(Code::Ok);
    out.send_trailers(HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static(code.as_header()))]))
}

/// The metadata of interest, in words.
fn told(metadata: &HeaderMap) -> String {
    let names = IdentityHeaders::DEFAULT_NAMES.into_iter().chain(MUST_NOT_ARRIVE);
    let fields = names.flat_map(|name| metadata.get_all(name).iter().map(move |value| (name, value)));
    let fields: Vec<String> = fields.map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value.as_bytes()))).collect();
    if fields.is_empty() { "I was told nothing about you.".to_owned() } else { format!("I was told {}", fields.join(" ")) }
}
