//! A Claude client's request in OpenAI's dialect (ai-proxy spec §8.1).
//!
//! Differences from Higress, all of them repairs: `tool_choice: any` becomes `required`, a forbidden parallel call
//! stays forbidden, images beside a tool result survive, parts carry no stray empty fields.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

/// The thinking settings of the client, which some vendors look at after the translation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thinking {
    /// `thinking.type`; `disabled` when absent.
    pub kind: String,
    /// `budget_tokens`, only when thinking is `enabled` and the budget positive.
    pub budget: Option<u64>,
}

impl Thinking {
    /// Whether the client asked for it.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.kind == "enabled"
    }
}

/// A translated request.
#[derive(Debug)]
pub struct ClientRequest {
    /// OpenAI's chat request.
    pub body: Value,
    /// What the client said about thinking.
    pub thinking: Thinking,
}

/// Translates the request of a Claude client.
///
/// # Errors
/// The text after `failed to convert claude request to openai: `, when the body is no Messages request.
pub fn request_from_client(request: &Value) -> Result<ClientRequest, String> {
    let fault = |cause: &str| format!("unable to unmarshal claude request: {cause}");
    let request = request.as_object().ok_or_else(|| fault("not an object"))?;
    let mut translated = Map::new();
    copy(request, "model", &mut translated, "model");
    let mut messages = Vec::new();
    messages.extend(system_message(request.get("system")));
    match request.get("messages") {
        None | Some(Value::Null) => {}
        Some(Value::Array(list)) => {
            for message in list {
                add_message(message, &mut messages).map_err(fault)?;
            }
        }
        Some(_) => return Err(fault("messages is not an array")),
    }
    translated.insert("messages".into(), Value::Array(messages));
    copy(request, "max_tokens", &mut translated, "max_tokens");
    copy(request, "temperature", &mut translated, "temperature");
    copy(request, "top_p", &mut translated, "top_p");
    copy(request, "stop_sequences", &mut translated, "stop");
    copy(request, "stream", &mut translated, "stream");
    if request.get("stream") == Some(&Value::Bool(true)) {
        translated.insert("stream_options".into(), json!({"include_usage": true}));
    }
    let thinking = thinking(request.get("thinking"));
    if thinking.is_enabled() {
        let effort = match thinking.budget.unwrap_or(0) {
            0..4096 => "low",
            4096..16384 => "medium",
            _ => "high",
        };
        translated.insert("reasoning_effort".into(), effort.into());
    }
    add_tools(request, &mut translated);
    Ok(ClientRequest {
        body: Value::Object(translated),
        thinking,
    })
}

fn copy(from: &Map<String, Value>, name: &str, into: &mut Map<String, Value>, new_name: &str) {
    if let Some(value) = from.get(name).filter(|value| !value.is_null()) {
        into.insert(new_name.into(), value.clone());
    }
}

fn thinking(settings: Option<&Value>) -> Thinking {
    let kind = settings
        .and_then(|value| value["type"].as_str())
        .unwrap_or("disabled");
    let budget = settings.and_then(|value| value["budget_tokens"].as_u64());
    Thinking {
        kind: kind.to_owned(),
        budget: budget.filter(|tokens| kind == "enabled" && *tokens > 0),
    }
}

fn system_message(system: Option<&Value>) -> Option<Value> {
    let content = match system? {
        Value::String(text) => Value::String(without_cch(text).into_owned()),
        Value::Array(blocks) => Value::Array(blocks.iter().filter_map(text_part).collect()),
        _ => return None,
    };
    Some(json!({"role": "system", "content": content}))
}

/// A text block as a part; nothing for empty text or another block.
fn text_part(block: &Value) -> Option<Value> {
    let text = block_text(block)?;
    let mut part = Map::new();
    part.insert("type".into(), "text".into());
    part.insert("text".into(), without_cch(text).into());
    if let Some(control) = block.get("cache_control").filter(|value| !value.is_null()) {
        part.insert("cache_control".into(), control.clone());
    }
    Some(Value::Object(part))
}

fn block_text(block: &Value) -> Option<&str> {
    if block["type"] != "text" {
        return None;
    }
    block["text"].as_str().filter(|text| !text.is_empty())
}

/// Claude Code's billing header changes with every call, which would defeat prompt caching: its `cch` goes.
fn without_cch(text: &str) -> Cow<'_, str> {
    if !text.starts_with("x-anthropic-billing-header:") || !text.contains("; cch=") {
        return Cow::Borrowed(text);
    }
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("; cch=") {
        kept.push_str(&rest[..start]);
        let value = &rest[start + 2..];
        rest = value.find(';').map_or("", |end| &value[end..]);
    }
    kept.push_str(rest);
    Cow::Owned(kept)
}

fn add_message(message: &Value, messages: &mut Vec<Value>) -> Result<(), &'static str> {
    let Some(members) = message.as_object() else {
        return Err("a message is not an object");
    };
    let role = members.get("role").and_then(Value::as_str).unwrap_or_default();
    match members.get("content") {
        Some(Value::String(text)) => messages.push(json!({"role": role, "content": text})),
        Some(Value::Array(blocks)) => add_blocks(role, blocks, messages),
        None | Some(Value::Null) => messages.push(json!({"role": role, "content": []})),
        Some(_) => return Err("content of a message is neither a string nor an array"),
    }
    Ok(())
}

