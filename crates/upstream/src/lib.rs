//! Where bytes go: names, TLS, connection pools, balancing, health and timers of the upstream side.
//!
//! One [`Upstreams`] per worker thread (single-threaded, on a local runtime); one [`Shared`] per process for what
//! workers have in common: resolved names, TLS configurations, `--resolve` overrides, counters. The proxy calls
//! [`Upstreams::send`] once per attempt and decides about retries itself; nothing here knows routes or plugins.
//!
//! What `send` expects of a request: `uri()` carries the authority to send and the path (`Host` is made from it, an
//! existing one is replaced); hop-by-hop headers are already gone, except `te: trailers` and, for an upgrade,
//! `connection: upgrade` with `upgrade`.
#![forbid(unsafe_code)]

mod alarm;
mod balance;
mod dial;
mod dns;
mod endpoint;
mod exports;
mod failure;
mod http1;
mod http2;
mod outgoing;
mod outside;
mod pool;
mod resolve;
mod shared;
mod stream;
mod timed;
mod timers;
mod tls;
mod tunnel;
mod upgrade;
mod upstreams;
mod waiting;

#[cfg(test)]
mod tests;

pub use balance::{Chosen, StickyKey};
pub use dns::Nameservers;
pub use exports::{Exports, Target};
pub use outside::{OutsideError, Reach};
pub use resolve::Override;
pub use shared::{Options, Shared};
pub use timers::SendTimers;
pub use tls::check as check_tls;
pub use upstreams::Upstreams;
