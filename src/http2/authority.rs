//! Which authority a request names (RFC 9113 §8.3.1): what h2 lets through and we do not.

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, Uri};

/// The request is malformed: userinfo in its authority, a `host` that is none, or two of them.
#[derive(Debug, PartialEq, Eq)]
pub struct MalformedAuthority;

/// The request's `:authority`, else its single `host`; `None` when it names neither.
pub fn authority(uri: &Uri, headers: &HeaderMap) -> Result<Option<Authority>, MalformedAuthority> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(MalformedAuthority);
    }
    let authority = match (uri.authority(), host) {
        (Some(authority), _) => authority.clone(),
        (None, Some(host)) => Authority::try_from(host.as_bytes()).map_err(|_| MalformedAuthority)?,
        (None, None) => return Ok(None),
    };
    if authority.as_str().contains('@') { Err(MalformedAuthority) } else { Ok(Some(authority)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(uri: &str, hosts: &[&str]) -> Result<Option<String>, MalformedAuthority> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, host.parse().unwrap());
        }
        authority(&uri.parse().unwrap(), &headers).map(|authority| authority.map(|authority| authority.to_string()))
    }

    #[test]
    fn the_authority_goes_before_the_host() {
        assert_eq!(named("https://a:1/x", &["b"]), Ok(Some("a:1".to_owned())));
        assert_eq!(named("/x", &["b:2"]), Ok(Some("b:2".to_owned())));
        assert_eq!(named("/x", &[]), Ok(None));
    }

    #[test]
    fn userinfo_and_contradictions_are_malformed() {
        for (uri, hosts) in
            [("https://u@a/x", &[][..]), ("/x", &["u@b"]), ("/x", &["a", "a"]), ("https://a/x", &["a", "b"]), ("/x", &["a b"])]
        {
            assert_eq!(named(uri, hosts), Err(MalformedAuthority), "{uri} {hosts:?}");
        }
    }
}
