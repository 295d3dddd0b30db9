//! The access log: lines from every worker, through one bounded buffer, to one thread that writes them in batches.
//!
//! A call never waits for whoever reads our standard output: when the buffer is full its line is dropped and counted.

use prometheus::IntCounter;
use std::cell::RefCell;
use std::io::Write;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Lines waiting to be written, in bytes: some fifty milliseconds of a busy two-core proxy.
const CAPACITY: usize = 2 * 1024 * 1024;

/// How long a batch is collected: two hundred writes a second at most, and no wake-up of the writer for each line.
const LINGER: Duration = Duration::from_millis(5);

/// What a burst may leave behind in each buffer.
const KEPT: usize = 64 * 1024;

/// How long a normal exit waits for a reader that does not read.
const CLOSE: Duration = Duration::from_secs(2);

/// Where calls leave their lines. Clones write to the same place.
#[derive(Clone)]
pub struct AccessLog {
    shared: Arc<Shared>,
}

/// Keeps the writing thread; dropped at exit, it waits until every line has been written.
#[must_use = "dropping it closes the log"]
pub struct AccessLogWriter {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// The writer has something to do.
    filled: Condvar,
    /// The writer has ended.
    ended: Condvar,
    dropped: IntCounter,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    lines: u64,
    /// The writer sleeps until somebody wakes it.
    asleep: bool,
    closing: bool,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A queue is consistent after each statement below: a panic elsewhere takes nothing away from it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AccessLog {
    /// Starts the thread that writes to `sink`. Lines that cannot be written are counted in the metric of `metrics`.
    /// Fails when the operating system gives no thread.
    pub fn start(sink: impl Write + Send + 'static, metrics: &super::Metrics) -> std::io::Result<(AccessLog, AccessLogWriter)> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
            ended: Condvar::new(),
            dropped: metrics.access_log_dropped.clone(),
        });
        let writer = shared.clone();
        thread::Builder::new().name("access-log".to_owned()).spawn(move || write_batches(&writer, sink))?;
        Ok((AccessLog { shared: shared.clone() }, AccessLogWriter { shared }))
    }

    /// Adds the line that `render` writes, its final newline included.
    pub(super) fn line(&self, render: impl FnOnce(&mut Vec<u8>)) {
        thread_local! {
            // Rendered outside the lock, into memory that is there already.
            static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            render(scratch);
            self.push(scratch);
        });
    }

    fn push(&self, line: &[u8]) {
        let mut queue = self.shared.lock();
        if queue.closing || queue.bytes.len() + line.len() > CAPACITY {
            drop(queue);
            self.shared.dropped.inc();
            return;
        }
        queue.bytes.extend_from_slice(line);
        queue.lines += 1;
        let wake = mem::take(&mut queue.asleep) || queue.bytes.len() > CAPACITY / 2;
        drop(queue);
        if wake {
            self.shared.filled.notify_one();
        }
    }
}

impl Drop for AccessLogWriter {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.closing = true;
        self.shared.filled.notify_one();
        let wait = self.shared.ended.wait_timeout_while(queue, CLOSE, |queue| !queue.ended);
        drop(wait.unwrap_or_else(PoisonError::into_inner));
    }
}

/// The writing thread: takes everything there is, writes it at once, until the log is closed and empty.
fn write_batches(shared: &Shared, mut sink: impl Write) {
    let mut batch = Vec::new();
    let mut failing = false;
    while let Some(lines) = next_batch(shared, &mut batch) {
        match sink.write_all(&batch).and_then(|()| sink.flush()) {
            Ok(()) => failing = false,
            Err(error) => {
                shared.dropped.inc_by(lines);
                if !mem::replace(&mut failing, true) {
                    tracing::error!(%error, "the access log cannot be written; lines are dropped and counted until it can");
                }
            }
        }
        batch.clear();
        batch.shrink_to(KEPT);
    }
    shared.lock().ended = true;
    shared.ended.notify_all();
}

/// Waits for lines and swaps them into the empty `batch`; returns how many, `None` when no more will come.
fn next_batch(shared: &Shared, batch: &mut Vec<u8>) -> Option<u64> {
    let mut queue = shared.lock();
    while queue.bytes.is_empty() {
        if queue.closing {
            return None;
        }
        queue.asleep = true;
        queue = shared.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
    let collecting = |queue: &mut Queue| !queue.closing && queue.bytes.len() <= CAPACITY / 2;
    (queue, _) = shared.filled.wait_timeout_while(queue, LINGER, collecting).unwrap_or_else(PoisonError::into_inner);
    mem::swap(&mut queue.bytes, batch);
    Some(mem::take(&mut queue.lines))
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AccessLog")
    }
}

impl std::fmt::Debug for AccessLogWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AccessLogWriter")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::telemetry::Metrics;
    use std::io;
    use std::sync::mpsc;

    /// Bytes that can be read while they are written.
    #[derive(Clone, Default)]
    pub(in crate::telemetry) struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Memory {
        pub(in crate::telemetry) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Tells when it is asked to write, and does so when allowed.
    struct Gate {
        reached: mpsc::Sender<()>,
        open: mpsc::Receiver<()>,
        inner: Memory,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Once the test lets go of its ends, everything passes.
            let _ = self.reached.send(());
            let _ = self.open.recv();
            self.inner.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nothing_is_lost_at_a_normal_exit() {
        let (sink, metrics) = (Memory::default(), Metrics::new());
        let (log, writer) = AccessLog::start(sink.clone(), &metrics).unwrap();
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let log = log.clone();
                thread::spawn(move || (0..500).for_each(|n| log.line(|out| writeln!(out, "{worker} {n}").unwrap())))
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        drop(writer);
        let text = sink.text();
        assert_eq!(text.lines().count(), 2000);
        let of_one: Vec<_> = text.lines().filter(|line| line.starts_with("2 ")).collect();
        assert_eq!(of_one, (0..500).map(|n| format!("2 {n}")).collect::<Vec<_>>(), "lines are whole and in order");
        log.line(|out| out.push(b'\n'));
        assert_eq!(metrics.access_log_dropped.get(), 1, "a line after the end is counted, not forgotten");
    }

    #[test]
    fn a_reader_that_does_not_read_costs_lines_and_no_time() {
        let (reached, wait) = mpsc::channel();
        let (open, gate) = mpsc::channel();
        let (sink, metrics) = (Memory::default(), Metrics::new());
        let (log, writer) = AccessLog::start(Gate { reached, open: gate, inner: sink.clone() }, &metrics).unwrap();
        log.line(|out| out.extend_from_slice(b"first\n"));
        wait.recv().unwrap();
        let long = vec![b'x'; CAPACITY / 4];
        for _ in 0..6 {
            log.line(|out| out.extend_from_slice(&long));
        }
        assert_eq!(metrics.access_log_dropped.get(), 2);
        drop(open);
        drop(writer);
        assert_eq!(sink.text().len(), "first\n".len() + 4 * long.len());
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let metrics = Metrics::new();
        let (log, writer) = AccessLog::start(Broken, &metrics).unwrap();
        log.line(|out| out.extend_from_slice(b"one\n"));
        log.line(|out| out.extend_from_slice(b"two\n"));
        drop(writer);
        assert_eq!(metrics.access_log_dropped.get(), 2);
    }
}
