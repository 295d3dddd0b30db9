//! The demo's throw-away credentials: a certificate authority and a server certificate, a token and an expired one of an
//! issuer of its own, an API key. What Doorward and the pasted calls need of them is written to the folder.

use super::Result;
use super::folder::Folder;
use crate::api_keys::key::NewKey;
use crate::api_keys::{KeyType, Record};
use crate::cli::keys::record_text;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::json;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longer than anybody tries things out.
const VALID_FOR: Duration = Duration::from_secs(12 * 3600);

/// What the demo's own calls present.
pub(super) struct Credentials {
    pub(super) token: String,
    pub(super) expired_token: String,
    pub(super) api_key: String,
}

impl Credentials {
    /// Makes them all; `doorward.yaml` names the files.
    pub(super) fn make(folder: &Folder) -> Result<Credentials> {
        certificates(folder)?;
        let now = SystemTime::now();
        let issuer = KeyPair::generate()?;
        folder.write("token-issuer.pem", &issuer.public_key_pem())?;
        let token = token(&issuer, now, now + VALID_FOR)?;
        folder.write("token.txt", &token)?;
        let expired_token = self::token(&issuer, now - 2 * VALID_FOR, now - VALID_FOR)?;
        let api_key = api_key(folder, now + VALID_FOR)?;
        folder.write("api-key.txt", &api_key)?;
        Ok(Credentials { token, expired_token, api_key })
    }
}

fn certificates(folder: &Folder) -> Result<()> {
    let mut authority = CertificateParams::new(vec![])?;
    authority.distinguished_name.push(DnType::CommonName, "doorward demo, throw-away");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority_key = KeyPair::generate()?;
    folder.write("ca.crt", &authority.self_signed(&authority_key)?.pem())?;

    let mut server = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server_key = KeyPair::generate()?;
    let certificate = server.signed_by(&server_key, &Issuer::new(authority, authority_key))?;
    folder.write("server.crt", &certificate.pem())?;
    folder.write("server.key", &server_key.serialize_pem())?;
    Ok(())
}

fn token(issuer: &KeyPair, issued: SystemTime, expires: SystemTime) -> Result<String> {
    let claims = json!({
        "iss": "https://issuer.demo.example/",
        "aud": "demo",
        "sub": "alice",
        "email": "alice@demo.example",
        "email_verified": true,
        "name": "Alice",
        "roles": ["greeter"],
        "iat": issued.duration_since(UNIX_EPOCH)?.as_secs(),
        "exp": expires.duration_since(UNIX_EPOCH)?.as_secs(),
    });
    let key = EncodingKey::from_ec_pem(issuer.serialize_pem().as_bytes())?;
    Ok(jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &key)?)
}

fn api_key(folder: &Folder, expires: SystemTime) -> Result<String> {
    let key = NewKey::generate("nightly")?;
    let record = Record {
        id: "nightly".into(),
        name: Some("The demo's nightly job".into()),
        client_id: "nightly-job".into(),
        user_id: None,
        key_type: KeyType::Service,
        roles: vec!["greeter".into()],
        permissions: Vec::new(),
        expires_at: Some(expires),
        revoked_at: None,
    };
    folder.write("api-keys.yaml", &format!("keys:\n{}", record_text(&record, key.digest(), 2)))?;
    Ok(key.text().to_owned())
}
