//! Callers known by a name in their certificate. TLS has verified the certificate; here is whose it is.

use super::Caller;
use crate::config::{CertificateName, ClientCertificate};
use crate::identity::Identity;
use crate::tls::PeerCertificate;
use std::collections::HashMap;
use std::sync::Arc;

/// What `from` calls a certificate.
pub(super) const CLIENT_CERTIFICATES: &str = "client_certificates";

/// What one entry makes of a certificate.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its place in the file.
    place: usize,
    client_id: Arc<str>,
    roles: Vec<Arc<str>>,
    /// The caller who presents nothing else: the same for every certificate that matches.
    pub(super) alone: Arc<Caller>,
}

impl Entry {
    /// `identity` by this certificate too. Its user stays the user; the client is the certificate's.
    pub(super) fn add_to(&self, identity: &mut Identity) {
        add(identity, &self.client_id, &self.roles);
    }
}

fn add(identity: &mut Identity, client_id: &Arc<str>, roles: &[Arc<str>]) {
    identity.client_id = Some(client_id.clone());
    identity.roles.extend(roles.iter().cloned());
    identity.presented.push(CLIENT_CERTIFICATES.into());
}

/// The entries by the names they ask for.
#[derive(Debug, Default)]
pub(super) struct ClientCertificates {
    spiffe: HashMap<String, Arc<Entry>>,
    dns: HashMap<String, Arc<Entry>>,
    common_name: HashMap<String, Arc<Entry>>,
}

impl ClientCertificates {
    /// `caller` makes a caller of an identity, or reports why there can be none.
    pub(super) fn load(
        entries: &[ClientCertificate],
        mut caller: impl FnMut(&ClientCertificate, Identity) -> Option<Caller>,
    ) -> ClientCertificates {
        let mut loaded = ClientCertificates::default();
        for (place, entry) in entries.iter().enumerate() {
            let client_id: Arc<str> = entry.client_id.as_str().into();
            let roles: Vec<Arc<str>> = entry.roles.iter().map(|role| role.as_str().into()).collect();
            let mut identity = Identity::default();
            add(&mut identity, &client_id, &roles);
            let Some(alone) = caller(entry, identity).map(Arc::new) else { continue };
            let (by_name, name) = match &entry.name {
                CertificateName::Spiffe(name) => (&mut loaded.spiffe, name),
                CertificateName::Dns(name) => (&mut loaded.dns, name),
                CertificateName::CommonName(name) => (&mut loaded.common_name, name),
            };
            by_name.insert(name.clone(), Arc::new(Entry { place, client_id, roles, alone }));
        }
        loaded
    }

    /// The first entry, in the order of the file, that the certificate matches.
    pub(super) fn entry_of(&self, certificate: &PeerCertificate) -> Option<&Entry> {
        let spiffe = certificate.spiffe.as_ref().and_then(|name| self.spiffe.get(name));
        let common_name = certificate.common_name.as_ref().and_then(|name| self.common_name.get(name));
        // A certificate may have very many DNS names; most configurations ask for none.
        let dns = certificate.dns.iter().take_while(|_| !self.dns.is_empty()).filter_map(|name| self.dns.get(name));
        dns.chain(spiffe).chain(common_name).map(|entry| &**entry).min_by_key(|entry| entry.place)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.spiffe.is_empty() && self.dns.is_empty() && self.common_name.is_empty()
    }

    /// The first entry that asks for this name, whatever kind of name it is.
    pub(super) fn entry_named(&self, name: &str) -> Option<&Entry> {
        let found = [self.spiffe.get(name), self.dns.get(&name.to_ascii_lowercase()), self.common_name.get(name)];
        found.into_iter().flatten().map(|entry| &**entry).min_by_key(|entry| entry.place)
    }
}

#[cfg(test)]
mod tests {
    use super::super::caller;
    use super::super::testing::{client_certificate as entry, identity_headers, policy};
    use super::*;
    use crate::config::CertificateName::{CommonName, Dns, Spiffe};

    fn load(names: Vec<CertificateName>) -> ClientCertificates {
        let (policy, headers) = (policy(), identity_headers());
        let entries: Vec<_> = names.into_iter().enumerate().map(|(place, name)| entry(name, &place.to_string(), &[])).collect();
        ClientCertificates::load(&entries, |_, identity| caller(&policy, &headers, identity).ok())
    }

    fn certificate(spiffe: Option<&str>, dns: &[&str], common_name: Option<&str>) -> PeerCertificate {
        PeerCertificate {
            spiffe: spiffe.map(str::to_owned),
            dns: dns.iter().map(|name| (*name).to_owned()).collect(),
            common_name: common_name.map(str::to_owned),
            ..PeerCertificate::read(b"")
        }
    }

    #[test]
    fn a_name_matches_as_what_it_is() {
        let loaded = load(vec![Spiffe("spiffe://a/b".to_owned()), Dns("a.b".to_owned()), CommonName("c".to_owned())]);
        let client =
            |certificate: PeerCertificate| Some(loaded.entry_of(&certificate)?.alone.identity.client_id.clone().unwrap().to_string());
        assert_eq!(client(certificate(Some("spiffe://a/b"), &[], None)).unwrap(), "0");
        assert_eq!(client(certificate(None, &["x", "a.b"], None)).unwrap(), "1");
        assert_eq!(client(certificate(None, &[], Some("c"))).unwrap(), "2");
        for nobody in [
            certificate(None, &[], None),
            certificate(Some("spiffe://a/b/c"), &["b", "*.b", "x.a.b", "c"], Some("a.b")),
            certificate(Some("spiffe://a/B"), &["spiffe://a/b"], Some("C")),
            certificate(Some("a.b"), &["c"], Some("spiffe://a/b")),
        ] {
            assert_eq!(client(nobody.clone()), None, "{nobody:?}");
        }
    }

    #[test]
    fn of_several_entries_the_first_of_the_file_counts() {
        let all = certificate(Some("spiffe://a/b"), &["d", "a.b"], Some("c"));
        let names = [Spiffe("spiffe://a/b".to_owned()), Dns("a.b".to_owned()), CommonName("c".to_owned()), Dns("d".to_owned())];
        for first in 0..names.len() {
            let mut names = names.clone();
            names.rotate_left(first);
            assert_eq!(load(names.into()).entry_of(&all).unwrap().place, 0);
        }
    }
}
