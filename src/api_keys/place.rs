//! Where records and their fields stand in the text of a key file, for those who edit it.

use super::yaml::{Node, Step, locate};

/// Where a value begins: from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

/// The place of the record `id`, or of the value of one of its fields; `None` when there is none.
pub fn place(content: &[u8], id: &str, field: Option<&'static str>) -> Option<Place> {
    let Ok(Node::Mapping(members)) = serde_yaml::from_slice(content) else { return None };
    let keys = members.into_iter().find(|(name, _)| name == "keys");
    let Some((_, Node::Sequence(records))) = keys else { return None };
    let index = records.iter().position(|record| matches!(member(record, "id"), Some(Node::Text(text)) if text == id))?;
    if let Some(field) = field {
        member(records.get(index)?, field)?;
    }
    let path: Vec<Step> = [Step::Key("keys"), Step::Index(index)].into_iter().chain(field.map(Step::Key)).collect();
    let location = locate(content, &path)?;
    Some(Place { line: location.line(), column: location.column() })
}

fn member<'n>(record: &'n Node, name: &str) -> Option<&'n Node> {
    let Node::Mapping(members) = record else { return None };
    members.iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_fields_are_found() {
        let text = b"keys:\n- id: a\n  revoked_at: null\n-   id: 'b c'\n- { id: d, expires_at: x }\n";
        for (id, field, expected) in [
            ("a", None, Some((2, 3))),
            ("a", Some("id"), Some((2, 7))),
            ("a", Some("revoked_at"), Some((3, 15))),
            ("a", Some("expires_at"), None),
            ("b c", Some("id"), Some((4, 9))),
            ("d", None, Some((5, 3))),
            ("d", Some("expires_at"), Some((5, 24))),
            ("e", None, None),
        ] {
            let found = place(text, id, field).map(|place| (place.line, place.column));
            assert_eq!(found, expected, "{id} {field:?}");
        }
    }
}
