//! The built-in plugins: one folder each, one row each in [`table`].
//!
//! `compile` looks a plugin up by name and has each config parsed once; the chain then only knows `dyn Plugin`.
#![forbid(unsafe_code)]

pub mod table;

mod ai_agent;
mod ai_budget;
mod ai_json_resp;
mod ai_prompt_decorator;
mod ai_prompt_template;
mod ai_proxy;
mod ai_quota;
mod ai_statistics;
mod ai_token_ratelimit;
mod answer_watch;
mod auth_rules;
mod basic_auth;
mod bot_detect;
mod callee;
mod chatgpt_proxy;
mod cluster_key_rate_limit;
mod consumers;
mod cors;
mod credentials;
mod ext_auth;
mod framing;
mod go_json;
mod hmac_auth;
mod hmac_auth_apisix;
#[cfg(test)]
mod idle_cost;
mod ip_restriction;
mod jwt;
mod jwt_auth;
mod key_auth;
mod key_rate_limit;
mod limits;
mod local_reply;
mod model_list;
mod network;
mod query;
mod readable;
mod request_block;
mod rounds;
#[cfg(test)]
mod scene;
mod signing;
mod simple_jwt_auth;
mod spellings;
mod strict;
#[cfg(test)]
mod test_chain;
mod token_usage;
mod whole_match;

#[cfg(test)]
mod testing;

pub use table::{Field, Parse, ParseContext, ROWS, Row, find};

/// For the public test suite of JSON Schema: what `ai-json-resp` finds wrong with a value.
///
/// # Errors
/// Why the schema cannot be compiled, or what is wrong with the value.
#[doc(hidden)]
pub fn schema_fault(schema: &serde_json::Value, instance: &serde_json::Value) -> Result<(), String> {
    ai_json_resp::schema_fault(schema, instance)
}
