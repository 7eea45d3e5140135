//! Anthropic's buffered answer in OpenAI's dialect (ai-proxy spec §8.5).
//!
//! Differences from Higress, all of them repairs: text blocks are joined instead of the last one winning, tool calls
//! are numbered, cached tokens are reported (and counted into the prompt, as OpenAI counts them).

use serde_json::{Map, Value, json};
use tollgate_base::clock;

use super::finish_reason;
use crate::usage::Usage;

/// Translates the answer. `model` is the name the request was sent with.
///
/// # Errors
/// The text after `failed to process response body: `, when the answer is no JSON object or an error in a 200.
pub fn answer_from_vendor(answer: &[u8], model: &str) -> Result<Value, String> {
    let whole: Map<String, Value> = serde_json::from_slice(answer)
        .map_err(|cause| format!("unable to unmarshal claude response: {cause}"))?;
    let field = |name: &str| whole.get(name).unwrap_or(&Value::Null);
    if field("error").is_object() {
        let error = field("error");
        return Err(format!(
            "claude response error, error_type: {}, error_message: {}",
            error["type"].as_str().unwrap_or_default(),
            error["message"].as_str().unwrap_or_default()
        ));
    }
    let usage = Usage::of_anthropic(field("usage"));
    let reason = field("stop_reason").as_str().map(finish_reason);
    let mut translated = json!({
        "id": field("id"),
        "object": "chat.completion",
        "created": clock::unix_seconds(),
        "model": model,
        "choices": [{"index": 0, "message": message(field("content")), "finish_reason": reason, "logprobs": null}],
        "usage": usage.map(|usage| usage.to_openai()),
    });
    if let Some(tier) = field("usage")["service_tier"].as_str() {
        translated["service_tier"] = tier.into();
    }
    Ok(translated)
}

fn message(content: &Value) -> Value {
    let (mut text, mut thinking, mut calls) = (None, None, Vec::new());
    for block in content.as_array().into_iter().flatten() {
        match block["type"].as_str().unwrap_or_default() {
            "text" => append(&mut text, &block["text"]),
            "thinking" => append(&mut thinking, &block["thinking"]),
            "tool_use" => calls.push(json!({
                "index": calls.len(),
                "id": block["id"],
                "type": "function",
                "function": {"name": block["name"], "arguments": block["input"].to_string()},
            })),
            _ => {}
        }
    }
    let mut message = json!({"role": "assistant", "content": text});
    if let Some(reasoning) = thinking {
        message["reasoning_content"] = reasoning.into();
    }
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    message
}

fn append(whole: &mut Option<String>, piece: &Value) {
    if let Some(piece) = piece.as_str() {
        whole.get_or_insert_default().push_str(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_counts() {
        let answer = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x",
            "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "a"},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1}}, {"type": "text", "text": "b"},
                {"type": "tool_use", "id": "t2", "name": "g", "input": {}}],
            "stop_reason": "tool_use", "usage": {"input_tokens": 5, "output_tokens": 3, "cache_read_input_tokens": 2,
                "cache_creation_input_tokens": 1, "service_tier": "standard"}});
        let mut translated = answer_from_vendor(answer.to_string().as_bytes(), "mapped").unwrap();
        translated["created"] = 0.into();
        let expected = json!({"id": "msg_1", "object": "chat.completion", "created": 0, "model": "mapped",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "ab", "reasoning_content": "hm",
                "tool_calls": [
                    {"index": 0, "id": "t1", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
                    {"index": 1, "id": "t2", "type": "function", "function": {"name": "g", "arguments": "{}"}}]},
                "finish_reason": "tool_calls", "logprobs": null}],
            "usage": {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11,
                "prompt_tokens_details": {"cached_tokens": 2}}, "service_tier": "standard"});
        assert_eq!(translated, expected);
    }

    #[test]
    fn stop_reasons_and_errors() {
        let reason = |reason: &str| {
            let answer = json!({"content": [], "stop_reason": reason}).to_string();
            answer_from_vendor(answer.as_bytes(), "m").unwrap()["choices"][0]["finish_reason"].clone()
        };
        assert_eq!(reason("stop_sequence"), "stop");
        assert_eq!(reason("max_tokens"), "length");
        assert_eq!(reason("refusal"), "refusal");
        let error = br#"{"type":"error","error":{"type":"overloaded_error","message":"busy"}}"#;
        assert_eq!(
            answer_from_vendor(error, "m").unwrap_err(),
            "claude response error, error_type: overloaded_error, error_message: busy"
        );
        assert!(
            answer_from_vendor(b"<html>", "m")
                .unwrap_err()
                .starts_with("unable to unmarshal")
        );
    }
}
