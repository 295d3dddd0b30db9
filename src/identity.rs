//! Who a caller is, once every presented credential has been verified: the result of authentication, the input of
//! authorization, the source of the identity headers.

use std::fmt;
use std::sync::Arc;

/// A permission, `resource:action`; either side may be `*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Permission(Arc<str>);

impl Permission {
    /// Parses `resource:action`: two non-empty sides around exactly one colon, no white space or comma; a `*` stands only for a whole side.
    pub fn parse(text: &str) -> Option<Permission> {
        let (resource, action) = text.split_once(':')?;
        let side = |side: &str| {
            side == "*"
                || !side.is_empty() && !side.contains(|c: char| c == ':' || c == '*' || c == ',' || c.is_whitespace() || c.is_control())
        };
        (side(resource) && side(action)).then(|| Permission(text.into()))
    }

    /// `resource:action`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The two sides.
    pub fn sides(&self) -> (&str, &str) {
        self.0.split_once(':').unwrap_or((&self.0, ""))
    }

    /// Whether either side is `*`.
    pub fn is_wildcard(&self) -> bool {
        let (resource, action) = self.sides();
        resource == "*" || action == "*"
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything the verified credentials of one caller say about it. The default value is the anonymous caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// With its provider's prefix.
    pub user_id: Option<Arc<str>>,
    /// Only when verified (or `trust.unverified_email`) and in a trusted domain.
    pub user_email: Option<Arc<str>>,
    /// A name for people; decides nothing.
    pub user_name: Option<Arc<str>>,
    /// The key's, else the certificate's, else the token's.
    pub client_id: Option<Arc<str>>,
    /// Role names the credentials carry, after `trust.roles`; not yet those that `authorization` adds.
    pub roles: Vec<Arc<str>>,
    /// Direct permissions of the credentials; not those of roles. A token's never hold a `*`.
    pub permissions: Vec<Permission>,
    /// The record of the API key that was presented.
    pub api_key_id: Option<Arc<str>>,
    /// The token's provider: its name, or `google`.
    pub provider: Option<Arc<str>>,
    /// Values of `identity_headers.claims`, by claim path, already in the text form of the header (not yet percent-encoded);
    /// a list keeps its entries apart.
    pub claims: Vec<(Arc<str>, ClaimValue)>,
    /// Names of what was presented, as a rule's `from` knows them: a provider's name, `google`, `api_keys`, `client_certificates`.
    pub presented: Vec<Arc<str>>,
}

/// The value of a claim that is forwarded in a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimValue {
    /// A string, a whole number or a boolean as JSON writes it.
    Text(String),
    /// A list of strings.
    List(Vec<String>),
}

impl Identity {
    /// Whether no credential stands behind this identity.
    pub fn is_anonymous(&self) -> bool {
        self.presented.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_has_two_sides() {
        for good in ["users:read", "*:*", "users:*", "*:read", "a.b/c:d-e"] {
            assert_eq!(Permission::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", ":", "users", "users:", ":read", "a:b:c", "us*:read", "a b:c", "a,b:c", "a:b\n"] {
            assert_eq!(Permission::parse(bad), None, "{bad:?}");
        }
        assert!(Permission::parse("*:read").unwrap().is_wildcard());
        assert!(!Permission::parse("users:read").unwrap().is_wildcard());
    }
}
