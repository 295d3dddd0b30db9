//! The providers of one configuration, and whose a token is: its issuer decides.

use super::claims;
use super::failure::{Failure, FailureKind};
use super::google;
use super::jws::Jws;
use super::provider::Provider;
use crate::config::{self, Position, Problems};
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
    pub(super) fn of(&self, token: &Jws<'_>) -> Result<&Arc<Provider>, Failure> {
        match token.claims.get("iss") {
            Some(Value::String(issuer)) => {
                let known = self.by_issuer.get(issuer);
                known.ok_or_else(|| Failure::new(FailureKind::TokenIssuer, "no provider has the token's issuer"))
            }
            Some(_) => Err(claims::claim_failure("the claim iss is not a string")),
            None => self.without_issuer.as_ref().ok_or_else(|| claims::claim_failure("the claim iss is missing")),
        }
    }
}
