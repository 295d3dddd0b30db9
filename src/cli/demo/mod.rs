//! `doorward demo`: a service without authentication, Doorward in front of it exactly as `run` would start it, throw-away
//! credentials, and calls that show what gets through. Needs no file and no network; leaves nothing behind.

mod calls;
mod credentials;
mod folder;
mod sample_service;

use super::{FAILED, Ready, load};
use crate::app::{self, Ports};
use crate::listener;
use crate::telemetry::Diagnostics;
use credentials::Credentials;
use folder::Folder;
use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::net::TcpStream;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const CONFIGURATION: &str = include_str!("doorward.yaml");
const PROTO: &str = include_str!("../../../proto/demo/v1/greeter.proto");

/// The port that people expect; another when it is taken.
const USUAL_PORT: u16 = 8443;
/// For the start and all of the demo's own calls.
const CALLS: Duration = Duration::from_secs(30);

/// Ends when it is interrupted, or with `exit` after its own calls.
pub(super) fn demo(exit: bool) -> ExitCode {
    match show(exit) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("error: not every call was answered as expected");
            ExitCode::from(FAILED)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// Whether every call was answered as expected.
fn show(exit: bool) -> Result<bool> {
    let folder = Folder::create()?;
    let credentials = Credentials::make(&folder)?;
    folder.write("demo.proto", PROTO)?;
    let service = bind(0)?;
    // Held from here on, lest somebody else takes what the configuration names; another demo, say.
    let ports = Ports { traffic: bind(USUAL_PORT).or_else(|_| bind(0))?, operations: bind(0)? };
    let numbers = Numbers::of(&service, &ports)?;
    folder.write("doorward.yaml", &numbers.configuration())?;
    sample_service::start(service)?;
    let proxy = start_doorward(&folder, ports)?;

    print!("{}", introduction(&folder, &numbers));
    if !exit {
        print!("{}", calls_to_paste(&folder, numbers.traffic));
    }
    println!("\nCalls that the demo makes itself:\n");
    let as_expected = make_calls(&folder, numbers.traffic, &credentials)?;
    if exit || !as_expected {
        return Ok(as_expected);
    }
    println!("\nDoorward is up. Ctrl-C ends it and removes the folder.");
    proxy.join().map_err(|_| "the proxy panicked")??;
    Ok(true)
}

/// Of the ports, all on 127.0.0.1.
struct Numbers {
    traffic: u16,
    upstream: u16,
    operations: u16,
}

impl Numbers {
    fn of(service: &TcpListener, ports: &Ports) -> io::Result<Numbers> {
        let number = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
        Ok(Numbers { traffic: number(&ports.traffic)?, upstream: number(service)?, operations: number(&ports.operations)? })
    }

    fn configuration(&self) -> String {
        CONFIGURATION
            .replace("LISTEN_PORT", &self.traffic.to_string())
            .replace("UPSTREAM_PORT", &self.upstream.to_string())
            .replace("OPERATIONS_PORT", &self.operations.to_string())
    }
}

fn bind(port: u16) -> io::Result<TcpListener> {
    listener::bind((Ipv4Addr::LOCALHOST, port).into())
}

/// As `run` does, on a thread that ends with a signal.
fn start_doorward(folder: &Folder, ports: Ports) -> Result<JoinHandle<io::Result<()>>> {
    let loaded = load(&[folder.path().join("doorward.yaml")]);
    let Ready { config, assembly, sources, .. } = loaded.map_err(|_| "the demo's own configuration is refused")?;
    let diagnostics = Diagnostics::install(config.log.level);
    Ok(thread::Builder::new().name("doorward".to_owned()).spawn(move || app::run(ports, config, assembly, sources, diagnostics))?)
}

fn make_calls(folder: &Folder, port: u16, credentials: &Credentials) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // The port is bound already: the connection waits until Doorward serves it.
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        let ca = folder.path().join("ca.crt");
        let calls = calls::make(socket, port, &ca, credentials);
        tokio::time::timeout(CALLS, calls).await.map_err(|_| "the calls were not answered in time")?
    })
}

fn introduction(folder: &Folder, numbers: &Numbers) -> String {
    let Numbers { traffic, upstream, operations } = numbers;
    format!(
        "\
A gRPC service that authenticates nobody (demo.v1.Greeter, see demo.proto) listens on 127.0.0.1:{upstream}.
Doorward stands in front of it on localhost:{traffic}, with TLS; probes and metrics are on http://127.0.0.1:{operations}/metrics.
Its configuration is doorward.yaml in {}, beside a token (Alice's) and an API key.
",
        folder.path().display()
    )
}

fn calls_to_paste(folder: &Folder, port: u16) -> String {
    format!(
        r#"
To paste into a second terminal:

cd {folder}

# allowed, with grpcurl: Alice's token, then the API key with a forged user_id, which the service never sees
grpcurl -cacert ca.crt -proto demo.proto -H "authorization: Bearer $(cat token.txt)" -d '{{"name": "world"}}' localhost:{port} demo.v1.Greeter/SayHello
grpcurl -cacert ca.crt -proto demo.proto -H "x-api-key: $(cat api-key.txt)" -H "user_id: root" -d '{{"name": "world"}}' localhost:{port} demo.v1.Greeter/SayHello
# refused: Alice has no role for it
grpcurl -cacert ca.crt -proto demo.proto -H "authorization: Bearer $(cat token.txt)" -d '{{"name": "world"}}' localhost:{port} demo.v1.Greeter/DeleteGreeting

# allowed, with Python (pip install grpcio)
python3 -c 'import grpc; channel = grpc.secure_channel("localhost:{port}", grpc.ssl_channel_credentials(open("ca.crt", "rb").read())); reply = channel.unary_unary("/demo.v1.Greeter/SayHello")(b"\x0a\x05world", metadata=[("authorization", "Bearer " + open("token.txt").read())]); print(reply[reply.index(b"Hello"):].decode())'
"#,
        folder = folder.path().display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_accepted_without_a_warning() {
        let folder = Folder::create().unwrap();
        Credentials::make(&folder).unwrap();
        let numbers = Numbers { traffic: 18443, upstream: 15051, operations: 19902 };
        folder.write("doorward.yaml", &numbers.configuration()).unwrap();
        let ready = load(&[folder.path().join("doorward.yaml")]).ok().unwrap();
        assert_eq!(ready.problems.iter().map(ToString::to_string).collect::<Vec<_>>(), [] as [String; 0]);
        assert_eq!(ready.config.listen.address, (Ipv4Addr::LOCALHOST, numbers.traffic).into());
        assert!(ready.config.operations.ip().is_loopback(), "the demo is for this machine only");
    }

    #[test]
    fn nothing_that_is_pasted_holds_a_secret() {
        let folder = Folder::create().unwrap();
        let credentials = Credentials::make(&folder).unwrap();
        let text = calls_to_paste(&folder, 8443);
        for secret in [&credentials.token, &credentials.expired_token, &credentials.api_key] {
            assert!(!text.contains(secret.as_str()));
        }
    }
}
