//! Which certificates of clients a door takes, and that this has changed: a connection that came through another door keeps
//! its certificate, which nobody verifies again, so it is sent away.

use crate::config::{ListenTls, Transport};
use crate::secret::Digest;
use std::future::pending;
use std::sync::Arc;
use tokio::sync::watch;

/// What a door asks of its clients, and what is asked now.
pub(super) struct ClientTrust {
    terms: Terms,
    /// The terms in force. Handed from door to door, so that it reaches connections of every door there has been.
    in_force: Arc<watch::Sender<Terms>>,
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
        ClientTrust::of(Terms {
            authorities: authorities.map(|ca| Digest::of(ca.file.content.expose())),
            required: authorities.is_some_and(|ca| ca.required),
        })
    }

    fn of(terms: Terms) -> ClientTrust {
        ClientTrust { terms, in_force: Arc::new(watch::Sender::new(terms)) }
    }

    /// Takes the place of `previous`, whose terms stay in force until these are [enforced](Self::enforce).
    pub(super) fn succeed(&mut self, previous: &ClientTrust) {
        self.in_force = previous.in_force.clone();
    }

    /// From now on these terms count, also for connections that were made under others.
    pub(super) fn enforce(&self) {
        self.in_force.send_if_modified(|now| std::mem::replace(now, self.terms) != self.terms);
    }

    /// Waits until a connection `with_certificate`, or without, that came through this door would have to be looked at anew.
    /// Terms that changed during its handshake count.
    pub(super) fn lost(&self, with_certificate: bool) -> impl Future<Output = ()> + use<> {
        let (terms, mut in_force) = (self.terms, self.in_force.subscribe());
        async move {
            let concerns_it = |now: &Terms| *now != terms && (with_certificate || now.required);
            if in_force.wait_for(concerns_it).await.is_err() {
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
        ClientTrust::of(Terms { authorities: authorities.map(|text| Digest::of(text.as_bytes())), required })
    }

    fn is_lost(trust: &ClientTrust, with_certificate: bool) -> bool {
        pin!(trust.lost(with_certificate)).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn whoever_would_not_be_let_in_as_before_is_concerned() {
        for (mut now, without_one) in [(trust(Some("b"), false), false), (trust(Some("a"), true), true), (trust(None, false), false)] {
            let before = trust(Some("a"), false);
            let mut same = trust(Some("a"), false);
            same.succeed(&before);
            same.enforce();
            now.succeed(&same);
            assert!(!is_lost(&before, true) && !is_lost(&before, false));
            let waiting = before.lost(true);
            now.enforce();
            waiting.await;
            for earlier in [before, same] {
                assert_eq!((is_lost(&earlier, true), is_lost(&earlier, false)), (true, without_one));
            }
            assert!(!is_lost(&now, true) && !is_lost(&now, false));
        }
    }

    #[test]
    fn whoever_was_of_no_concern_at_first_may_be_later() {
        let first = trust(None, false);
        let (mut second, mut third) = (trust(Some("a"), false), trust(Some("a"), true));
        second.succeed(&first);
        second.enforce();
        assert!(!is_lost(&first, false), "no certificate is needed");
        third.succeed(&second);
        third.enforce();
        assert!(is_lost(&first, false) && is_lost(&second, false) && !is_lost(&third, true));
    }
}
