//! What Doorward tells its operator: lines on stderr, at the configured level.
//!
//! Libraries are heard from `warn` upwards only: what they write at `debug` has never been examined for secrets.

use crate::config::LogLevel;
use std::io;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt, reload};

/// The level of the diagnostics, which a reload may change.
#[derive(Debug, Clone)]
pub struct Diagnostics {
    filter: reload::Handle<Targets, Registry>,
}

impl Diagnostics {
    /// Writes diagnostics to stderr from now on. Once a process; later calls change nothing that is written.
    pub fn install(level: LogLevel) -> Diagnostics {
        let (diagnostics, subscriber) = Diagnostics::to(io::stderr, level);
        // An error means that a subscriber is installed already, as in a test binary.
        let _ = tracing::subscriber::set_global_default(subscriber);
        diagnostics
    }

    /// Applies the level of a new configuration.
    pub fn set_level(&self, level: LogLevel) {
        // An error means that the subscriber is gone, and with it whatever could be filtered.
        let _ = self.filter.reload(targets(level));
    }

    fn to<W>(writer: W, level: LogLevel) -> (Diagnostics, impl Subscriber + Send + Sync)
    where
        W: for<'a> fmt::MakeWriter<'a> + Send + Sync + 'static,
    {
        let (filter, handle) = reload::Layer::new(targets(level));
        let lines = fmt::layer().with_writer(writer).with_ansi(false).with_target(false);
        (Diagnostics { filter: handle }, tracing_subscriber::registry().with(filter.and_then(lines)))
    }
}

fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    Targets::new().with_target("doorward", level).with_default(level.min(LevelFilter::WARN))
}

#[cfg(test)]
mod tests {
    use super::super::access_log::tests::Memory;
    use super::*;

    #[test]
    fn a_level_filters_ours_and_libraries_are_quiet() {
        let sink = Memory::default();
        let writer = sink.clone();
        let (diagnostics, subscriber) = Diagnostics::to(move || writer.clone(), LogLevel::Info);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("ours is said");
            tracing::debug!("not asked for");
            tracing::info!(target: "h2::codec", "chatter");
            tracing::warn!(target: "h2::codec", "trouble elsewhere");
            diagnostics.set_level(LogLevel::Debug);
            tracing::debug!("asked for now");
            tracing::debug!(target: "h2::codec", "still chatter");
            diagnostics.set_level(LogLevel::Error);
            tracing::warn!("too mild");
            tracing::warn!(target: "h2::codec", "too mild as well");
        });
        let text = sink.text();
        let said = ["ours is said", "trouble elsewhere", "asked for now"];
        assert_eq!(text.lines().count(), said.len(), "{text}");
        for (line, message) in text.lines().zip(said) {
            assert!(line.ends_with(message), "{line}");
        }
    }
}
