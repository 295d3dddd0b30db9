//! Every way we say no: what the client gets (gRPC code or HTTP status, reason, a few public words) and what the operator
//! gets (detail). One exhaustive match; nothing a client sent and nothing internal is in the public words.

use crate::authentication::{Failure, FailureKind};
use crate::authorization::Denied;
use crate::grpc::{Code, ErrorInfo, encode_details, encode_message};
use crate::http2::Unacceptable;
use crate::rate_limits::OverRate;
use crate::telemetry::RequestId;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use std::time::Duration;

/// The `domain` of our `google.rpc.ErrorInfo`.
const DOMAIN: &str = "doorward";

/// Why a call was refused, or ended by us.
#[derive(Debug)]
pub enum Refusal {
    /// The request's header list is over a limit.
    HeadersTooLarge(Unacceptable),
    /// The method is not POST.
    NotPost,
    /// The content-type is not gRPC's.
    NotGrpc,
    /// The path is not `/service/method`.
    MethodMalformed,
    /// `grpc-timeout` is not one to eight digits and a unit.
    TimeoutMalformed,
    /// The drain is over.
    Draining,
    /// No, ambiguous or bad credentials.
    Authentication(Failure),
    /// A known caller who may not.
    Authorization(Denied),
    /// A caller who may, but not so often.
    RateLimited(OverRate),
    /// The upstream cannot be reached, or its connection was lost.
    UpstreamUnavailable(String),
    /// The upstream reset the stream.
    UpstreamReset(h2::Reason),
    /// The upstream's headers or trailers are over a limit, or malformed.
    UpstreamHeaders(Unacceptable),
    /// The upstream has taken nothing for `limits.stalled` while bytes of the request waited for it.
    UpstreamStalled,
    /// Nothing has come or gone for `limits.stream_idle`.
    StreamIdle,
    /// The deadline has passed.
    Deadline,
}

/// What the client is told.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// gRPC, or HTTP for requests that are not gRPC.
    pub status: Status,
    /// The interface's reason; for an HTTP answer only in log and metrics.
    pub reason: &'static str,
    /// Short and plain.
    pub words: &'static str,
}

/// How the client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Trailers-only, HTTP 200.
    Grpc(Code),
    /// For requests that are not gRPC: a status and one line of text.
    Http(StatusCode),
}

impl Status {
    /// The code in log and metrics: for an HTTP answer what a gRPC client makes of it.
    pub fn code(self) -> Code {
        match self {
            Status::Grpc(code) => code,
            Status::Http(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE) => Code::Internal,
            Status::Http(_) => Code::Unknown,
        }
    }
}

