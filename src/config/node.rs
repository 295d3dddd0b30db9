//! YAML text → a tree that knows where each of its values stands and which of its keys were written twice.
//!
//! The YAML library tells positions only in errors. So the visitor here keeps each scalar aside and then fails on
//! purpose: the error comes back with the scalar's position, the value is already ours, and reading goes on. One pass,
//! every position. A list or mapping stands where its key stands, or where its first element does.

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::cell::Cell;
use std::fmt;

/// Where a value or key begins; 1-based, in characters. Line 0: unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    /// Index of the source file.
    pub(super) source: usize,
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) mark: Mark,
}

/// What YAML knows.
#[derive(Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file; duplicates are still in it.
    Map(Vec<Entry>),
}

/// A key of a mapping, as it is spelled, and its value.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_mark: Mark,
    pub(super) node: Node,
}

/// Why a text is not one YAML document; without any of its content.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) message: String,
}

/// Bounds what aliases can blow a small file up to: a tree of this many values is far beyond any real configuration.
const MOST_NODES: usize = 1_000_000;
/// The text of the errors made on purpose. Short: it is printed and parsed once a scalar.
const PEEK: &str = "\u{1}";
const TOO_MANY: &str = "aliases expand to more than a million values";
const BAD_TAG: &str = "a value does not fit its !tag; remove the tag";

/// Parses one document.
pub(super) fn parse(text: &str, source: usize) -> Result<Node, SyntaxError> {
    let budget = Cell::new(MOST_NODES);
    let mut node = NodeSeed { source, budget: &budget, inside: false }
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .map_err(|error| syntax_error(&error, text))?;
    settle(&mut node, Mark { source, line: 1, column: 1 });
    Ok(node)
}

fn syntax_error(error: &serde_yaml::Error, source: &str) -> SyntaxError {
    let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
    let text = error.to_string();
    // These quote the value they are about, which may be a secret.
    let message = if text.contains("invalid value:") {
        BAD_TAG.to_owned()
    } else if text.contains("more than one document") {
        let message = "more than one YAML document (`---`); a file holds one".to_owned();
        return SyntaxError { line: second_document(source), column: 1, message };
    } else {
        format!("not valid YAML: {}", text.split(" at line ").next().unwrap_or_default())
    };
    SyntaxError { line, column, message }
}

/// The line of the `---` that begins the second document: the first one after some content.
fn second_document(text: &str) -> usize {
    let is_content = |line: &str| !line.trim().is_empty() && !line.starts_with(['#', '%']) && !line.starts_with("---");
    let content = text.lines().position(is_content).unwrap_or(0);
    text.lines().enumerate().skip(content).find(|(_, line)| line.starts_with("---")).map_or(1, |(i, _)| i + 1)
}

/// Gives an empty collection, which has no scalar to take a position from, the one of what surrounds it.
fn settle(node: &mut Node, around: Mark) {
    if node.mark.line == 0 {
        node.mark = around;
    }
    let mark = node.mark;
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| settle(item, mark)),
        Value::Map(entries) => entries.iter_mut().for_each(|entry| settle(&mut entry.node, entry.key_mark)),
        _ => {}
    }
}

/// `… at line 3 column 14` at the end of an error; absent when the scalar is the first thing of the file.
fn mark_in(source: usize, error: &str) -> Mark {
    let numbers = error.rsplit_once(PEEK).and_then(|(_, place)| place.strip_prefix(" at line ")?.split_once(" column "));
    let parsed = numbers.and_then(|(line, column)| Some((line.parse().ok()?, column.parse().ok()?)));
    let (line, column) = parsed.unwrap_or((1, 1));
    Mark { source, line, column }
}

struct NodeSeed<'a> {
    source: usize,
    budget: &'a Cell<usize>,
    /// Below the root, where a failed scalar does not end the document.
    inside: bool,
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        let left = self.budget.get().checked_sub(1).ok_or_else(|| de::Error::custom(TOO_MANY))?;
        self.budget.set(left);
        let mut scalar = None;
        match deserializer.deserialize_any(NodeVisitor { source: self.source, budget: self.budget, scalar: &mut scalar }) {
            Ok(node) => Ok(node),
            Err(error) => match scalar {
                Some(value) if self.inside => Ok(Node { value, mark: mark_in(self.source, &error.to_string()) }),
                Some(value) => Ok(Node { value, mark: Mark { source: self.source, line: 1, column: 1 } }),
                None => Err(error),
            },
        }
    }
}

/// Keeps a scalar aside and fails; returns a collection.
struct NodeVisitor<'a> {
    source: usize,
    budget: &'a Cell<usize>,
    scalar: &'a mut Option<Value>,
}

impl NodeVisitor<'_> {
    fn aside<E: de::Error>(self, value: Value) -> Result<Node, E> {
        *self.scalar = Some(value);
        Err(E::custom(PEEK))
    }

    fn seed(&self) -> NodeSeed<'_> {
        NodeSeed { source: self.source, budget: self.budget, inside: true }
    }
}

