//! OUR KEYS: the API keys that Doorward itself knows, found by the SHA-256 of what a caller presents.
//!
//! `key` is the text form of those we make, `record` is what is known of one key, `file` reads records from YAML, `place` finds them in its text. Nothing here holds a key in the clear, but for
//! the development key while the configuration is loaded.

mod file;
pub mod key;
mod place;
mod record;
mod yaml;

pub use place::{Place, place};
pub use record::{KeyType, Record, Refused};

use crate::config::{self, Problems};
use crate::identity::Permission;
use crate::secret::Digest;
use std::collections::HashMap;
use std::sync::Arc;

/// `id` and `client_id` of the development key.
pub const DEVELOPMENT: &str = "development";

/// All API keys of one configuration generation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiKeys {
    records: HashMap<Digest, Arc<Record>>,
}

impl ApiKeys {
    /// Reads the records of the file and the development key. Everything that is wrong is added to `problems`.
    pub fn load(config: &config::ApiKeys, problems: &mut Problems) -> ApiKeys {
        let development = config.development_key.as_ref().map(|key| (Digest::of(key.expose()), Arc::new(development_record())));
        let records = match &config.file {
            Some(input) => file::read(input, development.is_some().then_some(DEVELOPMENT), problems),
            None => HashMap::new(),
        };
        // A digest that the file lists as well must not lose its record to `*:*`.
        let records = development.into_iter().chain(records).collect();
        ApiKeys { records }
    }

    /// The record of `key`, the whole header value.
    pub fn find(&self, key: &[u8]) -> Option<&Arc<Record>> {
        self.records.get(&Digest::of(key))
    }

    /// The same with `changed` in the place of the record that has its id, and with one more.
    pub fn changed(&self, changed: Option<Record>, new: Option<(Digest, Record)>) -> ApiKeys {
        let mut records = self.records.clone();
        if let Some(changed) = changed
            && let Some(record) = records.values_mut().find(|record| record.id == changed.id)
        {
            *record = Arc::new(changed);
        }
        records.extend(new.map(|(digest, record)| (digest, Arc::new(record))));
        ApiKeys { records }
    }

    /// All records, in no particular order.
    pub fn records(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.records.values()
    }
}

fn development_record() -> Record {
    Record {
        id: DEVELOPMENT.into(),
        name: None,
        client_id: DEVELOPMENT.into(),
        user_id: None,
        key_type: KeyType::Service,
        roles: Vec::new(),
        permissions: Permission::parse("*:*").into_iter().collect(),
        expires_at: None,
        revoked_at: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{InputFile, Position};
    use crate::secret::Secret;
    use std::time::SystemTime;

    fn input(text: &str) -> InputFile {
        InputFile { at: Position::default(), path: "keys.yaml".into(), content: Secret::new(text.as_bytes().to_vec()) }
    }

    #[test]
    fn a_key_is_found_by_its_digest_and_by_nothing_else() {
        let text = format!("keys: [{{id: a, client_id: c, sha256: {}}}]", Digest::of(b"a key").hex());
        let config = config::ApiKeys {
            header: http::HeaderName::from_static("x-api-key"),
            file: Some(input(&text)),
            development_key: Some(Secret::new(b"local-only".to_vec())),
        };
        let mut problems = Problems::default();
        let keys = ApiKeys::load(&config, &mut problems);
        assert!(!problems.has_errors(), "{problems:?}");
        assert_eq!(&*keys.find(b"a key").unwrap().id, "a");
        assert!(keys.find(b"A key").is_none());
        assert!(keys.find(Digest::of(b"a key").hex().as_bytes()).is_none());
        let development = keys.find(b"local-only").unwrap();
        assert_eq!((&*development.id, &*development.client_id), ("development", "development"));
        assert_eq!(development.permissions, [Permission::parse("*:*").unwrap()]);
        assert_eq!(development.check(SystemTime::now()), Ok(()));
        assert_eq!(keys.records().count(), 2);
    }

    #[test]
    fn the_name_of_the_development_key_is_taken_while_it_is_set() {
        let text = format!("keys: [{{id: development, client_id: c, sha256: {}}}]", Digest::of(b"a key").hex());
        let mut config = config::ApiKeys {
            header: http::HeaderName::from_static("x-api-key"),
            file: Some(input(&text)),
            development_key: Some(Secret::new(b"local-only".to_vec())),
        };
        let mut problems = Problems::default();
        ApiKeys::load(&config, &mut problems);
        assert!(problems.has_errors());
        config.development_key = None;
        let mut problems = Problems::default();
        ApiKeys::load(&config, &mut problems);
        assert!(!problems.has_errors());
    }
}
