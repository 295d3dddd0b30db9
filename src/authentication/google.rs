//! Google ID tokens: a provider whose issuer has two spellings and whose service accounts need a list.
//!
//! Anyone can have Google mint an ID token of a service account of theirs for any audience, ours too; such a token
//! proves nothing until the account is listed.

use super::claims::{Claims, Rules, claim_failure};
use super::failure::{Failure, FailureKind};
use super::witness::Witness;
use crate::config::{Algorithm, Allowed, ClaimNames, ClaimPath, Google, Trust};
use crate::quote;
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
            email_at: None,
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
    pub(super) fn check<W: Witness>(&self, claims: &Claims, email: Option<&str>, witness: &mut W) -> Result<(), Failure> {
        if let Some(email) = email.filter(|email| email.to_ascii_lowercase().ends_with(".gserviceaccount.com")) {
            let listed = self.service_accounts.iter().any(|listed| matches(listed, email));
            return witness.check(FailureKind::TokenClaim, listed, || {
                let (found, expected) = (quote::text(email), quote::list(&self.service_accounts));
                format!("the e-mail {found} is a service account's, expected one of service_accounts: {expected}")
            });
        }
        // Asked for without its e-mail, a service account's token would pass for a person's; but it is its own client.
        if let (Some(Value::String(client)), Some(Value::String(user))) = (claims.get("azp"), claims.get("sub"))
            && client == user
        {
            let words = "azp is sub, as in a service account's token, and there is no verified e-mail of one in service_accounts";
            return Err(witness.fail(claim_failure(words)));
        }
        let domain = claims.get("hd");
        let hosted = domain.and_then(Value::as_str).is_some_and(|hd| self.hosted_domains.iter().any(|known| known == hd));
        witness.check(FailureKind::TokenClaim, self.hosted_domains.is_empty() || hosted, || {
            let any = if self.hosted_domains.is_empty() {
                "any is accepted".to_owned()
            } else {
                format!("expected one of {}", quote::list(&self.hosted_domains))
            };
            format!("hd is {}, {any}", quote::member(domain))
        })
    }
}

/// An e-mail, or `*@` and a project's whole domain.
fn matches(listed: &str, email: &str) -> bool {
    match listed.strip_prefix("*@") {
        Some(domain) => email.split_once('@').is_some_and(|(_, found)| found == domain),
        None => listed == email,
    }
}
