//! What a token's claims must say, and what they say about the caller. The signature has been verified before.
//!
//! Claims that decide (iss, aud, exp, nbf, iat, the user id, required ones) refuse the token when they are of a wrong
//! type; claims that describe (e-mail, name, roles, …) then count as absent. Claim values appear in no message.

use super::failure::{Failure, FailureKind};
use super::google;
use super::jws::media_type;
use super::revocations::TokenStanding;
use crate::config::{Allowed, ClaimNames, ClaimPath, Trust};
use crate::identity::{ClaimValue, Identity, Permission};
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
    pub(super) fn check(&self, token_type: Option<&str>, claims: &Claims, now: f64) -> Result<f64, Failure> {
        self.check_type(token_type)?;
        let valid_until = self.check_times(claims, now)?;
        self.check_audience(claims)?;
        for (path, accepted) in &self.required_claims {
            let holds = |value: &Value| value.as_str().is_some_and(|text| accepted.iter().any(|accepted| accepted == text));
            let met = match find(claims, &path.0) {
                Some(Value::Array(items)) => items.iter().any(holds),
                Some(value) => holds(value),
                None => false,
            };
            if !met {
                return Err(claim_failure(format!("the claim {} is none of {}", path.0, accepted.join(", "))));
            }
        }
        Ok(valid_until)
    }

    /// `typ` compares as a media type (RFC 7515 §4.1.9).
    fn check_type(&self, token_type: Option<&str>) -> Result<(), Failure> {
        let accepted = |found: &str| self.token_types.iter().any(|known| media_type(known).eq_ignore_ascii_case(media_type(found)));
        if self.token_types.is_empty() || token_type.is_some_and(accepted) {
            return Ok(());
        }
        Err(claim_failure(format!("the header's typ is none of {}", self.token_types.join(", "))))
    }

    /// Leeway counts once for each of `exp`, `nbf` and `iat`. Floating point: a NumericDate may have a fraction and any
    /// size (RFC 7519 §2), and adding to it must not overflow.
    fn check_times(&self, claims: &Claims, now: f64) -> Result<f64, Failure> {
        let leeway = self.leeway.as_secs_f64();
        let expires = numeric_date(claims, "exp")?.ok_or_else(|| claim_failure("the claim exp is missing"))?;
        let not_before = numeric_date(claims, "nbf")?;
        let issued = numeric_date(claims, "iat")?;
        let valid_until = expires + leeway;
        if now >= valid_until {
            return Err(Failure::new(FailureKind::TokenExpired, format!("exp passed {} ago (leeway {leeway} s)", span(now - expires))));
        }
        for (name, date) in [("nbf", not_before), ("iat", issued)] {
            if let Some(date) = date.filter(|date| *date > now + leeway) {
                let detail = format!("{name} is {} ahead (leeway {leeway} s)", span(date - now));
                return Err(Failure::new(FailureKind::TokenNotYetValid, detail));
            }
        }
        if issued.is_none() && (self.issued_at_required || self.max_lifetime.is_some()) {
            return Err(claim_failure("the claim iat is missing"));
        }
        if let (Some(longest), Some(issued)) = (self.max_lifetime, issued)
            && expires - issued > longest.as_secs_f64()
        {
            return Err(claim_failure(format!("exp - iat is longer than max_lifetime ({} s)", longest.as_secs())));
        }
        Ok(valid_until)
    }

    fn check_audience(&self, claims: &Claims) -> Result<(), Failure> {
        let listed = |audience: &str| self.audiences.iter().any(|known| known == audience);
        let met = match claims.get("aud") {
            None if self.insecure_no_audience => true,
            None => return Err(claim_failure("the claim aud is missing")),
            Some(Value::String(audience)) => listed(audience),
            Some(Value::Array(items)) => {
                let audiences: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
                audiences.ok_or_else(|| claim_failure("the claim aud holds something that is not a string"))?.into_iter().any(listed)
            }
            Some(_) => return Err(claim_failure("the claim aud is neither a string nor a list of strings")),
        };
        if met {
            return Ok(());
        }
        Err(Failure::new(FailureKind::TokenAudience, format!("aud is none of {}", self.audiences.join(", "))))
    }

    /// Who the claims say the caller is, as far as the provider's word is trusted.
    pub(super) fn identity(&self, provider: &Arc<str>, claims: &Claims) -> Result<Identity, Failure> {
        let text = |path: &ClaimPath| find(claims, &path.0).and_then(Value::as_str).filter(|text| !text.is_empty());
        let roles = words(find(claims, &self.names.roles.0));
        let permissions = self.names.permissions.as_ref().map(|path| words(find(claims, &path.0))).unwrap_or_default();
        Ok(Identity {
            user_id: Some(format!("{}{}", self.trust.user_id_prefix, self.user_id(claims)?).into()),
            user_email: self.email(claims).map(Arc::from),
            user_name: text(&self.names.name).map(Arc::from),
            client_id: self.names.client_id.as_ref().and_then(text).map(Arc::from),
            roles: roles.into_iter().filter(|role| allows(&self.trust.roles, role)).map(Arc::from).collect(),
            // Scopes such as `openid` are no permissions of ours; a `*` is never a token's to give.
            permissions: permissions.into_iter().filter(|word| !word.contains('*')).filter_map(Permission::parse).collect(),
            api_key_id: None,
            provider: Some(provider.clone()),
            claims: self.forwarded.iter().filter_map(|path| Some((path.clone(), forwarded(find(claims, path)?)?))).collect(),
            presented: vec![provider.clone()],
        })
    }

    /// As it is in the token, without the provider's prefix.
    fn user_id(&self, claims: &Claims) -> Result<String, Failure> {
        let path = self.names.user_id.0.as_str();
        match find(claims, path) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
            Some(Value::Number(number)) if path != "sub" && !number.is_f64() => Ok(number.to_string()),
            Some(_) => Err(claim_failure(format!("the user-id claim {path} is not a non-empty string"))),
            None => Err(claim_failure(format!("the user-id claim {path} is missing"))),
        }
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
        Ok(TokenStanding { issuer, id, user_id: self.user_id(claims)?.into(), issued_at: numeric_date(claims, "iat")? })
    }

    fn email<'c>(&self, claims: &'c Claims) -> Option<&'c str> {
        let email = find(claims, &self.names.email.0)?.as_str()?;
        let verified = self.trust.unverified_email || claims.get("email_verified") == Some(&Value::Bool(true));
        // Exactly one `@`: with two, who reads the address decides which domain it is of.
        let (local, domain) = email.split_once('@')?;
        let well_formed = !local.is_empty() && !domain.is_empty() && !domain.contains('@');
        (verified && well_formed && allows(&self.trust.email_domains, &domain.to_ascii_lowercase())).then_some(email)
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
        Some(_) => Err(claim_failure(format!("the claim {name} is not a number"))),
    }
}

/// For people, and without the many digits that a claim may have.
fn span(seconds: f64) -> String {
    const YEAR: f64 = 365.0 * 86_400.0;
    if seconds > YEAR { "more than a year".to_owned() } else { format!("{seconds:.0} s") }
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
