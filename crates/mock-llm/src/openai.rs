//! OpenAI's wire format: chat, text completion, embeddings, models, images.
//!
//! Source: OpenAI's API reference (`/v1/chat/completions` and its streaming chunks, `/v1/completions`,
//! `/v1/embeddings`, `/v1/models`, `/v1/images/generations`); the members and their order follow the answer that
//! the first document prints. Knows nothing of HTTP beyond the status of an error.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::{Value, json};

use crate::answer::{Answer, Ask, Choice, Finish, Role, Tool, Turn, Usage};
use crate::hash::{fnv, mix};
use crate::plan::UsageMode;
use crate::stream::{Encoder, Event, Moment, Step};
use crate::tokens;

/// An error object: `{"error":{"message","type","param","code"}}`.
pub(crate) fn error(status: StatusCode, message: &str) -> Value {
    let (kind, code): (&str, Value) = match status.as_u16() {
        400 | 413 | 422 => ("invalid_request_error", Value::Null),
        401 => ("invalid_request_error", json!("invalid_api_key")),
        402 => ("insufficient_quota", json!("insufficient_quota")),
        403 => ("permission_error", json!("unsupported_country_region_territory")),
        404 => ("invalid_request_error", json!("model_not_found")),
        408 => ("timeout", json!("request_timeout")),
        429 => ("requests", json!("rate_limit_exceeded")),
        500 => ("server_error", Value::Null),
        503 => ("server_error", json!("service_unavailable")),
        504 => ("server_error", json!("timeout")),
        529 => ("server_error", json!("overloaded")),
        _ => ("api_error", Value::Null),
    };
    json!({ "error": { "message": message, "type": kind, "param": null, "code": code } })
}

/// The text and the number of images of a message's content.
fn content(value: &Value) -> (String, usize) {
    match value {
        Value::String(text) => (text.clone(), 0),
        Value::Array(parts) => {
            let texts: Vec<&str> = parts
                .iter()
                .filter_map(|part| part.get("text").and_then(Value::as_str))
                .collect();
            let is_image = |part: &&Value| {
                matches!(part["type"].as_str(), Some("image_url" | "input_image" | "image"))
                    || part.get("image").is_some()
            };
            (texts.join("\n"), parts.iter().filter(is_image).count())
        }
        _ => (String::new(), 0),
    }
}

pub(crate) fn role(name: &str) -> Option<Role> {
    match name {
        "system" | "developer" => Some(Role::System),
        "user" => Some(Role::User),
        "assistant" => Some(Role::Assistant),
        "tool" | "function" => Some(Role::Tool),
        _ => None,
    }
}

/// Reads a list of messages; the error says which one is wrong.
pub(crate) fn messages(value: &Value) -> Result<Vec<Turn>, String> {
    let Some(messages) = value.as_array() else {
        return Err("you must provide a messages parameter".to_owned());
    };
    if messages.is_empty() {
        return Err("[] is too short - 'messages'".to_owned());
    }
    let turn = |(place, message): (usize, &Value)| {
        let name = message["role"].as_str().unwrap_or("");
        let role = role(name).ok_or_else(|| {
            format!(
                "'{name}' is not one of ['system', 'assistant', 'user', 'tool'] - 'messages.[{place}].role'"
            )
        })?;
        let (mut text, images) = content(&message["content"]);
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            text.push_str(call["function"]["name"].as_str().unwrap_or(""));
            text.push_str(call["function"]["arguments"].as_str().unwrap_or(""));
        }
        Ok(Turn { role, text, images })
    };
    messages.iter().enumerate().map(turn).collect()
}

/// Reads a list of tools, in the form with `function` around it and in the flat one.
pub(crate) fn tools(value: &Value) -> Vec<Tool> {
    let tool = |tool: &Value| {
        let function = tool.get("function").unwrap_or(tool);
        let name = function["name"].as_str()?.to_owned();
        Some(Tool {
            name,
            parameters: function.get("parameters").cloned().unwrap_or_default(),
        })
    };
    value.as_array().into_iter().flatten().filter_map(tool).collect()
}

