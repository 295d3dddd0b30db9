//! The text of an API key, or, when it begins with `keys`, a file of records. What is taken for whole is nothing else.
#![no_main]

use doorward::api_keys::ApiKeys;
use doorward::api_keys::key::{Form, inspect, is_id};
use doorward::config::{self, InputFile, Position, Problems};
use doorward::secret::Secret;
use http::HeaderName;
use std::collections::HashSet;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if text.starts_with("keys") { file(text) } else { key(text) }
});

fn key(text: &str) {
    let Form::Ours { id } = inspect(text) else {
        assert_eq!(inspect(text) == Form::Foreign, !text.starts_with("dw_"));
        return;
    };
    assert!(is_id(id));
    let digits = text.strip_prefix("dw_").and_then(|rest| rest.strip_prefix(id)).and_then(|rest| rest.strip_prefix('_'));
    assert!(digits.is_some_and(|digits| digits.len() == 33 && digits.bytes().all(|digit| digit.is_ascii_alphanumeric())));
    // The check digits tell every wrong character.
    for place in 0..text.len() {
        let (before, rest) = text.split_at(place);
        for wrong in ["0", "a", "Z"].into_iter().filter(|wrong| !rest.starts_with(wrong)) {
            let mistyped = format!("{before}{wrong}{}", &rest[1..]);
            assert!(!matches!(inspect(&mistyped), Form::Ours { .. }), "{mistyped}");
        }
    }
}

fn file(text: &str) {
    let content = Secret::new(text.as_bytes().to_vec());
    let file = InputFile { at: Position::default(), path: "keys.yaml".into(), content };
    let config = config::ApiKeys { header: HeaderName::from_static("x-api-key"), file: Some(file), development_key: None };
    let mut problems = Problems::default();
    let keys = ApiKeys::load(&config, &mut problems);
    // As YAML 1.1 counts them.
    let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() + 1;
    assert!(problems.iter().all(|problem| problem.at.line <= lines));
    if !problems.has_errors() {
        let ids: HashSet<_> = keys.records().map(|record| &record.id).collect();
        assert_eq!(ids.len(), keys.records().count(), "each id once");
        assert!(ids.iter().all(|id| !id.is_empty()));
    }
}
