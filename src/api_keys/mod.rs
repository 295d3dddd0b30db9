//! OUR KEYS: API keys that Doorward makes, their records and where these are kept.

pub mod key;
