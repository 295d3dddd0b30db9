//! Doorward, the authenticating sidecar for gRPC. The rooms, lowest layer first; `ARCHITECTURE.md` is the map.

pub mod config;
pub mod drain;
pub mod grpc;
pub mod identity;
pub mod operations;
pub mod readiness;
pub mod secret;
pub mod telemetry;
pub mod upstream;
