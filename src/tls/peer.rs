//! Who a client is by its certificate: the names in it, read once a connection.
//!
//! Only certificates that rustls has verified come here: whether one is genuine is not asked again. A name that is not
//! there beyond doubt is not there.

use super::der::{Certificate, Der, OBJECT_IDENTIFIER, SEQUENCE, SET};
use crate::secret::Digest;
use tokio_rustls::rustls::ServerConnection;

/// A verified certificate of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The URI name, when it is the only one and begins with `spiffe://` (X.509-SVID §2: exactly one URI name).
    pub spiffe: Option<String>,
    /// The DNS names, in lower case; a wildcard is a name like any other.
    pub dns: Vec<String>,
    /// The common name of the subject, when it is the only one.
    pub common_name: Option<String>,
    /// SHA-256 of the whole certificate.
    pub digest: Digest,
}

impl PeerCertificate {
    /// That of a connection whose handshake is done; `None` when the client presented none.
    pub fn of(connection: &ServerConnection) -> Option<PeerCertificate> {
        connection.peer_certificates()?.first().map(|leaf| PeerCertificate::read(leaf))
    }

    /// The names of a DER certificate; none when it cannot be read.
    pub fn read(certificate: &[u8]) -> PeerCertificate {
        let digest = Digest::of(certificate);
        let names =
            Certificate::walk(certificate).and_then(|certificate| Some((alternative_names(&certificate)?, common_name(&certificate))));
        let ((spiffe, dns), common_name) = names.unwrap_or_default();
        PeerCertificate { spiffe, dns, common_name, digest }
    }
}

/// `id-ce-subjectAltName`, 2.5.29.17 (RFC 5280 §4.2.1.6).
const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const DNS_NAME: u8 = 0x82;
const URI: u8 = 0x86;

/// The SPIFFE ID and the DNS names; `None` for an extension that is not shaped like one.
fn alternative_names(certificate: &Certificate) -> Option<(Option<String>, Vec<String>)> {
    let Some(extension) = certificate.extension(SUBJECT_ALTERNATIVE_NAME) else { return Some(Default::default()) };
    let mut names = Der(Der(extension).expect(SEQUENCE)?);
    let (mut uris, mut dns) = (Vec::new(), Vec::new());
    while !names.0.is_empty() {
        match names.next()? {
            (URI, name) => uris.push(name),
            // IA5String: what is not ASCII is no DNS name.
            (DNS_NAME, name) if name.is_ascii() => dns.push(String::from_utf8_lossy(name).to_ascii_lowercase()),
            _ => {}
        }
    }
    let spiffe = match uris.as_slice() {
        [one] => std::str::from_utf8(one).ok().filter(|uri| uri.starts_with("spiffe://")),
        _ => None,
    };
    Some((spiffe.map(str::to_owned), dns))
}

/// `id-at-commonName`, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;

