//! The texts of a configuration that mean a value: durations, sizes, addresses, URLs, header names. Pure; each says in
//! its error what is wrong, and none of them quotes what it was given: it may hold a password.

use super::{CollectorUrl, HttpsUrl, Rate, RateUnit, UpstreamAddress};
use http::{HeaderName, Uri};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub(super) const A_DURATION: &str = "a duration such as 250ms, 30s, 10m or 24h";
pub(super) const A_SIZE: &str = "a size such as 16KiB or 1MiB";
pub(super) const A_RATE: &str = "a rate such as 100/s, 10/m or 5/h, or none";
pub(super) const AN_ADDRESS: &str = "an address and port such as 0.0.0.0:8443 or [::]:8443";
pub(super) const AN_UPSTREAM: &str = "http://host:port, https://host:port or unix:/path";
pub(super) const A_URL: &str = "an https:// URL (http:// only to loopback)";
pub(super) const A_COLLECTOR: &str = "http://host:port or https://host:port of a collector that takes OTLP over gRPC";
pub(super) const A_HEADER: &str = "a lower-case header name";
pub(super) const A_SPIFFE_ID: &str = "the SPIFFE ID of a workload such as spiffe://cluster.local/ns/billing/sa/worker";
pub(super) const A_DNS_NAME: &str = "a DNS name such as worker.billing.example.com";

/// A parsed value, or what is wrong with the text.
pub(super) type Parsed<T> = Result<T, &'static str>;

/// Nobody waits longer; and an `Instant` this far ahead never overflows.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// `250ms`, `30s`, `10m`, `24h`, `0s`.
pub(super) fn duration(text: &str) -> Parsed<Duration> {
    let (digits, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    if digits.is_empty() {
        return Err("");
    }
    let number: u64 = digits.parse().map_err(|_| "it is too long")?;
    let factor = match unit {
        "ms" => return Some(Duration::from_millis(number)).filter(|d| *d <= LONGEST).ok_or("it is too long"),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "" => return Err("a unit is missing"),
        _ => return Err("units are ms, s, m and h"),
    };
    number.checked_mul(factor).map(Duration::from_secs).filter(|d| *d <= LONGEST).ok_or("it is too long")
}

/// `16KiB`, `1MiB`.
pub(super) fn size(text: &str) -> Parsed<usize> {
    let (digits, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let factor = match unit {
        _ if digits.is_empty() => return Err(""),
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        "" => return Err("a unit is missing"),
        _ => return Err("units are KiB and MiB"),
    };
    digits.parse().ok().and_then(|number: usize| number.checked_mul(factor)).ok_or("it is too large")
}

/// More than this is no limit, and finer than clocks are.
const MOST_OFTEN: u32 = 1_000_000;

/// `100/s`, `10/m`, `5/h`; `none`.
pub(super) fn rate(text: &str) -> Parsed<Option<Rate>> {
    let (count, unit) = match text.split_once('/') {
        Some(parts) => parts,
        None if text == "none" => return Ok(None),
        None if matches!(text, "off" | "never" | "no" | "disabled") => return Err("our word is none"),
        None => return Err(""),
    };
    let per = match unit {
        "s" => RateUnit::Second,
        "m" => RateUnit::Minute,
        "h" => RateUnit::Hour,
        _ => return Err("units are s, m and h"),
    };
    if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("a whole number stands before the /");
    }
    match count.parse() {
        Ok(0) => Err("at least 1; who may not call at all is a matter of authorization"),
        Ok(count) if count <= MOST_OFTEN => Ok(Some(Rate { count, per })),
        _ => Err("at most 1000000"),
    }
}

/// `spiffe://trust-domain/path`, to the letter of the SPIFFE ID specification (§2): anything else would match no certificate.
pub(super) fn spiffe_id(text: &str) -> Parsed<String> {
    let rest = text.strip_prefix("spiffe://").ok_or("it begins with spiffe://")?;
    let (trust_domain, path) = rest.split_once('/').ok_or("the path is missing: it would be the ID of a whole trust domain")?;
    if trust_domain.is_empty() || !trust_domain.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b)) {
        return Err("a trust domain is lower-case letters, digits, dots, dashes and underscores");
    }
    let segment =
        |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
    match path.split('/').all(segment) {
        _ if text.len() > 2048 || trust_domain.len() > 255 => Err("it is too long"),
        true => Ok(text.to_owned()),
        false => Err("each segment of the path is letters, digits, dots, dashes and underscores"),
    }
}

