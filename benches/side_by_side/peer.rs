//! The peers: what they are called, and how each is started.

use crate::material::Material;
use crate::rig::process::Proxy;
use crate::rig::upstream::Service;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Direct,
    Doorward,
    DoorwardPublic,
    HaProxy,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Direct, Kind::Doorward, Kind::DoorwardPublic, Kind::HaProxy];

    /// For `BENCH_PEERS`.
    pub fn key(self) -> &'static str {
        match self {
            Kind::Direct => "direct",
            Kind::Doorward => "doorward",
            Kind::DoorwardPublic => "public",
            Kind::HaProxy => "haproxy",
        }
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Direct => "direct, h2c, no proxy",
            Kind::Doorward => "Doorward, RS256 token",
            Kind::DoorwardPublic => "Doorward, everything public",
            Kind::HaProxy => "HAProxy, RS256 jwt_verify",
        }
    }

    /// Whether it looks at the token and the path.
    pub fn checks(self) -> bool {
        matches!(self, Kind::Doorward | Kind::HaProxy)
    }
}

/// A running peer.
pub struct Peer {
    pub kind: Kind,
    pub port: u16,
    proxy: Option<Proxy>,
}

impl Peer {
    pub fn start(kind: Kind, material: &Material, service: &Service) -> Peer {
        let upstream = service.port.to_string();
        let fill = |template: &str, port: u16| {
            material.folder.fill(&format!("side_by_side/{template}"), &[("upstream", &upstream), ("port", &port.to_string())])
        };
        let proxy = match kind {
            Kind::Direct => None,
            Kind::Doorward => Some(Proxy::doorward(&fill("doorward.yaml", 0))),
            Kind::DoorwardPublic => Some(Proxy::doorward(&fill("doorward_public.yaml", 0))),
            Kind::HaProxy => Some(Proxy::haproxy(|port| fill("haproxy.cfg", port))),
        };
        Peer { kind, port: proxy.as_ref().map_or(service.port, |proxy| proxy.port), proxy }
    }

    /// User and system time of the proxy so far.
    pub fn cpu_seconds(&self) -> f64 {
        self.proxy.as_ref().map_or(0.0, Proxy::cpu_seconds)
    }
}
