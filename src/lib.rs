//! Doorward, the authenticating sidecar for gRPC. The rooms, lowest layer first; `ARCHITECTURE.md` is the map.

pub mod bell;
pub mod drain;
pub mod grpc;
pub mod http2;
pub mod identity;
pub mod memo;
pub mod quote;
pub mod readiness;
pub mod secret;

pub mod config;

pub mod authorization;
pub mod identity_headers;
pub mod rate_limits;
pub mod telemetry;
pub mod tls;

pub mod api_keys;
pub mod upstream;

pub mod authentication;

pub mod refusal;

pub mod proxy;

pub mod listener;
pub mod operations;

pub mod app;

pub mod cli;
