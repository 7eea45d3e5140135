//! Vendors: the table of rows, a provider as configured, and what a request to one looks like.
//!
//! `table` says what is known of each vendor, `config` compiles one `provider` object against its row, `head` and
//! `request` make the upstream request, `wire` is the seam for wire formats that are not OpenAI's.

mod azure;
pub mod config;
pub mod context_file;
pub mod custom_settings;
pub mod edits;
mod head;
pub mod model_mapping;
pub mod multipart;
pub mod request;
pub mod row;
mod set_up;
pub mod table;
pub mod tokens;
pub mod wire;

pub use config::{Protocol, Provider};
