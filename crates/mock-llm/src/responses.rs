//! OpenAI's Responses API: plain answers and the event sequence of a stream.
//!
//! Source: OpenAI's API reference (`/v1/responses`, streaming events). State (`previous_response_id`, `store`)
//! is accepted and not kept: the mock answers each request by itself.

use http::StatusCode;
use serde_json::{Value, json};

use crate::answer::{Answer, Ask, Finish, Role, Turn, Usage};
use crate::hash::short_id;
use crate::openai::{self, number};
use crate::plan::UsageMode;
use crate::stream::{Encoder, Event, Moment, Step};

/// One item of the input as a turn.
fn turn(item: &Value) -> Result<Turn, String> {
    match item["type"].as_str() {
        Some("function_call_output") => {
            let text = item["output"]
                .as_str()
                .map_or_else(|| item["output"].to_string(), str::to_owned);
            Ok(Turn {
                role: Role::Tool,
                text,
                images: 0,
            })
        }
        Some("function_call" | "reasoning" | "item_reference") => {
            let text = item["arguments"].as_str().unwrap_or("").to_owned();
            Ok(Turn {
                role: Role::Assistant,
                text,
                images: 0,
            })
        }
        _ => {
            let mut turns = openai::messages(&json!([item]))?;
            turns.pop().ok_or_else(|| "an empty item".to_owned())
        }
    }
}

/// Reads a request.
pub(crate) fn request(body: &Value) -> Result<Ask, String> {
    let model = body["model"]
        .as_str()
        .ok_or("Missing required parameter: 'model'.")?;
    let mut turns = Vec::new();
    if let Some(instructions) = body["instructions"].as_str() {
        turns.push(Turn {
            role: Role::System,
            text: instructions.to_owned(),
            images: 0,
        });
    }
    match &body["input"] {
        Value::String(text) => turns.push(Turn {
            role: Role::User,
            text: text.clone(),
            images: 0,
        }),
        Value::Array(items) => {
            for item in items {
                turns.push(turn(item)?);
            }
        }
        _ => return Err("Missing required parameter: 'input'.".to_owned()),
    }
    let format = &body["text"]["format"];
    let json_schema = match format["type"].as_str() {
        Some("json_object") => Some(json!({})),
        Some("json_schema") => Some(format.get("schema").cloned().unwrap_or(json!({}))),
        _ => None,
    };
    Ok(Ask {
        model: model.to_owned(),
        turns,
        tools: openai::tools(&body["tools"]),
        choice: openai::tool_choice(&body["tool_choice"]),
        max_tokens: number(&body["max_output_tokens"]),
        reasoning: body["reasoning"].is_object(),
        json_schema,
        choices: 1,
    })
}

fn usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt,
        "input_tokens_details": { "cached_tokens": usage.cached },
        "output_tokens": usage.completion,
        "output_tokens_details": { "reasoning_tokens": usage.reasoning },
        "total_tokens": usage.prompt + usage.completion,
    })
}

fn item_id(answer: &Answer, prefix: &str, number: usize) -> String {
    format!("{prefix}_{}", short_id(answer.hash.wrapping_add(number as u64)))
}

fn reasoning_item(answer: &Answer, text: &str) -> Value {
    let summary = if text.is_empty() {
        json!([])
    } else {
        json!([{ "type": "summary_text", "text": text }])
    };
    json!({ "id": item_id(answer, "rs", 0), "type": "reasoning", "summary": summary })
}

fn message_item(answer: &Answer, status: &str, content: &Value) -> Value {
    json!({ "id": item_id(answer, "msg", 1), "type": "message", "status": status, "role": "assistant",
            "content": content })
}

fn text_part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [] })
}

fn call_item(answer: &Answer, number: usize, status: &str, arguments: &str) -> Value {
    let call = &answer.calls[number];
    json!({ "id": item_id(answer, "fc", 2 + number), "type": "function_call", "status": status,
            "call_id": call.id, "name": call.name, "arguments": arguments })
}

/// The items of a whole answer.
fn output(answer: &Answer) -> Vec<Value> {
    let mut items = Vec::new();
    if !answer.reasoning.is_empty() {
        items.push(reasoning_item(answer, &answer.reasoning));
    }
    if !answer.text.is_empty() {
        items.push(message_item(
            answer,
            "completed",
            &json!([text_part(&answer.text)]),
        ));
    }
    let calls = answer
        .calls
        .iter()
        .enumerate()
        .map(|(number, call)| call_item(answer, number, "completed", &call.arguments));
    items.extend(calls);
    items
}

/// The response object in one of its states.
fn object(answer: &Answer, status: &str, output: Vec<Value>, mode: UsageMode) -> Value {
    let incomplete = match status {
        "incomplete" => json!({ "reason": "max_output_tokens" }),
        _ => Value::Null,
    };
    let mut object = json!({
        "id": format!("resp_{}", short_id(answer.hash)),
        "object": "response",
        "created_at": answer.created,
        "status": status,
        "error": null,
        "incomplete_details": incomplete,
        "model": answer.model,
        "output": output,
        "parallel_tool_calls": true,
        "tool_choice": "auto",
        "tools": [],
    });
    match (mode, status) {
        (UsageMode::Absent, _) => {}
        (UsageMode::Null, _) | (_, "in_progress") => object["usage"] = Value::Null,
        _ => object["usage"] = usage(answer.usage),
    }
    object
}

