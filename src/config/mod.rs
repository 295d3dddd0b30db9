//! FILE TO PROOF: the configuration, from YAML files to values whose existence proves that they are valid.
//!
//! The types here are what the rest of Doorward sees; they are read-only data and carry the position of whatever a room
//! may still complain about. How they are made is in `resolve`; durations, sizes and their like in `values`.

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

pub use error::{Position, Problem, Problems, Severity};
pub use expectations::{Expectation, Who, read_expectations};
pub use load::{Loaded, ReadFile, Source, Surroundings, load, load_from};
pub use revocations::{Revocation, read_revocations};
pub use watch::{Change, FileWatch};

use crate::grpc::MethodPattern;
use crate::identity::Permission;
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

/// Who is calling.
#[derive(Debug)]
pub struct Authentication {
    /// Whether a credential is needed.
    pub mode: Mode,
    /// Methods that are never looked at.
    pub public_methods: Vec<MethodPattern>,
    /// Refusals of authentication are recorded and let through as anonymous.
    pub insecure_audit: bool,
    /// Token providers in the order of the file; names are unique.
    pub jwt: Vec<JwtProvider>,
    /// Google ID tokens.
    pub google: Option<Google>,
    /// API keys.
    pub api_keys: Option<ApiKeys>,
    /// Callers known by their certificate, in the order of the file; names are unique.
    pub client_certificates: Vec<ClientCertificate>,
    /// What is refused before its time: [`read_revocations`] reads it.
    pub revocations: Option<InputFile>,
    /// Calls that outlive their credential.
    pub long_calls: LongCalls,
}

/// `authentication.long_calls`: what happens to a running call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongCalls {
    /// Its token or API key expires.
    pub on_expiry: LongCall,
    /// Its token, user or API key is revoked.
    pub on_revocation: LongCall,
}

impl Default for LongCalls {
    fn default() -> LongCalls {
        LongCalls { on_expiry: LongCall::Continue, on_revocation: LongCall::End }
    }
}

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LongCall {
    Continue,
    End,
}

/// `authentication.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No credential: refused.
    Required,
    /// No credential: anonymous, for methods whose rule is `anyone`.
    Optional,
    /// Nothing is checked.
    Disabled,
}

/// One provider of tokens.
#[derive(Debug)]
pub struct JwtProvider {
    /// Appears in logs, metrics and `from`.
    pub name: String,
    /// Exact, byte for byte; `None` with `insecure_no_issuer`: takes the tokens without `iss`.
    pub issuer: Option<String>,
    /// Exact; may be empty only with `insecure_no_audience`.
    pub audiences: Vec<String>,
    /// Tokens without `aud` are taken too; one that has an `aud` still needs a listed one.
    pub insecure_no_audience: bool,
    /// What a token's `alg` must be one of. Never empty.
    pub algorithms: Vec<Algorithm>,
    /// Where its keys come from.
    pub keys: KeySource,
    /// Whether readiness waits for the first key set.
    pub readiness_required: bool,
    /// Clock skew allowed for `exp`, `nbf` and `iat`.
    pub leeway: Duration,
    /// Accepted `typ` values (RFC 9068 §4, compared as media types); empty: any.
    pub token_types: Vec<String>,
    /// Longest `exp - iat`.
    pub max_lifetime: Option<Duration>,
    /// Claim path and the values of which it must be (or, a list, hold) one.
    pub required_claims: Vec<(ClaimPath, Vec<String>)>,
    /// Which claims say what.
    pub claims: ClaimNames,
    /// What its word is worth.
    pub trust: Trust,
    /// The provider's mapping.
    pub at: Position,
}

/// A path into a token's claims: a name, or names joined by dots reaching into objects. A claim whose whole name holds
/// the dots (`https://example.com/roles`) is found first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimPath(pub String);

/// Which claims say what.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // the names are the interface's own
pub struct ClaimNames {
    pub user_id: ClaimPath,
    pub email: ClaimPath,
    pub name: ClaimPath,
    pub roles: ClaimPath,
    /// Tried in order: unset by default (`azp`, `client_id` are the usual ones).
    pub client_id: Option<ClaimPath>,
    /// Unset by default (`scope`, `scp` are the usual ones).
    pub permissions: Option<ClaimPath>,
}

/// What a provider's word is worth.
#[derive(Debug, Clone)]
pub struct Trust {
    /// Roles its tokens may carry.
    pub roles: Allowed,
    /// Addresses it may vouch for: domains in lower case.
    pub email_domains: Allowed,
    /// `email` needs no `email_verified`.
    pub unverified_email: bool,
    /// Written before `user_id`.
    pub user_id_prefix: String,
}

/// A list of exact names, or all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// `"*"` stands in the list.
    Any,
    /// Only these.
    These(Vec<String>),
}

