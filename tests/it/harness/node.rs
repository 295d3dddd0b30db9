//! The JavaScript world (`tests/node/`): a real OpenID provider with its client, and the JOSE library `jose`.

use super::process::{Process, output};
use super::{Site, eventually};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// Node with what `tests/node/package.json` names; `make test` installs it.
fn node(script: &str) -> Command {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node");
    let packages = folder.join("node_modules/.installed");
    assert!(packages.exists(), "{} is missing: run `make test`, which makes it", packages.display());
    let mut command = Command::new("node");
    command.arg(folder.join(script));
    command
}

/// Tokens and a key set of `jose`, as `foreign_tokens.mjs` documents them.
pub fn jose(order: &Value) -> Value {
    serde_json::from_str(&output(&mut node("foreign_tokens.mjs"), order)).unwrap()
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