impl Refusal {
    /// What the client is told.
    pub fn answer(&self) -> Answer {
        let grpc = |code, reason, words| Answer { status: Status::Grpc(code), reason, words };
        let http = |status, reason, words| Answer { status: Status::Http(status), reason, words };
        match self {
            Refusal::HeadersTooLarge(_) => {
                http(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "HEADERS_TOO_LARGE", "the request's headers are too large")
            }
            Refusal::NotPost => http(StatusCode::METHOD_NOT_ALLOWED, "HTTP_METHOD", "this is a gRPC server: the method must be POST"),
            Refusal::NotGrpc => {
                http(StatusCode::UNSUPPORTED_MEDIA_TYPE, "CONTENT_TYPE", "this is a gRPC server: the content-type must be application/grpc")
            }
            Refusal::MethodMalformed => grpc(Code::Unimplemented, "METHOD_MALFORMED", "the path is not /service/method"),
            Refusal::TimeoutMalformed => grpc(Code::Internal, "TIMEOUT_MALFORMED", "grpc-timeout is malformed"),
            Refusal::Draining => grpc(Code::Unavailable, "DRAINING", "the server is shutting down"),
            Refusal::Authentication(failure) => failure_answer(failure.kind),
            Refusal::Authorization(denied) => match denied {
                Denied::CredentialsMissing => failure_answer(FailureKind::CredentialsMissing),
                Denied::PermissionMissing { .. } => grpc(Code::PermissionDenied, "PERMISSION_MISSING", "a permission is missing"),
                Denied::MethodNotAllowed => grpc(Code::PermissionDenied, "METHOD_NOT_ALLOWED", "this method is not allowed"),
                Denied::CredentialsNotAccepted { .. } => {
                    grpc(Code::PermissionDenied, "CREDENTIALS_NOT_ACCEPTED", "this method asks for another kind of credentials")
                }
            },
            Refusal::RateLimited(_) => RATE_LIMITED,
            Refusal::UpstreamUnavailable(_) => grpc(Code::Unavailable, "UPSTREAM_UNAVAILABLE", "the upstream cannot be reached"),
            Refusal::UpstreamReset(reason) => grpc(Code::from_reset(*reason), "UPSTREAM_RESET", "the upstream reset the stream"),
            Refusal::UpstreamHeaders(_) => grpc(Code::Internal, "UPSTREAM_HEADERS", "the upstream's headers are too large or malformed"),
            Refusal::UpstreamStalled => grpc(Code::Unavailable, "UPSTREAM_STALLED", "the upstream does not take the request"),
            Refusal::StreamIdle => grpc(Code::Unavailable, "STREAM_IDLE", "the call has been idle for too long"),
            Refusal::Deadline => grpc(Code::DeadlineExceeded, "DEADLINE", "the deadline has passed"),
        }
    }

    /// For the operator: what was found and expected.
    pub fn detail(&self) -> Option<String> {
        match self {
            Refusal::HeadersTooLarge(why) | Refusal::UpstreamHeaders(why) => Some(match why {
                Unacceptable::Bytes => "over limits.header_bytes".to_owned(),
                Unacceptable::Fields => "over limits.header_fields".to_owned(),
                Unacceptable::Malformed => "a field value begins or ends with white space".to_owned(),
            }),
            Refusal::Authentication(failure) => Some(failure.detail.clone()),
            Refusal::Authorization(denied) => Some(denied.to_string()),
            Refusal::RateLimited(over) => Some(over.to_string()),
            Refusal::UpstreamUnavailable(why) => Some(why.clone()),
            Refusal::UpstreamReset(reason) => Some(format!("RST_STREAM: {}", reason.description())),
            Refusal::MethodMalformed => Some("expected a path of /package.Service/Method".to_owned()),
            Refusal::TimeoutMalformed => Some("expected one grpc-timeout of 1 to 8 digits and one of H M S m u n".to_owned()),
            Refusal::UpstreamStalled => Some("no window or no room for limits.stalled".to_owned()),
            Refusal::StreamIdle => Some("nothing came or went for limits.stream_idle".to_owned()),
            // The words for everyone say it all.
            Refusal::NotPost | Refusal::NotGrpc | Refusal::Draining | Refusal::Deadline => None,
        }
    }

