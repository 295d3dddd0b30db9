//! TLS towards clients.

use super::files::{certified_key, roots};
use super::{ALPN, provider};
use crate::config::{ClientCa, InputFile, ListenTls, Problems, TlsVersion};
use std::sync::Arc;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::aws_lc_rs::Ticketer;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ServerConfig, SupportedProtocolVersion};

/// What the traffic port speaks; `None` when `problems` got an error.
///
/// Every configuration has ticket keys and a session store of its own: a session made under one is worth nothing under
/// the next, so that no ticket outlives what it was given under.
pub fn server_config(tls: &ListenTls, problems: &mut Problems) -> Option<Arc<ServerConfig>> {
    let provider = provider();
    let certified = certified_key(&tls.certificate, &tls.private_key, &provider, problems);
    let clients = match &tls.client_ca {
        Some(ca) => client_verifier(ca, &provider, problems),
        None => Some(WebPkiClientVerifier::no_client_auth()),
    };
    // Both were looked at before either ends it: every error in one run.
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(tls.minimum_version))
        .expect("the provider has suites for TLS 1.2 and 1.3")
        .with_client_cert_verifier(clients?)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified?)));
    match &tls.client_ca {
        Some(_) => without_resumption(&mut config),
        None => with_tickets(&mut config, &tls.certificate, problems)?,
    }
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Ours, because the order is chosen by cost and OpenSSL's clients ask for AES-256 first.
    config.ignore_client_order = true;
    // A call in early data could be replayed (RFC 8446 §8), and we could not tell a replay from a call.
    config.max_early_data_size = 0;
    Some(Arc::new(config))
}

