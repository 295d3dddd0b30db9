//! The programs of docs/clients.md, word by word, against `doorward demo`, in the folder that it names.

use crate::harness::pages::{file, root};
use crate::harness::process::Process;
use crate::harness::{PATIENCE, Site, go, node, python};
use std::path::PathBuf;
use std::process::Command;

const PAGE: &str = "docs/clients.md";

/// What the demo's service says to the token's user and to the key's client.
const TO_ALICE: &str = "I was told user_id=alice user_email=alice@demo.example user_name=Alice roles=greeter permissions=greetings:read";
const TO_THE_JOB: &str = "I was told client_id=nightly-job roles=greeter permissions=greetings:read api_key_id=nightly";

struct Demo {
    process: Process,
    folder: PathBuf,
    target: String,
    /// Where its folder is made; goes with it whatever happens.
    _site: Site,
}

impl Demo {
    fn start() -> Demo {
        let site = Site::new();
        let mut process = Process::spawn(Command::new(env!("CARGO_BIN_EXE_doorward")).arg("demo").env("TMPDIR", site.path("")));
        let folder = process.find("folder", |p| &p.stdout, |line| line.strip_prefix("cd ").map(PathBuf::from));
        let target = |line: &str| Some(format!("localhost:{}", line.split_once(" on localhost:")?.1.split_once(',')?.0));
        let target = process.find("address", |p| &p.stdout, target);
        process.find("end of its start", |p| &p.stdout, |line| line.starts_with("Doorward is up").then_some(()));
        Demo { process, folder, target, _site: site }
    }

    /// Writes the page's file to the folder.
    fn program(&self, name: &str) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::write(&path, file(PAGE, name)).unwrap();
        path
    }

    /// What `command` prints, run in the folder with the address as its last argument; and whether it ends well.
    fn run(&self, command: &mut Command) -> (bool, String, String) {
        // Its calls have deadlines of their own.
        let output = command.arg(&self.target).current_dir(&self.folder).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.process.signal("INT");
        self.process.wait(PATIENCE);
    }
}

/// A greeting by the token, a refusal, a greeting by the key.
#[track_caller]
fn greeted(client: &str, refusal: &str, (ended_well, stdout, stderr): (bool, String, String)) {
    let lines: Vec<&str> = stdout.lines().map(|line| line.trim_end_matches(" <nil>")).collect();
    let hello = |told: &str| format!("Hello, {client}! {told}");
    assert_eq!(lines, [hello(TO_ALICE), refusal.to_owned(), hello(TO_THE_JOB)], "{stderr}");
    assert!(ended_well, "{stderr}");
}

#[test]
fn grpcurl() {
    let demo = Demo::start();
    let script = demo.program("calls.sh");
    let path = format!("{}:{}", go::programs().display(), std::env::var("PATH").unwrap());
    let (_, stdout, stderr) = demo.run(Command::new("sh").arg(script).env("PATH", path));
    for told in [TO_ALICE, TO_THE_JOB] {
        assert!(stdout.contains(&format!("Hello, grpcurl! {told}")), "{stdout}\n{stderr}");
    }
    assert!(stderr.contains("Code: PermissionDenied") && stderr.contains("Message: a permission is missing"), "{stderr}");
}

#[test]
fn python() {
    let demo = Demo::start();
    let answer = demo.run(&mut python::script(&demo.program("client.py")));
    greeted("Python", "refused: PERMISSION_DENIED PERMISSION_MISSING", answer);
}

#[test]
fn go() {
    let demo = Demo::start();
    let program = demo.program("client.go").with_extension("program");
    // Modules are those of the folder that Go is started in.
    let mut build = Process::spawn(
        Command::new("go").args(["build", "-o"]).arg(&program).arg(program.with_extension("go")).current_dir(root().join("tests/go")),
    );
    assert!(build.wait(8 * PATIENCE).success(), "{}", build.stderr.text());
    greeted("Go", "refused: PermissionDenied PERMISSION_MISSING", demo.run(&mut Command::new(program)));
}

#[test]
fn node() {
    let demo = Demo::start();
    // Node looks for packages where the program lies.
    std::os::unix::fs::symlink(node::packages(), demo.folder.join("node_modules")).unwrap();
    let program = demo.program("client.mjs");
    greeted("Node", "refused: PERMISSION_DENIED a permission is missing", demo.run(Command::new("node").arg(program)));
}

#[test]
fn java() {
    let demo = Demo::start();
    let libraries = root().join("tests/java/lib");
    assert!(libraries.join(".installed").exists(), "{} is missing: run `make test`, which makes it (with Maven)", libraries.display());
    let program = demo.program("Client.java");
    let answer = demo.run(Command::new("java").arg("-cp").arg(libraries.join("*")).arg(program));
    greeted("Java", "refused: PERMISSION_DENIED PERMISSION_MISSING", answer);
}
