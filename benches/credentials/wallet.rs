//! What the clients present: one credential that is known, many that are not yet, many that are none.

use crate::rig::client::{Credential, bearer, secret};
use crate::signature::Signature;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderName;
use std::fmt::Write as _;
use std::iter;
use std::rc::Rc;

/// The credentials of one kind.
pub struct Wallet {
    pub known: Credential,
    fresh: Rc<[Credential]>,
    forged: Rc<[Credential]>,
}

/// What the calls of a run present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Of a hundred calls so many with a credential that comes for the first time, the others with the known one.
    New(usize),
    /// Each with another one that must be refused.
    Forged,
}

impl Wallet {
    pub fn of_tokens(signature: Signature, count: usize) -> Wallet {
        let tokens = signature.tokens(count + 1);
        // The signature of the next token: of the right form and size, so that it has to be verified.
        let forge = |pair: &[String]| match pair {
            [this, next] => Some(bearer(&format!("{}.{}", this.rsplit_once('.')?.0, next.rsplit_once('.')?.1))),
            _ => None,
        };
        Wallet {
            known: bearer(&signature.issuer()(0)),
            forged: tokens.windows(2).filter_map(forge).collect(),
            fresh: tokens.iter().take(count).map(|token| bearer(token)).collect(),
        }
    }

    /// All keys of a file of `keys` keys, the first of them being the known one. Those of its neighbours are scattered over it.
    pub fn of_api_keys(keys: usize, count: usize) -> Wallet {
        let presented = |number: usize| secret(HeaderName::from_static("x-api-key"), &api_key(number));
        // A prime: every key once before any comes again.
        let fresh = (0..count).map(|turn| presented(1 + turn * 7919 % (keys - 1).max(1)));
        Wallet { known: presented(0), fresh: fresh.collect(), forged: (0..count).map(|turn| presented(keys + turn)).collect() }
    }

    /// What `calls` calls present, one after the other.
    pub fn calls(&self, traffic: Traffic, calls: usize) -> Box<dyn Iterator<Item = Credential>> {
        let turns = |list: Rc<[Credential]>| {
            let mut next = 0..;
            iter::from_fn(move || list.get(next.next()? % list.len()).cloned())
        };
        match traffic {
            Traffic::Forged => Box::new(turns(self.forged.clone()).take(calls)),
            Traffic::New(share) => {
                let (known, mut fresh) = (self.known.clone(), turns(self.fresh.clone()));
                let is_new = move |call: usize| (call + 1) * share / 100 > call * share / 100;
                Box::new((0..calls).filter_map(move |call| if is_new(call) { fresh.next() } else { Some(known.clone()) }))
            }
        }
    }
}

/// Looks random, and is the same in every run.
fn api_key(number: usize) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, format!("API key {number}").as_bytes()))
}

/// The keys 0 to `keys - 1` as Doorward's file has them, and as a map of HAProxy.
pub fn api_key_files(keys: usize) -> (String, String) {
    let (mut yaml, mut map) = ("keys:\n".to_owned(), String::new());
    for number in 0..keys {
        let sha256: String = digest(&SHA256, api_key(number).as_bytes()).as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        let _ = writeln!(
            yaml,
            "  - id: key-{number}\n    client_id: client-{number}\n    sha256: {}\n    roles: [viewer]\n    expires_at: 2100-01-01T00:00:00Z",
            sha256.to_lowercase()
        );
        let _ = writeln!(map, "{sha256} client-{number}");
    }
    (yaml, map)
}
