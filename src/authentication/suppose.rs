//! A caller that is supposed instead of verified, for `doorward test`: what its credentials would say is given, what that is
//! worth is decided by the code that verified ones go through. A supposed token meets every check of tokens; whether a
//! provider is trusted with what it says is asked all the same.

use super::api_key::{self, API_KEYS};
use super::claims::{Claims, Rules};
use super::client_certificate::CLIENT_CERTIFICATES;
use super::provider::Provider;
use super::revocations::TokenStanding;
use super::times::unix_seconds;
use super::witness::NoWitness;
use super::{Authenticator, Caller, Failure, FailureKind};
use crate::config::{Mode, Who};
use crate::identity::{Identity, Permission};
use crate::quote;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::SystemTime;

impl Authenticator {
    /// The credentials that may say what is said of `who`, by the names that a rule's `from` has: the one it names; else the
    /// providers whose tokens can say it all. Where there are none, and for a client of whom no user is said, those of a key
    /// and a certificate. Empty when nothing is said beyond a record and a certificate's name.
    ///
    /// # Errors
    /// None could, in words for the operator.
    pub fn sources(&self, who: &Who) -> Result<Vec<Arc<str>>, String> {
        if self.mode == Mode::Disabled || !who.is_described() {
            return Ok(Vec::new());
        }
        let names = self.configured();
        if let Some(from) = &who.from {
            let found = names.iter().find(|name| ***name == **from);
            let found = found.ok_or_else(|| format!("from is {}, expected one of {}", quote::text(from), quote::list(&names)))?;
            return self.check_prefix(who, found).map(|()| vec![found.clone()]);
        }
        let tokens = self.providers.list.iter().filter(|provider| can_say(&provider.rules, who));
        let mut sources: Vec<Arc<str>> = tokens.map(|provider| provider.name.clone()).collect();
        let alone = who.api_key_id.is_none() && who.certificate.is_none() && who.email.is_none();
        if alone && (sources.is_empty() || user(who).is_none() && who.client.is_some()) {
            let can_say = |name: &Arc<str>| match &**name {
                API_KEYS => true,
                CLIENT_CERTIFICATES => who.user.is_none() && who.permissions.is_empty(),
                _ => false,
            };
            sources.extend(names.into_iter().filter(can_say));
        }
        if sources.is_empty() {
            return Err("no configured credential can say all this of a caller".to_owned());
        }
        Ok(sources)
    }

    /// What `from` may name, as far as there is some of it.
    fn configured(&self) -> Vec<Arc<str>> {
        let absent = |name: &str| match name {
            API_KEYS => self.api_key_header.is_none(),
            CLIENT_CERTIFICATES => self.client_certificates.is_empty(),
            _ => false,
        };
        self.credential_names().into_iter().filter(|name| !absent(name)).collect()
    }

    /// A user whom the provider's tokens cannot name would be tested in vain.
    fn check_prefix(&self, who: &Who, source: &str) -> Result<(), String> {
        let provider = self.providers.list.iter().find(|provider| *provider.name == *source);
        let prefix = provider.map_or("", |provider| &provider.rules.trust.user_id_prefix);
        match &who.user {
            Some(user) if !user.starts_with(prefix) => Err(format!("users of {source} begin with {}", quote::text(prefix))),
            _ => Ok(()),
        }
    }

