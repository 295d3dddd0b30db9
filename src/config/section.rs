//! Reading the tree: a section hands out its keys one by one and reports what is left over; a field becomes a value or
//! a problem with its place, what was found and what was expected. Nothing here stops at the first problem.

use super::nearest::did_you_mean;
use super::node::{Entry, Mark, Node, Value};
use super::values::{self, A_DURATION, Parsed, shown};
use super::{Position, Problems, ReadFile};
use std::cell::RefCell;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A configuration file as far as positions and relative paths need it.
pub(super) struct Origin {
    pub(super) name: Arc<str>,
    /// What relative paths in it are relative to.
    pub(super) base: PathBuf,
}

/// What all sections of one load share.
pub(super) struct Reader<'a> {
    pub(super) origins: &'a [Origin],
    pub(super) env: &'a dyn Fn(&str) -> Option<OsString>,
    pub(super) problems: RefCell<Problems>,
    /// The files that the texts name.
    pub(super) files: RefCell<Vec<ReadFile>>,
}

impl Reader<'_> {
    pub(super) fn position(&self, mark: Mark, key: &str) -> Position {
        let file = self.origins.get(mark.source).map(|origin| origin.name.clone()).unwrap_or_default();
        Position { file, line: mark.line, column: mark.column, key: key.to_owned() }
    }

    pub(super) fn error(&self, mark: Mark, key: &str, message: impl Into<String>) {
        self.problems.borrow_mut().error(&self.position(mark, key), message);
    }
}

/// A mapping with known keys.
pub(super) struct Section<'a> {
    reader: &'a Reader<'a>,
    path: String,
    mark: Mark,
    entries: &'a [Entry],
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) fn root(reader: &'a Reader<'a>, node: &'a Node) -> Section<'a> {
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            _ => &[],
        };
        Section { reader, path: String::new(), mark: node.mark, entries, known: Vec::new() }
    }

    /// The value of a key, or its absence. Each key is asked for once; that makes it a known one.
    pub(super) fn field(&mut self, key: &'static str) -> Field<'a> {
        self.known.push(key);
        let node = self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node);
        let mark = node.map_or(self.mark, |node| node.mark);
        Field { reader: self.reader, path: joined(&self.path, key), mark, node, secret: false }
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        for entry in self.entries.iter().filter(|entry| !self.known.contains(&entry.key.as_str())) {
            let message = match entry.key.as_str() {
                "<<" => "merge keys (<<) are not supported; write the keys out or use an alias for a whole value".to_owned(),
                key => {
                    let meant = did_you_mean(key, self.known.iter().copied());
                    format!("unknown key {}, expected one of {}{meant}", shown(key), self.known.join(", "))
                }
            };
            self.reader.error(entry.key_mark, &joined(&self.path, &entry.key), message);
        }
    }
}

/// `authorization.methods["/a.B/C"]`: names that are not plain words are quoted.
pub(super) fn joined(path: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    match plain {
        true if path.is_empty() => key.to_owned(),
        true => format!("{path}.{key}"),
        false => format!("{path}[{}]", shown(key)),
    }
}

/// The value of a key, or its absence.
#[derive(Clone)]
pub(super) struct Field<'a> {
    pub(super) reader: &'a Reader<'a>,
    path: String,
    /// The value; of an absent one, what surrounds it.
    mark: Mark,
    node: Option<&'a Node>,
    secret: bool,
}

impl<'a> Field<'a> {
    /// A whole document.
    pub(super) fn root(reader: &'a Reader<'a>, node: &'a Node) -> Field<'a> {
        Field { reader, path: String::new(), mark: node.mark, node: Some(node), secret: false }
    }

    /// Never quote the value.
    pub(super) fn secret(mut self) -> Field<'a> {
        self.secret = true;
        self
    }

