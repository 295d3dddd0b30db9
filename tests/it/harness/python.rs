//! The real grpcio, as client and as server (`tests/python/`).

use super::process::{Process, line, output};
use super::{Doorward, Site, eventually};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

pub(super) fn python(name: &str) -> Command {
    script(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(name))
}

/// Python with what `tests/python/requirements.txt` names; `make test` makes it.
pub fn script(path: &Path) -> Command {
    let mut command = interpreter();
    command.arg(path);
    command
}

fn interpreter() -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let interpreter = std::env::var_os("DOORWARD_TEST_PYTHON").map_or_else(|| root.join(".venv/bin/python"), PathBuf::from);
    assert!(interpreter.exists(), "{} is missing: run `make test`, which makes it", interpreter.display());
    let mut command = Command::new(interpreter);
    command.env("GRPC_VERBOSITY", "ERROR").env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// A token made by PyJWT; `expires_in` among the claims becomes `exp`, as a datetime.
pub fn pyjwt(claims: Value, key: &str, algorithm: &str) -> String {
    output(&mut python("mint.py"), &json!({"claims": claims, "key": key, "algorithm": algorithm}))
}

/// Tokens of PyJWT and google-auth by name, as `foreign_tokens.py` documents them.
pub fn foreign_tokens(order: &Value) -> BTreeMap<String, String> {
    serde_json::from_str(&output(&mut python("foreign_tokens.py"), order)).unwrap()
}

/// The descriptor set of `<name>.proto` of the site, made by protoc: `<name>.binpb`.
#[track_caller]
pub fn protoc(site: &Site, name: &str) -> PathBuf {
    let set = site.path(&format!("{name}.binpb"));
    let mut command = interpreter();
    command.args(["-m", "grpc_tools.protoc", "--include_imports"]).arg(format!("--descriptor_set_out={}", set.display()));
    command.arg("--proto_path").arg(site.path("")).arg(site.path(&format!("{name}.proto")));
    assert!(command.status().unwrap().success(), "{command:?}");
    set
}

/// A gRPC service without any authentication.
pub struct PythonUpstream {
    process: Process,
    port: u16,
}

impl PythonUpstream {
    pub fn start() -> PythonUpstream {
        PythonUpstream::start_with(&[])
    }

    /// Further arguments of `upstream.py`: `--address`, `--tls`, `--health`, `--grace`, `--option`, `--reflection`.
    pub fn start_with(arguments: &[&str]) -> PythonUpstream {
        let mut process = Process::spawn(python("upstream.py").args(arguments));
        let port = process.find(
            "port of the Python service",
            |p| &p.stdout,
            |line| serde_json::from_str::<Value>(line).ok()?.get("port")?.as_u64().and_then(|port| u16::try_from(port).ok()),
        );
        PythonUpstream { process, port }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Every event so far that is of this kind, `call` or `end`.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let lines = self.process.stdout.all();
        lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok()).filter(|event| event["event"] == kind).collect()
    }

    /// Calls that have reached the service, the proxy's own health checks aside.
    pub fn calls(&self) -> Vec<Value> {
        self.events("call")
    }

    /// As many calls have reached it. It tells of each by a line, which may come after the answer.
    #[track_caller]
    pub fn assert_calls(&self, count: usize) {
        eventually("what the service tells of its calls", || (self.calls().len() >= count).then_some(()));
        assert_eq!(self.calls().len(), count, "calls that reached the service");
    }

    /// The first end of a call of `method`, once it has happened.
    #[track_caller]
    pub fn ended(&self, method: &str) -> Value {
        line(&self.process.stdout, "the end of a call at the service", |line| {
            serde_json::from_str::<Value>(line).ok().filter(|event| event["event"] == "end" && event["method"] == method)
        })
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends a signal by name, without the `SIG`.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Stops it, and returns when none of its threads runs any more: a signal takes its time.
    #[track_caller]
    pub fn freeze(&self) {
        self.signal("STOP");
        super::eventually("a frozen service", || {
            let threads = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
            let stopped = |stat: String| stat.rsplit(") ").next().is_some_and(|state| state.starts_with('T'));
            let mut states = threads.map(|thread| std::fs::read_to_string(thread?.path().join("stat")));
            states.all(|state| state.is_ok_and(stopped)).then_some(())
        });
    }

    /// Waits for the end of the process.
    #[track_caller]
    pub fn wait(&mut self) {
        self.process.wait(super::PATIENCE);
    }
}

/// One call for the Python client.
#[derive(Clone)]
pub struct Call(pub(super) Value);

/// A call of `method` without metadata; its kind follows from the method's name.
pub fn call(method: &str) -> Call {
    Call(json!({"method": method, "metadata": []}))
}

impl Call {
    pub fn metadata(mut self, name: &str, value: &str) -> Call {
        self.0["metadata"].as_array_mut().unwrap().push(json!([name, value]));
        self
    }