/// In the string types that issuers of today use; whoever reads the first and whoever reads the last of several would
/// disagree, so that several are none.
fn common_name(certificate: &Certificate) -> Option<String> {
    let mut subject = Der(certificate.subject);
    let mut found = None;
    while !subject.0.is_empty() {
        let mut attributes = Der(subject.expect(SET)?);
        while !attributes.0.is_empty() {
            let mut attribute = Der(attributes.expect(SEQUENCE)?);
            if attribute.expect(OBJECT_IDENTIFIER)? != COMMON_NAME {
                continue;
            }
            let (tag, value) = attribute.next()?;
            if found.is_some() || !matches!(tag, UTF8_STRING | PRINTABLE_STRING | IA5_STRING) {
                return None;
            }
            found = Some(std::str::from_utf8(value).ok()?);
        }
    }
    found.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Authority;
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, DnValue, SanType};
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject;

    fn der(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let (certificate, _) = Authority::new().issue_with("x", |params| {
            params.subject_alt_names.clear();
            params.distinguished_name = rcgen::DistinguishedName::new();
            change(params);
        });
        CertificateDer::from_pem_slice(certificate.content.expose()).unwrap().to_vec()
    }

    fn named(names: Vec<SanType>) -> PeerCertificate {
        PeerCertificate::read(&der(|params| params.subject_alt_names = names))
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    #[test]
    fn every_kind_of_name_is_read() {
        let address = SanType::IpAddress([127, 0, 0, 1].into());
        let email = SanType::Rfc822Name("a@b".try_into().unwrap());
        let whole = der(|params| {
            params.subject_alt_names = vec![dns("A.Example.com"), email, uri("spiffe://a/b"), address, dns("*.example.com")];
            params.distinguished_name.push(DnType::OrganizationName, "not this one");
            params.distinguished_name.push(DnType::CommonName, "Zoë");
            params.use_authority_key_identifier_extension = true;
        });
        let expected = PeerCertificate {
            spiffe: Some("spiffe://a/b".to_owned()),
            dns: vec!["a.example.com".to_owned(), "*.example.com".to_owned()],
            common_name: Some("Zoë".to_owned()),
            digest: Digest::of(&whole),
        };
        assert_eq!(PeerCertificate::read(&whole), expected);
    }

    /// By another maker: OpenSSL, as SPIFFE issuers do, without a subject and with a critical extension.
    const SVID: &str = "MIIBpTCCAUygAwIBAgIUMspDt8wZq8JqDm4jyOhoTilXO9kwCgYIKoZIzj0EAwIwADAeFw0yNjExMjIwNDU5MjdaFw0yNjEyMDIwNDU5MjdaMAAwWTATBgcq\
        hkjOPQIBBggqhkjOPQMBBwNCAARjmkzHYa0rTUKfmU+eqlp9IFbs+2VbJojSl4UNnIZDOvKqB4Cz2XBmwDB8FtnjFxinA+WJ3KJqPoXT3vp7KW5so4GjMIGg\
        MB0GA1UdDgQWBBRyL7oUrImOE8WZrwB1p6HH7vwbTDAfBgNVHSMEGDAWgBRyL7oUrImOE8WZrwB1p6HH7vwbTDAMBgNVHRMBAf8EAjAAMA4GA1UdDwEB/wQE\
        AwIHgDAdBgNVHSUEFjAUBggrBgEFBQcDAQYIKwYBBQUHAwIwIQYDVR0RAQH/BBcwFYYOc3BpZmZlOi8vYS5iL2OCA1gueTAKBggqhkjOPQQDAgNHADBEAiBT\
        XpUnuXYk0bUtnJ7334Va1uzNnr7Zfl7Xz+wHI0VcdAIgXQvJB6OgG/5tTLQUfsPTb7rWkpnZzHrQiv1WSpASPso=";

    #[test]
    fn a_spiffe_certificate_of_openssl_is_read() {
        use base64::Engine;
        let whole = base64::engine::general_purpose::STANDARD.decode(SVID).unwrap();
        let PeerCertificate { spiffe, dns, common_name, .. } = PeerCertificate::read(&whole);
        assert_eq!((spiffe.as_deref(), dns.as_slice(), common_name), (Some("spiffe://a.b/c"), ["x.y".to_owned()].as_slice(), None));
    }

    #[test]
    fn a_certificate_without_names_has_none() {
        let whole = der(|_| {});
        assert_eq!(
            PeerCertificate::read(&whole),
            PeerCertificate { spiffe: None, dns: Vec::new(), common_name: None, digest: Digest::of(&whole) }
        );
    }

    #[test]
    fn a_spiffe_certificate_has_exactly_one_uri_name() {
        assert_eq!(named(vec![uri("spiffe://a/b")]).spiffe.unwrap(), "spiffe://a/b");
        for names in [
            vec![uri("spiffe://a/b"), uri("spiffe://a/c")],
            vec![uri("spiffe://a/b"), uri("spiffe://a/b")],
            vec![uri("https://a/b"), uri("spiffe://a/b")],
            vec![uri("https://a/b")],
            vec![uri("SPIFFE://a/b")],
            // A name of another kind is no URI.
            vec![dns("spiffe://a/b")],
        ] {
            assert_eq!(named(names.clone()).spiffe, None, "{names:?}");
        }
    }

    #[test]
    fn one_common_name_is_a_name_and_two_are_none() {
        let printable = DnValue::PrintableString("Old job".try_into().unwrap());
        let of =
            |value: DnValue| PeerCertificate::read(&der(|params| params.distinguished_name.push(DnType::CommonName, value))).common_name;
        assert_eq!(of(printable).unwrap(), "Old job");
        assert_eq!(of(DnValue::Ia5String("a@b".try_into().unwrap())).unwrap(), "a@b");
        // Two bytes a character: read as bytes it would be another name.
        assert_eq!(of(DnValue::BmpString("ab".try_into().unwrap())), None);
        let twice = PeerCertificate::read(&der(|params| {
            params.distinguished_name.push(DnType::CommonName, "one");
            params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "two");
        }));
        assert_eq!(twice.common_name, None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            PeerCertificate::read(&bytes);
        }

        #[test]
        fn no_changed_byte_makes_it_panic(place in any::<prop::sample::Index>(), byte in any::<u8>(), end in any::<prop::sample::Index>()) {
            let mut whole = der(|params| {
                params.subject_alt_names = vec![dns("a.b"), uri("spiffe://a/b")];
                params.distinguished_name.push(DnType::CommonName, "a");
            });
            let place = place.index(whole.len());
            whole[place] = byte;
            whole.truncate(end.index(whole.len() + 1));
            PeerCertificate::read(&whole);
        }
    }
}
