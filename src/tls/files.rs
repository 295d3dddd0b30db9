//! PEM files: certificates and private keys. What is wrong is said in words of our own, because a parser's message may
//! quote the line it stumbled over, and that line may be a key.

use super::validity::{Validity, validity};
use crate::config::{InputFile, Problems};
use jiff::Timestamp;
use std::sync::Arc;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject, SectionKind};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, InconsistentKeys, RootCertStore};

/// A certificate chain, leaf first, and the key that belongs to the leaf.
pub(super) fn certified_key(
    certificate: &InputFile,
    private_key: &InputFile,
    provider: &CryptoProvider,
    problems: &mut Problems,
) -> Option<Arc<CertifiedKey>> {
    let chain = certificates(certificate, problems);
    let key = load_key(private_key, provider, problems);
    // Both were looked at before either ends it: every error in one run.
    let certified = CertifiedKey::new(chain?, key?);
    match certified.keys_match() {
        Ok(()) => {}
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            let (key, chain) = (private_key.path.display(), certificate.path.display());
            problems.error(&private_key.at, format!("{key}: is not the key of the first certificate in {chain}"));
            return None;
        }
        Err(error) => {
            problems.error(&certificate.at, format!("{}: its first certificate cannot be used: {error}", certificate.path.display()));
            return None;
        }
    }
    if let Some(leaf) = certified.cert.first() {
        warn_when_not_valid(leaf, certificate, Timestamp::now(), problems);
    }
    Some(Arc::new(certified))
}

/// Every certificate of a PEM file, at least one, each of which parses.
fn certificates(file: &InputFile, problems: &mut Problems) -> Option<Vec<CertificateDer<'static>>> {
    let path = file.path.display();
    let parsed: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(file.content.expose()).collect();
    let Ok(certificates) = parsed else {
        problems.error(&file.at, format!("{path}: is not well-formed PEM"));
        return None;
    };
    if certificates.is_empty() {
        problems.error(&file.at, format!("{path}: expected PEM certificates (-----BEGIN CERTIFICATE-----), found {}", kind(file)));
        return None;
    }
    for (place, certificate) in certificates.iter().enumerate() {
        if let Err(error) = ParsedCertificate::try_from(certificate) {
            let number = place + 1;
            problems.error(&file.at, format!("{path}: certificate {number} of {} cannot be used: {error}", certificates.len()));
            return None;
        }
    }
    Some(certificates)
}

/// Every certificate of a PEM file as one to trust, and none but these.
pub(super) fn roots(file: &InputFile, problems: &mut Problems) -> Option<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(file, problems)? {
        if let Err(error) = store.add(certificate) {
            problems.error(&file.at, format!("{}: a certificate in it cannot be trusted: {error}", file.path.display()));
            return None;
        }
    }
    Some(store)
}

fn load_key(
    file: &InputFile,
    provider: &CryptoProvider,
    problems: &mut Problems,
) -> Option<Arc<dyn tokio_rustls::rustls::sign::SigningKey>> {
    let path = file.path.display();
    let message = match PrivateKeyDer::from_pem_slice(file.content.expose()) {
        Ok(key) => match provider.key_provider.load_private_key(key) {
            Ok(key) => return Some(key),
            Err(_) => {
                "the private key cannot be used: expected RSA of at least 2048 bits, ECDSA P-256, P-384 or P-521, or Ed25519".to_owned()
            }
        },
        Err(_) if contains(file.content.expose(), b"ENCRYPTED") => {
            "the private key is encrypted, expected one without a passphrase".to_owned()
        }
        Err(pem::Error::NoItemsFound) => format!("expected a PEM private key (-----BEGIN PRIVATE KEY-----), found {}", kind(file)),
        Err(_) => "is not well-formed PEM".to_owned(),
    };
    problems.error(&file.at, format!("{path}: {message}"));
    None
}

fn warn_when_not_valid(leaf: &CertificateDer<'_>, file: &InputFile, now: Timestamp, problems: &mut Problems) {
    let Some(Validity { not_before, not_after }) = validity(leaf) else { return };
    let path = file.path.display();
    if now > not_after {
        problems.warning(&file.at, format!("{path}: the certificate has expired at {not_after}: peers will refuse it"));
    } else if now < not_before {
        problems.warning(&file.at, format!("{path}: the certificate is not valid before {not_before}: peers will refuse it"));
    }
}

