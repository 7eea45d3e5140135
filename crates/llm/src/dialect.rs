//! The client's dialect, and what an error of our own looks like in it.
//!
//! A buffered error becomes [`error_body`]; a stream that cannot go on ends in [`stream_error_event`], which no SDK
//! takes for a success. Vendor errors are never rewritten here: they keep the vendor's status and body.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use crate::Api;

/// How a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// OpenAI's; the default of everything under `/v1/` that is not another one's.
    #[default]
    OpenAi,
    /// Anthropic Messages.
    Anthropic,
}

impl Dialect {
    /// The dialect of an API.
    #[must_use]
    pub fn of_api(api: Api) -> Dialect {
        match api {
            Api::AnthropicMessages | Api::AnthropicComplete => Dialect::Anthropic,
            _ => Dialect::OpenAi,
        }
    }

    /// The dialect of a decoded path without query; `None` if the path names no LLM API.
    #[must_use]
    pub fn of_path(path: &str) -> Option<Dialect> {
        Api::of_path(path).map(Self::of_api)
    }
}

/// JSON body of an error of our own. `code` is a word with few values (`upstream_cut`), `None` leaves it null.
#[must_use]
pub fn error_body(dialect: Dialect, status: StatusCode, message: &str, code: Option<&str>) -> Bytes {
    error_value(dialect, status, message, code).to_string().into()
}

/// SSE event that ends a stream which has already begun. No `[DONE]`, no `message_stop` may follow it.
#[must_use]
pub fn stream_error_event(dialect: Dialect, message: &str, code: &str) -> Bytes {
    let status = if code.contains("timeout") {
        StatusCode::GATEWAY_TIMEOUT
    } else {
        StatusCode::BAD_GATEWAY
    };
    let error = error_value(dialect, status, message, Some(code));
    match dialect {
        Dialect::OpenAi => format!("data: {error}\n\n").into(),
        Dialect::Anthropic => format!("event: error\ndata: {error}\n\n").into(),
    }
}

/// The error as JSON: `{"error":{"message","type","param","code"}}`, or Anthropic's `{"type":"error","error":{…}}`.
#[must_use]
pub fn error_value(dialect: Dialect, status: StatusCode, message: &str, code: Option<&str>) -> Value {
    match dialect {
        Dialect::OpenAi => json!({"error": {
            "message": message, "type": openai_type(status), "param": null, "code": code,
        }}),
        Dialect::Anthropic => json!({"type": "error", "error": {
            "type": anthropic_type(status), "message": message,
        }}),
    }
}

fn openai_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        504 => "timeout_error",
        _ => "server_error",
    }
}

fn anthropic_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        504 => "timeout_error",
        503 | 529 => "overloaded_error",
        _ => "api_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        let openai = error_body(
            Dialect::OpenAi,
            StatusCode::BAD_REQUEST,
            "no \"json\"",
            Some("bad_json"),
        );
        assert_eq!(
            openai,
            r#"{"error":{"message":"no \"json\"","type":"invalid_request_error","param":null,"code":"bad_json"}}"#
        );
        let anthropic = stream_error_event(Dialect::Anthropic, "gone", "upstream_cut");
        assert_eq!(
            anthropic,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"gone\"}}\n\n"
        );
        let timeout = stream_error_event(Dialect::OpenAi, "slow", "timeout_silence");
        assert!(timeout.starts_with(b"data: {\"error\":{\"message\":\"slow\",\"type\":\"timeout_error\""));
    }

    #[test]
    fn dialect_follows_the_path() {
        assert_eq!(Dialect::of_path("/x/v1/messages"), Some(Dialect::Anthropic));
        assert_eq!(Dialect::of_path("/v1/chat/completions"), Some(Dialect::OpenAi));
        assert_eq!(Dialect::of_path("/health"), None);
    }
}
