//! `doorward test`: what the configuration decides of a table of callers and methods, beside what is expected.
//!
//! Decided by the very rooms that `run` uses. Under an audit mode it is the refusal that counts, not that it is let
//! through: what is tested is the policy that will be in force.

use super::descriptors::{self, Described};
use super::{BAD_CONFIGURATION, FAILED, Files, Ready};
use crate::app::{Assembly, why_no_such_method};
use crate::config::{Config, Expectation, Mode, Problems, Who, read_expectations};
use crate::grpc::MethodPath;
use crate::refusal::Refusal;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

const ALLOWED: &str = "allowed";
/// What can come of a call whose credentials are supposed. Those of tokens that do not verify cannot.
const OUTCOMES: [&str; 10] = [
    ALLOWED,
    "CREDENTIALS_MISSING",
    "PERMISSION_MISSING",
    "METHOD_NOT_ALLOWED",
    "CREDENTIALS_NOT_ACCEPTED",
    "CREDENTIALS_REVOKED",
    "API_KEY_UNKNOWN",
    "API_KEY_EXPIRED",
    "TOKEN_CLAIM",
    "METHOD_MALFORMED",
];

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    described: Described,
    /// A YAML file with a list `tests` of who calls which method, and what is expected: allowed, or the reason of the refusal
    #[arg(value_name = "EXPECTATIONS")]
    expectations: PathBuf,
}

pub(super) fn test(arguments: &Arguments) -> ExitCode {
    // Both files are read before either ends it: all errors at once.
    let mut problems = Problems::default();
    let expectations = read_expectations(&arguments.expectations, &OUTCOMES, &mut problems);
    let loaded = descriptors::load(&arguments.files, &arguments.described);
    if let Ok((ready, services)) = &loaded {
        for expectation in &expectations {
            check_sources(expectation, &ready.assembly, &mut problems);
            if let Some(words) = services.as_ref().and_then(|services| why_no_such_method(&expectation.method, services)) {
                problems.error(&expectation.at, words);
            }
        }
    }
    for problem in problems.iter() {
        eprintln!("{problem}");
    }
    match loaded {
        Ok(_) if problems.has_errors() => ExitCode::from(BAD_CONFIGURATION),
        Ok((Ready { config, assembly, .. }, _)) => compare(&expectations, &config, &assembly),
        Err(code) => code,
    }
}

/// What `from` names must be there; and only tokens come together with a key or a certificate of the file.
fn check_sources(Expectation { who, at, .. }: &Expectation, assembly: &Assembly, problems: &mut Problems) {
    match assembly.authenticator.sources(who) {
        Err(words) => problems.error(at, words),
        Ok(sources) => {
            let tokens = assembly.authenticator.provider_names();
            let beside = who.api_key_id.is_some() || who.certificate.is_some();
            if beside && sources.iter().any(|source| !tokens.contains(source)) {
                problems.error(at, "what is said beside api_key_id and certificate is said by a token: from is the name of its provider");
            }
        }
    }
}

fn compare(expectations: &[Expectation], config: &Config, assembly: &Assembly) -> ExitCode {
    let (mut differing, mut audited) = (0, 0);
    for expectation in expectations {
        let Expectation { who, method, expected, at } = expectation;
        let found = found(expectation, config, assembly);
        audited += usize::from(found.audited);
        let call = format!("{who} → {}", method.escape_debug());
        if found.outcome == *expected {
            println!("ok    {call}: {}", found.in_short());
        } else {
            differing += 1;
            println!("FAIL  {call}: expected {expected}, found {} ({}:{}:{})", found.in_full(), at.file, at.line, at.column);
        }
    }
    let (all, hold) = (expectations.len(), expectations.len() - differing);
    let audited = if audited > 0 { format!("; {audited} of the refused calls let through by an audit mode") } else { String::new() };
    let verb = |count, verb: &str| format!("{count} {verb}{}", if count == 1 { "s" } else { "" });
    println!("{all} expectation{}: {}, {}{audited}", if all == 1 { "" } else { "s" }, verb(hold, "hold"), verb(differing, "differ"));
    if differing > 0 { ExitCode::from(FAILED) } else { ExitCode::SUCCESS }
}

/// What the configuration decides.
struct Found {
    /// One of [`OUTCOMES`], but for credentials of which several could be meant.
    outcome: &'static str,
    /// Why it is refused.
    detail: Option<String>,
    /// It is refused, and let through.
    audited: bool,
}

impl Found {
    fn allowed() -> Found {
        Found { outcome: ALLOWED, detail: None, audited: false }
    }

    fn in_short(&self) -> String {
        let audited = if self.audited { ", let through by an audit mode" } else { "" };
        format!("{}{audited}", self.outcome)
    }

    fn in_full(&self) -> String {
        let detail = self.detail.as_deref().map(|detail| format!(": {detail}"));
        format!("{}{}", self.in_short(), detail.unwrap_or_default())
    }
}

/// Of several credentials that may be meant each has to come to the same.
fn found(Expectation { who, method, .. }: &Expectation, config: &Config, assembly: &Assembly) -> Found {
    let sources = assembly.authenticator.sources(who).unwrap_or_default();
    let mut decided = sources.iter().map(|source| (&**source, decide(who, Some(source), method, config, assembly)));
    let Some((first, found)) = decided.next() else { return decide(who, None, method, config, assembly) };
    match decided.find(|(_, other)| other.outcome != found.outcome) {
        None => found,
        Some((source, other)) => Found {
            outcome: "what depends on the credential",
            detail: Some(format!("{} by {first}, {} by {source}; say which with from", found.outcome, other.outcome)),
            audited: false,
        },
    }
}

/// The order is that of a call.
fn decide(who: &Who, source: Option<&str>, method: &str, config: &Config, assembly: &Assembly) -> Found {
    let Some(path) = MethodPath::parse(method) else { return refused(&Refusal::MethodMalformed, false) };
    let (authentication, policy) = (&config.authentication, &assembly.policy);
    let route = policy.route(&path);
    if route.is_public() || authentication.mode == Mode::Disabled {
        return Found::allowed();
    }
    let caller = match assembly.authenticator.suppose(who, source, SystemTime::now()) {
        Ok(caller) => caller,
        Err(failure) => return refused(&Refusal::Authentication(failure), authentication.insecure_audit),
    };
    match policy.authorize(route, caller.as_ref().map(|caller| (&caller.identity, &caller.grants))) {
        Ok(permit) => permit.audited().map_or_else(Found::allowed, |denied| refused(&Refusal::Authorization(denied.clone()), true)),
        // Only the rule of a method shows that a credential is needed; refused by authentication all the same.
        Err(denied) => {
            let refusal = Refusal::Authorization(denied);
            let audited = authentication.insecure_audit && refusal.answer().reason == "CREDENTIALS_MISSING";
            refused(&refusal, audited)
        }
    }
}

fn refused(refusal: &Refusal, audited: bool) -> Found {
    Found { outcome: refusal.answer().reason, detail: refusal.detail(), audited }
}
