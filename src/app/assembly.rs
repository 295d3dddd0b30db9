//! From configuration files to rooms that are made and checked, before anything is bound or replaced: what `run` starts
//! with, what a reload puts in its place, and what `check` and `explain` look at.

use super::likely_mistakes::warn_of_likely_mistakes;
use super::unknown_methods::refuse_unknown_methods;
use crate::authentication::Authenticator;
use crate::authorization::Policy;
use crate::config::{self, Config, Problems, ReadFile, Transport, Upstream, UpstreamAddress};
use crate::grpc::Services;
use crate::identity_headers::IdentityHeaders;
use crate::listener::Door;
use crate::tls;
use crate::upstream::Connector;
use http::uri::{Authority, Scheme};
use std::path::PathBuf;
use std::sync::Arc;

/// The rooms of one configuration.
pub struct Assembly {
    /// Who is calling.
    pub authenticator: Authenticator,
    /// May they.
    pub policy: Arc<Policy>,
    /// What the upstream is told.
    pub identity_headers: Arc<IdentityHeaders>,
    pub(super) door: Door,
    pub(super) connector: Arc<Connector>,
    pub(super) upstream_scheme: Scheme,
    pub(super) upstream_authority: Authority,
}

impl Assembly {
    /// Asks the upstream which services and methods it has.
    ///
    /// # Errors
    /// Why it cannot be known, in words for the operator.
    pub async fn reflect(&self) -> Result<Services, String> {
        self.connector.reflect(&self.upstream_scheme, &self.upstream_authority).await
    }
}

/// What came of a load.
pub struct Loaded {
    /// `None` when there are errors.
    pub ready: Option<(Config, Assembly)>,
    /// Every error and warning of every stage.
    pub problems: Problems,
    /// Everything that was read, or should have been.
    pub files: Vec<ReadFile>,
}

/// Loads the files as one configuration and makes its rooms: the one code that `run`, its reloads, `check` and `explain`
/// share. When it is known which `services` the upstream has, rules of anything else are errors.
pub fn load(paths: &[PathBuf], services: Option<&Services>) -> Loaded {
    let config::Loaded { config, mut problems, files } = config::load(paths);
    let ready = config.and_then(|config| {
        if let Some(services) = services {
            refuse_unknown_methods(&config, services, &mut problems);
        }
        let assembly = assemble(&config, &mut problems)?;
        Some((config, assembly))
    });
    Loaded { ready: ready.filter(|_| !problems.has_errors()), problems, files }
}

/// Makes every room of the configuration; what is wrong with the files it names is added to `problems`. `None` when there
/// are errors, of this or of an earlier stage.
fn assemble(config: &Config, problems: &mut Problems) -> Option<Assembly> {
    warn_of_likely_mistakes(config, problems);
    let public = config.authentication.public_methods.iter().map(|public| &public.pattern);
    let policy = Arc::new(Policy::compile(&config.authorization, config.authentication.mode, public));
    let identity_headers = Arc::new(IdentityHeaders::compile(&config.identity_headers));
    let claims: Vec<_> = config.identity_headers.claims.iter().map(|(claim, _)| claim.clone()).collect();
    let authenticator = Authenticator::load(&config.authentication, &claims, policy.clone(), identity_headers.clone(), problems);
    let (server_tls, certificate_expiry) = match &config.listen.transport {
        Transport::Tls(listen) => (tls::server_config(listen, problems), tls::expiry(&listen.certificate)),
        Transport::InsecurePlaintext => (None, None),
    };
    let upstream = &config.upstream;
    let client_tls = upstream.tls.as_ref().and_then(|tls| tls::client_config(tls, &upstream.at, problems));
    let upstream_authority = upstream_authority(upstream, problems);
    if problems.has_errors() {
        return None;
    }
    Some(Assembly {
        authenticator,
        policy,
        identity_headers,
        door: Door::new(&config.listen.transport, server_tls, certificate_expiry, &config.limits),
        upstream_scheme: if client_tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP },
        connector: Arc::new(Connector::new(upstream, client_tls, &config.limits)),
        upstream_authority: upstream_authority?,
    })
}

/// `host:port` of the address, `localhost` for a Unix socket.
fn upstream_authority(upstream: &Upstream, problems: &mut Problems) -> Option<Authority> {
    let text = match &upstream.address {
        UpstreamAddress::Unix(_) => "localhost".to_owned(),
        tcp @ UpstreamAddress::Tcp { .. } => tcp.to_string(),
    };
    let authority = Authority::try_from(text);
    if authority.is_err() {
        problems.error(&upstream.at, "the host is not a name or an address");
    }
    authority.ok()
}
