//! Gemini's wire format: `generateContent` plain, `streamGenerateContent` as server-sent events or as an array that grows.
//!
//! Source: Google's Gemini API reference (`models.generateContent`, `models.streamGenerateContent`, `UsageMetadata`). With
//! `alt=sse` a stream is events; without it one JSON array of the same responses, written an element at a time. Every
//! response carries the usage so far; thoughts are not part of the candidates' tokens.

use http::StatusCode;
use serde_json::{Value, json};

use crate::answer::{Answer, Ask, Finish, Role, Tool, ToolCall, Turn, Usage};
use crate::hash::short_id;
use crate::openai::number;
use crate::plan::UsageMode;
use crate::stream::{Encoder, Event, Moment, Step};
use crate::tokens;

/// An error object: `{"error":{"code","message","status"}}`.
pub(crate) fn error(status: StatusCode, message: &str) -> Value {
    let name = match status.as_u16() {
        400 | 413 | 422 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 | 529 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "INTERNAL",
    };
    json!({ "error": { "code": status.as_u16(), "message": message, "status": name } })
}

/// The model that a path names: `…/models/NAME:generateContent`.
fn model(path: &str) -> Option<&str> {
    let (before, _) = path.rsplit_once(':')?;
    before.rsplit_once("/models/").map(|(_, name)| name)
}

fn turn(content: &Value, role: Role) -> Turn {
    let parts: Vec<&Value> = content["parts"].as_array().into_iter().flatten().collect();
    let answered = parts.iter().find_map(|part| part.get("functionResponse"));
    let texts: Vec<String> = match answered {
        Some(answer) => vec![answer["response"].to_string()],
        None => parts
            .iter()
            .filter_map(|part| part["text"].as_str().map(str::to_owned))
            .collect(),
    };
    let is_image = |part: &&&Value| part.get("inlineData").is_some() || part.get("fileData").is_some();
    Turn {
        role: if answered.is_some() { Role::Tool } else { role },
        text: texts.join("\n"),
        images: parts.iter().filter(is_image).count(),
    }
}

fn tools(body: &Value) -> Vec<Tool> {
    let declared = body["tools"].as_array().into_iter().flatten();
    let functions = declared
        .filter_map(|tool| tool["functionDeclarations"].as_array())
        .flatten();
    let tool = |function: &Value| {
        Some(Tool {
            name: function["name"].as_str()?.to_owned(),
            parameters: function.get("parameters").cloned().unwrap_or_default(),
        })
    };
    functions.filter_map(tool).collect()
}

/// Reads a request to this path.
pub(crate) fn request(path: &str, body: &Value) -> Result<Ask, String> {
    let contents = body["contents"]
        .as_array()
        .filter(|contents| !contents.is_empty());
    let contents = contents.ok_or("* GenerateContentRequest.contents: contents is not specified")?;
    let mut turns = Vec::new();
    if body["systemInstruction"].is_object() {
        turns.push(turn(&body["systemInstruction"], Role::System));
    }
    for content in contents {
        let role = match content["role"].as_str() {
            None | Some("user" | "function") => Role::User,
            Some("model") => Role::Assistant,
            Some(_) => return Err("Please use a valid role: user, model.".to_owned()),
        };
        turns.push(turn(content, role));
    }
    let config = &body["generationConfig"];
    let json_schema = (config["responseMimeType"] == "application/json")
        .then(|| config.get("responseSchema").cloned().unwrap_or(json!({})));
    Ok(Ask {
        model: model(path).unwrap_or_default().to_owned(),
        turns,
        tools: tools(body),
        max_tokens: number(&config["maxOutputTokens"]),
        reasoning: config["thinkingConfig"]["includeThoughts"] == true,
        json_schema,
        choices: number(&config["candidateCount"]).unwrap_or(1),
        ..Ask::default()
    })
}

fn finish(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::ToolCalls => "STOP",
        Finish::Length => "MAX_TOKENS",
    }
}

/// The usage, of which so many candidates' tokens and thoughts have been sent.
fn usage(prompt: usize, candidates: usize, thoughts: usize, cached: usize) -> Value {
    let mut object = json!({ "promptTokenCount": prompt });
    let mut tell = |name: &str, count: usize| {
        if count > 0 {
            object[name] = json!(count);
        }
    };
    tell("candidatesTokenCount", candidates);
    tell("thoughtsTokenCount", thoughts);
    tell("cachedContentTokenCount", cached);
    tell("totalTokenCount", prompt + candidates + thoughts);
    object
}

