//! DashScope's stream as OpenAI chunks (ai-proxy spec §9.4).
//!
//! Without tools its events carry what is new; with tools each carries all so far, of which the new end is passed on.
//! Nothing of DashScope's own shape ever reaches the client; `[DONE]` follows a finished answer only.

use serde_json::{Map, Value, json};
use tollgate_base::clock;

use super::content_text;
use crate::providers::config::ReasoningMode;
use crate::providers::wire::{Chunk, Ended, VendorStream};
use crate::usage::Usage;

/// One streamed answer.
#[derive(Debug)]
pub struct DashScopeStream {
    model: String,
    created: u64,
    reasoning_mode: ReasoningMode,
    /// Each event repeats all before it.
    cumulative: bool,
    id: Value,
    /// What has been passed on so far.
    content: String,
    reasoning: String,
    calls: Vec<Call>,
    /// In concat mode: `<think>` is open.
    thinking: bool,
    progress: Progress,
}

#[derive(Debug, Default)]
struct Call {
    id: String,
    name: String,
    arguments: String,
}

#[derive(Debug, PartialEq)]
enum Progress {
    Running,
    /// A finish reason came.
    Finished,
    /// `[DONE]` or an error was written.
    Closed,
}

impl DashScopeStream {
    /// For a request sent with this model name; with tools its events are cumulative.
    #[must_use]
    pub fn new(model: &str, reasoning_mode: ReasoningMode, cumulative: bool) -> Self {
        Self {
            model: model.to_owned(),
            created: clock::unix_seconds(),
            reasoning_mode,
            cumulative,
            id: Value::Null,
            content: String::new(),
            reasoning: String::new(),
            calls: Vec::new(),
            thinking: false,
            progress: Progress::Running,
        }
    }

    fn chunk(&self, choices: Value, usage: Value) -> Chunk {
        Chunk::Json(json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "usage": usage,
        }))
    }

    fn delta(&self, delta: Value, reason: Value) -> Chunk {
        let choice = json!([{"index": 0, "delta": delta, "finish_reason": reason, "logprobs": null}]);
        self.chunk(choice, Value::Null)
    }

    fn texts(&mut self, message: &Value, out: &mut Vec<Chunk>) {
        let reasoning = message["reasoning_content"].as_str().unwrap_or_default();
        let content = content_text(&message["content"]);
        let (new_reasoning, new_content) = if self.cumulative {
            (
                take_new(&mut self.reasoning, reasoning),
                take_new(&mut self.content, &content),
            )
        } else {
            (reasoning.to_owned(), content)
        };
        let mut delta = Map::new();
        let text = match self.reasoning_mode {
            ReasoningMode::Concat => self.concatenated(&new_reasoning, &new_content),
            ReasoningMode::Ignore => new_content,
            ReasoningMode::PassThrough => {
                if !new_reasoning.is_empty() {
                    delta.insert("reasoning_content".into(), new_reasoning.into());
                }
                new_content
            }
        };
        if !text.is_empty() {
            delta.insert("content".into(), text.into());
        }
        if delta.is_empty() {
            return;
        }
        delta.shift_insert(0, "role".into(), "assistant".into());
        out.push(self.delta(Value::Object(delta), Value::Null));
    }

    fn concatenated(&mut self, reasoning: &str, content: &str) -> String {
        let mut text = String::new();
        if !reasoning.is_empty() {
            if !self.thinking {
                text.push_str("<think>");
                self.thinking = true;
            }
            text.push_str(reasoning);
        }
        if !content.is_empty() {
            if std::mem::take(&mut self.thinking) {
                text.push_str("</think>\n");
            }
            text.push_str(content);
        }
        text
    }

    fn tool_calls(&mut self, message: &Value, out: &mut Vec<Chunk>) {
        let mut deltas = Vec::new();
        for (position, call) in message["tool_calls"].as_array().into_iter().flatten().enumerate() {
            let index = call["index"]
                .as_u64()
                .and_then(|index| usize::try_from(index).ok());
            let index = index.unwrap_or(position).min(self.calls.len());
            if index == self.calls.len() {
                self.calls.push(Call::default());
            }
            deltas.extend(self.calls[index].delta(index, call));
        }
        if !deltas.is_empty() {
            out.push(self.delta(json!({"role": "assistant", "tool_calls": deltas}), Value::Null));
        }
    }

    fn finish(&mut self, reason: &str, usage: &Value, out: &mut Vec<Chunk>) {
        self.progress = Progress::Finished;
        if std::mem::take(&mut self.thinking) {
            out.push(self.delta(json!({"content": "</think>"}), Value::Null));
        }
        out.push(self.delta(json!({}), reason.into()));
        if let Some(usage) = Usage::of_responses(usage) {
            out.push(self.chunk(json!([]), usage.to_openai()));
        }
    }

    fn error(&mut self, event: &Value, out: &mut Vec<Chunk>) {
        self.progress = Progress::Closed;
        out.push(Chunk::Error(json!({"error": {
            "message": event["message"], "type": "server_error", "param": null, "code": event["code"],
        }})));
    }
}

