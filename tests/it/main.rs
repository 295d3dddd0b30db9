//! The integration tests: the real binary between real peers. One module a subject, each test named after the line it proves.
#![allow(missing_docs, unreachable_pub)] // nothing here is anybody's interface
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a panic is how a test fails, in its helpers too

mod harness; // the binary, the Python peers, the hostile peers
