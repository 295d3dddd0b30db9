//! One fetch of a key set over HTTP, with every default of the HTTP client that would be dangerous here set:
//! https only (loopback excepted), no redirects, no proxy of the environment, one timeout for all of it, a bounded body.

use crate::config::{HttpsUrl, KeyLocation, RemoteKeys};
use reqwest::header::{self, HeaderMap};
use reqwest::{Certificate, Client, StatusCode, Url, redirect};
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// Of a decoded body: a key set of a hundred RSA keys is a tenth of it.
const MOST_BYTES: usize = 1 << 20;
/// Whatever it calls itself. Kubernetes answers 406 to who does not want the second, others to who wants nothing else.
const TYPES: &str = "application/json, application/jwk-set+json, */*;q=0.5";

/// Fetches one provider's set.
#[derive(Debug)]
pub(super) struct Fetcher {
    location: KeyLocation,
    /// What the discovery document's `issuer` must be.
    issuer: Option<String>,
    ca: Option<Vec<u8>>,
    bearer_file: Option<PathBuf>,
    timeout: Duration,
}

/// A document, and how much longer its server says it lasts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fetched {
    pub(super) body: Vec<u8>,
    pub(super) lasts: Option<Duration>,
}

/// Why a fetch gave nothing: an outcome for the metrics and words for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FetchError {
    pub(super) outcome: FetchOutcome,
    pub(super) detail: String,
}

/// How a fetch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum FetchOutcome {
    Success,
    /// No HTTP client could be made: no roots, or a CA or bearer file that cannot be read.
    Client,
    /// No answer: name, connection, TLS, or cut off.
    Transport,
    Timeout,
    /// An answer other than 200, redirects included.
    Status,
    TooLarge,
    /// Not a key set, or not this issuer's discovery document.
    Malformed,
    NoUsableKey,
}

impl FetchOutcome {
    /// Every outcome.
    pub const ALL: [FetchOutcome; 8] = [
        FetchOutcome::Success,
        FetchOutcome::Client,
        FetchOutcome::Transport,
        FetchOutcome::Timeout,
        FetchOutcome::Status,
        FetchOutcome::TooLarge,
        FetchOutcome::Malformed,
        FetchOutcome::NoUsableKey,
    ];

    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            FetchOutcome::Success => "success",
            FetchOutcome::Client => "client",
            FetchOutcome::Transport => "transport",
            FetchOutcome::Timeout => "timeout",
            FetchOutcome::Status => "status",
            FetchOutcome::TooLarge => "too_large",
            FetchOutcome::Malformed => "malformed",
            FetchOutcome::NoUsableKey => "no_usable_key",
        }
    }
}

impl FetchError {
    pub(super) fn new(outcome: FetchOutcome, detail: impl Into<String>) -> FetchError {
        FetchError { outcome, detail: detail.into() }
    }

    /// Of two documents, which.
    fn of(self, document: &str) -> FetchError {
        FetchError { detail: format!("{document}: {}", self.detail), ..self }
    }
}

impl Fetcher {
    pub(super) fn new(config: &RemoteKeys, issuer: Option<String>) -> Fetcher {
        Fetcher {
            location: config.location.clone(),
            issuer,
            ca: config.ca.as_ref().map(|file| file.content.expose().to_vec()),
            bearer_file: config.bearer_file.clone(),
            timeout: config.timeout,
        }
    }

    /// Whether `other` fetches the same thing in the same way.
    pub(super) fn is_like(&self, other: &Fetcher) -> bool {
        (&self.location, &self.issuer, &self.ca) == (&other.location, &other.issuer, &other.ca)
    }

    /// Fetches the set: one answer, or two with discovery, within one timeout for all of it. `client` is made at the first fetch,
    /// on the runtime that fetches, and made anew after a failure: system roots may have appeared.
    pub(super) async fn fetch(&self, client: &mut Option<Client>) -> Result<Fetched, FetchError> {
        let current = match client.take() {
            Some(client) => client,
            None => self.client()?,
        };
        let fetched = tokio::time::timeout(self.timeout, self.fetch_with(&current)).await;
        let fetched = fetched.map_err(|_| FetchError::new(FetchOutcome::Timeout, "no whole answer within the timeout"))??;
        *client = Some(current);
        Ok(fetched)
    }

