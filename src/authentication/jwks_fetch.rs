//! One fetch of a key set over HTTP, with every default of the HTTP client that would be dangerous here set:
//! https only (loopback excepted), no redirects, no proxy of the environment, one timeout for all of it, a bounded body.

use crate::config::{HttpsUrl, KeyLocation, RemoteKeys};
use reqwest::{Certificate, Client, Response, StatusCode, Url, header, redirect};
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// Of a decoded body: a key set of a hundred RSA keys is a tenth of it.
const MOST_BYTES: usize = 1 << 20;

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

/// A document, and how long its server says it lasts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fetched {
    pub(super) body: Vec<u8>,
    pub(super) max_age: Option<Duration>,
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

    /// Fetches the set: one answer, or two with discovery, within one timeout. `client` is made at the first fetch,
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
        match &self.location {
            KeyLocation::Jwks(url) => self.get(client, parse(url)?).await,
            KeyLocation::Discovery(url) => {
                let document = self.get(client, parse(url)?).await?;
                let url = discovered(&document.body, self.issuer.as_deref())?;
                self.get(client, url).await
            }
        }
    }

    async fn get(&self, client: &Client, url: Url) -> Result<Fetched, FetchError> {
        let mut request = client.get(url).header(header::ACCEPT, "application/json");
        if let Some(token) = self.bearer()? {
            request = request.bearer_auth(token);
        }
        let mut response = request.send().await.map_err(transport)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::new(FetchOutcome::Status, format!("HTTP status {}", response.status().as_u16())));
        }
        let max_age = max_age(&response);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(FetchError::new(FetchOutcome::TooLarge, "more than 1 MiB"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Fetched { body, max_age })
    }

    fn client(&self) -> Result<Client, FetchError> {
        let failed = |detail: &str| FetchError::new(FetchOutcome::Client, detail);
        let mut builder = Client::builder()
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .timeout(self.timeout)
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

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// The set's URL from a discovery document (OpenID Connect Discovery 1.0 §4.3: its issuer must be the one asked for).
fn discovered(document: &[u8], issuer: Option<&str>) -> Result<Url, FetchError> {
    let malformed = |detail: &str| FetchError::new(FetchOutcome::Malformed, detail);
    let document: Discovery = serde_json::from_slice(document).map_err(|_| malformed("not a discovery document"))?;
    if Some(document.issuer.as_str()) != issuer {
        return Err(malformed("the discovery document is another issuer's"));
    }
    allowed(&document.jwks_uri).ok_or_else(|| malformed("the discovery document's jwks_uri is not an https URL"))
}

fn parse(url: &HttpsUrl) -> Result<Url, FetchError> {
    allowed(url.as_str()).ok_or_else(|| FetchError::new(FetchOutcome::Client, "not an https URL"))
}

/// `https`, or `http` to this machine; nothing that would send credentials of the URL's own.
fn allowed(url: &str) -> Option<Url> {
    let url = Url::parse(url).ok()?;
    let host = url.host_str()?;
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    let loopback = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    let scheme_allowed = url.scheme() == "https" || url.scheme() == "http" && loopback;
    (scheme_allowed && url.username().is_empty() && url.password().is_none() && url.fragment().is_none()).then_some(url)
}

/// The first `max-age` of `cache-control` (RFC 9111 §5.2.2.1); 0 says only that the answer is not to be shared.
fn max_age(response: &Response) -> Option<Duration> {
    let directives = response.headers().get(header::CACHE_CONTROL)?.to_str().ok()?;
    let seconds = directives.split(',').find_map(|directive| {
        let (name, value) = directive.trim().split_once('=')?;
        name.eq_ignore_ascii_case("max-age").then_some(value)
    })?;
    seconds.parse().ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

/// Without the URL, which the operator knows, and without what the server wrote.
fn transport(error: reqwest::Error) -> FetchError {
    if error.is_timeout() {
        return FetchError::new(FetchOutcome::Timeout, "no whole answer within the timeout");
    }
    let error = error.without_url();
    let cause = std::iter::successors(std::error::Error::source(&error), |error| error.source()).last().map(ToString::to_string);
    let detail = cause.unwrap_or_else(|| error.to_string());
    FetchError::new(FetchOutcome::Transport, detail)
}