/// A JWS algorithm (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// Where a provider's keys come from.
#[derive(Debug)]
pub enum KeySource {
    /// Fetched and refreshed.
    Remote(RemoteKeys),
    /// `jwks_file`.
    JwksFile(InputFile),
    /// `public_key_file`: one PEM public key.
    PublicKeyFile(InputFile),
    /// `secret_file` or `secret_env`, for HS algorithms.
    Secret {
        /// The key that names it.
        at: Position,
        /// The shared secret, one final newline dropped.
        secret: Secret,
    },
}

/// A key set behind a URL.
#[derive(Debug)]
pub struct RemoteKeys {
    /// The set itself, or the discovery document that names it.
    pub location: KeyLocation,
    /// `jwks_ca`: the only roots trusted for the fetch.
    pub ca: Option<InputFile>,
    /// `jwks_bearer_file`: re-read at each fetch, as Kubernetes rotates its tokens.
    pub bearer_file: Option<PathBuf>,
    /// How often the set is fetched anew when its answer says nothing.
    pub refresh: Duration,
    /// Least time between two fetches after the first success.
    pub cooldown: Duration,
    /// How long keys are used after the last success.
    pub max_stale: Duration,
    /// For one whole fetch.
    pub timeout: Duration,
    /// The key that names the location.
    pub at: Position,
}

/// Which document to fetch first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyLocation {
    /// `jwks_url`.
    Jwks(HttpsUrl),
    /// `discovery: true`: `<issuer>/.well-known/openid-configuration`; its `issuer` must equal the provider's.
    Discovery(HttpsUrl),
}

/// A URL that is `https`, or `http` to a loopback address or `localhost`; without userinfo or fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpsUrl(pub(crate) String);

impl HttpsUrl {
    /// The URL as text.
    pub fn as_str(&self) -> &str {
        &self.0
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

/// Google ID tokens.
#[derive(Debug)]
pub struct Google {
    /// Accepted `aud` values. Never empty.
    pub client_ids: Vec<String>,
    /// Accepted `hd` values for people; empty: not asked.
    pub hosted_domains: Vec<String>,
    /// Service accounts let in: e-mails, or `*@PROJECT.iam.gserviceaccount.com`.
    pub service_accounts: Vec<String>,
    /// Written before `user_id`.
    pub user_id_prefix: String,
    /// Google's set, or a stand-in for tests.
    pub keys: RemoteKeys,
    /// The `google` mapping.
    pub at: Position,
}

/// API keys.
#[derive(Debug)]
pub struct ApiKeys {
    /// The field they arrive in, lower case.
    pub header: HeaderName,
    /// The records.
    pub file: Option<InputFile>,
    /// `development_key`: client_id `development`, permission `*:*`.
    pub development_key: Option<Secret>,
}

/// A caller known by its certificate.
#[derive(Debug)]
pub struct ClientCertificate {
    /// The name that its certificate must have.
    pub name: CertificateName,
    /// Who it is then.
    pub client_id: String,
    /// Roles it has; each is defined in `authorization.roles`.
    pub roles: Vec<String>,
    /// The entry's mapping.
    pub at: Position,
}

/// A name in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CertificateName {
    /// `spiffe`: the ID of a workload, the certificate's one URI name; byte for byte.
    Spiffe(String),
    /// `dns`: one of its DNS names, here in lower case; without a wildcard.
    Dns(String),
    /// `common_name`: that of its subject, byte for byte.
    CommonName(String),
}

/// May they.
#[derive(Debug)]
pub struct Authorization {
    /// For a method without a rule.
    pub default: DefaultRule,
    /// Role names and what they grant.
    pub roles: Vec<Role>,
    /// `user_id` or verified e-mail, and roles.
    pub users: Vec<Assignment>,
    /// `client_id`, and roles.
    pub clients: Vec<Assignment>,
    /// Rules by method.
    pub methods: Vec<MethodRule>,
    /// PERMISSION_DENIED is recorded and let through.
    pub audit: bool,
}

/// `authorization.default`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum DefaultRule {
    Deny,
    Authenticated,
}

/// A role and what it grants.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Role {
    pub name: String,
    pub permissions: Vec<Permission>,
    pub at: Position,
}

/// A user or client and its roles.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Assignment {
    pub subject: String,
    pub roles: Vec<String>,
    pub at: Position,
}

/// A pattern and what it asks for.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct MethodRule {
    pub pattern: MethodPattern,
    pub rule: Rule,
    pub at: Position,
}

/// What a method asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// `anyone`: anonymous too; only with mode optional.
    Anyone,
    /// A verified caller, with these permissions, by one of these credentials.
    Caller {
        /// Any one of these; empty: not asked. `users:read` and `[a, b]` are this.
        any_of: Vec<Permission>,
        /// Every one of these; empty: not asked. With both lists empty: `authenticated`.
        all_of: Vec<Permission>,
        /// One presented credential must be of these; empty: not asked.
        from: Vec<String>,
    },
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
