//! The data plane through its sockets. One binary, so that it is linked once.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
mod edges;
mod ends;
mod path;
