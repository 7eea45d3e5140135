//! Ground of every crate: amounts of money, errors that know whose fault they are, the clock, ids, header names, owned tasks, shutdown.
//!
//! Nothing here knows HTTP servers, plugins or configuration.
#![forbid(unsafe_code)]

pub mod address;
pub mod amount;
pub mod clock;
pub mod config_error;
pub mod error;
pub mod flag;
pub mod headers;
pub mod id;
pub mod secret;
pub mod shutdown;
pub mod task;
pub mod termination;

pub use amount::Amount;
pub use config_error::ConfigError;
pub use error::{Error, Fault, Retry};
pub use flag::Flag;
pub use secret::Secret;
pub use shutdown::Shutdown;
pub use termination::{Termination, Timer};