/// What a PEM file that lacks what was expected holds instead, without quoting it.
fn kind(file: &InputFile) -> &'static str {
    match <(SectionKind, Vec<u8>)>::pem_slice_iter(file.content.expose()).next() {
        Some(Ok((SectionKind::Certificate, _))) => "a certificate",
        Some(Ok((SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey, _))) => "a private key",
        Some(Ok((SectionKind::PublicKey, _))) => "a public key",
        Some(Ok((SectionKind::Csr, _))) => "a certificate request",
        Some(Ok(_)) => "something else in PEM",
        Some(Err(_)) => "malformed PEM",
        None => "no PEM section",
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::super::provider;
    use super::super::testing::{Authority, file, lines};
    use super::*;

    fn problems_of(certificate: &InputFile, key: &InputFile) -> Vec<String> {
        let mut problems = Problems::default();
        let certified = certified_key(certificate, key, &provider(), &mut problems);
        assert_eq!(certified.is_none(), problems.has_errors());
        lines(&problems)
    }

    fn pem(label: &str, base64: &str) -> String {
        format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n")
    }

    #[test]
    fn a_key_and_its_certificate_go_together() {
        let authority = Authority::new();
        let (certificate, key) = authority.issue("localhost");
        assert_eq!(problems_of(&certificate, &key), [""; 0]);
        let (_, other) = authority.issue("localhost");
        assert_eq!(problems_of(&certificate, &other), ["error: tls.key: tls.key: is not the key of the first certificate in tls.crt"]);
    }

    #[test]
    fn both_files_are_looked_at_in_one_run() {
        let (certificate, key) = Authority::new().issue("localhost");
        let (swapped_certificate, swapped_key) =
            (file("tls.crt", key.content.expose().to_vec()), file("tls.key", certificate.content.expose().to_vec()));
        assert_eq!(
            problems_of(&swapped_certificate, &swapped_key),
            [
                "error: tls.crt: tls.crt: expected PEM certificates (-----BEGIN CERTIFICATE-----), found a private key",
                "error: tls.key: tls.key: expected a PEM private key (-----BEGIN PRIVATE KEY-----), found a certificate",
            ]
        );
    }

    #[test]
    fn what_is_malformed_is_refused_and_not_quoted() {
        let (good, key) = Authority::new().issue("localhost");
        let junk = "aHVudGVyMg==";
        for (content, expected) in [
            (pem("CERTIFICATE", "hunter2 !!"), "is not well-formed PEM"),
            ("-----BEGIN CERTIFICATE-----\nhunter2".to_owned(), "is not well-formed PEM"),
            ("hunter2".to_owned(), "found no PEM section"),
            (pem("CERTIFICATE", junk), "certificate 1 of 1 cannot be used"),
            (
                format!("{}{}", String::from_utf8_lossy(good.content.expose()), pem("CERTIFICATE", junk)),
                "certificate 2 of 2 cannot be used",
            ),
        ] {
            let found = problems_of(&file("tls.crt", content), &key);
            assert!(matches!(&*found, [line] if line.contains(expected) && !line.contains("hunter2")), "{expected}: {found:?}");
        }
        for (content, expected) in [
            (pem("PRIVATE KEY", "hunter2 !!"), "is not well-formed PEM"),
            (pem("PRIVATE KEY", junk), "the private key cannot be used"),
            (pem("ENCRYPTED PRIVATE KEY", junk), "is encrypted"),
            (pem("RSA PRIVATE KEY", &format!("Proc-Type: 4,ENCRYPTED\n\n{junk}")), "is encrypted"),
            (pem("PUBLIC KEY", junk), "found a public key"),
            ("hunter2".to_owned(), "found no PEM section"),
        ] {
            let found = problems_of(&good, &file("tls.key", content));
            assert!(
                matches!(&*found, [line] if line.contains(expected) && !line.contains("hunter2") && !line.contains(junk)),
                "{expected}: {found:?}"
            );
        }
    }

    #[test]
    fn a_certificate_outside_its_time_is_a_warning() {
        let authority = Authority::new();
        let (expired, key) = authority.issue_with("localhost", |params| params.not_after = rcgen::date_time_ymd(2020, 2, 29));
        assert_eq!(
            problems_of(&expired, &key),
            ["warning: tls.crt: tls.crt: the certificate has expired at 2020-02-29T00:00:00Z: peers will refuse it"]
        );
        let (early, key) = authority.issue_with("localhost", |params| params.not_before = rcgen::date_time_ymd(2090, 1, 1));
        assert_eq!(
            problems_of(&early, &key),
            ["warning: tls.crt: tls.crt: the certificate is not valid before 2090-01-01T00:00:00Z: peers will refuse it"]
        );
    }
}
