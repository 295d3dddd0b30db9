//! Reload: follows every file that the configuration is made of, and puts what they hold now into the place of what runs,
//! or nothing of it. The last good configuration stays, and whoever looks can see that it is not the latest.

use super::assembly::{Loaded, load};
use super::running::Running;
use crate::config::{FileWatch, Problem, ReadFile, Severity};
use crate::readiness::ReadinessGuard;
use crate::telemetry::Metrics;
use jiff::{Timestamp, Unit};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Between two looks at the files: with the looks until a change is still, and the load, well below five seconds.
const INTERVAL: Duration = Duration::from_millis(500);
/// Problems of one load that are logged; the rest is counted.
const LOGGED: usize = 20;

/// What a process was started with, for it to be loaded again.
pub struct Sources {
    /// As given by `--config`.
    pub paths: Vec<PathBuf>,
    /// What the first load read.
    pub files: Vec<ReadFile>,
}

/// Looks after the configuration of a running process.
pub(super) struct Reload {
    running: Running,
    paths: Vec<PathBuf>,
    /// What the configuration in force was made of.
    in_force: Vec<ReadFile>,
    /// What the last load found, refused or not.
    seen: Vec<ReadFile>,
    watch: FileWatch,
    hangup: Signal,
    guard: ReadinessGuard,
    metrics: Arc<Metrics>,
    generation: i64,
    since: Timestamp,
}

impl Reload {
    /// The first generation is in force.
    ///
    /// # Errors
    /// When SIGHUP cannot be caught.
    pub(super) fn new(running: Running, sources: Sources, guard: ReadinessGuard, metrics: Arc<Metrics>) -> std::io::Result<Reload> {
        let Sources { paths, files } = sources;
        let (watch, hangup, since) = (FileWatch::new(Vec::new()), signal(SignalKind::hangup())?, Timestamp::now());
        let (seen, in_force) = (files.clone(), files);
        let mut reload = Reload { running, paths, in_force, seen, watch, hangup, guard, metrics, generation: 0, since };
        reload.applied();
        Ok(reload)
    }

    /// Runs forever, on the control thread; files are read beside it.
    pub(super) async fn run(mut self) {
        let reads_input = self.paths.iter().any(|path| path.as_os_str() == "-");
        loop {
            let asked = tokio::select! {
                () = tokio::time::sleep(INTERVAL) => false,
                _ = self.hangup.recv() => true,
            };
            if reads_input {
                // Standard input can be read once only; what it named belongs together with it.
                if asked {
                    tracing::warn!("SIGHUP: a configuration from standard input cannot be loaded again");
                }
                continue;
            }
            self.look(asked).await;
        }
    }

    /// Loads when a file has changed, or when asked to.
    async fn look(&mut self, asked: bool) {
        let change = self.watch.look();
        if change.is_none() && !asked {
            return;
        }
        let (paths, seen) = (self.paths.clone(), self.seen.clone());
        // What was touched, or written anew as it was, is not parsed again: that would hold everything twice.
        let look = move || (asked || !seen.iter().all(ReadFile::is_unchanged)).then(|| load(&paths, None));
        let loaded = match tokio::task::spawn_blocking(look).await {
            Ok(Some(loaded)) => loaded,
            Ok(None) => {
                if let Some(change) = change {
                    self.watch.judge(change, true);
                }
                return;
            }
            // A panic, which is a bug: the configuration in force stays, and the next change is tried again.
            Err(error) => return self.refused(&[format!("loading it failed: {error}")]),
        };
        let in_order = loaded.ready.is_some();
        let counts = change.is_none_or(|change| self.watch.judge(change, in_order));
        if asked || (counts && loaded.files != self.seen) {
            self.apply(loaded, asked);
        }
    }

    fn apply(&mut self, loaded: Loaded, asked: bool) {
        let Loaded { ready, problems, files } = loaded;
        self.seen = files;
        if ready.is_some() && !asked && of_reload(&self.seen).eq(of_reload(&self.in_force)) {
            return self.settled();
        }
        let problems: Vec<&Problem> = problems.iter().collect();
        log(&problems);
        let outcome = match ready {
            Some((config, assembly)) => self.running.exchange(config, assembly).map_err(|why| vec![why]),
            None => Err(problems.iter().filter(|problem| problem.severity == Severity::Error).map(|problem| in_words(problem)).collect()),
        };
        match outcome {
            Ok(()) => {
                self.in_force = self.seen.clone();
                self.applied();
                tracing::info!(generation = self.generation, "the configuration is loaded anew and in force");
            }
            Err(reasons) => self.refused(&reasons),
        }
    }

    /// What is in force is what the files hold.
    fn settled(&mut self) {
        self.watch.follow(of_reload(&self.in_force).map(|file| file.path.clone()).collect());
        self.guard.remark(self.words());
        self.metrics.configuration_last_reload_successful.set(1);
    }

    fn applied(&mut self) {
        self.generation += 1;
        self.since = Timestamp::now();
        self.metrics.configuration_generation.set(self.generation);
        self.metrics.configuration_last_reload_success.set(self.since.as_second());
        self.settled();
    }

    fn refused(&mut self, reasons: &[String]) {
        // Also what only the refused one names, and what is otherwise followed by others: it may be that which is missing.
        let mut paths: Vec<_> = self.in_force.iter().chain(&self.seen).map(|file| file.path.clone()).collect();
        paths.sort();
        paths.dedup();
        self.watch.follow(paths);
        let errors = reasons.len();
        tracing::error!(errors, generation = self.generation, "the changed configuration is refused: the one before stays in force");
        let (first, more) = (reasons.first().map_or("", String::as_str), errors.saturating_sub(1));
        let and_more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
        let now = to_the_second(Timestamp::now());
        self.guard.remark(format!("{}; the change of {now} is refused: {first}{and_more}", self.words()));
        self.metrics.configuration_last_reload_successful.set(0);
    }

    fn words(&self) -> String {
        format!("generation {}, in force since {}", self.generation, to_the_second(self.since))
    }
}

/// Those whose change is a change of the configuration.
fn of_reload(files: &[ReadFile]) -> impl Iterator<Item = &ReadFile> {
    files.iter().filter(|file| !file.followed_by_others)
}

fn log(problems: &[&Problem]) {
    for problem in problems.iter().take(LOGGED) {
        match problem.severity {
            Severity::Error => tracing::error!("configuration: {}", in_words(problem)),
            Severity::Warning => tracing::warn!("configuration: {}", in_words(problem)),
        }
    }
    if problems.len() > LOGGED {
        tracing::warn!("configuration: {} more problems: doorward check shows them", problems.len() - LOGGED);
    }
}

fn in_words(problem: &Problem) -> String {
    format!("{}: {}", problem.at, problem.message)
}

fn to_the_second(time: Timestamp) -> Timestamp {
    time.round(Unit::Second).unwrap_or(time)
}
