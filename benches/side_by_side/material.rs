//! What every peer is given beside the certificate: one RSA key, the same tokens and the same body.

use crate::rig::BODY;
use crate::rig::client;
use crate::rig::folder::Folder;
use crate::rig::upstream::Service;
use crate::token::{OTHER_RSA, RSA, claims};
use serde_json::json;
use std::sync::Arc;
use tokio_rustls::rustls::ClientConfig;

pub struct Material {
    pub folder: Folder,
    pub service: Service,
    pub tls: Arc<ClientConfig>,
    /// Accepted by every peer.
    pub token: String,
    /// Tokens that a peer which checks must refuse, and why.
    pub bad_tokens: Vec<(&'static str, String)>,
}

impl Material {
    pub fn new() -> Material {
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
        let folder = Folder::new();
        folder.write("rsa.pub", &RSA.public_pem);
        folder.write("jwks.json", json!({"keys": [RSA.jwk]}).to_string());
        folder.write("body", BODY);
        let tls = Arc::new(client::tls_config(&folder));
        Material { folder, service: Service::start(), tls, token, bad_tokens }
    }
}

fn header() -> String {
    json!({"alg": "RS256", "typ": "JWT", "kid": RSA.kid}).to_string()
}
