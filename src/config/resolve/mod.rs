//! From sections to the types of the configuration: one function a section, all of them run whatever the others found.
//!
//! Where something required is missing or wrong a harmless placeholder stands in: the load has failed by then, and the
//! rest is read only for its own problems.

mod api_keys;
mod authentication;
mod authorization;
mod client_certificates;
mod headers;
mod jwt;
mod keys;
mod limits;
mod listen;
mod upstream;

use super::node::Value;
use super::section::{Field, Section};
use super::{Config, Surroundings};

/// Resolves the whole tree.
pub(super) fn config(mut root: Section, surroundings: Surroundings) -> Config {
    version(&root.field("version"));
    let workers = workers(&root.field("workers"), surroundings.cpus);
    let listen_field = root.field("listen");
    let listen = listen::listen(&listen_field.required("a mapping with address and tls"));
    let upstream = upstream::upstream(&root.field("upstream").required("a mapping with address"));
    let headers_field = root.field("identity_headers");
    let identity_headers = headers::identity_headers(&headers_field);
    let authentication = authentication::authentication(&root.field("authentication"), &listen, &identity_headers, surroundings.memory);
    let authorization = authorization::authorization(&root.field("authorization"), &authentication);
    let forward_credentials = root.field("forward_credentials").boolean().unwrap_or(false);
    let limits = limits::limits(&root.field("limits"));
    let rate_limits = limits::rate_limits(&root.field("rate_limits"));
    let operations = listen::operations(&root.field("operations"), &listen.value);
    let log = limits::log(&root.field("log"));
    root.finish();
    Config {
        workers,
        listen: listen.value,
        upstream,
        authentication: authentication.value,
        authorization,
        identity_headers,
        forward_credentials,
        limits,
        rate_limits,
        operations,
        log,
    }
}

fn version(field: &Field) {
    if field.is_set() && !matches!(field.value(), Some(Value::Integer(1))) {
        field.wrong("1, the version of this format", "");
    }
}

/// More threads than any machine has CPUs is a slip.
const MOST_WORKERS: usize = 1024;

fn workers(field: &Field, cpus: usize) -> usize {
    let number = match field.value() {
        None => Some(cpus),
        Some(Value::Text(text)) if text == "auto" => Some(cpus),
        Some(Value::Integer(number)) => usize::try_from(*number).ok().filter(|number| (1..=MOST_WORKERS).contains(number)),
        Some(_) => None,
    };
    if number.is_none() {
        field.wrong(&format!("auto or a whole number from 1 to {MOST_WORKERS}"), "");
    }
    number.unwrap_or(1).max(1)
}
