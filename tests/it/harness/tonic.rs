//! The real tonic, as client and as server, within the tests' own process. It speaks the orders and reports of the Python
//! peers (`tests/python/`); messages are bytes.

use super::python::{Answer, Call};
use super::{Doorward, PATIENCE};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BufMut};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{BinaryMetadataKey, KeyAndValueRef, MetadataMap, MetadataValue};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use tower_service::Service;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Makes the calls from a tonic client, as [`Doorward::calls`] does from grpcio.
#[track_caller]
pub fn calls(doorward: &Doorward, calls: &[Call]) -> Vec<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let ca = Certificate::from_pem(std::fs::read(&doorward.ca).unwrap());
        let endpoint = Endpoint::from_shared(format!("https://{}", doorward.target())).unwrap();
        let channel = endpoint.tls_config(ClientTlsConfig::new().ca_certificate(ca)).unwrap().connect().await.unwrap();
        let mut answers = Vec::new();
        for call in calls {
            let answer = tokio::time::timeout(2 * PATIENCE, perform(channel.clone(), &call.0)).await;
            answers.push(Answer(answer.expect("the end of a call")));
        }
        answers
    })
}

/// One call. How many messages there are each way is all that tells the four kinds apart.
async fn perform(channel: Channel, call: &Value) -> Value {
    let started = Instant::now();
    let mut result = json!({"initial": [], "trailing": [], "messages": []});
    let work = exchange(channel, call, &mut result);
    let ended = match call["cancel_after"].as_f64() {
        // A call is cancelled by being dropped.
        Some(seconds) => tokio::time::timeout(Duration::from_secs_f64(seconds), work).await.unwrap_or_else(|_| Err(Status::cancelled(""))),
        None => work.await,
    };
    let (code, details) = match &ended {
        Ok(()) => (Code::Ok, ""),
        Err(status) => (status.code(), status.message()),
    };
    if let Err(status) = &ended {
        result["trailing"] = readable(status.metadata());
    }
    result["code"] = (code as i32).into();
    result["details"] = details.into();
    result["seconds"] = started.elapsed().as_secs_f64().into();
    result
}

async fn exchange(channel: Channel, call: &Value, result: &mut Value) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel).accept_compressed(CompressionEncoding::Gzip).max_decoding_message_size(usize::MAX);
    if call["gzip"] == true {
        client = client.send_compressed(CompressionEncoding::Gzip);
    }
    let messages: Vec<Vec<u8>> = call["messages"].as_array().map_or(vec![Vec::new()], |list| list.iter().map(to_bytes).collect());
    let lockstep = call["lockstep"] == true;
    let (give, taken) = mpsc::channel(messages.len().max(1));
    let mut left = messages.into_iter();
    let at_once = if lockstep { 1 } else { left.len() };
    for message in left.by_ref().take(at_once) {
        give.send(message).await.unwrap();
    }
    let mut give = lockstep.then_some(give);
    let mut request = Request::new(ReceiverStream::new(taken));
    write(call["metadata"].as_array().into_iter().flatten(), request.metadata_mut());
    request.set_timeout(Duration::from_secs_f64(call["timeout"].as_f64().unwrap_or(20.0)));
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = call["method"].as_str().unwrap().parse().unwrap();
    let response = client.streaming(request, path, Raw).await?;
    result["initial"] = readable(response.metadata());
    let mut answers = response.into_inner();
    while let Some(answer) = answers.message().await? {
        result["messages"].as_array_mut().unwrap().push(shown(&answer));
        match left.next() {
            // A service that has ended wants no more.
            Some(message) => drop(give.as_ref().unwrap().send(message).await),
            None => give = None,
        }
    }
    result["trailing"] = readable(&answers.trailers().await?.unwrap_or_default());
    Ok(())
}

/// A tonic service with the behaviours of `tests/python/upstream.py`, apart from what tonic cannot: `trailing` only with a status.
pub struct TonicServer {
    pub url: String,
    _stop: oneshot::Sender<()>,
}

impl TonicServer {
    pub fn start() -> TonicServer {
        let (stop, stopped) = oneshot::channel();
        let (bound, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                bound.send(listener.local_addr().unwrap()).unwrap();
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                tokio::select! {
                    served = Server::builder().serve_with_incoming(Everything, incoming) => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        TonicServer { url: format!("http://{}", address.recv().unwrap()), _stop: stop }
    }
}

/// Serves every method there is, apart from the health service's.
#[derive(Clone)]
struct Everything;

impl Service<http::Request<tonic::body::Body>> for Everything {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Boxed<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let method = Method(request.uri().path().to_owned());
        let gzip = request.headers().get("x-behaviour").is_some_and(|value| value.to_str().unwrap().contains("gzip"));
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Raw).accept_compressed(CompressionEncoding::Gzip).max_decoding_message_size(usize::MAX);
            if gzip {
                grpc = grpc.send_compressed(CompressionEncoding::Gzip);
            }
            Ok(grpc.streaming(method, request).await)
        })
    }
}

