//! The files that a configuration names: read once, here, so that a missing one is an error with the place that names it.

use super::section::Field;
use super::{InputFile, ReadFile};
use crate::secret::{Digest, Secret};
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Far above any configuration, key set or certificate chain; below what would hurt.
const LARGEST: u64 = 256 << 20;

/// Whether others may read a file without harm.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Public,
    Secret,
    /// A JWK set: harmless as long as it holds public keys only.
    KeySet,
}

impl Content {
    fn is_secret(self, bytes: &[u8]) -> bool {
        match self {
            Content::Public => false,
            Content::Secret => true,
            Content::KeySet => holds_secret_key(bytes),
        }
    }
}

impl Field<'_> {
    /// The path in the value, resolved against the file it stands in.
    pub(super) fn path_value(&self) -> Option<PathBuf> {
        self.text("the path of a file").map(|path| self.base().join(path))
    }

    /// The file the value names. With empty content when it could not be read, which has been reported then.
    pub(super) fn input_file(&self, content: Content) -> Option<InputFile> {
        self.file(content, false)
    }

    /// Likewise, of a file that somebody else looks at again: its change makes no new configuration.
    pub(super) fn followed_file(&self, content: Content) -> Option<InputFile> {
        self.file(content, true)
    }

    fn file(&self, content: Content, followed_by_others: bool) -> Option<InputFile> {
        let path = self.path_value()?;
        let mut mode = 0;
        let bytes = read_some(&path, |found| mode = found);
        let digest = bytes.as_deref().ok().map(Digest::of);
        self.reader.files.borrow_mut().push(ReadFile { path: path.clone(), digest, followed_by_others });
        let bytes = bytes.unwrap_or_else(|error| {
            self.error(format!("cannot use {}: {}", path.display(), in_words(&error)));
            Vec::new()
        });
        if mode & 0o004 != 0 && content.is_secret(&bytes) {
            self.warning(format!("everybody on this machine can read {} (mode {:04o}); chmod o-r it", path.display(), mode & 0o7777));
        }
        Some(InputFile { at: self.position(), path, content: Secret::new(bytes) })
    }

    /// A secret as a file holds it: one final newline, which editors add, is no part of it.
    pub(super) fn secret_file(&self) -> Option<Secret> {
        let file = self.input_file(Content::Secret)?;
        let bytes = file.content.expose();
        Some(Secret::new(bytes.strip_suffix(b"\n").unwrap_or(bytes).to_vec()))
    }
}

impl InputFile {
    /// The same file as it is now.
    ///
    /// # Errors
    /// Why it cannot be used, in words without its path.
    pub fn read_again(&self) -> Result<InputFile, String> {
        let bytes = read_some(&self.path, |_| ()).map_err(|error| in_words(&error))?;
        Ok(InputFile { at: self.at.clone(), path: self.path.clone(), content: Secret::new(bytes) })
    }
}

/// Whether a JWK of the set has what only its owners may know: a shared secret (RFC 7518 §6.4.1), or by mistake the
/// private part of a key pair (§6.2.2, §6.3.2).
fn holds_secret_key(key_set: &[u8]) -> bool {
    let document: Value = serde_json::from_slice(key_set).unwrap_or_default();
    let keys = document.get("keys").and_then(Value::as_array);
    keys.is_some_and(|keys| keys.iter().any(|key| key.get("k").is_some() || key.get("d").is_some()))
}

/// Nothing but white space is not taken for a file that says nothing.
fn read_some(path: &Path, seen: impl FnOnce(u32)) -> io::Result<Vec<u8>> {
    read(path, seen).and_then(|bytes| match bytes.trim_ascii() {
        [] => Err(io::Error::other("it is empty")),
        _ => Ok(bytes),
    })
}

/// Reads at most [`LARGEST`] bytes; `seen` gets the mode of the very file that is read.
pub(super) fn read(path: &Path, seen: impl FnOnce(u32)) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    seen(file.metadata()?.permissions().mode());
    read_bounded(file)
}

/// The whole of `input`, unless it is unreasonably long.
pub(super) fn read_bounded(input: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other("it is larger than 256 MiB"));
    }
    Ok(bytes)
}

/// Without the operating system's error number.
pub(super) fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "not permitted to read it".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string(),
    }
}
