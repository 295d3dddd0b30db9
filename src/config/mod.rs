//! FILE TO PROOF: the configuration, from YAML files to values whose existence proves that they are valid.
//!
//! The types here are what the rest of Doorward sees; they are read-only data and carry the position of whatever a room
//! may still complain about. How they are made is in `resolve`; durations, sizes and their like in `values`.

mod authentication;
mod authorization;
mod document;
mod error;
mod expectations;
mod files;
mod load;
mod merge;
mod nearest;
mod node;
mod resolve;
mod revocations;
mod section;
#[cfg(test)]
mod tests;
mod values;
mod watch;

pub use authentication::{
    Algorithm, Allowed, ApiKeys, Authentication, CertificateName, ClaimNames, ClaimPath, ClientCertificate, Google, HttpsUrl, JwtProvider,
    KeyLocation, KeySource, LongCall, LongCalls, Mode, PublicMethod, RemoteKeys, Trust,
};
pub use authorization::{Assignment, Authorization, DefaultRule, MethodRule, Role, Rule};
pub use error::{Position, Problem, Problems, Severity};
pub use expectations::{Expectation, Who, read_expectations};
pub use load::{Loaded, ReadFile, Source, Surroundings, load, load_from};
pub use nearest::did_you_mean;
pub use revocations::{Revocation, read_revocations};
pub use watch::{Change, FileWatch};

use crate::secret::{Digest, Secret};
use http::HeaderName;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// One whole configuration.
#[derive(Debug)]
pub struct Config {
    /// Threads that carry calls, at least 1; `auto` is resolved already.
    pub workers: usize,
    /// The traffic port.
    pub listen: Listen,
    /// The service behind us.
    pub upstream: Upstream,
    /// Who is calling.
    pub authentication: Authentication,
    /// May they.
    pub authorization: Authorization,
    /// What the upstream is told.
    pub identity_headers: IdentityHeaders,
    /// Keep `authorization` and the API-key header on the way to the upstream.
    pub forward_credentials: bool,
    /// Bounds on what peers may use up.
    pub limits: Limits,
    /// How often somebody may do something.
    pub rate_limits: RateLimits,
    /// The plaintext port for probes and metrics.
    pub operations: SocketAddr,
    /// What is written where.
    pub log: Log,
}

/// A file that the configuration names, already read: missing, unreadable and empty are errors of the configuration.
#[derive(Debug, Clone)]
pub struct InputFile {
    /// The key that names it; problems with the content are reported here, with the path in the message.
    pub at: Position,
    /// Absolute, or relative to the working directory.
    pub path: PathBuf,
    /// What it holds. `Secret` so that a `Debug` of the configuration shows no private key. Empty only when the file
    /// could not be used, which is reported already: then there is nothing to add.
    pub content: Secret,
}

/// The traffic port.
#[derive(Debug)]
pub struct Listen {
    /// Where to listen; `[::]` takes both families.
    pub address: SocketAddr,
    /// TLS, or something trusted in front terminates it.
    pub transport: Transport,
}

/// What protects the traffic port.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // there is one of it
pub enum Transport {
    /// We terminate TLS.
    Tls(ListenTls),
    /// `insecure_plaintext: true`.
    InsecurePlaintext,
}

/// TLS towards clients.
#[derive(Debug)]
pub struct ListenTls {
    /// PEM chain, leaf first.
    pub certificate: InputFile,
    /// PEM private key (PKCS#8, PKCS#1 or SEC1).
    pub private_key: InputFile,
    /// The oldest protocol version accepted.
    pub minimum_version: TlsVersion,
    /// Whom clients' certificates may come from; without it none is asked for.
    pub client_ca: Option<ClientCa>,
}

/// `client_ca` and `client_certificate`: certificates of clients.
#[derive(Debug)]
pub struct ClientCa {
    /// PEM certificates that a client's chain must end in.
    pub file: InputFile,
    /// Without a certificate no handshake; otherwise one that is presented must verify all the same.
    pub required: bool,
}

/// A TLS protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// The service behind us.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Where it listens.
    pub address: UpstreamAddress,
    /// TLS towards it, for an `https://` address.
    pub tls: Option<UpstreamTls>,
    /// Covers TCP, TLS and the upstream's first SETTINGS.
    pub connect_timeout: Duration,
    /// What readiness asks the upstream.
    pub health: UpstreamHealth,
    /// Ready although others can reach the upstream without passing us.
    pub insecure_exposed: bool,
    /// The key `upstream.address`.
    pub at: Position,
}

impl Upstream {
    /// Whether both reach the same service in the same way, wherever in the files that stands.
    pub fn is_same(&self, other: &Upstream) -> bool {
        let Upstream { address, tls, connect_timeout, health, insecure_exposed, at: _ } = self;
        let same_tls = match (tls, &other.tls) {
            (Some(tls), Some(other)) => tls.is_same(other),
            (tls, other) => tls.is_none() && other.is_none(),
        };
        same_tls
            && (address, connect_timeout, health, insecure_exposed)
                == (&other.address, &other.connect_timeout, &other.health, &other.insecure_exposed)
    }
}

/// Where the upstream listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamAddress {
    /// `http://` and `https://`: a name or an address (IPv6 without brackets), and a port.
    Tcp {
        /// Resolved at each connect.
        host: String,
        /// 80 and 443 when the URL has none.
        port: u16,
    },
    /// `unix:/path`.
    Unix(PathBuf),
}

