//! DashScope's native wire format: text generation plain and streamed, embeddings.
//!
//! Source: Alibaba Cloud Model Studio's API reference of Qwen (`…/text-generation/generation`) and of its text
//! embeddings. A stream repeats the whole text so far in every event unless `parameters.incremental_output`; an
//! unfinished event has the finish reason "null", a string; there is no terminal event.

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::answer::{Answer, Ask, Finish, Role, ToolCall, Turn};
use crate::dialect::dashscope_code;
use crate::hash::{fnv, uuid};
use crate::openai::{self, embedding, number};
use crate::plan::UsageMode;
use crate::stream::{Encoder, Event, Moment, Step};
use crate::tokens;

/// Whether the request wants a stream: by header, or by `accept`.
pub(crate) fn streams(headers: &HeaderMap, body: &Value) -> bool {
    let is = |name: &str, wanted: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.contains(wanted))
    };
    is("x-dashscope-sse", "enable") || is("accept", "text/event-stream") || body["stream"] == true
}

/// Reads a generation request; `input.prompt` stands for one user message.
pub(crate) fn generation(body: &Value) -> Result<Ask, String> {
    let model = body["model"]
        .as_str()
        .ok_or("Required parameter(model) missing or invalid")?;
    let parameters = &body["parameters"];
    let turns = match body["input"]["prompt"].as_str() {
        Some(prompt) => vec![Turn {
            role: Role::User,
            text: prompt.to_owned(),
            images: 0,
        }],
        None => openai::messages(&body["input"]["messages"])?,
    };
    Ok(Ask {
        model: model.to_owned(),
        turns,
        tools: openai::tools(&parameters["tools"]),
        choice: openai::tool_choice(&parameters["tool_choice"]),
        max_tokens: number(&parameters["max_tokens"]),
        reasoning: parameters["enable_thinking"] == true,
        json_schema: (parameters["response_format"]["type"] == "json_object").then(|| json!({})),
        choices: number(&parameters["n"]).unwrap_or(1),
    })
}

fn finish(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::ToolCalls => "tool_calls",
    }
}

fn calls(calls: &[ToolCall]) -> Value {
    let call = |(index, call): (usize, &ToolCall)| {
        json!({ "index": index, "id": call.id, "type": "function",
                "function": { "name": call.name, "arguments": call.arguments } })
    };
    calls.iter().enumerate().map(call).collect()
}

fn usage(prompt: usize, completion: usize) -> Value {
    json!({ "input_tokens": prompt, "output_tokens": completion, "total_tokens": prompt + completion })
}

/// One answer or event: the output of these messages, with the usage that the mode wants.
fn document(answer: &Answer, message: &Value, reason: &str, mode: UsageMode, completion: usize) -> Value {
    let choice = json!({ "finish_reason": reason, "message": message });
    let mut document = json!({ "output": { "choices": vec![choice; answer.choices] } });
    match mode {
        UsageMode::Absent => {}
        UsageMode::Null => document["usage"] = Value::Null,
        _ => document["usage"] = usage(answer.usage.prompt, completion),
    }
    document["request_id"] = json!(
        answer
            .scripted_id
            .map_or_else(|| uuid(answer.hash), str::to_owned)
    );
    document
}

fn message(text: &str, reasoning: &str, called: &[ToolCall]) -> Value {
    let mut message = json!({ "role": "assistant", "content": text });
    if !reasoning.is_empty() {
        message["reasoning_content"] = json!(reasoning);
    }
    if !called.is_empty() {
        message["tool_calls"] = calls(called);
    }
    message
}

/// A whole answer, in the form of `result_format: message`.
pub(crate) fn answer(answer: &Answer, mode: UsageMode) -> Value {
    let whole = message(&answer.text, &answer.reasoning, &answer.calls);
    document(
        answer,
        &whole,
        finish(answer.finish),
        mode,
        answer.usage.completion,
    )
}

/// Writes the events of a streamed generation.
#[derive(Default)]
pub(crate) struct Events {
    /// Each event carries only what is new.
    incremental: bool,
    number: usize,
    text: String,
    reasoning: String,
    called: Vec<ToolCall>,
}