fn add_blocks(role: &str, blocks: &[Value], messages: &mut Vec<Value>) {
    if blocks.iter().any(|block| block["type"] == "tool_result") {
        add_tool_results(role, blocks, messages);
        return;
    }
    let calls: Vec<Value> = blocks.iter().filter_map(tool_call).collect();
    if calls.is_empty() {
        let parts: Vec<Value> = blocks.iter().filter_map(part).collect();
        messages.push(json!({"role": role, "content": parts}));
        return;
    }
    let content = match joined_texts(blocks) {
        text if text.is_empty() => Value::Null,
        text => Value::String(text),
    };
    messages.push(json!({"role": role, "content": content, "tool_calls": calls}));
}

fn add_tool_results(role: &str, blocks: &[Value], messages: &mut Vec<Value>) {
    for block in blocks.iter().filter(|block| block["type"] == "tool_result") {
        let content = match &block["content"] {
            Value::String(text) => text.clone(),
            Value::Array(parts) => {
                let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
                texts.join("\n")
            }
            _ => String::new(),
        };
        messages.push(json!({"role": "tool", "tool_call_id": block["tool_use_id"], "content": content}));
    }
    let parts: Vec<Value> = blocks.iter().filter_map(part).collect();
    if parts.iter().any(|part| part["type"] != "text") {
        messages.push(json!({"role": role, "content": parts}));
    } else if !parts.is_empty() {
        messages.push(json!({"role": role, "content": joined_texts(blocks)}));
    }
}

fn joined_texts(blocks: &[Value]) -> String {
    let texts: Vec<&str> = blocks.iter().filter_map(block_text).collect();
    texts.join("\n\n")
}

fn tool_call(block: &Value) -> Option<Value> {
    let (id, name) = (block["id"].as_str()?, block["name"].as_str()?);
    if block["type"] != "tool_use" || id.is_empty() || name.is_empty() {
        return None;
    }
    let arguments = block.get("input").map(Value::to_string).unwrap_or_default();
    Some(json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}))
}

fn part(block: &Value) -> Option<Value> {
    if block["type"] != "image" {
        return text_part(block);
    }
    let source = &block["source"];
    let url = match source["type"].as_str()? {
        "base64" => format!(
            "data:{};base64,{}",
            source["media_type"].as_str()?,
            source["data"].as_str()?
        ),
        "url" => source["url"].as_str()?.to_owned(),
        _ => return None,
    };
    Some(json!({"type": "image_url", "image_url": {"url": url}}))
}

fn add_tools(request: &Map<String, Value>, translated: &mut Map<String, Value>) {
    if let Some(Value::Array(tools)) = request.get("tools") {
        let functions: Vec<Value> = tools.iter().map(function).collect();
        translated.insert("tools".into(), Value::Array(functions));
    }
    let Some(choice) = request.get("tool_choice").filter(|value| value.is_object()) else {
        return;
    };
    let wanted = match choice["type"].as_str().unwrap_or_default() {
        "tool" => json!({"type": "function", "function": {"name": choice["name"]}}),
        "any" => "required".into(),
        other => other.into(),
    };
    translated.insert("tool_choice".into(), wanted);
    let parallel = choice["disable_parallel_tool_use"] != true;
    translated.insert("parallel_tool_calls".into(), parallel.into());
}

