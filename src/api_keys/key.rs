//! The text form of the API keys we make: `dw_<id>_<secret><check>`. The prefix lets scanners find a leaked key, the id
//! tells whose it is, the check digits tell a mistyped key from an unknown one.
//!
//! For people only: a key is looked up by the digest of its whole text, and any text listed by its digest is valid.

use crate::secret::{Digest, Secret};
use aws_lc_rs::rand;
use std::fmt;

/// What every key of ours begins with.
const PREFIX: &str = "dw_";
const BASE62: [u8; 62] = *b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 62^27 is over 2^160: the least that is asked of a secret that is never throttled offline.
const SECRET_DIGITS: usize = 27;
/// 62^6 is over 2^32: room for every CRC-32.
const CHECK_DIGITS: usize = 6;
/// Like a DNS label (RFC 1035 §2.3.1), so that an id can be part of most other names.
const MAX_ID: usize = 63;

/// A key that was just made. Its text exists here and nowhere else.
#[derive(Debug)]
pub struct NewKey {
    text: Secret,
    digest: Digest,
}

/// Why no key was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewKeyError {
    /// See [`is_id`].
    Id,
    /// The system gave no random numbers.
    NoRandomNumbers,
}

impl fmt::Display for NewKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NewKeyError::Id => "expected an id of 1 to 63 lower-case letters, digits and hyphens that does not begin with a hyphen",
            NewKeyError::NoRandomNumbers => "the system gave no random numbers",
        })
    }
}

impl std::error::Error for NewKeyError {}

impl NewKey {
    /// Makes a key for the record `id`.
    pub fn generate(id: &str) -> Result<NewKey, NewKeyError> {
        if !is_id(id) {
            return Err(NewKeyError::Id);
        }
        let mut text = format!("{PREFIX}{id}_");
        push_secret(&mut text)?;
        text.push_str(&check_digits(&text));
        Ok(NewKey { digest: Digest::of(text.as_bytes()), text: Secret::new(text.into_bytes()) })
    }

    /// The whole text, to be shown once.
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.text.expose()).expect("a key is made of ASCII")
    }

    /// What its record holds instead of the text.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// Whether `text` can be the id of a key we make: `[a-z0-9][a-z0-9-]{0,62}`.
pub fn is_id(text: &str) -> bool {
    text.len() <= MAX_ID
        && text.bytes().next().is_some_and(|first| first != b'-')
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// What the text of an unknown key looks like: for the operator's detail, never for a decision.
#[derive(Debug, PartialEq, Eq)]
pub enum Form<'a> {
    /// Whole, of our making as far as anyone can tell: its record is gone or elsewhere.
    Ours {
        /// The record it was made for.
        id: &'a str,
    },
    /// It begins like one of ours, and the rest does not fit: cut off, or a character is wrong.
    Mistyped,
    /// Not of our making.
    Foreign,
}

/// Tells the forms apart.
pub fn inspect(text: &str) -> Form<'_> {
    match text.strip_prefix(PREFIX) {
        None => Form::Foreign,
        Some(rest) => whole(text, rest).map_or(Form::Mistyped, |id| Form::Ours { id }),
    }
}

/// The id, when everything fits.
fn whole<'a>(text: &str, rest: &'a str) -> Option<&'a str> {
    let (id, digits) = rest.split_once('_')?;
    let is_whole = is_id(id) && digits.len() == SECRET_DIGITS + CHECK_DIGITS && digits.bytes().all(|byte| BASE62.contains(&byte));
    let (body, check) = text.split_at_checked(text.len().checked_sub(CHECK_DIGITS)?)?;
    (is_whole && check == check_digits(body)).then_some(id)
}

/// Appends digits of which each is equally likely.
fn push_secret(text: &mut String) -> Result<(), NewKeyError> {
    let end = text.len() + SECRET_DIGITS;
    while text.len() < end {
        let mut random = [0; 32];
        rand::fill(&mut random).map_err(|_| NewKeyError::NoRandomNumbers)?;
        // Six bits each; the two values beyond 61 are thrown away, folding them would make two digits likelier.
        let digits = random.iter().filter_map(|byte| BASE62.get(usize::from(byte & 63)));
        let missing = end - text.len();
        text.extend(digits.take(missing).map(|digit| char::from(*digit)));
    }
    Ok(())
}

