//! What every benchmark stands on: the files it gives to the proxies, the proxies and the service as processes on their
//! cores, a client that looks at answers, and the form of the results.

#![allow(dead_code)] // each benchmark uses its part

pub mod client;
pub mod figures;
pub mod folder;
pub mod handshakes;
pub mod head;
pub mod load;
pub mod picture;
pub mod process;
pub mod quota;
pub mod upstream;
pub mod wire;

use std::env;
use std::str::FromStr;

/// The method that is called and allowed.
pub const METHOD: &str = "/demo.v1.Echo/Unary";

/// One gRPC message of 32 bytes.
pub const BODY: &[u8; 37] = b"\0\0\0\0\x20the message is thirty-two bytes.";

/// Of the environment.
pub fn setting<T: FromStr>(name: &str, default: T) -> T {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Whether the comma-joined list in the environment, if there is one, has `word`.
pub fn chosen(name: &str, word: &str) -> bool {
    env::var(name).map_or(true, |list| list.split(',').any(|chosen| chosen == word))
}
