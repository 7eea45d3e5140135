//! Black-box scenarios: each starts the real binary on free ports with a mock vendor of its own behind it, and looks
//! only at what a client, an operator or the vendor sees. They run in parallel and share nothing.

#[cfg(test)]
mod aborted_streams;
#[cfg(test)]
mod accounts;
#[cfg(test)]
mod admin;
#[cfg(test)]
mod ai_statistics;
#[cfg(test)]
mod auth_family;
#[cfg(test)]
mod bad_documents;
#[cfg(test)]
mod bad_requests;
#[cfg(test)]
mod bodies;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod collectors;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod connections;
#[cfg(test)]
mod dashboard;
#[cfg(test)]
mod document_000;
#[cfg(test)]
mod document_000_agent;
#[cfg(test)]
mod document_000_json;
#[cfg(test)]
mod document_002;
#[cfg(test)]
mod examples;
#[cfg(test)]
mod ext_auth;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod key_auth;
#[cfg(test)]
mod ledger;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod mirror;
#[cfg(test)]
mod policies;
#[cfg(test)]
mod prompts;
#[cfg(test)]
mod protocols;
#[cfg(test)]
mod rate_limits;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod routing;
#[cfg(test)]
mod service;
#[cfg(test)]
mod shutdown;
#[cfg(test)]
mod small_disk;
#[cfg(test)]
mod statistics_documents;
#[cfg(test)]
mod statistics_endings;
#[cfg(test)]
mod statistics_fallbacks;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod support;
#[cfg(test)]
mod timers;
#[cfg(test)]
mod tls_clients;
#[cfg(test)]
mod tls_upstream;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod traces;
#[cfg(test)]
mod usage;
#[cfg(test)]
mod wasm;
#[cfg(test)]
mod wasm_differential;
#[cfg(test)]
mod wasm_languages;
#[cfg(test)]
mod wasm_page;
#[cfg(test)]
mod wasm_registry;
#[cfg(test)]
mod wasm_swaps;
