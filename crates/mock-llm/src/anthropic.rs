//! Anthropic's wire format.

use http::StatusCode;
use serde_json::{Value, json};

use crate::dialect::request_id;

/// An error object: `{"type":"error","error":{"type","message"},"request_id"}`.
pub(crate) fn error(status: StatusCode, message: &str, hash: u64) -> Value {
    let kind = match status.as_u16() {
        400 | 409 | 422 => "invalid_request_error",
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        408 | 504 => "timeout_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    json!({ "type": "error", "error": { "type": kind, "message": message }, "request_id": request_id(hash) })
}
