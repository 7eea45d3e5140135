//! Where bytes go, seen from both ends: `Upstreams` on one side, scripted servers on the other.

mod balance;
mod dns;
mod edges;
mod http1;
mod http2;
mod outside;
mod support;
mod timers;
mod tls;
mod tunnel;
mod upgrade;
