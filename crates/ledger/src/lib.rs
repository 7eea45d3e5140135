//! The usage ledger: one row a request in an embedded SQLite file, written behind the data path and read by
//! `tollgate usage`.
//!
//! Order of travel: [`Ledger`] takes an [`Entry`](tollgate_observe::Entry) from a worker at settlement → `queue` →
//! `writer`, a thread of its own → `store`, which adds `rows` (`names` holds what they have in common, `sums` their rollups)
//! in one transaction and prunes them. `query` reads the same file, from any process. Nothing here is waited for by a request.
#![forbid(unsafe_code)]

mod conversation;
mod failure;
mod ledger;
mod names;
mod query;
mod queue;
mod retention;
mod rows;
mod schema;
mod sink;
mod store;
mod sums;
mod writer;

#[cfg(test)]
mod tests;

pub use conversation::Turn;
pub use ledger::Ledger;
pub use query::{Column, Question, ReadError, Reader, Value};
