//! The API-key file: YAML records to `Record`s, every problem at once, each with its place.
//!
//! A record is first read as a tree that can hold any YAML (`Node`), so that one wrong field does not hide the next
//! one, then checked field by field and dropped: a file of a hundred thousand keys never stands in memory twice.
//! No value is ever quoted in a message: an operator who pastes a key where its hash belongs must not find it in a log.

use super::record::{KeyType, Record};
use super::yaml::{Node, Step, locate};
use crate::config::{InputFile, Position, Problems};
use crate::identity::Permission;
use crate::secret::Digest;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// Errors listed before the rest is only counted: a broken generator breaks every record alike.
const LISTED_PROBLEMS: usize = 100;
/// Finding a position reads the file anew up to it; this many bytes are read for that purpose at most.
const BYTES_READ_FOR_POSITIONS: usize = 64 << 20;
/// Ids of keys without an expiry named in the one warning about them.
const NAMED_WITHOUT_EXPIRY: usize = 10;
/// An id is a metrics label and a header value.
const LONGEST_NAME: usize = 256;

/// Reads all records of `input`; `taken` is an id that no record may have.
pub(super) fn read(input: &InputFile, taken: Option<&str>, problems: &mut Problems) -> HashMap<Digest, Arc<Record>> {
    let mut reader = Reader { ids: taken.map(Arc::from).into_iter().collect(), ..Reader::default() };
    let content = input.content.expose();
    if let Err(error) = (Document { reader: &mut reader }).deserialize(serde_yaml::Deserializer::from_slice(content)) {
        let text = error.to_string();
        // Serde's own words for a wrong type quote the value.
        let text = if text.contains("invalid type") { "expected a mapping whose member `keys` is a list" } else { text.as_str() };
        let at = Position { key: String::new(), ..position(input, error.location().as_ref()) };
        problems.error(&at, format!("not an API-key file: {text}"));
        return HashMap::new();
    }
    reader.report(input, problems);
    reader.records
}

#[derive(Default)]
struct Reader {
    records: HashMap<Digest, Arc<Record>>,
    ids: HashSet<Arc<str>>,
    keys_found: bool,
    without_expiry: Vec<Arc<str>>,
    found: Vec<Found>,
}

/// A problem before its position is known: the record's index, its field, what is wrong.
struct Found {
    record: Option<usize>,
    field: Option<&'static str>,
    message: String,
}

impl Reader {
    fn problem(&mut self, record: impl Into<Option<usize>>, field: impl Into<Option<&'static str>>, message: impl Into<String>) {
        self.found.push(Found { record: record.into(), field: field.into(), message: message.into() });
    }

    fn record(&mut self, index: usize, node: Node) {
        let Node::Mapping(members) = node else {
            return self.problem(index, None, format!("expected a mapping, found {}", node.kind()));
        };
        let errors_before = self.found.len();
        let mut fields = Fields::default();
        for (name, value) in members {
            fields.read(self, index, &name, value);
        }
        let missing = [("id", fields.id.is_none()), ("client_id", fields.client_id.is_none()), ("sha256", fields.sha256.is_none())];
        for (name, _) in missing.into_iter().filter(|(name, missing)| *missing && !fields.seen.contains(name)) {
            self.problem(index, None, format!("`{name}` is missing"));
        }
        if let Some(id) = &fields.id
            && !self.ids.insert(id.clone())
        {
            self.problem(index, "id", "another key has the same id");
        }
        if let Some(sha256) = &fields.sha256
            && self.records.contains_key(sha256)
        {
            self.problem(index, "sha256", "another key has the same sha256");
        }
        if self.found.len() > errors_before {
            return;
        }
        if let (Some(id), Some(client_id), Some(sha256)) = (fields.id, fields.client_id, fields.sha256) {
            if fields.expires_at.is_none() && fields.revoked_at.is_none() {
                self.without_expiry.push(id.clone());
            }
            let record = Record {
                id,
                name: fields.name,
                client_id,
                user_id: fields.user_id,
                key_type: fields.key_type,
                roles: fields.roles,
                permissions: fields.permissions,
                expires_at: fields.expires_at,
                revoked_at: fields.revoked_at,
            };
            self.records.insert(sha256, Arc::new(record));
        }
    }