    pub fn binary(self, name: &str, value: &[u8]) -> Call {
        let value = STANDARD.encode(value);
        self.metadata(name, &value)
    }

    pub fn bearer(self, token: &str) -> Call {
        self.metadata("authorization", &format!("Bearer {token}"))
    }

    pub fn api_key(self, key: &str) -> Call {
        self.metadata("x-api-key", key)
    }

    /// What the Python service shall do.
    pub fn behaviour(self, behaviour: Value) -> Call {
        let ascii: String = behaviour
            .to_string()
            .encode_utf16()
            .map(|unit| {
                char::from_u32(unit.into()).filter(|char| matches!(char, ' '..='~')).map_or_else(|| format!("\\u{unit:04x}"), String::from)
            })
            .collect();
        self.metadata("x-behaviour", &ascii)
    }

    /// Any other member of a call, as `client.py` documents them.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Call {
        self.0[name] = value.into();
        self
    }
}

impl Doorward {
    /// Makes the calls, in order on one channel, from a real grpcio client.
    #[track_caller]
    pub fn calls(&self, calls: &[Call]) -> Vec<Answer> {
        self.calls_as(&json!({}), calls)
    }

    /// The same with more members of the order: `certificate` and `key`, or another `target`.
    #[track_caller]
    pub fn calls_as(&self, more: &Value, calls: &[Call]) -> Vec<Answer> {
        self.client_as(more).calls(calls)
    }

    /// A client that keeps its channel.
    pub fn client(&self) -> PythonClient {
        self.client_as(&json!({}))
    }

    /// The same with more members of the order.
    pub fn client_as(&self, more: &Value) -> PythonClient {
        let mut order = json!({"target": self.target(), "ca": self.ca});
        order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut process = python("client.py").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let results = BufReader::new(process.stdout.take().unwrap());
        PythonClient { process, results, order }
    }

    #[track_caller]
    pub fn call(&self, call: Call) -> Answer {
        self.calls(&[call]).remove(0)
    }
}

/// A real grpcio client, with one channel for all its calls.
pub struct PythonClient {
    process: Child,
    results: BufReader<ChildStdout>,
    order: Value,
}

impl PythonClient {
    /// Makes the calls, in order.
    #[track_caller]
    pub fn calls(&mut self, calls: &[Call]) -> Vec<Answer> {
        self.order["calls"] = calls.iter().map(|call| call.0.clone()).collect();
        writeln!(self.process.stdin.as_mut().unwrap(), "{}", self.order).unwrap();
        let mut line = String::new();
        self.results.read_line(&mut line).unwrap();
        let results: Vec<Value> = serde_json::from_str(&line).expect("client.py gives results");
        assert_eq!(results.len(), calls.len());
        results.into_iter().map(Answer).collect()
    }
}

impl Drop for PythonClient {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Code and reason of each, for tables.
pub fn refusals(answers: &[Answer]) -> Vec<(u64, &str)> {
    answers.iter().map(Answer::refusal).collect()
}

/// What the Python client saw.
#[derive(Clone, Debug)]
pub struct Answer(pub Value);

impl Answer {
    pub fn code(&self) -> u64 {
        self.0["code"].as_u64().unwrap()
    }

    pub fn details(&self) -> &str {
        self.0["details"].as_str().unwrap_or_default()
    }

    /// `reason` of the ErrorInfo, empty when there is none.
    pub fn reason(&self) -> &str {
        self.0["reason"].as_str().unwrap_or_default()
    }

    /// Code and reason, for tables.
    pub fn refusal(&self) -> (u64, &str) {
        (self.code(), self.reason())
    }

    pub fn messages(&self) -> Vec<&str> {
        self.0["messages"].as_array().unwrap().iter().filter_map(Value::as_str).collect()
    }

    /// Values of a trailing-metadata name in order.
    pub fn trailing(&self, name: &str) -> Vec<&str> {
        values(&self.0["trailing"], name)
    }

    pub fn initial(&self, name: &str) -> Vec<&str> {
        values(&self.0["initial"], name)
    }

    pub fn seconds(&self) -> f64 {
        self.0["seconds"].as_f64().unwrap()
    }

    /// The service's report of a successful unary or client-streaming call.
    #[track_caller]
    pub fn report(&self) -> Value {
        assert_eq!(self.code(), 0, "{self:?}");
        serde_json::from_str(self.messages()[0]).unwrap()
    }

    /// What the service saw of one metadata name, in order.
    #[track_caller]
    pub fn upstream_saw(&self, name: &str) -> Vec<String> {
        values(&self.report()["metadata"], name).into_iter().map(str::to_owned).collect()
    }
}

/// The values of one name in a list of pairs.
pub fn values<'a>(pairs: &'a Value, name: &str) -> Vec<&'a str> {
    let pairs = pairs.as_array().map(Vec::as_slice).unwrap_or_default();
    pairs.iter().filter(|pair| pair[0] == name).filter_map(|pair| pair[1].as_str()).collect()
}
