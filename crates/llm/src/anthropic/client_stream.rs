//! An OpenAI stream for a Claude client (ai-proxy spec §8.3): a state machine from chunks to Anthropic's events.
//!
//! Differences from Higress, all of them repairs: `message_start` and `message_stop` are always there, text after a
//! tool call opens a new block, a block is stopped before the next one starts, cached tokens are reported, and a
//! stream that just ends is not dressed up as a whole one.

use serde_json::{Value, json};

use super::client_answer::{reasoning, usage};
use super::stop_reason;
use crate::providers::wire::{Chunk, Ended};

/// One event for a Claude client.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientEvent {
    /// `event:`, the same as the data's `type`.
    pub name: &'static str,
    /// `data:`.
    pub data: Value,
}

/// One streamed answer.
#[derive(Debug, Default)]
pub struct ClientStream {
    started: bool,
    stopped: bool,
    next_block: u64,
    open: Open,
    /// Tool calls that wait until the one being written is finished, in order of their index.
    tools: Vec<Tool>,
    stop_reason: Option<String>,
    /// A finish reason or `[DONE]` was seen.
    complete: bool,
    failed: bool,
}

/// The block being written.
#[derive(Debug, Default, PartialEq, Clone, Copy)]
enum Open {
    #[default]
    None,
    Thinking,
    Text,
    /// The call with this index in the OpenAI stream.
    Tool(u64),
}

/// One tool call as it comes in.
#[derive(Debug)]
struct Tool {
    index: u64,
    id: String,
    name: String,
    arguments: String,
    written: bool,
}

impl ClientStream {
    /// A fresh one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One chunk.
    pub fn chunk(&mut self, chunk: &Chunk, out: &mut Vec<ClientEvent>) {
        if self.stopped || self.failed {
            return;
        }
        match chunk {
            Chunk::Json(value) => self.json(value, out),
            Chunk::Error(value) => self.error(value, out),
            Chunk::Done => {
                self.complete = true;
                self.finish(out);
            }
        }
    }

    /// The source ended without a transport error.
    pub fn end(&mut self, out: &mut Vec<ClientEvent>) -> Ended {
        if self.failed || self.stopped {
            return Ended::Whole;
        }
        if !self.complete {
            return Ended::Truncated;
        }
        self.finish(out);
        Ended::Whole
    }

    fn json(&mut self, value: &Value, out: &mut Vec<ClientEvent>) {
        let choice = &value["choices"][0];
        let delta = &choice["delta"];
        if !self.started && (delta.is_object() || value["usage"].is_object()) {
            self.start(value, out);
        }
        if let Some(thinking) = reasoning(delta) {
            self.write(Open::Thinking, out);
            self.delta(json!({"type": "thinking_delta", "thinking": thinking}), out);
        }
        if let Some(text) = delta["content"].as_str().filter(|text| !text.is_empty()) {
            self.write(Open::Text, out);
            self.delta(json!({"type": "text_delta", "text": text}), out);
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            self.tool(call, out);
        }
        let reason = choice["finish_reason"].as_str().map_or("", str::trim);
        if !reason.is_empty() && !reason.eq_ignore_ascii_case("null") {
            self.complete = true;
            self.stop_reason = Some(stop_reason(reason).to_owned());
            self.close_all(out);
        }
        if value["usage"].is_object() {
            self.message_delta(Some(usage(&value["usage"])), out);
        }
    }

    fn start(&mut self, value: &Value, out: &mut Vec<ClientEvent>) {
        self.started = true;
        let message = json!({
            "id": value["id"], "type": "message", "role": "assistant", "content": [], "model": value["model"],
            "stop_reason": null, "stop_sequence": null, "usage": usage(&value["usage"]), "error": null,
        });
        push(
            out,
            "message_start",
            json!({"type": "message_start", "message": message}),
        );
    }

