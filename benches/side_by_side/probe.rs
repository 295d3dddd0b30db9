//! Before anything is measured: does the peer refuse what it should, and does a good call really come back with its
//! message and `grpc-status: 0`? The token is then sent in each of its forms, and each must be understood.

use crate::material::Material;
use crate::peer::{Kind, Peer};
use crate::rig::client::{bearer, call, connect, connect_plain, tls, uri};
use crate::rig::head::Form;
use crate::rig::{BODY, METHOD};
use std::time::Duration;

/// Ends the program when the peer does not do what its name says.
pub fn validate(peer: &Peer, material: &Material) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        // One connection a call: some peers close theirs after a refusal.
        let ask = async |method, token: Option<&str>| {
            let client = match peer.kind {
                Kind::Direct => connect_plain(peer.port).await,
                _ => connect(peer.port, &tls(&material.folder)).await,
            };
            call(&client, &uri(method), token.map(bearer).as_ref(), BODY).await.expect("an answer")
        };
        assert_eq!(ask(METHOD, Some(&material.token)).await, ("0".to_owned(), BODY.to_vec()), "{:?}: a good call", peer.kind);
        if peer.kind.checks() {
            for (why, token) in &material.bad_tokens {
                // Envoy says PERMISSION_DENIED to a token for another audience.
                let expected = if peer.kind == Kind::Envoy && why.ends_with("audience") { "7" } else { "16" };
                assert_eq!(ask(METHOD, Some(token)).await.0, expected, "{:?}: a token {why}", peer.kind);
            }
            assert_eq!(ask(METHOD, None).await.0, "16", "{:?}: no token", peer.kind);
            assert_eq!(ask("/demo.v1.Echo/Other", Some(&material.token)).await.0, "7", "{:?}: another method", peer.kind);
        }
    });
    for form in Form::ALL {
        let calls = peer.load(1, form, material).closed(1, Duration::from_millis(10));
        assert!(!calls.is_empty(), "{:?}: a token sent {form}", peer.kind);
    }
    eprintln!("{}: refuses and lets through what it should", peer.kind.name());
}
