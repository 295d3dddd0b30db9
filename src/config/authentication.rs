//! What the section `authentication` says: providers and what their word is worth, API keys, client certificates, what is
//! public and what is revoked.

use super::{InputFile, Position};
use crate::grpc::MethodPattern;
use crate::secret::Secret;
use http::HeaderName;
use std::path::PathBuf;
use std::time::Duration;

/// Who is calling.
#[derive(Debug)]
pub struct Authentication {
    /// Whether a credential is needed.
    pub mode: Mode,
    /// Methods that are never looked at.
    pub public_methods: Vec<PublicMethod>,
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
    /// What is refused before its time: [`crate::config::read_revocations`] reads it.
    pub revocations: Option<InputFile>,
    /// Calls that outlive their credential.
    pub long_calls: LongCalls,
    /// No key: bytes of memory that this container may use, `None` without a limit. Cached verdicts take a share of it.
    pub memory: Option<u64>,
}

/// One entry of `authentication.public_methods`.
#[derive(Debug)]
pub struct PublicMethod {
    /// Which methods.
    pub pattern: MethodPattern,
    /// The entry.
    pub at: Position,
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
    /// Where `email` stands, unless it is the default.
    pub email_at: Option<Position>,
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
