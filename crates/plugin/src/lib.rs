//! The plugin contract: an onion of plain async functions around the upstream.
//!
//! `proxy` builds the [`Exchange`] and runs a route's links through [`Next`]; `plugins` and `wasm` implement
//! [`Plugin`]. Rules are chosen here, never merged: each config was compiled once per rule.
#![forbid(unsafe_code)]

mod chain;
mod credential;
mod exchange;
mod phase;
mod rule;

pub use chain::{Candidate, Condition, Link, Next, Origin, Plugin, Running};
pub use credential::CredentialPlace;
pub use exchange::{Caller, Exchange, Host, Money, cluster_name, unknown_cluster};
pub use phase::{Order, Phase};
pub use rule::{DomainPattern, ServicePattern};