impl<'de> Visitor<'de> for NodeVisitor<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        self.aside(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        self.aside(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        self.aside(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        self.aside(Value::Integer(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        self.aside(Value::Integer(value.into()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Node, E> {
        self.aside(Value::Integer(value))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Node, E> {
        self.aside(i128::try_from(value).map_or(Value::Float(f64::INFINITY), Value::Integer))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        self.aside(Value::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        self.aside(Value::Text(value.to_owned()))
    }

    fn visit_enum<A: de::EnumAccess<'de>>(self, _: A) -> Result<Node, A::Error> {
        Err(de::Error::custom("a !tag has no meaning here; remove it"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items: Vec<Node> = Vec::new();
        while let Some(item) = list.next_element_seed(self.seed())? {
            items.push(item);
        }
        let mark = items.first().map_or(Mark::default(), |item| item.mark);
        Ok(Node { value: Value::List(items), mark })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries: Vec<Entry> = Vec::new();
        while let Some((key, key_mark)) = map.next_key_seed(KeySeed { source: self.source })? {
            let mut node = map.next_value_seed(self.seed())?;
            if matches!(node.value, Value::List(_) | Value::Map(_)) {
                node.mark = key_mark;
            }
            entries.push(Entry { key, key_mark, node });
        }
        let mark = entries.first().map_or(Mark::default(), |entry| entry.key_mark);
        Ok(Node { value: Value::Map(entries), mark })
    }
}

/// A key as it is spelled: `true`, `1` and `off` are names here.
struct KeySeed {
    source: usize,
}

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = (String, Mark);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(String, Mark), D::Error> {
        let mut key = None;
        match (deserializer.deserialize_str(KeyVisitor(&mut key)), key) {
            (Err(error), Some(key)) => Ok((key, mark_in(self.source, &error.to_string()))),
            (Err(error), None) => Err(error),
            (Ok(never), _) => match never {},
        }
    }
}

struct KeyVisitor<'a>(&'a mut Option<String>);

/// The visitor never succeeds.
enum Never {}

impl Visitor<'_> for KeyVisitor<'_> {
    type Value = Never;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a name as key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Never, E> {
        *self.0 = Some(key.to_owned());
        Err(E::custom(PEEK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `line:column value` of every node, one a line.
    fn outline(node: &Node, key: &str, out: &mut Vec<String>) {
        let Mark { line, column, .. } = node.mark;
        match &node.value {
            Value::List(items) => {
                out.push(format!("{line}:{column} {key} list"));
                items.iter().enumerate().for_each(|(i, item)| outline(item, &format!("{key}[{i}]"), out));
            }
            Value::Map(entries) => {
                out.push(format!("{line}:{column} {key} map"));
                for entry in entries {
                    out.push(format!("{}:{} {} key", entry.key_mark.line, entry.key_mark.column, entry.key));
                    outline(&entry.node, &format!("{key}.{}", entry.key), out);
                }
            }
            Value::Null => out.push(format!("{line}:{column} {key} null")),
            Value::Bool(value) => out.push(format!("{line}:{column} {key} {value}")),
            Value::Integer(value) => out.push(format!("{line}:{column} {key} {value}")),
            Value::Float(value) => out.push(format!("{line}:{column} {key} {value}")),
            Value::Text(value) => out.push(format!("{line}:{column} {key} {value:?}")),
        }
    }

    #[test]
    fn every_value_knows_where_it_stands() {
        let text = "a: 1\nb:\n  - x: true\n    \"q u\": [é, {y: 1.5}, []]\n  - ~\nc: {}\nd: *e\n";
        let text = text.replace("a: 1", "a: &e 1");
        let mut out = Vec::new();
        outline(&parse(&text, 0).unwrap(), "", &mut out);
        let expected = [
            "1:1  map",
            "1:1 a key",
            "1:4 .a 1",
            "2:1 b key",
            "2:1 .b list",
            "3:5 .b[0] map",
            "3:5 x key",
            "3:8 .b[0].x true",
            "4:5 q u key",
            "4:5 .b[0].q u list",
            "4:13 .b[0].q u[0] \"é\"",
            "4:17 .b[0].q u[1] map",
            "4:17 y key",
            "4:20 .b[0].q u[1].y 1.5",
            "4:5 .b[0].q u[2] list",
            "5:5 .b[1] null",
            "6:1 c key",
            "6:1 .c map",
            "7:1 d key",
            "1:4 .d 1",
        ];
        assert_eq!(out, expected);
    }

    #[test]
    fn what_is_no_single_document_is_refused_without_quoting_it() {
        let deep = "[".repeat(300);
        let bomb: String = std::iter::once("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned())
            .chain((1..12).map(|i| format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(","))))
            .collect();
        let wide = format!("a: &a [{}]\nb: [{}]", vec!["x"; 2000].join(","), vec!["*a"; 1000].join(","));
        for (text, at, phrase) in [
            ("a: [1, 2", (2, 1), "not valid YAML"),
            ("a: b: c", (1, 5), "mapping values are not allowed"),
            ("a: 1\n\tb: 2", (2, 1), "not valid YAML"),
            ("a: *nowhere", (1, 4), "unknown anchor"),
            ("a: 1\n---\nb: 2", (2, 1), "more than one YAML document"),
            ("a: !!int hunter2", (1, 4), "does not fit its !tag"),
            ("a: !secret hunter2", (1, 4), "!tag has no meaning"),
            ("[a]: 1", (1, 1), "expected a name as key"),
            (&deep, (0, 0), "not valid YAML"),
            (&bomb, (0, 0), "repetition limit"),
            (&wide, (0, 0), "million values"),
        ] {
            let error = parse(text, 0).err().unwrap();
            assert!(error.message.contains(phrase), "{text:.20}: {}", error.message);
            assert!(!error.message.contains("hunter2"));
            if at != (0, 0) {
                assert_eq!((error.line, error.column), at, "{text}: {}", error.message);
            }
        }
    }

    #[test]
    fn an_empty_document_is_null() {
        for text in ["", "\n", "# only a comment\n", "---\n"] {
            assert!(matches!(parse(text, 0).unwrap().value, Value::Null), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[ -~\n\t&*!\\[\\]{}:#|>'\"é]{0,80}") {
            let _ = parse(&text, 0);
        }
    }
}
