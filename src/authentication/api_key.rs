//! A presented API key: found by its digest, judged, and made part of an identity. What is known of keys is in the room
//! `api_keys`.

use super::failure::{Failure, FailureKind};
use super::times::{at, relative};
use super::witness::Witness;
use crate::api_keys::key::{Form, inspect};
use crate::api_keys::{ApiKeys, Record, Refused};
use crate::authorization::Policy;
use crate::config::{Position, Problems};
use crate::identity::Identity;
use crate::secret::Digest;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

/// What `from` and the metrics call an API key.
pub(super) const API_KEYS: &str = "api_keys";
/// Undefined roles named in the one warning about them.
const NAMED_ROLES: usize = 10;

/// The record of `key`, if it is valid at `now`.
pub(super) fn verify<W: Witness>(keys: &ApiKeys, key: &[u8], now: SystemTime, witness: &mut W) -> Result<Arc<Record>, Failure> {
    let record = witness.found(FailureKind::ApiKeyUnknown, keys.find(key), |record| match record {
        Some(record) => format!("the API key is that of the record {}, client_id {}", record.id, record.client_id),
        None => unknown(key, keys),
    })?;
    judge(record, now, witness)?;
    Ok(record.clone())
}

/// Whether the key of `record` is valid at `now`.
pub(super) fn judge<W: Witness>(record: &Record, now: SystemTime, witness: &mut W) -> Result<(), Failure> {
    let judged = judge_dates(record, now, witness);
    judged.map_err(|failure| Failure { api_key_id: Some(record.id.clone()), ..failure })
}

fn judge_dates<W: Witness>(record: &Record, now: SystemTime, witness: &mut W) -> Result<(), Failure> {
    let judged = record.check(now);
    let date =
        |date: Option<SystemTime>| date.map_or_else(|| "not set".to_owned(), |date| format!("{}, {}", at(date), relative(date, now)));
    witness.check(FailureKind::CredentialsRevoked, judged != Err(Refused::Revoked), || {
        format!("revoked_at of the record {} is {}, expected none that has passed", record.id, date(record.revoked_at))
    })?;
    witness.check(FailureKind::ApiKeyExpired, judged.is_ok(), || {
        format!("expires_at of the record {} is {}, expected none that has passed", record.id, date(record.expires_at))
    })
}

/// A key that no record has. Its form tells a slip of the hand from a record that is gone.
fn unknown(key: &[u8], keys: &ApiKeys) -> String {
    let form = match std::str::from_utf8(key).map_or(Form::Foreign, inspect) {
        Form::Ours { id } => {
            format!("it is a whole key that was made for the id {id}: that record is gone, has another key now, or is elsewhere")
        }
        Form::Mistyped => "it begins as our keys do, but its form or its check digits are wrong: mistyped, or cut off".to_owned(),
        Form::Foreign => "it is not of our making, so nothing tells whether it is mistyped".to_owned(),
    };
    let digest = Digest::of(key).short();
    format!("the API key's SHA-256 is {digest}…, expected that of one of the {} records; {form}", keys.records().count())
}

/// The token's user stays the user; the client is the key's; what both may do is united.
pub(super) fn add(identity: &mut Identity, record: &Record, without_token: bool) {
    if without_token {
        identity.user_id.clone_from(&record.user_id);
    }
    identity.client_id = Some(record.client_id.clone());
    identity.roles.extend(record.roles.iter().cloned());
    identity.permissions.extend(record.permissions.iter().cloned());
    identity.api_key_id = Some(record.id.clone());
    identity.presented.push(API_KEYS.into());
}

/// A role without a definition gives nothing; in a key's record that is most likely a slip.
pub(super) fn warn_of_undefined_roles(api_keys: &ApiKeys, policy: &Policy, at: &Position, problems: &mut Problems) {
    let used: BTreeSet<&Arc<str>> = api_keys.records().flat_map(|record| &record.roles).collect();
    let defined = |role: &Arc<str>| {
        let identity = Identity { roles: vec![role.clone()], ..Identity::default() };
        policy.grants(&identity).roles().contains(role)
    };
    let undefined: Vec<&str> = used.into_iter().filter(|role| !defined(role)).map(|role| &**role).collect();
    if !undefined.is_empty() {
        let named = undefined.iter().take(NAMED_ROLES).copied().collect::<Vec<_>>().join(", ");
        let rest = if undefined.len() > NAMED_ROLES { " and more" } else { "" };
        problems.warning(at, format!("API keys have roles that authorization.roles does not define: {named}{rest}"));
    }
}
