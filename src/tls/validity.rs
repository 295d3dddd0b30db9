//! From when until when a certificate is valid (RFC 5280 §4.1.2.5): for warnings and for the metric of expiry only.
//! Whether a peer's certificate is valid is rustls's to say.

use super::der::{Certificate, Der};
use crate::config::InputFile;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

/// When the first certificate of a PEM file expires; `None` when that cannot be read.
pub fn expiry(certificate: &InputFile) -> Option<Timestamp> {
    let leaf = CertificateDer::from_pem_slice(certificate.content.expose()).ok()?;
    Some(validity(&leaf)?.not_after)
}

/// Both ends are inside.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The validity of a DER certificate; `None` for whatever is not shaped like one.
pub(super) fn validity(certificate: &[u8]) -> Option<Validity> {
    let mut validity = Der(Certificate::walk(certificate)?.validity);
    Some(Validity { not_before: time(validity.next()?)?, not_after: time(validity.next()?)? })
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`: the only forms that RFC 5280 allows.
fn time((tag, value): (u8, &[u8])) -> Option<Timestamp> {
    let digits = std::str::from_utf8(value).ok()?.strip_suffix('Z')?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match tag {
        UTC_TIME => {
            let year: i16 = digits.get(..2)?.parse().ok()?;
            // RFC 5280 §4.1.2.5.1: 50 to 99 are of the last century.
            (if year >= 50 { 1900 + year } else { 2000 + year }, digits.get(2..)?)
        }
        GENERALIZED_TIME => (digits.get(..4)?.parse().ok()?, digits.get(4..)?),
        _ => return None,
    };
    if rest.len() != 10 {
        return None;
    }
    let part = |place: usize| rest.get(place..place + 2)?.parse::<i8>().ok();
    let civil = DateTime::new(year, part(0)?, part(2)?, part(4)?, part(6)?, part(8)?, 0).ok()?;
    TimeZone::UTC.to_timestamp(civil).ok()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Authority, file};
    use super::*;
    use proptest::prelude::*;

    fn timestamp(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn both_forms_of_time_are_read() {
        let (certificate, _) = Authority::new().issue_with("localhost", |params| {
            params.not_before = rcgen::date_time_ymd(1999, 12, 31);
            params.not_after = rcgen::date_time_ymd(2051, 3, 1);
        });
        let der = CertificateDer::from_pem_slice(certificate.content.expose()).unwrap();
        let expected = Validity { not_before: timestamp("1999-12-31T00:00:00Z"), not_after: timestamp("2051-03-01T00:00:00Z") };
        assert_eq!(validity(&der), Some(expected));
        assert_eq!(expiry(&certificate), Some(timestamp("2051-03-01T00:00:00Z")));
        assert_eq!(expiry(&file("tls.crt", "no certificate")), None);
    }

    #[test]
    fn only_the_two_forms_are_times() {
        assert_eq!(time((UTC_TIME, b"491231235959Z")), Some(timestamp("2049-12-31T23:59:59Z")));
        assert_eq!(time((UTC_TIME, b"500101000000Z")), Some(timestamp("1950-01-01T00:00:00Z")));
        let bad: [(u8, &[u8]); 8] = [
            (UTC_TIME, b"491231235959"),
            (UTC_TIME, b"4912312359Z"),
            (UTC_TIME, b"491331235959Z"),
            (UTC_TIME, b"+91231235959Z"),
            (UTC_TIME, b"20491231235959Z"),
            (GENERALIZED_TIME, b"491231235959Z"),
            (GENERALIZED_TIME, "2049123123595\u{e9}Z".as_bytes()),
            (0x02, b"491231235959Z"),
        ];
        for (tag, value) in bad {
            assert_eq!(time((tag, value)), None, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = validity(&bytes);
        }

        #[test]
        fn no_changed_byte_makes_it_panic(place in any::<prop::sample::Index>(), byte in any::<u8>(), end in any::<prop::sample::Index>()) {
            let (certificate, _) = Authority::new().issue("localhost");
            let mut der = CertificateDer::from_pem_slice(certificate.content.expose()).unwrap().to_vec();
            let place = place.index(der.len());
            der[place] = byte;
            der.truncate(end.index(der.len() + 1));
            let _ = validity(&der);
        }
    }
}