pub(crate) fn tool_choice(value: &Value) -> Choice {
    match value.as_str() {
        Some("none") => Choice::Never,
        Some("required" | "any") => Choice::Required,
        Some(_) => Choice::Auto,
        None => {
            let named = value["function"]["name"]
                .as_str()
                .or_else(|| value["name"].as_str());
            named.map_or(Choice::Auto, |name| Choice::Named(name.to_owned()))
        }
    }
}

pub(crate) fn number(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|number| usize::try_from(number).ok())
}

/// Reads a chat request.
pub(crate) fn chat(body: &Value) -> Result<Ask, String> {
    let model = body["model"]
        .as_str()
        .ok_or("you must provide a model parameter")?;
    let format = &body["response_format"];
    let json_schema = match format["type"].as_str() {
        Some("json_object") => Some(json!({})),
        Some("json_schema") => Some(format["json_schema"].get("schema").cloned().unwrap_or(json!({}))),
        _ => None,
    };
    let thinking = matches!(body["thinking"]["type"].as_str(), Some("enabled" | "auto"))
        || body["enable_thinking"] == true
        || body["reasoning_effort"]
            .as_str()
            .is_some_and(|effort| effort != "none")
        || body["reasoning"].is_object();
    Ok(Ask {
        model: model.to_owned(),
        turns: messages(&body["messages"])?,
        tools: tools(&body["tools"]),
        choice: tool_choice(&body["tool_choice"]),
        max_tokens: number(&body["max_completion_tokens"]).or_else(|| number(&body["max_tokens"])),
        reasoning: thinking,
        json_schema,
        choices: number(&body["n"]).unwrap_or(1),
    })
}

/// Reads a text completion request as a question.
pub(crate) fn completion(body: &Value) -> Result<Ask, String> {
    let model = body["model"]
        .as_str()
        .ok_or("you must provide a model parameter")?;
    let prompt = match &body["prompt"] {
        Value::String(text) => text.clone(),
        Value::Array(texts) => texts
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join("\n"),
        _ => return Err("you must provide a prompt parameter".to_owned()),
    };
    Ok(Ask {
        model: model.to_owned(),
        turns: vec![Turn {
            role: Role::User,
            text: prompt,
            images: 0,
        }],
        max_tokens: number(&body["max_tokens"]),
        choices: number(&body["n"]).unwrap_or(1),
        ..Ask::default()
    })
}

fn finish(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::ToolCalls => "tool_calls",
    }
}

/// The usage object; details only where there is something to detail.
pub(crate) fn usage(usage: Usage) -> Value {
    let mut object = json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
    });
    if usage.cached > 0 {
        object["prompt_tokens_details"] = json!({ "cached_tokens": usage.cached });
    }
    if usage.reasoning > 0 {
        object["completion_tokens_details"] = json!({ "reasoning_tokens": usage.reasoning });
    }
    object
}

fn with_usage(mut object: Value, answer: &Answer, mode: UsageMode) -> Value {
    match mode {
        UsageMode::Absent => {}
        UsageMode::Null => object["usage"] = Value::Null,
        UsageMode::InChoice => object["choices"][0]["usage"] = usage(answer.usage),
        _ => object["usage"] = usage(answer.usage),
    }
    object
}

/// A whole chat answer.
pub(crate) fn chat_answer(answer: &Answer, mode: UsageMode) -> Value {
    let mut message = json!({ "role": "assistant" });
    if !answer.reasoning.is_empty() {
        message["reasoning_content"] = json!(answer.reasoning);
    }
    message["content"] = if answer.calls.is_empty() {
        json!(answer.text)
    } else {
        Value::Null
    };
    if !answer.calls.is_empty() {
        let call = |(index, call): (usize, &crate::answer::ToolCall)| {
            json!({ "index": index, "id": call.id, "type": "function",
                    "function": { "name": call.name, "arguments": call.arguments } })
        };
        message["tool_calls"] = answer.calls.iter().enumerate().map(call).collect();
    }
    let choice =
        |index: usize| json!({ "index": index, "message": message, "finish_reason": finish(answer.finish) });
    let object = json!({
        "id": answer.id("chatcmpl-"),
        "choices": (0..answer.choices).map(choice).collect::<Vec<_>>(),
        "created": answer.created,
        "model": answer.model,
        "object": "chat.completion",
    });
    with_usage(object, answer, mode)
}

