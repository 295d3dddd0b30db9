//! The two ends of a decision: the proof that a call may be forwarded, and the reasons why not.

use super::policy::Grants;
use crate::identity::Permission;
use crate::quote;
use std::fmt;
use std::sync::Arc;

/// The proof that a call was looked at and may be forwarded. It can be had only from this room and is spent by
/// forwarding: forgetting the check does not compile.
#[must_use = "a permit is what forwarding asks for"]
#[derive(Debug)]
pub struct Permit {
    audited: Option<Denied>,
}

impl Permit {
    /// The refusal that `authorization.audit` turned into this permit, for the record of the call.
    pub fn audited(&self) -> Option<&Denied> {
        self.audited.as_ref()
    }

    /// For `authentication.insecure_audit` alone: lets a call through that authentication refused. Its rule was not
    /// looked at and it has no identity.
    pub fn insecure_authentication_audit() -> Permit {
        Permit::granted()
    }

    pub(super) fn granted() -> Permit {
        Permit { audited: None }
    }

    pub(super) fn despite(denied: Denied) -> Permit {
        Permit { audited: Some(denied) }
    }
}

/// Why a call may not be made. The `Display` is for operators: what was found, and what is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// An anonymous caller, and the rule is not `anyone`.
    CredentialsMissing,
    /// A caller without a permission that the rule asks for.
    PermissionMissing {
        /// The first that is missing.
        permission: Permission,
        /// What the caller holds instead.
        grants: Grants,
    },
    /// No rule speaks of the method, and the default is `deny`.
    MethodNotAllowed,
    /// None of the presented credentials is one of the rule's `from`.
    CredentialsNotAccepted {
        /// What was presented.
        presented: Vec<Arc<str>>,
        /// What the rule accepts.
        from: Arc<[Box<str>]>,
    },
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denied::CredentialsMissing => f.write_str("the caller is anonymous and the rule is not `anyone`"),
            Denied::PermissionMissing { permission, grants } => {
                let (held, roles) = (quote::list(grants.permissions()), quote::list(grants.roles()));
                write!(f, "the permission {permission} is missing; held: {held}; of the roles: {roles}")
            }
            Denied::MethodNotAllowed => f.write_str("no rule speaks of the method and authorization.default is deny"),
            Denied::CredentialsNotAccepted { presented, from } => {
                write!(f, "presented: {}, expected one of the rule's `from`: {}", quote::list(presented), quote::list(&**from))
            }
        }
    }
}
