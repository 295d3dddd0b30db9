//! Before anything is measured: does the peer refuse what it should, and does a good call really come back with its
//! message and `grpc-status: 0`? h2load itself would count a refusal with HTTP 200 as a success.

use crate::material::Material;
use crate::peer::{Kind, Peer};
use crate::rig::client::{bearer, call, connect, connect_plain, tls, uri};
use crate::rig::{BODY, METHOD};

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
                assert_eq!(ask(METHOD, Some(token)).await.0, "16", "{:?}: a token {why}", peer.kind);
            }
            assert_eq!(ask(METHOD, None).await.0, "16", "{:?}: no token", peer.kind);
            assert_eq!(ask("/demo.v1.Echo/Other", Some(&material.token)).await.0, "7", "{:?}: another method", peer.kind);
        }
    });
}