    /// Who calls, were `source` (one of [`Self::sources`]) to say what is said of `who`; `None` for an anonymous caller.
    ///
    /// # Errors
    /// As of credentials that do not verify: a record that is gone, expired or revoked, a user who is revoked.
    pub fn suppose(&self, who: &Who, source: Option<&str>, now: SystemTime) -> Result<Option<Caller>, Failure> {
        if self.mode == Mode::Disabled {
            return Ok(None);
        }
        let record = who.api_key_id.as_deref().map(|id| {
            let record = self.api_keys.records().find(|record| *record.id == *id);
            let record =
                record.ok_or_else(|| Failure::new(FailureKind::ApiKeyUnknown, format!("no record has the id {}", quote::text(id))))?;
            api_key::judge(record, now, &mut NoWitness).map(|()| record)
        });
        let record = record.transpose()?;
        let entry = who.certificate.as_deref().and_then(|name| self.client_certificates.entry_named(name));
        let provider = source.and_then(|source| self.providers.list.iter().find(|provider| *provider.name == *source));
        let token = provider.map(|provider| self.token(provider, who, now)).transpose()?;
        if let (None, Some(source)) = (&token, source) {
            // A key or a certificate of its own, not of the file.
            let identity = described(who, source);
            return Ok(Some(super::caller(&self.policy, &self.headers, identity)?));
        }
        if token.is_none() && record.is_none() && entry.is_none() {
            return if self.mode == Mode::Required { Err(Failure::missing(None)) } else { Ok(None) };
        }
        self.unite(token, None, entry, record.map(|record| &**record), &mut NoWitness).map(Some)
    }

    fn token(&self, provider: &Arc<Provider>, who: &Who, now: SystemTime) -> Result<(Identity, TokenStanding), Failure> {
        let issuer = self.providers.by_issuer.iter().find(|(_, of)| Arc::ptr_eq(of, provider)).map(|(issuer, _)| issuer.as_str());
        let claims = claims(&provider.rules, who, issuer, unix_seconds(now));
        let mut identity = provider.identity(&claims, &mut NoWitness).map_err(|failure| failure.of_provider(&provider.name))?;
        if user(who).is_none() {
            // Every token has a user; of this one nothing is said, so that no rule can be about it.
            identity.user_id = None;
        }
        Ok((identity, provider.rules.standing(&claims)?))
    }
}

/// What is said of the user, or taken for it: the e-mail.
fn user(who: &Who) -> Option<&str> {
    who.user.as_deref().or(who.email.as_deref())
}

/// Whether tokens under these rules can say all of it. That some of it may not count is another matter.
fn can_say(rules: &Rules, who: &Who) -> bool {
    user(who).is_none_or(|user| user.starts_with(&rules.trust.user_id_prefix) || who.user.is_none())
        && (who.client.is_none() || rules.names.client_id.is_some())
        && (who.permissions.is_empty() || rules.names.permissions.is_some())
}

/// A token's payload that says it. Claims stand under their whole path, which is where they are looked for first.
fn claims(rules: &Rules, who: &Who, issuer: Option<&str>, now: f64) -> Claims {
    let (names, user) = (&rules.names, user(who));
    // A name with an `@` is the e-mail too, as it is for `explain --user`.
    let email = who.email.as_deref().or(user.filter(|user| user.contains('@')));
    let permissions: Vec<&str> = who.permissions.iter().map(Permission::as_str).collect();
    let id = user.map_or("somebody", |user| user.strip_prefix(rules.trust.user_id_prefix.as_str()).unwrap_or(user));
    let said = [
        Some(("email_verified", Value::Bool(true))),
        Some(("iat", json!(now))),
        issuer.map(|issuer| ("iss", json!(issuer))),
        // Of Google's tokens.
        email.and_then(|email| email.split_once('@')).map(|(_, domain)| ("hd", json!(domain))),
        email.map(|email| (names.email.0.as_str(), json!(email))),
        Some((names.roles.0.as_str(), json!(who.roles))),
        names.permissions.as_ref().map(|path| (path.0.as_str(), json!(permissions))),
        names.client_id.as_ref().zip(who.client.as_deref()).map(|(path, client)| (path.0.as_str(), json!(client))),
        Some((names.user_id.0.as_str(), json!(id))),
    ];
    said.into_iter().flatten().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Word by word, as the record of a key and the entry of a certificate are believed.
fn described(who: &Who, source: &str) -> Identity {
    Identity {
        user_id: who.user.as_deref().map(Arc::from),
        client_id: who.client.as_deref().map(Arc::from),
        roles: who.roles.iter().map(|role| role.as_str().into()).collect(),
        permissions: who.permissions.clone(),
        presented: vec![source.into()],
        ..Identity::default()
    }
}