/// A whole text completion.
pub(crate) fn completion_answer(answer: &Answer, mode: UsageMode) -> Value {
    let choice = |index: usize| json!({ "index": index, "text": answer.text, "logprobs": null, "finish_reason": finish(answer.finish) });
    let object = json!({
        "id": answer.id("cmpl-"),
        "choices": (0..answer.choices).map(choice).collect::<Vec<_>>(),
        "created": answer.created,
        "model": answer.model,
        "object": "text_completion",
    });
    with_usage(object, answer, mode)
}

/// Writes chat or text completion chunks.
pub(crate) struct Chunks {
    /// Text completions have `text` where chat has `delta`.
    pub(crate) text_only: bool,
    /// `stream_options.include_usage`.
    pub(crate) include_usage: bool,
}

impl Chunks {
    fn chunk(&self, answer: &Answer, choices: Vec<Value>, moment: Moment) -> Value {
        let (prefix, object) = if self.text_only {
            ("cmpl-", "text_completion")
        } else {
            ("chatcmpl-", "chat.completion.chunk")
        };
        let mut chunk = json!({
            "id": answer.id(prefix),
            "choices": choices,
            "created": answer.created,
            "model": answer.model,
            "object": object,
        });
        match (moment.mode, moment.usage) {
            (UsageMode::Cumulative | UsageMode::PerEvent, Some(counted)) => chunk["usage"] = usage(counted),
            (UsageMode::Null, _) => chunk["usage"] = Value::Null,
            _ => {}
        }
        chunk
    }

    /// One chunk for every choice.
    fn deltas(
        &self,
        answer: &Answer,
        moment: Moment,
        events: &mut Vec<Event>,
        delta: &Value,
        finish_reason: &Value,
    ) {
        for index in 0..answer.choices {
            let mut choice = if self.text_only {
                json!({ "index": index, "text": delta["content"].as_str().unwrap_or(""), "finish_reason": finish_reason })
            } else {
                json!({ "index": index, "delta": delta, "finish_reason": finish_reason })
            };
            if moment.mode == UsageMode::InChoice && !finish_reason.is_null() {
                choice["usage"] = usage(answer.usage);
            }
            events.push(Event::data(self.chunk(answer, vec![choice], moment)));
        }
    }
}

impl Encoder for Chunks {
    fn encode(&mut self, answer: &Answer, step: Step<'_>, moment: Moment, events: &mut Vec<Event>) {
        let delta = match step {
            Step::Open if self.text_only => return,
            Step::Open => json!({ "role": "assistant", "content": "" }),
            Step::Reasoning(text) => json!({ "reasoning_content": text }),
            Step::Text(text) => json!({ "content": text }),
            Step::Call(number) => json!({ "tool_calls": [{
                "index": number, "id": answer.calls[number].id, "type": "function",
                "function": { "name": answer.calls[number].name, "arguments": "" } }] }),
            Step::Arguments(number, text) => {
                json!({ "tool_calls": [{ "index": number, "function": { "arguments": text } }] })
            }
            Step::Finish => {
                let reason = json!(finish(answer.finish));
                return self.deltas(answer, moment, events, &json!({}), &reason);
            }
            Step::Usage => {
                let wanted = self.include_usage || moment.mode == UsageMode::AfterDone;
                let here = matches!(moment.mode, UsageMode::AsAsked | UsageMode::AfterDone);
                if wanted && here {
                    let mut chunk = self.chunk(answer, Vec::new(), moment);
                    chunk["usage"] = usage(answer.usage);
                    events.push(Event::data(chunk));
                }
                return;
            }
            Step::Done => return events.push(Event::data("[DONE]")),
        };
        self.deltas(answer, moment, events, &delta, &Value::Null);
    }

    fn error(&mut self, _answer: &Answer, status: StatusCode) -> Event {
        Event::data(error(status, "the script ends this stream with an error"))
    }
}

