//! `doorward keys`: makes, lists, rotates and revokes the API keys of the configured file, and hashes keys made elsewhere.
//!
//! A new key is printed once, alone on standard output, so that it can be piped to where it is kept; everything else
//! goes to stderr. `record_text` writes one record as YAML, `field_edit` one field, `key_file` changes the file.

mod field_edit;
mod key_file;
mod list;
mod record_text;
mod revoke;
mod rotate;

pub(super) use record_text::record_text;

use super::{BAD_CONFIGURATION, FAILED, Files, USAGE};
use crate::api_keys::key::{NewKey, NewKeyError, is_id};
use crate::api_keys::{KeyType, Record};
use crate::config::{self, Config, Problems, Role};
use crate::identity::Permission;
use crate::secret::Digest;
use clap::{ArgGroup, Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use key_file::{KeyFile, NotChanged};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// No header value is longer (`limits.header_bytes`), so no key can be.
const LONGEST_KEY: usize = 16 * 1024;
/// What the key file takes as a name.
const LONGEST_NAME: usize = 256;
/// The spaces before a record whose list is not there yet.
const INDENT: usize = 2;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a key and add its record to the configured file; the key is printed once, alone on standard output
    Create(Create),
    /// The keys of the configured file and whether they are active, expired or revoked; never their hashes
    List(list::List),
    /// Revoke a key: its record gets `revoked_at`, and stays so that the log can say whose key is still used
    Revoke(revoke::Revoke),
    /// Make a key that takes the place of another, which expires after an overlap; the new key is printed once, alone on standard output
    ///
    /// The record of the new key has the client, user, type, roles and permissions of the old one. Its id, which appears in logs and
    /// metrics, is that of the old one followed by -r2, then -r3 and so on.
    Rotate(rotate::Rotate),
    /// Read a key from standard input (one final newline is dropped) and print the SHA-256 that its record needs
    Hash,
}

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("expiry").required(true).args(["expires", "never_expires"])))]
pub(super) struct Create {
    #[command(flatten)]
    files: Files,
    /// The record's name in logs and metrics: lower-case letters, digits and hyphens
    #[arg(long, value_parser = id)]
    id: Arc<str>,
    /// The client that will hold the key
    #[arg(long, value_parser = name)]
    client_id: Arc<str>,
    /// The user the key acts as
    #[arg(long, value_parser = name)]
    user_id: Option<Arc<str>>,
    /// A name for people
    #[arg(long, value_parser = name)]
    name: Option<Arc<str>>,
    /// What kind of program holds it: service, cli or webhook; decides nothing
    #[arg(long = "type", value_name = "TYPE", default_value = "service", value_parser = key_type)]
    key_type: KeyType,
    /// A role of authorization.roles that the key carries; may be repeated
    #[arg(long = "role", value_name = "ROLE", value_parser = name)]
    roles: Vec<Arc<str>>,
    /// A permission that the key has directly, resource:action; may be repeated
    #[arg(long = "permission", value_name = "PERMISSION", value_parser = permission)]
    permissions: Vec<Permission>,
    /// When it expires: 90d, 12h or 30m from now, or a time such as 2027-01-01T00:00:00Z
    #[arg(long, value_name = "90d|TIME", value_parser = expiry)]
    expires: Option<Timestamp>,
    /// It never expires, which each start warns about
    #[arg(long)]
    never_expires: bool,
}

/// Why a command failed: the exit code, and the words for it.
#[derive(Debug)]
struct Failure(u8, String);

pub(super) fn keys(command: Command) -> ExitCode {
    let done = match command {
        Command::Create(arguments) => create(&arguments),
        Command::List(arguments) => list::list(&arguments),
        Command::Revoke(arguments) => revoke::revoke(&arguments).map(|()| String::new()),
        Command::Rotate(arguments) => rotate::rotate(&arguments),
        Command::Hash => hash(io::stdin().lock()),
    };
    match done.and_then(|line| print(&line)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(code, message)) => {
            eprintln!("error: {message}");
            ExitCode::from(code)
        }
    }
}

/// The new key, whose record is in the file or on stderr.
fn create(arguments: &Create) -> Result<String, Failure> {
    let config = configuration(&arguments.files.config)?;
    let file = key_file(&config)?;
    if file.is_taken(&arguments.id) {
        return Err(Failure(USAGE, format!("--id: there is a key with the id {} already", arguments.id)));
    }
    check_roles(&arguments.roles, &config.authorization.roles)?;

    let key = NewKey::generate(&arguments.id).map_err(|error| Failure(FAILED, error.to_string()))?;
    let record = arguments.record();
    match file.add(&record, &key) {
        Ok(()) => eprintln!("added to {}:\n\n{}", file.path().display(), record_text(&record, key.digest(), INDENT)),
        Err(NotChanged::Meanwhile) => return Err(meanwhile(&file)),
        Err(NotChanged::Cannot(reason)) => {
            let text = record_text(&record, key.digest(), INDENT);
            eprintln!("note: {} is left as it is: {reason}. Paste this below its `keys:`\n\n{text}", file.path().display());
        }
    }
    eprintln!("the key, shown this once:");
    Ok(key.text().to_owned())
}

impl Create {
    fn record(&self) -> Record {
        Record {
            id: self.id.clone(),
            name: self.name.clone(),
            client_id: self.client_id.clone(),
            user_id: self.user_id.clone(),
            key_type: self.key_type,
            roles: self.roles.clone(),
            permissions: self.permissions.clone(),
            expires_at: self.expires.map(Into::into),
            revoked_at: None,
        }
    }
}