    /// Makes sure that a block of this kind is open.
    fn write(&mut self, wanted: Open, out: &mut Vec<ClientEvent>) {
        if self.open == wanted {
            return;
        }
        self.close(out);
        let block = match wanted {
            Open::Thinking => json!({"type": "thinking", "signature": "", "thinking": ""}),
            Open::Text => json!({"type": "text", "text": ""}),
            Open::None | Open::Tool(_) => return,
        };
        self.open_block(wanted, &block, out);
    }

    fn open_block(&mut self, kind: Open, block: &Value, out: &mut Vec<ClientEvent>) {
        self.open = kind;
        let event = json!({"type": "content_block_start", "index": self.next_block, "content_block": block});
        push(out, "content_block_start", event);
    }

    fn delta(&self, delta: Value, out: &mut Vec<ClientEvent>) {
        let event = json!({"type": "content_block_delta", "index": self.next_block, "delta": delta});
        push(out, "content_block_delta", event);
    }

    fn close(&mut self, out: &mut Vec<ClientEvent>) {
        if self.open == Open::None {
            return;
        }
        self.open = Open::None;
        let event = json!({"type": "content_block_stop", "index": self.next_block});
        push(out, "content_block_stop", event);
        self.next_block += 1;
    }

    fn tool(&mut self, call: &Value, out: &mut Vec<ClientEvent>) {
        let index = call["index"].as_u64().unwrap_or(0);
        let function = &call["function"];
        let position = self.register_tool(index, call);
        let piece = function["arguments"].as_str().unwrap_or_default();
        if self.open == Open::Tool(index) {
            if !piece.is_empty() {
                self.delta(json!({"type": "input_json_delta", "partial_json": piece}), out);
            }
            return;
        }
        let tool = &mut self.tools[position];
        tool.arguments.push_str(piece);
        let named = !tool.id.is_empty() && !tool.name.is_empty();
        let busy = matches!(self.open, Open::Tool(_));
        if named && !busy && !tool.written {
            self.write_tool(position, out);
        }
    }

    /// Position of the call in `tools`, which stay in the order of their index.
    fn register_tool(&mut self, index: u64, call: &Value) -> usize {
        let position = self.tools.partition_point(|tool| tool.index < index);
        if self.tools.get(position).is_none_or(|tool| tool.index != index) {
            self.tools.insert(
                position,
                Tool {
                    index,
                    id: String::new(),
                    name: String::new(),
                    arguments: String::new(),
                    written: false,
                },
            );
        }
        let tool = &mut self.tools[position];
        let fill = |field: &mut String, value: &Value| {
            if let Some(text) = value.as_str().filter(|_| field.is_empty()) {
                text.clone_into(field);
            }
        };
        fill(&mut tool.id, &call["id"]);
        fill(&mut tool.name, &call["function"]["name"]);
        position
    }

    /// Opens the block of a call with what has come so far.
    fn write_tool(&mut self, position: usize, out: &mut Vec<ClientEvent>) {
        self.close(out);
        let tool = &mut self.tools[position];
        tool.written = true;
        let arguments = std::mem::take(&mut tool.arguments);
        let block = json!({"type": "tool_use", "id": tool.id, "name": tool.name, "input": {}});
        let kind = Open::Tool(tool.index);
        self.open_block(kind, &block, out);
        if !arguments.is_empty() {
            self.delta(
                json!({"type": "input_json_delta", "partial_json": arguments}),
                out,
            );
        }
    }

    /// Writes the calls that waited and closes what is open.
    fn close_all(&mut self, out: &mut Vec<ClientEvent>) {
        for position in 0..self.tools.len() {
            let tool = &self.tools[position];
            if !tool.written && !tool.name.is_empty() {
                self.write_tool(position, out);
            }
        }
        self.close(out);
    }

