//! The `grpc-timeout` field (PROTOCOL-HTTP2.md, "Timeout"): one to eight digits and a unit, nothing else.

use http::HeaderName;
use std::time::Duration;

/// Made once: a name given as text is parsed each time it is looked up.
pub static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The value is not one to eight ASCII digits followed by one of `HMSmun`.
#[derive(Debug, PartialEq, Eq)]
pub struct TimeoutError;

/// Parses a `grpc-timeout` value. The longest possible, `99999999H`, is some 11,000 years and fits a `Duration`;
/// whoever adds it to a clock must do so checked.
pub fn parse_timeout(value: &[u8]) -> Result<Duration, TimeoutError> {
    let (unit, digits) = value.split_last().ok_or(TimeoutError)?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(TimeoutError);
    }
    let amount = digits.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Ok(Duration::from_secs(amount * 3600)),
        b'M' => Ok(Duration::from_secs(amount * 60)),
        b'S' => Ok(Duration::from_secs(amount)),
        b'm' => Ok(Duration::from_millis(amount)),
        b'u' => Ok(Duration::from_micros(amount)),
        b'n' => Ok(Duration::from_nanos(amount)),
        _ => Err(TimeoutError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_of_the_specification() {
        assert_eq!(parse_timeout(b"1S"), Ok(Duration::from_secs(1)));
        assert_eq!(parse_timeout(b"00000250m"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_timeout(b"99999999H"), Ok(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(parse_timeout(b"7u"), Ok(Duration::from_micros(7)));
        assert_eq!(parse_timeout(b"0n"), Ok(Duration::ZERO));
        for bad in ["", "S", "1", "+5S", "-1S", " 1S", "1 S", "1s", "1h", "123456789S", "1.5S", "1SS", "٣S"] {
            assert_eq!(parse_timeout(bad.as_bytes()), Err(TimeoutError), "{bad:?}");
        }
    }
}
