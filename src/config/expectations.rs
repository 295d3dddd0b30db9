//! The file of `doorward test`: `tests`, a list of who calls which method, and what is expected of it.
//!
//! Not here: what is decided (`cli`, by the rooms that decide), and so which words a decision can have.

use super::document::read_document;
use super::files::{in_words, read};
use super::section::Field;
use super::{Position, Problems};
use crate::identity::Permission;
use std::fmt;
use std::path::Path;

/// One entry of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// Who calls.
    pub who: Who,
    /// The path of the call, as it is written.
    pub method: String,
    /// One of the words that were asked for.
    pub expected: &'static str,
    /// The entry.
    pub at: Position,
}

/// A caller, by what its credentials say. Nothing set: an anonymous one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Who {
    /// As rules know it, with its provider's prefix.
    pub user: Option<String>,
    /// A verified one.
    pub email: Option<String>,
    /// The client_id.
    pub client: Option<String>,
    /// That the credentials carry.
    pub roles: Vec<String>,
    /// Direct ones.
    pub permissions: Vec<Permission>,
    /// Which credential says all this: a provider's name, `google`, `api_keys` or `client_certificates`.
    pub from: Option<String>,
    /// The record of an API key.
    pub api_key_id: Option<String>,
    /// A name in the client certificate.
    pub certificate: Option<String>,
}

impl Who {
    /// Whether anything is said that no record or certificate entry says for itself.
    pub fn is_described(&self) -> bool {
        let Who { user, email, client, roles, permissions, from, api_key_id: _, certificate: _ } = self;
        [user, email, client, from].into_iter().any(Option::is_some) || !roles.is_empty() || !permissions.is_empty()
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Who { user, email, client, roles, permissions, from, api_key_id, certificate } = self;
        let named =
            [("user", user), ("email", email), ("client", client), ("API key", api_key_id), ("certificate", certificate), ("from", from)];
        let one = named.into_iter().filter_map(|(what, name)| Some(format!("{what} {}", name.as_deref()?)));
        let permissions: Vec<&str> = permissions.iter().map(Permission::as_str).collect();
        let lists = [("roles", roles.join(", ")), ("permissions", permissions.join(", "))];
        let several = lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(what, list)| format!("{what} [{list}]"));
        let words: Vec<String> = one.chain(several).collect();
        let words = if words.is_empty() { "anonymous".to_owned() } else { words.join(", ") };
        // Whatever a name holds, a line stays a line.
        write!(f, "{}", words.escape_debug().to_string().replace("\\'", "'"))
    }
}

const A_LIST: &str = "a list of who calls which method, and what is expected";

