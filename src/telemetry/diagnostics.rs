//! What Doorward tells its operator: lines on stderr, at the configured level.
//!
//! Libraries are heard from `warn` upwards only: what they write at `debug` has never been examined for secrets. The HTTP/2 library
//! is not heard at all: it warns of what peers do as often as they do it (a line for each PING acknowledged that was never sent).

use crate::config::LogLevel;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, Subscriber, callsite};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::{Layer, Registry, fmt};

/// The level of what is written, which may be changed. Clones change the same.
#[derive(Clone, Debug)]
pub struct Diagnostics(Arc<AtomicU8>);

impl Diagnostics {
    /// Writes diagnostics to stderr from now on. Once a process; later calls change nothing that is written.
    pub fn install(level: LogLevel) -> Diagnostics {
        let diagnostics = Diagnostics::at(level);
        // An error means that a subscriber is installed already, as in a test binary.
        let _ = tracing::subscriber::set_global_default(diagnostics.to(io::stderr));
        diagnostics
    }

    /// Writes what is at least this severe from now on.
    pub fn set_level(&self, level: LogLevel) {
        self.0.store(level as u8, Ordering::Relaxed);
        callsite::rebuild_interest_cache();
    }

    fn at(level: LogLevel) -> Diagnostics {
        Diagnostics(Arc::new(AtomicU8::new(level as u8)))
    }

    fn to<W>(&self, writer: W) -> impl Subscriber + Send + Sync + use<W>
    where
        W: for<'a> fmt::MakeWriter<'a> + Send + Sync + 'static,
    {
        let lines = fmt::layer().with_writer(writer).with_ansi(false).with_target(false);
        Registry::default().with(lines).with(Threshold(self.clone()))
    }

    fn ours(&self) -> LevelFilter {
        match self.0.load(Ordering::Relaxed) {
            level if level == LogLevel::Error as u8 => LevelFilter::ERROR,
            level if level == LogLevel::Warn as u8 => LevelFilter::WARN,
            level if level == LogLevel::Info as u8 => LevelFilter::INFO,
            _ => LevelFilter::DEBUG,
        }
    }

    fn takes(&self, target: &str, level: &Level) -> bool {
        let ours = self.ours();
        let is_of = |name| target.strip_prefix(name).is_some_and(|rest: &str| rest.is_empty() || rest.starts_with("::"));
        let most = if is_of("doorward") {
            ours
        } else if is_of("h2") {
            LevelFilter::OFF
        } else {
            ours.min(LevelFilter::WARN)
        };
        *level <= most
    }
}

/// Answers for each trace point once and for all, until the level changes: what is off is then switched off where it
/// stands. A filter that is asked at each of h2's some hundred trace points of a call costs a seventh of its CPU.
struct Threshold(Diagnostics);

impl<S: Subscriber> Layer<S> for Threshold {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.0.takes(metadata.target(), metadata.level()) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.0.takes(metadata.target(), metadata.level())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0.ours())
    }
}

#[cfg(test)]
mod tests {
    use super::super::access_log::tests::Memory;
    use super::*;

    #[test]
    fn a_level_filters_ours_and_libraries_are_quiet() {
        let sink = Memory::default();
        let writer = sink.clone();
        let diagnostics = Diagnostics::at(LogLevel::Info);
        tracing::subscriber::with_default(diagnostics.to(move || writer.clone()), || {
            tracing::info!("ours is said");
            tracing::debug!("not asked for");
            tracing::info!(target: "hyper::client", "chatter");
            tracing::warn!(target: "hyper::client", "trouble elsewhere");
            tracing::warn!(target: "h2::proto::ping_pong", "what a peer has done");
        });
        let text = sink.text();
        let said = ["ours is said", "trouble elsewhere"];
        assert_eq!(text.lines().count(), said.len(), "{text}");
        for (line, message) in text.lines().zip(said) {
            assert!(line.ends_with(message), "{line}");
        }
    }
    #[test]
    fn the_level_may_change() {
        let sink = Memory::default();
        let writer = sink.clone();
        let diagnostics = Diagnostics::at(LogLevel::Error);
        tracing::subscriber::with_default(diagnostics.to(move || writer.clone()), || {
            let say = |text| tracing::debug!("{text}");
            say("not asked for");
            diagnostics.set_level(LogLevel::Debug);
            say("asked for");
            diagnostics.set_level(LogLevel::Warn);
            say("no more");
        });
        let text = sink.text();
        assert!(text.ends_with("asked for\n") && text.lines().count() == 1, "{text}");
    }
}
