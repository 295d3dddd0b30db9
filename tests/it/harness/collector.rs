//! An OpenTelemetry collector: grpcio and the messages of opentelemetry-proto (`tests/python/collector.py`).

use super::eventually;
use super::process::{Process, line};
use super::python::python;
use serde_json::Value;

pub struct Collector {
    process: Process,
    pub port: u16,
}

impl Collector {
    pub fn start() -> Collector {
        Collector::start_with(&[])
    }

    /// Further arguments of `collector.py`: `--address`, `--tls`.
    pub fn start_with(arguments: &[&str]) -> Collector {
        let mut process = Process::spawn(python("collector.py").args(arguments));
        let port = process.find("port of the collector", |p| &p.stdout, |line| parsed(line)?.get("port")?.as_u64()?.try_into().ok());
        Collector { process, port }
    }

    /// The key that sends spans here.
    pub fn log(&self) -> String {
        format!("log: {{ otlp: \"http://127.0.0.1:{}\" }}\n", self.port)
    }

    /// How to answer from now on, as `collector.py` documents it.
    pub fn behave(&mut self, behaviour: &Value) {
        let told = |collector: &Collector| collector.events("told").len();
        let before = told(self);
        self.process.tell(&behaviour.to_string());
        eventually("the collector heard it", || (told(self) > before).then_some(()));
    }

    /// Every span so far, in the order of their coming.
    pub fn spans(&self) -> Vec<Value> {
        self.events("span")
    }

    /// The spans as soon as there are so many.
    #[track_caller]
    pub fn wait(&self, count: usize) -> Vec<Value> {
        eventually("spans at the collector", || Some(self.spans()).filter(|spans| spans.len() >= count))
    }

    /// Waits for a request that is answered with an error.
    #[track_caller]
    pub fn wait_refused(&self) {
        line(&self.process.stdout, "a refused export", |line| parsed(line).filter(|event| event["accepted"] == false));
    }

    pub fn events(&self, kind: &str) -> Vec<Value> {
        self.process.stdout.all().iter().filter_map(|line| parsed(line)).filter(|event| event["event"] == kind).collect()
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }
}

fn parsed(line: &str) -> Option<Value> {
    serde_json::from_str(line).ok()
}
