//! What the commands do to a file, and what they refuse.

use super::*;
use crate::api_keys::ApiKeys;
use crate::config::{InputFile, Position};
use crate::secret::Secret;
use clap::Parser;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// What stands in `doorward keys`.
#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

fn parse(arguments: &str) -> Result<Create, clap::Error> {
    let words = ["keys", "create", "--config", "doorward.yaml"].into_iter().chain(arguments.split_whitespace());
    match Line::try_parse_from(words)?.command {
        Command::Create(create) => Ok(create),
        _ => unreachable!("create was asked for"),
    }
}

/// A configuration and a key file in a folder of their own.
fn folder(keys: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = "listen: { address: 127.0.0.1:0, insecure_plaintext: true }\nupstream: { address: http://127.0.0.1:1 }\nauthentication:\n  api_keys: { file: keys.yaml }\nauthorization:\n  roles: { viewer: [users:read] }\n  methods: { /a.B/C: users:read }\n";
    fs::write(folder.path().join("doorward.yaml"), config).unwrap();
    fs::write(folder.path().join("keys.yaml"), keys).unwrap();
    folder
}

fn create_in(folder: &TempDir, arguments: &str) -> Result<String, Failure> {
    let mut arguments = parse(arguments).unwrap();
    arguments.files.config = vec![folder.path().join("doorward.yaml")];
    create(&arguments)
}

/// Runs `doorward keys` with these words.
fn run_in(folder: &TempDir, words: &str) -> Result<String, Failure> {
    let config = folder.path().join("doorward.yaml");
    let mut words: Vec<std::ffi::OsString> = format!("keys {words}").split(' ').map(Into::into).collect();
    words.splice(2..2, ["--config".into(), config.into()]);
    match Line::try_parse_from(words).unwrap().command {
        Command::List(arguments) => list::list(&arguments),
        Command::Revoke(arguments) => revoke::revoke(&arguments).map(|()| String::new()),
        Command::Rotate(arguments) => rotate::rotate(&arguments),
        Command::Create(_) | Command::Hash => unreachable!("asked for otherwise"),
    }
}

fn loaded(folder: &TempDir) -> ApiKeys {
    let mut problems = Problems::default();
    let keys = ApiKeys::load(&key_file(&folder.path().join("keys.yaml")), &mut problems);
    assert!(!problems.has_errors(), "{problems:?}");
    keys
}

fn find<'k>(keys: &'k ApiKeys, id: &str) -> &'k Record {
    keys.records().find(|record| &*record.id == id).unwrap()
}

/// Seconds from now.
fn from_now_on(time: Option<SystemTime>) -> i64 {
    Timestamp::try_from(time.unwrap()).unwrap().as_second() - Timestamp::now().as_second()
}

fn keys_of(folder: &TempDir) -> String {
    fs::read_to_string(folder.path().join("keys.yaml")).unwrap()
}

fn key_file(path: &Path) -> config::ApiKeys {
    let content = Secret::new(fs::read(path).unwrap());
    let file = InputFile { at: Position::default(), path: path.to_owned(), content };
    config::ApiKeys { header: http::HeaderName::from_static("x-api-key"), file: Some(file), development_key: None }
}

fn record(id: &str) -> Record {
    Record {
        name: Some("A \"name\" # of sorts: é".into()), ..parse(&format!("--id {id} --client-id c --never-expires")).unwrap().record()
    }
}

/// Adds one record and gives back the text that came of it, which the proxy's reader takes.
fn added(before: &str) -> Result<String, NotChanged> {
    let folder = folder(before);
    let path = folder.path().join("keys.yaml");
    let config = key_file(&path);
    let mut problems = Problems::default();
    let file = KeyFile::read(&config, &mut problems).unwrap();
    assert!(!problems.has_errors(), "{problems:?}");
    let (record, key) = (record("new"), NewKey::generate("new").unwrap());
    let result = file.add(&record, &key);
    let after = fs::read_to_string(&path).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left in the folder");
    match result {
        Ok(()) => {
            let found = ApiKeys::load(&key_file(&path), &mut problems);
            assert_eq!(**found.find(key.text().as_bytes()).unwrap(), record);
            assert!(!after.contains(key.text()), "the key itself is nowhere");
            Ok(after.replace(&key.digest().hex(), "…"))
        }
        Err(reason) => {
            assert_eq!(after, before);
            Err(reason)
        }
    }
}

