//! Doorward, the authenticating sidecar for gRPC. The rooms, lowest layer first; `ARCHITECTURE.md` is the map.

pub mod grpc;
pub mod identity;
pub mod secret;

pub mod config;

pub mod authorization;
pub mod identity_headers;

pub mod api_keys;

pub mod authentication;
