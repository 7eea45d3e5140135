//! The control loop: sources → kinds → compile → publish. Slow is fine here; it never sees a request.
//!
//! A broken document hurts only itself: its last good version stays in force, with a diagnostic.
#![forbid(unsafe_code)]

mod controller;
mod directory;
mod dump;
mod last_good;
mod mend;

pub use controller::{Controller, Options, Status, Substitute};
pub use directory::{Directory, SourceFile};
pub use dump::config_dump;
