//! The revocations file: `revoked`, a list of tokens, users and API keys that are refused before their time.
//!
//! Read with the configuration's own reader, so that an entry that is wrong has its place; also while the proxy runs,
//! because a change of this file counts at once. Not here: what an entry means for a call (`authentication`).

use super::document::read_document;
use super::section::{Field, Section};
use super::{InputFile, Position, Problems};
use std::time::SystemTime;

/// One entry of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// One token.
    Token {
        /// Its claim `jti`.
        jti: String,
        /// Its claim `iss`.
        issuer: String,
    },
    /// The tokens of one user that were issued before a moment, or do not say when.
    User {
        /// As in the token, without the provider's prefix.
        user_id: String,
        /// The claim `iss` of the tokens.
        issuer: String,
        /// Compared with `iat`.
        before: SystemTime,
    },
    /// An API key.
    ApiKey {
        /// Of its record.
        id: String,
    },
}

const AN_ENTRY: &str = "one of { jti, issuer }, { user_id, issuer, before }, { api_key }";

/// The entries of `file`, each with its place. Everything that is wrong is added to `problems`; with an error among them
/// the list is not whole.
pub fn read_revocations(file: &InputFile, problems: &mut Problems) -> Vec<(Revocation, Position)> {
    let bytes = file.content.expose();
    if bytes.is_empty() {
        return Vec::new(); // which has been reported where it was read
    }
    read_document(&file.path.display().to_string(), bytes, problems, entries).unwrap_or_default()
}

fn entries(root: &Field) -> Vec<(Revocation, Position)> {
    let Some(mut section) = root.section() else { return Vec::new() };
    let list = section.field("revoked").required("a list of what is revoked; `revoked: []` for nothing");
    section.finish();
    let items = list.items("a list of what is revoked; `revoked: []` for nothing").unwrap_or_default();
    items.iter().filter_map(|item| Some((entry(item)?, item.position()))).collect()
}

fn entry(item: &Field) -> Option<Revocation> {
    let mut section = item.section()?;
    let (jti, user_id, api_key) = (section.field("jti"), section.field("user_id"), section.field("api_key"));
    let named = [&jti, &user_id, &api_key].into_iter().filter(|field| field.is_set()).count();
    let entry = if jti.is_set() {
        token(&jti, &mut section)
    } else if user_id.is_set() {
        user(&user_id, &mut section)
    } else {
        api_key.text("the id of an API key's record").map(|id| Revocation::ApiKey { id: id.to_owned() })
    };
    section.finish();
    if named != 1 {
        item.error(format!("found {}, expected {AN_ENTRY}", if named == 0 { "none of them" } else { "several in one" }));
    }
    entry.filter(|_| named == 1)
}

fn token(jti: &Field, section: &mut Section) -> Option<Revocation> {
    let (jti, issuer) = (jti.text("the claim jti of a token"), issuer(section));
    Some(Revocation::Token { jti: jti?.to_owned(), issuer: issuer? })
}

fn user(user_id: &Field, section: &mut Section) -> Option<Revocation> {
    let (user_id, issuer) = (user_id.text("the user id as it is in the token, without prefix"), issuer(section));
    let a_time = "a time such as 2027-01-01T00:00:00Z (RFC 3339)";
    let before = section.field("before").required(a_time).parse(a_time, |text| text.parse::<jiff::Timestamp>().map_err(|_| ""));
    Some(Revocation::User { user_id: user_id?.to_owned(), issuer: issuer?, before: before?.into() })
}