impl Events {
    /// The encoder that a request's parameters ask for.
    pub(crate) fn new(body: &Value) -> Self {
        Self {
            incremental: body["parameters"]["incremental_output"] == true,
            ..Self::default()
        }
    }

    fn event(&mut self, name: &str, status: u16, data: &Value) -> Event {
        self.number += 1;
        Event {
            lines: vec![
                format!("id:{}", self.number),
                format!("event:{name}"),
                format!(":HTTP_STATUS/{status}"),
                format!("data:{data}"),
            ],
        }
    }

    fn result(&mut self, answer: &Answer, message: &Value, reason: &str, mode: UsageMode) -> Event {
        let so_far = tokens::count(&self.text) + tokens::count(&self.reasoning);
        let completion = if reason == "null" {
            so_far
        } else {
            answer.usage.completion
        };
        let mode = if mode == UsageMode::AfterDone {
            UsageMode::Absent
        } else {
            mode
        };
        let data = document(answer, message, reason, mode, completion);
        self.event("result", 200, &data)
    }

    /// The event's message: what is new, or all so far.
    fn message(&self, text: &str, reasoning: &str, called: &[ToolCall]) -> Value {
        match self.incremental {
            true => message(text, reasoning, called),
            false => message(&self.text, &self.reasoning, &self.called),
        }
    }
}

impl Encoder for Events {
    fn encode(&mut self, answer: &Answer, step: Step<'_>, moment: Moment, events: &mut Vec<Event>) {
        let message = match step {
            Step::Reasoning(text) => {
                self.reasoning.push_str(text);
                self.message("", text, &[])
            }
            Step::Text(text) => {
                self.text.push_str(text);
                self.message(text, "", &[])
            }
            Step::Call(number) => {
                let call = ToolCall {
                    arguments: String::new(),
                    ..answer.calls[number].clone()
                };
                self.called.push(call.clone());
                self.message("", "", &[call])
            }
            Step::Arguments(number, text) => {
                self.called[number].arguments.push_str(text);
                let new = ToolCall {
                    id: String::new(),
                    name: String::new(),
                    arguments: text.to_owned(),
                };
                self.message("", "", &[new])
            }
            Step::Finish => {
                let last = self.message("", "", &[]);
                let event = self.result(answer, &last, finish(answer.finish), moment.mode);
                return events.push(event);
            }
            Step::Usage if moment.mode == UsageMode::AfterDone => {
                let data = json!({ "output": { "choices": [] },
                    "usage": usage(answer.usage.prompt, answer.usage.completion), "request_id": uuid(answer.hash) });
                let event = self.event("result", 200, &data);
                return events.push(event);
            }
            Step::Open | Step::Usage | Step::Done => return,
        };
        let event = self.result(answer, &message, "null", moment.mode);
        events.push(event);
    }

    fn error(&mut self, answer: &Answer, status: StatusCode) -> Event {
        let data = json!({ "code": dashscope_code(status),
            "message": "the script ends this stream with an error", "request_id": uuid(answer.hash) });
        self.event("error", status.as_u16(), &data)
    }
}

/// Answers an embeddings request: `{"input":{"texts":[…]}}`.
pub(crate) fn embeddings(body: &Value) -> Result<Value, String> {
    if !body["model"].is_string() {
        return Err("Required parameter(model) missing or invalid".to_owned());
    }
    let texts: Vec<&str> = match &body["input"]["texts"] {
        Value::Array(texts) => texts.iter().filter_map(Value::as_str).collect(),
        _ => return Err("Required parameter(input.texts) missing or invalid".to_owned()),
    };
    let dimensions = number(&body["parameters"]["dimension"])
        .unwrap_or(256)
        .clamp(1, 4096);
    let row = |(index, text): (usize, &&str)| json!({ "embedding": embedding(text, dimensions), "text_index": index });
    let total: usize = texts.iter().map(|text| tokens::count(text)).sum();
    let request_id = uuid(fnv(body["input"].to_string().as_bytes()));
    Ok(
        json!({ "output": { "embeddings": texts.iter().enumerate().map(row).collect::<Vec<_>>() },
               "usage": { "total_tokens": total }, "request_id": request_id }),
    )
}
