//! Why a call was not authenticated: a kind for the client and the metrics, and words for the operator.

use crate::rate_limits::{Attempts, OverRate, RetryAfter};
use crate::tls::PeerCertificate;
use std::sync::Arc;
use std::time::Instant;

/// What was wrong; each is one reason of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the interface's own
pub enum FailureKind {
    CredentialsMissing,
    CredentialsAmbiguous,
    CredentialsMalformed,
    TokenMalformed,
    TokenExpired,
    TokenNotYetValid,
    TokenIssuer,
    TokenAudience,
    TokenSignature,
    TokenKeyUnknown,
    TokenAlgorithm,
    TokenClaim,
    CredentialsRevoked,
    ApiKeyUnknown,
    ApiKeyExpired,
    KeysUnavailable,
    RateLimited(RetryAfter),
}

/// One refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was wrong.
    pub kind: FailureKind,
    /// The provider the token belongs to, when it was found.
    pub provider: Option<Arc<str>>,
    /// The record of the API key, when it was found.
    pub api_key_id: Option<Arc<str>>,
    /// For the operator: which check failed, what was found and what was expected. Values of the token are quoted and cut; no
    /// credential is in it.
    pub detail: String,
}

impl Failure {
    pub(super) fn new(kind: FailureKind, detail: impl Into<String>) -> Failure {
        Failure { kind, provider: None, api_key_id: None, detail: detail.into() }
    }

    /// None where one is needed.
    pub(super) fn missing(certificate: Option<&PeerCertificate>) -> Failure {
        let detail = match certificate {
            None => "no credential was presented".to_owned(),
            Some(certificate) => {
                let digest = certificate.digest.short();
                format!(
                    "no credential was presented but a client certificate, SHA-256 {digest}…, that matches no entry of client_certificates"
                )
            }
        };
        Failure::new(FailureKind::CredentialsMissing, detail)
    }

    /// A presented credential that has failed counts against its peer; one that cannot be judged right now does not. Of
    /// several that were verified at the same time no more than the limit tell what is wrong.
    pub(super) fn counted(self, attempts: &Attempts<'_>) -> Failure {
        match self.kind {
            FailureKind::KeysUnavailable => self,
            _ => attempts.count(Instant::now).map_or_else(Failure::from, |()| self),
        }
    }

    pub(super) fn of_provider(self, name: &Arc<str>) -> Failure {
        Failure { provider: Some(name.clone()), ..self }
    }
}

impl From<OverRate> for Failure {
    fn from(over: OverRate) -> Failure {
        Failure::new(FailureKind::RateLimited(over.retry_after), over.to_string())
    }
}
