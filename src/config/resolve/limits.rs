//! `limits`, `rate_limits` and `log`.

use crate::config::section::{Field, Section};
use crate::config::values::{A_COLLECTOR, A_RATE, A_SIZE, collector, rate, size};
use crate::config::{Limits, Log, LogLevel, RateLimits};
use std::time::Duration;

/// A header list larger than this is beyond what HTTP/2 peers accept, and what a connection's memory bound allows.
const LARGEST_HEADERS: usize = 1 << 20;

/// A header map takes no more than some 24,000 fields, ours included.
const MOST_HEADER_FIELDS: u32 = 10_000;

const MOST: u32 = 1 << 24;

pub(super) fn limits(field: &Field) -> Limits {
    let defaults = Limits::default();
    let Some(mut section) = field.section() else { return defaults };
    let header_bytes = section.field("header_bytes");
    let limits = Limits {
        connections: section.field("connections").number(1, MOST).map_or(defaults.connections, |n| n as usize),
        streams: section.field("streams").number(1, MOST).unwrap_or(defaults.streams),
        header_bytes: header_bytes
            .parse(A_SIZE, |text| match size(text)? {
                0 => Err("at least 1KiB"),
                bytes if bytes > LARGEST_HEADERS => Err("at most 1MiB"),
                bytes => Ok(bytes),
            })
            .unwrap_or(defaults.header_bytes),
        header_fields: section.field("header_fields").number(1, MOST_HEADER_FIELDS).map_or(defaults.header_fields, |n| n as usize),
        handshake: section.field("handshake").duration(Duration::from_millis(1)).unwrap_or(defaults.handshake),
        stream_idle: duration_or_none(&section.field("stream_idle"), defaults.stream_idle),
        stalled: section.field("stalled").duration(Duration::from_millis(1)).unwrap_or(defaults.stalled),
        connection_idle: duration_or_none(&section.field("connection_idle"), defaults.connection_idle),
        connection_age: duration_or_none(&section.field("connection_age"), defaults.connection_age),
        drain_delay: section.field("drain_delay").duration(Duration::ZERO).unwrap_or(defaults.drain_delay),
        drain: section.field("drain").duration(Duration::ZERO).unwrap_or(defaults.drain),
    };
    section.finish();
    limits
}

/// The field's value when it is there.
fn duration_or_none(field: &Field, default: Option<Duration>) -> Option<Duration> {
    if field.is_set() { field.duration_or_none() } else { default }
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
    section.map_or(Log { level: LogLevel::Info, access: true, explain_refusals: false, otlp: None }, log_section)
}

fn log_section(mut section: Section) -> Log {
    let levels = [("error", LogLevel::Error), ("warn", LogLevel::Warn), ("info", LogLevel::Info), ("debug", LogLevel::Debug)];
    let log = Log {
        level: section.field("level").word(&levels).unwrap_or(LogLevel::Info),
        access: section.field("access").word(&[("json", true), ("none", false)]).unwrap_or(true),
        explain_refusals: section.field("explain_refusals").boolean().unwrap_or(false),
        otlp: section.field("otlp").hiding_userinfo().parse(A_COLLECTOR, collector),
    };
    section.finish();
    log
}