struct Method(String);

impl Service<Request<Streaming<Vec<u8>>>> for Method {
    type Response = Response<ReceiverStream<Result<Vec<u8>, Status>>>;
    type Error = Status;
    type Future = Boxed<Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Streaming<Vec<u8>>>) -> Self::Future {
        let method = self.0.clone();
        Box::pin(async move {
            if method.starts_with("/grpc.") {
                return Err(Status::unimplemented("no health service"));
            }
            let (metadata, _, messages) = request.into_parts();
            let behaviour = metadata.get("x-behaviour").map_or(json!({}), |value| serde_json::from_slice(value.as_bytes()).unwrap());
            let (give, answers) = mpsc::channel(1);
            let mut response = Response::new(ReceiverStream::new(answers));
            write(behaviour["initial"].as_array().into_iter().flatten(), response.metadata_mut());
            let report = json!({"method": method, "metadata": readable(&metadata)});
            tokio::spawn(async move {
                if let Err(status) = serve(report, messages, &behaviour, &give).await {
                    let _ = give.send(Err(status)).await;
                }
            });
            Ok(response)
        })
    }
}

type Answers = mpsc::Sender<Result<Vec<u8>, Status>>;

/// One call of the service, by the kind that its method's name says.
async fn serve(mut report: Value, mut messages: Streaming<Vec<u8>>, behaviour: &Value, answers: &Answers) -> Result<(), Status> {
    let kind = report["method"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let pause = || tokio::time::sleep(Duration::from_secs_f64(behaviour["sleep"].as_f64().unwrap_or(0.0)));
    let answer = async |answer: Vec<u8>| answers.send(Ok(answer)).await.map_err(|_| Status::cancelled("gone"));
    let sized = behaviour["size"].as_u64().map(|size| vec![b'x'; usize::try_from(size).unwrap()]);
    let mut sizes: Vec<usize> = Vec::new();
    while let Some(message) = messages.next().await {
        let message = message?;
        sizes.push(message.len());
        if kind.starts_with("ServerStream") {
            for index in 0..behaviour["count"].as_u64().unwrap_or(3) {
                pause().await;
                answer(sized.clone().unwrap_or_else(|| [format!("{index}:").as_bytes(), &message].concat())).await?;
            }
        } else if kind.starts_with("Bidi") {
            pause().await;
            answer(message).await?;
            if behaviour["before_end"] == sizes.len() {
                break;
            }
        }
    }
    if let Some(code) = behaviour["status"].as_i64().filter(|code| *code != 0) {
        let mut metadata = MetadataMap::new();
        write(behaviour["trailing"].as_array().into_iter().flatten(), &mut metadata);
        let details = STANDARD.decode(behaviour["details"].as_str().unwrap_or_default()).unwrap();
        let message = behaviour["message"].as_str().unwrap_or_default();
        return Err(Status::with_details_and_metadata(Code::from(i32::try_from(code).unwrap()), message, details.into(), metadata));
    }
    if kind.starts_with("Unary") || kind.starts_with("ClientStream") {
        pause().await;
        report["sizes"] = sizes.into();
        answer(sized.unwrap_or_else(|| report.to_string().into_bytes())).await?;
    }
    Ok(())
}

/// Messages as they are, without protobuf.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}

/// A list of pairs, `-bin` values in base64.
fn readable(metadata: &MetadataMap) -> Value {
    let pairs = metadata.iter().map(|pair| match pair {
        KeyAndValueRef::Ascii(name, value) => json!([name.as_str(), value.to_str().unwrap_or("not ASCII")]),
        KeyAndValueRef::Binary(name, value) => json!([name.as_str(), STANDARD.encode(value.to_bytes().unwrap())]),
    });
    pairs.collect()
}

fn write<'a>(pairs: impl Iterator<Item = &'a Value>, into: &mut MetadataMap) {
    for pair in pairs {
        let (name, value) = (pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
        if name.ends_with("-bin") {
            into.append_bin(
                BinaryMetadataKey::from_bytes(name.as_bytes()).unwrap(),
                MetadataValue::from_bytes(&STANDARD.decode(value).unwrap()),
            );
        } else {
            into.append(name.parse::<tonic::metadata::AsciiMetadataKey>().unwrap(), value.parse().unwrap());
        }
    }
}

fn to_bytes(message: &Value) -> Vec<u8> {
    match message["size"].as_u64() {
        Some(size) => vec![b'x'; usize::try_from(size).unwrap()],
        None => message.as_str().unwrap().as_bytes().to_vec(),
    }
}

fn shown(message: &[u8]) -> Value {
    if message.len() > 65536 { json!({"size": message.len()}) } else { String::from_utf8_lossy(message).into() }
}
