//! `doorward explain`: the decision for one call, in words, made by the very rooms that `run` uses.

use super::{FAILED, Files, REFUSED, Ready, USAGE, load};
use crate::app::Assembly;
use crate::authentication::{Caller, Outcome, Standing};
use crate::authorization::Denied;
use crate::config::{Config, Mode};
use crate::grpc::MethodPath;
use crate::identity::Identity;
use crate::rate_limits::OwnBucket;
use crate::refusal::{Refusal, Status};
use clap::Args;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

const AUDITED: &str = "authentication.insecure_audit lets the call through as anonymous; its rule is not looked at";

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    files: Files,
    /// The call: /package.Service/Method
    #[arg(long, value_name = "PATH")]
    method: String,
    /// A bearer token; --token-file keeps it out of the process list
    #[arg(long, value_name = "T", conflicts_with = "token_file")]
    token: Option<String>,
    /// A file that holds a bearer token
    #[arg(long, value_name = "F")]
    token_file: Option<PathBuf>,
    /// An API key
    #[arg(long, value_name = "K")]
    api_key: Option<String>,
    /// As if this user had been authenticated (a user_id, or a verified e-mail)
    #[arg(long, value_name = "U", conflicts_with_all = ["token", "token_file", "api_key"])]
    user: Option<String>,
    /// A role that the user's credentials carry; repeatable
    #[arg(long, value_name = "R", conflicts_with_all = ["token", "token_file", "api_key"])]
    role: Vec<String>,
}

pub(super) fn explain(arguments: &Arguments) -> ExitCode {
    let Ready { config, assembly, .. } = match load(&arguments.files.config) {
        Ok(ready) => ready,
        Err(code) => return code,
    };
    let headers = match credentials(arguments, &config) {
        Ok(headers) => headers,
        Err(message) => {
            eprintln!("error: {message}");
            return ExitCode::from(USAGE);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(FAILED);
        }
    };
    let decided = runtime.block_on(decide(arguments, &config, &assembly, &headers));
    runtime.shutdown_background();
    match decided {
        Ok(()) => {
            println!("decision: ALLOWED");
            ExitCode::SUCCESS
        }
        Err(refusal) => {
            let answer = refusal.answer();
            let code = match answer.status {
                Status::Grpc(code) => format!("{} {}", code as u8, code.name()),
                Status::Http(status) => status.to_string(),
            };
            println!("decision: REFUSED: {code}, {}: {}", answer.reason, answer.words);
            ExitCode::from(REFUSED)
        }
    }
}

/// What a client would send.
fn credentials(arguments: &Arguments, config: &Config) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    let token = match &arguments.token_file {
        Some(path) => Some(std::fs::read_to_string(path).map_err(|error| format!("--token-file {}: {error}", path.display()))?),
        None => arguments.token.clone(),
    };
    if let Some(token) = token {
        let value = HeaderValue::try_from(format!("Bearer {}", token.trim_end_matches('\n')));
        headers.insert(AUTHORIZATION, value.map_err(|_| "the token is no field value: it holds control characters".to_owned())?);
    }
    if let Some(key) = &arguments.api_key {
        let accepted = config.authentication.api_keys.as_ref().ok_or("--api-key: the configuration has no authentication.api_keys")?;
        let value = HeaderValue::try_from(key.as_str());
        headers.insert(&accepted.header, value.map_err(|_| "the key is no field value: it holds control characters".to_owned())?);
    }
    Ok(headers)
}

async fn decide(arguments: &Arguments, config: &Config, assembly: &Assembly, headers: &HeaderMap) -> Result<(), Refusal> {
    println!("method: {}", arguments.method.escape_default());
    let path = MethodPath::parse(&arguments.method).ok_or(Refusal::MethodMalformed)?;
    let policy = &assembly.policy;
    let route = policy.route(&path);
    if policy.permit_public(route).is_some() {
        println!("public: no credential is looked at, none is forwarded, and the upstream is told no identity");
        return Ok(());
    }
    if config.authentication.mode == Mode::Disabled {
        println!("authentication.mode is disabled: nothing is checked, and the upstream is told no identity");
        return Ok(());
    }
    if !config.authentication.client_certificates.is_empty() {
        println!("authentication: client certificates are not explained: the call is taken to come without one");
    }
    let caller = match supposed(arguments, assembly) {
        Some(identity) => {
            println!("authentication: taken as passed, for the user and roles given");
            let grants = policy.grants(&identity);
            let headers = assembly.identity_headers.render(&identity, &grants);
            headers
                .ok()
                .map(|headers| Arc::new(Caller { identity, grants, headers, standing: Standing::default(), rate: OwnBucket::new() }))
        }
        None => match authenticate(assembly, headers).await {
            Err(_) if config.authentication.insecure_audit => {
                println!("{AUDITED}");
                return Ok(());
            }
            verdict => verdict?,
        },
    };
    let held = caller.as_deref().map(|caller| (&caller.identity, &caller.grants));
    for line in policy.explain(route, held) {
        println!("authorization: {line}");
    }
    match policy.authorize(route, held) {
        Err(Denied::CredentialsMissing) if config.authentication.insecure_audit => println!("{AUDITED}"),
        decided => drop(decided.map_err(Refusal::Authorization)?),
    }
    if let Some(caller) = &caller {
        if let Some(rate) = config.rate_limits.per_identity {
            println!("rate_limits.per_identity: {rate}; how much of it is left only the running proxy knows");
        }
        for (name, value) in caller.headers.iter() {
            println!("header: {name}: {}", value.to_str().unwrap_or_default());
        }
    }
    Ok(())
}

/// The identity of `--user` and `--role`, if they were given.
fn supposed(arguments: &Arguments, assembly: &Assembly) -> Option<Identity> {
    if arguments.user.is_none() && arguments.role.is_empty() {
        return None;
    }
    let user: Option<Arc<str>> = arguments.user.as_deref().map(Arc::from);
    Some(Identity {
        user_email: user.clone().filter(|user| user.contains('@')),
        user_id: user,
        roles: arguments.role.iter().map(|role| Arc::from(role.as_str())).collect(),
        // Which credential it was is not supposed: no `from` refuses it.
        presented: assembly.authenticator.credential_names(),
        ..Identity::default()
    })
}

async fn authenticate(assembly: &Assembly, headers: &HeaderMap) -> Result<Option<Arc<Caller>>, Refusal> {
    for set in assembly.authenticator.key_sets() {
        tokio::spawn(set.clone().run());
    }
    let (transcript, verdict) = assembly.authenticator.explain(headers, SystemTime::now()).await;
    for (outcome, words) in transcript.steps() {
        let outcome = match outcome {
            Outcome::Passed => "passed: ",
            Outcome::Failed => "failed: ",
            Outcome::Noted => "",
        };
        println!("authentication: {outcome}{words}");
    }
    let caller = verdict.map_err(Refusal::Authentication)?.caller;
    let words = match &caller {
        None => "no credential: an anonymous caller".to_owned(),
        Some(caller) => format!("every check passed: {}", caller.identity.presented.join(" and ")),
    };
    println!("authentication: {words}");
    Ok(caller)
}
