//! `doorward explain`: the decision for one call, in words, by a file or by what a running proxy has in force.

use super::descriptors::{self, Described};
use super::{FAILED, Files, REFUSED, USAGE, operations_port, runtime};
use crate::app::{self, Explanation, Question, why_no_such_method};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// For a running proxy's answer: it may have to fetch a key set first.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    files: Files,
    /// Ask the proxy that runs on this machine with this configuration, at its operations port: what is in force there is
    /// older than the files when their last change was refused
    #[arg(long, conflicts_with_all = ["descriptors", "reflection"])]
    running: bool,
    #[command(flatten)]
    described: Described,
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
    let answered = question(arguments).and_then(|question| match arguments.running {
        true => by_what_runs(arguments, &question),
        false => by_the_files(arguments, &question),
    });
    match answered {
        Ok(Explanation { allowed, lines }) => {
            lines.iter().for_each(|line| println!("{line}"));
            if allowed { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) }
        }
        Err(code) => code,
    }
}

fn failed(code: u8, words: &str) -> ExitCode {
    eprintln!("error: {words}");
    ExitCode::from(code)
}

fn question(arguments: &Arguments) -> Result<Question, ExitCode> {
    let token = match &arguments.token_file {
        Some(path) => {
            let read = std::fs::read_to_string(path);
            Some(read.map_err(|error| failed(USAGE, &format!("--token-file {}: {error}", path.display())))?)
        }
        None => arguments.token.clone(),
    };
    Ok(Question {
        method: arguments.method.clone(),
        token: token.map(|token| token.trim_end_matches('\n').to_owned()),
        api_key: arguments.api_key.clone(),
        user: arguments.user.clone(),
        roles: arguments.role.clone(),
    })
}

fn by_the_files(arguments: &Arguments, question: &Question) -> Result<Explanation, ExitCode> {
    let (ready, services) = descriptors::load(&arguments.files, &arguments.described)?;
    let runtime = runtime()?;
    let explained = runtime.block_on(app::explain(question, &ready.config, &ready.assembly));
    runtime.shutdown_background();
    let mut explanation = explained.map_err(|words| failed(USAGE, &words))?;
    // Whatever the rules say: there is nothing to call.
    if let Some(words) = services.and_then(|services| why_no_such_method(&question.method, &services)) {
        explanation.lines.insert(1, format!("upstream: {words}"));
    }
    Ok(explanation)
}

fn by_what_runs(arguments: &Arguments, question: &Question) -> Result<Explanation, ExitCode> {
    let operations = operations_port::address(&arguments.files.config)?;
    let body = serde_json::to_vec(question).expect("texts are JSON");
    let answered = operations_port::post(operations, "/explain", &body, PATIENCE);
    let answer = answered.and_then(|answer| Ok((answer.status, answer.body()?)));
    let (status, body) = answer.map_err(|error| failed(FAILED, &format!("the running proxy cannot be asked: {error}")))?;
    match (status, serde_json::from_slice(&body)) {
        (200, Ok(explanation)) => Ok(explanation),
        (200 | 404 | 405, _) => {
            Err(failed(FAILED, &format!("the running proxy at {operations} answered with status {status}; is it of this version?")))
        }
        (400, _) => Err(failed(USAGE, String::from_utf8_lossy(&body).trim_end())),
        (status, _) => {
            let words = String::from_utf8_lossy(&body);
            Err(failed(FAILED, &format!("the running proxy at {operations} answered with status {status}: {}", words.trim_end())))
        }
    }
}
