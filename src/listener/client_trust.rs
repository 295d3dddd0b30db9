//! Which certificates of clients a door takes, and that this has changed: a connection that came through another door keeps
//! its certificate, which nobody verifies again, so it is sent away.

use crate::config::{ListenTls, Transport};
use crate::secret::Digest;
use std::future::pending;
use tokio::sync::watch;

/// Shared by the doors that take the same certificates.
pub(super) struct ClientTrust {
    terms: Terms,
    /// The terms that have taken the place of these.
    superseded: watch::Sender<Option<Terms>>,
}

/// `listen.tls.client_ca` and `client_certificate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Terms {
    /// Of the file; `None`: no client is asked for a certificate.
    authorities: Option<Digest>,
    /// No connection without one.
    required: bool,
}

impl ClientTrust {
    pub(super) fn new(transport: &Transport) -> ClientTrust {
        let authorities = match transport {
            Transport::Tls(ListenTls { client_ca, .. }) => client_ca.as_ref(),
            Transport::InsecurePlaintext => None,
        };
        let terms = Terms {
            authorities: authorities.map(|ca| Digest::of(ca.file.content.expose())),
            required: authorities.is_some_and(|ca| ca.required),
        };
        ClientTrust { terms, superseded: watch::Sender::new(None) }
    }

    /// Whether the same connections are let in.
    pub(super) fn is_same(&self, other: &ClientTrust) -> bool {
        self.terms == other.terms
    }

    /// Tells the connections that were made under these terms that others count now.
    pub(super) fn supersede(&self, by: &ClientTrust) {
        self.superseded.send_replace(Some(by.terms));
    }

    /// Waits until a connection `with_certificate`, or without, would have to be looked at anew. Terms that were superseded
    /// during its handshake count.
    pub(super) fn lost(&self, with_certificate: bool) -> impl Future<Output = ()> + use<> {
        let mut superseded = self.superseded.subscribe();
        async move {
            let concerns_it = |by: &Option<Terms>| by.is_some_and(|by| with_certificate || by.required);
            if superseded.wait_for(concerns_it).await.is_err() {
                pending().await // nobody is left to change anything
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Waker};

    fn trust(authorities: Option<&str>, required: bool) -> ClientTrust {
        let authorities = authorities.map(|text| Digest::of(text.as_bytes()));
        ClientTrust { terms: Terms { authorities, required }, superseded: watch::Sender::new(None) }
    }

    fn is_lost(trust: &ClientTrust, with_certificate: bool) -> bool {
        pin!(trust.lost(with_certificate)).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn whoever_would_not_be_let_in_as_before_is_concerned() {
        for (now, without_one) in [(trust(Some("b"), false), false), (trust(Some("a"), true), true), (trust(None, false), false)] {
            let before = trust(Some("a"), false);
            assert!(!before.is_same(&now) && before.is_same(&trust(Some("a"), false)));
            assert!(!is_lost(&before, true) && !is_lost(&before, false));
            let waiting = before.lost(true);
            before.supersede(&now);
            waiting.await;
            assert_eq!((is_lost(&before, true), is_lost(&before, false)), (true, without_one));
        }
    }
}
