//! What a running process cannot exchange: its threads and its ports. A change of it is told once, and asks for a restart;
//! the rest of the configuration is applied.

use crate::config::{Config, Transport};
use std::net::SocketAddr;

/// As the process started with it.
pub(super) struct Fixed {
    workers: usize,
    listen: SocketAddr,
    tls: bool,
    operations: SocketAddr,
    /// The keys that the operator has been told of.
    told: Vec<&'static str>,
}

impl Fixed {
    pub(super) fn of(config: &Config) -> Fixed {
        let tls = matches!(config.listen.transport, Transport::Tls(_));
        Fixed { workers: config.workers, listen: config.listen.address, tls, operations: config.operations, told: Vec::new() }
    }

    /// What is safe only together with a change that cannot be made.
    pub(super) fn forbids(&self, config: &Config) -> Result<(), String> {
        let development_key = config.authentication.api_keys.as_ref().is_some_and(|keys| keys.development_key.is_some());
        // Whether it may be used was decided by the address in the file, which is not the one that is listened on.
        if development_key && config.listen.address != self.listen && !self.listen.ip().is_loopback() {
            let at = self.listen;
            return Err(format!("a development_key and another listen.address at once need a restart: until then {at} is listened on"));
        }
        Ok(())
    }

    /// Whether new connections can meet the door of `config`: one with TLS cannot take the place of one without.
    pub(super) fn allows_the_door_of(&self, config: &Config) -> bool {
        self.tls == Fixed::of(config).tls
    }

    /// Says once what stays as it was.
    pub(super) fn tell_what_needs_a_restart(&mut self, config: &Config) {
        let new = Fixed::of(config);
        let changes = [
            ("workers", self.workers != new.workers),
            ("listen.address", self.listen != new.listen),
            ("listen.tls", self.tls != new.tls),
            ("operations.address", self.operations != new.operations),
        ];
        let changed: Vec<_> = changes.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect();
        if !changed.is_empty() && changed != self.told {
            tracing::warn!("restart to apply the change of {}: the rest of the configuration is applied", changed.join(", "));
        }
        self.told = changed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Source, Surroundings, load_from};

    fn config(listen: &str, rest: &str) -> Config {
        let text = format!(
            "listen: {{ {listen}, insecure_plaintext: true }}\nupstream: {{ address: \"http://127.0.0.1:1\" }}\n{rest}\
             authentication: {{ api_keys: {{ header: x-api-key, development_key: local-only }} }}\n"
        );
        let source = Source { name: "doorward.yaml".into(), text, base: ".".into() };
        let loaded = load_from(&[source], Surroundings { env: &|_| None, cpus: 2, memory: None });
        assert!(!loaded.problems.has_errors(), "{:?}", loaded.problems);
        loaded.config.unwrap()
    }

    #[test]
    fn a_development_key_is_never_served_at_an_address_that_did_not_allow_it() {
        let mut everywhere = Fixed::of(&config("address: \"127.0.0.1:1\"", ""));
        everywhere.listen = "0.0.0.0:1".parse().unwrap();
        let local = config("address: \"127.0.0.1:1\"", "");
        assert!(everywhere.forbids(&local).unwrap_err().contains("0.0.0.0:1"));
        let elsewhere = Fixed::of(&config("address: \"127.0.0.1:2\"", ""));
        assert_eq!(elsewhere.forbids(&local), Ok(()), "loopback both");
        everywhere.listen = local.listen.address;
        assert_eq!(everywhere.forbids(&local), Ok(()));
    }

    #[test]
    fn what_needs_a_restart_is_told_once_a_change() {
        let mut fixed = Fixed::of(&config("address: \"127.0.0.1:1\"", ""));
        let other = config("address: \"127.0.0.1:2\"", "workers: 7\n");
        fixed.tell_what_needs_a_restart(&other);
        assert_eq!(fixed.told, ["workers", "listen.address"]);
        fixed.tell_what_needs_a_restart(&config("address: \"127.0.0.1:1\"", ""));
        assert!(fixed.told.is_empty(), "taken back");
    }
}
