//! The proxy-wasm host: a module in any language presented as a plugin of the chain.
//!
//! `compile` asks [`Modules`] what is ready; `control` has it load what is wanted; the proxy's workers run instances
//! (`worker`). A module is never trusted: memory, time and calls are bounded, and one that breaks is thrown away.
#![forbid(unsafe_code)]

mod artefact;
mod calls;
mod engine;
mod exports;
mod generation;
mod growth;
mod head;
mod host;
mod limits;
mod metrics;
mod modules;
mod pairs;
mod plugin;
mod pump;
mod redis;
mod reply;
mod share;
mod shared;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod vm;
pub mod worker;

pub use generation::{Generation, Shown, Spec};
pub use limits::{Limit, Limits, Room};
pub use modules::{Lookup, Modules};
pub use plugin::WasmPlugin;
