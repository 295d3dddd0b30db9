//! What a token's claims must say, and what they say about the caller. The signature has been verified before.
//!
//! Claims that decide (iss, aud, exp, nbf, iat, the user id, required ones) refuse the token when they are of a wrong
//! type; claims that describe (e-mail, name, roles, …) then count as absent. Claim values are in the operator's words only,
//! quoted and cut.

use super::failure::{Failure, FailureKind};
use super::google;
use super::jws::media_type;
use super::revocations::TokenStanding;
use super::times;
use super::witness::{Witness, hold};
use crate::config::{Allowed, ClaimNames, ClaimPath, Trust};
use crate::identity::{ClaimValue, Identity, Permission};
use crate::quote;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// A token's payload.
pub(super) type Claims = Map<String, Value>;

/// What one provider's tokens must say.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) audiences: Vec<String>,
    pub(super) insecure_no_audience: bool,
    pub(super) leeway: Duration,
    pub(super) token_types: Vec<String>,
    pub(super) max_lifetime: Option<Duration>,
    pub(super) issued_at_required: bool,
    pub(super) required_claims: Vec<(ClaimPath, Vec<String>)>,
    pub(super) names: ClaimNames,
    pub(super) trust: Trust,
    /// Claims that the upstream is told.
    pub(super) forwarded: Arc<[Arc<str>]>,
}

impl Rules {
    /// Every check of the claims. Returns until when, in seconds of Unix time and with leeway, the token is valid.
    pub(super) fn check<W: Witness>(&self, token_type: Option<&str>, claims: &Claims, now: f64, witness: &mut W) -> Result<f64, Failure> {
        let of_type = hold(self.check_type(token_type, witness), witness)?;
        let valid_until = hold(self.check_times(claims, now, witness), witness)?;
        let for_us = hold(self.check_audience(claims, witness), witness)?;
        let as_required = hold(self.check_required(claims, witness), witness)?;
        of_type?;
        let valid_until = valid_until?;
        for_us?;
        as_required?;
        Ok(valid_until)
    }

    /// `typ` compares as a media type (RFC 7515 §4.1.9).
    fn check_type<W: Witness>(&self, token_type: Option<&str>, witness: &mut W) -> Result<(), Failure> {
        let accepted = |found: &str| self.token_types.iter().any(|known| media_type(known).eq_ignore_ascii_case(media_type(found)));
        if self.token_types.is_empty() {
            return Ok(());
        }
        witness.check(FailureKind::TokenClaim, token_type.is_some_and(accepted), || {
            let found = token_type.map_or_else(|| "missing".to_owned(), quote::text);
            format!("typ is {found}, expected one of {}", quote::list(&self.token_types))
        })
    }

    /// Leeway counts once for each of `exp`, `nbf` and `iat`. Floating point: a NumericDate may have a fraction and any
    /// size (RFC 7519 §2), and adding to it must not overflow.
    fn check_times<W: Witness>(&self, claims: &Claims, now: f64, witness: &mut W) -> Result<f64, Failure> {
        let leeway = self.leeway.as_secs_f64();
        let words = |name, date, expected| {
            let leeway = if leeway > 0.0 { format!(" (leeway {leeway} s)") } else { String::new() };
            format!("{name} is {}, {}, expected {expected}{leeway}", times::numeric(date), times::distance(date - now))
        };
        let mut date = |name| numeric_date(claims, name).map_err(|failure| witness.fail(failure));
        let (expires, not_before, issued) = (date("exp")?, date("nbf")?, date("iat")?);
        let expires = expires.ok_or_else(|| witness.fail(claim_failure("exp is missing, expected a date")))?;
        let valid_until = expires + leeway;
        witness.check(FailureKind::TokenExpired, now < valid_until, || words("exp", expires, "later than now"))?;
        for (name, date) in [("nbf", not_before), ("iat", issued)] {
            let Some(date) = date else { continue };
            witness.check(FailureKind::TokenNotYetValid, date <= now + leeway, || words(name, date, "no later than now"))?;
        }
        if issued.is_none() && (self.issued_at_required || self.max_lifetime.is_some()) {
            return Err(witness.fail(claim_failure("iat is missing, expected a date")));
        }
        if let (Some(longest), Some(issued)) = (self.max_lifetime, issued) {
            let (lifetime, longest) = (expires - issued, longest.as_secs_f64());
            let words = || format!("exp - iat is {}, expected {longest} s at most (max_lifetime)", times::seconds(lifetime));
            witness.check(FailureKind::TokenClaim, lifetime <= longest, words)?;
        }
        Ok(valid_until)
    }

