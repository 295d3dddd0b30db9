//! The HTTP side: `/livez /readyz /startupz /metrics`, and `POST /drain` for this machine alone.

use super::{Body, Ends, Operations};
use crate::drain::Phase;
use crate::readiness::Status;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, FORWARDED, ORIGIN, VIA};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Answers one request; its body, if any, is not looked at.
pub(super) fn respond<B>(request: &Request<B>, ends: Ends, operations: &Operations) -> Response<Body> {
    let mut response = match request.uri().path() {
        "/drain" => drain(request, ends, operations),
        path @ ("/livez" | "/readyz" | "/startupz" | "/metrics") => {
            if request.method() == Method::GET || request.method() == Method::HEAD {
                look(path, request.uri().query().unwrap_or_default(), operations)
            } else {
                not_allowed("GET, HEAD")
            }
        }
        _ => text(StatusCode::NOT_FOUND, "nothing here; try /livez /readyz /startupz /metrics\n"),
    };
    if request.method() == Method::HEAD {
        *response.body_mut() = Full::new(Bytes::new()).boxed_unsync();
    }
    response
}

fn look(path: &str, query: &str, operations: &Operations) -> Response<Body> {
    match path {
        // Alive is whoever can answer, also while draining: a restart would help nobody.
        "/livez" => text(StatusCode::OK, "alive\n"),
        // Never waits for the upstream: as a native sidecar we must be started before it can be.
        "/startupz" if operations.readiness.is_started() => text(StatusCode::OK, "started\n"),
        "/startupz" => text(StatusCode::SERVICE_UNAVAILABLE, "not started\n"),
        "/readyz" => {
            let verbose = query.split('&').any(|pair| pair.split('=').next() == Some("verbose"));
            let parts = if verbose { parts(operations) } else { String::new() };
            let ready = operations.is_ready();
            let (status, word) = if ready { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
            text(status, format!("{parts}{word}\n"))
        }
        _ => {
            let mut response = text(StatusCode::OK, operations.metrics.render());
            response.headers_mut().insert(CONTENT_TYPE, PROMETHEUS);
            response
        }
    }
}

/// One line for each part that readiness waits for, in the form of Kubernetes' own probes.
fn parts(operations: &Operations) -> String {
    let started = match operations.readiness.is_started() {
        true => Status::Ready,
        false => Status::NotReady("the configuration is not loaded or the traffic port not bound".to_owned()),
    };
    let drain = match operations.drain.phase() {
        Phase::Serving => Status::Ready,
        _ => Status::NotReady("has begun".to_owned()),
    };
    let own = [("start".to_owned(), started), ("drain".to_owned(), drain)];
    let line = |(name, status): (String, Status)| match status {
        Status::Ready => format!("[+] {name}\n"),
        Status::Remark(text) => format!("[+] {name}: {text}\n"),
        Status::NotReady(reason) => format!("[-] {name}: {reason}\n"),
    };
    own.into_iter().chain(operations.readiness.status()).map(line).collect()
}

/// Ends the service, so it is taken from this machine only.
fn drain<B>(request: &Request<B>, ends: Ends, operations: &Operations) -> Response<Body> {
    if request.method() != Method::POST {
        return not_allowed("POST");
    }
    if !from_this_machine(request, ends) {
        return text(StatusCode::FORBIDDEN, "a drain can be begun from this machine only\n");
    }
    (operations.begin_drain)();
    text(StatusCode::OK, "the drain has begun\n")
}

/// From loopback; and not for somebody else, whom a browser that shows a web page and a proxy would name.
pub(super) fn from_this_machine<B>(request: &Request<B>, ends: Ends) -> bool {
    const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
    let on_behalf = [ORIGIN, X_FORWARDED_FOR, FORWARDED, VIA];
    ends.are_loopback() && !on_behalf.iter().any(|name| request.headers().contains_key(name))
}

pub(super) fn not_allowed(methods: &'static str) -> Response<Body> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {methods} here\n"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}
