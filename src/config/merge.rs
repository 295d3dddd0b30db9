//! Several files, one configuration: mappings join, the same leaf twice is an error that names both places. The same
//! walk refuses a key written twice in one file.

use super::node::{Entry, Node, Value};
use super::section::{Reader, joined};
use std::collections::HashMap;

/// Joins the files' trees in their order; problems are reported and the first of two values stays.
pub(super) fn merge(reader: &Reader, roots: impl IntoIterator<Item = Node>) -> Option<Node> {
    let mut roots = roots.into_iter().map(|mut root| {
        refuse_duplicates(reader, &mut root, "");
        root
    });
    let first = roots.next()?;
    Some(roots.fold(first, |mut whole, root| {
        join(reader, &mut whole, root, "");
        whole
    }))
}

/// Keeps the first of equal keys.
fn refuse_duplicates(reader: &Reader, node: &mut Node, path: &str) {
    match &mut node.value {
        Value::List(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                refuse_duplicates(reader, item, &format!("{path}[{i}]"));
            }
        }
        Value::Map(entries) => {
            let mut seen = HashMap::new();
            entries.retain(|entry| match seen.get(&entry.key) {
                None => {
                    seen.insert(entry.key.clone(), entry.key_mark);
                    true
                }
                Some(first) => {
                    let first = reader.position(*first, "");
                    reader.error(entry.key_mark, &joined(path, &entry.key), format!("this key stands already at {first}"));
                    false
                }
            });
            for entry in entries {
                refuse_duplicates(reader, &mut entry.node, &joined(path, &entry.key));
            }
        }
        _ => {}
    }
}

fn join(reader: &Reader, whole: &mut Node, part: Node, path: &str) {
    let Value::Map(additions) = part.value else { return };
    let Value::Map(entries) = &mut whole.value else { return };
    let mut places: HashMap<String, usize> = entries.iter().enumerate().map(|(i, entry)| (entry.key.clone(), i)).collect();
    for addition in additions {
        let there = places.get(&addition.key).and_then(|place| entries.get_mut(*place));
        match there {
            None => {
                places.insert(addition.key.clone(), entries.len());
                entries.push(addition);
            }
            Some(there) => join_entry(reader, there, addition, path),
        }
    }
}

fn join_entry(reader: &Reader, there: &mut Entry, addition: Entry, path: &str) {
    let path = joined(path, &addition.key);
    if matches!((&there.node.value, &addition.node.value), (Value::Map(_), Value::Map(_))) {
        join(reader, &mut there.node, addition.node, &path);
        return;
    }
    let first = reader.position(there.key_mark, "");
    reader.error(addition.key_mark, &path, format!("this key stands already at {first}; only one file may set it"));
}
