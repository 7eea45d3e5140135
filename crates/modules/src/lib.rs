//! Where plugin modules come from: registries, web servers and files, checked before they are believed.
//!
//! Runs on the background runtime only. `wasm` asks for bytes by URL; what is done with them is not known here, and
//! nothing here is reached by a request.
#![forbid(unsafe_code)]

mod ask;
mod cache;
mod digest;
mod fetcher;
mod login;
mod reference;
mod registry;
#[cfg(test)]
mod tests;
mod unpack;

pub use digest::sha256_hex;
pub use fetcher::{Fetched, Fetcher, Mirror, Options, PullPolicy, Wanted};
pub use login::Logins;
