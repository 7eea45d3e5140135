//! Which wire format a path speaks, and that format's error object.
//!
//! A path is known by its end, so that the prefixes of all compatible vendors work (`/compatible-mode/v1/…`,
//! `/api/v3/…`, `/api/paas/v4/…`, `/openai/v1/…`). Paths that no vendor has belong to the plain endpoints.

use http::{StatusCode, Uri};
use serde_json::{Value, json};

use crate::hash::uuid;
use crate::{anthropic, gemini, openai};

/// A vendor's endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Chat,
    Completions,
    Embeddings,
    Models,
    Responses,
    Images,
    Messages,
    CountTokens,
    DashScopeGeneration,
    DashScopeEmbeddings,
    Gemini,
    /// Gemini's stream as an array, which it is unless events are asked for.
    GeminiArray,
    GeminiEvents,
}

/// Ends of paths, the longer ones first where one ends like another.
const ENDPOINTS: &[(&str, Endpoint)] = &[
    (":generateContent", Endpoint::Gemini),
    (":streamGenerateContent", Endpoint::GeminiArray),
    ("/chat/completions", Endpoint::Chat),
    ("/text/chatcompletion_v2", Endpoint::Chat),
    ("/completions", Endpoint::Completions),
    ("/text-embedding/text-embedding", Endpoint::DashScopeEmbeddings),
    ("/embeddings", Endpoint::Embeddings),
    ("/models", Endpoint::Models),
    ("/responses", Endpoint::Responses),
    ("/images/generations", Endpoint::Images),
    ("/messages/count_tokens", Endpoint::CountTokens),
    ("/messages", Endpoint::Messages),
    ("/text-generation/generation", Endpoint::DashScopeGeneration),
    ("/multimodal-generation/generation", Endpoint::DashScopeGeneration),
];

/// The endpoint of a request; `None` when no vendor has such a path.
pub(crate) fn endpoint(uri: &Uri) -> Option<Endpoint> {
    let is_sse = |query: &str| query.split('&').any(|part| part == "alt=sse");
    match of_path(uri.path()) {
        Some(Endpoint::GeminiArray) if uri.query().is_some_and(is_sse) => Some(Endpoint::GeminiEvents),
        other => other,
    }
}

fn of_path(path: &str) -> Option<Endpoint> {
    let by_end = ENDPOINTS.iter().find(|(end, _)| path.ends_with(end));
    match by_end {
        Some((_, endpoint)) => Some(*endpoint),
        None => path.contains("/v1/models/").then_some(Endpoint::Models),
    }
}

/// An error in the shape of the endpoint's vendor; plain endpoints use OpenAI's.
pub(crate) fn error(endpoint: Option<Endpoint>, status: StatusCode, message: &str, hash: u64) -> Value {
    match endpoint {
        Some(Endpoint::Messages | Endpoint::CountTokens) => anthropic::error(status, message, hash),
        Some(Endpoint::DashScopeGeneration | Endpoint::DashScopeEmbeddings) => {
            json!({ "code": dashscope_code(status), "message": message, "request_id": uuid(hash) })
        }
        Some(Endpoint::Gemini | Endpoint::GeminiEvents) => gemini::error(status, message),
        Some(Endpoint::GeminiArray) => json!([gemini::error(status, message)]),
        _ => openai::error(status, message),
    }
}

/// DashScope's error codes (its "error codes" page) by status.
pub(crate) fn dashscope_code(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 | 413 | 422 => "InvalidParameter",
        401 => "InvalidApiKey",
        402 => "Arrearage",
        403 => "AccessDenied",
        404 => "ModelNotFound",
        408 | 504 => "RequestTimeOut",
        409 => "Conflict",
        429 => "Throttling.RateQuota",
        503 | 529 => "ServiceUnavailable",
        _ => "InternalError",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_known_by_its_end() {
        for (path, expected) in [
            ("/v1/chat/completions", Some(Endpoint::Chat)),
            ("/compatible-mode/v1/chat/completions", Some(Endpoint::Chat)),
            ("/api/v3/chat/completions", Some(Endpoint::Chat)),
            ("/api/paas/v4/chat/completions", Some(Endpoint::Chat)),
            ("/openai/v1/chat/completions", Some(Endpoint::Chat)),
            ("/openai/deployments/gpt/chat/completions", Some(Endpoint::Chat)),
            ("/v1/completions", Some(Endpoint::Completions)),
            ("/v1/models", Some(Endpoint::Models)),
            ("/v1/models/org/name", Some(Endpoint::Models)),
            ("/v1/messages", Some(Endpoint::Messages)),
            ("/apps/anthropic/v1/messages", Some(Endpoint::Messages)),
            ("/v1/messages/count_tokens", Some(Endpoint::CountTokens)),
            (
                "/api/v1/services/aigc/text-generation/generation",
                Some(Endpoint::DashScopeGeneration),
            ),
            (
                "/api/v1/services/embeddings/text-embedding/text-embedding",
                Some(Endpoint::DashScopeEmbeddings),
            ),
            (
                "/api/v1/services/aigc/multimodal-generation/generation",
                Some(Endpoint::DashScopeGeneration),
            ),
            (
                "/v1beta/models/gemini-2.5-flash:generateContent",
                Some(Endpoint::Gemini),
            ),
            ("/v1/models/m:streamGenerateContent", Some(Endpoint::GeminiArray)),
            (
                "/v1/models/m:streamGenerateContent?key=k&alt=sse",
                Some(Endpoint::GeminiEvents),
            ),
            ("/echo", None),
            ("/", None),
        ] {
            assert_eq!(endpoint(&Uri::from_static(path)), expected, "{path}");
        }
    }
}
