//! Anthropic Messages: both directions between its dialect and OpenAI's (ai-proxy spec §8).
//!
//! `client_*`: the client speaks Anthropic and the vendor OpenAI. `vendor_*`: the vendor is Anthropic and the client
//! speaks OpenAI. All pure; streams are state machines fed event by event.

mod client_answer;
mod client_request;
mod client_stream;
mod vendor_answer;
mod vendor_request;
mod vendor_stream;
mod wire;

pub use client_answer::answer_for_client;
pub use client_request::{ClientRequest, Thinking, request_from_client};
pub use client_stream::{ClientEvent, ClientStream};
pub use vendor_answer::answer_from_vendor;
pub use vendor_request::request_for_vendor;
pub use vendor_stream::AnthropicStream;
pub use wire::Anthropic;

/// OpenAI's finish reason as Anthropic's stop reason; unknown ones pass.
fn stop_reason(finish_reason: &str) -> &str {
    match finish_reason {
        "stop" => "end_turn",
        "length" => "max_tokens",
        "tool_calls" | "function_call" => "tool_use",
        other => other,
    }
}

/// Anthropic's stop reason as OpenAI's finish reason; unknown ones pass (`refusal`, `pause_turn`).
fn finish_reason(stop_reason: &str) -> &str {
    match stop_reason {
        "end_turn" | "stop_sequence" => "stop",
        "max_tokens" => "length",
        "tool_use" => "tool_calls",
        other => other,
    }
}
