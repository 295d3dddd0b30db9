//! Adds a record to an API-key file: the text is edited, not written anew, so that comments and order stay; the result is
//! read with the proxy's own reader and compared before it takes the file's place in one step.

use super::record_text::record_text;
use crate::api_keys::key::NewKey;
use crate::api_keys::{ApiKeys, Record};
use crate::config::{self, InputFile, Problems};
use crate::secret::{Digest, Secret};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

/// An API-key file as it was when the configuration was loaded.
pub(super) struct KeyFile<'c> {
    config: &'c config::ApiKeys,
    file: &'c InputFile,
    records: ApiKeys,
}

/// Why a file was left as it is.
#[derive(Debug)]
pub(super) enum NotAdded {
    /// Not by us: a person can do it.
    Cannot(String),
    /// Somebody else has just changed it; the same may succeed another time.
    Changed,
}

impl From<io::Error> for NotAdded {
    fn from(error: io::Error) -> NotAdded {
        NotAdded::Cannot(error.to_string())
    }
}

impl<'c> KeyFile<'c> {
    /// `None` when the configuration names no file; what is wrong with its records is added to `problems`.
    pub(super) fn read(config: &'c config::ApiKeys, problems: &mut Problems) -> Option<KeyFile<'c>> {
        let file = config.file.as_ref()?;
        Some(KeyFile { config, file, records: ApiKeys::load(config, problems) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.file.path
    }

    /// Whether a record has this id.
    pub(super) fn has(&self, id: &str) -> bool {
        self.records.records().any(|record| &*record.id == id)
    }

    /// Adds the record of `key`, or leaves the file as it is.
    pub(super) fn add(&self, record: &Record, key: &NewKey) -> Result<(), NotAdded> {
        let cannot = |reason: &str| NotAdded::Cannot(reason.to_owned());
        let before = self.file.content.expose();
        let text = std::str::from_utf8(before).map_err(|_| cannot("it is not UTF-8"))?;
        let after = with_record(text, record, key.digest()).ok_or_else(|| cannot("its `keys` is not a list with one `- ` a record"))?;
        if !self.is_the_same_but_for(&after, record, key) {
            return Err(cannot("a record at its end would not be read as one more record"));
        }
        replace(self.path(), before, after.as_bytes())
    }

    /// Whether the reader finds in `text` every record that was there, the new one, and no other.
    fn is_the_same_but_for(&self, text: &str, record: &Record, key: &NewKey) -> bool {
        let file = InputFile { content: Secret::new(text.as_bytes().to_vec()), ..self.file.clone() };
        let development_key = self.config.development_key.clone();
        let config = config::ApiKeys { header: self.config.header.clone(), file: Some(file), development_key };
        let mut problems = Problems::default();
        let after = ApiKeys::load(&config, &mut problems);
        let by_id: HashMap<&str, &Record> = after.records().map(|record| (&*record.id, &**record)).collect();
        !problems.has_errors()
            && after.records().count() == self.records.records().count() + 1
            && self.records.records().all(|old| by_id.get(&*old.id) == Some(&&**old))
            && after.find(key.text().as_bytes()).is_some_and(|new| **new == *record)
    }
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
fn replace(path: &Path, before: &[u8], after: &[u8]) -> Result<(), NotAdded> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Two of us at a time would each lose the other's record. Released when it is closed.
    let folder_handle = File::open(folder)?;
    folder_handle.lock()?;
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() {
        return Err(NotAdded::Cannot("it is a link, as in a mounted Secret: what it points to is changed elsewhere".to_owned()));
    }
    if fs::read(path)? != before {
        return Err(NotAdded::Changed);
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
