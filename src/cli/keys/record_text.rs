//! One record of an API-key file as YAML, the way people write it: block style, quotes only where they are needed.

use crate::api_keys::Record;
use crate::secret::Digest;
use jiff::Timestamp;
use std::fmt::Write;

/// The item of a list whose hyphen stands after `indent` spaces, with a final newline.
pub(in crate::cli) fn record_text(record: &Record, sha256: Digest, indent: usize) -> String {
    let mut fields = vec![("id", scalar(&record.id))];
    fields.extend(record.name.as_ref().map(|name| ("name", scalar(name))));
    fields.push(("client_id", scalar(&record.client_id)));
    fields.extend(record.user_id.as_ref().map(|user| ("user_id", scalar(user))));
    // Always in quotes: sixty-four digits, or digits around one `e`, are a number to YAML.
    fields.push(("sha256", quoted(&sha256.hex())));
    fields.push(("type", record.key_type.as_str().to_owned()));
    fields.push(("roles", list(record.roles.iter().map(|role| &**role))));
    fields.push(("permissions", list(record.permissions.iter().map(|permission| permission.as_str()))));
    fields.push(("expires_at", time(record.expires_at)));
    let mut out = String::new();
    for (nth, (name, value)) in fields.into_iter().enumerate() {
        let lead = if nth == 0 { "- " } else { "  " };
        out.extend([" ".repeat(indent).as_str(), lead, name, ": ", &value, "\n"]);
    }
    out
}

fn list<'a>(items: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", items.map(scalar).collect::<Vec<_>>().join(", "))
}

fn time(time: Option<std::time::SystemTime>) -> String {
    // A time beyond the year 9999 cannot be asked for on the command line.
    time.and_then(|time| Timestamp::try_from(time).ok()).map_or("null".to_owned(), |time| time.to_string())
}

/// Plain where every reader of YAML takes it for text.
fn scalar(text: &str) -> String {
    /// Not text to some version of YAML, in any case.
    const WORDS: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./@".contains(&byte))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if is_plain { text.to_owned() } else { quoted(text) }
}

/// YAML 1.2 §7.3.1: in double quotes. What is no letter of some alphabet is escaped: line separators and byte-order marks
/// mean something to YAML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            ' '..='~' => out.push(character),
            _ if character.is_alphanumeric() => out.push(character),
            // Writing to a `String` cannot fail.
            _ => drop(write!(out, "\\U{:08x}", u32::from(character))),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_could_be_misread_is_quoted() {
        for plain in ["analytics-service", "a", "alice@example.com", "spiffe/a.b_c"] {
            assert_eq!(scalar(plain), plain);
        }
        for text in ["", "1e5", "NO", "null", "-", "*", "users:read", "a b", "#", "~", "2027-01-01", "é"] {
            assert_eq!(scalar(text), format!("\"{text}\""));
        }
        assert_eq!(quoted("a\"b\\c\u{2028}"), "\"a\\\"b\\\\c\\U00002028\"");
    }

    proptest! {
        #[test]
        fn yaml_reads_back_what_was_written(text in any::<String>()) {
            let value: serde_yaml::Value = serde_yaml::from_str(&scalar(&text)).unwrap();
            prop_assert_eq!(value.as_str(), Some(text.as_str()));
        }
    }
}
