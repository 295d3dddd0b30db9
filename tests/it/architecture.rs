//! The house's rules, held over the source text: imports only go down, a file says what it is for, and no file is a novel.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, lowest layer first. Rooms of one layer do not know each other.
const LAYERS: [&[&str]; 12] = [
    &["memo"],
    &["bell", "grpc", "http2", "identity", "quote", "secret", "drain", "readiness"],
    &["config"],
    &["telemetry", "tls", "authorization", "rate_limits", "storage"],
    &["identity_headers", "api_keys", "usage", "upstream"],
    &["authentication", "issuer"],
    &["refusal"],
    &["proxy"],
    &["listener", "operations", "admin"],
    &["app"],
    &["cli"],
    &["main", "lib"],
];

/// Imports that do not go down, each with its reason.
const ALLOWED: [(&str, &str, &str); 0] = [];

/// Files longer than a file should be, each with its reason.
const LONG: [(&str, &str); 1] = [("proxy.rs", "one call from start to finish, to be read in one go")];

const LONGEST: usize = 400;

struct Source {
    /// Relative to `src/`.
    name: String,
    room: String,
    /// How many modules deep the file itself is: `a.rs` and `a/mod.rs` are 1.
    depth: usize,
    /// Up to its tests.
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    assert!(found.len() > 20, "the sources are here");
    found.into_iter().map(|path| Source::read(&root, &path)).collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

impl Source {
    fn read(root: &Path, path: &Path) -> Source {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let modules: Vec<&str> = name.trim_end_matches(".rs").split('/').filter(|module| *module != "mod").collect();
        let text = fs::read_to_string(path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
        Source { room: modules[0].to_owned(), depth: modules.len(), name, text }
    }

    /// Every room that the code, not the documentation, refers to.
    fn references(&self) -> Vec<String> {
        let mut found = Vec::new();
        for line in self.text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            found.extend(following(line, "crate::"));
            found.extend(following(line, "doorward::"));
            // As many `super` as the file is deep lead out of its room.
            let out = "super::".repeat(self.depth);
            found.extend(following(line, &out).into_iter().filter(|name| name != "super"));
        }
        found
    }

    fn is_test(&self) -> bool {
        self.name.ends_with("tests.rs") || self.name.contains("/tests/")
    }
}

/// The identifiers right after each occurrence of `prefix`.
fn following(line: &str, prefix: &str) -> Vec<String> {
    let identifier = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    line.match_indices(prefix).map(|(at, _)| identifier(&line[at + prefix.len()..])).collect()
}

fn layer(room: &str) -> Option<usize> {
    LAYERS.iter().position(|rooms| rooms.contains(&room))
}

#[test]
fn imports_only_go_down() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(own) = layer(&source.room) else {
            wrong.push(format!("{}: the room `{}` has no layer", source.name, source.room));
            continue;
        };
        // lib.rs only lists the rooms.
        for room in source.references().into_iter().filter(|room| *room != source.room && source.room != "lib") {
            let allowed = ALLOWED.iter().any(|(from, to, _)| source.name == *from && room == *to);
            let down = layer(&room).is_some_and(|other| other < own);
            if !down && !allowed {
                wrong.push(format!("{} refers to `{room}`, which is not below it", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for_and_is_no_novel() {
    let mut wrong = Vec::new();
    for source in sources() {
        let introduction = source.text.lines().take_while(|line| line.starts_with("//!")).count();
        if introduction == 0 {
            wrong.push(format!("{} does not open with `//!`", source.name));
        }
        let lines = source.text.lines().count();
        if lines > LONGEST && !source.is_test() && LONG.iter().all(|(name, _)| *name != source.name) {
            wrong.push(format!("{} has {lines} lines before its tests, more than {LONGEST}", source.name));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn rooms_are_named_after_what_they_do() {
    for source in sources() {
        for word in ["manager", "helper", "util", "common", "misc"] {
            assert!(!source.name.contains(word), "{}: `{word}` says nothing", source.name);
        }
    }
}

#[test]
fn every_exception_is_still_needed() {
    let sources = sources();
    for (from, to, reason) in ALLOWED {
        assert!(
            sources.iter().any(|source| source.name == from && source.references().contains(&to.to_owned())),
            "{from} → {to} ({reason})"
        );
    }
    for (name, reason) in LONG {
        assert!(sources.iter().any(|source| source.name == name && source.text.lines().count() > LONGEST), "{name} ({reason})");
    }
}
