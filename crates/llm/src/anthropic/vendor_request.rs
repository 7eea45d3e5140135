//! OpenAI's chat request for Anthropic (ai-proxy spec §8.4).
//!
//! Differences from Higress, all of them repairs: `tool_choice` arrives, several system messages are joined, a
//! string `stop` is legal, an empty tool input stays `{}`, `cache_control` of a part survives, the default
//! `max_tokens` leaves room behind a thinking budget.

use serde_json::{Map, Value, json};

use crate::openai::{self, RequestFault};

/// Anthropic requires `max_tokens`; this is Higress's default.
const DEFAULT_MAX_TOKENS: u64 = 4096;
const LEAST_THINKING_BUDGET: u64 = 1024;

/// Translates a chat request whose model is already the vendor's. `claude_code` writes the system prompt as Claude
/// Code does, with a default one.
///
/// # Errors
/// What of the request Anthropic could not be told.
pub fn request_for_vendor(request: &Value, claude_code: bool) -> Result<Value, RequestFault> {
    let messages = openai::messages(request)?;
    let mut translated = Map::new();
    translated.insert("model".into(), request["model"].clone());
    translated.insert("messages".into(), Value::Array(conversation(messages)?));
    if let Some(system) = system(messages, claude_code) {
        translated.insert("system".into(), system);
    }
    let budget = thinking_budget(request);
    let limit = ["max_completion_tokens", "max_tokens"]
        .into_iter()
        .filter_map(|name| request[name].as_u64())
        .find(|tokens| *tokens > 0)
        .unwrap_or(DEFAULT_MAX_TOKENS + budget.unwrap_or(0));
    translated.insert("max_tokens".into(), limit.into());
    let stop = openai::stop(request)?;
    if !stop.is_empty() {
        translated.insert("stop_sequences".into(), stop.into());
    }
    for name in ["stream", "temperature", "top_p"] {
        if let Some(value) = request.get(name).filter(|value| !value.is_null()) {
            translated.insert(name.into(), value.clone());
        }
    }
    if let Some(tokens) = budget {
        let thinking = json!({"type": "enabled", "budget_tokens": tokens});
        translated.insert("thinking".into(), thinking);
    }
    add_tools(request, &mut translated);
    Ok(Value::Object(translated))
}

fn thinking_budget(request: &Value) -> Option<u64> {
    let explicit = request["reasoning_max_tokens"]
        .as_u64()
        .filter(|tokens| *tokens > 0);
    let budget = match (explicit, request["reasoning_effort"].as_str().unwrap_or_default()) {
        (Some(tokens), _) => tokens,
        (None, "" | "none") => return None,
        (None, "low" | "minimal") => LEAST_THINKING_BUDGET,
        (None, "high") => 16384,
        (None, _) => 8192,
    };
    Some(budget.max(LEAST_THINKING_BUDGET))
}

fn system(messages: &[Value], claude_code: bool) -> Option<Value> {
    let mut blocks = Vec::new();
    for message in messages.iter().filter(|message| openai::is_system(message)) {
        match &message["content"] {
            Value::Array(parts) => blocks.extend(parts.iter().filter_map(text_block)),
            other => blocks.extend(text_block(&json!({"type": "text", "text": other}))),
        }
    }
    if claude_code {
        if blocks.is_empty() {
            let text = "You are Claude Code, Anthropic's official CLI for Claude.";
            blocks.push(json!({"type": "text", "text": text}));
        }
        if let Some(last) = blocks.last_mut() {
            last["cache_control"] = json!({"type": "ephemeral"});
        }
        return Some(Value::Array(blocks));
    }
    if blocks.is_empty() {
        return None;
    }
    if blocks.iter().any(|block| block.get("cache_control").is_some()) {
        return Some(Value::Array(blocks));
    }
    let texts: Vec<&str> = blocks.iter().filter_map(|block| block["text"].as_str()).collect();
    Some(Value::String(texts.join("\n")))
}

fn text_block(part: &Value) -> Option<Value> {
    let text = part["text"].as_str().filter(|text| !text.is_empty())?;
    let mut block = json!({"type": "text", "text": text});
    if let Some(control) = part.get("cache_control").filter(|value| !value.is_null()) {
        block["cache_control"] = control.clone();
    }
    Some(block)
}

