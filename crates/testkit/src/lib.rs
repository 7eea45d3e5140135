//! For tests only: a plain HTTP client that hides nothing, and the gateway's binary as a child process.
#![forbid(unsafe_code)]

pub mod client;
pub mod codings;
pub mod process;
pub mod redis;
