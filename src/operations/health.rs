//! `grpc.health.v1.Health` (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>), for gRPC probes. Its two
//! messages have one field each, so they are read and written by hand.

use super::{Body, InFlight, Operations, READ};
use crate::grpc::{Code, FrameError, encode_message, framed_text};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Frame;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// A request is a service name: a probe's is a word.
const LONGEST_REQUEST: usize = 4096;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// `HealthCheckResponse.ServingStatus`; 0 is UNKNOWN, which is never told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum ServingStatus {
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

/// Whether the request is a gRPC call at all.
pub(super) fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    request.version() == Version::HTTP_2
        && request.method() == Method::POST
        && content_type.is_some_and(|value| value.starts_with(b"application/grpc"))
}

/// Answers one gRPC call.
pub(super) async fn respond<B>(request: Request<B>, operations: Arc<Operations>, in_flight: InFlight) -> Response<Body>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    let streaming = match head.uri.path() {
        "/grpc.health.v1.Health/Check" => false,
        "/grpc.health.v1.Health/Watch" => true,
        _ => return refuse(Code::Unimplemented, "this port knows grpc.health.v1.Health/Check and Watch"),
    };
    let body = match tokio::time::timeout(READ, Limited::new(body, LONGEST_REQUEST).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return refuse(Code::ResourceExhausted, "the request is too long or was cut short"),
        Err(_) => return refuse(Code::DeadlineExceeded, "the request took too long"),
    };
    // HealthCheckRequest { service = 1 }
    let service = match framed_text(&body) {
        Ok(service) => service,
        Err(error) => {
            let code = if error == FrameError::Compressed { Code::Unimplemented } else { Code::Internal };
            return refuse(code, "not a HealthCheckRequest in one uncompressed message");
        }
    };
    match (status_of(service, &operations), streaming) {
        (ServingStatus::ServiceUnknown, false) => {
            refuse(Code::NotFound, "the services here are readiness (the empty name too) and liveness")
        }
        (status, false) => {
            let mut trailers = HeaderMap::new();
            trailers.insert(GRPC_STATUS, HeaderValue::from_static(Code::Ok.as_header()));
            let body = Full::new(message(status)).with_trailers(async { Some(Ok::<_, Infallible>(trailers)) });
            answer(body.boxed_unsync())
        }
        (_, true) => watch(service.to_owned(), operations, in_flight),
    }
}

/// What a service name stands for. A name nobody knows is answered, never guessed at.
fn status_of(service: &str, operations: &Operations) -> ServingStatus {
    match service {
        "" | "readiness" if operations.is_ready() => ServingStatus::Serving,
        "" | "readiness" => ServingStatus::NotServing,
        "liveness" => ServingStatus::Serving,
        _ => ServingStatus::ServiceUnknown,
    }
}

/// A stream with the status now and after each change, until the client leaves.
fn watch(service: String, operations: Arc<Operations>, in_flight: InFlight) -> Response<Body> {
    let (frames, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let _in_flight = in_flight;
        let (mut readiness, mut drain) = (operations.readiness.watch(), operations.drain.clone());
        let mut told = None;
        loop {
            let status = status_of(&service, &operations);
            if told.replace(status) != Some(status) && frames.send(message(status)).await.is_err() {
                return;
            }
            tokio::select! {
                () = frames.closed() => return,
                _ = readiness.changed() => {}
                _ = drain.changed() => {}
            }
        }
    });
    answer(Messages(receiver).boxed_unsync())
}

/// A body whose frames are sent from elsewhere.
struct Messages(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Messages {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|message| message.map(|message| Ok(Frame::data(message))))
    }
}

fn answer(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// Trailers only.
fn refuse(code: Code, words: &str) -> Response<Body> {
    let mut response = answer(Full::new(Bytes::new()).boxed_unsync());
    response.headers_mut().insert(GRPC_STATUS, HeaderValue::from_static(code.as_header()));
    if let Ok(words) = HeaderValue::try_from(encode_message(words)) {
        response.headers_mut().insert(GRPC_MESSAGE, words);
    }
    response
}

/// A length-prefixed `HealthCheckResponse { status = 1 }`.
fn message(status: ServingStatus) -> Bytes {
    Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 1 << 3, status as u8])
}