/// The CRC-32 of `body` in base 62: finds every single wrong character, and nearly every other mistake.
fn check_digits(body: &str) -> String {
    let mut rest = crc32fast::hash(body.as_bytes()) as usize;
    let mut digits = [0; CHECK_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62.get(rest % BASE62.len()).copied().expect("a remainder is below the divisor");
        rest /= BASE62.len();
    }
    digits.map(char::from).iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_new_key_is_whole_and_has_its_digest() {
        for id in ["a", "0", "analytics-service", "a-", &"x".repeat(63)] {
            let key = NewKey::generate(id).unwrap();
            assert_eq!(inspect(key.text()), Form::Ours { id });
            assert_eq!(key.text().len(), 3 + id.len() + 1 + 27 + 6);
            assert_eq!(key.digest(), Digest::of(key.text().as_bytes()));
            assert!(!format!("{key:?}").contains(key.text()));
        }
        assert_ne!(NewKey::generate("a").unwrap().text(), NewKey::generate("a").unwrap().text());
    }

    #[test]
    fn an_id_is_like_a_label() {
        for bad in ["", "-a", "A", "a_b", "a.b", "é", "a b", &"x".repeat(64)] {
            assert_eq!(NewKey::generate(bad).unwrap_err(), NewKeyError::Id, "{bad:?}");
        }
    }

    #[test]
    fn the_form_stays_what_it_is() {
        // Keys are kept for years: this one was made by the first version.
        let body = format!("dw_analytics_{}", "0".repeat(SECRET_DIGITS));
        assert_eq!(check_digits("123456789"), "3jZRME", "CRC-32 (ISO 3309) of 123456789 is 0xcbf43926");
        let key = format!("{body}{}", check_digits(&body));
        assert_eq!(inspect(&key), Form::Ours { id: "analytics" });
    }

    #[test]
    fn every_digit_is_as_likely_as_the_others() {
        let mut counts = [0_u32; 128];
        for _ in 0..2_000 {
            let mut secret = String::new();
            push_secret(&mut secret).unwrap();
            secret.bytes().for_each(|digit| counts[usize::from(digit)] += 1);
        }
        // 54,000 digits, 871 of each, give or take 30: ten deviations away is no chance.
        for digit in BASE62 {
            assert!((570..1_170).contains(&counts[usize::from(digit)]), "{}: {}", char::from(digit), counts[usize::from(digit)]);
        }
    }

    #[test]
    fn others_keys_are_foreign_and_pieces_of_ours_mistyped() {
        for foreign in ["", "sk-live-1", "DW_a_b", "dw-", "local-only"] {
            assert_eq!(inspect(foreign), Form::Foreign, "{foreign:?}");
        }
        for mistyped in ["dw_", "dw_a", "dw_a_", "dw__x", "dw_a_é", "dw_é"] {
            assert_eq!(inspect(mistyped), Form::Mistyped, "{mistyped:?}");
        }
        let key = NewKey::generate("a").unwrap();
        for end in PREFIX.len()..key.text().len() {
            assert_eq!(inspect(&key.text()[..end]), Form::Mistyped);
        }
        assert_eq!(inspect(&format!("{} ", key.text())), Form::Mistyped);
    }

    proptest! {
        #[test]
        fn one_wrong_character_is_always_found(id in "[a-z0-9][a-z0-9-]{0,20}", place in any::<prop::sample::Index>(), wrong in any::<char>()) {
            let key = NewKey::generate(&id).unwrap();
            let mut letters: Vec<char> = key.text().chars().collect();
            let place = place.index(letters.len());
            prop_assume!(letters[place] != wrong);
            letters[place] = wrong;
            let text: String = letters.into_iter().collect();
            let expected = if place < PREFIX.len() { Form::Foreign } else { Form::Mistyped };
            prop_assert_eq!(inspect(&text), expected);
        }

        #[test]
        fn one_wrong_digit_is_always_found(place in 0..SECRET_DIGITS + CHECK_DIGITS, wrong in prop::sample::select(BASE62.to_vec())) {
            let key = NewKey::generate("id").unwrap();
            let mut bytes = key.text().as_bytes().to_vec();
            let place = "dw_id_".len() + place;
            prop_assume!(bytes[place] != wrong);
            bytes[place] = wrong;
            prop_assert_eq!(inspect(std::str::from_utf8(&bytes).unwrap()), Form::Mistyped);
        }

        #[test]
        fn any_text_can_be_inspected(text in "(dw_)?\\PC{0,60}") {
            let _ = inspect(&text);
        }
    }
}