/// Without it an entry would speak of the users of every provider.
fn issuer(section: &mut Section) -> Option<String> {
    let the_issuer = "the claim iss of the tokens it is about, byte for byte";
    section.field("issuer").required(the_issuer).text(the_issuer).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use proptest::prelude::*;
    use std::time::Duration;

    fn read(text: &str) -> (Vec<Revocation>, Vec<String>) {
        let file = InputFile { at: Position::default(), path: "revocations.yaml".into(), content: Secret::new(text.as_bytes().to_vec()) };
        let mut problems = Problems::default();
        let list = read_revocations(&file, &mut problems);
        (list.into_iter().map(|(entry, _)| entry).collect(), problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_kind_of_entry_is_read() {
        let (list, problems) = read(
            "revoked:\n  - { jti: t-1, issuer: https://a/ }\n  - user_id: \"42\"\n    issuer: https://b/\n    before: 1970-01-01T01:00:01+01:00\n  - api_key: analytics\n",
        );
        assert_eq!(problems, [] as [String; 0]);
        let expected = [
            Revocation::Token { jti: "t-1".into(), issuer: "https://a/".into() },
            Revocation::User { user_id: "42".into(), issuer: "https://b/".into(), before: SystemTime::UNIX_EPOCH + Duration::from_secs(1) },
            Revocation::ApiKey { id: "analytics".into() },
        ];
        assert_eq!(list, expected);
        assert_eq!(read("revoked: []\n"), (Vec::new(), Vec::new()));
    }

    #[test]
    fn every_error_has_its_place() {
        for (text, place, words) in [
            ("# nothing\n", "1:1", "a mapping"),
            ("[]", "1:1", "a mapping"),
            ("revoke: []", "1:1: revoke", "revoked"),
            ("revoke: []", "1:1: revoked", "missing"),
            ("revoked:", "1:9: revoked", "revoked: []"),
            ("revoked: {}", "revoked", "a list"),
            ("revoked: []\nrevoked: []", "2:1: revoked", "stands already"),
            ("revoked: [a]", "1:11: revoked[0]", "a mapping"),
            ("revoked: [{}]", "revoked[0]", "expected one of"),
            ("revoked: [{issuer: x}]", "1:12: revoked[0]", "expected one of"),
            ("revoked: [{jti: a}]", "1:12: revoked[0].issuer", "missing"),
            ("revoked: [{jti: a, issuer: ''}]", "1:28: revoked[0].issuer", "iss"),
            ("revoked: [{jti: 5, issuer: x}]", "1:17: revoked[0].jti", "in quotes"),
            ("revoked: [{jti: a, jti: b, issuer: x}]", "1:20: revoked[0].jti", "stands already"),
            ("revoked: [{jti: a, issuer: x, before: 2027-01-01T00:00:00Z}]", "1:31: revoked[0].before", "unknown key"),
            ("revoked: [{jti: a, issuer: x, user_id: b}]", "1:12: revoked[0]", "several in one"),
            ("revoked: [{user_id: a, issuer: x}]", "1:12: revoked[0].before", "missing"),
            ("revoked: [{user_id: a, before: 2027-01-01T00:00:00Z}]", "1:12: revoked[0].issuer", "missing"),
            ("revoked: [{user_id: a, issuer: x, before: 2027-01-01}]", "1:43: revoked[0].before", "RFC 3339"),
            ("revoked: [{user_id: a, issuer: x, before: yesterday}]", "1:43: revoked[0].before", "RFC 3339"),
            ("revoked: [{api_key: a, issuer: x}]", "1:24: revoked[0].issuer", "unknown key"),
            ("revoked: [{api_keys: a}]", "1:12: revoked[0].api_keys", "api_key"),
            ("revoked: [{", "", "not valid YAML"),
            ("revoked: []\n---\nrevoked: []\n", "2:1", "one"),
        ] {
            let (_, problems) = read(text);
            let found =
                problems.iter().any(|line| line.starts_with("error: revocations.yaml") && line.contains(place) && line.contains(words));
            assert!(found, "{text:?}: {place} {words}: {problems:?}");
        }
        let (list, problems) = read("revoked: [{jti: a}, {api_key: b}, {user_id: c, issuer: x, before: y}]");
        assert_eq!((list.len(), problems.len()), (1, 2), "{problems:?}");
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(text in "(revoked: )?\\PC{0,60}") {
            let _ = read(&text);
        }
    }
}
