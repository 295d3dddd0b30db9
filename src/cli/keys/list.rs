//! `doorward keys list`: for people as a table, for programs as JSON. Neither holds a hash: who knows one can tell whether
//! a guessed text is the key.

use super::{BAD_CONFIGURATION, Failure, Files, configuration, key_file, refuse};
use crate::api_keys::Record;
use crate::config::{Config, Problems, Revocation, read_revocations};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::SystemTime;

#[derive(Args, Debug)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    pub(super) files: Files,
    /// A list of objects with every field of the records instead of a table
    #[arg(long)]
    pub(super) json: bool,
}

const COLUMNS: [&str; 6] = ["ID", "CLIENT_ID", "TYPE", "ROLES", "EXPIRES", "STATE"];

pub(super) fn list(arguments: &List) -> Result<String, Failure> {
    let config = configuration(&arguments.files.config)?;
    let file = key_file(&config)?;
    let revoked = revoked_elsewhere(&config)?;
    let mut records: Vec<&Record> = file.records().collect();
    records.sort_by(|a, b| a.id.cmp(&b.id));
    let now = SystemTime::now();
    let states = records.iter().map(|record| state(record, revoked.contains(&*record.id), now));
    let keys = records.iter().copied().zip(states);
    if arguments.json {
        let objects = Value::Array(keys.map(|(record, state)| object(record, state)).collect());
        return serde_json::to_string_pretty(&objects).map_err(|error| Failure(BAD_CONFIGURATION, error.to_string()));
    }
    Ok(table(keys.map(|(record, state)| row(record, state)).collect()))
}

/// Ids that the revocations file names: such a key must not be shown as active.
fn revoked_elsewhere(config: &Config) -> Result<HashSet<String>, Failure> {
    let Some(file) = &config.authentication.revocations else { return Ok(HashSet::new()) };
    let mut problems = Problems::default();
    let entries = read_revocations(file, &mut problems);
    refuse(&problems)?;
    Ok(entries.into_iter().filter_map(|(entry, _)| if let Revocation::ApiKey { id } = entry { Some(id) } else { None }).collect())
}

fn state(record: &Record, revoked_elsewhere: bool, now: SystemTime) -> &'static str {
    use crate::api_keys::Refused;
    match record.check(now) {
        _ if revoked_elsewhere => "revoked",
        Ok(()) => "active",
        Err(Refused::Revoked) => "revoked",
        Err(Refused::Expired) => "expired",
    }
}

fn object(record: &Record, state: &str) -> Value {
    let Record { id, name, client_id, user_id, key_type, roles, permissions, expires_at, revoked_at } = record;
    json!({
        "id": **id,
        "name": name.as_deref(),
        "client_id": **client_id,
        "user_id": user_id.as_deref(),
        "type": key_type.as_str(),
        "roles": roles.iter().map(|role| &**role).collect::<Vec<_>>(),
        "permissions": permissions.iter().map(|permission| permission.as_str()).collect::<Vec<_>>(),
        "expires_at": expires_at.map(time),
        "revoked_at": revoked_at.map(time),
        "state": state,
    })
}

fn row(record: &Record, state: &str) -> [String; 6] {
    let roles = record.roles.join(",");
    [
        record.id.to_string(),
        record.client_id.to_string(),
        record.key_type.as_str().to_owned(),
        if roles.is_empty() { "-".to_owned() } else { roles },
        record.expires_at.map_or_else(|| "never".to_owned(), time),
        state.to_owned(),
    ]
}

fn time(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| "never".to_owned(), |time| time.to_string())
}

/// Columns as wide as their widest text, no space at the end of a line.
fn table(rows: Vec<[String; 6]>) -> String {
    let rows: Vec<[String; 6]> = std::iter::once(COLUMNS.map(str::to_owned)).chain(rows).collect();
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; 6]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
