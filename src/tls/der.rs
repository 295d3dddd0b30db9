//! A walk over a DER certificate (RFC 5280 §4.1) to the few parts that are read here: its validity and its names.
//!
//! No judge of certificates: rustls has parsed and verified whatever decides anything. What is not shaped like a
//! certificate is `None`.

pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
/// `[0] EXPLICIT`, the version.
const VERSION: u8 = 0xa0;
/// `[3] EXPLICIT`, the extensions.
const EXTENSIONS: u8 = 0xa3;

/// The contents of some fields of a certificate.
pub(super) struct Certificate<'a> {
    pub(super) validity: &'a [u8],
    pub(super) subject: &'a [u8],
    /// Of version 3; empty without any.
    extensions: &'a [u8],
}

impl<'a> Certificate<'a> {
    pub(super) fn walk(certificate: &'a [u8]) -> Option<Certificate<'a>> {
        let mut certificate = Der(Der(certificate).expect(SEQUENCE)?);
        let mut signed_part = Der(certificate.expect(SEQUENCE)?);
        let mut serial_or_version = signed_part.next()?;
        if serial_or_version.0 == VERSION {
            serial_or_version = signed_part.next()?;
        }
        if serial_or_version.0 != INTEGER {
            return None;
        }
        let (_signature_algorithm, _issuer) = (signed_part.expect(SEQUENCE)?, signed_part.expect(SEQUENCE)?);
        let (validity, subject) = (signed_part.expect(SEQUENCE)?, signed_part.expect(SEQUENCE)?);
        let _public_key = signed_part.expect(SEQUENCE)?;
        let mut extensions: &[u8] = &[];
        // Before the extensions may come unique identifiers, which nobody has used since 1996.
        while let Some((tag, value)) = signed_part.next() {
            if tag == EXTENSIONS {
                extensions = Der(value).expect(SEQUENCE)?;
            }
        }
        Some(Certificate { validity, subject, extensions })
    }

    /// The value of an extension by its object identifier, without the octet string around it.
    pub(super) fn extension(&self, identifier: &[u8]) -> Option<&'a [u8]> {
        let mut extensions = Der(self.extensions);
        loop {
            let mut extension = Der(extensions.expect(SEQUENCE)?);
            let found = extension.expect(OBJECT_IDENTIFIER)?;
            let (tag, value) = match extension.next()? {
                (BOOLEAN, _critical) => extension.next()?,
                value => value,
            };
            if found == identifier {
                return Some(value).filter(|_| tag == OCTET_STRING);
            }
        }
    }
}

/// DER values one after the other (X.690): definite lengths, one-byte tags.
pub(super) struct Der<'a>(pub(super) &'a [u8]);

impl<'a> Der<'a> {
    /// The next value and its tag.
    pub(super) fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk::<2>()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // No certificate is larger than three bytes of length can say.
            0x81..=0x83 => {
                let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }

    pub(super) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, value)| value)
    }
}
