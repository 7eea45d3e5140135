//! The data plane through its sockets. One binary, so that it is linked once.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;
mod edges;
mod ends;
mod guests;
mod path;