    fn check_audience<W: Witness>(&self, claims: &Claims, witness: &mut W) -> Result<(), Failure> {
        let listed = |audience: &str| self.audiences.iter().any(|known| known == audience);
        let found = claims.get("aud");
        let (kind, met, form) = match found {
            None => (FailureKind::TokenClaim, self.insecure_no_audience, ""),
            Some(Value::String(audience)) => (FailureKind::TokenAudience, listed(audience), ""),
            Some(other) => match other.as_array().and_then(|items| items.iter().map(Value::as_str).collect::<Option<Vec<&str>>>()) {
                Some(audiences) => (FailureKind::TokenAudience, audiences.into_iter().any(listed), ""),
                None => (FailureKind::TokenClaim, false, ", as a string or a list of strings"),
            },
        };
        witness.check(kind, met, || {
            let listed = (!self.audiences.is_empty()).then(|| format!("one of {}", quote::list(&self.audiences)));
            let none = self.insecure_no_audience.then(|| "none at all".to_owned());
            let expected = listed.into_iter().chain(none).collect::<Vec<_>>().join(" or ");
            format!("aud is {}, expected {expected}{form}", quote::member(found))
        })
    }

    fn check_required<W: Witness>(&self, claims: &Claims, witness: &mut W) -> Result<(), Failure> {
        for (path, accepted) in &self.required_claims {
            let holds = |value: &Value| value.as_str().is_some_and(|text| accepted.iter().any(|accepted| accepted == text));
            let found = find(claims, &path.0);
            let met = match found {
                Some(Value::Array(items)) => items.iter().any(holds),
                Some(value) => holds(value),
                None => false,
            };
            witness.check(FailureKind::TokenClaim, met, || {
                format!("{} is {}, expected one of {} (required_claims)", path.0, quote::member(found), quote::list(accepted))
            })?;
        }
        Ok(())
    }

    /// Who the claims say the caller is, as far as the provider's word is trusted.
    pub(super) fn identity<W: Witness>(&self, provider: &Arc<str>, claims: &Claims, witness: &mut W) -> Result<Identity, Failure> {
        let text = |path: &ClaimPath| find(claims, &path.0).and_then(Value::as_str).filter(|text| !text.is_empty());
        let user_id = witness.found(FailureKind::TokenClaim, self.user_id(claims), |_| self.user_id_words(claims))?;
        let email = self.email(claims);
        witness.note(|| self.email_words(claims, email));
        let roles = words(find(claims, &self.names.roles.0));
        witness.note(|| self.roles_words(claims, &roles));
        let permissions = self.names.permissions.as_ref().map(|path| words(find(claims, &path.0))).unwrap_or_default();
        // Scopes such as `openid` are no permissions of ours; a `*` is never a token's to give.
        let permissions: Vec<Permission> =
            permissions.into_iter().filter(|word| !word.contains('*')).filter_map(Permission::parse).collect();
        if let Some(path) = &self.names.permissions {
            witness.note(|| {
                format!("{} is {}, of which permissions are {}", path.0, quote::member(find(claims, &path.0)), quote::list(&permissions))
            });
        }
        Ok(Identity {
            user_id: Some(format!("{}{user_id}", self.trust.user_id_prefix).into()),
            user_email: email.ok().map(Arc::from),
            user_name: text(&self.names.name).map(Arc::from),
            client_id: self.names.client_id.as_ref().and_then(text).map(Arc::from),
            roles: roles.into_iter().filter(|role| allows(&self.trust.roles, role)).map(Arc::from).collect(),
            permissions,
            api_key_id: None,
            provider: Some(provider.clone()),
            claims: self.forwarded.iter().filter_map(|path| Some((path.clone(), forwarded(find(claims, path)?)?))).collect(),
            presented: vec![provider.clone()],
        })
    }

