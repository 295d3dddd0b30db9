//! The documentation and the code agree: every key, every reason, every number, every example, every link.
//!
//! What a block `console` shows is what a shell prints: `$` and a command, then its output, with `…` for what differs from run
//! to run.

use crate::harness::pages::{blocks, pages, read, root};
use crate::harness::{Site, command};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

type Keys = BTreeSet<String>;

/// What a shell prints for `command` in the site's directory, standard error too.
fn printed_by(site: &Site, command: &str) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_doorward"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh").args(["-c", &format!("{{ {command}\n}} 2>&1")]).current_dir(site.path("")).env("PATH", path).output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

/// Whether `line` is `pattern`, in which `…` stands for anything.
fn alike(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn every_whole_configuration_passes_the_check() {
    let mut checked = 0;
    for page in pages() {
        let site = Site::of(&page);
        for block in blocks(&page).iter().filter(|block| block.language == "yaml") {
            let parsed: Result<serde_yaml::Value, _> = serde_yaml::from_str(&block.text);
            assert!(parsed.is_ok(), "{}: {parsed:?}\n{}", page.display(), block.text);
            if let Some(name) = block.name.as_ref().filter(|name| name.starts_with("doorward")) {
                let output = command(&["check", "--config", site.path(name).to_str().unwrap()], "");
                assert!(output.status.success(), "{}: {name}: {}", page.display(), String::from_utf8_lossy(&output.stderr));
                checked += 1;
            }
        }
    }
    assert!(checked >= 3, "the pages have examples: {checked}");
}

#[test]
fn every_command_prints_what_the_page_says() {
    let mut commands = 0;
    for page in pages() {
        let site = Site::of(&page);
        for block in blocks(&page).iter().filter(|block| block.language == "console") {
            for step in format!("\n{}", block.text).split("\n$ ").skip(1) {
                let (command, expected) = step.split_once('\n').unwrap_or((step, ""));
                let printed = printed_by(&site, command);
                let (expected, lines): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), printed.lines().collect());
                let same = expected.len() == lines.len() && expected.iter().zip(&lines).all(|(pattern, line)| alike(pattern, line));
                assert!(same, "{}: $ {command}\n{printed}\nis not\n{}", page.display(), expected.join("\n"));
                commands += 1;
            }
        }
    }
    assert!(commands >= 5, "the pages have commands: {commands}");
}

#[test]
fn every_command_line_has_only_options_that_exist() {
    for page in pages() {
        let text = blocks(&page).into_iter().filter(|block| block.language == "sh").map(|block| block.text).collect::<String>();
        for line in text.replace("\\\n", " ").lines().filter(|line| line.starts_with("doorward ")) {
            let words: Vec<&str> = line.split_whitespace().skip(1).collect();
            let name: Vec<&str> = words.iter().copied().take_while(|word| !word.starts_with('-')).collect();
            let help = command(&[name.as_slice(), &["--help"]].concat(), "");
            assert!(help.status.success(), "{}: {line}", page.display());
            for option in words.iter().filter(|word| word.starts_with("--")) {
                assert!(String::from_utf8_lossy(&help.stdout).contains(option), "{}: {option} of {line}", page.display());
            }
        }
    }
}

/// `prefix.key` for each row of the tables of docs/configuration.md, whose headings name the prefix.
fn documented_keys() -> Keys {
    let mut prefix = String::new();
    let mut keys = Keys::new();
    for line in read("docs/configuration.md").lines() {
        if line.starts_with('#') {
            prefix = line.split('`').nth(1).map(|name| format!("{name}.")).unwrap_or_default();
        } else if let Some((key, _)) = line.strip_prefix("| `").and_then(|row| row.split_once('`')) {
            assert!(keys.insert(format!("{prefix}{key}")), "{prefix}{key} is documented twice");
        }
    }
    keys
}

/// A key that nobody knows, in every mapping whose keys are ours: the problems name those that are known.
const STRANGE: &str = r#"
zzz: 1
listen: { zzz: 1, tls: { zzz: 1 } }
upstream: { zzz: 1, tls: { zzz: 1 } }
authentication:
  zzz: 1
  jwt: [{ zzz: 1, claims: { zzz: 1 }, trust: { zzz: 1 } }]
  google: { zzz: 1 }
  api_keys: { zzz: 1, file: strange-keys.yaml }
  client_certificates: [{ zzz: 1 }]
  revocations: { zzz: 1, file: strange-revocations.yaml }
  long_calls: { zzz: 1 }
authorization: { zzz: 1, methods: { /a.B/C: { zzz: 1 } } }
identity_headers: { zzz: 1 }
limits: { zzz: 1 }
rate_limits: { zzz: 1 }
operations: { zzz: 1 }
log: { zzz: 1 }
"#;

