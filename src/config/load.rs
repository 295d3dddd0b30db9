//! From paths to a [`Config`]: read, parse, join, resolve. Every problem of every stage ends up in one list.

use super::files::{in_words, read, read_bounded};
use super::node::{self, Mark, Value};
use super::section::{Origin, Reader, Section};
use super::{Config, Position, Problems, container, merge, resolve};
use crate::secret::Digest;
use std::cell::RefCell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What came of a load.
#[derive(Debug)]
pub struct Loaded {
    /// As much as could be understood, with placeholders where not: so that the rooms that read the named files can
    /// report their problems in the same run. Never to be run when [`Problems::has_errors`].
    pub config: Option<Config>,
    /// Every error and warning, in the order of the files.
    pub problems: Problems,
    /// Everything that was read, or should have been: what a running proxy watches.
    pub files: Vec<ReadFile>,
}

/// A file as a load found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadFile {
    /// As it was opened; links in it may lead elsewhere tomorrow.
    pub path: PathBuf,
    /// Of the content; `None` when it could not be used.
    pub digest: Option<Digest>,
    /// Its change is no change of the configuration: who needs it looks again by itself.
    pub followed_by_others: bool,
}

/// One configuration file, read.
#[derive(Debug)]
pub struct Source {
    /// What positions call it.
    pub name: String,
    /// The YAML.
    pub text: String,
    /// What relative paths in it are relative to.
    pub base: PathBuf,
}

/// What a configuration may ask its surroundings.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// Environment variables, for `secret_env`.
    pub env: &'a dyn Fn(&str) -> Option<OsString>,
    /// CPUs this container may use, for `workers: auto`.
    pub cpus: usize,
    /// Bytes of memory this container may use, `None` without a limit.
    pub memory: Option<u64>,
}

/// Loads the files as one configuration; `-` is standard input.
pub fn load(paths: &[PathBuf]) -> Loaded {
    let mut problems = Problems::default();
    let (mut sources, mut files) = (Vec::new(), Vec::new());
    let mut input_taken = false;
    for path in paths {
        let is_input = path.as_os_str() == "-";
        if is_input && std::mem::replace(&mut input_taken, true) {
            let at = Position { file: "-".into(), ..Position::default() };
            problems.error(&at, "standard input can be read once only");
            continue;
        }
        let name = path.display().to_string();
        let bytes = if is_input { read_bounded(std::io::stdin().lock()) } else { read(path, |_| ()) };
        files.push(ReadFile { path: path.clone(), digest: bytes.as_deref().ok().map(Digest::of), followed_by_others: false });
        let text = bytes.map_err(|error| in_words(&error)).and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".into()));
        match text {
            Ok(text) => {
                let base = if is_input { Path::new("") } else { path.parent().unwrap_or(Path::new("")) };
                sources.push(Source { name, text, base: base.to_owned() });
            }
            Err(reason) => {
                let at = Position { file: name.into(), ..Position::default() };
                problems.error(&at, format!("cannot read the configuration: {reason}"));
            }
        }
    }
    // What is missing from half a configuration would only be noise.
    if problems.has_errors() {
        return Loaded { config: None, problems, files };
    }
    let surroundings = Surroundings { env: &|name| std::env::var_os(name), cpus: container::cpus(), memory: container::memory() };
    let mut loaded = load_from(&sources, surroundings);
    loaded.files.splice(0..0, files);
    loaded
}

/// Loads texts that have been read already; of the files only those that they name are in the result.
pub fn load_from(sources: &[Source], surroundings: Surroundings) -> Loaded {
    let origins: Vec<Origin> =
        sources.iter().map(|source| Origin { name: source.name.as_str().into(), base: source.base.clone() }).collect();
    let reader = Reader { origins: &origins, env: surroundings.env, problems: RefCell::default(), files: RefCell::default() };
    let mut broken = sources.is_empty();
    let mut roots = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        match node::parse(&source.text, index) {
            Ok(root) if matches!(root.value, Value::Map(_)) => roots.push(root),
            Ok(root) => {
                broken = true;
                let found = match root.value {
                    Value::Null => "an empty document",
                    Value::List(_) => "a list",
                    _ => "a single value",
                };
                reader.error(root.mark, "", format!("found {found}, expected a mapping with keys such as listen and upstream"));
            }
            Err(error) => {
                broken = true;
                reader.error(Mark { source: index, line: error.line, column: error.column }, "", error.message);
            }
        }
    }
    let root = merge::merge(&reader, roots);
    let config = root.filter(|_| !broken).map(|root| resolve::config(Section::root(&reader, &root), surroundings));
    let (mut problems, files) = (reader.problems.into_inner(), reader.files.into_inner());
    problems.sort_by_file(&origins.iter().map(|origin| origin.name.clone()).collect::<Vec<_>>());
    Loaded { config, problems, files }
}
