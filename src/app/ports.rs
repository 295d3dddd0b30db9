//! The ports of a process: bound before anything is served, so that a start that cannot have them fails whole. Until they are
//! served, whoever connects waits.

use crate::config::Config;
use crate::listener;
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Sockets that listen, and do not block.
pub struct Ports {
    /// Where clients come to.
    pub traffic: TcpListener,
    /// For probes, metrics and the commands of this machine.
    pub operations: TcpListener,
}

impl Ports {
    /// Binds those that a configuration names.
    ///
    /// # Errors
    /// Which cannot be had, and why.
    pub fn bind(config: &Config) -> io::Result<Ports> {
        let traffic = bind("listen.address", config.listen.address)?;
        let operations = bind("operations.address", config.operations)?;
        Ok(Ports { traffic, operations })
    }

    /// What a start says on stderr, so that an operator (or a test with port 0) knows where to knock.
    pub(super) fn announce(&self) -> io::Result<()> {
        for (listener, what) in [(&self.traffic, "traffic"), (&self.operations, "operations")] {
            let address = listener.local_addr()?;
            tracing::info!("listening on {address} ({what})");
        }
        Ok(())
    }
}

fn bind(key: &str, address: SocketAddr) -> io::Result<TcpListener> {
    listener::bind(address).map_err(|error| io::Error::new(error.kind(), format!("{key} {address} cannot be listened on: {error}")))
}
