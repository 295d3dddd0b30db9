//! A stand-in with the signatures that authentication needs.

use crate::authorization::Grants;
use crate::identity::Identity;

/// The headers we own.
#[derive(Debug, Default)]
pub struct IdentityHeaders;

/// One caller's headers.
#[derive(Debug, Clone)]
pub struct RenderedHeaders;

/// The identity needs more than 4 KiB.
#[derive(Debug)]
pub struct TooLarge;

impl IdentityHeaders {
    /// The headers of `identity`.
    ///
    /// # Errors
    /// When they need more than 4 KiB.
    pub fn render(&self, identity: &Identity, grants: &Grants) -> Result<RenderedHeaders, TooLarge> {
        let size: usize = identity.user_id.iter().chain(grants.roles()).map(|text| text.len()).sum();
        if size > 4096 { Err(TooLarge) } else { Ok(RenderedHeaders) }
    }
}