fn conversation(messages: &[Value]) -> Result<Vec<Value>, RequestFault> {
    let mut translated: Vec<Value> = Vec::new();
    // Results of one round of tool calls share one user message.
    let mut results: Vec<Value> = Vec::new();
    for message in messages.iter().filter(|message| !openai::is_system(message)) {
        let role = message["role"].as_str().unwrap_or_default();
        if role == "tool" {
            results.push(json!({
                "type": "tool_result",
                "tool_use_id": message["tool_call_id"],
                "content": openai::text(message),
            }));
            continue;
        }
        flush_results(&mut results, &mut translated);
        let content = match message["tool_calls"].as_array().filter(|calls| !calls.is_empty()) {
            Some(calls) => with_tool_uses(message, calls)?,
            None => content(message)?,
        };
        translated.push(json!({"role": role, "content": content}));
    }
    flush_results(&mut results, &mut translated);
    Ok(translated)
}

fn flush_results(results: &mut Vec<Value>, translated: &mut Vec<Value>) {
    if !results.is_empty() {
        translated.push(json!({"role": "user", "content": std::mem::take(results)}));
    }
}

fn with_tool_uses(message: &Value, calls: &[Value]) -> Result<Value, RequestFault> {
    let mut blocks = match content(message)? {
        Value::Array(blocks) => blocks,
        Value::String(text) if !text.is_empty() => vec![json!({"type": "text", "text": text})],
        _ => Vec::new(),
    };
    for call in calls {
        let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
        let input = serde_json::from_str::<Map<String, Value>>(arguments).unwrap_or_default();
        let name = &call["function"]["name"];
        blocks.push(json!({"type": "tool_use", "id": call["id"], "name": name, "input": input}));
    }
    Ok(Value::Array(blocks))
}

fn content(message: &Value) -> Result<Value, RequestFault> {
    match &message["content"] {
        Value::Array(parts) => {
            let mut blocks = Vec::with_capacity(parts.len());
            for part in parts {
                blocks.extend(block(part)?);
            }
            Ok(Value::Array(blocks))
        }
        Value::Null => Ok("".into()),
        other => Ok(other.clone()),
    }
}

fn block(part: &Value) -> Result<Option<Value>, RequestFault> {
    Ok(match part["type"].as_str().unwrap_or_default() {
        "text" => text_block(part),
        "image_url" => {
            let mut image = json!({"type": "image", "source": source(openai::image_url(part)?)});
            if let Some(control) = part.get("cache_control").filter(|value| !value.is_null()) {
                image["cache_control"] = control.clone();
            }
            Some(image)
        }
        "file" => file_block(&part["file"]),
        _ => None,
    })
}

fn file_block(file: &Value) -> Option<Value> {
    if let Some(data) = file["file_data"].as_str() {
        return Some(json!({"type": "document", "source": source(data)}));
    }
    let id = file["file_id"].as_str()?;
    Some(json!({"type": "document", "source": {"type": "file", "file_id": id}}))
}

/// A data URL inline, any other by reference.
fn source(url: &str) -> Value {
    match openai::data_url(url) {
        Some((media_type, data)) => json!({"type": "base64", "media_type": media_type, "data": data}),
        None => json!({"type": "url", "url": url}),
    }
}