    /// For the client: how long to wait.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Refusal::RateLimited(over) => Some(over.retry_after.duration()),
            Refusal::Authentication(Failure { kind: FailureKind::RateLimited(retry_after), .. }) => Some(retry_after.duration()),
            _ => None,
        }
    }

    /// The answer as a response that ends the stream; with a line of text for those that are not gRPC.
    pub fn response(&self, request_id: RequestId) -> (Response<()>, Option<&'static str>) {
        let answer = self.answer();
        let mut response = Response::new(());
        match answer.status {
            Status::Grpc(_) => {
                *response.headers_mut() = self.trailers(request_id);
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                (response, None)
            }
            Status::Http(status) => {
                *response.status_mut() = status;
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
                if status == StatusCode::METHOD_NOT_ALLOWED {
                    // RFC 9110 §15.5.6 asks for it.
                    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
                }
                response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(answer.words.len() + 1));
                (response, Some(answer.words))
            }
        }
    }

    /// The answer as trailers, for a call whose headers have been sent.
    pub fn trailers(&self, request_id: RequestId) -> HeaderMap {
        let answer = self.answer();
        let code = answer.status.code();
        let request_id = request_id.to_string();
        let permission = match self {
            Refusal::Authorization(Denied::PermissionMissing { permission, .. }) => Some(("permission", permission.as_str())),
            _ => None,
        };
        let metadata: Vec<(&str, &str)> = [Some(("request_id", request_id.as_str())), permission].into_iter().flatten().collect();
        let info = ErrorInfo { reason: answer.reason, domain: DOMAIN, metadata: &metadata };
        let mut trailers = HeaderMap::with_capacity(6);
        trailers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static(code.as_header()));
        let mut insert = |name: &'static str, value: String| {
            let value = HeaderValue::try_from(value).expect("percent-encoded text and base64 are field values");
            trailers.insert(HeaderName::from_static(name), value);
        };
        insert("grpc-message", encode_message(answer.words));
        insert("grpc-status-details-bin", encode_details(code, answer.words, &info, self.retry_after()));
        if code == Code::Unauthenticated {
            trailers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        trailers
    }
}

/// Whichever limit it is: what exactly is limited is the operator's business.
const RATE_LIMITED: Answer =
    Answer { status: Status::Grpc(Code::ResourceExhausted), reason: "RATE_LIMITED", words: "too many calls; try again later" };

/// The row of the interface's table for each way authentication fails.
fn failure_answer(kind: FailureKind) -> Answer {
    let unauthenticated = |reason, words| Answer { status: Status::Grpc(Code::Unauthenticated), reason, words };
    match kind {
        FailureKind::CredentialsMissing => unauthenticated("CREDENTIALS_MISSING", "credentials are needed"),
        FailureKind::CredentialsAmbiguous => unauthenticated("CREDENTIALS_AMBIGUOUS", "more than one credential of a kind"),
        FailureKind::CredentialsMalformed => unauthenticated("CREDENTIALS_MALFORMED", "the credentials are malformed"),
        FailureKind::TokenMalformed => unauthenticated("TOKEN_MALFORMED", "the token is malformed"),
        FailureKind::TokenExpired => unauthenticated("TOKEN_EXPIRED", "the token has expired"),
        FailureKind::TokenNotYetValid => unauthenticated("TOKEN_NOT_YET_VALID", "the token is not valid yet"),
        FailureKind::TokenIssuer => unauthenticated("TOKEN_ISSUER", "the token's issuer is not accepted"),
        FailureKind::TokenAudience => unauthenticated("TOKEN_AUDIENCE", "the token is for another audience"),
        FailureKind::TokenSignature => unauthenticated("TOKEN_SIGNATURE", "the token's signature is not valid"),
        FailureKind::TokenKeyUnknown => unauthenticated("TOKEN_KEY_UNKNOWN", "the token's key is not known"),
        FailureKind::TokenAlgorithm => unauthenticated("TOKEN_ALGORITHM", "the token's algorithm is not accepted"),
        FailureKind::TokenClaim => unauthenticated("TOKEN_CLAIM", "a claim of the token is missing or not as required"),
        FailureKind::CredentialsRevoked => unauthenticated("CREDENTIALS_REVOKED", "the credentials have been revoked"),
        FailureKind::ApiKeyUnknown => unauthenticated("API_KEY_UNKNOWN", "the API key is not known"),
        FailureKind::ApiKeyExpired => unauthenticated("API_KEY_EXPIRED", "the API key has expired"),
        FailureKind::KeysUnavailable => Answer {
            status: Status::Grpc(Code::Unavailable),
            reason: "KEYS_UNAVAILABLE",
            words: "the keys to check the token cannot be had right now",
        },
        FailureKind::RateLimited(_) => RATE_LIMITED,
    }
}
