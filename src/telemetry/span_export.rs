//! Exports spans, on the control thread: collects them for a moment, sends them as one message, and tries again for a while
//! when that fails. What the collector does or does not do is told in the log once a change, and counted.

use super::collector::{Collector, ExportError, Exported};
use super::metrics::{Metrics, SpanOutcome};
use super::otlp;
use super::resource;
use super::spans::{Orders, Spans};
use crate::config::CollectorUrl;
use aws_lc_rs::rand;
use bytes::Bytes;
use std::mem;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long spans are collected; less when they fill half of their buffer.
const LINGER: Duration = Duration::from_secs(1);

/// The wait after a first failure; it doubles from there.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How long one message is tried again. Later spans wait in their buffer meanwhile, as far as there is room.
const GIVE_UP: Duration = Duration::from_secs(60);

/// The export of this process.
pub struct SpanExport {
    spans: Spans,
    task: JoinHandle<()>,
}

impl SpanExport {
    /// Begins, on the runtime of the caller. Costs nothing until a configuration names a collector.
    pub fn start(metrics: Arc<Metrics>) -> SpanExport {
        let spans = Spans::new(metrics);
        let task = tokio::spawn(Exporter::new(spans.clone()).run());
        SpanExport { spans, task }
    }

    /// Where calls leave their spans.
    pub fn spans(&self) -> &Spans {
        &self.spans
    }

    /// Tries once to export what is left, for `within` at most.
    pub async fn finish(self, within: Duration) {
        self.spans.close();
        if timeout(within, self.task).await.is_err() {
            tracing::warn!("the last spans could not be exported in time");
        }
    }
}

struct Exporter {
    spans: Spans,
    orders: watch::Receiver<Orders>,
    resource: Vec<u8>,
    /// Made anew after a failure: another connection may do better.
    collector: Option<(CollectorUrl, Collector)>,
    /// Before the next attempt; zero while all is well.
    wait: Duration,
}

impl Exporter {
    fn new(spans: Spans) -> Exporter {
        let orders = spans.orders();
        Exporter { spans, orders, resource: Vec::new(), collector: None, wait: Duration::ZERO }
    }

    async fn run(mut self) {
        while self.collected().await {
            if self.resource.is_empty() {
                self.resource = resource::of_this_process();
            }
            let (request, count) = self.message();
            self.deliver(request, count).await;
        }
    }

    fn message(&self) -> (Bytes, u64) {
        let (spans, count) = self.spans.take();
        (otlp::export_request(&self.resource, &spans), count)
    }

    /// Waits for spans, and for others to go with them; false when there are none and no more will come.
    async fn collected(&mut self) -> bool {
        while self.spans.is_empty() {
            if self.is_closing() {
                return false;
            }
            tokio::select! { () = self.spans.filled() => {}, _ = self.orders.changed() => {} }
        }
        let enough = Instant::now() + LINGER;
        while !self.is_closing() && !self.spans.is_half_full() {
            tokio::select! {
                () = sleep_until(enough) => break,
                () = self.spans.filled() => {}
                _ = self.orders.changed() => {}
            }
        }
        true
    }

    /// Until it is exported, refused, or old.
    async fn deliver(&mut self, request: Bytes, count: u64) {
        let first = Instant::now();
        loop {
            self.wait_before_another_attempt().await;
            let ExportError { retry, detail } = match self.attempt(request.clone()).await {
                Ok(exported) => return self.exported(exported, count),
                Err(error) => error,
            };
            self.collector = None;
            if self.wait.is_zero() {
                tracing::warn!("spans cannot be exported: {detail}; they are kept as far as there is room, and counted when they are lost");
            }
            self.wait = (self.wait * 2).clamp(FIRST_WAIT, LONGEST_WAIT);
            if !retry || self.is_closing() || first.elapsed() >= GIVE_UP {
                return self.metrics().spans.inc_by(SpanOutcome::Failed, count);
            }
        }
    }

    async fn attempt(&mut self, request: Bytes) -> Result<Exported, ExportError> {
        // A configuration that names no collector any more leaves the one before for what is still to come.
        let url = self.orders.borrow().collector.clone().expect("there are spans only since a configuration named one");
        let (_, collector) = match self.collector.take_if(|(made_for, _)| *made_for == url) {
            Some(made) => self.collector.insert(made),
            None => {
                let made = Collector::new(&url)?;
                self.collector.insert((url, made))
            }
        };
        collector.export(request).await
    }

    fn exported(&mut self, Exported { rejected, why }: Exported, count: u64) {
        if !mem::take(&mut self.wait).is_zero() {
            tracing::info!("spans are exported again");
        }
        let rejected = rejected.min(count);
        self.metrics().spans.inc_by(SpanOutcome::Exported, count - rejected);
        if rejected > 0 {
            self.metrics().spans.inc_by(SpanOutcome::Rejected, rejected);
            tracing::debug!(rejected, "the collector rejected spans: {why}");
        }
    }

    /// A quarter more or less, so that pods that lost their collector together do not come back to it together. Another
    /// collector is tried at once.
    async fn wait_before_another_attempt(&mut self) {
        if self.wait.is_zero() {
            return;
        }
        let mut random = [0];
        rand::fill(&mut random).expect("the operating system has random numbers");
        let [random] = random;
        let wait = sleep(self.wait.mul_f64(0.75 + 0.5 * f64::from(random) / f64::from(u8::MAX)));
        if !self.is_closing() {
            tokio::select! { () = wait => {}, _ = self.orders.changed() => {} }
        }
    }

    fn is_closing(&self) -> bool {
        self.orders.borrow().closing
    }

    fn metrics(&self) -> &Metrics {
        self.spans.metrics()
    }
}