impl UpstreamAddress {
    /// The port, when the address is this machine's own: `localhost`, loopback, or the unspecified address, which Linux
    /// connects to over loopback.
    pub fn loopback_port(&self) -> Option<u16> {
        let UpstreamAddress::Tcp { host, port } = self else { return None };
        let own = match host.parse::<IpAddr>() {
            Ok(ip) => ip.to_canonical().is_loopback() || ip.is_unspecified(),
            Err(_) => host.eq_ignore_ascii_case("localhost"),
        };
        own.then_some(*port)
    }
}

impl fmt::Display for UpstreamAddress {
    /// `host:port`, `[::1]:port` or `unix:/path`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpstreamAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            UpstreamAddress::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            UpstreamAddress::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// TLS towards the upstream.
#[derive(Debug, Clone)]
pub struct UpstreamTls {
    /// Trusted instead of the system's roots.
    pub ca: Option<InputFile>,
    /// Verified instead of the address's host.
    pub server_name: String,
    /// Presented to the upstream: PEM chain and private key.
    pub client: Option<(InputFile, InputFile)>,
}

impl UpstreamTls {
    fn is_same(&self, other: &UpstreamTls) -> bool {
        let UpstreamTls { ca, server_name, client } = self;
        let content = |file: &InputFile| Digest::of(file.content.expose());
        let files = |ca: &Option<InputFile>, client: &Option<(InputFile, InputFile)>| {
            (ca.as_ref().map(content), client.as_ref().map(|(chain, key)| (content(chain), content(key))))
        };
        *server_name == other.server_name && files(ca, client) == files(&other.ca, &other.client)
    }
}

/// What readiness asks the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamHealth {
    /// `grpc.health.v1.Health/Check` of this service name; UNIMPLEMENTED counts as ready.
    Service(String),
    /// `none`: a connection is enough.
    Connection,
}

/// What the upstream is told. `None` leaves the field out; its default name is removed from requests all the same.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct IdentityHeaders {
    pub user_id: Option<HeaderName>,
    pub user_email: Option<HeaderName>,
    pub user_name: Option<HeaderName>,
    pub client_id: Option<HeaderName>,
    pub roles: Option<HeaderName>,
    pub permissions: Option<HeaderName>,
    pub api_key_id: Option<HeaderName>,
    pub provider: Option<HeaderName>,
    pub claims: Vec<(ClaimPath, HeaderName)>,
}

impl IdentityHeaders {
    /// The names written unless configured otherwise; removed from every request in any case.
    pub const DEFAULT_NAMES: [&'static str; 7] = ["user_id", "user_email", "user_name", "client_id", "roles", "permissions", "api_key_id"];
}

/// Bounds on what peers may use up.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Client connections at a time.
    pub connections: usize,
    /// MAX_CONCURRENT_STREAMS a connection.
    pub streams: u32,
    /// Sum of name + value + 32 (RFC 9113 §6.5.2), both directions.
    pub header_bytes: usize,
    /// Fields, pseudo-headers included.
    pub header_fields: usize,
    /// TLS, preface and first SETTINGS together; and any unfinished header block.
    pub handshake: Duration,
    /// A call without a frame in either direction; `None`: may be quiet for ever.
    pub stream_idle: Option<Duration>,
    /// A peer that takes nothing while bytes wait for it.
    pub stalled: Duration,
    /// A client connection without calls; `None`: may stay for ever.
    pub connection_idle: Option<Duration>,
    /// A client connection, a tenth more or less; `None`: may stay for ever.
    pub connection_age: Option<Duration>,
    /// After the signal: not ready, still serving.
    pub drain_delay: Duration,
    /// Then: how long calls in flight may take.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 10_000,
            streams: 1000,
            header_bytes: 16 * 1024,
            header_fields: 100,
            handshake: Duration::from_secs(10),
            stream_idle: None,
            stalled: Duration::from_secs(5 * 60),
            connection_idle: Some(Duration::from_secs(60 * 60)),
            connection_age: None,
            drain_delay: Duration::from_secs(5),
            drain: Duration::from_secs(20),
        }
    }
}

/// Local rate limits; `None`: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Calls of one identity that are forwarded.
    pub per_identity: Option<Rate>,
    /// Presented credentials of one peer that do not verify.
    pub failed_authentication_per_peer: Option<Rate>,
}

/// So many in so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// From one to a million.
    pub count: u32,
    /// In what time.
    pub per: RateUnit,
}

/// The unit of a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum RateUnit {
    Second,
    Minute,
    Hour,
}

impl RateUnit {
    /// How long it is.
    pub fn duration(self) -> Duration {
        Duration::from_secs(match self {
            RateUnit::Second => 1,
            RateUnit::Minute => 60,
            RateUnit::Hour => 3600,
        })
    }
}

impl fmt::Display for Rate {
    /// `100/s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per {
            RateUnit::Second => 's',
            RateUnit::Minute => 'm',
            RateUnit::Hour => 'h',
        };
        write!(f, "{}/{unit}", self.count)
    }
}

/// Where an OpenTelemetry collector takes OTLP over gRPC: scheme, host and port, nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectorUrl(String);

impl CollectorUrl {
    /// `http://host:port` or `https://host:port`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is written where.
#[derive(Debug, Clone)]
pub struct Log {
    /// Diagnostics on stderr.
    pub level: LogLevel,
    /// Whether the access log is written to stdout.
    pub access: bool,
    /// The log line of a refused call carries the failed check with the operator's detail.
    pub explain_refusals: bool,
    /// A span a call goes there.
    pub otlp: Option<CollectorUrl>,
}

/// Least severe level that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}
