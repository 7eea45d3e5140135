//! Anthropic's wire format: messages plain and streamed, tool use, thinking, counting tokens.
//!
//! Source: Anthropic's API reference (`/v1/messages`, its streaming events, `/v1/messages/count_tokens`, errors).
//! The opening of a stream carries the prompt's tokens and one output token; the `message_delta` counts the whole
//! output, the first token too.

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::answer::{Answer, Ask, Choice, Finish, Role, Tool, Turn, Usage};
use crate::hash::request_id;
use crate::openai::number;
use crate::plan::UsageMode;
use crate::stream::{Encoder, Event, Moment, Step};

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

/// What the vendor demands of the headers.
pub(crate) fn check(headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
    if !headers.contains_key("x-api-key") && !headers.contains_key("authorization") {
        return Err((StatusCode::UNAUTHORIZED, "x-api-key header is required"));
    }
    if !headers.contains_key("anthropic-version") {
        return Err((StatusCode::BAD_REQUEST, "anthropic-version: header is required"));
    }
    Ok(())
}

/// A content's blocks; a string is one text block.
fn blocks(content: &Value) -> Vec<Value> {
    match content {
        Value::String(text) => vec![json!({ "type": "text", "text": text })],
        Value::Array(blocks) => blocks.clone(),
        _ => Vec::new(),
    }
}

/// The turns of one message: each tool result is a turn of its own, before the text.
fn turns_of(message: &Value, role: Role, turns: &mut Vec<Turn>) {
    let (mut text, mut images, mut has_text) = (String::new(), 0, false);
    for block in blocks(&message["content"]) {
        match block["type"].as_str() {
            Some("tool_result") => {
                let parts = blocks(&block["content"]);
                let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
                turns.push(Turn {
                    role: Role::Tool,
                    text: texts.join("\n"),
                    images: 0,
                });
            }
            Some("image") => images += 1,
            Some("tool_use") => {
                text.push_str(block["name"].as_str().unwrap_or(""));
                text.push_str(&block["input"].to_string());
            }
            _ => {
                if has_text {
                    text.push('\n');
                }
                text.push_str(block["text"].as_str().unwrap_or(""));
                has_text = true;
            }
        }
    }
    if has_text || images > 0 || !text.is_empty() || turns.last().is_none_or(|turn| turn.role != Role::Tool) {
        turns.push(Turn { role, text, images });
    }
}

/// Reads a messages request. `max_tokens` is required of messages, not of counting.
pub(crate) fn messages(body: &Value, needs_max_tokens: bool) -> Result<Ask, String> {
    let model = body["model"].as_str().ok_or("model: Field required")?;
    let max_tokens = number(&body["max_tokens"]);
    if needs_max_tokens && max_tokens.is_none() {
        return Err("max_tokens: Field required".to_owned());
    }
    let messages = body["messages"].as_array().ok_or("messages: Field required")?;
    if messages.is_empty() {
        return Err("messages: at least one message is required".to_owned());
    }
    let mut turns = Vec::new();
    if !body["system"].is_null() {
        turns_of(&json!({ "content": body["system"] }), Role::System, &mut turns);
    }
    for (place, message) in messages.iter().enumerate() {
        let role = match message["role"].as_str() {
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            _ => {
                return Err(format!(
                    "messages.{place}.role: Input should be 'user' or 'assistant'"
                ));
            }
        };
        turns_of(message, role, &mut turns);
    }
    let tool = |tool: &Value| {
        let name = tool["name"].as_str()?.to_owned();
        Some(Tool {
            name,
            parameters: tool.get("input_schema").cloned().unwrap_or_default(),
        })
    };
    let choice = match body["tool_choice"]["type"].as_str() {
        Some("any") => Choice::Required,
        Some("none") => Choice::Never,
        Some("tool") => Choice::Named(body["tool_choice"]["name"].as_str().unwrap_or("").to_owned()),
        _ => Choice::Auto,
    };
    Ok(Ask {
        model: model.to_owned(),
        turns,
        tools: body["tools"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(tool)
            .collect(),
        choice,
        max_tokens,
        reasoning: matches!(body["thinking"]["type"].as_str(), Some("enabled" | "adaptive")),
        choices: 1,
        ..Ask::default()
    })
}

fn stop_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "end_turn",
        Finish::Length => "max_tokens",
        Finish::ToolCalls => "tool_use",
    }
}