/// A DNS name as certificates hold them (RFC 5280 §4.2.1.6), in lower case; no wildcard, for a client is one of them.
pub(super) fn dns_name(text: &str) -> Parsed<String> {
    if text.contains('*') {
        return Err("without a wildcard");
    }
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    match text.len() <= 253 && text.split('.').all(label) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("letters, digits, dashes and underscores between dots"),
    }
}

/// `0.0.0.0:8443`, `[::]:8443`.
pub(super) fn socket_address(text: &str) -> Parsed<SocketAddr> {
    text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(_) => "the port is missing",
        Err(_) if text.starts_with(':') => "the address before the port is missing",
        Err(_) if text.starts_with("localhost:") => "names are not resolved here; write 127.0.0.1",
        Err(_) => "",
    })
}

/// Where the upstream listens, and whether TLS is spoken there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UpstreamUrl {
    pub(super) address: UpstreamAddress,
    pub(super) https: bool,
}

/// `http://host:port`, `https://host:port`, `unix:/path`.
pub(super) fn upstream(text: &str) -> Parsed<UpstreamUrl> {
    if let Some(path) = text.strip_prefix("unix:") {
        // grpc's own spelling of an absolute path is unix:///path.
        let path = path.strip_prefix("//").unwrap_or(path);
        return match path {
            "" => Err("the path is missing"),
            _ if path.contains('\0') => Err("the path holds a NUL"),
            _ => Ok(UpstreamUrl { address: UpstreamAddress::Unix(PathBuf::from(path)), https: false }),
        };
    }
    let Url { https, host, port, rest } = url(text)?;
    if !matches!(rest.as_str(), "" | "/") {
        return Err("the path and query of each call are its own; leave them out");
    }
    let port = port.unwrap_or(if https { 443 } else { 80 });
    Ok(UpstreamUrl { address: UpstreamAddress::Tcp { host, port }, https })
}

/// `https`, or `http` to loopback; no userinfo, no fragment.
pub(super) fn https_url(text: &str) -> Parsed<HttpsUrl> {
    let url = url(text)?;
    if !url.https && !is_loopback_host(&url.host) {
        return Err("keys fetched over plain http could be anybody's");
    }
    Ok(HttpsUrl(text.to_owned()))
}

/// `http://host:port`, `https://host:port`. The port is always written: what has none could mean the scheme's or OTLP's.
pub(super) fn collector(text: &str) -> Parsed<CollectorUrl> {
    let Url { https, host, port, rest } = url(text)?;
    if !matches!(rest.as_str(), "" | "/") {
        return Err("OTLP over gRPC has a path of its own; leave it out");
    }
    let port = port.ok_or("the port is missing; that of OTLP over gRPC is 4317")?;
    let (scheme, address) = (if https { "https" } else { "http" }, UpstreamAddress::Tcp { host, port });
    Ok(CollectorUrl(format!("{scheme}://{address}")))
}

fn is_loopback_host(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

struct Url {
    https: bool,
    /// An IPv6 address without brackets.
    host: String,
    port: Option<u16>,
    /// Path and query as written.
    rest: String,
}

fn url(text: &str) -> Parsed<Url> {
    let (scheme, rest) = text.split_once("://").ok_or("")?;
    let https = match scheme {
        "http" => false,
        "https" => true,
        _ => return Err(""),
    };
    if text.contains('#') {
        return Err("a fragment (#…) has no meaning here");
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("user and password do not belong in a URL");
    }
    let uri: Uri = text.parse().map_err(|_| "it is not a valid URL")?;
    let host = uri.host().unwrap_or_default();
    let after_host = authority.strip_prefix(host).ok_or("it is not a valid URL")?;
    let port = match after_host.strip_prefix(':') {
        None if after_host.is_empty() => None,
        None => return Err("it is not a valid URL"),
        Some(digits) => Some(digits.parse().ok().filter(|port| *port != 0).ok_or("a port is a number from 1 to 65535")?),
    };
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(ip) => ip.parse::<std::net::Ipv6Addr>().map_err(|_| "[…] holds no IPv6 address")?.to_string(),
        None if host.is_empty() => return Err("the host is missing"),
        None if host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b)) => host.to_owned(),
        None => return Err("the host is no name or address"),
    };
    let rest = rest.get(authority.len()..).unwrap_or_default().to_owned();
    Ok(Url { https, host, port, rest })
}