/// What stands between brackets is the operator's own.
fn without_indices(path: &str) -> String {
    let mut parts = path.split('[');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |joined, part| format!("{joined}[]{}", part.split_once(']').map_or("", |(_, rest)| rest)))
}

#[test]
fn every_key_is_documented_and_every_documented_key_exists() {
    let site = Site::new();
    site.write("strange-keys.yaml", "keys: [{ zzz: 1 }]\n");
    let entries = "{ jti: a, issuer: b, zzz: 1 }, { user_id: a, issuer: b, before: c, zzz: 1 }, { api_key: a, zzz: 1 }";
    site.write("strange-revocations.yaml", format!("revoked: [{entries}]\n"));
    let output = command(&["check", "--config", site.write("strange.yaml", STRANGE).to_str().unwrap()], "");
    let mut known = Keys::new();
    let said = String::from_utf8(output.stderr).unwrap();
    for line in said.lines().filter(|line| line.contains("zzz") || line.contains("a key that is not known")) {
        let (place, names) = line.split_once("expected one of ").unwrap();
        // `error: FILE:LINE:COLUMN: KEY: what was found, `
        let path = without_indices(place.split(": ").nth(2).unwrap()).replace("zzz", "");
        let prefix = if path.is_empty() || path.ends_with('.') { path } else { format!("{path}.") };
        known.extend(names.split(';').next().unwrap().split(", ").map(|name| format!("{prefix}{name}")));
    }
    assert!(known.len() > 80, "{said}");
    assert_eq!(documented_keys().symmetric_difference(&known).collect::<Vec<_>>(), [""; 0]);
}

/// Whose own keys are the operator's.
const NOT_OURS: [&str; 4] = ["authorization.roles", "authorization.users", "authorization.clients", "authorization.methods"];

/// Every key of the example, also those that are commented out.
fn example_keys() -> Keys {
    let mut keys = Keys::new();
    let mut open: Vec<(usize, String)> = Vec::new();
    for line in read("config.example.yaml").lines() {
        let mut rest = line.trim_start();
        let mut indent = line.len() - rest.len();
        rest = rest.strip_prefix("# ").unwrap_or(rest);
        if let Some(item) = rest.strip_prefix("- ") {
            (indent, rest) = (indent + 2, item);
        }
        let Some((key, value)) = rest.split_once(':') else { continue };
        if !key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') || !(value.is_empty() || value.starts_with(' ')) {
            continue;
        }
        open.retain(|(depth, _)| *depth < indent);
        let path = open.iter().map(|(_, key)| format!("{key}.")).collect::<String>() + key;
        open.push((indent, key.to_owned()));
        if NOT_OURS.iter().any(|other| path.starts_with(&format!("{other}."))) {
            continue;
        }
        if let Ok(serde_yaml::Value::Mapping(members)) = serde_yaml::from_str(value)
            && !NOT_OURS.contains(&path.as_str())
        {
            keys.extend(members.keys().map(|member| format!("{path}.{}", member.as_str().unwrap())));
        }
        keys.insert(path);
    }
    keys
}

#[test]
fn the_example_shows_every_documented_key() {
    let elsewhere = |key: &str| key.starts_with("keys[]") || key.starts_with("revoked[]") || key.starts_with("authorization.methods[]");
    let documented: Keys = documented_keys().into_iter().filter(|key| !elsewhere(key)).map(|key| key.replace("[]", "")).collect();
    let operators = ["authentication.jwt.required_claims.azp", "identity_headers.claims.tenant"];
    let shown: Keys = example_keys().into_iter().filter(|key| !operators.contains(&key.as_str())).collect();
    assert_eq!(documented.symmetric_difference(&shown).collect::<Vec<_>>(), [""; 0]);
}

