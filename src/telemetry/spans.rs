//! The spans of calls that have ended: from every worker into one bounded buffer, from which the control thread exports
//! them. A call never waits for a collector: when the buffer is full its span is dropped and counted.

use super::metrics::{Metrics, SpanOutcome};
use crate::config::CollectorUrl;
use std::cell::RefCell;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

/// Spans waiting to be exported, in bytes: some two thousand. One message to a collector is as large at most, a quarter of
/// what collectors take; with the one under way this bounds what a collector that is gone costs.
const CAPACITY: usize = 1024 * 1024;

/// Where calls leave their spans. Clones leave them in the same place.
#[derive(Clone)]
pub struct Spans {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// The exporter has something to do.
    filled: Notify,
    orders: watch::Sender<Orders>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    count: u64,
    /// The exporter sleeps until somebody wakes it.
    asleep: bool,
}

/// What the exporter is to do.
#[derive(Clone, Default)]
pub(super) struct Orders {
    /// The newest that a configuration has named: also for the spans of calls that began under one that named none.
    pub(super) collector: Option<CollectorUrl>,
    /// The process ends: what is left is tried once.
    pub(super) closing: bool,
}

impl Spans {
    pub(super) fn new(metrics: Arc<Metrics>) -> Spans {
        Spans { shared: Arc::new(Shared { queue: Mutex::default(), filled: Notify::new(), orders: watch::Sender::default(), metrics }) }
    }

    /// For calls under a configuration that names this collector; none for calls under one that names none.
    #[must_use]
    pub fn towards(&self, collector: Option<&CollectorUrl>) -> Option<Spans> {
        let collector = collector?;
        self.shared.orders.send_if_modified(|orders| orders.collector.replace(collector.clone()).as_ref() != Some(collector));
        Some(self.clone())
    }

    /// Adds the span that `render` appends.
    pub(super) fn push(&self, render: impl FnOnce(&mut Vec<u8>)) {
        thread_local! {
            // Rendered outside the lock, into memory that is there already.
            static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            render(scratch);
            self.push_rendered(scratch);
        });
    }

    fn push_rendered(&self, span: &[u8]) {
        let mut queue = self.lock();
        if queue.bytes.len() + span.len() > CAPACITY {
            drop(queue);
            return self.shared.metrics.spans.inc(SpanOutcome::Dropped);
        }
        queue.bytes.extend_from_slice(span);
        queue.count += 1;
        let wake = mem::take(&mut queue.asleep) || queue.bytes.len() > CAPACITY / 2;
        drop(queue);
        if wake {
            self.shared.filled.notify_one();
        }
    }

    /// Ends the export, after one more try of what is left.
    pub(super) fn close(&self) {
        self.shared.orders.send_modify(|orders| orders.closing = true);
    }

    pub(super) fn orders(&self) -> watch::Receiver<Orders> {
        self.shared.orders.subscribe()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Waits for a span, or for another that comes while there is much to do.
    pub(super) async fn filled(&self) {
        self.shared.filled.notified().await;
    }

    /// Whether there is nothing; then the next span wakes the exporter.
    pub(super) fn is_empty(&self) -> bool {
        let mut queue = self.lock();
        queue.asleep = queue.bytes.is_empty();
        queue.asleep
    }

    /// Whether it is time to make room.
    pub(super) fn is_half_full(&self) -> bool {
        self.lock().bytes.len() > CAPACITY / 2
    }

    /// All there is, and how many spans that are.
    pub(super) fn take(&self) -> (Vec<u8>, u64) {
        let mut queue = self.lock();
        (mem::take(&mut queue.bytes), mem::take(&mut queue.count))
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A queue is consistent after each statement above: a panic elsewhere takes nothing away from it.
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Spans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Spans")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_no_room_for_is_dropped_and_counted() {
        let metrics = Arc::new(Metrics::new());
        let spans = Spans::new(metrics.clone());
        let quarter = vec![7; CAPACITY / 4];
        (0..6).for_each(|_| spans.push(|out| out.extend_from_slice(&quarter)));
        assert!(metrics.render().contains("doorward_spans_total{outcome=\"dropped\"} 2\n"));
        let (bytes, count) = spans.take();
        assert_eq!((bytes.len(), count), (CAPACITY, 4));
        assert!(spans.is_empty());
        spans.push(|out| out.push(1));
        assert_eq!(spans.take(), (vec![1], 1));
    }

    #[test]
    fn only_a_configuration_with_a_collector_makes_spans() {
        let spans = Spans::new(Arc::new(Metrics::new()));
        assert!(spans.towards(None).is_none());
        assert!(spans.orders().borrow().collector.is_none());
    }
}
