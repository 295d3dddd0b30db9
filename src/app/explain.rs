//! The decision for one call, in words, made by the very rooms that decide calls: those of a file (`doorward explain`), or
//! those in force in a running process (`POST /explain` on the operations port).

use super::assembly::Assembly;
use crate::authentication::{Authenticator, Caller, Outcome, Standing};
use crate::authorization::{Denied, Policy};
use crate::config::{Config, Mode, Rate};
use crate::grpc::MethodPath;
use crate::identity::Identity;
use crate::identity_headers::IdentityHeaders;
use crate::proxy::Generation;
use crate::rate_limits::OwnBucket;
use crate::readiness::{Readiness, Status as Part};
use crate::refusal::{Refusal, Status};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::SystemTime;

const AUDITED: &str = "authentication.insecure_audit lets the call through as anonymous; its rule is not looked at";

const NOT_ASKED: &str = "authentication: trust and revocations are not asked of what is supposed; `doorward test` asks them";

/// A call that somebody asks about. No `Debug`: it holds credentials.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Question {
    /// The path.
    pub method: String,
    /// A bearer token.
    pub token: Option<String>,
    /// An API key.
    pub api_key: Option<String>,
    /// As if this user had been authenticated.
    pub user: Option<String>,
    /// Roles that the user's credentials carry.
    pub roles: Vec<String>,
}

/// What is decided.
#[derive(Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// Whether the call would be forwarded.
    pub allowed: bool,
    /// Why, step by step; the decision last. No credential is in them.
    pub lines: Vec<String>,
}

/// What a configuration decides with, wherever it lives.
struct Rooms<'a> {
    authenticator: &'a Authenticator,
    policy: &'a Policy,
    identity_headers: &'a IdentityHeaders,
    terms: &'a Terms,
}

/// What an explanation needs of a configuration beside its rooms.
#[derive(Debug)]
struct Terms {
    mode: Mode,
    insecure_audit: bool,
    client_certificates: bool,
    api_key_header: Option<HeaderName>,
    per_identity: Option<Rate>,
}

impl Terms {
    fn of(config: &Config) -> Terms {
        let authentication = &config.authentication;
        Terms {
            mode: authentication.mode,
            insecure_audit: authentication.insecure_audit,
            client_certificates: !authentication.client_certificates.is_empty(),
            api_key_header: authentication.api_keys.as_ref().map(|keys| keys.header.clone()),
            per_identity: config.rate_limits.per_identity,
        }
    }
}

/// Decides it by a configuration that nobody runs; key sets are fetched for it. Within a runtime.
///
/// # Errors
/// The question makes no sense, in words for the operator.
pub async fn explain(question: &Question, config: &Config, assembly: &Assembly) -> Result<Explanation, String> {
    let Assembly { authenticator, policy, identity_headers, .. } = assembly;
    for set in authenticator.key_sets() {
        tokio::spawn(set.clone().run());
    }
    Rooms { authenticator, policy, identity_headers, terms: &Terms::of(config) }.explain(question).await
}

/// What is in force, for those who ask.
pub(super) struct InForce {
    generation: Arc<Generation>,
    terms: Terms,
    readiness: Readiness,
}

impl InForce {
    pub(super) fn new(config: &Config, generation: Arc<Generation>, readiness: Readiness) -> InForce {
        InForce { generation, terms: Terms::of(config), readiness }
    }

    /// `question` and answer are JSON: [`Question`] and [`Explanation`].
    ///
    /// # Errors
    /// The question makes no sense, in words for the operator.
    pub(super) async fn answer(&self, question: &[u8]) -> Result<Vec<u8>, String> {
        // Not serde's words: they quote what they have found.
        let question: Question = serde_json::from_slice(question).map_err(|error| {
            format!("no question of this version: expected JSON as `doorward explain --running` sends it (column {})", error.column())
        })?;
        let Generation { authenticator, policy, identity_headers, .. } = &*self.generation;
        let rooms = Rooms { authenticator, policy, identity_headers, terms: &self.terms };
        let mut explanation = rooms.explain(&question).await?;
        explanation.lines.insert(0, format!("running: {}", self.words()));
        Ok(serde_json::to_vec(&explanation).expect("texts and a boolean are JSON"))
    }

    /// Which configuration it is, and whether its files have been refused since.
    fn words(&self) -> String {
        let parts = self.readiness.status();
        let part = parts.into_iter().find_map(|(name, part)| (name == super::CONFIGURATION).then_some(part));
        match part {
            Some(Part::Remark(words) | Part::NotReady(words)) => words,
            Some(Part::Ready) | None => "the configuration in force".to_owned(),
        }
    }
}

