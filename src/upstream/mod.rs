//! THE REAL SERVER: the service behind us.

pub mod exposure;