    fn report(&mut self, input: &InputFile, problems: &mut Problems) {
        if !self.keys_found {
            self.problem(None, None, "the member `keys` is missing");
        }
        let located = BYTES_READ_FOR_POSITIONS / input.content.expose().len().max(1);
        for (nth, found) in self.found.iter().take(LISTED_PROBLEMS).enumerate() {
            let location = (nth < located).then(|| locate(input.content.expose(), &found.path())).flatten();
            let at = Position { key: found.key(), ..position(input, location.as_ref()) };
            problems.error(&at, found.message.as_str());
        }
        if self.found.len() > LISTED_PROBLEMS {
            problems.error(&position(input, None), format!("and {} more problems", self.found.len() - LISTED_PROBLEMS));
        }
        if !self.without_expiry.is_empty() {
            let named = self.without_expiry.iter().take(NAMED_WITHOUT_EXPIRY).map(|id| &**id).collect::<Vec<_>>().join(", ");
            let rest = match self.without_expiry.len().saturating_sub(NAMED_WITHOUT_EXPIRY) {
                0 => String::new(),
                rest => format!(" and {rest} more"),
            };
            problems.warning(&position(input, None), format!("keys that never expire: {named}{rest}"));
        }
    }
}

impl Found {
    fn key(&self) -> String {
        match (self.record, self.field) {
            (Some(record), Some(field)) => format!("keys[{record}].{field}"),
            (Some(record), None) => format!("keys[{record}]"),
            (None, field) => field.unwrap_or_default().to_owned(),
        }
    }

    fn path(&self) -> Vec<Step> {
        let record = self.record.map(|index| [Step::Key("keys"), Step::Index(index)]);
        record.into_iter().flatten().chain(self.field.map(Step::Key)).collect()
    }
}

/// The fields of one record as far as they are right.
#[derive(Default)]
struct Fields {
    seen: Vec<&'static str>,
    id: Option<Arc<str>>,
    name: Option<Arc<str>>,
    client_id: Option<Arc<str>>,
    user_id: Option<Arc<str>>,
    sha256: Option<Digest>,
    key_type: KeyType,
    roles: Vec<Arc<str>>,
    permissions: Vec<Permission>,
    expires_at: Option<SystemTime>,
    revoked_at: Option<SystemTime>,
}

const FIELDS: [&str; 9] = ["id", "name", "client_id", "user_id", "sha256", "type", "roles", "permissions", "expires_at"];
const REVOKED_AT: &str = "revoked_at";

impl Fields {
    fn read(&mut self, reader: &mut Reader, index: usize, name: &str, value: Node) {
        let Some(field) = FIELDS.into_iter().chain([REVOKED_AT]).find(|known| *known == name) else {
            let message = format!("a key that is not known; expected one of {}, {REVOKED_AT}", FIELDS.join(", "));
            return reader.problem(index, None, message);
        };
        if self.seen.contains(&field) {
            return reader.problem(index, field, "is written twice");
        }
        self.seen.push(field);
        if let Err(message) = self.set(field, value) {
            reader.problem(index, field, message);
        }
    }

    fn set(&mut self, field: &'static str, value: Node) -> Result<(), String> {
        match field {
            "id" => self.id = Some(name(value)?),
            "client_id" => self.client_id = Some(name(value)?),
            "name" => self.name = optional(value, name)?,
            "user_id" => self.user_id = optional(value, name)?,
            "sha256" => {
                let digest = text(value).ok().and_then(|text| Digest::from_hex(&text));
                self.sha256 = Some(digest.ok_or("expected 64 hex digits, the SHA-256 of the whole key")?);
            }
            "type" => self.key_type = KeyType::parse(&text(value)?).ok_or("expected service, cli or webhook")?,
            "roles" => self.roles = list(value, name)?,
            "permissions" => {
                self.permissions = list(value, |item| {
                    Permission::parse(&text(item)?).ok_or_else(|| "expected permissions of the form resource:action".to_owned())
                })?;
            }
            "expires_at" => self.expires_at = optional(value, time)?,
            _ => self.revoked_at = optional(value, time)?,
        }
        Ok(())
    }
}

