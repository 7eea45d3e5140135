//! The answer that the client gets after tools were used (plugins spec §3.6): the first completion with another text.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tollgate_body::{Body, Response};

/// The text of a completion's first choice; `None` when it is no completion or says nothing.
pub(super) fn content(completion: &Value) -> Option<&str> {
    let text = completion.pointer("/choices/0/message/content")?.as_str()?;
    (!text.is_empty()).then_some(text)
}

/// One whole answer.
pub(super) fn whole(mut response: Response, mut completion: Value, text: &str) -> Response {
    if let Some(message) = completion.pointer_mut("/choices/0/message") {
        *message = json!({"role": "assistant", "content": text});
    }
    response.headers_mut().remove(CONTENT_LENGTH);
    *response.body_mut() = Body::bytes(completion.to_string());
    response
}

/// A stream of one event, for a client that asked for a stream.
pub(super) fn streamed(mut response: Response, completion: &Value, text: &str) -> Response {
    let member = |name: &str| completion.get(name).cloned().unwrap_or(Value::Null);
    let tokens = |name: &str| {
        completion
            .pointer(&format!("/usage/{name}"))
            .cloned()
            .unwrap_or_else(|| json!(0))
    };
    let event = json!({
        "id": member("id"),
        "choices": [{
            "index": 0,
            "delta": {"role": "assistant", "content": text.trim_matches('"')},
            "finish_reason": "stop"
        }],
        "model": member("model"),
        "object": "chat.completion",
        "usage": {
            "prompt_tokens": tokens("prompt_tokens"),
            "completion_tokens": tokens("completion_tokens"),
            "total_tokens": tokens("total_tokens")
        }
    });
    let mut headers = HeaderMap::new();
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    headers.insert(CONTENT_TYPE, kind);
    *response.headers_mut() = headers;
    *response.body_mut() = Body::bytes(format!("data:{event}\n\ndata:[DONE]\n\n"));
    response
}

/// The JSON object in a text, else the text.
pub(super) fn json_in(text: &str) -> &str {
    let bounds = text
        .find('{')
        .zip(text.rfind('}'))
        .filter(|(start, end)| start < end);
    let object = bounds.and_then(|(start, end)| text.get(start..=end));
    object
        .filter(|object| crate::go_json::check(object.as_bytes()).is_ok())
        .unwrap_or(text)
}