/// A lower-case HTTP field name that a configuration may give a meaning to.
pub(super) fn header_name(text: &str) -> Parsed<HeaderName> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("HTTP/2 field names are lower case");
    }
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| "it is not a valid field name")?;
    let folded = fold_header(text);
    if text.ends_with("-bin") || text.ends_with("_bin") || text.ends_with(".bin") {
        return Err("-bin fields hold base64, and this value is text");
    }
    if RESERVED.contains(&folded.as_str()) || folded.starts_with("grpc-") {
        return Err("that name belongs to HTTP or gRPC");
    }
    Ok(name)
}

/// Names with a meaning of their own in HTTP, gRPC or tracing, folded.
const RESERVED: [&str; 22] = [
    "authorization",
    "te",
    "host",
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "transfer-encoding",
    "upgrade",
    "trailer",
    "content-type",
    "content-length",
    "content-encoding",
    "accept",
    "accept-encoding",
    "cookie",
    "date",
    "user-agent",
    "www-authenticate",
    "traceparent",
    "tracestate",
    "expect",
];

/// Two header names are the same to an upstream when these are equal: lower case, `_` and `.` as `-`, one final `-bin` cut.
pub(super) fn fold_header(name: &str) -> String {
    let folded = name.to_lowercase().replace(['_', '.'], "-");
    folded.strip_suffix("-bin").map(str::to_owned).unwrap_or(folded)
}