fn text(value: Node) -> Result<String, String> {
    match value {
        Node::Text(text) => Ok(text),
        Node::Number | Node::Boolean => Err(format!("expected text, found {}: write it in quotes", value.kind())),
        other => Err(format!("expected text, found {}", other.kind())),
    }
}

fn name(value: Node) -> Result<Arc<str>, String> {
    let text = text(value)?;
    if text.is_empty() || text.len() > LONGEST_NAME || text.contains(char::is_control) {
        return Err(format!("expected 1 to {LONGEST_NAME} bytes of text without control characters"));
    }
    Ok(text.into())
}

fn time(value: Node) -> Result<SystemTime, String> {
    let parsed = text(value)?.parse::<jiff::Timestamp>();
    parsed.map(SystemTime::from).map_err(|_| "expected a time such as 2027-01-01T00:00:00Z (RFC 3339)".to_owned())
}

fn optional<T>(value: Node, parse: impl Fn(Node) -> Result<T, String>) -> Result<Option<T>, String> {
    if matches!(value, Node::Null) { Ok(None) } else { parse(value).map(Some) }
}

fn list<T>(value: Node, parse: impl Fn(Node) -> Result<T, String>) -> Result<Vec<T>, String> {
    match value {
        Node::Sequence(items) => items.into_iter().map(parse).collect(),
        other => Err(format!("expected a list, found {}", other.kind())),
    }
}

/// The whole file: a mapping with the one member `keys`, whose records go to the reader one by one.
struct Document<'r> {
    reader: &'r mut Reader,
}

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping with the member `keys`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(member) = members.next_key::<String>()? {
            if member != "keys" {
                self.reader.problem(None, None, "the file has a member that is not known; expected only `keys`");
                members.next_value::<IgnoredAny>()?;
            } else if self.reader.keys_found {
                self.reader.problem(None, "keys", "is written twice");
                members.next_value::<IgnoredAny>()?;
            } else {
                self.reader.keys_found = true;
                members.next_value_seed(Records { reader: self.reader })?;
            }
        }
        Ok(())
    }
}

/// The value of `keys`.
struct Records<'r> {
    reader: &'r mut Reader,
}

impl<'de> DeserializeSeed<'de> for Records<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Records<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of keys")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.reader.problem(None, "keys", "expected a list, found nothing; write `keys: []` for none");
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut index = 0;
        while let Some(node) = items.next_element::<Node>()? {
            self.reader.record(index, node);
            index += 1;
        }
        Ok(())
    }
}

