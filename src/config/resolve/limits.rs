//! `limits`, `rate_limits` and `log`.

use crate::config::section::{Field, Section};
use crate::config::values::{A_RATE, A_SIZE, rate, size};
use crate::config::{Limits, Log, LogLevel, RateLimits};
use std::time::Duration;

/// A header list larger than this is beyond what HTTP/2 peers accept, and what a connection's memory bound allows.
const LARGEST_HEADERS: usize = 1 << 20;

/// A header map takes no more than some 24,000 fields, ours included.
const MOST_HEADER_FIELDS: u32 = 10_000;

const MOST: u32 = 1 << 24;

const DEFAULTS: Limits = Limits {
    connections: 10_000,
    streams: 1000,
    header_bytes: 16 * 1024,
    header_fields: 100,
    handshake: Duration::from_secs(10),
    drain_delay: Duration::from_secs(5),
    drain: Duration::from_secs(20),
};

pub(super) fn limits(field: &Field) -> Limits {
    let Some(mut section) = field.section() else { return DEFAULTS };
    let header_bytes = section.field("header_bytes");
    let limits = Limits {
        connections: section.field("connections").number(1, MOST).map_or(DEFAULTS.connections, |n| n as usize),
        streams: section.field("streams").number(1, MOST).unwrap_or(DEFAULTS.streams),
        header_bytes: header_bytes
            .parse(A_SIZE, |text| match size(text)? {
                0 => Err("at least 1KiB"),
                bytes if bytes > LARGEST_HEADERS => Err("at most 1MiB"),
                bytes => Ok(bytes),
            })
            .unwrap_or(DEFAULTS.header_bytes),
        header_fields: section.field("header_fields").number(1, MOST_HEADER_FIELDS).map_or(DEFAULTS.header_fields, |n| n as usize),
        handshake: section.field("handshake").duration(Duration::from_millis(1)).unwrap_or(DEFAULTS.handshake),
        drain_delay: section.field("drain_delay").duration(Duration::ZERO).unwrap_or(DEFAULTS.drain_delay),
        drain: section.field("drain").duration(Duration::ZERO).unwrap_or(DEFAULTS.drain),
    };
    // `none` is what happens without these timers, so it may be written.
    for key in ["stream_idle", "connection_age"] {
        let field = section.field(key);
        if !field.is_none_word() {
            field.not_built();
        }
    }
    section.field("stalled").not_built();
    section.field("connection_idle").not_built();
    section.finish();
    limits
}

pub(super) fn rate_limits(field: &Field) -> RateLimits {
    let Some(mut section) = field.section() else { return RateLimits::default() };
    let mut limit = |key| section.field(key).parse(A_RATE, rate).flatten();
    let (per_identity, failed_authentication_per_peer) = (limit("per_identity"), limit("failed_authentication_per_peer"));
    section.finish();
    RateLimits { per_identity, failed_authentication_per_peer }
}

pub(super) fn log(field: &Field) -> Log {
    let section = field.section();
    section.map_or(Log { level: LogLevel::Info, access: true, explain_refusals: false }, log_section)
}

fn log_section(mut section: Section) -> Log {
    let levels = [("error", LogLevel::Error), ("warn", LogLevel::Warn), ("info", LogLevel::Info), ("debug", LogLevel::Debug)];
    let log = Log {
        level: section.field("level").word(&levels).unwrap_or(LogLevel::Info),
        access: section.field("access").word(&[("json", true), ("none", false)]).unwrap_or(true),
        explain_refusals: section.field("explain_refusals").boolean().unwrap_or(false),
    };
    section.field("otlp").not_built();
    section.finish();
    log
}
