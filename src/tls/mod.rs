//! TLS on both sides, by rustls with the aws-lc-rs provider given explicitly: nothing depends on what the process has
//! installed. From files that are already read to configurations that are ready to use.

mod client;
mod der;
mod files;
mod peer;
mod server;
mod validity;

pub use client::client_config;
pub use peer::PeerCertificate;
pub use server::server_config;
pub use validity::expiry;

use std::sync::Arc;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::{CipherSuite, SupportedCipherSuite};

/// The only protocol offered by ALPN (RFC 9113 §3.2): gRPC has no other.
const ALPN: &[u8] = b"h2";

/// aws-lc-rs with AES-128-GCM before AES-256-GCM: as strong as anything a certificate of today protects, and cheaper a byte.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    // Stable: what else the provider prefers stays in its order.
    provider.cipher_suites.sort_by_key(|suite| !is_aes_128(suite));
    Arc::new(provider)
}

fn is_aes_128(suite: &SupportedCipherSuite) -> bool {
    matches!(
        suite.suite(),
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

/// Certificates for the tests of this room.
#[cfg(test)]
mod testing {
    use crate::config::{InputFile, Position, Problems, Severity};
    use crate::secret::Secret;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    /// An authority that signs for the length of a test.
    pub(super) struct Authority {
        pub(super) pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        pub(super) fn new() -> Authority {
            let mut params = CertificateParams::new(vec![]).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let pem = params.self_signed(&key).unwrap().pem();
            Authority { pem, issuer: Issuer::new(params, key) }
        }

        /// A certificate and its key, as files.
        pub(super) fn issue(&self, name: &str) -> (InputFile, InputFile) {
            self.issue_with(name, |_| {})
        }

        pub(super) fn issue_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> (InputFile, InputFile) {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            change(&mut params);
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &self.issuer).unwrap();
            (file("tls.crt", certificate.pem()), file("tls.key", key.serialize_pem()))
        }
    }

    pub(super) fn file(name: &str, content: impl Into<Vec<u8>>) -> InputFile {
        let at = Position { file: "doorward.yaml".into(), line: 1, column: 1, key: name.into() };
        InputFile { at, path: name.into(), content: Secret::new(content.into()) }
    }

    /// Every problem as `severity: key: message`.
    pub(super) fn lines(problems: &Problems) -> Vec<String> {
        let severity = |severity| if severity == Severity::Error { "error" } else { "warning" };
        problems.iter().map(|problem| format!("{}: {}: {}", severity(problem.severity), problem.at.key, problem.message)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheap_cipher_comes_first_and_none_is_lost() {
        let ours = provider();
        assert_eq!(ours.cipher_suites[0].suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert_eq!(ours.cipher_suites.len(), aws_lc_rs::default_provider().cipher_suites.len());
    }
}
