//! What every peer is given: one certificate, one RSA key, the same tokens and the same body.

use crate::token::{OTHER_RSA, RSA, claims};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use std::path::PathBuf;
use tempfile::TempDir;

pub struct Material {
    dir: TempDir,
    /// Accepted by every peer.
    pub token: String,
    /// Tokens that a peer which checks must refuse, and why.
    pub bad_tokens: Vec<(&'static str, String)>,
}

impl Material {
    pub fn new() -> Material {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        // A token of the usual size: some seven hundred bytes.
        let usual =
            json!({"exp": crate::token::now() + 86_400, "jti": "0f8fad5b-d9cb-469f-a165-70867728950e", "scope": "openid profile email"});
        let token = RSA.token(&claims(usual));
        let bad_tokens = vec![
            ("of another key", OTHER_RSA.sign(&header(), &claims(json!({})).to_string())),
            ("expired", RSA.token(&claims(json!({"exp": crate::token::now() - 600})))),
            ("of another issuer", RSA.token(&claims(json!({"iss": "https://elsewhere.test/"})))),
            ("for another audience", RSA.token(&claims(json!({"aud": "orders-api"})))),
        ];
        let material = Material { dir, token, bad_tokens };
        material.write("tls.crt", &certificate);
        material.write("tls.key", key.serialize_pem());
        material.write("haproxy.pem", &(certificate + &key.serialize_pem()));
        material.write("rsa.pub", &RSA.public_pem);
        material.write("body", BODY);
        material
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).expect("a file of the benchmark");
        path
    }
}

/// One gRPC message of 32 bytes.
pub const BODY: &[u8; 37] = b"\0\0\0\0\x20the message is thirty-two bytes.";

fn header() -> String {
    json!({"alg": "RS256", "typ": "JWT", "kid": RSA.kid}).to_string()
}