const OLD: &str = "sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn new(indent: &str) -> String {
    let lines = [
        "- id: new",
        "  name: \"A \\\"name\\\" # of sorts: é\"",
        "  client_id: c",
        "  sha256: \"…\"",
        "  type: service",
        "  roles: []",
        "  permissions: []",
        "  expires_at: null",
    ];
    lines.map(|line| format!("{indent}{line}\n")).concat()
}

#[test]
fn an_empty_list_gets_its_first_record() {
    assert_eq!(added("keys: []\n").unwrap(), format!("keys:\n{}", new("  ")));
    assert_eq!(added("# ours\n\nkeys:   []  # none yet\n# end\n").unwrap(), format!("# ours\n\nkeys:  # none yet\n# end\n{}", new("  ")));
    assert_eq!(added("keys: []").unwrap(), format!("keys:\n{}", new("  ")));
}

#[test]
fn a_list_keeps_its_text_and_its_indentation() {
    for indent in ["", "  ", "      "] {
        let before = format!("# ours\nkeys: # all\n\n# the first\n{indent}- {{ id: a, client_id: c, {OLD} }} # odd\n\n# end\n");
        assert_eq!(added(&before).unwrap(), format!("{before}{}", new(indent)));
    }
    let before = format!("keys:\n -\n   id: a\n   client_id: c\n   {OLD}");
    assert_eq!(added(&before).unwrap(), format!("{before}\n{}", new(" ")));
    let before = format!("keys:\r\n- id: a\r\n  client_id: c\r\n  {OLD}\r\n");
    assert_eq!(added(&before).unwrap(), format!("{before}{}", new("").replace('\n', "\r\n")));
}

#[test]
fn what_cannot_be_edited_is_left_alone() {
    let others = [
        format!("keys: [{{ id: a, client_id: c, {OLD} }}]\n"),
        format!("{{keys: [{{ id: a, client_id: c, {OLD} }}]}}\n"),
        format!("\"keys\":\n- {{ id: a, client_id: c, {OLD} }}\n"),
        format!("keys:\n- {{ id: a, client_id: c, {OLD} }}\n...\n"),
    ];
    for before in others {
        let result = added(&before);
        assert!(matches!(result, Err(NotChanged::Cannot(_))), "{result:?}");
    }
}

#[test]
fn the_file_keeps_its_mode_and_is_replaced_in_one_step() {
    let folder = folder("keys: []\n");
    let path = folder.path().join("keys.yaml");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let (inode, reader) = (fs::metadata(&path).unwrap().ino(), fs::File::open(&path).unwrap());
    let key = create_in(&folder, "--id a --client-id c --role viewer --permission a:b --expires 1d").unwrap();
    assert!(ApiKeys::load(&key_file(&path), &mut Problems::default()).find(key.as_bytes()).is_some());
    let after = fs::metadata(&path).unwrap();
    assert_eq!(after.mode() & 0o7777, 0o640);
    assert_ne!(after.ino(), inode);
    assert_eq!(io::read_to_string(reader).unwrap(), "keys: []\n", "who reads at this moment sees the old file whole");
    assert!(keys_of(&folder).contains("    roles: [viewer]\n    permissions: [\"a:b\"]\n    expires_at: 2"));
}

#[test]
fn a_link_is_not_replaced() {
    let folder = folder("keys: []\n");
    let path = folder.path().join("keys.yaml");
    fs::create_dir(folder.path().join("..data")).unwrap();
    fs::rename(&path, folder.path().join("..data/keys.yaml")).unwrap();
    symlink("..data/keys.yaml", &path).unwrap();
    create_in(&folder, "--id a --client-id c --never-expires").expect("the record is printed instead");
    assert!(path.is_symlink());
    assert_eq!(keys_of(&folder), "keys: []\n");
}

