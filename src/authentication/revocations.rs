//! Credentials that are refused before their time: the entries of the revocations file, compiled, and what each caller's
//! credentials are known by to them.
//!
//! Asked on every call, also of a cached verdict. As long as nothing changes that costs one load: a caller remembers the
//! version of the entries that last had nothing against it.

use super::google;
use super::times;
use crate::api_keys::Record;
use crate::config::{InputFile, Position, Problems, Revocation, read_revocations};
use crate::quote;
use crate::secret::Digest;
use arc_swap::ArcSwap;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Entries named in the one warning about those that revoke nothing.
const NAMED: usize = 10;

/// What is revoked now. Its file may change at any time.
#[derive(Debug)]
pub struct Revocations {
    entries: ArcSwap<Entries>,
    /// Of the entries; no two generations share one, as a caller may be asked about in another generation than its own.
    version: AtomicU64,
    known: Known,
}

/// What entries can be about: an entry about anything else is most likely a slip, and a dangerous one.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) issuers: HashSet<String>,
    pub(super) api_keys: HashSet<Arc<str>>,
}

/// The entries of one reading of the file.
#[derive(Debug, Default)]
pub(super) struct Entries {
    by_issuer: HashMap<String, OfIssuer>,
    api_keys: HashSet<String>,
    /// Of the file they were read from; `None` without one.
    digest: Option<Digest>,
}

#[derive(Debug, Default)]
struct OfIssuer {
    tokens: HashSet<String>,
    /// Until when, in seconds of Unix time, what was issued to a user is revoked.
    users: HashMap<String, f64>,
}

impl Revocations {
    /// Reads the file; everything that is wrong with it is added to `problems`.
    pub(super) fn load(file: Option<&InputFile>, known: Known, problems: &mut Problems) -> Revocations {
        let entries = file.map(|file| Entries::read(file, &known, problems)).unwrap_or_default();
        Revocations { entries: ArcSwap::from_pointee(entries), version: AtomicU64::new(next_version()), known }
    }

    /// Puts what `file` holds now in the place of the entries. `false` when that is what they are already.
    ///
    /// # Errors
    /// In `problems`; the entries stay as they are then.
    pub(super) fn reload(&self, file: &InputFile, problems: &mut Problems) -> bool {
        if self.entries.load().digest == Some(Digest::of(file.content.expose())) {
            return false;
        }
        let entries = Entries::read(file, &self.known, problems);
        if problems.has_errors() {
            return false;
        }
        self.entries.store(Arc::new(entries));
        // After the entries: who sees the new version sees them.
        self.version.store(next_version(), Ordering::Release);
        true
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        let entries = self.entries.load();
        entries.api_keys.len() + entries.by_issuer.values().map(|of| of.tokens.len() + of.users.len()).sum::<usize>()
    }

    /// What is revoked of a caller's credentials.
    pub(super) fn of(&self, standing: &Standing) -> Option<Revoked> {
        let version = self.version.load(Ordering::Acquire);
        if standing.cleared.load(Ordering::Relaxed) == version {
            return None;
        }
        let revoked = self.entries.load().of(standing);
        if revoked.is_none() {
            standing.cleared.store(version, Ordering::Relaxed);
        }
        revoked
    }

    /// What [`Self::of`] found, for the operator.
    pub(super) fn words(&self, standing: &Standing, revoked: Option<Revoked>) -> String {
        let found = match revoked {
            None if self.entries.load().digest.is_none() => return "nothing is revoked: authentication.revocations is not set".to_owned(),
            None => "names none of this".to_owned(),
            Some(Revoked::ApiKey) => "names the API key".to_owned(),
            Some(Revoked::Token) => "names the jti".to_owned(),
            Some(Revoked::User { before }) => format!("names the user before {}", times::numeric(before)),
        };
        format!("the revocations file {found}: {}", standing.known_by())
    }
}

impl Entries {
    fn read(file: &InputFile, known: &Known, problems: &mut Problems) -> Entries {
        let list = read_revocations(file, problems);
        warn_of_strangers(&list, known, problems);
        let mut entries = Entries { digest: Some(Digest::of(file.content.expose())), ..Entries::default() };
        for (revocation, _) in list {
            entries.add(revocation);
        }
        entries
    }

    fn add(&mut self, revocation: Revocation) {
        match revocation {
            Revocation::Token { jti, issuer } => {
                self.of_issuer(issuer).tokens.insert(jti);
            }
            Revocation::User { user_id, issuer, before } => {
                let before = unix_seconds(before);
                let until = self.of_issuer(issuer).users.entry(user_id).or_insert(before);
                *until = until.max(before);
            }
            Revocation::ApiKey { id } => {
                self.api_keys.insert(id);
            }
        }
    }

    fn of_issuer(&mut self, issuer: String) -> &mut OfIssuer {
        let issuer = google::one_spelling(&issuer).to_owned();
        self.by_issuer.entry(issuer).or_default()
    }