    fn message_delta(&mut self, usage: Option<Value>, out: &mut Vec<ClientEvent>) {
        let reason = self.stop_reason.take();
        let last = reason.is_some();
        let mut event =
            json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null}});
        event["usage"] = usage.unwrap_or_else(|| json!({"output_tokens": 0}));
        if !last && let Some(delta) = event["delta"].as_object_mut() {
            delta.shift_remove("stop_reason");
        }
        push(out, "message_delta", event);
        if last {
            self.message_stop(out);
        }
    }

    fn message_stop(&mut self, out: &mut Vec<ClientEvent>) {
        self.stopped = true;
        push(out, "message_stop", json!({"type": "message_stop"}));
    }

    fn finish(&mut self, out: &mut Vec<ClientEvent>) {
        if !self.started {
            self.start(&Value::Null, out);
        }
        self.close_all(out);
        if self.stop_reason.is_some() {
            self.message_delta(None, out);
        } else {
            self.message_stop(out);
        }
    }

    fn error(&mut self, value: &Value, out: &mut Vec<ClientEvent>) {
        self.failed = true;
        let error = &value["error"];
        let text = error["message"]
            .as_str()
            .unwrap_or("the upstream reported an error");
        let named = json!({"type": error_type(error), "message": text});
        push(out, "error", json!({"type": "error", "error": named}));
    }
}

/// Anthropic's name for an OpenAI error, by the words in its type and code.
fn error_type(error: &Value) -> &'static str {
    let words = format!("{} {}", error["type"], error["code"]).to_ascii_lowercase();
    let known = [
        ("rate_limit", "rate_limit_error"),
        ("quota", "rate_limit_error"),
        ("overload", "overloaded_error"),
        ("invalid_request", "invalid_request_error"),
        ("auth", "authentication_error"),
        ("permission", "permission_error"),
        ("timeout", "timeout_error"),
    ];
    let found = known.iter().find(|row| words.contains(row.0));
    found.map_or("api_error", |row| row.1)
}

