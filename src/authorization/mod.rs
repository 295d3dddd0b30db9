//! MAY THEY: who may call which method, compiled once a configuration generation from roles, assignments and rules.
//!
//! [`Policy::route`] finds the rule of a method, [`Policy::grants`] works out what a caller holds (once a verified
//! credential), [`Policy::authorize`] compares the two and gives a [`Permit`], without which nothing is forwarded.

mod decision;
mod explain;
mod matcher;
mod permissions;
mod policy;

pub use decision::{Denied, Permit};
pub use policy::{Grants, Policy, Route, RouteLabels};
