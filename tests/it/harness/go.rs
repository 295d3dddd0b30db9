//! The Go world (`tests/go/`): grpc-go's own interop client and server, unchanged, h2spec, grpcurl, and what renders and checks manifests.

use super::process::{Process, line};
use super::{Doorward, PATIENCE};
use std::path::{Path, PathBuf};
use std::process::Command;

fn program(name: &str) -> Command {
    Command::new(programs().join(name))
}

/// Where the programs are that `tests/go/go.mod` names; `make test` builds them.
pub fn programs() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/go/bin");
    assert!(folder.join(".installed").exists(), "{} is missing: run `make test`, which makes it (with Go)", folder.display());
    folder
}

/// grpc-go's interop server, with all its defaults. It listens on every interface, as it cannot be told otherwise.
pub struct GoServer {
    _process: Process,
    pub url: String,
}

impl GoServer {
    #[track_caller]
    pub fn start() -> GoServer {
        // Its port is said in the log only, and the log is silent by default.
        let mut process = Process::spawn(program("server").args(["-port", "0"]).env("GRPC_GO_LOG_SEVERITY_LEVEL", "info"));
        let port = process.find(
            "port of the Go server",
            |p| &p.stderr,
            |line| line.split_once("interop server listening on [::]:")?.1.trim().parse::<u16>().ok(),
        );
        GoServer { _process: process, url: format!("http://127.0.0.1:{port}") }
    }
}

/// grpc-go's interop client on its way through one test case; `more` are further flags.
pub struct GoClient(Process);

impl GoClient {
    /// Towards `port` of this machine, over TLS that is verified by `doorward`'s CA.
    pub fn start(doorward: &Doorward, port: u16, case: &str, more: &[&str]) -> GoClient {
        let mut command = program("client");
        command.args(["-use_tls", "-use_test_ca", "-server_host", "127.0.0.1", "-server_host_override", "localhost"]);
        command.arg("-ca_file").arg(&doorward.ca).args(["-server_port", &port.to_string(), "-test_case", case]).args(more);
        GoClient(Process::spawn(&mut command))
    }

    /// What went wrong, in the client's own words.
    #[track_caller]
    pub fn result(mut self) -> Result<(), String> {
        let status = self.0.wait(4 * PATIENCE);
        if status.success() { Ok(()) } else { Err(format!("{status}: {}", self.0.stderr.text())) }
    }
}

/// What h2spec says of `doorward` in these sections or cases (`http2/8.1/1`), as it goes to standard output.
#[track_caller]
pub fn h2spec(doorward: &Doorward, path: &str, sections: &[&str]) -> String {
    let mut command = program("h2spec");
    command.args(["--tls", "--insecure", "--strict", "--timeout", "5", "--host", "127.0.0.1", "--path", path]);
    command.args(["--port", &doorward.traffic.port().to_string()]).args(sections);
    let mut process = Process::spawn(&mut command);
    process.wait(8 * PATIENCE);
    line(&process.stdout, "h2spec's last line", |line| line.contains(" tests, ").then_some(()));
    process.stdout.text()
}

/// What `tests/go/manifests` renders; its complaints when something in it is wrong.
pub fn manifests(arguments: &[&str]) -> Result<String, String> {
    let output = program("manifests").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// What grpcurl prints, on standard output and standard error, and how it ends: 0, or 64 and the call's status. `arguments`
/// after those for `doorward`'s certificate and before its address, `method` after it.
#[track_caller]
pub fn grpcurl(doorward: &Doorward, arguments: &[&str], method: &[&str]) -> (Option<i32>, String) {
    let output = program("grpcurl").arg("-cacert").arg(&doorward.ca).args(arguments).arg(doorward.target()).args(method).output().unwrap();
    let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code(), printed)
}