fn push(out: &mut Vec<ClientEvent>, name: &'static str, data: Value) {
    out.push(ClientEvent { name, data });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the stream; each event in a short form.
    fn run(chunks: &[Value], done: bool) -> (Vec<String>, Ended) {
        let mut stream = ClientStream::new();
        let mut out = Vec::new();
        for chunk in chunks {
            let chunk = if chunk.get("error").is_some() {
                Chunk::Error(chunk.clone())
            } else {
                Chunk::Json(chunk.clone())
            };
            stream.chunk(&chunk, &mut out);
        }
        if done {
            stream.chunk(&Chunk::Done, &mut out);
        }
        let ended = stream.end(&mut out);
        (out.iter().map(short).collect(), ended)
    }

    fn short(event: &ClientEvent) -> String {
        assert_eq!(event.data["type"], event.name);
        let data = &event.data;
        match event.name {
            "content_block_start" => {
                let block = &data["content_block"];
                let name = block["name"].as_str().unwrap_or_default();
                format!(
                    "start {} {}{name}",
                    data["index"],
                    block["type"].as_str().unwrap()
                )
            }
            "content_block_delta" => {
                let texts = ["text", "thinking", "partial_json"];
                let text = texts
                    .iter()
                    .find_map(|name| data["delta"][name].as_str())
                    .unwrap();
                format!("delta {} {text}", data["index"])
            }
            "content_block_stop" => format!("stop {}", data["index"]),
            "message_delta" => format!(
                "message_delta {} {}/{}",
                data["delta"]
                    .get("stop_reason")
                    .and_then(Value::as_str)
                    .unwrap_or("-"),
                data["usage"]["input_tokens"],
                data["usage"]["output_tokens"]
            ),
            other => other.to_owned(),
        }
    }

    fn delta(delta: Value) -> Value {
        json!({"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
    }

    fn finish(reason: &str) -> Value {
        json!({"choices": [{"delta": {}, "finish_reason": reason}]})
    }

    fn call(index: u64, id: &str, name: &str, arguments: &str) -> Value {
        let mut call = json!({"index": index, "function": {"arguments": arguments}});
        if !id.is_empty() {
            call["id"] = id.into();
            call["function"]["name"] = name.into();
        }
        delta(json!({"tool_calls": [call]}))
    }

    #[test]
    fn the_worked_stream() {
        let usage = json!({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}});
        let (events, ended) = run(
            &[
                delta(json!({"role": "assistant"})),
                delta(json!({"reasoning": "hm"})),
                delta(json!({"content": "Hel"})),
                delta(json!({"content": "lo"})),
                call(0, "a", "f", ""),
                call(0, "", "", "{\"x\""),
                call(1, "b", "g", "{}"),
                call(0, "", "", ":1}"),
                finish("tool_calls"),
                usage.clone(),
                usage,
            ],
            true,
        );
        let expected = "message_start|start 0 thinking|delta 0 hm|stop 0|start 1 text|delta 1 Hel|delta 1 lo|stop 1|\
            start 2 tool_usef|delta 2 {\"x\"|delta 2 :1}|stop 2|start 3 tool_useg|delta 3 {}|stop 3|\
            message_delta tool_use 5/2|message_stop";
        assert_eq!(events.join("|"), expected);
        assert_eq!(ended, Ended::Whole);
    }

    #[test]
    fn usage_in_every_chunk_does_not_stop_the_message() {
        let usage = json!({"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 3}});
        let with_usage =
            json!({"choices": [{"delta": {"reasoning_content": "r"}, "finish_reason": ""}], "usage": usage});
        let mut stream = ClientStream::new();
        let mut out = Vec::new();
        stream.chunk(&Chunk::Json(delta(json!({"role": "assistant"}))), &mut out);
        stream.chunk(&Chunk::Json(with_usage), &mut out);
        let events: Vec<String> = out.iter().map(short).collect();
        assert_eq!(
            events.join("|"),
            "message_start|start 0 thinking|delta 0 r|message_delta - 5/1"
        );
        assert_eq!(out[3].data["delta"], json!({"stop_sequence": null}));
        assert_eq!(out[3].data["usage"]["cache_read_input_tokens"], 3);
    }

    #[test]
    fn no_role_text_after_a_tool_and_no_done() {
        let (events, ended) = run(
            &[
                call(0, "a", "f", "{}"),
                delta(json!({"content": "x"})),
                finish("length"),
            ],
            false,
        );
        let expected = "message_start|start 0 tool_usef|delta 0 {}|stop 0|start 1 text|delta 1 x|stop 1|\
            message_delta max_tokens null/0|message_stop";
        assert_eq!(events.join("|"), expected);
        assert_eq!(ended, Ended::Whole);
    }

    #[test]
    fn a_cut_stream_has_no_end() {
        for reason in ["null", "NULL", " ", ""] {
            let (events, ended) = run(&[delta(json!({"content": "x"})), finish(reason)], false);
            assert_eq!(
                events.join("|"),
                "message_start|start 0 text|delta 0 x",
                "{reason:?}"
            );
            assert_eq!(ended, Ended::Truncated);
        }
    }

    #[test]
    fn an_error_inside_the_stream_is_the_last_word() {
        let error = json!({"error": {"message": "busy"}});
        let (events, ended) = run(&[delta(json!({"content": "x"})), error, finish("stop")], true);
        assert_eq!(events.join("|"), "message_start|start 0 text|delta 0 x|error");
        assert_eq!(ended, Ended::Whole);
    }

    #[test]
    fn errors_keep_their_kind() {
        let kind = |error: Value| error_type(&error);
        assert_eq!(
            kind(json!({"type": "requests", "code": "rate_limit_exceeded"})),
            "rate_limit_error"
        );
        assert_eq!(kind(json!({"type": "overloaded_error"})), "overloaded_error");
        assert_eq!(kind(json!({"type": "server_error", "code": null})), "api_error");
    }

    #[test]
    fn done_alone_is_an_empty_message() {
        assert_eq!(run(&[], true).0.join("|"), "message_start|message_stop");
    }
}
