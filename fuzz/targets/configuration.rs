//! A configuration file. Every text is either a configuration or errors, each at a place that the file has.
#![no_main]

use doorward::config::{Loaded, Source, Surroundings, load_from};
use std::ffi::OsString;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    // Files that are named are read: none of those that never end.
    if ["/dev", "/proc", "/sys", ".."].iter().any(|folder| text.contains(folder)) {
        return;
    }
    let Loaded { config, problems, .. } = load(&[text]);
    assert!(config.is_some() || problems.has_errors());
    // As YAML 1.1 counts them.
    let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() + 1;
    for problem in problems.iter() {
        assert!(problem.at.line <= lines, "{problem}");
        assert!(!problem.message.is_empty() && !problem.message.contains(SECRET), "{problem}");
    }
    if config.is_some() && !problems.has_errors() {
        assert!(load(&[text, text]).problems.has_errors(), "the same leaf in two files");
    }
});

const SECRET: &str = "hunter2-hunter2-hunter2-hunter2-hunter2";

fn load(texts: &[&str]) -> Loaded {
    let source =
        |(index, text): (usize, &&str)| Source { name: format!("{index}.yaml"), text: (*text).to_owned(), base: "no/such/folder".into() };
    let sources: Vec<Source> = texts.iter().enumerate().map(source).collect();
    load_from(&sources, Surroundings { env: &|name| (name == "SECRET").then(|| OsString::from(SECRET)), cpus: 2, memory: None })
}