impl Rooms<'_> {
    async fn explain(&self, question: &Question) -> Result<Explanation, String> {
        let credentials = self.credentials(question)?;
        let mut lines = vec![format!("method: {}", question.method.escape_default())];
        let decided = self.decide(question, &credentials, &mut lines).await;
        lines.push(match &decided {
            Ok(()) => "decision: ALLOWED".to_owned(),
            Err(refusal) => {
                let answer = refusal.answer();
                let code = match answer.status {
                    Status::Grpc(code) => format!("{} {}", code as u8, code.name()),
                    Status::Http(status) => status.to_string(),
                };
                format!("decision: REFUSED: {code}, {}: {}", answer.reason, answer.words)
            }
        });
        Ok(Explanation { allowed: decided.is_ok(), lines })
    }

    /// What a client would send.
    fn credentials(&self, question: &Question) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        if let Some(token) = &question.token {
            let value = HeaderValue::try_from(format!("Bearer {token}"));
            headers.insert(AUTHORIZATION, value.map_err(|_| "the token is no field value: it holds control characters".to_owned())?);
        }
        if let Some(key) = &question.api_key {
            let header = self.terms.api_key_header.as_ref().ok_or("--api-key: the configuration has no authentication.api_keys")?;
            let value = HeaderValue::try_from(key.as_str());
            headers.insert(header, value.map_err(|_| "the key is no field value: it holds control characters".to_owned())?);
        }
        Ok(headers)
    }

    async fn decide(&self, question: &Question, credentials: &HeaderMap, lines: &mut Vec<String>) -> Result<(), Refusal> {
        let (policy, terms) = (self.policy, self.terms);
        let path = MethodPath::parse(&question.method).ok_or(Refusal::MethodMalformed)?;
        let route = policy.route(&path);
        if policy.permit_public(route).is_some() {
            lines.push("public: no credential is looked at, none is forwarded, and the upstream is told no identity".to_owned());
            return Ok(());
        }
        if terms.mode == Mode::Disabled {
            lines.push("authentication.mode is disabled: nothing is checked, and the upstream is told no identity".to_owned());
            return Ok(());
        }
        if terms.client_certificates {
            let words = "authentication: client certificates are not explained: the call is taken to come without one";
            lines.push(words.to_owned());
        }
        let caller = match self.supposed(question) {
            Some(identity) => {
                lines.push("authentication: taken as passed, for the user and roles given".to_owned());
                lines.push(NOT_ASKED.to_owned());
                let grants = policy.grants(&identity);
                let headers = self.identity_headers.render(&identity, &grants);
                let rate = OwnBucket::new();
                headers.ok().map(|headers| Arc::new(Caller { identity, grants, headers, standing: Standing::default(), rate }))
            }
            None => match self.authenticate(credentials, lines).await {
                Err(_) if terms.insecure_audit => {
                    lines.push(AUDITED.to_owned());
                    return Ok(());
                }
                verdict => verdict?,
            },
        };
        let held = caller.as_deref().map(|caller| (&caller.identity, &caller.grants));
        lines.extend(policy.explain(route, held).into_iter().map(|line| format!("authorization: {line}")));
        match policy.authorize(route, held) {
            Err(Denied::CredentialsMissing) if terms.insecure_audit => lines.push(AUDITED.to_owned()),
            decided => drop(decided.map_err(Refusal::Authorization)?),
        }
        if let Some(caller) = &caller {
            lines.extend(self.for_the_upstream(caller));
        }
        Ok(())
    }

    fn for_the_upstream(&self, caller: &Caller) -> Vec<String> {
        let left = "how much of it is left only the running proxy knows";
        let rate = self.terms.per_identity.map(|rate| format!("rate_limits.per_identity: {rate}; {left}"));
        let headers = caller.headers.iter().map(|(name, value)| format!("header: {name}: {}", value.to_str().unwrap_or_default()));
        rate.into_iter().chain(headers).collect()
    }

    /// The identity of a user and roles that are given, if any are.
    fn supposed(&self, question: &Question) -> Option<Identity> {
        if question.user.is_none() && question.roles.is_empty() {
            return None;
        }
        let user: Option<Arc<str>> = question.user.as_deref().map(Arc::from);
        Some(Identity {
            user_email: user.clone().filter(|user| user.contains('@')),
            user_id: user,
            roles: question.roles.iter().map(|role| Arc::from(role.as_str())).collect(),
            // Which credential it was is not supposed: no `from` refuses it.
            presented: self.authenticator.credential_names(),
            ..Identity::default()
        })
    }

    async fn authenticate(&self, credentials: &HeaderMap, lines: &mut Vec<String>) -> Result<Option<Arc<Caller>>, Refusal> {
        let (transcript, verdict) = self.authenticator.explain(credentials, SystemTime::now()).await;
        for (outcome, words) in transcript.steps() {
            let outcome = match outcome {
                Outcome::Passed => "passed: ",
                Outcome::Failed => "failed: ",
                Outcome::Noted => "",
            };
            lines.push(format!("authentication: {outcome}{words}"));
        }
        let caller = verdict.map_err(Refusal::Authentication)?.caller;
        let words = match &caller {
            None => "no credential: an anonymous caller".to_owned(),
            Some(caller) => format!("every check passed: {}", caller.identity.presented.join(" and ")),
        };
        lines.push(format!("authentication: {words}"));
        Ok(caller)
    }
}