impl Call {
    /// What is new in this call; nothing if nothing is.
    fn delta(&mut self, index: usize, call: &Value) -> Option<Value> {
        let function = &call["function"];
        let id = take_new(&mut self.id, call["id"].as_str().unwrap_or_default());
        let name = take_new(&mut self.name, function["name"].as_str().unwrap_or_default());
        let arguments = take_new(
            &mut self.arguments,
            function["arguments"].as_str().unwrap_or_default(),
        );
        if id.is_empty() && name.is_empty() && arguments.is_empty() {
            return None;
        }
        let mut delta = json!({"index": index});
        if !id.is_empty() {
            delta["id"] = id.into();
            delta["type"] = "function".into();
        }
        delta["function"] = json!({"arguments": arguments});
        if !name.is_empty() {
            delta["function"]["name"] = name.into();
        }
        Some(delta)
    }
}

/// The part of a cumulative text that is new; remembered. One that does not repeat what was before is new as a whole.
fn take_new(before: &mut String, received: &str) -> String {
    let new = match received.strip_prefix(before.as_str()) {
        Some(rest) if !before.is_empty() => rest.to_owned(),
        _ => received.to_owned(),
    };
    before.push_str(&new);
    new
}

impl VendorStream for DashScopeStream {
    fn event(&mut self, name: &str, data: &str, out: &mut Vec<Chunk>) {
        if self.progress == Progress::Closed {
            return;
        }
        if data.trim() == "[DONE]" {
            self.progress = Progress::Closed;
            out.push(Chunk::Done);
            return;
        }
        let Ok(event) = serde_json::from_str::<Value>(data) else {
            return;
        };
        if name == "error" || event["code"].as_str().is_some_and(|code| !code.is_empty()) {
            self.error(&event, out);
            return;
        }
        if !event["output"].is_object() {
            return;
        }
        if self.id.is_null() {
            self.id = event["request_id"].clone();
        }
        let choice = &event["output"]["choices"][0];
        self.texts(&choice["message"], out);
        self.tool_calls(&choice["message"], out);
        let reason = choice["finish_reason"].as_str().unwrap_or_default();
        if self.progress == Progress::Running && !reason.is_empty() && reason != "null" {
            self.finish(reason, &event["usage"], out);
        }
    }

