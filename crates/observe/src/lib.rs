//! Sight: what is recorded of a request, the access log and metrics made of it.
//!
//! The data path writes into a [`Record`] and counters; formatting and I/O happen elsewhere. Knows no plugin.
#![forbid(unsafe_code)]

pub mod record;

pub use record::Record;
