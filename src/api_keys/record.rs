//! What is known of one API key. The key itself is not.

use crate::identity::Permission;
use std::sync::Arc;
use std::time::SystemTime;

/// One key's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Appears in logs and metrics; unique.
    pub id: Arc<str>,
    /// For people.
    pub name: Option<Arc<str>>,
    /// The client that holds the key.
    pub client_id: Arc<str>,
    /// The user the key acts as.
    pub user_id: Option<Arc<str>>,
    /// What kind of program holds it.
    pub key_type: KeyType,
    /// Roles the key carries.
    pub roles: Vec<Arc<str>>,
    /// Direct permissions.
    pub permissions: Vec<Permission>,
    /// From then on it is refused.
    pub expires_at: Option<SystemTime>,
    /// From then on it is refused; a record is revoked rather than removed, so that the log can say whose key it was.
    pub revoked_at: Option<SystemTime>,
}

/// `type` of a key: for people and metrics, it decides nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum KeyType {
    #[default]
    Service,
    Cli,
    Webhook,
}

impl KeyType {
    /// The word in the file.
    pub fn parse(word: &str) -> Option<KeyType> {
        match word {
            "service" => Some(KeyType::Service),
            "cli" => Some(KeyType::Cli),
            "webhook" => Some(KeyType::Webhook),
            _ => None,
        }
    }

    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyType::Service => "service",
            KeyType::Cli => "cli",
            KeyType::Webhook => "webhook",
        }
    }
}

/// Why a key that is known is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Refused {
    Revoked,
    Expired,
}

impl Record {
    /// Whether the key is valid at `now`; asked at every use, also when the verdict is cached.
    ///
    /// # Errors
    /// Revoked wins over expired: who looks for the reason should find the decision, not the calendar.
    pub fn check(&self, now: SystemTime) -> Result<(), Refused> {
        if self.revoked_at.is_some_and(|revoked| now >= revoked) {
            return Err(Refused::Revoked);
        }
        if self.expires_at.is_some_and(|expires| now >= expires) {
            return Err(Refused::Expired);
        }
        Ok(())
    }
}
