//! The data plane: sockets in, requests through the plugin chain, upstream and back.
//!
//! A request, in order of travel:
//! `listener` accepts → `connection` (`http1`, or hyper for h2) → [`request::handle`] → `normalise` → `route` →
//! `gate` → the plugin chain → `forward` (upstream) → `reply` (the only maker of statuses and bodies) →
//! `truncation` (a cut answer never looks whole) → `account` (settled exactly once).
//!
//! One worker per core, each with its own sockets, pools and plugins' futures; nothing here imports configuration
//! formats, and nothing takes a lock that another request can hold across an await.
#![forbid(unsafe_code)]

mod account;
mod alike;
mod array;
mod beside;
mod callout;
mod connection;
mod cors;
mod ending;
mod error_page;
mod forward;
mod gate;
mod grpc;
mod hold;
mod http1;
mod listener;
mod metered;
mod mirror;
mod models;
mod normalise;
mod observer;
mod panic;
mod path;
mod pulse;
mod reply;
mod request;
mod rewrite;
mod route;
mod server;
mod spans;
mod sticky;
mod stream;
mod terminal;
mod tls;
mod tracers;
mod truncation;
mod turn;
mod upgrade;
mod worker;

pub use normalise::host_of;
pub use observer::Observers;
pub use path::resolved as resolved_path;
pub use server::{Options, Running, StartError, start};
