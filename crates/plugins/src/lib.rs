//! The built-in plugins: one folder each, one row each in [`table`].
//!
//! `compile` looks a plugin up by name and has each config parsed once; the chain then only knows `dyn Plugin`.
#![forbid(unsafe_code)]

pub mod table;

mod ai_proxy;
mod ai_statistics;
mod token_usage;

pub use table::{Field, Parse, ParseContext, ROWS, Row, find};
