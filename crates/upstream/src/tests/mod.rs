//! Where bytes go, seen from both ends: `Upstreams` on one side, scripted servers on the other.

mod http1;
mod support;
