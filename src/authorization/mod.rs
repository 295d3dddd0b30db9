//! MAY THEY: a stand-in with the signatures that authentication needs.

use crate::identity::{Identity, Permission};
use std::sync::Arc;

/// The rules.
#[derive(Debug, Default)]
pub struct Policy;

/// What a caller holds.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    roles: Arc<[Arc<str>]>,
    permissions: Arc<[Permission]>,
}

impl Policy {
    /// What `identity` holds.
    pub fn grants(&self, identity: &Identity) -> Grants {
        Grants { roles: identity.roles.clone().into(), permissions: identity.permissions.clone().into() }
    }
}

impl Grants {
    /// Effective roles.
    pub fn roles(&self) -> &[Arc<str>] {
        &self.roles
    }

    /// Effective permissions.
    pub fn permissions(&self) -> &[Permission] {
        &self.permissions
    }
}