    fn end(&mut self, out: &mut Vec<Chunk>) -> Ended {
        match self.progress {
            Progress::Running => Ended::Truncated,
            Progress::Finished => {
                self.progress = Progress::Closed;
                out.push(Chunk::Done);
                Ended::Whole
            }
            Progress::Closed => Ended::Whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(message: Value, reason: &str) -> Value {
        json!({"request_id": "r", "output": {"choices": [{"message": message, "finish_reason": reason}]},
            "usage": {"input_tokens": 2, "output_tokens": 1, "total_tokens": 3}})
    }

    /// Deltas and finish reasons, in short; then how it ended.
    fn run(mode: ReasoningMode, events: &[Value]) -> (Vec<String>, Ended) {
        let with_tools = events
            .iter()
            .any(|event| event.to_string().contains("tool_calls"));
        let mut stream = DashScopeStream::new("m", mode, with_tools);
        let mut out = Vec::new();
        for event in events {
            stream.event("result", &event.to_string(), &mut out);
        }
        let ended = stream.end(&mut out);
        let short = |chunk: &Chunk| match chunk {
            Chunk::Done => "DONE".to_owned(),
            Chunk::Error(error) => error["error"]["code"].to_string(),
            Chunk::Json(value) if value["usage"].is_object() => {
                format!("usage {}", value["usage"]["total_tokens"])
            }
            Chunk::Json(value) => {
                let mut choice = value["choices"][0].clone();
                choice["delta"].as_object_mut().unwrap().shift_remove("role");
                match choice["finish_reason"].as_str() {
                    Some(reason) => reason.to_owned(),
                    None => choice["delta"].to_string(),
                }
            }
        };
        (out.iter().map(short).collect(), ended)
    }

    #[test]
    fn incremental() {
        let events = [
            event(
                json!({"role": "assistant", "reasoning_content": "hm", "content": ""}),
                "null",
            ),
            event(json!({"content": "Hi"}), "null"),
            event(json!({"content": "Hi"}), "null"),
            event(json!({"content": ""}), "stop"),
        ];
        let passed = [
            r#"{"reasoning_content":"hm"}"#,
            r#"{"content":"Hi"}"#,
            r#"{"content":"Hi"}"#,
            "stop",
            "usage 3",
            "DONE",
        ];
        assert_eq!(
            run(ReasoningMode::PassThrough, &events),
            (passed.map(str::to_owned).to_vec(), Ended::Whole)
        );
        let concat = run(ReasoningMode::Concat, &events).0;
        assert_eq!(
            concat[..3],
            [
                r#"{"content":"<think>hm"}"#,
                r#"{"content":"</think>\nHi"}"#,
                r#"{"content":"Hi"}"#
            ]
        );
        assert_eq!(run(ReasoningMode::Ignore, &events).0[0], r#"{"content":"Hi"}"#);
        assert_eq!(run(ReasoningMode::PassThrough, &events[..3]).1, Ended::Truncated);
    }

    #[test]
    fn cumulative_with_tools() {
        let call = |arguments: &str| json!([{"index": 0, "id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}]);
        let events = [
            event(json!({"content": "a"}), "null"),
            event(json!({"content": "ab", "tool_calls": call("")}), "null"),
            event(json!({"content": "ab", "tool_calls": call("{\"x")}), "null"),
            event(
                json!({"content": "ab", "tool_calls": call("{\"x\":1}")}),
                "tool_calls",
            ),
        ];
        let expected = [
            r#"{"content":"a"}"#,
            r#"{"content":"b"}"#,
            r#"{"tool_calls":[{"index":0,"id":"1","type":"function","function":{"arguments":"","name":"f"}}]}"#,
            r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"x"}}]}"#,
            r#"{"tool_calls":[{"index":0,"function":{"arguments":"\":1}"}}]}"#,
            "tool_calls",
            "usage 3",
            "DONE",
        ];
        assert_eq!(run(ReasoningMode::PassThrough, &events).0, expected);
    }

    #[test]
    fn an_error_is_the_last_word() {
        let error = json!({"code": "Throttling", "message": "slow"});
        let unknown = json!({"news": true});
        let (out, ended) = run(
            ReasoningMode::PassThrough,
            &[event(json!({"content": "a"}), "null"), unknown, error],
        );
        assert_eq!(out, [r#"{"content":"a"}"#, "\"Throttling\""]);
        assert_eq!(ended, Ended::Whole);
    }
}
