//! TLS towards the upstream.

use super::files::{certified_key, roots};
use super::{ALPN, provider};
use crate::config::{Position, Problems, UpstreamTls};
use std::sync::Arc;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How the upstream is spoken to and the name its certificate must have; `None` when `problems` got an error. `at` is
/// the key `upstream.address`, for what is no file's fault.
pub fn client_config(tls: &UpstreamTls, at: &Position, problems: &mut Problems) -> Option<(Arc<ClientConfig>, ServerName<'static>)> {
    let provider = provider();
    let roots = match &tls.ca {
        Some(file) => roots(file, problems),
        None => system_roots(rustls_native_certs::load_native_certs().certs, at, problems),
    };
    let client = tls.client.as_ref().map(|(certificate, key)| certified_key(certificate, key, &provider, problems));
    let name = server_name(&tls.server_name, at, problems);

    // Everything was looked at before anything ends it: every error in one run.
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.2 and 1.3")
        .with_root_certificates(roots?);
    let mut config = match client {
        Some(certified) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified?))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Some((Arc::new(config), name?))
}

fn server_name(text: &str, at: &Position, problems: &mut Problems) -> Option<ServerName<'static>> {
    let name = ServerName::try_from(text.to_owned()).ok();
    if name.is_none() {
        problems.error(
            at,
            format!("a certificate cannot be for {text:?}: expected a DNS name or an address; name it in upstream.tls.server_name"),
        );
    }
    name
}

/// The system's, of which some may be too strange for us. An image without any is common, and would fail each connect.
fn system_roots(found: Vec<CertificateDer<'static>>, at: &Position, problems: &mut Problems) -> Option<RootCertStore> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(found);
    if store.is_empty() {
        problems.error(
            at,
            "this system has no trusted certificates to verify the upstream by: name a file in upstream.tls.ca, or install ca-certificates",
        );
        return None;
    }
    Some(store)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Authority, file, lines};
    use super::super::{provider, server_config};
    use super::*;
    use crate::config::{InputFile, ListenTls, TlsVersion};
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::server::WebPkiClientVerifier;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    fn tls(ca: &Authority, server_name: &str, client: Option<(InputFile, InputFile)>) -> UpstreamTls {
        UpstreamTls { ca: Some(file("ca.crt", ca.pem.clone())), server_name: server_name.into(), client }
    }

    fn at() -> Position {
        Position { key: "upstream.address".into(), ..Position::default() }
    }

    fn upstream(authority: &Authority, name: &str) -> Arc<ServerConfig> {
        let (certificate, private_key) = authority.issue(name);
        server_config(
            &ListenTls { certificate, private_key, minimum_version: TlsVersion::Tls12, client_ca: None },
            &mut Problems::default(),
        )
        .unwrap()
    }

    /// Whether both sides are content, and what they agreed to speak.
    async fn connect(tls: &UpstreamTls, upstream: Arc<ServerConfig>) -> std::io::Result<Option<Vec<u8>>> {
        let mut problems = Problems::default();
        let (config, name) = client_config(tls, &at(), &mut problems).unwrap();
        assert_eq!(lines(&problems), [""; 0]);
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (ours, theirs) =
            tokio::join!(TlsConnector::from(config).connect(name, near), async { TlsAcceptor::from(upstream).accept(far).await });
        theirs?;
        Ok(ours?.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
    }

    #[tokio::test]
    async fn the_upstream_is_verified_by_ca_and_name() {
        let (ours, foreign) = (Authority::new(), Authority::new());
        let speak = |tls: UpstreamTls, upstream| async move { connect(&tls, upstream).await };
        assert_eq!(speak(tls(&ours, "users.internal", None), upstream(&ours, "users.internal")).await.unwrap().unwrap(), b"h2");
        assert_eq!(speak(tls(&ours, "127.0.0.1", None), upstream(&ours, "127.0.0.1")).await.unwrap().unwrap(), b"h2");
        assert!(speak(tls(&ours, "users.internal", None), upstream(&foreign, "users.internal")).await.is_err());
        assert!(speak(tls(&ours, "users.internal", None), upstream(&ours, "orders.internal")).await.is_err());
    }

    #[tokio::test]
    async fn our_certificate_is_presented() {
        let authority = Authority::new();
        let mut problems = Problems::default();
        let (certificate, key) = authority.issue("upstream");
        let ca = file("ca.crt", authority.pem.clone());
        let trusted = roots(&ca, &mut problems).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(trusted), provider()).build().unwrap();
        let certified = certified_key(&certificate, &key, &provider(), &mut problems).unwrap();
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        server.alpn_protocols = vec![ALPN.to_vec()];
        let server = Arc::new(server);
        assert!(connect(&tls(&authority, "upstream", Some(authority.issue("doorward"))), server.clone()).await.is_ok());
        assert!(connect(&tls(&authority, "upstream", None), server.clone()).await.is_err());
        assert!(connect(&tls(&authority, "upstream", Some(Authority::new().issue("doorward"))), server).await.is_err());
    }

    #[test]
    fn every_problem_is_reported_in_one_run() {
        let (certificate, _) = Authority::new().issue("a");
        let mut problems = Problems::default();
        let tls = UpstreamTls {
            ca: Some(file("ca.crt", "nothing")),
            server_name: "not a name".into(),
            client: Some((certificate, file("client.key", "nothing"))),
        };
        assert!(client_config(&tls, &at(), &mut problems).is_none());
        let keys: Vec<_> = problems.iter().map(|problem| problem.at.key.as_str()).collect();
        assert_eq!(keys, ["ca.crt", "client.key", "upstream.address"]);
    }

    #[test]
    fn a_system_without_roots_is_told_what_to_do() {
        let mut problems = Problems::default();
        assert!(system_roots(vec![], &at(), &mut problems).is_none());
        assert!(lines(&problems)[0].contains("upstream.tls.ca"), "{:?}", lines(&problems));
    }
}