/// What a vendor lists.
const MODELS: &[(&str, &str)] = &[
    ("qwen-max", "alibaba"),
    ("qwen-max-0403", "alibaba"),
    ("qwen-plus", "alibaba"),
    ("qwen-turbo", "alibaba"),
    ("gpt-4o", "openai"),
    ("gpt-4o-mini", "openai"),
    ("claude-sonnet-4-5", "anthropic"),
    ("deepseek-chat", "deepseek"),
    ("text-embedding-v3", "alibaba"),
    ("text-embedding-3-small", "openai"),
];

const LISTED: u64 = 1_715_367_049;

fn model_object(id: &str, owner: &str) -> Value {
    json!({ "id": id, "object": "model", "created": LISTED, "owned_by": owner })
}

/// `GET /v1/models`.
pub(crate) fn models() -> Value {
    let data: Vec<Value> = MODELS.iter().map(|(id, owner)| model_object(id, owner)).collect();
    json!({ "object": "list", "data": data })
}

/// `GET /v1/models/{id}`; `None` for a model that is not listed.
pub(crate) fn model(id: &str) -> Option<Value> {
    let (id, owner) = MODELS.iter().find(|(known, _)| *known == id)?;
    Some(model_object(id, owner))
}

const DIMENSIONS: usize = 256;
const MAX_DIMENSIONS: usize = 4096;

/// A unit vector: the sum of one pseudo-random direction for each token, so that similar texts are near each other.
pub(crate) fn embedding(text: &str, dimensions: usize) -> Vec<f32> {
    let mut vector = vec![0f32; dimensions];
    for piece in tokens::pieces(text) {
        let mut state = fnv(piece.trim().to_lowercase().as_bytes());
        for value in &mut vector {
            state = mix(state);
            *value += f32::from(u16::try_from(state & 0xffff).unwrap_or(0)) / 32_767.5 - 1.0;
        }
    }
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length > 0.0 {
        for value in &mut vector {
            *value /= length;
        }
    }
    vector
}

/// Answers an embeddings request.
pub(crate) fn embeddings(body: &Value) -> Result<Value, String> {
    let model = body["model"]
        .as_str()
        .ok_or("you must provide a model parameter")?;
    let texts: Vec<String> = match &body["input"] {
        Value::String(text) => vec![text.clone()],
        // Token ids stand for themselves: one list of numbers is one text.
        Value::Array(items) if items.iter().all(Value::is_number) && !items.is_empty() => {
            vec![body["input"].to_string()]
        }
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
            .collect(),
        _ => return Err("'input' is a required property".to_owned()),
    };
    let dimensions = number(&body["dimensions"])
        .unwrap_or(DIMENSIONS)
        .clamp(1, MAX_DIMENSIONS);
    let as_base64 = body["encoding_format"] == "base64";
    let data: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let vector = embedding(text, dimensions);
            let embedding = if as_base64 {
                let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                json!(STANDARD.encode(&bytes))
            } else {
                json!(vector)
            };
            json!({ "object": "embedding", "index": index, "embedding": embedding })
        })
        .collect();
    let tokens: usize = texts.iter().map(|text| tokens::count(text)).sum();
    Ok(json!({ "object": "list", "data": data, "model": model,
               "usage": { "prompt_tokens": tokens, "total_tokens": tokens } }))
}

/// A transparent image of one pixel.
const PIXEL: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";

/// Answers an image request: as many equal images as asked for.
pub(crate) fn images(body: &Value) -> Result<Value, String> {
    let prompt = body["prompt"]
        .as_str()
        .ok_or("you must provide a prompt parameter")?;
    let as_url = body["response_format"] == "url";
    let image = if as_url {
        json!({ "url": format!("https://images.invalid/{:016x}.png", fnv(prompt.as_bytes())), "revised_prompt": prompt })
    } else {
        json!({ "b64_json": PIXEL, "revised_prompt": prompt })
    };
    let count = number(&body["n"]).unwrap_or(1).clamp(1, 10);
    Ok(json!({ "created": LISTED, "data": vec![image; count] }))
}
