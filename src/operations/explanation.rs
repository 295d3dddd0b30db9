//! `POST /explain`, for this machine alone: what the configuration in force decides of a call.
//!
//! The answer tells rules, roles and who somebody is, and whoever may ask may try credentials: so it is as near to the
//! process as its configuration is, and a few questions at a time.

use super::probes::{from_this_machine, not_allowed, text};
use super::{Body, Ends, Operations, READ};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use std::pin::Pin;

/// Answers a question; words that say why it cannot.
pub type Explain = Box<dyn Fn(Bytes) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send>> + Send + Sync>;

/// Questions that are being answered at a time.
pub(super) const AT_ONCE: usize = 2;

/// A token of 64 KiB, the longest that is looked at, and what JSON adds.
const LONGEST_QUESTION: usize = 96 * 1024;

pub(super) async fn respond<B>(request: Request<B>, ends: Ends, operations: &Operations) -> Response<Body>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if request.method() != Method::POST {
        return not_allowed("POST");
    }
    if !from_this_machine(&request, ends) {
        return text(StatusCode::FORBIDDEN, "explanations are given to this machine only\n");
    }
    let Ok(_slot) = operations.explanations.try_acquire() else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "other questions are being answered\n");
    };
    let question = match tokio::time::timeout(READ, Limited::new(request.into_body(), LONGEST_QUESTION).collect()).await {
        Ok(Ok(question)) => question.to_bytes(),
        Ok(Err(_)) => return text(StatusCode::PAYLOAD_TOO_LARGE, "the question is too long or was cut short\n"),
        Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the question took too long\n"),
    };
    match (operations.explain)(question).await {
        Ok(answer) => {
            let mut response = Response::new(Full::new(Bytes::from(answer)).boxed_unsync());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(words) => text(StatusCode::BAD_REQUEST, format!("{words}\n")),
    }
}
