//! What Doorward tells its operator: lines on stderr, at the configured level.
//!
//! Libraries are heard from `warn` upwards only: what they write at `debug` has never been examined for secrets.

use crate::config::LogLevel;
use std::io;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Registry, fmt};

/// Writes diagnostics to stderr from now on. Once a process; later calls change nothing that is written.
pub fn install_diagnostics(level: LogLevel) {
    // An error means that a subscriber is installed already, as in a test binary.
    let _ = tracing::subscriber::set_global_default(to(io::stderr, level));
}

/// The filter is the subscriber's own and never changes: what it silences is then switched off where it stands, once and
/// for all. A filter that can be exchanged is asked at each of h2's some hundred trace points of a call, which cost a
/// seventh of its CPU.
fn to<W>(writer: W, level: LogLevel) -> impl Subscriber + Send + Sync
where
    W: for<'a> fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_writer(writer).with_ansi(false).with_target(false);
    Registry::default().with(lines).with(targets(level))
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
        tracing::subscriber::with_default(to(move || writer.clone(), LogLevel::Info), || {
            tracing::info!("ours is said");
            tracing::debug!("not asked for");
            tracing::info!(target: "h2::codec", "chatter");
            tracing::warn!(target: "h2::codec", "trouble elsewhere");
        });
        let text = sink.text();
        let said = ["ours is said", "trouble elsewhere"];
        assert_eq!(text.lines().count(), said.len(), "{text}");
        for (line, message) in text.lines().zip(said) {
            assert!(line.ends_with(message), "{line}");
        }
    }
}
