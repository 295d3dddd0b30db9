//! The trace that a client has put its call into: W3C Trace Context (`traceparent`, `tracestate`;
//! <https://www.w3.org/TR/trace-context/>) or OpenCensus' binary form of it, `grpc-trace-bin`.
//!
//! All of it is the client's word, of use for correlation only. What is malformed, too long, zero, or there twice is
//! taken for absent; it is passed on to the upstream all the same, like any other metadata.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;

/// Where a call stands in its trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TraceContext {
    /// Never zero.
    pub(super) trace_id: u128,
    /// The client's span; never zero.
    pub(super) parent_id: u64,
    /// Whether the client records its span: then so do we.
    pub(super) sampled: bool,
    /// What tracing systems have added to it, for the span; only when asked for.
    pub(super) state: Option<Box<str>>,
}

impl TraceContext {
    /// `traceparent` decides; `grpc-trace-bin` is looked at only without a valid one. `with_state`: of a sampled trace.
    pub(super) fn read(headers: &HeaderMap, with_state: bool) -> Option<TraceContext> {
        match only(headers, "traceparent").and_then(from_traceparent) {
            Some(context) => {
                let state = if with_state && context.sampled { trace_state(headers) } else { None };
                Some(TraceContext { state, ..context })
            }
            None => from_grpc_trace_bin(only(headers, "grpc-trace-bin")?),
        }
    }

    fn new(trace_id: u128, parent_id: u64, flags: u8) -> Option<TraceContext> {
        let valid = trace_id != 0 && parent_id != 0;
        valid.then_some(TraceContext { trace_id, parent_id, sampled: flags & 1 == 1, state: None })
    }
}

/// The value of a field that must not be there twice.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(value.as_bytes())
}

/// `00-<32 hex>-<16 hex>-<2 hex>` (§3.2); later versions may go on after another dash.
fn from_traceparent(value: &[u8]) -> Option<TraceContext> {
    let mut parts = value.splitn(5, |byte| *byte == b'-');
    let mut hex = |length: usize| lower_hex(parts.next().filter(|part| part.len() == length)?);
    let (version, trace_id, parent_id, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    if version == 0xff || version == 0 && parts.next().is_some() {
        return None;
    }
    TraceContext::new(trace_id, u64::try_from(parent_id).ok()?, u8::try_from(flags).ok()?)
}

fn lower_hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// Version 0 of OpenCensus' BinaryFormat: a byte 0, then fields in the order of their ids: 0 and the trace id, 1 and the
/// span id, 2 and the flags, which may be left out. What later fields hold does not matter.
fn from_grpc_trace_bin(value: &[u8]) -> Option<TraceContext> {
    /// The 29 bytes of today, and a few of tomorrow.
    const LONGEST: usize = 48;
    // Peers send it with and without padding (PROTOCOL-HTTP2.md, "Custom-Metadata").
    const BASE64: GeneralPurpose =
        GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));
    let mut decoded = [0; LONGEST];
    let length = BASE64.decode_slice(value, &mut decoded).ok()?;
    let rest = decoded.get(..length)?.strip_prefix(&[0, 0])?;
    let (trace_id, rest) = rest.split_first_chunk()?;
    let (parent_id, rest) = rest.strip_prefix(&[1])?.split_first_chunk()?;
    let flags = if let [2, flags, ..] = rest { *flags } else { 0 };
    TraceContext::new(u128::from_be_bytes(*trace_id), u64::from_be_bytes(*parent_id), flags)
}

/// All `tracestate` fields as one list (§3.3), when it is one and no longer than everybody must be able to pass on.
fn trace_state(headers: &HeaderMap) -> Option<Box<str>> {
    const LONGEST: usize = 512;
    const MOST_MEMBERS: usize = 32;
    let mut list = String::new();
    for value in headers.get_all("tracestate") {
        let separator = if list.is_empty() { "" } else { "," };
        if list.len() + value.len() >= LONGEST {
            return None;
        }
        list.extend([separator, value.to_str().ok()?]);
    }
    let members = || list.split(',').map(str::trim).filter(|member| !member.is_empty());
    let valid = (1..=MOST_MEMBERS).contains(&members().count()) && members().all(is_member);
    valid.then(|| list.into())
}

fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else { return false };
    let of_key = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-*/@".contains(&b);
    let of_value = |b: u8| matches!(b, b' '..=b'~') && b != b'=';
    (1..=256).contains(&key.len()) && key.bytes().all(of_key) && (1..=256).contains(&value.len()) && value.bytes().all(of_value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    const TRACE_ID: u128 = 0x0af7651916cd43dd8448eb211c80319c;
    const PARENT_ID: u64 = 0xb7ad6b7169203331;
    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        let mut map = HeaderMap::new();
        fields.iter().map(field).for_each(|(name, value)| {
            map.append(name, value);
        });
        map
    }

    fn read(fields: &[(&str, &str)]) -> Option<(u128, u64, bool)> {
        TraceContext::read(&headers(fields), true).map(|context| (context.trace_id, context.parent_id, context.sampled))
    }

    fn binary(flags: &[u8]) -> Vec<u8> {
        [&[0, 0][..], &TRACE_ID.to_be_bytes(), &[1], &PARENT_ID.to_be_bytes(), flags].concat()
    }

    #[test]
    fn a_traceparent_names_trace_parent_and_sampling() {
        for (value, sampled) in [
            (GOOD.to_owned(), true),
            (GOOD.replace("-01", "-00"), false),
            (GOOD.replace("-01", "-fe"), false),
            (GOOD.replace("-01", "-ff"), true),
            (GOOD.replacen("00", "cc", 1), true),
            (format!("{}-what-comes", GOOD.replacen("00", "01", 1)), true),
        ] {
            assert_eq!(read(&[("traceparent", &value)]), Some((TRACE_ID, PARENT_ID, sampled)), "{value}");
        }
    }

    #[test]
    fn a_traceparent_that_is_none_is_taken_for_absent() {
        for bad in [
            "",
            "00",
            "-",
            "----",
            &GOOD.to_uppercase(),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.replacen("00", "0x", 1),
            &format!("{GOOD}-x"),
            &format!("{GOOD}0"),
            &format!("{GOOD}-"),
            &GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            &GOOD.replace("0af7", "0\"f7"),
            &GOOD.replace("0af7", "+af7"),
            &GOOD.replace("0af7", "00af7"),
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            &"00-".repeat(5000),
            &format!("{},{GOOD}", GOOD),
        ] {
            assert_eq!(read(&[("traceparent", bad)]), None, "{bad:?}");
        }
        let mut opaque = HeaderMap::new();
        opaque.insert("traceparent", HeaderValue::from_bytes(&[0xff; 55]).unwrap());
        assert_eq!(TraceContext::read(&opaque, true), None);
        assert_eq!(read(&[("traceparent", GOOD), ("traceparent", GOOD)]), None, "there twice, even if the same");
    }

    #[test]
    fn grpc_trace_bin_says_the_same_in_binary() {
        for (value, sampled) in [
            (STANDARD.encode(binary(&[2, 1])), true),
            (STANDARD_NO_PAD.encode(binary(&[2, 1])), true),
            (STANDARD_NO_PAD.encode(binary(&[2, 0])), false),
            (STANDARD_NO_PAD.encode(binary(&[])), false),
            (STANDARD_NO_PAD.encode(binary(&[2])), false),
            (STANDARD_NO_PAD.encode(binary(&[2, 1, 3, 7, 7])), true),
            (STANDARD_NO_PAD.encode(binary(&[9, 9])), false),
        ] {
            assert_eq!(read(&[("grpc-trace-bin", &value)]), Some((TRACE_ID, PARENT_ID, sampled)), "{value}");
        }
    }

    #[test]
    fn a_grpc_trace_bin_that_is_none_is_taken_for_absent() {
        let good = binary(&[2, 1]);
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        let mut zero_trace = good.clone();
        zero_trace[2..18].fill(0);
        let mut zero_parent = good.clone();
        zero_parent[19..27].fill(0);
        let cut = (0..27).map(|length| good[..length].to_vec());
        let long = [good.clone(), vec![7; 8000]].concat();
        for bad in [with(0, 1), with(1, 1), with(18, 0), zero_trace, zero_parent, long].into_iter().chain(cut) {
            assert_eq!(read(&[("grpc-trace-bin", &STANDARD_NO_PAD.encode(&bad))]), None, "{bad:?}");
        }
        let text = STANDARD_NO_PAD.encode(&good);
        for bad in ["!", "====", &text[1..], &format!("{text},{text}"), &format!("{text}====")] {
            assert_eq!(read(&[("grpc-trace-bin", bad)]), None, "{bad:?}");
        }
        assert_eq!(read(&[("grpc-trace-bin", &text), ("grpc-trace-bin", &text)]), None);
    }

    #[test]
    fn a_valid_traceparent_decides_and_an_invalid_one_does_not_count() {
        let other = STANDARD_NO_PAD.encode(binary(&[2, 0]));
        assert_eq!(read(&[("grpc-trace-bin", &other), ("traceparent", GOOD)]), Some((TRACE_ID, PARENT_ID, true)));
        assert_eq!(read(&[("grpc-trace-bin", &other), ("traceparent", "00-garbage")]), Some((TRACE_ID, PARENT_ID, false)));
    }

    fn state(fields: &[&str]) -> Option<String> {
        let fields: Vec<_> = [("traceparent", GOOD)].into_iter().chain(fields.iter().map(|value| ("tracestate", *value))).collect();
        TraceContext::read(&headers(&fields), true).unwrap().state.map(String::from)
    }

    #[test]
    fn a_tracestate_is_kept_when_it_is_one_and_of_a_sampled_trace_that_asks_for_it() {
        assert_eq!(state(&["a=1,b@c=2 3, d/e=%4"]).as_deref(), Some("a=1,b@c=2 3, d/e=%4"));
        assert_eq!(state(&["a=1", "b=2"]).as_deref(), Some("a=1,b=2"));
        let member = format!("a={}", "x".repeat(256));
        let many = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        assert_eq!(state(&[&member]).as_deref(), Some(&*member));
        assert_eq!(state(&[&many(32)]), Some(many(32)));
        for bad in
            ["", ",", "a", "=1", "a=", "A=1", "a b=1", "a=1=2", "a=\t1", "a=é", &format!("{member}x"), &many(33), &"a=1,".repeat(128)]
        {
            assert_eq!(state(&[bad]), None, "{bad:?}");
        }
        assert_eq!(state(&[&member, &member]), None, "too long together");
        let unsampled = headers(&[("traceparent", &GOOD.replace("-01", "-00")), ("tracestate", "a=1")]);
        assert_eq!(TraceContext::read(&unsampled, true).unwrap().state, None);
        assert_eq!(TraceContext::read(&headers(&[("traceparent", GOOD), ("tracestate", "a=1")]), false).unwrap().state, None);
        let binary = headers(&[("grpc-trace-bin", &STANDARD_NO_PAD.encode(binary(&[2, 1]))), ("tracestate", "a=1")]);
        assert_eq!(TraceContext::read(&binary, true).unwrap().state, None, "it belongs to a traceparent");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_no_panic_and_what_is_taken_is_whole(
            name in prop::sample::select(vec!["traceparent", "tracestate", "grpc-trace-bin"]),
            value in prop_oneof![
                proptest::collection::vec(any::<u8>().prop_filter("of a field", |b| *b >= 32 && *b != 127), 0..80),
                "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.{0,9})?".prop_map(String::into_bytes),
                proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| STANDARD.encode(bytes).into_bytes()),
            ],
        ) {
            let mut map = headers(&[("traceparent", GOOD)]);
            let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
            map.insert(name, value);
            if let Some(context) = TraceContext::read(&map, true) {
                prop_assert!(context.trace_id != 0 && context.parent_id != 0);
                prop_assert!(context.state.is_none_or(|state| state.len() <= 512 && state.is_ascii()));
            }
        }

        #[test]
        fn both_forms_carry_any_context(trace_id in 1u128.., parent_id in 1u64.., sampled: bool) {
            let text = format!("00-{trace_id:032x}-{parent_id:016x}-0{}", u8::from(sampled));
            prop_assert_eq!(read(&[("traceparent", &text)]), Some((trace_id, parent_id, sampled)));
            let bytes = [&[0, 0][..], &trace_id.to_be_bytes(), &[1], &parent_id.to_be_bytes(), &[2, u8::from(sampled)]].concat();
            prop_assert_eq!(read(&[("grpc-trace-bin", &STANDARD.encode(bytes))]), Some((trace_id, parent_id, sampled)));
        }
    }
}
