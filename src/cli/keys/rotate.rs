//! `doorward keys rotate`: a new key beside the old one, which expires once its holders have had time to change over.

use super::key_file::NotChanged;
use super::record_text::record_text;
use super::{FAILED, Failure, Files, INDENT, USAGE, configuration, expiry, from_now, key_file, meanwhile, record};
use crate::api_keys::Record;
use crate::api_keys::key::{NewKey, NewKeyError, is_id};
use clap::Args;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::SystemTime;

/// How long a new key lives at least that replaces one with an expiry, if nothing else is asked for.
const LIFE: &str = "90d";

#[derive(Args, Debug)]
pub(in crate::cli) struct Rotate {
    #[command(flatten)]
    pub(super) files: Files,
    /// The id of the record of the key that is replaced
    #[arg(value_name = "ID")]
    id: String,
    /// How long the old key is still accepted, unless it expires before: 24h, 7d, 30m or 0s
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = overlap)]
    overlap: Timestamp,
    /// When the new key expires: 90d, 12h or 30m from now, or a time. By default in 90 days, but not before the old one
    /// would have; never, if the old one never does
    #[arg(long, value_name = "90d|TIME", value_parser = expiry)]
    expires: Option<Timestamp>,
}

/// The new key, whose record is in the file or on stderr.
pub(super) fn rotate(arguments: &Rotate) -> Result<String, Failure> {
    let config = configuration(&arguments.files.config)?;
    let file = key_file(&config)?;
    let old = record(&file, &arguments.id)?;
    if old.revoked_at.is_some() {
        return Err(Failure(USAGE, format!("{} is revoked; `doorward keys create` makes a key for whoever may have one", old.id)));
    }
    let Some(id) = next_id(&old.id, |id| file.is_taken(id)) else {
        let message = format!("the id {:?} cannot be part of a key: {}; use `doorward keys create`", old.id, NewKeyError::Id);
        return Err(Failure(USAGE, message));
    };
    let key = NewKey::generate(&id).map_err(|error| Failure(FAILED, error.to_string()))?;
    let new = Record { id, expires_at: new_expiry(arguments, old)?.map(Into::into), ..old.clone() };
    let ends = Some(arguments.overlap).filter(|ends| old.expires_at.is_none_or(|expires| expires > SystemTime::from(*ends)));
    let text = record_text(&new, key.digest(), INDENT);
    match file.rotate(old, ends, &new, &key) {
        Ok(()) => eprintln!("added to {}:\n\n{text}", file.path().display()),
        Err(NotChanged::Meanwhile) => return Err(meanwhile(&file)),
        Err(NotChanged::Cannot(reason)) => {
            eprintln!("note: {} is left as it is: {reason}. Paste this below its `keys:`\n\n{text}", file.path().display());
            if let Some(ends) = ends {
                eprintln!("and write into the record of {}\n\n    expires_at: {ends}\n", old.id);
            }
        }
    }
    match ends {
        Some(ends) => eprintln!("{} expires at {ends}", old.id),
        None => eprintln!("{} expires before the overlap is over, as it did", old.id),
    }
    eprintln!("the key of {}, shown this once:", new.id);
    Ok(key.text().to_owned())
}

fn new_expiry(arguments: &Rotate, old: &Record) -> Result<Option<Timestamp>, Failure> {
    let Some(expires) = old.expires_at else { return Ok(arguments.expires) };
    if arguments.expires.is_some() {
        return Ok(arguments.expires);
    }
    let out_of_range = || Failure(FAILED, format!("the expiry of {} cannot be kept: name one with --expires", old.id));
    let least = from_now(LIFE, Timestamp::now()).ok_or_else(out_of_range)?;
    Ok(Some(least.max(Timestamp::try_from(expires).map_err(|_| out_of_range())?)))
}

/// `web`, `web-r2`, `web-r3`; a plain number would turn `worker-1` into the neighbour `worker-2`. `None` when that is no id.
fn next_id(old: &str, is_taken: impl Fn(&str) -> bool) -> Option<Arc<str>> {
    let numbered = old.rsplit_once("-r").and_then(|(base, number)| Some((base, number.parse::<u32>().ok().filter(|number| *number >= 2)?)));
    let (base, last) = numbered.unwrap_or((old, 1));
    let mut ids = (last.checked_add(1)?..=u32::MAX).map(|number| format!("{base}-r{number}"));
    ids.find(|id| !is_taken(id)).filter(|id| is_id(id)).map(Arc::from)
}

fn overlap(text: &str) -> Result<Timestamp, &'static str> {
    from_now(text, Timestamp::now()).ok_or("expected a duration such as 24h, 7d, 30m or 0s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_id_is_the_next_free_one() {
        let next = |old: &str| next_id(old, |id| id == "web-r2").map(|id| id.to_string());
        for (old, new) in
            [("web", "web-r3"), ("worker-1", "worker-1-r2"), ("worker-r9", "worker-r10"), ("worker-r1", "worker-r1-r2"), ("a-r", "a-r-r2")]
        {
            assert_eq!(next(old).as_deref(), Some(new));
        }
        for bad in ["Analytics Service", &"x".repeat(62), "a-r4294967295"] {
            assert_eq!(next(bad), None, "{bad}");
        }
    }
}