    fn of(&self, standing: &Standing) -> Option<Revoked> {
        if standing.api_key.as_ref().is_some_and(|id| self.api_keys.contains(&**id)) {
            return Some(Revoked::ApiKey);
        }
        let token = standing.token.as_ref()?;
        let entries = self.by_issuer.get(token.issuer.as_deref()?)?;
        if token.id.as_ref().is_some_and(|id| entries.tokens.contains(&**id)) {
            return Some(Revoked::Token);
        }
        let before = *entries.users.get(&*token.user_id)?;
        token.issued_at.is_none_or(|issued_at| issued_at < before).then_some(Revoked::User { before })
    }
}

/// What the entries say against a caller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Revoked {
    ApiKey,
    Token,
    /// What was issued to the user before that many seconds of Unix time, or nobody knows when.
    User {
        before: f64,
    },
}

/// What a caller's verdict stands and falls with while calls of it run.
#[derive(Debug, Default)]
pub struct Standing {
    token: Option<TokenStanding>,
    api_key: Option<Arc<str>>,
    /// When the token or, should that be sooner, the API key expires.
    pub(super) expiry: Option<Expiry>,
    /// The version of the entries that had nothing against it.
    cleared: AtomicU64,
}

/// What entries know a token by.
#[derive(Debug)]
pub(super) struct TokenStanding {
    /// `None` for tokens without `iss`: no entry can be about them, but for one about their API key.
    pub(super) issuer: Option<Box<str>>,
    pub(super) id: Option<Box<str>>,
    /// Without the provider's prefix.
    pub(super) user_id: Box<str>,
    /// Seconds of Unix time.
    pub(super) issued_at: Option<f64>,
}

/// The end of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Expiry {
    /// With leeway.
    pub(super) at: SystemTime,
    /// Whether it is the API key's, not the token's.
    pub(super) of_api_key: bool,
}

impl Standing {
    /// `token_ends` is with leeway.
    pub(super) fn new(token: Option<TokenStanding>, token_ends: Option<SystemTime>, api_key: Option<&Record>) -> Standing {
        let token_ends = token_ends.map(|at| Expiry { at, of_api_key: false });
        let key_ends = api_key.and_then(|record| record.expires_at).map(|at| Expiry { at, of_api_key: true });
        Standing {
            token,
            api_key: api_key.map(|record| record.id.clone()),
            expiry: token_ends.into_iter().chain(key_ends).min(),
            cleared: AtomicU64::new(NO_VERSION),
        }
    }