/// Certificates of clients must end in one of these. Which of them are known is not asked here: a certificate that
/// matches nobody is no reason against the connection.
fn client_verifier(ca: &ClientCa, provider: &Arc<CryptoProvider>, problems: &mut Problems) -> Option<Arc<dyn ClientCertVerifier>> {
    let roots = Arc::new(roots(&ca.file, problems)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
    let builder = if ca.required { builder } else { builder.allow_unauthenticated() };
    let verifier = builder.build();
    if let Err(error) = &verifier {
        problems.error(&ca.file.at, format!("{}: cannot verify certificates of clients: {error}", ca.file.path.display()));
    }
    verifier.ok()
}

/// A resumed session brings the client's certificate along unverified: it would be worth something for half a day after
/// it has expired. Clients that keep their connections, as gRPC's do, hardly notice.
fn without_resumption(config: &mut ServerConfig) {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
}

fn with_tickets(config: &mut ServerConfig, certificate: &InputFile, problems: &mut Problems) -> Option<()> {
    match Ticketer::new() {
        Ok(ticketer) => config.ticketer = ticketer,
        Err(error) => {
            problems.error(&certificate.at, format!("no keys for session tickets could be made: {error}"));
            return None;
        }
    }
    Some(())
}

fn versions(minimum: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static SINCE_12: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    static SINCE_13: [&SupportedProtocolVersion; 1] = [&TLS13];
    match minimum {
        TlsVersion::Tls12 => &SINCE_12,
        TlsVersion::Tls13 => &SINCE_13,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Authority, file, lines};
    use super::*;
    use crate::tls::PeerCertificate;
    use std::io;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{CipherSuite, ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    fn config(files: (InputFile, InputFile), minimum_version: TlsVersion) -> Arc<ServerConfig> {
        config_with(files, minimum_version, None)
    }

    fn config_with(
        (certificate, private_key): (InputFile, InputFile),
        minimum_version: TlsVersion,
        client_ca: Option<ClientCa>,
    ) -> Arc<ServerConfig> {
        let mut problems = Problems::default();
        let config = server_config(&ListenTls { certificate, private_key, minimum_version, client_ca }, &mut problems);
        assert_eq!(lines(&problems), [""; 0]);
        config.unwrap()
    }

    /// A client that is not ours: the provider's own order of suites.
    fn client(authority: &Authority, versions: &[&'static SupportedProtocolVersion], alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }

    /// The same with a certificate of its own.
    fn client_as(authority: &Authority, versions: &[&'static SupportedProtocolVersion], own: &(InputFile, InputFile)) -> Arc<ClientConfig> {
        let mut config = Arc::unwrap_or_clone(client(authority, versions, &[b"h2"]));
        let certified = certified_key(&own.0, &own.1, &provider(), &mut Problems::default()).unwrap();
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
        Arc::new(config)
    }

    struct Handshake {
        peer: Option<PeerCertificate>,
        version: ProtocolVersion,
        suite: CipherSuite,
        alpn: Option<Vec<u8>>,
        kind: HandshakeKind,
    }

    /// One whole handshake and a byte each way, which also delivers the tickets.
    async fn handshake(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> io::Result<Handshake> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (near, far) = tokio::io::duplex(64 * 1024);
        let serve = async {
            let mut stream = TlsAcceptor::from(server.clone()).accept(far).await?;
            let byte = stream.read_u8().await?;
            stream.write_u8(byte).await?;
            stream.flush().await?;
            io::Result::Ok(PeerCertificate::of(stream.get_ref().1))
        };
        let call = async {
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = TlsConnector::from(client.clone()).connect(name, near).await?;
            stream.write_u8(7).await?;
            stream.flush().await?;
            assert_eq!(stream.read_u8().await?, 7);
            let (_, connection) = stream.get_ref();
            Ok(Handshake {
                peer: None,
                version: connection.protocol_version().unwrap(),
                suite: connection.negotiated_cipher_suite().unwrap().suite(),
                alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
                kind: connection.handshake_kind().unwrap(),
            })
        };
        let (served, called) = tokio::join!(serve, call);
        let peer = served?;
        called.map(|done| Handshake { peer, ..done })
    }

    #[tokio::test]
    async fn a_client_gets_h2_and_the_cheap_cipher() {
        let authority = Authority::new();
        let server = config(authority.issue("localhost"), TlsVersion::Tls12);
        let done = handshake(&server, &client(&authority, &[&TLS13], &[b"h2", b"http/1.1"])).await.unwrap();
        assert_eq!((done.version, done.suite), (ProtocolVersion::TLSv1_3, CipherSuite::TLS13_AES_128_GCM_SHA256));
        assert_eq!(done.alpn.unwrap(), b"h2");
        let done = handshake(&server, &client(&authority, &[&TLS12], &[b"h2"])).await.unwrap();
        assert_eq!((done.version, done.suite), (ProtocolVersion::TLSv1_2, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256));
    }

    #[tokio::test]
    async fn a_client_without_h2_is_turned_away() {
        let authority = Authority::new();
        let server = config(authority.issue("localhost"), TlsVersion::Tls12);
        assert!(handshake(&server, &client(&authority, &[&TLS13], &[b"http/1.1"])).await.is_err());
    }

    #[tokio::test]
    async fn the_minimum_version_is_one() {
        let authority = Authority::new();
        let server = config(authority.issue("localhost"), TlsVersion::Tls13);
        assert!(handshake(&server, &client(&authority, &[&TLS12], &[b"h2"])).await.is_err());
        assert!(handshake(&server, &client(&authority, &[&TLS13], &[b"h2"])).await.is_ok());
    }

    #[tokio::test]
    async fn a_session_is_resumed_and_does_not_outlive_its_configuration() {
        let authority = Authority::new();
        let files = authority.issue("localhost");
        for version in [&TLS12, &TLS13] {
            let server = config(files.clone(), TlsVersion::Tls12);
            let client = client(&authority, &[version], &[b"h2"]);
            assert_eq!(handshake(&server, &client).await.unwrap().kind, HandshakeKind::Full);
            assert_eq!(handshake(&server, &client).await.unwrap().kind, HandshakeKind::Resumed);
            let reloaded = config(files.clone(), TlsVersion::Tls12);
            assert_eq!(handshake(&reloaded, &client).await.unwrap().kind, HandshakeKind::Full);
        }
    }

    #[tokio::test]
    async fn a_client_is_asked_for_a_certificate_that_must_verify() {
        let (authority, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
        let files = authority.issue("localhost");
        let known = clients.issue("worker.example.com");
        let past = |params: &mut rcgen::CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let for_servers =
            |params: &mut rcgen::CertificateParams| params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let ca = |required| Some(ClientCa { file: file("clients.crt", clients.pem.clone()), required });
        for (version, required) in [(&TLS12, true), (&TLS13, true), (&TLS12, false), (&TLS13, false)] {
            let server = config_with(files.clone(), TlsVersion::Tls12, ca(required));
            let done = handshake(&server, &client_as(&authority, &[version], &known)).await.unwrap();
            assert_eq!(done.peer.unwrap().dns, ["worker.example.com"]);
            let bad = [
                strangers.issue("worker.example.com"),
                clients.issue_with("worker.example.com", past),
                clients.issue_with("worker.example.com", for_servers),
                files.clone(),
            ];
            for (number, bad) in bad.iter().enumerate() {
                assert!(handshake(&server, &client_as(&authority, &[version], bad)).await.is_err(), "{number} {required}");
            }
            let without = handshake(&server, &client(&authority, &[version], &[b"h2"])).await;
            assert_eq!(without.map(|done| done.peer).ok(), if required { None } else { Some(None) });
        }
        // Where nobody asks nobody tells.
        let done = handshake(&config(files, TlsVersion::Tls12), &client_as(&authority, &[&TLS13], &known)).await.unwrap();
        assert_eq!(done.peer, None);
    }

    #[tokio::test]
    async fn a_session_with_certificates_is_never_resumed() {
        let authority = Authority::new();
        let own = authority.issue("worker.example.com");
        for version in [&TLS12, &TLS13] {
            let ca = ClientCa { file: file("clients.crt", authority.pem.clone()), required: true };
            let server = config_with(authority.issue("localhost"), TlsVersion::Tls12, Some(ca));
            let client = client_as(&authority, &[version], &own);
            for _ in 0..2 {
                assert_eq!(handshake(&server, &client).await.unwrap().kind, HandshakeKind::Full);
            }
        }
    }

    #[test]
    fn a_bad_ca_of_clients_is_an_error_at_its_key() {
        let (certificate, private_key) = Authority::new().issue("localhost");
        let client_ca = Some(ClientCa { file: file("clients.crt", "nothing"), required: true });
        let tls = ListenTls { certificate, private_key, minimum_version: TlsVersion::Tls12, client_ca };
        let mut problems = Problems::default();
        assert!(server_config(&tls, &mut problems).is_none());
        let expected = "error: clients.crt: clients.crt: expected PEM certificates (-----BEGIN CERTIFICATE-----), found no PEM section";
        assert_eq!(lines(&problems), [expected]);
    }

    #[test]
    fn there_is_no_early_data() {
        let server = config(Authority::new().issue("localhost"), TlsVersion::Tls12);
        assert_eq!((server.max_early_data_size, server.send_half_rtt_data), (0, false));
    }

    #[test]
    fn a_bad_file_is_an_error_at_its_key() {
        let (certificate, _) = Authority::new().issue("localhost");
        let mut problems = Problems::default();
        let tls = ListenTls { certificate, private_key: file("tls.key", "nothing"), minimum_version: TlsVersion::Tls12, client_ca: None };
        assert!(server_config(&tls, &mut problems).is_none());
        assert_eq!(
            lines(&problems),
            ["error: tls.key: tls.key: expected a PEM private key (-----BEGIN PRIVATE KEY-----), found no PEM section"]
        );
    }
}
