//! Where bytes go, seen from both ends: `Upstreams` on one side, scripted servers on the other.

mod dns;
mod http1;
mod support;
mod timers;
mod tls;