    /// Of a URL: do not quote one that may hold a password, wherever in it that may stand.
    pub(super) fn hiding_userinfo(self) -> Field<'a> {
        let holds = matches!(self.value(), Some(Value::Text(text)) if text.contains('@'));
        if holds { self.secret() } else { self }
    }

    pub(super) fn is_set(&self) -> bool {
        self.node.is_some()
    }

    pub(super) fn position(&self) -> Position {
        self.reader.position(self.mark, &self.path)
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// What a relative path in the value is relative to.
    pub(super) fn base(&self) -> PathBuf {
        self.reader.origins.get(self.mark.source).map(|origin| origin.base.clone()).unwrap_or_default()
    }

    pub(super) fn error(&self, message: impl Into<String>) {
        self.reader.error(self.mark, &self.path, message);
    }

    pub(super) fn warning(&self, message: impl Into<String>) {
        self.reader.problems.borrow_mut().warning(&self.position(), message);
    }

    /// Reports when the key is absent.
    pub(super) fn required(self, expected: &str) -> Field<'a> {
        if self.node.is_none() {
            self.error(format!("missing; expected {expected}"));
        }
        self
    }

    /// `found …, expected …`.
    pub(super) fn wrong(&self, expected: &str, hint: &str) {
        let found = self.found();
        let hint = if hint.is_empty() { String::new() } else { format!(" ({hint})") };
        self.error(format!("found {found}, expected {expected}{hint}"));
    }

    fn found(&self) -> String {
        match self.node.map(|node| &node.value) {
            None | Some(Value::Null) => "nothing".to_owned(),
            Some(Value::List(_)) => "a list".to_owned(),
            Some(Value::Map(_)) => "a mapping".to_owned(),
            Some(Value::Text(_)) if self.secret => "a text".to_owned(),
            Some(_) if self.secret => "a number or boolean".to_owned(),
            Some(Value::Bool(value)) => value.to_string(),
            Some(Value::Integer(value)) => format!("the number {value}"),
            Some(Value::Float(value)) => format!("the number {value}"),
            Some(Value::Text(value)) => shown(value),
        }
    }

    /// A non-empty text.
    pub(super) fn text(&self, expected: &str) -> Option<&'a str> {
        match &self.node?.value {
            Value::Text(text) if !text.is_empty() => return Some(text),
            Value::Text(_) => self.wrong(expected, ""),
            Value::Integer(_) | Value::Float(_) | Value::Bool(_) => self.wrong(expected, "put it in quotes if it is meant as text"),
            Value::Null | Value::List(_) | Value::Map(_) => self.wrong(expected, ""),
        }
        None
    }

    /// A text, which may be empty.
    pub(super) fn any_text(&self, expected: &str) -> Option<&'a str> {
        match &self.node?.value {
            Value::Text(text) => Some(text),
            _ => self.text(expected),
        }
    }

    /// A text that means something.
    pub(super) fn parse<T>(&self, expected: &str, parse: impl FnOnce(&'a str) -> Parsed<T>) -> Option<T> {
        let text = match &self.node?.value {
            Value::Text(text) => text,
            _ => {
                self.wrong(expected, self.word_hint(expected));
                return None;
            }
        };
        parse(text).map_err(|hint| self.wrong(expected, hint)).ok()
    }

    /// YAML writers turn a bare `off` into `false`.
    fn word_hint(&self, expected: &str) -> &'static str {
        match self.node.map(|node| &node.value) {
            Some(Value::Bool(false)) if expected.contains("none") => "our word is none",
            Some(Value::Integer(_)) if expected.starts_with(A_DURATION) => "a unit is missing",
            _ => "",
        }
    }

    /// Whether the value is the text `none`; `off` and its like are reported as something else by whoever parses it.
    pub(super) fn is_none_word(&self) -> bool {
        matches!(self.node.map(|node| &node.value), Some(Value::Text(text)) if text == "none")
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let expected = if names.len() > 2 { format!("one of {}", names.join(", ")) } else { names.join(" or ") };
        match &self.node?.value {
            Value::Text(text) => {
                let found = words.iter().find(|(name, _)| name == text).map(|(_, value)| *value);
                if found.is_none() {
                    self.error(format!("found {}, expected {expected}{}", self.found(), did_you_mean(text, names)));
                }
                found
            }
            _ => {
                let found = self.found();
                let only_quotes_miss = names.iter().any(|name| found.strip_prefix("the number ") == Some(name));
                self.wrong(&expected, if only_quotes_miss { "put it in quotes" } else { self.word_hint(&expected) });
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        match &self.node?.value {
            Value::Bool(value) => Some(*value),
            _ => {
                self.wrong("true or false", "");
                None
            }
        }
    }

    /// A boolean whose `true` weakens security: said at every start.
    pub(super) fn risky(&self, risk: &str) -> bool {
        let on = self.boolean().unwrap_or(false);
        if on {
            self.warning(risk);
        }
        on
    }

    /// A whole number within bounds, both included.
    pub(super) fn number(&self, least: u32, most: u32) -> Option<u32> {
        let Value::Integer(number) = self.node?.value else {
            self.wrong(&format!("a whole number from {least} to {most}"), "");
            return None;
        };
        let number = u32::try_from(number).ok().filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.wrong(&format!("a whole number from {least} to {most}"), "");
        }
        number
    }

    /// A duration of at least `least`.
    pub(super) fn duration(&self, least: Duration) -> Option<Duration> {
        let duration = self.parse(A_DURATION, values::duration)?;
        if duration < least {
            self.wrong(&format!("a duration of at least {least:?}"), "");
            return None;
        }
        Some(duration)
    }

    /// A duration above zero, or `none`.
    pub(super) fn duration_or_none(&self) -> Option<Duration> {
        if self.is_none_word() {
            return None;
        }
        let expected = format!("{A_DURATION}, or none");
        self.parse(&expected, |text| match text {
            "off" | "never" | "no" | "disabled" => Err("our word is none"),
            _ => values::duration(text).and_then(|duration| if duration.is_zero() { Err("our word is none") } else { Ok(duration) }),
        })
    }

    /// A mapping with known keys.
    pub(super) fn section(&self) -> Option<Section<'a>> {
        let node = self.node?;
        match &node.value {
            Value::Map(entries) => {
                Some(Section { reader: self.reader, path: self.path.clone(), mark: node.mark, entries, known: Vec::new() })
            }
            _ => {
                self.wrong("a mapping", "");
                None
            }
        }
    }

    /// The entries of a mapping whose keys are the operator's.
    pub(super) fn entries(&self, expected: &str) -> Vec<(&'a str, Field<'a>)> {
        match self.node.map(|node| &node.value) {
            None => Vec::new(),
            Some(Value::Map(entries)) => {
                let fields = entries.iter().filter(|entry| {
                    let merge = entry.key == "<<";
                    if merge {
                        self.reader.error(entry.key_mark, &self.path, "merge keys (<<) are not supported; write the keys out");
                    }
                    !merge
                });
                fields.map(|entry| (entry.key.as_str(), self.child(joined(&self.path, &entry.key), &entry.node))).collect()
            }
            Some(_) => {
                self.wrong(expected, "");
                Vec::new()
            }
        }
    }

    /// The items of a list.
    pub(super) fn items(&self, expected: &str) -> Option<Vec<Field<'a>>> {
        let Value::List(items) = &self.node?.value else {
            self.wrong(expected, "");
            return None;
        };
        let fields = items.iter().enumerate().map(|(i, item)| self.child(format!("{}[{i}]", self.path), item));
        Some(fields.collect())
    }

    /// A list of non-empty texts.
    pub(super) fn texts(&self, expected: &str) -> Option<Vec<&'a str>> {
        let items = self.items(expected)?;
        Some(items.iter().filter_map(|item| item.text("a text")).collect())
    }

    /// The items of a list that has some.
    pub(super) fn some_items(&self, expected: &str) -> Option<Vec<Field<'a>>> {
        let items = self.items(expected)?;
        if items.is_empty() {
            self.error(format!("found an empty list, expected {expected}"));
        }
        Some(items).filter(|items| !items.is_empty())
    }

    /// A list of at least one non-empty text.
    pub(super) fn some_texts(&self, expected: &str) -> Option<Vec<&'a str>> {
        let items = self.some_items(expected)?;
        Some(items.iter().filter_map(|item| item.text("a text")).collect())
    }

    /// What kind of value a key takes that has several forms.
    pub(super) fn value(&self) -> Option<&'a Value> {
        self.node.map(|node| &node.value)
    }

    fn child(&self, path: String, node: &'a Node) -> Field<'a> {
        Field { reader: self.reader, path, mark: node.mark, node: Some(node), secret: self.secret }
    }
}
