//! Modules in WAT run through the chain: each host call with its statuses, each way a message can be held, and each way
//! a module can break.

mod calls;
mod faults;
mod flow;
pub(crate) mod harness;
mod host_calls;
mod life;
mod speed;
