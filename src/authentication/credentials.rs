//! What a request itself presents: at most one bearer token (RFC 6750 §2.1) and one API key, taken from the fields as they are.
//!
//! Only the form of the fields is judged here; two of a kind are refused rather than one of them chosen, since the
//! upstream or a log might choose the other.

use super::failure::{Failure, FailureKind};
use crate::memo::Memo;
use crate::secret::Digest;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use std::cell::RefCell;
use std::hash::{Hash, Hasher};

/// The credentials of one request, not yet verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Credentials<'r> {
    /// Visible ASCII.
    pub(super) token: Option<&'r [u8]>,
    pub(super) api_key: Option<&'r [u8]>,
}

impl<'r> Credentials<'r> {
    /// Reads `authorization` and, where API keys are configured, their field.
    pub(super) fn read(request: &'r HeaderMap, api_key_header: Option<&HeaderName>) -> Result<Credentials<'r>, Failure> {
        let token = only(request, &AUTHORIZATION)?.map(bearer_token).transpose()?;
        let api_key = match api_key_header {
            Some(header) => only(request, header)?.map(HeaderValue::as_bytes),
            None => None,
        };
        if api_key.is_some_and(<[u8]>::is_empty) {
            return Err(Failure::new(FailureKind::CredentialsMalformed, "the API-key field is empty, expected a key"));
        }
        Ok(Credentials { token, api_key })
    }

    /// What is presented, each told apart by its digest.
    pub(super) fn words(&self) -> String {
        let token = self.token.map(|token| format!("a bearer token, SHA-256 {}…", Digest::of(token).short()));
        let key = self.api_key.map(|key| format!("an API key, SHA-256 {}…", Digest::of(key).short()));
        let both: Vec<String> = token.into_iter().chain(key).collect();
        if both.is_empty() { "the request has no credential".to_owned() } else { format!("the request has {}", both.join(" and ")) }
    }

    /// What the verdict is cached under: everything that was presented, and as what, together with the certificate that
    /// counted, if one did. `None` when the request itself holds no credential.
    pub(super) fn fingerprint(&self, certificate: Option<&Digest>, digest: impl Fn(&[u8]) -> Digest) -> Option<Fingerprint> {
        let presents = self.token.is_some() || self.api_key.is_some();
        presents.then(|| Fingerprint {
            token: self.token.map(digest),
            api_key: self.api_key.map(Digest::of),
            certificate: certificate.copied(),
        })
    }
}

/// The digests of the tokens that the calls of a worker come with: a token comes with many of them, and telling that it is the same
/// takes less than a digest.
#[derive(Default)]
pub struct TokenDigests(RefCell<Memo<Digest>>);

impl TokenDigests {
    /// The digest of `token`.
    pub fn of(&self, token: &[u8]) -> Digest {
        let known = self.0.borrow_mut().get(token, |token| Some(Digest::of(token))).copied();
        known.unwrap_or_else(|| Digest::of(token))
    }

    /// Forgets tokens that nobody has sent since this was last done.
    pub fn forget_unused(&self) {
        self.0.borrow_mut().forget_unused();
    }
}

/// Stands for the credentials of a call: two calls have the same only when they present the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint {
    pub(super) token: Option<Digest>,
    pub(super) api_key: Option<Digest>,
    pub(super) certificate: Option<Digest>,
}

impl Hash for Fingerprint {
    /// Some bytes of a digest are spread as well as all of them.
    fn hash<H: Hasher>(&self, state: &mut H) {
        for digest in [&self.token, &self.api_key, &self.certificate].into_iter().flatten() {
            let (some, _) = digest.as_bytes().split_at(8);
            state.write(some);
        }
    }
}

fn only<'r>(request: &'r HeaderMap, header: &HeaderName) -> Result<Option<&'r HeaderValue>, Failure> {
    let mut values = request.get_all(header).iter();
    match (values.next(), values.next()) {
        (first, None) => Ok(first),
        _ => {
            let found = request.get_all(header).iter().count();
            Err(Failure::new(FailureKind::CredentialsAmbiguous, format!("{found} {header} fields, expected one at most")))
        }
    }
}

/// The scheme `Bearer` in any case, one or more spaces, one token of visible ASCII.
fn bearer_token(value: &HeaderValue) -> Result<&[u8], Failure> {
    let parsed = value.as_bytes().split_at_checked("bearer ".len()).and_then(|(scheme, rest)| {
        let (_, token) = rest.split_at_checked(rest.iter().take_while(|byte| **byte == b' ').count())?;
        // The least and the greatest of all bytes, without a way out: that is done many bytes at a time.
        let (least, greatest) = token.iter().fold((u8::MAX, 0), |(least, greatest), byte| (least.min(*byte), greatest.max(*byte)));
        let whole = !token.is_empty() && least >= b'!' && greatest <= b'~' && scheme.eq_ignore_ascii_case(b"bearer ");
        whole.then_some(token)
    });
    parsed.ok_or_else(|| {
        let found = what_instead(value.as_bytes());
        Failure::new(
            FailureKind::CredentialsMalformed,
            format!("the authorization field {found}, expected `Bearer`, a space and one token"),
        )
    })
}