fn function(tool: &Value) -> Value {
    let mut function = Map::new();
    for (name, new_name) in [
        ("name", "name"),
        ("description", "description"),
        ("input_schema", "parameters"),
    ] {
        if let Some(value) = tool.get(name).filter(|value| !value.is_null()) {
            function.insert(new_name.into(), value.clone());
        }
    }
    json!({"type": "function", "function": function})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translate(request: &Value) -> Value {
        request_from_client(request).unwrap().body
    }

    fn messages(list: &Value) -> Value {
        translate(&json!({"model": "m", "messages": list}))["messages"].clone()
    }

    #[test]
    fn the_worked_example() {
        let request = json!({"model": "claude-x", "max_tokens": 50, "system": "S", "top_k": 3,
            "stop_sequences": ["END"],
            "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "any"}, "thinking": {"type": "enabled", "budget_tokens": 5000},
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "look"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}}]},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": "s"},
                    {"type": "text", "text": "ok"}, {"type": "tool_use", "id": "tu1", "name": "f", "input": {"a": 1}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "tu1",
                    "content": [{"type": "text", "text": "r1"}, {"type": "text", "text": "r2"}]},
                    {"type": "text", "text": "go on"}]}]});
        let expected = json!({"messages": [
                {"role": "system", "content": "S"},
                {"role": "user", "content": [{"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}]},
                {"role": "assistant", "content": "ok", "tool_calls": [
                    {"id": "tu1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}]},
                {"role": "tool", "content": "r1\nr2", "tool_call_id": "tu1"},
                {"role": "user", "content": "go on"}],
            "model": "claude-x", "reasoning_effort": "medium", "max_tokens": 50, "stop": ["END"],
            "tools": [{"type": "function", "function": {"description": "d", "name": "f", "parameters": {"type": "object"}}}],
            "tool_choice": "required", "parallel_tool_calls": true});
        assert_eq!(translate(&request), expected);
    }

    #[test]
    fn thinking_becomes_an_effort() {
        let effort = |thinking: Value| translate(&json!({"thinking": thinking}))["reasoning_effort"].clone();
        assert_eq!(effort(json!({"type": "enabled", "budget_tokens": 2048})), "low");
        assert_eq!(effort(json!({"type": "enabled"})), "low");
        assert_eq!(
            effort(json!({"type": "enabled", "budget_tokens": 8192})),
            "medium"
        );
        assert_eq!(effort(json!({"type": "enabled", "budget_tokens": 20480})), "high");
        assert_eq!(
            effort(json!({"type": "disabled", "budget_tokens": 20480})),
            Value::Null
        );
        let raw = translate(&json!({"thinking": {"type": "enabled", "budget_tokens": 9000}})).to_string();
        assert!(!raw.contains("thinking") && !raw.contains("reasoning_max_tokens"));
    }

    #[test]
    fn the_billing_header_loses_its_cch() {
        let cases = [
            (
                "x-anthropic-billing-header: a=1; cch=zz; b=2;",
                "x-anthropic-billing-header: a=1; b=2;",
            ),
            (
                "x-anthropic-billing-header: a=1; cch=zz",
                "x-anthropic-billing-header: a=1",
            ),
            (
                "x-anthropic-billing-header: a=1; cch=zz;",
                "x-anthropic-billing-header: a=1;",
            ),
            (
                "x-anthropic-billing-header: cch=1; cch=2; b=3; cch=4;",
                "x-anthropic-billing-header: cch=1; b=3;",
            ),
            (
                "x-anthropic-billing-header: a=1;",
                "x-anthropic-billing-header: a=1;",
            ),
            ("other; cch=zz;", "other; cch=zz;"),
            ("", ""),
        ];
        for (before, after) in cases {
            assert_eq!(without_cch(before), after);
        }
        let system = translate(&json!({"system": [
            {"type": "text", "text": "x-anthropic-billing-header: a; cch=1;", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "b"}]}));
        assert_eq!(
            system["messages"][0]["content"],
            json!([{"type": "text", "text": "x-anthropic-billing-header: a;", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "b"}])
        );
    }

    #[test]
    fn blocks_of_every_kind() {
        let tool_only = messages(&json!([{"role": "assistant", "content": [
            {"type": "tool_use", "id": "a", "name": "f", "input": {}}, {"type": "tool_use", "id": "b", "name": "g"},
            {"type": "tool_use", "id": "", "name": "h"}]}]));
        assert_eq!(tool_only[0]["content"], Value::Null);
        assert_eq!(tool_only[0]["tool_calls"][0]["function"]["arguments"], "{}");
        assert_eq!(tool_only[0]["tool_calls"][1]["function"]["arguments"], "");
        assert_eq!(tool_only[0]["tool_calls"].as_array().unwrap().len(), 2);
        let results = messages(&json!([{"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "a", "content": "one"}, {"type": "tool_result", "tool_use_id": "b"},
            {"type": "image", "source": {"type": "url", "url": "http://i"}}]}]));
        assert_eq!(
            results[0],
            json!({"role": "tool", "tool_call_id": "a", "content": "one"})
        );
        assert_eq!(results[1]["content"], "");
        assert_eq!(results[2]["content"][0]["image_url"]["url"], "http://i");
        assert_eq!(
            messages(&json!([{"role": "user", "content": []}]))[0]["content"],
            json!([])
        );
        let dropped = messages(&json!([{"role": "user", "content": [
            {"type": "document"}, {"type": "redacted_thinking"}, {"type": "text", "text": ""}]}]));
        assert_eq!(dropped[0]["content"], json!([]));
    }

    #[test]
    fn tool_choices() {
        let choice = |choice: Value| {
            let whole = translate(&json!({"tool_choice": choice}));
            (whole["tool_choice"].clone(), whole["parallel_tool_calls"].clone())
        };
        let named = json!({"type": "function", "function": {"name": "f"}});
        assert_eq!(choice(json!({"type": "tool", "name": "f"})).0, named);
        let single = choice(json!({"type": "auto", "disable_parallel_tool_use": true}));
        assert_eq!(single, (json!("auto"), json!(false)));
        assert_eq!(choice(json!({"type": "none"})).0, "none");
        let streaming = translate(&json!({"stream": true}));
        assert_eq!(streaming["stream_options"], json!({"include_usage": true}));
    }

    #[test]
    fn what_is_no_request_is_named() {
        for bad in [
            json!([]),
            json!({"messages": 1}),
            json!({"messages": [1]}),
            json!({"messages": [{"content": 1}]}),
        ] {
            let text = request_from_client(&bad).unwrap_err();
            assert!(
                text.starts_with("unable to unmarshal claude request: "),
                "{bad}: {text}"
            );
        }
    }
}
