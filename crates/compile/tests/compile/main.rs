//! The compiler from outside: documents in, world and diagnostics out.
#![expect(clippy::unwrap_used, reason = "a broken fixture should stop the test")]

mod certificates;
mod damage;
mod explain;
mod first_document;
mod reload;
mod scenarios;
mod size;
mod support;
