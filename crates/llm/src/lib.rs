//! LLM wire formats and vendors: which API a path names, what each vendor wants, and every translation between dialects.
//!
//! Pure: bytes and JSON in, bytes and JSON out. It knows no HTTP server, no plugin and no configuration file; the
//! `ai-proxy` plugin drives it. A vendor that speaks OpenAI's dialect is one row of [`providers::table`].
#![forbid(unsafe_code)]

pub mod anthropic;
pub mod api;
pub mod cleanup;
pub mod dashscope;
pub mod dialect;
#[cfg(test)]
mod goldens;
pub mod lenient;
pub mod openai;
pub mod path;
pub mod promote;
pub mod providers;
pub mod translate;
pub mod usage;

pub use api::Api;
pub use dialect::Dialect;
pub use usage::Usage;