/// The string literals of a source before its tests, in order.
fn literals(source: &str) -> Vec<String> {
    let text = read(source);
    let code = text.split("#[cfg(test)]").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    lines.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn is_reason(text: &str) -> bool {
    text.len() > 5 && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

#[test]
fn every_reason_is_documented_with_its_words() {
    let mut refused: BTreeMap<String, String> = BTreeMap::new();
    for pair in literals("src/refusal.rs").windows(2).filter(|pair| is_reason(&pair[0])) {
        refused.insert(pair[0].clone(), pair[1].clone());
    }
    // What is answered by resetting the stream has no words.
    refused.extend(literals("src/proxy.rs").into_iter().filter(|literal| is_reason(literal)).map(|reason| (reason, "–".to_owned())));
    let mut documented = BTreeMap::new();
    for row in read("docs/refusals.md").lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        if let Some(reason) = cells.get(2).map(|cell| cell.trim_matches('`')).filter(|cell| is_reason(cell)) {
            assert!(documented.insert(reason.to_owned(), cells[3].to_owned()).is_none(), "{reason} has two rows");
        }
    }
    assert!(refused.len() > 25);
    assert_eq!(documented, refused);
}

#[test]
fn the_numbers_of_the_limits_page_are_those_of_the_code() {
    use ::doorward::http2;
    let page = read("docs/limits.md");
    for (name, bytes) in [
        ("In flight from a client, one stream", u64::from(http2::CLIENT_STREAM_WINDOW)),
        ("In flight from a client, one connection", u64::from(http2::CLIENT_CONNECTION_WINDOW)),
        ("In flight from the upstream, one call", u64::from(http2::UPSTREAM_STREAM_WINDOW)),
        ("In flight from the upstream, one connection of one client", u64::from(http2::OWN_CONNECTION_WINDOW)),
        ("Waiting to be sent, queued for one stream", http2::SEND_BUFFER as u64),
        ("Overhead of unread DATA frames", http2::DATA_FRAME_BUDGET as u64),
        ("Added identity headers", ::doorward::identity_headers::MAX_BYTES as u64),
    ] {
        let size = if bytes % (1 << 20) == 0 { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) };
        let row = page.lines().find(|line| line.starts_with(&format!("| {name} |"))).unwrap_or_else(|| panic!("no row for {name}"));
        assert!(row.contains(&format!("| {size} |")), "{size} in {row}");
    }
    let buckets = format!("| Buckets of each limit | {} |", ::doorward::rate_limits::MOST_BUCKETS);
    assert!(page.contains(&buckets), "{buckets}");
}

#[test]
fn the_versions_of_the_compatibility_page_are_those_that_are_tested() {
    let page = read("docs/compatibility.md");
    for (peer, list, before) in [
        ("grpc-go", "tests/go/go.mod", "google.golang.org/grpc v"),
        ("h2spec", "tests/go/go.mod", "summerwind/h2spec v"),
        ("grpcio (C-core)", "tests/python/requirements.txt", "grpcio=="),
        ("grpc-js", "tests/node/package.json", "\"@grpc/grpc-js\": \""),
        ("grpc-java", "tests/java/pom.xml", "grpc-netty-shaded</artifactId>\n      <version>"),
        ("grpcurl", "tests/go/go.mod", "fullstorydev/grpcurl v"),
        ("tonic", "Cargo.toml", "tonic = { version = \""),
    ] {
        let list = read(list);
        let (_, rest) = list.split_once(before).unwrap_or_else(|| panic!("no {before}"));
        let version: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        assert!(page.contains(&format!("| {peer} | {version} |")), "{peer} {version}");
    }
}

#[test]
fn the_map_names_every_room() {
    let map = read("ARCHITECTURE.md");
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let entry = entry.unwrap();
        let slash = if entry.path().is_dir() { "/" } else { "" };
        let name = format!("`{}{slash}`", entry.file_name().to_str().unwrap());
        assert!(map.contains(&name), "ARCHITECTURE.md does not name {name}");
    }
}

#[test]
fn the_changelog_has_its_form() {
    let text = read("CHANGELOG.md");
    let mut versions = text.lines().filter_map(|line| line.strip_prefix("## "));
    assert_eq!(versions.next(), Some("[Unreleased]"), "changes have a place to go");
    for version in versions {
        let (number, date) = version.strip_prefix('[').and_then(|rest| rest.split_once("] - ")).unwrap_or_else(|| panic!("{version}"));
        assert!(number.split('.').count() == 3 && date.len() == "2026-01-01".len(), "{version}");
    }
    let kinds = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];
    assert!(text.lines().filter_map(|line| line.strip_prefix("### ")).all(|kind| kinds.contains(&kind)));
}

#[test]
fn the_readme_leads_to_every_page() {
    let readme = read("README.md");
    for page in pages() {
        assert!(page.ends_with("README.md") || readme.contains(&format!("({})", page.display())), "{}", page.display());
    }
}

#[test]
fn every_link_leads_somewhere() {
    for page in pages() {
        // What stands in a block is no prose.
        let text = read(&page).split("```").step_by(2).collect::<String>();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(root().join(&target).exists(), "{}: {link}", page.display());
            let slug = |line: &str| {
                let kept = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
                kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect::<String>()
            };
            let found = heading.is_empty() || read(&target).lines().any(|line| line.starts_with('#') && slug(line) == heading);
            assert!(found, "{}: no heading for {link}", page.display());
        }
    }
}
