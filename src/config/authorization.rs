//! What the section `authorization` says: roles, who has them, and the rule of each method.

use super::Position;
use crate::grpc::MethodPattern;
use crate::identity::Permission;

/// May they.
#[derive(Debug)]
pub struct Authorization {
    /// For a method without a rule.
    pub default: DefaultRule,
    /// Role names and what they grant.
    pub roles: Vec<Role>,
    /// `user_id` or verified e-mail, and roles.
    pub users: Vec<Assignment>,
    /// `client_id`, and roles.
    pub clients: Vec<Assignment>,
    /// Rules by method.
    pub methods: Vec<MethodRule>,
    /// PERMISSION_DENIED is recorded and let through.
    pub audit: bool,
}

/// `authorization.default`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum DefaultRule {
    Deny,
    Authenticated,
}

/// A role and what it grants.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Role {
    pub name: String,
    pub permissions: Vec<Permission>,
    pub at: Position,
}

/// A user or client and its roles.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Assignment {
    pub subject: String,
    pub roles: Vec<String>,
    pub at: Position,
}

/// A pattern and what it asks for.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct MethodRule {
    pub pattern: MethodPattern,
    pub rule: Rule,
    pub at: Position,
}

/// What a method asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// `anyone`: anonymous too; only with mode optional.
    Anyone,
    /// A verified caller, with these permissions, by one of these credentials.
    Caller {
        /// Any one of these; empty: not asked. `users:read` and `[a, b]` are this.
        any_of: Vec<Permission>,
        /// Every one of these; empty: not asked. With both lists empty: `authenticated`.
        all_of: Vec<Permission>,
        /// One presented credential must be of these; empty: not asked.
        from: Vec<String>,
    },
}
