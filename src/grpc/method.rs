//! Method paths and the patterns that the configuration matches them with.
//!
//! A path is `/` service `/` method; service is identifiers joined by dots; an identifier is `[A-Za-z_][A-Za-z0-9_]*`.
//! Nothing is ever normalised: what is matched is byte for byte what is forwarded, and whatever is outside the grammar
//! (`//`, `%2F`, `?query`, a missing slash) is no method at all.

use http::Uri;
use http::uri::PathAndQuery;
use std::fmt;

/// The path of one call, proven to be within the grammar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodPath {
    path: PathAndQuery,
    /// Byte offset of the slash between service and method.
    slash: usize,
}

impl MethodPath {
    /// Takes the path of a request; `None` when it is not `/service/method`.
    pub fn from_uri(uri: &Uri) -> Option<MethodPath> {
        let path = uri.path_and_query()?;
        let slash = split(path.as_str())?;
        Some(MethodPath { path: path.clone(), slash })
    }

    /// Parses a path given as text, as on a command line.
    pub fn parse(text: &str) -> Option<MethodPath> {
        let slash = split(text)?;
        Some(MethodPath { path: PathAndQuery::try_from(text).ok()?, slash })
    }

    /// The same in a buffer of its own, without what else came with the request.
    pub fn detached(&self) -> MethodPath {
        let copy = PathAndQuery::try_from(self.path.as_str()).unwrap_or_else(|_| PathAndQuery::from_static("/"));
        MethodPath { path: copy, slash: self.slash }
    }

    /// The whole path, `/package.Service/Method`.
    pub fn as_str(&self) -> &str {
        self.path.as_str()
    }

    /// `package.Service`.
    pub fn service(&self) -> &str {
        self.as_str().get(1..self.slash).unwrap_or_default()
    }

    /// `Method`.
    pub fn method(&self) -> &str {
        self.as_str().get(self.slash + 1..).unwrap_or_default()
    }

    /// The same bytes for the request line towards the upstream.
    pub fn path_and_query(&self) -> &PathAndQuery {
        &self.path
    }
}

/// The offset of the slash between service and method, when `path` is within the grammar. One pass: every call has a path.
fn split(path: &str) -> Option<usize> {
    let (mut slash, mut in_identifier) = (None, false);
    for (at, byte) in path.strip_prefix('/')?.bytes().enumerate() {
        in_identifier = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => true,
            b'0'..=b'9' if in_identifier => true,
            b'.' if in_identifier && slash.is_none() => false,
            b'/' if in_identifier && slash.is_none() => {
                slash = Some(at + 1);
                false
            }
            _ => return None,
        };
    }
    slash.filter(|_| in_identifier)
}

/// Which methods a line of the configuration speaks of. Exact beats service beats the longest package.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MethodPattern {
    /// `/package.Service/Method`; holds exactly that.
    Exact(String),
    /// `/package.Service/*`; holds `package.Service`.
    Service(String),
    /// `/package.*`, every service in the package and in packages below it; holds `package`.
    Package(String),
}

/// Why a text is no method pattern; its `Display` says what was expected.
#[derive(Debug, PartialEq, Eq)]
pub struct PatternError;

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected /package.Service/Method, /package.Service/* or /package.*")
    }
}

impl MethodPattern {
    /// Parses one of the three forms.
    pub fn parse(text: &str) -> Result<MethodPattern, PatternError> {
        if split(text).is_some() {
            return Ok(MethodPattern::Exact(text.to_owned()));
        }
        let body = text.strip_prefix('/').ok_or(PatternError)?;
        let (names, pattern): (&str, fn(String) -> MethodPattern) = if let Some(service) = body.strip_suffix("/*") {
            (service, MethodPattern::Service)
        } else if let Some(package) = body.strip_suffix(".*") {
            (package, MethodPattern::Package)
        } else {
            return Err(PatternError);
        };
        if split(&format!("/{names}/m")).is_some() { Ok(pattern(names.to_owned())) } else { Err(PatternError) }
    }
}

impl fmt::Display for MethodPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MethodPattern::Exact(path) => f.write_str(path),
            MethodPattern::Service(service) => write!(f, "/{service}/*"),
            MethodPattern::Package(package) => write!(f, "/{package}.*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_method_is_service_slash_method_and_nothing_else() {
        let path = MethodPath::parse("/api.users.v1.User_Service/Get2").unwrap();
        assert_eq!((path.service(), path.method()), ("api.users.v1.User_Service", "Get2"));
        for bad in [
            "", "/", "//", "a/b", "/a", "/a/", "//b", "/a//b", "/a/b/", "/a/b/c", "/a/b?x", "/a/b#x", "/a%2Fb", "/a/%62", "/.a/b", "/a./b",
            "/a..c/b", "/1a/b", "/a/1b", "/a/b c", "/a-b/c", "/a/b.c", "/a/*", "*", "/ä/b", "/a/b\0",
        ] {
            assert_eq!(MethodPath::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn patterns_are_exact_service_or_package() {
        let parse = |text| MethodPattern::parse(text);
        assert_eq!(parse("/a.B/C"), Ok(MethodPattern::Exact("/a.B/C".into())));
        assert_eq!(parse("/a.B/*"), Ok(MethodPattern::Service("a.B".into())));
        assert_eq!(parse("/a.b.*"), Ok(MethodPattern::Package("a.b".into())));
        for bad in ["", "*", "/*", "/.*", "a.B/C", "/a.B/C*", "/a.*/C", "/a.B/*/", "/a*", "/a.B", "/a..b.*", "/a /*"] {
            assert_eq!(parse(bad), Err(PatternError), "{bad:?}");
        }
    }

    /// The grammar of the module, read literally.
    fn is_method(path: &str) -> bool {
        let is_identifier = |text: &str| {
            !text.starts_with(|c: char| c.is_ascii_digit())
                && !text.is_empty()
                && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        let parts = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        parts.is_some_and(|(service, method)| service.split('.').all(is_identifier) && is_identifier(method))
    }

    proptest! {
        #[test]
        fn what_is_taken_is_the_grammar(path in "[/.aZ_0é-]{0,9}") {
            prop_assert_eq!(split(&path), is_method(&path).then(|| path.rfind('/').unwrap()));
        }

        #[test]
        fn an_accepted_path_is_forwarded_byte_for_byte(text in "[ -~]{0,24}") {
            if let Ok(uri) = text.parse::<Uri>()
                && let Some(path) = MethodPath::from_uri(&uri) {
                prop_assert_eq!(format!("/{}/{}", path.service(), path.method()), path.as_str());
                prop_assert!(path.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b"/._".contains(&b)));
            }
        }

        #[test]
        fn a_pattern_prints_as_it_was_written(text in "/[a-z.*/]{0,12}") {
            if let Ok(pattern) = MethodPattern::parse(&text) {
                prop_assert_eq!(pattern.to_string(), text);
            }
        }
    }
}
