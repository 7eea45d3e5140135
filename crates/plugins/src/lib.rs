//! The built-in plugins: one folder each, one row each in [`table`].
//!
//! `compile` looks a plugin up by name and has each config parsed once; the chain then only knows `dyn Plugin`.
#![forbid(unsafe_code)]

pub mod table;

mod ai_json_resp;
mod ai_proxy;
mod ai_statistics;
mod answer_watch;
mod auth_rules;
mod credentials;
mod go_json;
mod key_auth;
mod key_rate_limit;
mod limit_window;
mod local_reply;
mod query;
mod rounds;
#[cfg(test)]
mod scene;
mod strict;
#[cfg(test)]
mod test_chain;
mod token_usage;

#[cfg(test)]
mod testing;

pub use table::{Field, Parse, ParseContext, ROWS, Row, find};
