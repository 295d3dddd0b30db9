//! Keeps what is revoked up to date with its file, within a second of a change. Beside the reload of the configuration,
//! which takes longer: revoking is what cannot wait.

use super::Revocations;
use crate::bell::Bell;
use crate::config::{FileWatch, InputFile, Problems, Severity};
use crate::readiness::ReadinessGuard;
use crate::telemetry::Metrics;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks; a change counts after at most [`FileWatch::MOST_LOOKS`] of them, which together stay below a second.
const INTERVAL: Duration = Duration::from_millis(200);
/// Problems of one reading that are logged; the rest is counted.
const LOGGED: usize = 10;

/// Looks after the revocations of one file.
#[derive(Debug)]
pub struct RevocationsWatch {
    revocations: Arc<Revocations>,
    file: InputFile,
    watch: FileWatch,
}

/// What a look that read the file found.
#[derive(Debug)]
struct Reading {
    /// Whether the entries are others now.
    changed: bool,
    problems: Problems,
}

impl RevocationsWatch {
    /// For `revocations` as they were read from `file`.
    pub fn new(revocations: Arc<Revocations>, file: InputFile) -> RevocationsWatch {
        let watch = FileWatch::new(vec![file.path.clone()]);
        RevocationsWatch { revocations, file, watch }
    }

    /// Runs forever, on the control thread; files are read beside it. A file that cannot be used changes nothing, and is
    /// told to the log, to `guard` and to the metric until it can be used again.
    pub async fn run(self, guard: ReadinessGuard, bell: Bell, metrics: Arc<Metrics>) {
        guard.ready();
        let mut watch = self;
        loop {
            tokio::time::sleep(INTERVAL).await;
            let looked = tokio::task::spawn_blocking(move || {
                let reading = watch.look();
                (watch, reading)
            });
            let reading;
            (watch, reading) = match looked.await {
                Ok(looked) => looked,
                // A panic: revocations would be ignored from now on, which nobody must overlook.
                Err(error) => return lost(&guard, &error).await,
            };
            if let Some(reading) = reading {
                watch.report(&reading, &guard, &metrics);
                if reading.changed {
                    bell.ring();
                }
            }
        }
    }

    /// Reads the file when it has changed and is still.
    fn look(&mut self) -> Option<Reading> {
        let change = self.watch.look()?;
        let reading = self.read();
        self.watch.judge(change, !reading.problems.has_errors()).then_some(reading)
    }

    fn read(&self) -> Reading {
        let mut problems = Problems::default();
        let changed = match self.file.read_again() {
            Ok(file) => self.revocations.reload(&file, &mut problems),
            Err(reason) => {
                problems.error(&self.file.at, format!("cannot use {}: {reason}", self.file.path.display()));
                false
            }
        };
        Reading { changed, problems }
    }

    fn report(&self, reading: &Reading, guard: &ReadinessGuard, metrics: &Metrics) {
        let problems: Vec<_> = reading.problems.iter().collect();
        for problem in problems.iter().take(LOGGED) {
            match problem.severity {
                Severity::Error => tracing::error!("revocations: {}: {}", problem.at, problem.message),
                Severity::Warning => tracing::warn!("revocations: {}: {}", problem.at, problem.message),
            }
        }
        let errors: Vec<_> = problems.iter().filter(|problem| problem.severity == Severity::Error).collect();
        match errors.first() {
            Some(first) => {
                let entries = self.revocations.len();
                tracing::error!(errors = errors.len(), entries, "the revocations file is refused: the entries read before stay in force");
                guard.remark(format!("the file is refused, the entries read before stay in force: {}: {}", first.at, first.message));
            }
            None => {
                guard.ready();
                if reading.changed {
                    tracing::info!(entries = self.revocations.len(), "the revocations file has changed: its entries are in force");
                }
            }
        }
        metrics.revocations_last_reload_successful.set(i64::from(errors.is_empty()));
    }
}