/// A text as an error may show it: without a URL's userinfo, and not endless.
pub(super) fn shown(text: &str) -> String {
    let text = match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        _ => text.to_owned(),
    };
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, millis) in [("250ms", 250), ("30s", 30_000), ("10m", 600_000), ("24h", 86_400_000), ("0s", 0), ("007s", 7000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "5", "s", "1.5s", "-1s", "+1s", "1d", "1h30m", " 1s", "1 s", "1S", "99999999999999999999s", "9999999999999h", "1µs"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_collector_is_scheme_host_and_port() {
        for (text, found) in [
            ("http://collector:4317", "http://collector:4317"),
            ("https://otel.example.com:443/", "https://otel.example.com:443"),
            ("http://[::1]:4317", "http://[::1]:4317"),
        ] {
            assert_eq!(collector(text).map(|url| url.as_str().to_owned()), Ok(found.to_owned()), "{text}");
        }
        for bad in [
            "",
            "collector",
            "grpc://c:1",
            "http://c",
            "http://c:0",
            "http://c:1/x",
            "http://c:1?x",
            "http://c:1#x",
            "http://u@c:1",
            "http://:1",
        ] {
            assert!(collector(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_spiffe_id_is_that_of_a_workload() {
        for good in ["spiffe://a/b", "spiffe://cluster.local/ns/billing/sa/worker", "spiffe://a-b_c.1/A.b-c_D/..."] {
            assert_eq!(spiffe_id(good), Ok(good.to_owned()));
        }
        let long = format!("spiffe://a/{}", "b".repeat(2048));
        let bad = [
            "",
            "a/b",
            "SPIFFE://a/b",
            "spiffe:/a/b",
            "spiffe://",
            "spiffe:///b",
            "spiffe://a",
            "spiffe://a/",
            "spiffe://a/b/",
            "spiffe://a//b",
            "spiffe://a/./b",
            "spiffe://a/../b",
            "spiffe://A/b",
            "spiffe://u@a/b",
            "spiffe://a:1/b",
            "spiffe://a/b?c",
            "spiffe://a/b#c",
            "spiffe://a/%62",
            "spiffe://a/é",
            "spiffe://a/*",
            &long,
        ];
        for bad in bad {
            assert!(spiffe_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_dns_name_is_one_name() {
        assert_eq!(dns_name("Worker-1._b.Example.COM"), Ok("worker-1._b.example.com".to_owned()));
        for bad in ["", ".", "a.", ".a", "a..b", "*.a", "a b", "a:1", "é", &"a".repeat(64), &"a.".repeat(127)] {
            assert!(dns_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_a_unit() {
        assert_eq!((size("16KiB"), size("1MiB")), (Ok(16 * 1024), Ok(1024 * 1024)));
        for bad in ["", "16", "16KB", "16k", "KiB", "1.5MiB", "-1KiB", "99999999999999999999KiB", "99999999999999999MiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_have_a_number_and_a_unit() {
        for (text, count, per) in [
            ("100/s", 100, RateUnit::Second),
            ("1/m", 1, RateUnit::Minute),
            ("1000000/h", 1_000_000, RateUnit::Hour),
            ("007/s", 7, RateUnit::Second),
        ] {
            assert_eq!(rate(text), Ok(Some(Rate { count, per })), "{text}");
        }
        assert_eq!(Rate { count: 10, per: RateUnit::Minute }.to_string(), "10/m");
        assert_eq!(rate("none"), Ok(None));
        let bad = ["", "/", "/s", "100", "100/", "0/s", "-1/s", "+1/s", "1.5/s", "1 /s", "1/ s", "1/S", "1/d", "1/1s", "off"];
        for bad in bad.into_iter().chain(["1000001/s", "99999999999/s"]) {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn upstreams_are_tcp_or_unix() {
        let tcp = |host: &str, port, https| Ok(UpstreamUrl { address: UpstreamAddress::Tcp { host: host.into(), port }, https });
        let unix = |path: &str| Ok(UpstreamUrl { address: UpstreamAddress::Unix(path.into()), https: false });
        assert_eq!(upstream("http://127.0.0.1:50051"), tcp("127.0.0.1", 50051, false));
        assert_eq!(upstream("https://users.svc"), tcp("users.svc", 443, true));
        assert_eq!(upstream("http://my_app/"), tcp("my_app", 80, false));
        assert_eq!(upstream("http://[::1]:50051"), tcp("::1", 50051, false));
        assert_eq!(upstream("unix:/run/app.sock"), unix("/run/app.sock"));
        assert_eq!(upstream("unix:///run/app.sock"), unix("/run/app.sock"));
        assert_eq!(upstream("unix:app.sock"), unix("app.sock"));
        for bad in [
            "",
            "unix:",
            "unix:a\0b",
            "127.0.0.1:50051",
            "ftp://a",
            "http://",
            "http://:80",
            "http://a:0",
            "http://a:65536",
            "http://a:x",
            "http://a:",
            "http://u:p@a:1",
            "http://a/b",
            "http://a?b",
            "http://a:1/?",
            "http://a#b",
            "http://[::1",
            "http://[zz]:1",
            "http://a b",
            "http://ä:1",
            "http://a:1:2",
            "HTTP://a",
            "http://[::1]x:1",
            "http://a,b:1",
        ] {
            assert!(upstream(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn key_urls_are_https_or_loopback() {
        for good in
            ["https://a.b/c?d=e", "https://a:8443/", "http://localhost:1/x", "http://127.0.0.9/x", "http://[::1]:1/x", "https://a/b@c"]
        {
            assert_eq!(https_url(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "a.b",
            "http://a.b/c",
            "https://u:p@a/b",
            "https://a/b#c",
            "https://",
            "http://127.0.0.1.evil.com/",
            "http://localhost.evil/",
            "file:///x",
        ] {
            assert!(https_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn header_names_are_free_lower_case_ones() {
        for good in ["user_id", "x-user", "tenant.id", "bin"] {
            assert_eq!(header_name(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "User",
            "a b",
            ":path",
            "ä",
            "te",
            "authorization",
            "content_type",
            "content.type",
            "grpc-status",
            "grpc_status",
            "connection",
            "host",
            "x-bin",
            "x_bin",
            "a,b",
        ] {
            assert!(header_name(bad).is_err(), "{bad}");
        }
        assert_eq!(fold_header("User.Id_BIN"), "user-id");
        assert_eq!(fold_header("a-bin-bin"), "a-bin");
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(shown("http://u:hunter2@a"), "\"http://…@a\"");
        assert_eq!(shown("http://u:hunt@er2@a"), "\"http://…@a\"");
        assert_eq!(shown("alice@example.com"), "\"alice@example.com\"");
        assert!(shown(&"é".repeat(1000)).len() < 200);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = (duration(&text), size(&text), rate(&text), socket_address(&text), upstream(&text), https_url(&text), header_name(&text), shown(&text));
        }
    }
}