    /// As it is in the token, without the provider's prefix.
    fn user_id(&self, claims: &Claims) -> Option<String> {
        let path = self.names.user_id.0.as_str();
        match find(claims, path)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) if path != "sub" && !number.is_f64() => Some(number.to_string()),
            _ => None,
        }
    }

    fn user_id_words(&self, claims: &Claims) -> String {
        let path = self.names.user_id.0.as_str();
        let number = if path == "sub" { "" } else { " or a whole number" };
        format!("{path} is {}, expected the user id, a non-empty string{number}", quote::member(find(claims, path)))
    }

    /// What revocations know the token by; after every check.
    pub(super) fn standing(&self, claims: &Claims) -> Result<TokenStanding, Failure> {
        let issuer = claims.get("iss").and_then(Value::as_str).map(|issuer| google::one_spelling(issuer).into());
        let id = match claims.get("jti") {
            Some(Value::String(id)) => Some(id.as_str().into()),
            // Not what RFC 7519 §4.1.7 asks for, but made by some: as it would be written in the file.
            Some(Value::Number(id)) if !id.is_f64() => Some(id.to_string().into()),
            _ => None,
        };
        let user_id = self.user_id(claims).ok_or_else(|| claim_failure(self.user_id_words(claims)))?;
        Ok(TokenStanding { issuer, id, user_id: user_id.into(), issued_at: numeric_date(claims, "iat")? })
    }

    /// The address, or why there is none that counts.
    fn email<'c>(&self, claims: &'c Claims) -> Result<&'c str, &'static str> {
        let email = find(claims, &self.names.email.0).and_then(Value::as_str).ok_or("as no text")?;
        if !self.trust.unverified_email && claims.get("email_verified") != Some(&Value::Bool(true)) {
            return Err("as email_verified is not true");
        }
        // Exactly one `@`: with two, who reads the address decides which domain it is of.
        let (local, domain) = email.split_once('@').ok_or("as no address")?;
        if local.is_empty() || domain.is_empty() || domain.contains('@') {
            return Err("as no address");
        }
        let trusted = allows(&self.trust.email_domains, &domain.to_ascii_lowercase());
        if trusted { Ok(email) } else { Err("as trust.email_domains does not have its domain") }
    }

    fn email_words(&self, claims: &Claims, email: Result<&str, &str>) -> String {
        let path = self.names.email.0.as_str();
        match (find(claims, path), email) {
            (None, _) => format!("{path} is missing"),
            (Some(found), Ok(_)) => format!("{path} is {} and counts", quote::json(found)),
            (Some(found), Err(why)) => format!("{path} is {} and counts as absent, {why}", quote::json(found)),
        }
    }

    fn roles_words(&self, claims: &Claims, roles: &[&str]) -> String {
        let (kept, dropped): (Vec<&str>, Vec<&str>) = roles.iter().partition(|role| allows(&self.trust.roles, role));
        let path = self.names.roles.0.as_str();
        let words = format!("{path} is {}; kept: {}", quote::member(find(claims, path)), quote::list(kept));
        if dropped.is_empty() { words } else { format!("{words}; dropped, as trust.roles does not have them: {}", quote::list(dropped)) }
    }
}

pub(super) fn claim_failure(detail: impl Into<String>) -> Failure {
    Failure::new(FailureKind::TokenClaim, detail)
}

/// The claim at `path`: its whole name first, so that names with dots in them can be asked for, else reaching into objects.
pub(super) fn find<'c>(claims: &'c Claims, path: &str) -> Option<&'c Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    rest.split('.').try_fold(claims.get(first)?, |value, name| value.as_object()?.get(name))
}

fn numeric_date(claims: &Claims, name: &str) -> Result<Option<f64>, Failure> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => Ok(number.as_f64()),
        Some(other) => Err(claim_failure(format!("{name} is {}, expected a number", quote::json(other)))),
    }
}

fn allows(allowed: &Allowed, name: &str) -> bool {
    match allowed {
        Allowed::Any => true,
        Allowed::These(names) => names.iter().any(|known| known == name),
    }
}

/// A list of strings, or one string of words; anything else is none.
fn words(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::String(text)) => text.split(' ').filter(|word| !word.is_empty()).collect(),
        Some(Value::Array(items)) => items.iter().map(Value::as_str).collect::<Option<_>>().unwrap_or_default(),
        _ => Vec::new(),
    }
}

fn forwarded(value: &Value) -> Option<ClaimValue> {
    match value {
        Value::String(text) => Some(ClaimValue::Text(text.clone())),
        Value::Bool(value) => Some(ClaimValue::Text(value.to_string())),
        Value::Number(number) if !number.is_f64() => Some(ClaimValue::Text(number.to_string())),
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>().map(ClaimValue::List),
        _ => None,
    }
}
