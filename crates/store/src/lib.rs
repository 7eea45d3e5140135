//! Counters that outlive a request and may be shared between gateways: one trait, two homes.
//!
//! [`Memory`] is exact on one machine and always there; Redis is shared, and used where the configuration or `--redis`
//! says so. Plugins get a [`Store`] from [`Stores`] when their config is compiled and never know which home it is.
//! Nothing is connected before the first request needs it. Failures are values: what becomes of the request is the
//! plugin's business.
#![forbid(unsafe_code)]

mod memory;
mod place;
mod redis;
mod store;
mod stores;

pub use memory::Memory;
pub use place::{Identity, Place, Places, Surroundings, Tls, Trust};
pub use redis::Address;
pub use redis::Settings;
pub use store::{Count, Failure, Reservation, Settlement, Store};
pub use stores::Stores;