fn position(input: &InputFile, location: Option<&serde_yaml::Location>) -> Position {
    Position {
        file: input.path.display().to_string().into(),
        line: location.map_or(0, serde_yaml::Location::line),
        column: location.map_or(0, serde_yaml::Location::column),
        key: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use std::fmt::Write;

    fn load(text: &str) -> (HashMap<Digest, Arc<Record>>, Vec<String>) {
        let input = InputFile { at: Position::default(), path: "keys.yaml".into(), content: Secret::new(text.as_bytes().to_vec()) };
        let mut problems = Problems::default();
        let records = read(&input, None, &mut problems);
        (records, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_whole_record_is_read() {
        let sha256 = Digest::of(b"k").hex();
        let (records, problems) = load(&format!(
            "keys:\n  - id: analytics\n    name: Analytics service\n    client_id: analytics-service\n    user_id: svc-analytics\n    sha256: {sha256}\n    type: webhook\n    roles: [viewer]\n    permissions: [\"reports:read\"]\n    expires_at: 2027-01-01T00:00:00Z\n    revoked_at: null\n"
        ));
        assert_eq!(problems, [] as [String; 0]);
        let record = &records[&Digest::of(b"k")];
        assert_eq!(
            **record,
            Record {
                id: "analytics".into(),
                name: Some("Analytics service".into()),
                client_id: "analytics-service".into(),
                user_id: Some("svc-analytics".into()),
                key_type: KeyType::Webhook,
                roles: vec!["viewer".into()],
                permissions: vec![Permission::parse("reports:read").unwrap()],
                expires_at: Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_798_761_600)),
                revoked_at: None,
            }
        );
    }

    #[test]
    fn every_problem_is_reported_with_its_place_and_no_value() {
        let sha256 = Digest::of(b"k").hex();
        let text = format!(
            "keys:
  - id: 42
    client_id: c
    sha256: hunter2
  - id: a
    clientid: c
    sha256: {sha256}
    roles: viewer
    permissions: [hunter2]
    type: robot
    expires_at: tomorrow
  - hunter2
  - {{id: b, client_id: b, sha256: {sha256}}}
  - {{id: b, client_id: b, sha256: {sha256}}}
  - {{id: c, id: d, client_id: \"\", sha256: 5}}
more: hunter2
"
        );
        let (_, problems) = load(&text);
        let problems = problems.join("\n");
        assert!(!problems.contains("hunter2") && !problems.contains(&sha256[..12]), "{problems}");
        for expected in [
            "keys.yaml:2:9: keys[0].id: expected text, found a number: write it in quotes",
            "keys.yaml:4:13: keys[0].sha256: expected 64 hex digits",
            "keys.yaml:5:5: keys[1]: a key that is not known; expected one of id, name, client_id",
            "keys.yaml:8:12: keys[1].roles: expected a list, found text",
            "keys.yaml:9:18: keys[1].permissions: expected permissions of the form",
            "keys.yaml:10:11: keys[1].type: expected service, cli or webhook",
            "keys.yaml:11:17: keys[1].expires_at: expected a time",
            "keys.yaml:5:5: keys[1]: `client_id` is missing",
            "keys.yaml:12:5: keys[2]: expected a mapping, found text",
            "keys[4].id: another key has the same id",
            "keys[4].sha256: another key has the same sha256",
            "keys[5].id: is written twice",
            "keys[5].client_id: expected 1 to 256 bytes",
            "keys[5].sha256: expected 64 hex digits",
            "the file has a member that is not known",
            "keys that never expire: b",
        ] {
            assert!(problems.contains(expected), "{expected}\n---\n{problems}");
        }
        assert_eq!(problems.lines().count(), 16, "{problems}");
    }

    #[test]
    fn a_file_that_is_no_key_file_is_refused_without_quoting_it() {
        for bad in
            ["", "hunter2", "- hunter2", "42", "keys:", "keys: hunter2", "{}", "keys: {a: hunter2}", "keys: [\"hunter2", "k: [", "\u{0}"]
        {
            let (records, problems) = load(bad);
            assert!(records.is_empty());
            assert!(problems.len() == 1 && problems[0].starts_with("error: keys.yaml"), "{bad:?} {problems:?}");
            assert!(!problems[0].contains("hunter2"), "{problems:?}");
        }
        let (records, problems) = load("keys: []");
        assert!(records.is_empty() && problems.is_empty());
    }

    #[test]
    fn many_problems_and_many_eternal_keys_are_counted_rather_than_listed() {
        let broken = format!("keys:\n{}", "- {}\n".repeat(200));
        let (_, problems) = load(&broken);
        assert_eq!(problems.len(), LISTED_PROBLEMS + 1);
        assert_eq!(problems.last().unwrap(), "error: keys.yaml: and 500 more problems");
    }

    #[test]
    fn a_hundred_thousand_keys() {
        let mut text = "keys:\n".to_owned();
        for index in 0..100_000 {
            let sha256 = Digest::of(&u32::to_be_bytes(index)).hex();
            writeln!(text, "  - id: key-{index}\n    client_id: client-{index}\n    sha256: {sha256}\n    roles: [viewer, editor]\n    permissions: [\"reports:read\"]\n    expires_at: 2027-01-01T00:00:00Z").unwrap();
        }
        let started = std::time::Instant::now();
        let (records, problems) = load(&text);
        println!("100,000 keys in {:?}", started.elapsed());
        assert_eq!((records.len(), problems.len()), (100_000, 0));
    }
}
