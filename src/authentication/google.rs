//! Google ID tokens: a provider whose issuer has two spellings and whose service accounts need a list.
//!
//! Anyone can have Google mint an ID token of a service account of theirs for any audience, ours too; such a token
//! proves nothing until the account is listed.

use super::claims::{self, Claims, Rules};
use super::failure::Failure;
use crate::config::{Algorithm, Allowed, ClaimNames, ClaimPath, Google, Trust};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// The provider's name in logs, metrics and `from`.
pub(super) const NAME: &str = "google";
/// Both are documented for `iss`.
pub(super) const ISSUERS: [&str; 2] = ["https://accounts.google.com", "accounts.google.com"];
/// Google signs ID tokens with nothing else.
pub(super) const ALGORITHMS: [Algorithm; 1] = [Algorithm::RS256];

/// The first spelling for either; any other issuer as it is.
pub(super) fn one_spelling(issuer: &str) -> &str {
    let [first, second] = ISSUERS;
    if issuer == second { first } else { issuer }
}

/// The checks that every provider's tokens have, for Google's.
pub(super) fn rules(config: &Google, forwarded: Arc<[Arc<str>]>) -> Rules {
    let path = |name: &str| ClaimPath(name.to_owned());
    Rules {
        audiences: config.client_ids.clone(),
        insecure_no_audience: false,
        leeway: Duration::from_secs(30),
        token_types: Vec::new(),
        max_lifetime: None,
        issued_at_required: true,
        required_claims: Vec::new(),
        names: ClaimNames {
            user_id: path("sub"),
            email: path("email"),
            name: path("name"),
            // Google has no claim that would mean anything here.
            roles: path("roles"),
            client_id: None,
            permissions: None,
        },
        trust: Trust {
            roles: Allowed::These(Vec::new()),
            email_domains: Allowed::Any,
            unverified_email: false,
            user_id_prefix: config.user_id_prefix.clone(),
        },
        forwarded,
    }
}

/// The checks that only Google's tokens have.
#[derive(Debug)]
pub(super) struct Accounts {
    hosted_domains: Vec<String>,
    service_accounts: Vec<String>,
}

impl Accounts {
    pub(super) fn new(config: &Google) -> Accounts {
        Accounts { hosted_domains: config.hosted_domains.clone(), service_accounts: config.service_accounts.clone() }
    }

    /// `email` is the verified one.
    pub(super) fn check(&self, claims: &Claims, email: Option<&str>) -> Result<(), Failure> {
        if let Some(email) = email.filter(|email| email.to_ascii_lowercase().ends_with(".gserviceaccount.com")) {
            return if self.service_accounts.iter().any(|listed| matches(listed, email)) {
                Ok(())
            } else {
                Err(claims::claim_failure("a service account that service_accounts does not list"))
            };
        }
        // Asked for without its e-mail, a service account's token would pass for a person's; but it is its own client.
        if let (Some(Value::String(client)), Some(Value::String(user))) = (claims.get("azp"), claims.get("sub"))
            && client == user
        {
            return Err(claims::claim_failure("a service account's token without a verified e-mail"));
        }
        let hosted = claims.get("hd").and_then(Value::as_str).is_some_and(|hd| self.hosted_domains.iter().any(|known| known == hd));
        if self.hosted_domains.is_empty() || hosted {
            return Ok(());
        }
        Err(claims::claim_failure(format!("hd is none of {}", self.hosted_domains.join(", "))))
    }
}

/// An e-mail, or `*@` and a project's whole domain.
fn matches(listed: &str, email: &str) -> bool {
    match listed.strip_prefix("*@") {
        Some(domain) => email.split_once('@').is_some_and(|(_, found)| found == domain),
        None => listed == email,
    }
}