#[test]
fn a_file_that_changed_since_it_was_read_is_left_alone() {
    let folder = folder("keys: []\n");
    let path = folder.path().join("keys.yaml");
    let config = key_file(&path);
    let file = KeyFile::read(&config, &mut Problems::default()).unwrap();
    fs::write(&path, "keys: [] # hello\n").unwrap();
    let result = file.add(&record("a"), &NewKey::generate("a").unwrap());
    assert!(matches!(result, Err(NotChanged::Meanwhile)), "{result:?}");
    assert_eq!(keys_of(&folder), "keys: [] # hello\n");
}

#[test]
fn an_id_is_taken_once_and_a_role_is_defined() {
    let folder = folder("keys: []\n");
    create_in(&folder, "--id a --client-id c --never-expires").unwrap();
    let once = keys_of(&folder);
    for wrong in ["--id a --client-id d --never-expires", "--id b --client-id c --never-expires --role admin"] {
        assert_eq!(create_in(&folder, wrong).unwrap_err().0, USAGE);
    }
    assert_eq!(keys_of(&folder), once);
}

#[test]
fn a_bad_configuration_is_no_usage_error() {
    let folder = folder("keys:\n- id: a\n");
    assert_eq!(create_in(&folder, "--id b --client-id c --never-expires").unwrap_err().0, BAD_CONFIGURATION);
    fs::remove_file(folder.path().join("keys.yaml")).unwrap();
    assert_eq!(create_in(&folder, "--id b --client-id c --never-expires").unwrap_err().0, BAD_CONFIGURATION);
}