/// The entries of the file at `path`, whose `expect` is one of `words`. Everything that is wrong is added to `problems`; with
/// an error among them the list is not whole.
pub fn read_expectations(path: &Path, words: &[&'static str], problems: &mut Problems) -> Vec<Expectation> {
    let name = path.display().to_string();
    match read(path, |_| ()) {
        Ok(bytes) => read_document(&name, &bytes, problems, |root| entries(root, words)).unwrap_or_default(),
        Err(error) => {
            let at = Position { file: name.into(), ..Position::default() };
            problems.error(&at, format!("cannot read the expectations: {}", in_words(&error)));
            Vec::new()
        }
    }
}

fn entries(root: &Field, words: &[&'static str]) -> Vec<Expectation> {
    let Some(mut section) = root.section() else { return Vec::new() };
    let list = section.field("tests").required(A_LIST);
    section.finish();
    list.some_items(A_LIST).unwrap_or_default().iter().filter_map(|item| entry(item, words)).collect()
}

fn entry(item: &Field, words: &[&'static str]) -> Option<Expectation> {
    let mut section = item.section()?;
    let mut text = |key, expected| section.field(key).text(expected).map(str::to_owned);
    let mut who = Who {
        user: text("user", "a user_id as rules know it, or a verified e-mail"),
        email: text("email", "a verified e-mail"),
        client: text("client", "a client_id"),
        from: text("from", "the name of a token provider, google, api_keys or client_certificates"),
        api_key_id: text("api_key_id", "the id of an API key's record"),
        certificate: text("certificate", "a name in the client certificate: a SPIFFE ID, a DNS name or its common name"),
        ..Who::default()
    };
    let roles = section.field("roles").texts("a list of roles").unwrap_or_default();
    who.roles = roles.into_iter().map(str::to_owned).collect();
    let permissions = section.field("permissions").items("a list of permissions such as [users:read]").unwrap_or_default();
    let permission =
        |field: &Field| field.parse("a permission such as users:read", |text| Permission::parse(text).ok_or("resource:action"));
    who.permissions = permissions.iter().filter_map(permission).collect();
    let anonymous = section.field("anonymous");
    let method = section.field("method").required("the path of a call").text("the path of a call: /package.Service/Method");
    let expect = section.field("expect").required("allowed, or the reason of a refusal");
    let pairs: Vec<(&str, &'static str)> = words.iter().map(|word| (*word, *word)).collect();
    let expected = expect.word(&pairs);
    section.finish();
    check_who(item, &who, &anonymous);
    Some(Expectation { who, method: method?.to_owned(), expected: expected?, at: item.position() })
}

/// Nobody is anonymous by a slip: it has to be said.
fn check_who(item: &Field, who: &Who, anonymous: &Field) {
    let nobody = *who == Who::default();
    if anonymous.is_set() {
        if anonymous.boolean() == Some(false) {
            anonymous.wrong("true", "leave it out for others");
        } else if !nobody {
            anonymous.error("an anonymous caller has nothing else that is said of it");
        }
    } else if nobody {
        item.error(
            "nobody calls, expected one of user, email, client, roles, permissions, from, api_key_id, certificate, or anonymous: true",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_text(text: &str) -> (Vec<Expectation>, Vec<String>) {
        let mut problems = Problems::default();
        let read = read_document("e.yaml", text.as_bytes(), &mut problems, |root| entries(root, &["allowed", "PERMISSION_MISSING"]));
        (read.unwrap_or_default(), problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_form_of_a_caller_is_read() {
        let (list, problems) = read_text(
            "tests:\n  - { user: a@b.c, roles: [admin], permissions: ['x:y'], from: corporate, method: /a.B/C, expect: allowed }\n\
             \x20 - { email: a@b.c, client: web, api_key_id: k, certificate: \"x\\ny\", method: /a.B/C, expect: PERMISSION_MISSING }\n\
             \x20 - { anonymous: true, method: nonsense, expect: allowed }\n",
        );
        assert_eq!(problems, [""; 0]);
        let shown: Vec<String> = list.iter().map(|entry| format!("{} → {} {}", entry.who, entry.method, entry.expected)).collect();
        assert_eq!(
            shown,
            [
                "user a@b.c, from corporate, roles [admin], permissions [x:y] → /a.B/C allowed",
                "email a@b.c, client web, API key k, certificate x\\ny → /a.B/C PERMISSION_MISSING",
                "anonymous → nonsense allowed",
            ]
        );
        assert_eq!((list[1].at.line, list[1].at.column), (3, 7));
        assert!(list[0].who.is_described() && !list[2].who.is_described());
    }

    #[test]
    fn every_error_has_its_place() {
        for (text, place, words) in [
            ("", "1:1", "a mapping"),
            ("test: []", "1:1: test", "did you mean \"tests\"?"),
            ("test: []", "1:1: tests", "missing"),
            ("tests: []", "1:1: tests", "an empty list"),
            ("tests: {}", "1:1: tests", "a list"),
            ("tests: [a]", "1:9: tests[0]", "a mapping"),
            ("tests: [{}]", "tests[0].method", "missing"),
            ("tests: [{}]", "tests[0].expect", "missing"),
            ("tests: [{}]", "tests[0]", "nobody calls"),
            ("tests: [{usr: a}]", "1:10: tests[0].usr", "did you mean \"user\"?"),
            ("tests: [{user: 7}]", "1:16: tests[0].user", "in quotes"),
            ("tests: [{roles: admin}]", "tests[0].roles", "a list of roles"),
            ("tests: [{permissions: [admin]}]", "tests[0].permissions[0]", "resource:action"),
            ("tests: [{anonymous: true, user: a}]", "1:21: tests[0].anonymous", "nothing else"),
            ("tests: [{anonymous: false}]", "1:21: tests[0].anonymous", "expected true"),
            ("tests: [{anonymous: 'yes'}]", "1:21: tests[0].anonymous", "true or false"),
            ("tests: [{expect: permission_missing}]", "1:18: tests[0].expect", "allowed or PERMISSION_MISSING"),
            ("tests: [{expect: false}]", "1:18: tests[0].expect", "found false"),
            ("tests: [{method: a, method: b}]", "1:21: tests[0].method", "stands already"),
            ("tests: [{", "", "not valid YAML"),
        ] {
            let (_, problems) = read_text(text);
            let found = problems.iter().any(|line| line.starts_with("error: e.yaml") && line.contains(place) && line.contains(words));
            assert!(found, "{text:?}: {place} {words}: {problems:?}");
        }
        let (list, problems) =
            read_text("tests: [{user: a, method: b, expect: c}, {client: b}, {anonymous: true, method: /a.B/C, expect: allowed}]");
        assert_eq!((list.len(), problems.len()), (1, 3), "all at once: {problems:?}");
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(text in "(tests: )?\\PC{0,60}") {
            let _ = read_text(&text);
        }
    }
}