fn whole_usage(all: Usage) -> Value {
    usage(
        all.prompt,
        all.completion - all.reasoning,
        all.reasoning,
        all.cached,
    )
}

fn text(text: &str) -> Value {
    json!({ "text": text })
}

fn thought(text: &str) -> Value {
    json!({ "text": text, "thought": true })
}

fn call(call: &ToolCall) -> Value {
    let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
    json!({ "functionCall": { "name": call.name, "args": arguments } })
}

/// One response with these parts in each candidate.
fn response(answer: &Answer, parts: &[Value], reason: Option<&str>, told: Option<Value>) -> Value {
    let candidate = |index: usize| {
        let mut candidate = json!({ "content": { "parts": parts, "role": "model" } });
        if let Some(reason) = reason {
            candidate["finishReason"] = json!(reason);
        }
        candidate["index"] = json!(index);
        candidate
    };
    let mut object = json!({ "candidates": (0..answer.choices).map(candidate).collect::<Vec<_>>() });
    if let Some(told) = told {
        object["usageMetadata"] = told;
    }
    object["modelVersion"] = json!(answer.model);
    object["responseId"] = json!(short_id(answer.hash));
    object
}

/// A whole answer.
pub(crate) fn answer(answer: &Answer, mode: UsageMode) -> Value {
    let mut parts = Vec::new();
    if !answer.reasoning.is_empty() {
        parts.push(thought(&answer.reasoning));
    }
    match answer.calls.as_slice() {
        [] => parts.push(text(&answer.text)),
        calls => parts.extend(calls.iter().map(call)),
    }
    let told = match mode {
        UsageMode::Absent => None,
        UsageMode::Null => Some(Value::Null),
        _ => Some(whole_usage(answer.usage)),
    };
    response(answer, &parts, Some(finish(answer.finish)), told)
}

/// Writes the responses of a stream.
#[derive(Default)]
pub(crate) struct Responses {
    /// As an array, not as events.
    as_array: bool,
    /// Elements so far.
    sent: usize,
    candidates: usize,
    thoughts: usize,
}

impl Responses {
    pub(crate) fn new(as_array: bool) -> Self {
        Self {
            as_array,
            ..Self::default()
        }
    }

    fn event(&mut self, data: &Value) -> Event {
        if !self.as_array {
            return Event::data(data);
        }
        // Google's arrays are indented.
        let text = serde_json::to_string_pretty(data).unwrap_or_default();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        match self.sent {
            0 => lines[0].insert(0, '['),
            _ => lines.insert(0, ",".to_owned()),
        }
        self.sent += 1;
        Event { lines }
    }

    fn usage(&self, answer: &Answer, moment: Moment, is_last: bool) -> Option<Value> {
        let all = answer.usage;
        match moment.mode {
            UsageMode::Absent => None,
            UsageMode::Null => Some(Value::Null),
            _ if is_last => Some(whole_usage(all)),
            _ => Some(usage(all.prompt, self.candidates, self.thoughts, all.cached)),
        }
    }
}

impl Encoder for Responses {
    fn encode(&mut self, answer: &Answer, step: Step<'_>, moment: Moment, events: &mut Vec<Event>) {
        let part = match step {
            Step::Reasoning(said) => {
                self.thoughts += tokens::count(said);
                thought(said)
            }
            Step::Text(said) => {
                self.candidates += tokens::count(said) * answer.choices;
                text(said)
            }
            // A call comes in one piece.
            Step::Call(number) => call(&answer.calls[number]),
            Step::Finish => text(""),
            Step::Done if self.as_array => {
                return events.push(Event {
                    lines: vec!["]".to_owned()],
                });
            }
            Step::Open | Step::Arguments(..) | Step::Usage | Step::Done => return,
        };
        let is_last = step == Step::Finish;
        let told = self.usage(answer, moment, is_last);
        let reason = is_last.then(|| finish(answer.finish));
        let data = response(answer, &[part], reason, told);
        events.push(self.event(&data));
    }

    fn error(&mut self, _answer: &Answer, status: StatusCode) -> Event {
        let mut event = self.event(&error(status, "the script ends this stream with an error"));
        if self.as_array {
            event.lines.push("]".to_owned());
        }
        event
    }
}
