//! Doorward, the authenticating sidecar for gRPC. The rooms, lowest layer first; `ARCHITECTURE.md` is the map.

pub mod api_keys;
pub mod authorization;
pub mod config;
pub mod grpc;
pub mod identity;
pub mod identity_headers;
pub mod secret;
pub mod tls;