#[test]
fn arguments_are_checked_before_anything_is_made() {
    let create = parse("--id a --client-id c --expires 90d --type cli --role r --role s --permission a:*").unwrap();
    assert_eq!((create.record().key_type, create.record().roles.len()), (KeyType::Cli, 2));
    for wrong in [
        "--id a --client-id c",
        "--id a --client-id c --never-expires --expires 90d",
        "--id A --client-id c --never-expires",
        "--id a --never-expires",
        "--client-id c --never-expires",
        "--id a --client-id c --never-expires --type robot",
        "--id a --client-id c --never-expires --permission reports",
        "--id a --client-id c --expires 0d",
        "--id a --client-id c --expires 2020-01-01T00:00:00Z",
        "--id a --client-id c --expires tomorrow",
        "--id a --client-id c --expires 99999999999999999d",
        "--id a --client-id c --expires é",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_key_expires_when_it_was_asked_to() {
    let now: Timestamp = "2026-01-01T00:00:00.5Z".parse().unwrap();
    for (text, expected) in [("90d", "2026-04-01T00:00:00Z"), ("12h", "2026-01-01T12:00:00Z"), ("30m", "2026-01-01T00:30:00Z")] {
        assert_eq!(from_now(text, now).unwrap().to_string(), expected);
    }
    for bad in ["", "d", "-1d", "+1d", "1", "1w", "1.5d"] {
        assert!(from_now(bad, now).is_none(), "{bad}");
    }
    let day = parse("--id a --client-id c --expires 1d").unwrap().record().expires_at.unwrap();
    let from_now = day.duration_since(SystemTime::now()).unwrap();
    assert!(from_now > Duration::from_secs(86_000) && from_now <= Duration::from_secs(86_400));
}

#[test]
fn a_key_from_elsewhere_is_hashed_without_its_newline() {
    assert_eq!(hash(&b"a key\n"[..]).unwrap(), Digest::of(b"a key").hex());
    for bad in [&b""[..], b"\n", &vec![b'x'; LONGEST_KEY + 2]] {
        assert_eq!(hash(bad).unwrap_err().0, USAGE);
    }
    assert!(can_be_presented(b"a key") && can_be_presented("é".as_bytes()));
    assert!(!can_be_presented(b"a\r") && !can_be_presented(b" a") && !can_be_presented(b"a\0b"));
}

#[test]
fn the_stub_is_refused_until_its_expiry_is_decided() {
    let folder = folder(&format!("keys:\n{}", stub(&Digest::of(b"k").hex())));
    let mut problems = Problems::default();
    ApiKeys::load(&key_file(&folder.path().join("keys.yaml")), &mut problems);
    let problems: Vec<_> = problems.iter().map(|problem| problem.at.key.as_str()).collect();
    assert_eq!(problems, ["keys[0].expires_at"]);
}

fn two_keys() -> String {
    let other = Digest::of(b"b").hex();
    format!(
        "# ours\nkeys:\n  # the first\n  - id: a\n    client_id: c\n    {OLD}\n    expires_at: null # never\n  - {{ id: b, client_id: c, sha256: {other} }} # odd\n# end\n"
    )
}

#[test]
fn revoking_sets_one_field_and_nothing_else() {
    for id in ["a", "b"] {
        let folder = folder(&two_keys());
        run_in(&folder, &format!("revoke {id}")).unwrap();
        let at = find(&loaded(&folder), id).revoked_at;
        assert!((-5..=0).contains(&from_now_on(at)), "{at:?}");
        let time = Timestamp::try_from(at.unwrap()).unwrap();
        let expected = match id {
            "a" => two_keys().replace("# never\n", &format!("# never\n    revoked_at: {time}\n")),
            _ => two_keys().replace("id: b", &format!("id: b, revoked_at: {time}")),
        };
        assert_eq!(keys_of(&folder), expected);
        run_in(&folder, &format!("revoke {id}")).unwrap();
        assert_eq!(keys_of(&folder), expected, "revoked already");
    }
}

#[test]
fn a_revocation_that_is_not_in_the_file_is_no_success() {
    let folder = folder(&two_keys());
    assert_eq!(run_in(&folder, "revoke nobody").unwrap_err().0, USAGE);
    fs::rename(folder.path().join("keys.yaml"), folder.path().join("elsewhere")).unwrap();
    symlink("elsewhere", folder.path().join("keys.yaml")).unwrap();
    let Failure(code, message) = run_in(&folder, "revoke a").unwrap_err();
    assert!(code == FAILED && message.contains("record of a") && message.contains("revoked_at: 2"), "{message}");
    assert_eq!(keys_of(&folder), two_keys());
}

#[test]
fn what_would_be_read_otherwise_is_not_written() {
    let shared =
        format!("keys:\n- &x {{ id: a, client_id: c, {OLD} }}\n- {{ id: b, client_id: &y a, sha256: {} }}\n", Digest::of(b"b").hex());
    let folder = folder(&shared.replace("&y a", "*y").replace("id: a, client_id: c", "id: &y a, client_id: c"));
    let before = keys_of(&folder);
    // Whatever becomes of it, the result is what was meant or nothing.
    match run_in(&folder, "revoke a") {
        Ok(_) => assert!(find(&loaded(&folder), "a").revoked_at.is_some() && find(&loaded(&folder), "b").revoked_at.is_none()),
        Err(Failure(code, _)) => assert_eq!((code, keys_of(&folder)), (FAILED, before)),
    }
}

#[test]
fn rotating_adds_a_key_like_the_old_one_which_expires() {
    let folder = folder("keys: []\n");
    let old = create_in(&folder, "--id web --client-id c --user-id u --type cli --role viewer --permission a:b --expires 10d").unwrap();
    let new = run_in(&folder, "rotate web --overlap 2h").unwrap();
    let keys = loaded(&folder);
    let (old, new) = (keys.find(old.as_bytes()).unwrap(), keys.find(new.as_bytes()).unwrap());
    assert_eq!((&*old.id, &*new.id), ("web", "web-r2"));
    let same = Record { id: old.id.clone(), expires_at: old.expires_at, ..(**new).clone() };
    assert_eq!(same, **old);
    assert!((7190..=7200).contains(&from_now_on(old.expires_at)), "{old:?}");
    assert!((90 * 86_400 - 10..=90 * 86_400).contains(&from_now_on(new.expires_at)), "{new:?}");
    let third = run_in(&folder, "rotate web-r2 --overlap 0s --expires 1d").unwrap();
    let keys = loaded(&folder);
    assert_eq!(&*keys.find(third.as_bytes()).unwrap().id, "web-r3");
    assert!(from_now_on(find(&keys, "web-r2").expires_at) <= 0 && keys.records().count() == 3);
    assert!((86_390..=86_400).contains(&from_now_on(find(&keys, "web-r3").expires_at)));
}

#[test]
fn rotating_never_prolongs_a_key_and_keeps_what_never_expires() {
    let folder = folder("keys: []\n");
    create_in(&folder, "--id soon --client-id c --expires 1h").unwrap();
    create_in(&folder, "--id late --client-id c --expires 400d").unwrap();
    create_in(&folder, "--id ever --client-id c --never-expires").unwrap();
    create_in(&folder, "--id gone --client-id c --never-expires").unwrap();
    run_in(&folder, "revoke gone").unwrap();
    let before = find(&loaded(&folder), "soon").expires_at;
    for id in ["soon", "late", "ever"] {
        run_in(&folder, &format!("rotate {id}")).unwrap();
    }
    let keys = loaded(&folder);
    assert_eq!(find(&keys, "soon").expires_at, before);
    assert!(from_now_on(find(&keys, "late-r2").expires_at) > 399 * 86_400);
    assert_eq!(find(&keys, "ever-r2").expires_at, None);
    for id in ["late", "ever"] {
        assert!((86_390..=86_400).contains(&from_now_on(find(&keys, id).expires_at)), "{id}");
    }
    assert_eq!(run_in(&folder, "rotate gone").unwrap_err().0, USAGE);
    assert_eq!(run_in(&folder, "rotate nobody").unwrap_err().0, USAGE);
}

#[test]
fn a_list_tells_the_state_and_no_hash() {
    let folder = folder(&two_keys());
    create_in(&folder, "--id short --client-id client --role viewer --expires 2099-01-01T00:00:00Z").unwrap();
    run_in(&folder, "revoke a").unwrap();
    let table = run_in(&folder, "list").unwrap();
    let expected = [
        "ID     CLIENT_ID  TYPE     ROLES   EXPIRES               STATE",
        "a      c          service  -       never                 revoked",
        "b      c          service  -       never                 active",
        "short  client     service  viewer  2099-01-01T00:00:00Z  active",
    ];
    assert_eq!(table.lines().collect::<Vec<_>>(), expected);
    let config = fs::read_to_string(folder.path().join("doorward.yaml")).unwrap();
    let more = "authentication:\n  revocations: { file: revocations.yaml }\n";
    fs::write(folder.path().join("doorward.yaml"), config.replace("authentication:\n", more)).unwrap();
    fs::write(folder.path().join("revocations.yaml"), "revoked: [{ api_key: short }]\n").unwrap();
    let json: serde_json::Value = serde_json::from_str(&run_in(&folder, "list --json").unwrap()).unwrap();
    assert_eq!((&json[0]["state"], &json[1]["state"], &json[2]["state"]), (&"revoked".into(), &"active".into(), &"revoked".into()));
    assert_eq!((&json[2]["roles"][0], &json[2]["expires_at"]), (&"viewer".into(), &"2099-01-01T00:00:00Z".into()));
    assert!(!format!("{table}{json}").contains(&Digest::of(b"b").hex()) && json[0].get("sha256").is_none());
    fs::write(folder.path().join("keys.yaml"), "keys: []\n").unwrap();
    assert_eq!((run_in(&folder, "list").unwrap().lines().count(), run_in(&folder, "list --json").unwrap()), (1, "[]".to_owned()));
}