    async fn fetch_with(&self, client: &Client) -> Result<Fetched, FetchError> {
        let bearer = self.bearer()?;
        match &self.location {
            KeyLocation::Jwks(url) => get(client, parse(url)?, bearer.as_deref()).await,
            KeyLocation::Discovery(url) => {
                let issuers = parse(url)?;
                let document = get(client, issuers.clone(), bearer.as_deref()).await;
                let document = document.map_err(|error| error.of("the discovery document"))?;
                let url = discovered(&document.body, self.issuer.as_deref(), &issuers)?;
                // The token is for whom the operator has named. Another place that the document names gets none.
                let place = url.origin().ascii_serialization();
                let (bearer, withheld) = match url.origin() == issuers.origin() {
                    true => (bearer.as_deref(), ""),
                    false if bearer.is_some() => {
                        (None, ", which is not the issuer's own place and was not sent the token of jwks_bearer_file")
                    }
                    false => (None, ""),
                };
                let set = get(client, url, bearer).await;
                set.map_err(|error| error.of(&format!("the key set at {place}{withheld}")))
            }
        }
    }

    fn client(&self) -> Result<Client, FetchError> {
        let failed = |detail: &str| FetchError::new(FetchOutcome::Client, detail);
        let mut builder = Client::builder()
            .redirect(redirect::Policy::none())
            .referer(false)
            // Some firewalls refuse who does not say who it is.
            .user_agent(concat!("doorward/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            // A connection kept for ten minutes is a connection the server has closed.
            .pool_max_idle_per_host(0);
        if let Some(pem) = &self.ca {
            let roots = Certificate::from_pem_bundle(pem).map_err(|_| failed("jwks_ca is not a bundle of PEM certificates"))?;
            builder = builder.tls_certs_only(roots);
        }
        builder.build().map_err(|_| failed("no HTTP client: are there root certificates on this system? jwks_ca names others"))
    }

    /// Read at each fetch: Kubernetes rotates its tokens.
    fn bearer(&self) -> Result<Option<String>, FetchError> {
        let Some(path) = &self.bearer_file else { return Ok(None) };
        let unreadable =
            || FetchError::new(FetchOutcome::Client, format!("jwks_bearer_file {} cannot be read or is empty", path.display()));
        let token = std::fs::read_to_string(path).map_err(|_| unreadable())?;
        let token = token.strip_suffix('\n').unwrap_or(&token);
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(unreadable());
        }
        Ok(Some(token.to_owned()))
    }
}

async fn get(client: &Client, url: Url, bearer: Option<&str>) -> Result<Fetched, FetchError> {
    let mut request = client.get(url).header(header::ACCEPT, TYPES);
    if let Some(token) = bearer {
        request = request.bearer_auth(token);
    }
    let mut response = request.send().await.map_err(transport)?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::new(FetchOutcome::Status, status(response.status(), bearer.is_some())));
    }
    // gzip has been undone, and its field with it; nothing else was asked for.
    if response.headers().get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(FetchError::new(FetchOutcome::Malformed, "an answer in a content-encoding that was not asked for; only gzip is"));
    }
    let lasts = lasts(response.headers());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(transport)? {
        if body.len() + chunk.len() > MOST_BYTES {
            return Err(FetchError::new(FetchOutcome::TooLarge, "more than 1 MiB"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Fetched { body, lasts })
}

/// With what the operator may do about it.
fn status(status: StatusCode, bearer_sent: bool) -> String {
    let advice = match status.as_u16() {
        300..=399 => ": redirects are not followed; name the place itself",
        401 | 403 if bearer_sent => ": the token of jwks_bearer_file is not accepted",
        401 | 403 => ": a token that it wants can be given in jwks_bearer_file",
        404 | 410 => ": is it the right URL?",
        _ => "",
    };
    format!("HTTP status {}{advice}", status.as_u16())
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// The set's URL from the discovery document at `place` (OpenID Connect Discovery 1.0 §4.3: its issuer must be the one
/// asked for).
fn discovered(document: &[u8], issuer: Option<&str>, place: &Url) -> Result<Url, FetchError> {
    let malformed = |detail: &str| FetchError::new(FetchOutcome::Malformed, detail);
    let document: Discovery = serde_json::from_slice(document).map_err(|_| malformed("not a discovery document"))?;
    if Some(document.issuer.as_str()) != issuer {
        return Err(malformed("the discovery document is another issuer's"));
    }
    // Who is elsewhere has no business with what listens on this machine.
    let url = allowed(&document.jwks_uri).filter(|url| url.scheme() == "https" || is_loopback(place));
    url.ok_or_else(|| malformed("the discovery document's jwks_uri is not an https URL"))
}

fn parse(url: &HttpsUrl) -> Result<Url, FetchError> {
    allowed(url.as_str()).ok_or_else(|| FetchError::new(FetchOutcome::Client, "not an https URL"))
}

/// `https`, or `http` to this machine; nothing that would send credentials of the URL's own.
fn allowed(url: &str) -> Option<Url> {
    let url = Url::parse(url).ok()?;
    let scheme_allowed = url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url);
    (scheme_allowed && url.username().is_empty() && url.password().is_none() && url.fragment().is_none()).then_some(url)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// What is left of the first `max-age` of `cache-control` (RFC 9111 §5.2.2.1) after the `age` the answer has from caches on
/// its way (§5.1). Nothing left says only that the answer is not to be kept by others.
fn lasts(headers: &HeaderMap) -> Option<Duration> {
    let directives =
        headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let max_age: u64 = directives
        .filter_map(|directive| directive.trim().split_once('='))
        .find(|(name, _)| name.eq_ignore_ascii_case("max-age"))
        .and_then(|(_, seconds)| seconds.trim_matches('"').parse().ok())?;
    let age = headers.get(header::AGE).and_then(|age| age.to_str().ok()?.parse().ok()).unwrap_or(0);
    max_age.checked_sub(age).filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

/// Without the URL, which the operator knows, and without what the server wrote.
fn transport(error: reqwest::Error) -> FetchError {
    if error.is_timeout() {
        return FetchError::new(FetchOutcome::Timeout, "no whole answer within the timeout");
    }
    let error = error.without_url();
    let cause = std::iter::successors(std::error::Error::source(&error), |error| error.source()).last().map(ToString::to_string);
    let detail = cause.unwrap_or_else(|| error.to_string());
    let advice = if detail.contains("certificate") { "; jwks_ca names the authorities to trust" } else { "" };
    FetchError::new(FetchOutcome::Transport, format!("{detail}{advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a document at `place` may name `jwks_uri`.
    fn may_name(place: &str, jwks_uri: &str) -> bool {
        let document = format!(r#"{{"issuer": "https://issuer.test/", "jwks_uri": "{jwks_uri}"}}"#);
        discovered(document.as_bytes(), Some("https://issuer.test/"), &Url::parse(place).unwrap()).is_ok()
    }

    #[test]
    fn only_a_document_of_this_machine_may_lead_to_plain_http_on_it() {
        for place in ["https://issuer.test/", "http://127.0.0.1:8080/", "https://localhost/", "http://[::1]/"] {
            assert!(may_name(place, "https://keys.test/jwks"), "{place}");
            assert!(!may_name(place, "http://keys.test/jwks"), "{place}");
            for here in ["http://127.0.0.1/jwks", "http://127.9.9.9:1/", "http://localhost:1/", "http://[::1]/", "http://2130706433/"] {
                assert_eq!(may_name(place, here), place != "https://issuer.test/", "{place} {here}");
            }
        }
        for bad in ["ftp://127.0.0.1/", "unix:/run/keys", "//keys.test/jwks", "https://", "https://u:p@keys.test/", "https://keys.test/#k"]
        {
            assert!(!may_name("http://127.0.0.1/", bad), "{bad}");
        }
    }
}
