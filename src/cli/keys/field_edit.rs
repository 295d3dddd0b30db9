//! Sets one field of one record in the text of a key file, and leaves everything else of the text as it is.
//!
//! Takes the usual ways to write a record; whoever calls this reads the result and compares, so that an unusual one is
//! at worst left alone.

use crate::api_keys::{Place, place};

/// New fields go below this one, if it is there; else below the id.
const NEIGHBOUR: &str = "expires_at";

/// `text` with `field: value` in the record `id`; `None` when it is written in a way that is not understood.
pub(super) fn with_field(text: &str, id: &str, field: &'static str, value: &str) -> Option<String> {
    let record = offset(text, place(text.as_bytes(), id, None)?)?;
    let in_braces = text.get(record..)?.starts_with('{');
    if let Some(place) = place(text.as_bytes(), id, Some(field)) {
        let start = offset(text, place)?;
        let end = scalar_end(text, start, in_braces)?;
        let gap = if text.get(..start)?.ends_with(':') { " " } else { "" };
        return Some(format!("{}{gap}{value}{}", text.get(..start)?, text.get(end..)?));
    }
    let neighbour = place(text.as_bytes(), id, Some(NEIGHBOUR)).or_else(|| place(text.as_bytes(), id, Some("id")))?;
    let neighbour = offset(text, neighbour)?;
    let (end, new) = if in_braces {
        (scalar_end(text, neighbour, true)?, format!(", {field}: {value}"))
    } else {
        let line_start = text.get(..neighbour)?.rfind('\n').map_or(0, |newline| newline + 1);
        let line = text.get(line_start..)?.split_inclusive('\n').next()?;
        let content = line.trim_end_matches(['\r', '\n']);
        let indent = content.len() - content.trim_start_matches([' ', '-']).len();
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        (line_start + content.len(), format!("{newline}{}{field}: {value}", " ".repeat(indent)))
    };
    Some(format!("{}{new}{}", text.get(..end)?, text.get(end..)?))
}

fn offset(text: &str, place: Place) -> Option<usize> {
    let line_start: usize = text.split_inclusive('\n').take(place.line.checked_sub(1)?).map(str::len).sum();
    let line = text.get(line_start..)?;
    let in_line = line.char_indices().map(|(at, _)| at).chain([line.len()]).nth(place.column.checked_sub(1)?)?;
    Some(line_start + in_line)
}

/// Where the scalar that begins at `start` ends; an empty one ends there.
fn scalar_end(text: &str, start: usize, in_braces: bool) -> Option<usize> {
    let rest = text.get(start..)?;
    if let Some(quote) = rest.chars().next().filter(|first| matches!(first, '"' | '\'')) {
        let (inner, after) = rest.get(1..)?.split_once(quote)?;
        // No time holds a quote; a name that does is left alone.
        let is_whole = !inner.contains('\\') && !after.starts_with(quote);
        return is_whole.then_some(start + inner.len() + 2);
    }
    let mut before = ' ';
    let mut length = rest.len();
    for (at, character) in rest.char_indices() {
        let ends = match character {
            '\r' | '\n' => true,
            ',' | '[' | ']' | '{' | '}' => in_braces,
            '#' => before == ' ' || before == '\t',
            _ => false,
        };
        if ends {
            length = at;
            break;
        }
        before = character;
    }
    Some(start + rest.get(..length)?.trim_end().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text after `revoked_at: T` was set in the record `a`, which must be all that changed for YAML too.
    fn set(text: &str) -> String {
        let after = with_field(text, "a", "revoked_at", "T").unwrap_or_else(|| panic!("{text}"));
        let mut expected: serde_yaml::Value = serde_yaml::from_str(text).unwrap();
        for record in expected["keys"].as_sequence_mut().unwrap() {
            if record["id"] == "a" {
                record["revoked_at"] = "T".into();
            }
        }
        assert_eq!(serde_yaml::from_str::<serde_yaml::Value>(&after).unwrap(), expected, "{after}");
        after
    }

    #[test]
    fn a_value_is_replaced_where_it_stands() {
        for (before, after) in [
            ("keys:\n- id: a\n  revoked_at: null # no\n", "keys:\n- id: a\n  revoked_at: T # no\n"),
            ("keys:\n- revoked_at: '2'\n  id: a", "keys:\n- revoked_at: T\n  id: a"),
            ("keys:\n- id: a\n  revoked_at: \"2\"\r\n- id: b\r\n", "keys:\n- id: a\n  revoked_at: T\r\n- id: b\r\n"),
            ("keys: [{id: é}, {id: a, revoked_at: ~, x: 1}]", "keys: [{id: é}, {id: a, revoked_at: T, x: 1}]"),
            ("keys:\n- { name: é, revoked_at: null, id: a }\n", "keys:\n- { name: é, revoked_at: T, id: a }\n"),
            (
                "keys:\n- id: b\n  revoked_at: null\n- id: a\n  revoked_at: 2020-01-01\n",
                "keys:\n- id: b\n  revoked_at: null\n- id: a\n  revoked_at: T\n",
            ),
        ] {
            assert_eq!(set(before), after);
        }
    }

    #[test]
    fn a_field_is_added_where_people_look_for_it() {
        for (before, after) in [
            ("keys:\n- id: a\n  x: 1\n", "keys:\n- id: a\n  revoked_at: T\n  x: 1\n"),
            ("keys:\n  -   id: a # it", "keys:\n  -   id: a # it\n      revoked_at: T"),
            (
                "keys:\r\n-\r\n  id: a\r\n  expires_at: x\r\n\r\n# end\r\n",
                "keys:\r\n-\r\n  id: a\r\n  expires_at: x\r\n  revoked_at: T\r\n\r\n# end\r\n",
            ),
            ("keys:\n- { id: a, x: 1 }\n", "keys:\n- { id: a, revoked_at: T, x: 1 }\n"),
            ("keys: [{id: \"a\"}]\n", "keys: [{id: \"a\", revoked_at: T}]\n"),
            ("keys:\n- {\n  id: a,\n  expires_at: x\n  }\n", "keys:\n- {\n  id: a,\n  expires_at: x, revoked_at: T\n  }\n"),
        ] {
            assert_eq!(set(before), after);
        }
    }

    #[test]
    fn nothing_panics_and_nobody_else_is_meant() {
        for text in ["", "keys:", "keys: []", "keys: [a]", "- id: a", "keys:\n- id: b\n", "keys: {id: a}", "keys: [{id: a}"] {
            assert_eq!(with_field(text, "a", "revoked_at", "T"), None, "{text}");
        }
        // What comes of these is compared with what was meant, by whoever asked.
        let odd = [
            "keys:\n- id: a\n  revoked_at:\n",
            "keys:\n- &x {id: a, revoked_at: &y 'z'}\n- *x",
            "keys: [{id: a, revoked_at: }]",
            "keys:\n- id: |\n    a\n  x: 1",
        ];
        for text in odd {
            let _ = with_field(text, "a", "revoked_at", "T");
        }
    }
}
