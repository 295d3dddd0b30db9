//! The JavaScript world (`tests/node/`): the real grpc-js as client and as server, a real OpenID provider with its client,
//! and the JOSE library `jose`.

use super::process::{Process, line, output};
use super::python::{Answer, Call};
use super::{Doorward, Site, eventually};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(packages().with_file_name(script));
    command
}

/// Where the packages are that `tests/node/package.json` names; `make test` installs them.
pub fn packages() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node/node_modules");
    assert!(folder.join(".installed").exists(), "{} is missing: run `make test`, which makes it", folder.display());
    folder
}

/// Tokens and a key set of `jose`, as `foreign_tokens.mjs` documents them.
pub fn jose(order: &Value) -> Value {
    serde_json::from_str(&output(&mut node("foreign_tokens.mjs"), order)).unwrap()
}

/// Makes the calls from a grpc-js client, as [`Doorward::calls`] does from grpcio.
#[track_caller]
pub fn calls(doorward: &Doorward, calls: &[Call]) -> Vec<Answer> {
    calls_as(doorward, &json!({}), calls)
}

/// The same with another `target`.
#[track_caller]
pub fn calls_as(doorward: &Doorward, more: &Value, calls: &[Call]) -> Vec<Answer> {
    let mut order = json!({"target": doorward.target(), "ca": doorward.ca, "calls": calls.iter().map(|call| &call.0).collect::<Vec<_>>()});
    order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let results: Vec<Value> = serde_json::from_str(&output(&mut node("grpc_client.mjs"), &order)).unwrap();
    results.into_iter().map(Answer).collect()
}

/// A service on grpc-js: the methods of `demo.v1.Echo`.
pub struct NodeServer {
    process: Process,
    pub url: String,
}

impl NodeServer {
    #[track_caller]
    pub fn start() -> NodeServer {
        let mut process = Process::spawn(&mut node("grpc_upstream.mjs"));
        let port = |line: &str| serde_json::from_str::<Value>(line).ok()?.get("port")?.as_u64();
        let port = process.find("port of the Node service", |p| &p.stdout, port);
        NodeServer { process, url: format!("http://127.0.0.1:{port}") }
    }

    /// The first end of a call of `method`, once it has happened.
    #[track_caller]
    pub fn ended(&self, method: &str) -> Value {
        line(&self.process.stdout, "the end of a call at the service", |line| {
            serde_json::from_str::<Value>(line).ok().filter(|event| event["event"] == "end" && event["method"] == method)
        })
    }
}

/// `demo.v1.Greeter` on grpc-js, with reflection of one version, `v1` or `v1alpha`.
pub struct ReflectingServer {
    _process: Process,
    pub url: String,
}

impl ReflectingServer {
    #[track_caller]
    pub fn start(version: &str) -> ReflectingServer {
        let mut process = Process::spawn(node("reflection_upstream.mjs").arg(version));
        let port = process.find("port of the reflecting service", |p| &p.stdout, |line| line.parse::<u16>().ok());
        ReflectingServer { _process: process, url: format!("http://127.0.0.1:{port}") }
    }
}

/// A running OpenID provider, at https on loopback with a certificate of the site.
pub struct OpenIdProvider {
    process: Process,
    answers: usize,
    pub issuer: String,
}

impl OpenIdProvider {
    #[track_caller]
    pub fn start(site: &Site) -> OpenIdProvider {
        let mut command = node("oidc_provider.mjs");
        command.arg(site.path("tls.crt")).arg(site.path("tls.key")).env("NODE_EXTRA_CA_CERTS", site.path("ca.pem"));
        let mut provider = OpenIdProvider { process: Process::spawn(&mut command), answers: 0, issuer: String::new() };
        provider.issuer = text(&provider.next_answer(), "issuer");
        provider
    }

    /// An access token of the client `batch` for `https://users.test/` or `https://orders.test/`.
    #[track_caller]
    pub fn client_token(&mut self, resource: &str, scope: &str) -> String {
        text(&self.ask(&json!({"do": "client_token", "resource": resource, "scope": scope})), "access_token")
    }

    /// The ID token and the access token (for `https://users.test/`) that a user gets by signing in to the application `web`.
    #[track_caller]
    pub fn sign_in(&mut self, user: &str) -> (String, String) {
        let answer = self.ask(&json!({"do": "sign_in", "user": user, "resource": "https://users.test/"}));
        (text(&answer, "id_token"), text(&answer, "access_token"))
    }

    /// A new key stands in the set beside those there are.
    #[track_caller]
    pub fn publish_new_key(&mut self) {
        self.ask(&json!({"do": "publish"}));
    }

    /// The newest key signs from now on; the others stay published.
    #[track_caller]
    pub fn sign_with_new_key(&mut self) {
        self.ask(&json!({"do": "sign"}));
    }

    /// Only the key that signs stays published.
    #[track_caller]
    pub fn withdraw_old_keys(&mut self) {
        self.ask(&json!({"do": "withdraw"}));
    }

    #[track_caller]
    fn ask(&mut self, order: &Value) -> Value {
        self.process.tell(&order.to_string());
        self.next_answer()
    }

    /// Answers come in the order of the questions, between the provider's own notices.
    #[track_caller]
    fn next_answer(&mut self) -> Value {
        self.answers += 1;
        eventually("an answer of the OpenID provider", || {
            let ended = self.process.has_exited();
            let lines = self.process.stdout.all();
            let answer = lines.iter().filter_map(|line| serde_json::from_str(line).ok()).nth(self.answers - 1);
            assert!(answer.is_some() || ended.is_none(), "the provider has ended:\n{}", self.process.stderr.text());
            answer
        })
    }
}

#[track_caller]
fn text(answer: &Value, member: &str) -> String {
    answer[member].as_str().unwrap_or_else(|| panic!("no {member} in {answer}")).to_owned()
}
