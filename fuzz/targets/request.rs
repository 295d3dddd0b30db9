//! What a client chooses in the head of a request: lines `name:value`, among them `:path` and `:authority`.
//! Whatever is taken must say one thing only, and be what is forwarded.
#![no_main]

use doorward::authentication::fuzzing;
use doorward::config::IdentityHeaders as Names;
use doorward::grpc::{MethodPath, parse_timeout};
use doorward::http2::{HeaderLimits, authority};
use doorward::identity_headers::IdentityHeaders;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let (uri, headers) = head(input);
    fuzzing::credentials(&headers);
    for value in headers.get_all("grpc-timeout") {
        timeout(value.as_bytes());
    }
    identity_headers(headers.clone());
    if let Some(uri) = uri {
        path(&uri);
        host(&uri, &headers);
        limits(uri, headers);
    }
});

fn head(input: &[u8]) -> (Option<Uri>, HeaderMap) {
    let (mut headers, mut path, mut authority) = (HeaderMap::new(), None, None);
    for line in input.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().skip(1).position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..=colon], &line[colon + 2..]);
        match name {
            b":path" => path = Some(value),
            b":authority" => authority = Some(value),
            _ => {
                if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                    headers.append(name, value);
                }
            }
        }
    }
    let mut uri = Uri::builder();
    if let Some(authority) = authority {
        uri = uri.scheme("https").authority(authority);
    }
    (path.and_then(|path| uri.path_and_query(path).build().ok()), headers)
}

/// Two slashes, identifiers, and byte for byte what the URI holds.
fn path(uri: &Uri) {
    let Some(path) = MethodPath::from_uri(uri) else { return };
    let text = uri.path_and_query().expect("it was there to be read").as_str();
    assert_eq!(path.as_str(), text);
    assert_eq!(path.path_and_query().as_str(), text);
    assert_eq!(format!("/{}/{}", path.service(), path.method()), text);
    assert_eq!(text.bytes().filter(|byte| *byte == b'/').count(), 2);
    assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._".contains(&byte)));
    assert!(path.service().split('.').chain([path.method()]).all(|name| name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')));
    assert_eq!(MethodPath::parse(text), Some(path));
}

/// One of those that were named, without userinfo.
fn host(uri: &Uri, headers: &HeaderMap) {
    let hosts: Vec<_> = headers.get_all("host").iter().map(HeaderValue::as_bytes).collect();
    match authority(uri, headers) {
        Err(_) => assert!(uri.authority().is_some() || !hosts.is_empty()),
        Ok(None) => assert!(uri.authority().is_none() && hosts.is_empty()),
        Ok(Some(found)) => {
            assert!(hosts.len() <= 1 && !found.as_str().contains('@'));
            let named = uri.authority().map_or_else(|| hosts[0], |authority| authority.as_str().as_bytes());
            assert_eq!(found.as_str().as_bytes(), named);
        }
    }
}

/// One to eight digits and a unit, whose product it is.
fn timeout(value: &[u8]) {
    let Ok(timeout) = parse_timeout(value) else { return };
    let text = std::str::from_utf8(value).expect("digits and a letter");
    let (digits, unit) = text.split_at(text.len() - 1);
    assert!((1..=8).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit()));
    let nanoseconds = match unit {
        "H" => 3_600_000_000_000,
        "M" => 60_000_000_000,
        "S" => 1_000_000_000,
        "m" => 1_000_000,
        "u" => 1000,
        "n" => 1,
        other => panic!("no unit: {other:?}"),
    };
    assert_eq!(timeout.as_nanos(), digits.parse::<u128>().expect("digits") * nanoseconds);
}

/// None of ours is left, in any spelling, and all others are.
fn identity_headers(mut headers: HeaderMap) {
    let none = || None;
    let ours = IdentityHeaders::compile(&Names {
        user_id: none(),
        user_email: none(),
        user_name: none(),
        client_id: none(),
        roles: none(),
        permissions: none(),
        api_key_id: none(),
        provider: none(),
        claims: Vec::new(),
    });
    let is_ours = |name: &HeaderName| {
        let name = name.as_str().replace(['_', '.'], "-");
        let name = name.strip_suffix("-bin").unwrap_or(&name);
        Names::DEFAULT_NAMES.iter().any(|ours| ours.replace('_', "-") == name)
    };
    let others = headers.iter().filter(|(name, _)| !is_ours(name)).count();
    ours.remove(&mut headers);
    assert_eq!((headers.keys().any(is_ours), headers.len()), (false, others));
}

/// What is taken is within the limits, counted in another way.
fn limits(uri: Uri, headers: HeaderMap) {
    let limits = HeaderLimits { bytes: 1024, fields: 12 };
    let mut request = Request::post(uri);
    *request.headers_mut().expect("a new request") = headers;
    let request = request.body(()).expect("its parts were parsed");
    if limits.examine_request(&request).is_err() {
        return;
    }
    let fields: Vec<usize> = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).collect();
    // `:method` and `:path` at least.
    assert!(fields.len() + 2 <= limits.fields && fields.iter().sum::<usize>() + 2 * 32 <= limits.bytes);
    assert!(request.headers().values().all(|value| value.as_bytes().trim_ascii().len() == value.len()));
}
