//! What is compared: which proxy, with which credentials, under which traffic; and one run of it.

use crate::load;
use crate::rig::client::{Credential, call, connect, tls, uri};
use crate::rig::folder::Folder;
use crate::rig::process::Proxy;
use crate::rig::upstream::Service;
use crate::rig::{BODY, METHOD};
use crate::signature::Signature;
use crate::wallet::{Traffic, Wallet, api_key_files};

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Doorward,
    HaProxy,
}

impl Peer {
    pub const ALL: [Peer; 2] = [Peer::Doorward, Peer::HaProxy];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Doorward => "Doorward",
            Peer::HaProxy => "HAProxy",
        }
    }

    /// HAProxy 2.6 has no EdDSA.
    pub fn can(self, kind: Kind) -> bool {
        self == Peer::Doorward || kind != Kind::Token(Signature::EdDSA)
    }
}

/// What it has to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Token(Signature),
    /// Among so many.
    ApiKey(usize),
}

/// One cell of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    pub peer: Peer,
    pub kind: Kind,
    pub traffic: Traffic,
}

/// One run of it.
pub struct Sample {
    pub case: Case,
    /// User and system time a call.
    pub cpu_micros: f64,
    /// Connections that the peer ended meanwhile.
    pub ended_connections: usize,
    /// From the start of the process until it listened, and its CPU time then, in seconds.
    pub start: f64,
    pub start_cpu: f64,
    /// Before the first call, in MiB.
    pub resident: f64,
}

/// Where all of them take place.
pub struct Site {
    pub folder: Folder,
    pub service: Service,
}

/// Calls with the known credential before those that count.
const WARM_UP: usize = 2_000;

impl Site {
    /// A proxy of its own, so that nothing is known but `wallet.known`; then `calls` calls.
    pub fn measure(&self, case: Case, wallet: &Wallet, calls: usize) -> Sample {
        let proxy = self.start(case.peer, case.kind);
        let (start, start_cpu) = (proxy.start.as_secs_f64(), proxy.cpu_seconds());
        if matches!((case.peer, case.kind), (Peer::Doorward, Kind::ApiKey(_))) {
            proxy.settle();
        }
        let resident = proxy.resident_mib();
        let tls = tls(&self.folder);
        load::run(proxy.port, &tls, wallet.calls(Traffic::New(0), WARM_UP), load::ANSWERED);
        let before = proxy.cpu_seconds();
        let expected = if case.traffic == Traffic::Forged { load::REFUSED } else { load::ANSWERED };
        let ended_connections = load::run(proxy.port, &tls, wallet.calls(case.traffic, calls), expected);
        assert!(ended_connections == 0 || case.traffic == Traffic::Forged, "{case:?}: connections were ended");
        let cpu_micros = (proxy.cpu_seconds() - before) * 1e6 / calls as f64;
        Sample { case, cpu_micros, ended_connections, start, start_cpu, resident }
    }

    /// Ends the program when the peer does not check what it should.
    pub fn validate(&self, peer: Peer, kind: Kind, wallet: &Wallet) {
        let (proxy, tls) = (self.start(peer, kind), tls(&self.folder));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            // One connection a call: some peers close theirs after a refusal.
            let ask = async |method, credential: Option<&Credential>| {
                call(&connect(proxy.port, &tls).await, &uri(method), credential, BODY).await.expect("an answer")
            };
            assert_eq!(ask(METHOD, Some(&wallet.known)).await, ("0".to_owned(), BODY.to_vec()), "{peer:?} {kind:?}: a good call");
            for (credential, what) in wallet.calls(Traffic::New(100), 2).zip(["one", "another"]) {
                assert_eq!(ask(METHOD, Some(&credential)).await.0, "0", "{peer:?} {kind:?}: {what} good call");
            }
            for credential in wallet.calls(Traffic::Forged, 2) {
                assert_eq!(ask(METHOD, Some(&credential)).await.0, "16", "{peer:?} {kind:?}: a forged credential");
            }
            assert_eq!(ask(METHOD, None).await.0, "16", "{peer:?} {kind:?}: no credential");
            assert_eq!(ask("/demo.v1.Echo/Other", Some(&wallet.known)).await.0, "7", "{peer:?} {kind:?}: another method");
        });
    }

    pub fn start(&self, peer: Peer, kind: Kind) -> Proxy {
        let upstream = self.service.port.to_string();
        let (templates, mut values) = match kind {
            Kind::Token(signature) => {
                let (doorward_key, haproxy_key) = signature.configured(&self.folder);
                let values = [("algorithm", signature.name().to_owned()), ("doorward_key", doorward_key), ("haproxy_key", haproxy_key)];
                (["credentials/doorward_token.yaml", "credentials/haproxy_token.cfg"], values.to_vec())
            }
            Kind::ApiKey(keys) => {
                let name = format!("api-keys-{keys}");
                if !self.folder.path(&format!("{name}.map")).exists() {
                    let (yaml, map) = api_key_files(keys);
                    self.folder.write(&format!("{name}.yaml"), yaml);
                    self.folder.write(&format!("{name}.map"), map);
                }
                (["credentials/doorward_api_key.yaml", "credentials/haproxy_api_key.cfg"], vec![("keys", name)])
            }
        };
        let [of_doorward, of_haproxy] = templates;
        let mut fill = |template: &str, port: u16| {
            values.extend([("upstream", upstream.clone()), ("port", port.to_string())]);
            let values: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
            self.folder.fill(template, &values)
        };
        match peer {
            Peer::Doorward => Proxy::doorward(&fill(of_doorward, 0)),
            Peer::HaProxy => Proxy::haproxy(|port| fill(of_haproxy, port)),
        }
    }
}