/// What stands where a bearer token should, without a byte of it: it may be a password.
fn what_instead(value: &[u8]) -> String {
    const OTHERS: [&str; 6] = ["Basic", "Digest", "DPoP", "Negotiate", "ApiKey", "Token"];
    let mut words = value.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let Some(scheme) = words.next() else { return "is empty".to_owned() };
    let further = words.count();
    if let Some(other) = OTHERS.iter().find(|other| scheme.eq_ignore_ascii_case(other.as_bytes())) {
        return format!("has the scheme {other}");
    }
    match (scheme.eq_ignore_ascii_case(b"bearer"), further) {
        (true, 0) => "has no token after `Bearer`".to_owned(),
        (true, 1) => "has bytes in its token that no token has".to_owned(),
        (true, words) => format!("has {words} words after `Bearer`"),
        (false, 0) => format!("is one word of {} bytes without a scheme", scheme.len()),
        (false, _) => "has another scheme".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: HeaderName = HeaderName::from_static("x-api-key");

    fn request(fields: &[(&'static str, &[u8])]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap())).collect()
    }

    fn kind(fields: &[(&'static str, &[u8])]) -> FailureKind {
        Credentials::read(&request(fields), Some(&KEY)).unwrap_err().kind
    }

    #[test]
    fn a_token_has_its_own_digest_however_often_it_comes() {
        let digests = TokenDigests::default();
        let tokens = [&b"a.b.c"[..], b"a.b.d", &[b'x'; 3000], &[b'x'; 4000]];
        for token in tokens.iter().cycle().take(12) {
            assert_eq!(digests.of(token), Digest::of(token));
        }
        digests.forget_unused();
        digests.forget_unused();
        assert_eq!(digests.0.borrow().len(), 0);
    }

    #[test]
    fn one_token_and_one_key_are_read() {
        for field in ["Bearer a.b.c", "bearer a.b.c", "BEARER    a.b.c"] {
            let request = request(&[("authorization", field.as_bytes()), ("x-api-key", b"k\xff")]);
            let read = Credentials::read(&request, Some(&KEY)).unwrap();
            assert_eq!(read, Credentials { token: Some(b"a.b.c"), api_key: Some(b"k\xff") });
            // Without configured API keys the field is none of our business.
            assert_eq!(Credentials::read(&request, None).unwrap().api_key, None);
        }
        assert_eq!(Credentials::read(&HeaderMap::new(), Some(&KEY)).unwrap(), Credentials::default());
    }

    #[test]
    fn a_token_is_all_of_visible_ascii() {
        let token = |value: &[u8]| bearer_token(&HeaderValue::from_bytes(value).unwrap()).map(<[u8]>::to_vec).ok();
        let whole: Vec<u8> = (b'!'..=b'~').collect();
        assert_eq!(token(&[b"Bearer ", &whole[..]].concat()), Some(whole.clone()));
        // Among so many others that it is not looked at alone.
        for bad in [b' ', b'\t', 0x80, 0xff] {
            assert_eq!(token(&[b"Bearer ", &whole[..], &[bad], &whole[..]].concat()), None, "{bad}");
        }
    }

    #[test]
    fn two_of_a_kind_are_ambiguous_even_when_equal() {
        assert_eq!(kind(&[("authorization", b"Bearer a"), ("authorization", b"Bearer a")]), FailureKind::CredentialsAmbiguous);
        assert_eq!(kind(&[("x-api-key", b"a"), ("x-api-key", b"a")]), FailureKind::CredentialsAmbiguous);
        assert_eq!(kind(&[("authorization", b"Bearer a"), ("authorization", b"Basic x")]), FailureKind::CredentialsAmbiguous);
    }

    #[test]
    fn another_form_is_malformed() {
        let bad: [&[u8]; 14] = [
            b"",
            b"Bearer",
            b"Bearer ",
            b"Bearer   ",
            b"a.b.c",
            b"Basic dTpw",
            b"Bearer a b",
            b"Bearer a ",
            b"Bearer\ta",
            b"Bearer a\tb",
            b" Bearer a",
            b"Bearera",
            b"Bearer \xff",
            b"Bearer, Bearer a",
        ];
        for bad in bad {
            assert_eq!(kind(&[("authorization", bad)]), FailureKind::CredentialsMalformed, "{bad:?}");
        }
        assert_eq!(kind(&[("x-api-key", b"")]), FailureKind::CredentialsMalformed);
    }

    #[test]
    fn fingerprints_tell_apart_what_was_presented_as_what() {
        let with = |token: Option<&'static [u8]>, api_key: Option<&'static [u8]>, certificate: Option<&Digest>| {
            Credentials { token, api_key }.fingerprint(certificate, Digest::of)
        };
        let of = |token, api_key| with(token, api_key, None);
        let (one, other) = (Digest::of(b"a"), Digest::of(b"b"));
        let all = [
            of(Some(b"a"), None),
            of(None, Some(b"a")),
            of(Some(b"a"), Some(b"a")),
            of(Some(b"aa"), None),
            of(Some(b"a"), Some(b"b")),
            with(Some(b"a"), None, Some(&one)),
            with(Some(b"a"), None, Some(&other)),
            with(None, Some(b"a"), Some(&one)),
            with(Some(b"a"), Some(b"a"), Some(&one)),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(one.is_some() && all[..index].iter().all(|other| other != one));
        }
        assert_eq!((of(None, None), with(None, None, Some(&one))), (None, None));
    }

    proptest! {
        #[test]
        fn no_field_value_panics_and_what_is_read_is_one_word(value in proptest::collection::vec(0u8.., 0..40)) {
            if let Ok(value) = HeaderValue::from_bytes(&value)
                && let Ok(token) = bearer_token(&value)
            {
                prop_assert!(!token.is_empty() && token.iter().all(u8::is_ascii_graphic));
            }
        }
    }
}
