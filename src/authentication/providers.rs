//! The providers of one configuration, and whose a token is: its issuer decides.

use super::claims::claim_failure;
use super::failure::{Failure, FailureKind};
use super::google;
use super::jws::Jws;
use super::provider::Provider;
use super::witness::Witness;
use crate::config::{self, Position, Problems};
use crate::quote;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// The token providers, found by issuer.
#[derive(Debug, Default)]
pub(super) struct Providers {
    pub(super) list: Vec<Arc<Provider>>,
    pub(super) by_issuer: HashMap<String, Arc<Provider>>,
    without_issuer: Option<Arc<Provider>>,
}

impl Providers {
    pub(super) fn load(config: &config::Authentication, forwarded: &Arc<[Arc<str>]>, problems: &mut Problems) -> Providers {
        let mut providers = Providers::default();
        for jwt in &config.jwt {
            if let Some(provider) = Provider::load(jwt, forwarded, problems) {
                providers.add(Arc::new(provider), jwt.issuer.iter().map(String::as_str), &jwt.at, problems);
            }
        }
        if let Some(google) = &config.google {
            providers.add(Arc::new(Provider::google(google, forwarded)), google::ISSUERS.into_iter(), &google.at, problems);
        }
        providers
    }

    fn add<'i>(&mut self, provider: Arc<Provider>, issuers: impl Iterator<Item = &'i str>, at: &Position, problems: &mut Problems) {
        let mut named = false;
        for issuer in issuers {
            named = true;
            if self.by_issuer.insert(issuer.to_owned(), provider.clone()).is_some() {
                problems.error(at, format!("another provider has the issuer {issuer} already"));
            }
        }
        if !named && self.without_issuer.replace(provider.clone()).is_some() {
            problems.error(at, "another provider has insecure_no_issuer already");
        }
        self.list.push(provider);
    }

    /// The issuer decides, byte for byte; a token that has one never goes to the provider of those without.
    pub(super) fn of<W: Witness>(&self, token: &Jws<'_>, witness: &mut W) -> Result<&Arc<Provider>, Failure> {
        let issuer = token.claims.get("iss");
        let words = |found: Option<&&Arc<Provider>>| {
            let whose = found.map_or_else(|| self.expected(), |provider| format!(": the provider {}", provider.name));
            format!("iss is {}{whose}", quote::member(issuer))
        };
        match issuer {
            Some(Value::String(issuer)) => witness.found(FailureKind::TokenIssuer, self.by_issuer.get(issuer), words),
            Some(_) => Err(witness.fail(claim_failure(words(None)))),
            None => witness.found(FailureKind::TokenClaim, self.without_issuer.as_ref(), words),
        }
    }

    fn expected(&self) -> String {
        let mut issuers: Vec<&str> = self.by_issuer.keys().map(String::as_str).collect();
        issuers.sort_unstable();
        let none = if self.without_issuer.is_some() { ", or none at all" } else { "" };
        format!(
            ", expected one of the {} configured: {}{none}",
            issuers.len(),
            quote::list(issuers.iter().map(|issuer| format!("\"{issuer}\"")))
        )
    }
}