/// Nothing follows the file any more. The guard stays, or readiness would forget.
async fn lost(guard: &ReadinessGuard, error: &tokio::task::JoinError) {
    tracing::error!(%error, "the revocations file is not followed any more: restart");
    guard.not_ready("the file is not followed any more: restart");
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use super::super::revocations::Known;
    use super::*;
    use crate::config::Position;
    use crate::secret::Secret;
    use std::fs;
    use tempfile::TempDir;

    struct Desk {
        _folder: TempDir,
        watch: RevocationsWatch,
    }

    impl Desk {
        /// One entry, watched.
        fn new() -> Desk {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("revocations.yaml");
            fs::write(&path, text(1)).unwrap();
            let file = InputFile { at: Position::default(), path: path.clone(), content: Secret::new(fs::read(&path).unwrap()) };
            let revocations = Arc::new(Revocations::load(Some(&file), Known::default(), &mut Problems::default()));
            let mut desk = Desk { _folder: folder, watch: RevocationsWatch::new(revocations, file) };
            let first = desk.watch.look().expect("the first look reads: the file may have changed since the start");
            assert!(!first.changed && desk.watch.look().is_none());
            desk
        }

        fn write(&self, content: &str) {
            fs::write(&self.watch.file.path, content).unwrap();
        }

        /// Whether the entries changed, or the error, at the look that read; after how many looks.
        fn looks(&mut self) -> (u8, Result<bool, String>) {
            for looks in 1..10 {
                if let Some(reading) = self.watch.look() {
                    let error = reading.problems.iter().find(|problem| problem.severity == Severity::Error);
                    return (looks, error.map_or(Ok(reading.changed), |problem| Err(problem.message.clone())));
                }
            }
            panic!("never read");
        }

        fn entries(&self) -> usize {
            self.watch.revocations.len()
        }
    }

    fn text(entries: usize) -> String {
        let entry = |n| format!("- {{ api_key: key-{n} }}\n");
        format!("revoked:\n{}", (0..entries).map(entry).collect::<String>())
    }

    #[test]
    fn a_change_counts_once_it_is_still() {
        let mut desk = Desk::new();
        assert!(desk.watch.look().is_none());
        desk.write(&text(3));
        assert_eq!((desk.looks(), desk.entries()), ((2, Ok(true)), 3));
        assert!(desk.watch.look().is_none());
        let longest = INTERVAL * u32::from(FileWatch::MOST_LOOKS);
        assert!(longest < Duration::from_millis(700), "time is left for reading and for the calls");
    }

    #[test]
    fn a_file_that_is_written_step_by_step_is_read_at_its_end() {
        let mut desk = Desk::new();
        desk.write("revoked:\n");
        assert!(desk.watch.look().is_none(), "half of it would revoke nothing");
        desk.write(&text(2));
        assert!(desk.watch.look().is_none());
        assert_eq!((desk.looks(), desk.entries()), ((1, Ok(true)), 2));
    }

    #[test]
    fn a_bad_file_changes_nothing_and_is_told_once() {
        let mut desk = Desk::new();
        for bad in ["revoked:", "revoked: [", "revoked: [{ api_keys: a }]", "  \n"] {
            desk.write(bad);
            let (_, result) = desk.looks();
            assert!(result.is_err(), "{bad:?}");
            assert!((0..5).all(|_| desk.watch.look().is_none()), "told once");
            assert_eq!(desk.entries(), 1);
        }
        fs::remove_file(&desk.watch.file.path).unwrap();
        assert!(desk.looks().1.unwrap_err().contains("no such file"));
        assert_eq!(desk.entries(), 1);
        desk.write(&text(1));
        assert_eq!(desk.looks().1, Ok(false), "as it was");
        desk.write(&text(2));
        assert_eq!((desk.looks().1, desk.entries()), (Ok(true), 2));
    }
}