/// The vendor's input tokens are without the cached ones.
fn usage(counted: Usage, output: usize) -> Value {
    json!({
        "input_tokens": counted.prompt.saturating_sub(counted.cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": counted.cached,
        "output_tokens": output,
    })
}

const SIGNATURE: &str = "bW9jay1zaWduYXR1cmU=";

/// A tool call's id in the vendor's form.
fn tool_id(id: &str) -> String {
    format!("toolu_{}", id.trim_start_matches("call_"))
}

/// A whole answer.
pub(crate) fn answer(answer: &Answer, mode: UsageMode) -> Value {
    let mut content = Vec::new();
    if !answer.reasoning.is_empty() {
        content.push(json!({ "type": "thinking", "thinking": answer.reasoning, "signature": SIGNATURE }));
    }
    if !answer.text.is_empty() {
        content.push(json!({ "type": "text", "text": answer.text }));
    }
    for call in &answer.calls {
        let input: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
        content
            .push(json!({ "type": "tool_use", "id": tool_id(&call.id), "name": call.name, "input": input }));
    }
    let mut message = json!({
        "id": answer.id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": content,
        "stop_reason": stop_reason(answer.finish),
        "stop_sequence": null,
    });
    match mode {
        UsageMode::Absent => {}
        UsageMode::Null => message["usage"] = Value::Null,
        _ => message["usage"] = usage(answer.usage, answer.usage.completion),
    }
    message
}

/// Writes the event sequence of a streamed message.
#[derive(Default)]
pub(crate) struct Events {
    /// The number and kind of the open content block.
    open: Option<(usize, &'static str)>,
    blocks: usize,
}

fn event(data: &Value) -> Event {
    Event::named(data["type"].as_str().unwrap_or(""), data)
}

impl Events {
    fn close(&mut self, events: &mut Vec<Event>) {
        if let Some((index, kind)) = self.open.take() {
            if kind == "thinking" {
                let delta = json!({ "type": "signature_delta", "signature": SIGNATURE });
                events.push(event(
                    &json!({ "type": "content_block_delta", "index": index, "delta": delta }),
                ));
            }
            events.push(event(&json!({ "type": "content_block_stop", "index": index })));
        }
    }

    /// Opens a block of this kind unless one is open, and says its number.
    fn block(&mut self, kind: &'static str, start: &Value, events: &mut Vec<Event>) -> usize {
        if let Some((index, open)) = self.open
            && open == kind
        {
            return index;
        }
        self.close(events);
        let index = self.blocks;
        self.blocks += 1;
        self.open = Some((index, kind));
        events.push(event(
            &json!({ "type": "content_block_start", "index": index, "content_block": start }),
        ));
        if index == 0 {
            events.push(event(&json!({ "type": "ping" })));
        }
        index
    }

    fn delta(&self, delta: &Value, moment: Moment, events: &mut Vec<Event>) {
        let index = self.open.map_or(0, |(index, _)| index);
        let mut data = json!({ "type": "content_block_delta", "index": index, "delta": delta });
        match (moment.mode, moment.usage) {
            (UsageMode::Cumulative | UsageMode::PerEvent, Some(counted)) => {
                data["usage"] = usage(counted, counted.completion);
            }
            (UsageMode::Null, _) => data["usage"] = Value::Null,
            _ => {}
        }
        events.push(event(&data));
    }

    fn start(answer: &Answer, mode: UsageMode) -> Event {
        let mut message = json!({
            "id": answer.id("msg_"), "type": "message", "role": "assistant", "model": answer.model,
            "content": [], "stop_reason": null, "stop_sequence": null,
        });
        match mode {
            UsageMode::Absent | UsageMode::AfterDone => {}
            UsageMode::Null => message["usage"] = Value::Null,
            _ => message["usage"] = usage(answer.usage, answer.usage.completion.min(1)),
        }
        event(&json!({ "type": "message_start", "message": message }))
    }

    fn end(answer: &Answer, mode: UsageMode) -> Event {
        let mut data = json!({
            "type": "message_delta",
            "delta": { "stop_reason": stop_reason(answer.finish), "stop_sequence": null },
        });
        match mode {
            UsageMode::Absent | UsageMode::AfterDone => {}
            UsageMode::Null => data["usage"] = Value::Null,
            _ => data["usage"] = json!({ "output_tokens": answer.usage.completion }),
        }
        event(&data)
    }
}

impl Encoder for Events {
    fn encode(&mut self, answer: &Answer, step: Step<'_>, moment: Moment, events: &mut Vec<Event>) {
        match step {
            Step::Open => events.push(Self::start(answer, moment.mode)),
            Step::Reasoning(text) => {
                self.block(
                    "thinking",
                    &json!({ "type": "thinking", "thinking": "", "signature": "" }),
                    events,
                );
                self.delta(
                    &json!({ "type": "thinking_delta", "thinking": text }),
                    moment,
                    events,
                );
            }
            Step::Text(text) => {
                self.block("text", &json!({ "type": "text", "text": "" }), events);
                self.delta(&json!({ "type": "text_delta", "text": text }), moment, events);
            }
            Step::Call(number) => {
                self.close(events);
                let call = &answer.calls[number];
                let start =
                    json!({ "type": "tool_use", "id": tool_id(&call.id), "name": call.name, "input": {} });
                self.block("tool_use", &start, events);
            }
            Step::Arguments(_, text) => {
                self.delta(
                    &json!({ "type": "input_json_delta", "partial_json": text }),
                    moment,
                    events,
                );
            }
            Step::Finish => {
                self.close(events);
                events.push(Self::end(answer, moment.mode));
            }
            Step::Usage if moment.mode == UsageMode::AfterDone => {
                let data = json!({ "type": "message_delta", "delta": {},
                    "usage": usage(answer.usage, answer.usage.completion) });
                events.push(event(&data));
            }
            Step::Usage => {}
            Step::Done => events.push(event(&json!({ "type": "message_stop" }))),
        }
    }

    fn error(&mut self, answer: &Answer, status: StatusCode) -> Event {
        event(&error(
            status,
            "the script ends this stream with an error",
            answer.hash,
        ))
    }
}
