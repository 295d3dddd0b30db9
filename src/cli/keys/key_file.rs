//! Changes an API-key file: the text is edited, not written anew, so that comments and order stay; the result is
//! read with the proxy's own reader and compared before it takes the file's place in one step.

use super::field_edit::with_field;
use super::record_text::record_text;
use crate::api_keys::key::NewKey;
use crate::api_keys::{ApiKeys, DEVELOPMENT, Record};
use crate::config::{self, InputFile, Problems};
use crate::secret::{Digest, Secret};
use jiff::Timestamp;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

/// An API-key file as it was when the configuration was loaded.
pub(super) struct KeyFile<'c> {
    config: &'c config::ApiKeys,
    file: &'c InputFile,
    keys: ApiKeys,
}

/// Why a file was left as it is.
#[derive(Debug)]
pub(super) enum NotChanged {
    /// Not by us: a person can do it.
    Cannot(String),
    /// Somebody else has just changed it; the same may succeed another time.
    Meanwhile,
}

impl From<io::Error> for NotChanged {
    fn from(error: io::Error) -> NotChanged {
        NotChanged::Cannot(error.to_string())
    }
}

fn cannot(reason: &str) -> NotChanged {
    NotChanged::Cannot(reason.to_owned())
}

impl<'c> KeyFile<'c> {
    /// `None` when the configuration names no file; what is wrong with its records is added to `problems`.
    pub(super) fn read(config: &'c config::ApiKeys, problems: &mut Problems) -> Option<KeyFile<'c>> {
        let file = config.file.as_ref()?;
        Some(KeyFile { config, file, keys: ApiKeys::load(config, problems) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.file.path
    }

    /// The records of the file, in no particular order: without that of the development key, whose name is taken while it is set.
    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        let development = self.config.development_key.is_some();
        self.keys.records().map(|record| &**record).filter(move |record| !development || &*record.id != DEVELOPMENT)
    }

    /// The record of this id.
    pub(super) fn record(&self, id: &str) -> Option<&Record> {
        self.records().find(|record| &*record.id == id)
    }

    /// Whether a key has this id, the development key included.
    pub(super) fn is_taken(&self, id: &str) -> bool {
        self.keys.records().any(|record| &*record.id == id)
    }

    /// Adds the record of `key`, or leaves the file as it is.
    pub(super) fn add(&self, record: &Record, key: &NewKey) -> Result<(), NotChanged> {
        let after = added(self.text()?, record, key)?;
        self.put(&after, &self.keys.changed(None, Some((key.digest(), record.clone()))))
    }

    /// Revokes the key of the record `id`, or leaves the file as it is.
    pub(super) fn revoke(&self, record: &Record, at: Timestamp) -> Result<(), NotChanged> {
        let after = set(self.text()?, record, "revoked_at", at)?;
        let revoked = Record { revoked_at: Some(at.into()), ..record.clone() };
        self.put(&after, &self.keys.changed(Some(revoked), None))
    }

    /// Adds the record of `key`, and lets that of the key it replaces expire at `expiry`, if that is given; or leaves the
    /// file as it is.
    pub(super) fn rotate(&self, old: &Record, expiry: Option<Timestamp>, new: &Record, key: &NewKey) -> Result<(), NotChanged> {
        let mut after = self.text()?.to_owned();
        let mut expiring = None;
        if let Some(expiry) = expiry {
            after = set(&after, old, "expires_at", expiry)?;
            expiring = Some(Record { expires_at: Some(expiry.into()), ..old.clone() });
        }
        let after = added(&after, new, key)?;
        self.put(&after, &self.keys.changed(expiring, Some((key.digest(), new.clone()))))
    }

    fn text(&self) -> Result<&str, NotChanged> {
        std::str::from_utf8(self.file.content.expose()).map_err(|_| cannot("it is not UTF-8"))
    }

    /// Puts `after` in the place of the file, provided that the reader finds exactly what was `meant` in it.
    fn put(&self, after: &str, meant: &ApiKeys) -> Result<(), NotChanged> {
        let file = InputFile { content: Secret::new(after.as_bytes().to_vec()), ..self.file.clone() };
        let development_key = self.config.development_key.clone();
        let config = config::ApiKeys { header: self.config.header.clone(), file: Some(file), development_key };
        let mut problems = Problems::default();
        let found = ApiKeys::load(&config, &mut problems);
        if problems.has_errors() || found != *meant {
            return Err(cannot("it is written in a way that would be read otherwise after the change"));
        }
        replace(self.path(), self.file.content.expose(), after.as_bytes())
    }
}

fn added(text: &str, record: &Record, key: &NewKey) -> Result<String, NotChanged> {
    with_record(text, record, key.digest()).ok_or_else(|| cannot("its `keys` is not a list with one `- ` a record"))
}

fn set(text: &str, record: &Record, field: &'static str, time: Timestamp) -> Result<String, NotChanged> {
    with_field(text, &record.id, field, &time.to_string()).ok_or_else(|| cannot("its records are written in an unusual way"))
}

/// `text` with one more record at its end; `None` when `keys` is not a block list or `[]`.
fn with_record(text: &str, record: &Record, sha256: Digest) -> Option<String> {
    let start = text.split_inclusive('\n').take_while(|line| !line.starts_with("keys:")).map(str::len).sum();
    let (above, member) = text.split_at_checked(start)?;
    let (line, below) = member.split_at(member.find('\n').map_or(member.len(), |newline| newline + 1));
    let value = line.strip_prefix("keys:")?;
    let (content, indent) = match value.trim_start() {
        empty if empty.starts_with("[]") => {
            let comment = empty.strip_prefix("[]")?;
            (format!("{above}keys:{comment}{below}"), super::INDENT)
        }
        comment if comment.is_empty() || comment.starts_with('#') => (text.to_owned(), list_indent(below)?),
        _ => return None,
    };
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let record = record_text(record, sha256, indent).replace('\n', newline);
    let gap = if content.ends_with('\n') { "" } else { newline };
    Some(format!("{content}{gap}{record}"))
}

/// The spaces before the hyphens of the list that begins in `text`.
fn list_indent(text: &str) -> Option<usize> {
    let first = text.lines().find(|line| !matches!(line.trim_start().as_bytes(), [] | [b'#', ..]))?;
    let item = first.trim_start_matches(' ');
    (item == "-" || item.starts_with("- ")).then(|| first.len() - item.len())
}

/// Puts `after` in the place of the file at `path` in one step, unless it is no longer `before`.
fn replace(path: &Path, before: &[u8], after: &[u8]) -> Result<(), NotChanged> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Two of us at a time would each lose the other's record. Released when it is closed.
    let folder_handle = File::open(folder)?;
    folder_handle.lock()?;
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() {
        return Err(NotChanged::Cannot("it is a link, as in a mounted Secret: what it points to is changed elsewhere".to_owned()));
    }
    if fs::read(path)? != before {
        return Err(NotChanged::Meanwhile);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}.new", std::process::id()));
    let written = write_like(&metadata, &temporary, after).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // It may not be there at all.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    // The record is there for everybody; only a power cut could still take it back.
    let _ = folder_handle.sync_all();
    Ok(())
}

/// Writes a new file with the owner and mode of another, through to the disk.
fn write_like(metadata: &fs::Metadata, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let created = file.metadata()?;
    if (created.uid(), created.gid()) != (metadata.uid(), metadata.gid()) {
        // A file of root's that the proxy may not read would be worse than one that lacks a record.
        fchown(&file, Some(metadata.uid()), Some(metadata.gid()))?;
    }
    file.set_permissions(Permissions::from_mode(metadata.mode() & 0o7777))?;
    file.write_all(content)?;
    file.sync_all()
}