fn add_tools(request: &Value, translated: &mut Map<String, Value>) {
    let Some(tools) = request["tools"].as_array().filter(|tools| !tools.is_empty()) else {
        return;
    };
    let translated_tools: Vec<Value> = tools
        .iter()
        .map(|tool| {
            let function = &tool["function"];
            let mut own = json!({"name": function["name"]});
            if let Some(text) = function.get("description").filter(|value| !value.is_null()) {
                own["description"] = text.clone();
            }
            let schema = function.get("parameters").filter(|value| value.is_object());
            own["input_schema"] = schema
                .cloned()
                .unwrap_or_else(|| json!({"type": "object", "properties": {}}));
            own
        })
        .collect();
    translated.insert("tools".into(), Value::Array(translated_tools));
    let single = request["parallel_tool_calls"] == false;
    let choice = match &request["tool_choice"] {
        Value::String(word) if word == "required" => Some(json!({"type": "any"})),
        Value::String(word) if word == "none" => Some(json!({"type": "none"})),
        Value::Object(named) => Some(json!({"type": "tool", "name": named["function"]["name"]})),
        Value::String(word) if word == "auto" => Some(json!({"type": "auto"})),
        _ => single.then(|| json!({"type": "auto"})),
    };
    if let Some(mut choice) = choice {
        if single && choice["type"] != "none" {
            choice["disable_parallel_tool_use"] = true.into();
        }
        translated.insert("tool_choice".into(), choice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translate(request: &Value) -> Value {
        request_for_vendor(request, false).unwrap()
    }

    fn with_messages(messages: &Value) -> Value {
        translate(&json!({"model": "m", "messages": messages}))
    }

    #[test]
    fn a_tool_round_trip() {
        let translated = with_messages(&json!([
            {"role": "system", "content": "A"},
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "content": "let me look", "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"city\":\"Bern\"}"}},
                {"id": "2", "type": "function", "function": {"name": "g", "arguments": ""}}]},
            {"role": "tool", "tool_call_id": "1", "content": "sun"},
            {"role": "tool", "tool_call_id": "2", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "system", "content": [{"type": "text", "text": "B"}]},
            {"role": "user", "content": [{"type": "text", "text": "and?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
                {"type": "image_url", "image_url": {"url": "https://i/x.png"}}]}]));
        assert_eq!(
            translated["messages"],
            json!([
                {"role": "user", "content": "weather?"},
                {"role": "assistant", "content": [{"type": "text", "text": "let me look"},
                    {"type": "tool_use", "id": "1", "name": "f", "input": {"city": "Bern"}},
                    {"type": "tool_use", "id": "2", "name": "g", "input": {}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "sun"},
                    {"type": "tool_result", "tool_use_id": "2", "content": "a\nb"}]},
                {"role": "user", "content": [{"type": "text", "text": "and?"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
                    {"type": "image", "source": {"type": "url", "url": "https://i/x.png"}}]}])
        );
        assert_eq!(translated["system"], "A\nB");
        assert_eq!(translated["max_tokens"], 4096);
    }

    #[test]
    fn parameters() {
        let request = json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 9,
            "max_tokens": 5, "stop": "END", "temperature": 0, "top_p": 0.5, "stream": true, "n": 2, "seed": 1,
            "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}},
                {"type": "function", "function": {"name": "g"}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": false});
        let expected = json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 9,
            "stop_sequences": ["END"], "stream": true, "temperature": 0, "top_p": 0.5,
            "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}},
                {"name": "g", "input_schema": {"type": "object", "properties": {}}}],
            "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": true}});
        assert_eq!(translate(&request), expected);
    }

    #[test]
    fn thinking_leaves_room_for_the_answer() {
        let thinking = |extra: Value| {
            let mut request = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
            request
                .as_object_mut()
                .unwrap()
                .extend(extra.as_object().unwrap().clone());
            let translated = translate(&request);
            (
                translated["thinking"]["budget_tokens"].as_u64(),
                translated["max_tokens"].as_u64(),
            )
        };
        assert_eq!(
            thinking(json!({"reasoning_effort": "low"})),
            (Some(1024), Some(5120))
        );
        assert_eq!(
            thinking(json!({"reasoning_effort": "medium"})),
            (Some(8192), Some(12288))
        );
        assert_eq!(
            thinking(json!({"reasoning_effort": "high", "max_tokens": 20000})),
            (Some(16384), Some(20000))
        );
        assert_eq!(
            thinking(json!({"reasoning_max_tokens": 500})),
            (Some(1024), Some(5120))
        );
        assert_eq!(thinking(json!({})), (None, Some(4096)));
    }

    #[test]
    fn system_of_claude_code_and_cache_control() {
        let request = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
        let own = request_for_vendor(&request, true).unwrap();
        assert_eq!(own["system"][0]["cache_control"], json!({"type": "ephemeral"}));
        assert_eq!(translate(&request).get("system"), None);
        let cached = with_messages(&json!([{"role": "system", "content": [
            {"type": "text", "text": "S", "cache_control": {"type": "ephemeral"}}]}, {"role": "user", "content": "x"}]));
        assert_eq!(cached["system"][0]["cache_control"]["type"], "ephemeral");
    }

    #[test]
    fn what_cannot_be_told_is_refused() {
        let image = json!({"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]});
        assert!(matches!(
            request_for_vendor(&image, false),
            Err(RequestFault::BadRequest(_))
        ));
    }
}
