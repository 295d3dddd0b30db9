//! `doorward check`: what `run` would enforce, or why it would not start.

use super::descriptors::{self, Described};
use super::{Files, Ready};
use crate::app::unasked_permissions;
use crate::config::{Config, Mode, RateLimits, Severity, Transport, UpstreamAddress};
use crate::grpc::Services;
use crate::quote;
use clap::Args;
use std::collections::BTreeSet;
use std::process::ExitCode;

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    described: Described,
}

pub(super) fn check(arguments: &Arguments) -> ExitCode {
    let (ready, services) = match descriptors::load(&arguments.files, &arguments.described) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    for line in summary(&ready, services.as_ref()) {
        println!("{line}");
    }
    ExitCode::SUCCESS
}

fn summary(ready: &Ready, services: Option<&Services>) -> Vec<String> {
    let config = &ready.config;
    let mut lines = vec![listen(config), upstream(config), authentication(config)];
    if config.authentication.mode == Mode::Disabled {
        lines.push("every method: anyone (authentication.mode is disabled)".to_owned());
    } else {
        lines.extend(ready.assembly.policy.summary());
        lines.extend(services.into_iter().flat_map(|services| ready.assembly.policy.without_rule(services)));
    }
    lines.extend(told_permissions(config));
    lines.extend(rate_limits(config));
    let warnings = ready.problems.iter().filter(|problem| problem.severity == Severity::Warning).count();
    lines.push(format!("the configuration is fine: {warnings} warning{}", if warnings == 1 { "" } else { "s" }));
    lines
}

fn listen(config: &Config) -> String {
    let transport = match &config.listen.transport {
        Transport::Tls(tls) => match &tls.client_ca {
            None => "TLS",
            Some(ca) if ca.required => "TLS, client certificates required",
            Some(_) => "TLS, client certificates optional",
        },
        Transport::InsecurePlaintext => "PLAINTEXT",
    };
    let workers = config.workers;
    format!("listens on {} ({transport}), {workers} worker thread{}", config.listen.address, if workers == 1 { "" } else { "s" })
}

fn upstream(config: &Config) -> String {
    match &config.upstream.address {
        address @ UpstreamAddress::Unix(_) => format!("forwards to {address}"),
        address @ UpstreamAddress::Tcp { .. } => {
            let transport = if config.upstream.tls.is_some() { "TLS" } else { "h2c" };
            format!("forwards to {address} ({transport})")
        }
    }
}

/// No warning, as the upstream may want them: permissions of roles that no rule asks for.
fn told_permissions(config: &Config) -> Option<String> {
    let header = config.identity_headers.permissions.as_ref().filter(|_| config.authentication.mode != Mode::Disabled)?;
    let held: BTreeSet<&str> = unasked_permissions(&config.authorization).map(|(_, permission)| permission.as_str()).collect();
    (!held.is_empty()).then(|| format!("no rule asks for {}; the upstream is told of them in {header}", quote::list(held)))
}

/// One line for each that is set.
fn rate_limits(config: &Config) -> Vec<String> {
    let RateLimits { per_identity, failed_authentication_per_peer } = config.rate_limits;
    let calls = per_identity.map(|rate| format!("rate limit: {rate} calls of one identity"));
    let failures = failed_authentication_per_peer.map(|rate| format!("rate limit: {rate} failed authentications of one peer address"));
    calls.into_iter().chain(failures).collect()
}

fn authentication(config: &Config) -> String {
    let authentication = &config.authentication;
    let mode = match authentication.mode {
        Mode::Required => "required",
        Mode::Optional => "optional",
        Mode::Disabled => "DISABLED",
    };
    let mut sources: Vec<String> = authentication.jwt.iter().map(|provider| format!("tokens of {}", provider.name)).collect();
    sources.extend(authentication.google.iter().map(|_| "Google ID tokens".to_owned()));
    sources.extend(authentication.api_keys.iter().map(|keys| format!("API keys in {}", keys.header)));
    if !authentication.client_certificates.is_empty() {
        sources.push("client certificates".to_owned());
    }
    let sources = if sources.is_empty() { "nothing is accepted".to_owned() } else { sources.join(", ") };
    format!("authentication is {mode}: {sources}")
}