/// The configuration without the rooms: certificates and key sets are of no concern here, though files must be there.
fn configuration(paths: &[PathBuf]) -> Result<Config, Failure> {
    let config::Loaded { config, problems, .. } = config::load(paths);
    refuse(&problems)?;
    config.ok_or_else(|| Failure(BAD_CONFIGURATION, "the configuration is refused".to_owned()))
}

/// The configured key file.
fn key_file(config: &Config) -> Result<KeyFile<'_>, Failure> {
    let mut problems = Problems::default();
    let file = config.authentication.api_keys.as_ref().and_then(|keys| KeyFile::read(keys, &mut problems));
    refuse(&problems)?;
    file.ok_or_else(|| Failure(BAD_CONFIGURATION, "the configuration names no authentication.api_keys.file".to_owned()))
}

/// The record of a key that the operator named.
fn record<'f>(file: &'f KeyFile, id: &str) -> Result<&'f Record, Failure> {
    let unknown = || Failure(USAGE, format!("no key in {} has the id {id:?}; `doorward keys list` shows them", file.path().display()));
    file.record(id).ok_or_else(unknown)
}

fn meanwhile(file: &KeyFile) -> Failure {
    Failure(FAILED, format!("{} was changed at this very moment, so nothing was done; try again", file.path().display()))
}

/// Warnings are for those who start the proxy; errors end the command.
fn refuse(problems: &Problems) -> Result<(), Failure> {
    if !problems.has_errors() {
        return Ok(());
    }
    for problem in problems.iter() {
        eprintln!("{problem}");
    }
    Err(Failure(BAD_CONFIGURATION, "the configuration is refused".to_owned()))
}

/// A key with a role that means nothing would be a puzzle for whoever gets it.
fn check_roles(roles: &[Arc<str>], defined: &[Role]) -> Result<(), Failure> {
    let Some(unknown) = roles.iter().find(|role| defined.iter().all(|known| known.name != ***role)) else { return Ok(()) };
    let names: Vec<&str> = defined.iter().map(|role| role.name.as_str()).collect();
    let defined = if names.is_empty() { "no role".to_owned() } else { names.join(", ") };
    Err(Failure(USAGE, format!("--role: authorization.roles does not define {unknown:?}, but {defined}")))
}

/// The hash of the key that `input` holds.
fn hash(input: impl Read) -> Result<String, Failure> {
    let mut key = Vec::new();
    let read = input.take(LONGEST_KEY as u64 + 2).read_to_end(&mut key);
    read.map_err(|error| Failure(FAILED, format!("standard input cannot be read: {error}")))?;
    let key = key.strip_suffix(b"\n").unwrap_or(&key);
    if key.is_empty() {
        return Err(Failure(USAGE, "standard input holds no key".to_owned()));
    }
    if key.len() > LONGEST_KEY {
        return Err(Failure(USAGE, format!("standard input is longer than {LONGEST_KEY} bytes, no key can be")));
    }
    if !can_be_presented(key) {
        eprintln!("note: no call can present this key: HTTP fields hold no control characters and do not begin or end with white space");
    }
    let sha256 = Digest::of(key).hex();
    eprintln!("its record, to be completed and pasted below `keys:` of the key file:\n\n{}", stub(&sha256));
    Ok(sha256)
}

/// RFC 9110 §5.5: a field value.
fn can_be_presented(key: &[u8]) -> bool {
    key.trim_ascii() == key && key.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control())
}

/// A record that is refused until its expiry has been decided.
fn stub(sha256: &str) -> String {
    format!("  - id: ID\n    client_id: CLIENT\n    sha256: \"{sha256}\"\n    type: service\n    roles: []\n    expires_at: TIME\n")
}

/// The result, on standard output.
fn print(text: &str) -> Result<(), Failure> {
    if text.is_empty() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    let printed = writeln!(out, "{text}").and_then(|()| out.flush());
    printed.map_err(|error| Failure(FAILED, format!("standard output cannot be written: {error}")))
}

fn id(text: &str) -> Result<Arc<str>, String> {
    is_id(text).then(|| text.into()).ok_or_else(|| NewKeyError::Id.to_string())
}

fn name(text: &str) -> Result<Arc<str>, String> {
    let fits = !text.is_empty() && text.len() <= LONGEST_NAME && !text.contains(char::is_control);
    fits.then(|| text.into()).ok_or_else(|| format!("expected 1 to {LONGEST_NAME} bytes of text without control characters"))
}

fn key_type(text: &str) -> Result<KeyType, &'static str> {
    KeyType::parse(text).ok_or("expected service, cli or webhook")
}

fn permission(text: &str) -> Result<Permission, &'static str> {
    Permission::parse(text).ok_or("expected resource:action, either side may be *")
}

fn expiry(text: &str) -> Result<Timestamp, &'static str> {
    let now = Timestamp::now();
    let time = text.parse().ok().or_else(|| from_now(text, now));
    let time = time.ok_or("expected a time from now such as 90d, 12h or 30m, or a time such as 2027-01-01T00:00:00Z")?;
    if time > now { Ok(time) } else { Err("that is not in the future") }
}

/// `90d`, `12h`, `30m`, `10s` later, to the second.
fn from_now(text: &str, now: Timestamp) -> Option<Timestamp> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "d" => 24 * 60 * 60,
        "h" => 60 * 60,
        "m" => 60,
        "s" => 1,
        _ => return None,
    };
    let number: i64 = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()?;
    let later = now.checked_add(SignedDuration::from_secs(number.checked_mul(seconds)?)).ok()?;
    to_the_second(later)
}

/// As people write times.
fn to_the_second(time: Timestamp) -> Option<Timestamp> {
    Timestamp::from_second(time.as_second()).ok()
}

#[cfg(test)]
mod tests;
