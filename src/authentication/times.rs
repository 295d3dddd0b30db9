//! Moments and spans of time, as claims count them and in words for an operator.

use jiff::Timestamp;
use std::time::{Duration, SystemTime};

/// A moment as a NumericDate (RFC 7519 §2): seconds of Unix time.
pub(super) fn unix_seconds(now: SystemTime) -> f64 {
    now.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A NumericDate (RFC 7519 §2) as RFC 3339 writes it; one that no calendar has as the number it is.
pub(super) fn numeric(seconds: f64) -> String {
    // Saturates: what is out of range then is for the calendar too.
    let date = Timestamp::from_millisecond((seconds * 1000.0) as i64);
    date.map_or_else(|_| format!("{seconds:e}"), |date| date.to_string())
}

/// A moment as RFC 3339 writes it.
pub(super) fn at(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| "a date beyond the calendar".to_owned(), |time| time.strftime("%FT%TZ").to_string())
}

/// How far a date lies from now: seconds ahead, or ago when negative.
pub(super) fn distance(seconds: f64) -> String {
    let direction = if seconds > 0.0 { "ahead" } else { "ago" };
    format!("{} {direction}", span(seconds.abs()))
}

/// The same for two moments.
pub(super) fn relative(time: SystemTime, now: SystemTime) -> String {
    match time.duration_since(now) {
        Ok(ahead) => distance(ahead.as_secs_f64()),
        Err(ago) => distance(-ago.duration().as_secs_f64()),
    }
}

/// A number of seconds, without the many digits that a claim may have.
pub(super) fn seconds(seconds: f64) -> String {
    if seconds.abs() < 1e12 { format!("{seconds} s") } else { format!("{seconds:e} s") }
}

/// Time that has passed.
pub(super) fn passed(span_of_time: Duration) -> String {
    span(span_of_time.as_secs_f64())
}

/// In the unit that people would choose; exact seconds as long as those matter for clocks.
pub(super) fn span(seconds: f64) -> String {
    const UNITS: [(f64, &str); 4] = [(31_536_000.0, "years"), (86_400.0, "days"), (3600.0, "h"), (60.0, "min")];
    match UNITS.iter().find(|(unit, _)| seconds >= 2.0 * unit && seconds >= 600.0) {
        _ if seconds >= 31_536_000_000.0 => "more than 1000 years".to_owned(),
        Some((unit, name)) => format!("{:.0} {name}", (seconds / unit).floor()),
        None => format!("{:.0} s", seconds.floor()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_spans_are_readable_whatever_a_claim_holds() {
        for (seconds, words) in [
            (1_700_000_000.0, "2023-11-14T22:13:20Z"),
            (1_700_000_000.5, "2023-11-14T22:13:20.5Z"),
            (-1.0, "1969-12-31T23:59:59Z"),
            (1e300, "1e300"),
            (-1e300, "-1e300"),
            (u64::MAX as f64, "1.8446744073709552e19"),
        ] {
            assert_eq!(numeric(seconds), words);
        }
        for (seconds, words) in [
            (0.0, "0 s ago"),
            (42.9, "42 s ahead"),
            (-599.0, "599 s ago"),
            (-600.0, "10 min ago"),
            (7200.0, "2 h ahead"),
            (-172_800.0, "2 days ago"),
            (63_072_000.0, "2 years ahead"),
            (-1e300, "more than 1000 years ago"),
        ] {
            assert_eq!(distance(seconds), words);
        }
        assert_eq!((seconds(7200.5), seconds(1e300)), ("7200.5 s".to_owned(), "1e300 s".to_owned()));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        assert_eq!((at(now), relative(SystemTime::UNIX_EPOCH, now)), ("1970-01-01T00:01:40Z".to_owned(), "100 s ago".to_owned()));
    }
}