fn final_status(answer: &Answer) -> &'static str {
    if answer.finish == Finish::Length {
        "incomplete"
    } else {
        "completed"
    }
}

/// A whole answer.
pub(crate) fn answer(answer: &Answer, mode: UsageMode) -> Value {
    object(answer, final_status(answer), output(answer), mode)
}

/// The item that is being streamed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Reasoning,
    Message,
    Call(usize),
}

/// Writes the events of a streamed response.
#[derive(Default)]
pub(crate) struct Events {
    sequence: usize,
    index: usize,
    open: Option<Open>,
}

impl Events {
    fn push(&mut self, events: &mut Vec<Event>, mut data: Value) {
        data["sequence_number"] = json!(self.sequence);
        self.sequence += 1;
        events.push(Event::named(data["type"].as_str().unwrap_or(""), &data));
    }

    fn added(&mut self, events: &mut Vec<Event>, item: &Value) {
        let index = self.index;
        self.push(
            events,
            json!({ "type": "response.output_item.added", "output_index": index, "item": item }),
        );
    }

    fn done(&mut self, events: &mut Vec<Event>, item: &Value) {
        let index = self.index;
        self.push(
            events,
            json!({ "type": "response.output_item.done", "output_index": index, "item": item }),
        );
        self.index += 1;
    }

    fn close(&mut self, answer: &Answer, events: &mut Vec<Event>) {
        let index = self.index;
        match self.open.take() {
            None => {}
            Some(Open::Reasoning) => {
                let item = item_id(answer, "rs", 0);
                let text = &answer.reasoning;
                self.push(
                    events,
                    json!({ "type": "response.reasoning_summary_text.done", "item_id": item,
                    "output_index": index, "summary_index": 0, "text": text }),
                );
                self.done(events, &reasoning_item(answer, text));
            }
            Some(Open::Message) => {
                let (item, part) = (item_id(answer, "msg", 1), text_part(&answer.text));
                self.push(
                    events,
                    json!({ "type": "response.output_text.done", "item_id": item,
                    "output_index": index, "content_index": 0, "text": answer.text }),
                );
                self.push(
                    events,
                    json!({ "type": "response.content_part.done", "item_id": item,
                    "output_index": index, "content_index": 0, "part": part }),
                );
                self.done(events, &message_item(answer, "completed", &json!([part])));
            }
            Some(Open::Call(number)) => {
                let arguments = &answer.calls[number].arguments;
                let item = item_id(answer, "fc", 2 + number);
                self.push(
                    events,
                    json!({ "type": "response.function_call_arguments.done", "item_id": item,
                    "output_index": index, "arguments": arguments }),
                );
                self.done(events, &call_item(answer, number, "completed", arguments));
            }
        }
    }

    fn open(&mut self, answer: &Answer, open: Open, events: &mut Vec<Event>) {
        if self.open == Some(open) {
            return;
        }
        self.close(answer, events);
        self.open = Some(open);
        let index = self.index;
        match open {
            Open::Reasoning => self.added(events, &reasoning_item(answer, "")),
            Open::Message => {
                self.added(events, &message_item(answer, "in_progress", &json!([])));
                self.push(
                    events,
                    json!({ "type": "response.content_part.added",
                    "item_id": item_id(answer, "msg", 1), "output_index": index, "content_index": 0,
                    "part": text_part("") }),
                );
            }
            Open::Call(number) => self.added(events, &call_item(answer, number, "in_progress", "")),
        }
    }
}

impl Encoder for Events {
    fn encode(&mut self, answer: &Answer, step: Step<'_>, moment: Moment, events: &mut Vec<Event>) {
        match step {
            Step::Open => {
                for kind in ["response.created", "response.in_progress"] {
                    let response = object(answer, "in_progress", Vec::new(), moment.mode);
                    self.push(events, json!({ "type": kind, "response": response }));
                }
            }
            Step::Reasoning(text) => {
                self.open(answer, Open::Reasoning, events);
                let index = self.index;
                self.push(
                    events,
                    json!({ "type": "response.reasoning_summary_text.delta",
                    "item_id": item_id(answer, "rs", 0), "output_index": index, "summary_index": 0,
                    "delta": text }),
                );
            }
            Step::Text(text) => {
                self.open(answer, Open::Message, events);
                let index = self.index;
                self.push(
                    events,
                    json!({ "type": "response.output_text.delta",
                    "item_id": item_id(answer, "msg", 1), "output_index": index, "content_index": 0,
                    "delta": text }),
                );
            }
            Step::Call(number) => self.open(answer, Open::Call(number), events),
            Step::Arguments(number, text) => {
                let index = self.index;
                self.push(
                    events,
                    json!({ "type": "response.function_call_arguments.delta",
                    "item_id": item_id(answer, "fc", 2 + number), "output_index": index, "delta": text }),
                );
            }
            Step::Finish => self.close(answer, events),
            Step::Usage => {}
            Step::Done => {
                let status = final_status(answer);
                let response = object(answer, status, output(answer), moment.mode);
                self.push(
                    events,
                    json!({ "type": format!("response.{status}"), "response": response }),
                );
            }
        }
    }

    fn error(&mut self, _answer: &Answer, status: StatusCode) -> Event {
        let error = openai::error(status, "the script ends this stream with an error");
        let data = json!({ "type": "error", "sequence_number": self.sequence, "code": error["error"]["code"],
            "message": error["error"]["message"], "param": null });
        Event::named("error", &data)
    }
}