    /// What entries could know it by, for the operator.
    fn known_by(&self) -> String {
        let member = |name, text: Option<&str>| Some(format!("{name} {}", quote::text(text?)));
        let token = self.token.as_ref();
        let issued_at =
            token.map(|token| token.issued_at.map_or_else(|| "no iat".to_owned(), |iat| format!("iat {}", times::numeric(iat))));
        let known_by = [
            member("the API key", self.api_key.as_deref()),
            member("iss", token.and_then(|token| token.issuer.as_deref())),
            member("jti", token.and_then(|token| token.id.as_deref())),
            member("the user", token.map(|token| &*token.user_id)),
            issued_at,
        ];
        known_by.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Bytes of its texts.
    pub(super) fn weight(&self) -> usize {
        let Some(token) = &self.token else { return 0 };
        let length = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        length(&token.issuer) + length(&token.id) + token.user_id.len()
    }
}

/// No entries have it.
const NO_VERSION: u64 = 0;

fn next_version() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(NO_VERSION);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// Negative before 1970.
fn unix_seconds(time: SystemTime) -> f64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => since.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

/// An issuer with a slash too few revokes nothing, and nobody would notice.
fn warn_of_strangers(list: &[(Revocation, Position)], known: &Known, problems: &mut Problems) {
    let is_stranger = |revocation: &Revocation| match revocation {
        Revocation::Token { issuer, .. } | Revocation::User { issuer, .. } => !known.issuers.contains(google::one_spelling(issuer)),
        Revocation::ApiKey { id } => !known.api_keys.contains(id.as_str()),
    };
    let strangers: Vec<&Position> = list.iter().filter(|(revocation, _)| is_stranger(revocation)).map(|(_, at)| at).collect();
    let Some(first) = strangers.first() else { return };
    let named: Vec<&str> = strangers.iter().take(NAMED).map(|at| at.key.as_str()).collect();
    let rest = if strangers.len() > NAMED { " and more" } else { "" };
    let at = Position { key: String::new(), ..(*first).clone() };
    let named = named.join(", ");
    problems.warning(&at, format!("these revoke nothing here, as no provider has the issuer or no API key the id: {named}{rest}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn file(text: &str) -> InputFile {
        InputFile { at: Position::default(), path: "revocations.yaml".into(), content: Secret::new(text.as_bytes().to_vec()) }
    }

    fn known() -> Known {
        let issuers = ["https://a/", "https://b/", google::ISSUERS[0]].map(str::to_owned).into();
        Known { issuers, api_keys: ["analytics".into(), "batch".into()].into() }
    }

    fn load(text: &str) -> Revocations {
        let mut problems = Problems::default();
        let revocations = Revocations::load(Some(&file(text)), known(), &mut problems);
        assert_eq!(problems.iter().count(), 0, "{problems:?}");
        revocations
    }

    fn token(issuer: &str, id: Option<&str>, user_id: &str, issued_at: Option<f64>) -> Standing {
        let token = TokenStanding { issuer: Some(issuer.into()), id: id.map(Box::from), user_id: user_id.into(), issued_at };
        Standing { token: Some(token), ..Standing::default() }
    }

    fn api_key(id: &str) -> Standing {
        Standing { api_key: Some(id.into()), ..Standing::default() }
    }

    #[test]
    fn a_token_is_revoked_by_id_and_issuer_together() {
        let revocations = load("revoked: [{ jti: t-1, issuer: https://a/ }]");
        assert!(revocations.of(&token("https://a/", Some("t-1"), "alice", Some(5.0))).is_some());
        for other in [
            token("https://b/", Some("t-1"), "alice", Some(5.0)),
            token("https://a/", Some("t-2"), "alice", Some(5.0)),
            token("https://a/", None, "t-1", Some(5.0)),
            Standing {
                token: Some(TokenStanding { issuer: None, id: Some("t-1".into()), user_id: "".into(), issued_at: None }),
                ..Standing::default()
            },
            api_key("t-1"),
            Standing::default(),
        ] {
            assert_eq!(revocations.of(&other), None, "{other:?}");
        }
    }

    #[test]
    fn a_user_is_revoked_before_a_moment() {
        let moment = "1970-01-01T00:01:40Z";
        let revocations = load(&format!(
            "revoked:\n- {{ user_id: alice, issuer: https://a/, before: {moment} }}\n- {{ user_id: alice, issuer: https://a/, before: 1970-01-01T00:00:50Z }}\n"
        ));
        for (issued_at, revoked) in [(Some(99.0), true), (Some(99.999), true), (Some(100.0), false), (Some(1e300), false), (None, true)] {
            assert_eq!(revocations.of(&token("https://a/", None, "alice", issued_at)).is_some(), revoked, "{issued_at:?}");
        }
        assert_eq!(revocations.of(&token("https://b/", None, "alice", None)), None);
        assert_eq!(revocations.of(&token("https://a/", None, "bob", None)), None);
        assert_eq!(revocations.len(), 1);
        let long_ago = load("revoked: [{ user_id: alice, issuer: https://a/, before: 1960-01-01T00:00:00Z }]");
        assert_eq!(long_ago.of(&token("https://a/", None, "alice", Some(0.0))), None);
    }

    #[test]
    fn an_api_key_is_revoked_whatever_stands_beside_it() {
        let revocations = load("revoked: [{ api_key: analytics }]");
        assert!(revocations.of(&api_key("analytics")).is_some());
        let both = Standing { api_key: Some("analytics".into()), ..token("https://a/", None, "alice", None) };
        assert!(revocations.of(&both).is_some());
        assert_eq!(revocations.of(&api_key("batch")), None);
    }

    #[test]
    fn google_is_one_issuer_with_two_spellings() {
        for written in google::ISSUERS {
            let revocations = load(&format!("revoked: [{{ jti: t-1, issuer: '{written}' }}]"));
            let found = token(google::one_spelling(written), Some("t-1"), "1", None);
            assert!(revocations.of(&found).is_some(), "{written}");
        }
    }

    #[test]
    fn a_change_is_seen_by_those_who_were_cleared_and_an_error_changes_nothing() {
        let revocations = load("revoked: []");
        let (alice, key) = (token("https://a/", Some("t-1"), "alice", Some(5.0)), api_key("analytics"));
        assert_eq!((revocations.of(&alice), revocations.of(&key)), (None, None));
        let mut problems = Problems::default();
        assert!(revocations.reload(&file("revoked: [{ jti: t-1, issuer: https://a/ }]"), &mut problems));
        assert!(revocations.of(&alice).is_some() && revocations.of(&key).is_none());
        assert!(!revocations.reload(&file("revoked: [{ jti: t-1, issuer: https://a/ }]"), &mut problems), "the same again");
        assert!(!problems.has_errors());
        for bad in ["revoked:", "revoked: [{ jti: t-2 }]", "revoked: ["] {
            let mut problems = Problems::default();
            assert!(!revocations.reload(&file(bad), &mut problems) && problems.has_errors(), "{bad}");
            assert!(revocations.of(&alice).is_some(), "{bad}");
        }
        assert!(revocations.reload(&file("revoked: []"), &mut problems));
        assert_eq!(revocations.of(&alice), None);
    }

    #[test]
    fn an_entry_about_nobody_is_warned_about() {
        let text = "revoked: [{ jti: t, issuer: https://a }, { api_key: analytic }, { api_key: batch }, { jti: t, issuer: https://a/ }]";
        let mut problems = Problems::default();
        Revocations::load(Some(&file(text)), known(), &mut problems);
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(lines.len() == 1 && lines[0].starts_with("warning") && lines[0].ends_with(": revoked[0], revoked[1]"), "{lines:?}");
    }
}
