//! Management: the admin endpoints for probes and scrapers.
//!
//! Runs on the background runtime; never on a data-plane thread.
#![forbid(unsafe_code)]

pub mod admin;
