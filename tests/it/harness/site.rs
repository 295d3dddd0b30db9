//! A directory of files as an operator has them: certificates, secrets, API keys, a configuration.

use super::{Doorward, token};
use aws_lc_rs::digest;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// A valid key of the standard site: client `analytics-service`, user `svc-analytics`, role viewer, permission reports:read.
pub const API_KEY: &str = "key-of-the-analytics-service";

pub struct Site {
    dir: Arc<TempDir>,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Site {
    /// `ca.pem`, `tls.crt`, `tls.key` (for localhost and 127.0.0.1), `hmac.secret`, `api-keys.yaml`, `rsa.pub`.
    pub fn new() -> Site {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "CA of the tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let site = Site { dir: Arc::new(tempfile::tempdir().unwrap()), ca };
        site.write("ca.pem", site.ca.pem());
        site.certificate("tls", &["localhost", "127.0.0.1"]);
        site.write("hmac.secret", token::SECRET);
        site.write("rsa.pub", &token::RSA.public_pem);
        site.write("api-keys.yaml", standard_keys());
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        // As an operator keeps secrets; others may not read them.
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// `<name>.crt` and `<name>.key`, signed by this site's CA.
    pub fn certificate(&self, name: &str, hosts: &[&str]) {
        self.certificate_with(name, |params| {
            params.subject_alt_names =
                CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>()).unwrap().subject_alt_names;
        });
    }

    /// The same with whatever names `change` gives it; its common name is `name`.
    pub fn certificate_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) {
        let key = KeyPair::generate().unwrap();
        // Its own name: OpenSSL takes a certificate named like its issuer for a self-signed one.
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        self.write(&format!("{name}.crt"), certificate.pem());
        self.write(&format!("{name}.key"), key.serialize_pem());
    }

    /// Runs Doorward with this configuration and waits until it is ready.
    #[track_caller]
    pub fn start(&self, yaml: &str) -> Doorward {
        let mut doorward = self.start_unready(yaml);
        doorward.wait_ready();
        doorward
    }

    /// Runs Doorward and waits only until its ports are bound.
    #[track_caller]
    pub fn start_unready(&self, yaml: &str) -> Doorward {
        self.start_unready_in(&[], yaml)
    }

    /// The same with more in its environment.
    #[track_caller]
    pub fn start_unready_in(&self, environment: &[(&str, &Path)], yaml: &str) -> Doorward {
        Doorward::start(&self.write("doorward.yaml", yaml), environment, self.path("ca.pem"), self.dir.clone(), None)
    }

    /// Runs Doorward, with at most so many files open at a time, and waits until it is ready.
    #[track_caller]
    pub fn start_with_files(&self, yaml: &str, most_open: usize) -> Doorward {
        let mut doorward = Doorward::start(&self.write("doorward.yaml", yaml), &[], self.path("ca.pem"), self.dir.clone(), Some(most_open));
        doorward.wait_ready();
        doorward
    }
}

/// A configuration for `upstream` (its `http://…`): ports and TLS as every test needs them, then `rest`, whose own
/// `listen`, `upstream` or `operations` go before ours.
pub fn configuration(upstream: &str, rest: &str) -> String {
    let ours = [
        ("listen:", " { address: 127.0.0.1:0, tls: { certificate: tls.crt, private_key: tls.key } }".to_owned()),
        ("operations:", " { address: 127.0.0.1:0 }".to_owned()),
        ("upstream:", format!(" {{ address: \"{upstream}\" }}")),
    ];
    let missing = ours.iter().filter(|(key, _)| !rest.lines().any(|line| line.starts_with(key)));
    missing.map(|(key, value)| format!("{key}{value}\n")).chain([rest.to_owned()]).collect()
}

/// The configuration most tests use: one HS256 provider without leeway, API keys, and a rule of each kind.
pub fn standard(upstream: &str) -> String {
    configuration(upstream, STANDARD)
}

/// See [`standard`]. Services: `demo.v1.Echo` (any caller), `demo.v1.Users` (by permission), `demo.v1.Public`.
pub const STANDARD: &str = r#"
authentication:
  public_methods: [/demo.v1.Public/*]
  jwt:
    - name: corporate
      issuer: https://issuer.test/
      audiences: [users-api]
      algorithms: [HS256]
      secret_file: hmac.secret
      leeway: 0s
  api_keys: { header: x-api-key, file: api-keys.yaml }
authorization:
  roles:
    viewer: [users:read]
    admin: ["*:*"]
  methods:
    /demo.v1.Echo/*: authenticated
    /demo.v1.Users/Get: users:read
    /demo.v1.Users/Delete: users:delete
    /demo.v1.Users/Export: { all_of: [users:read, users:export] }
    /demo.v1.Users/Change: [users:write, users:delete]
    /demo.v1.Users/ByKeyOnly: { from: [api_keys] }
"#;

/// SHA-256 as key files hold it.
pub fn sha256_hex(text: &str) -> String {
    digest::digest(&digest::SHA256, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn standard_keys() -> String {
    let key = |id: &str, text: &str, rest: &str| {
        format!("  - {{ id: {id}, client_id: {id}-service, sha256: {}, type: service, {rest} }}\n", sha256_hex(text))
    };
    [
        "keys:\n".to_owned(),
        key(
            "analytics",
            API_KEY,
            "user_id: svc-analytics, roles: [viewer], permissions: ['reports:read'], expires_at: 2199-01-01T00:00:00Z",
        ),
        key("plain", "key-without-a-user", "roles: [viewer], expires_at: 2199-01-01T00:00:00Z"),
        key("expired", "key-that-expired", "expires_at: 2020-01-01T00:00:00Z"),
        key("revoked", "key-that-was-revoked", "expires_at: 2199-01-01T00:00:00Z, revoked_at: 2021-01-01T00:00:00Z"),
    ]
    .concat()
}
