//! What somebody else chose, in words for an operator: escaped, so that it can neither end a line nor draw on a terminal,
//! and cut, so that no message grows with what is sent.

use serde_json::Value;
use std::fmt::{Display, Write as _};

/// How much is shown of one value, in bytes.
const LONGEST: usize = 256;
/// How many names of a list are shown.
const MOST: usize = 10;

/// A text in quotation marks.
pub fn text(text: &str) -> String {
    json(&Value::from(text))
}

/// A value as JSON writes it.
pub fn json(value: &Value) -> String {
    cut(&value.to_string())
}

/// What a member holds: as JSON writes it, or `missing`.
pub fn member(value: Option<&Value>) -> String {
    value.map_or_else(|| "missing".to_owned(), json)
}

/// Names joined by commas, the first ten of them; `none` without any.
pub fn list<T: Display>(names: impl IntoIterator<Item = T>) -> String {
    let mut names = names.into_iter();
    let shown: Vec<String> = names.by_ref().take(MOST).map(|name| cut(&name.to_string())).collect();
    let mut joined = if shown.is_empty() { "none".to_owned() } else { shown.join(", ") };
    let rest = names.count();
    if rest > 0 {
        let _ = write!(joined, " and {rest} more");
    }
    joined
}

fn cut(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        let kept = out.len();
        if character == ' ' || character.is_ascii_graphic() {
            out.push(character);
        } else {
            out.extend(character.escape_debug());
        }
        if out.len() > LONGEST {
            out.truncate(kept);
            out.push('…');
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_shown_is_escaped_and_bounded() {
        assert_eq!(text("a\"\n\u{1b}[31m\u{202e}é"), r#""a\"\n\u001b[31m\u{202e}é""#);
        assert_eq!(json(&serde_json::json!(["a", 1])), r#"["a",1]"#);
        assert_eq!(member(None), "missing");
        assert_eq!(text(&"a".repeat(1000)), format!("\"{}…", "a".repeat(255)));
        assert_eq!(list(["a\n", "b"]), r"a\n, b");
        assert_eq!(
            (list(1..=10), list(1..=12)),
            ("1, 2, 3, 4, 5, 6, 7, 8, 9, 10".into(), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more".into())
        );
        assert_eq!(list::<&str>([]), "none");
    }

    proptest! {
        #[test]
        fn anything_stays_one_short_printable_line(value in any::<String>()) {
            let shown = text(&value);
            prop_assert!(shown.len() <= LONGEST + "…".len() && !shown.contains(char::is_control), "{}", shown);
        }
    }
}
