//! OpenAI's buffered answer for a Claude client (ai-proxy spec §8.2).

use serde_json::{Map, Value, json};

use super::stop_reason;

/// Translates the answer; only the first choice counts.
///
/// # Errors
/// The text after `failed to convert response to claude format: `, when the answer is no JSON object.
pub fn answer_for_client(answer: &[u8]) -> Result<Value, String> {
    let whole: Map<String, Value> = serde_json::from_slice(answer)
        .map_err(|cause| format!("unable to unmarshal openai response: {cause}"))?;
    let null = Value::Null;
    let choice = whole
        .get("choices")
        .and_then(|choices| choices.get(0))
        .unwrap_or(&null);
    let reason = choice["finish_reason"].as_str().map(stop_reason);
    Ok(json!({
        "id": whole.get("id").unwrap_or(&null),
        "type": "message",
        "role": "assistant",
        "content": content(&choice["message"]),
        "model": whole.get("model").unwrap_or(&null),
        "stop_reason": reason,
        "stop_sequence": null,
        "usage": usage(whole.get("usage").unwrap_or(&null)),
        "error": null,
    }))
}

fn content(message: &Value) -> Vec<Value> {
    let mut blocks = Vec::new();
    if let Some(thinking) = reasoning(message) {
        blocks.push(json!({"type": "thinking", "signature": "", "thinking": thinking}));
    }
    if let Some(text) = message["content"].as_str().filter(|text| !text.is_empty()) {
        blocks.push(json!({"type": "text", "text": text}));
    }
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        let name = call["function"]["name"].as_str().unwrap_or_default();
        let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
        if name.is_empty() && arguments.is_empty() {
            continue;
        }
        let input = serde_json::from_str::<Map<String, Value>>(arguments).unwrap_or_default();
        blocks.push(json!({"type": "tool_use", "id": call["id"], "name": name, "input": input}));
    }
    blocks
}

/// A message's or delta's reasoning, under either of its names.
pub(super) fn reasoning(message: &Value) -> Option<&str> {
    ["reasoning", "reasoning_content"]
        .into_iter()
        .filter_map(|name| message[name].as_str())
        .find(|text| !text.is_empty())
}

/// OpenAI's usage as Anthropic's; both counts are always there, since Anthropic's SDKs add them up.
pub(super) fn usage(usage: &Value) -> Value {
    let mut translated = json!({
        "input_tokens": usage["prompt_tokens"].as_u64().unwrap_or(0),
        "output_tokens": usage["completion_tokens"].as_u64().unwrap_or(0),
    });
    let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64();
    if let Some(tokens) = cached.filter(|tokens| *tokens > 0) {
        translated["cache_read_input_tokens"] = tokens.into();
    }
    translated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translate(answer: &Value) -> Value {
        answer_for_client(answer.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn the_worked_example() {
        let answer = json!({"id": "c1", "model": "gpt-4o", "choices": [{"index": 0, "message": {"role": "assistant",
            "content": "hello", "tool_calls": [{"id": "t9", "type": "function",
                "function": {"name": "f", "arguments": "{\"a\":2}"}}]}, "finish_reason": "tool_calls"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}});
        let expected = json!({"id": "c1", "type": "message", "role": "assistant",
            "content": [{"type": "text", "text": "hello"}, {"type": "tool_use", "id": "t9", "name": "f", "input": {"a": 2}}],
            "model": "gpt-4o", "stop_reason": "tool_use", "stop_sequence": null,
            "usage": {"input_tokens": 7, "output_tokens": 3, "cache_read_input_tokens": 4}, "error": null});
        assert_eq!(translate(&answer), expected);
    }

    #[test]
    fn reasoning_comes_first_and_odd_arguments_are_empty() {
        let answer = json!({"choices": [{"message": {"reasoning_content": "hm", "content": "", "tool_calls": [
            {"id": "a", "function": {"name": "f", "arguments": "nope"}}, {"id": "b", "function": {"name": "", "arguments": ""}}]},
            "finish_reason": "content_filter"}]});
        let translated = translate(&answer);
        assert_eq!(
            translated["content"],
            json!([{"type": "thinking", "signature": "", "thinking": "hm"},
                {"type": "tool_use", "id": "a", "name": "f", "input": {}}])
        );
        assert_eq!(translated["stop_reason"], "content_filter");
        assert_eq!(translate(&json!({}))["content"], json!([]));
        assert!(
            answer_for_client(b"<html>")
                .unwrap_err()
                .starts_with("unable to unmarshal")
        );
    }
}
