//! One export to an OpenTelemetry collector: OTLP over gRPC, one unary call of HTTP/2, with every default of the HTTP client
//! set that would be dangerous here. Whatever the collector does costs one timeout at most, and little memory.

use super::otlp;
use crate::config::CollectorUrl;
use crate::grpc::Code;
use crate::quote;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use reqwest::{Body, Client, redirect};
use std::time::Duration;

/// For connecting and the whole answer; the default of OTLP exporters.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An answer is a few bytes, or a few hundred when something was rejected.
const MOST_BYTES: usize = 64 * 1024;

/// A collector, and one connection to it.
pub(super) struct Collector {
    client: Client,
    export: String,
}

/// What the collector made of it.
pub(super) struct Exported {
    pub(super) rejected: u64,
    /// The collector's own words for it, quoted.
    pub(super) why: String,
}

/// Why nothing was exported.
pub(super) struct ExportError {
    /// Whether the same may go well later.
    pub(super) retry: bool,
    pub(super) detail: String,
}

impl Collector {
    /// Connects at the first export.
    pub(super) fn new(url: &CollectorUrl) -> Result<Collector, ExportError> {
        let mut builder = Client::builder()
            .http2_prior_knowledge()
            .http2_initial_stream_window_size(MOST_BYTES as u32)
            .http2_initial_connection_window_size(MOST_BYTES as u32)
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .no_gzip()
            .user_agent(concat!("doorward/", env!("CARGO_PKG_VERSION")));
        if url.as_str().starts_with("http://") {
            // The system's roots are a megabyte that nobody would use.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|_| ExportError {
            retry: true,
            detail: "no TLS client: are there root certificates on this system? SSL_CERT_FILE names others".to_owned(),
        })?;
        let export = format!("{}/opentelemetry.proto.collector.trace.v1.TraceService/Export", url.as_str());
        Ok(Collector { client, export })
    }

    /// Sends one ExportTraceServiceRequest.
    pub(super) async fn export(&self, request: Bytes) -> Result<Exported, ExportError> {
        let late = |_| ExportError { retry: true, detail: format!("no answer within {} s", TIMEOUT.as_secs()) };
        tokio::time::timeout(TIMEOUT, self.call(request)).await.map_err(late)?
    }

    async fn call(&self, request: Bytes) -> Result<Exported, ExportError> {
        let request = self.client.post(&self.export).header("content-type", "application/grpc").header("te", "trailers").body(request);
        let response: Response<Body> = request.send().await.map_err(|error| lost(&error.without_url()))?.into();
        let (head, body) = response.into_parts();
        let answer = Limited::new(body, MOST_BYTES).collect().await.map_err(|error| lost(&*error))?;
        let none = HeaderMap::new();
        judge(head.status, &head.headers, answer.trailers().unwrap_or(&none))?;
        let answer = answer.to_bytes();
        let (rejected, why) = otlp::rejected(&answer);
        Ok(Exported { rejected, why: quote::text(&String::from_utf8_lossy(why)) })
    }
}

/// In the innermost words, which are those of the operating system or of TLS.
fn lost(error: &(dyn std::error::Error + 'static)) -> ExportError {
    let innermost = std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error);
    ExportError { retry: true, detail: innermost.to_string() }
}

/// OK, or why not (OTLP specification, "Failures").
fn judge(status: StatusCode, head: &HeaderMap, trailers: &HeaderMap) -> Result<(), ExportError> {
    let field = |name: &str| trailers.get(name).or_else(|| head.get(name)).map(http::HeaderValue::as_bytes);
    let Some(code) = field("grpc-status").map(Code::from_header) else {
        let retry = matches!(status.as_u16(), 429 | 502 | 503 | 504);
        return Err(ExportError { retry, detail: format!("HTTP status {} without a gRPC status", status.as_u16()) });
    };
    let retry = match code {
        Code::Ok => return Ok(()),
        Code::Cancelled | Code::DeadlineExceeded | Code::Aborted | Code::OutOfRange | Code::Unavailable | Code::DataLoss => true,
        _ => false,
    };
    let message = String::from_utf8_lossy(field("grpc-message").unwrap_or_default());
    Err(ExportError { retry, detail: format!("{}: {}", code.name(), quote::text(&message)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, head: &[(&'static str, &'static str)], trailers: &[(&'static str, &'static str)]) -> Result<(), (bool, String)> {
        let map = |fields: &[(&'static str, &'static str)]| {
            fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect::<HeaderMap>()
        };
        let judged = judge(StatusCode::from_u16(status).unwrap(), &map(head), &map(trailers));
        judged.map_err(|error| (error.retry, error.detail))
    }

    #[test]
    fn what_may_go_well_later_is_tried_again_and_nothing_else() {
        assert_eq!(judged(200, &[], &[("grpc-status", "0")]), Ok(()));
        assert_eq!(judged(200, &[("grpc-status", "0")], &[]), Ok(()), "trailers only");
        let words = judged(200, &[], &[("grpc-status", "14"), ("grpc-message", "memory")]).unwrap_err();
        assert_eq!(words, (true, "UNAVAILABLE: \"memory\"".to_owned()));
        for (code, retry) in
            [("1", true), ("2", false), ("3", false), ("4", true), ("7", false), ("8", false), ("12", false), ("16", false)]
        {
            assert_eq!(judged(200, &[], &[("grpc-status", code)]).unwrap_err().0, retry, "{code}");
        }
        for (status, retry) in [(200, false), (302, false), (401, false), (404, false), (429, true), (500, false), (503, true)] {
            assert_eq!(judged(status, &[], &[]).unwrap_err().0, retry, "{status}");
        }
    }
}
