//! Anthropic's stream as OpenAI chunks (ai-proxy spec §8.5).
//!
//! Differences from Higress, all of them repairs: there is one choice, 0; tool calls are numbered 0, 1, …; the output
//! count of `message_delta` is cumulative, as Anthropic documents it; an `error` event reaches the client; `[DONE]`
//! follows a whole answer only.

use serde_json::{Map, Value, json};
use tollgate_base::clock;

use super::finish_reason;
use crate::providers::wire::{Chunk, Ended, VendorStream};
use crate::usage::Usage;

/// One streamed answer.
#[derive(Debug)]
pub struct AnthropicStream {
    model: String,
    created: u64,
    id: Value,
    service_tier: Option<Value>,
    /// Anthropic's usage object as far as it is known; later fields replace earlier ones.
    usage: Map<String, Value>,
    /// Block index of each tool call, in order.
    tool_blocks: Vec<u64>,
    progress: Progress,
}

#[derive(Debug, PartialEq)]
enum Progress {
    Running,
    /// A stop reason came.
    Finished,
    /// The last chunk and `[DONE]` were written.
    Stopped,
    Failed,
}

impl AnthropicStream {
    /// For a request sent with this model name.
    #[must_use]
    pub fn new(model: &str) -> Self {
        Self {
            model: model.to_owned(),
            created: clock::unix_seconds(),
            id: Value::Null,
            service_tier: None,
            usage: Map::new(),
            tool_blocks: Vec::new(),
            progress: Progress::Running,
        }
    }

    fn chunk(&self, choices: Value, usage: Value) -> Chunk {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "usage": usage,
        });
        if let Some(tier) = &self.service_tier {
            chunk["service_tier"] = tier.clone();
        }
        Chunk::Json(chunk)
    }

    fn delta(&self, delta: Value) -> Chunk {
        self.finishing_delta(delta, Value::Null)
    }

    fn finishing_delta(&self, delta: Value, reason: Value) -> Chunk {
        let choice = json!([{"index": 0, "delta": delta, "finish_reason": reason, "logprobs": null}]);
        self.chunk(choice, Value::Null)
    }

    fn merge_usage(&mut self, usage: &Value) {
        for (name, value) in usage.as_object().into_iter().flatten() {
            if !value.is_null() {
                self.usage.insert(name.clone(), value.clone());
            }
        }
    }

    /// Position of the tool call that a block holds.
    fn tool_index(&mut self, block: u64) -> usize {
        if let Some(position) = self.tool_blocks.iter().position(|known| *known == block) {
            return position;
        }
        self.tool_blocks.push(block);
        self.tool_blocks.len() - 1
    }

    fn block_started(&mut self, event: &Value, out: &mut Vec<Chunk>) {
        let block = &event["content_block"];
        if block["type"] != "tool_use" {
            return;
        }
        let index = self.tool_index(event["index"].as_u64().unwrap_or(0));
        out.push(self.delta(json!({"tool_calls": [{
            "index": index, "id": block["id"], "type": "function",
            "function": {"name": block["name"], "arguments": ""},
        }]})));
    }

    fn block_delta(&mut self, event: &Value, out: &mut Vec<Chunk>) {
        let delta = &event["delta"];
        let translated = match delta["type"].as_str().unwrap_or_default() {
            "text_delta" => json!({"content": delta["text"]}),
            "thinking_delta" => json!({"reasoning": delta["thinking"]}),
            "input_json_delta" => {
                let index = self.tool_index(event["index"].as_u64().unwrap_or(0));
                json!({"tool_calls": [{"index": index, "function": {"arguments": delta["partial_json"]}}]})
            }
            _ => return,
        };
        out.push(self.delta(translated));
    }
}

impl AnthropicStream {
    fn stop(&mut self, out: &mut Vec<Chunk>) {
        self.progress = Progress::Stopped;
        let usage = Usage::of_anthropic(&Value::Object(std::mem::take(&mut self.usage)));
        let reported = usage.map_or(Value::Null, Usage::to_openai);
        out.push(self.chunk(json!([]), reported));
        out.push(Chunk::Done);
    }
}

impl VendorStream for AnthropicStream {
    fn event(&mut self, _name: &str, data: &str, out: &mut Vec<Chunk>) {
        if matches!(self.progress, Progress::Stopped | Progress::Failed) {
            return;
        }
        let Ok(event) = serde_json::from_str::<Value>(data) else {
            return;
        };
        match event["type"].as_str().unwrap_or_default() {
            "message_start" => {
                let message = &event["message"];
                self.id = message["id"].clone();
                self.service_tier = message["usage"]
                    .get("service_tier")
                    .filter(|tier| tier.is_string())
                    .cloned();
                self.merge_usage(&message["usage"]);
                out.push(self.delta(json!({"role": "assistant", "content": ""})));
            }
            "content_block_start" => self.block_started(&event, out),
            "content_block_delta" => self.block_delta(&event, out),
            "message_delta" => {
                self.merge_usage(&event["usage"]);
                if let Some(reason) = event["delta"]["stop_reason"].as_str() {
                    self.progress = Progress::Finished;
                    out.push(self.finishing_delta(json!({}), finish_reason(reason).into()));
                }
            }
            "message_stop" => self.stop(out),
            "error" => {
                self.progress = Progress::Failed;
                let error = &event["error"];
                out.push(Chunk::Error(json!({"error": {
                    "message": error["message"], "type": error["type"], "param": null, "code": error["type"],
                }})));
            }
            _ => {}
        }
    }

    fn end(&mut self, out: &mut Vec<Chunk>) -> Ended {
        match self.progress {
            Progress::Running => Ended::Truncated,
            Progress::Finished => {
                self.stop(out);
                Ended::Whole
            }
            Progress::Stopped | Progress::Failed => Ended::Whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(events: &[Value]) -> (Vec<Chunk>, Ended) {
        let mut stream = AnthropicStream::new("m");
        let mut out = Vec::new();
        for event in events {
            stream.event(event["type"].as_str().unwrap(), &event.to_string(), &mut out);
        }
        let ended = stream.end(&mut out);
        (out, ended)
    }

    fn json_of(chunk: &Chunk) -> &Value {
        let Chunk::Json(value) = chunk else {
            panic!("{chunk:?}")
        };
        value
    }

    #[test]
    fn a_whole_answer() {
        let (chunks, ended) = run(&[
            json!({"type": "message_start", "message": {"id": "msg", "usage": {"input_tokens": 10, "output_tokens": 1,
                "cache_read_input_tokens": 4, "service_tier": "standard"}}}),
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}),
            json!({"type": "ping"}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}}),
            json!({"type": "content_block_stop", "index": 0}),
            json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "hi"}}),
            json!({"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}}),
            json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "{}"}}),
            json!({"type": "content_block_start", "index": 3, "content_block": {"type": "tool_use", "id": "u", "name": "g", "input": {}}}),
            json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 15}}),
            json!({"type": "message_stop"}),
        ]);
        assert_eq!(ended, Ended::Whole);
        let deltas: Vec<Value> = chunks[..7]
            .iter()
            .map(|chunk| json_of(chunk)["choices"][0].clone())
            .map(|choice| json!([choice["index"], choice["delta"], choice["finish_reason"]]))
            .collect();
        let expected = [
            json!([0, {"role": "assistant", "content": ""}, null]),
            json!([0, {"reasoning": "hm"}, null]),
            json!([0, {"content": "hi"}, null]),
            json!([0, {"tool_calls": [{"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": ""}}]}, null]),
            json!([0, {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}, null]),
            json!([0, {"tool_calls": [{"index": 1, "id": "u", "type": "function", "function": {"name": "g", "arguments": ""}}]}, null]),
            json!([0, {}, "tool_calls"]),
        ];
        assert_eq!(deltas, expected);
        let last = json_of(&chunks[7]);
        assert_eq!(last["choices"], json!([]));
        assert_eq!(
            last["usage"],
            json!({"prompt_tokens": 14, "completion_tokens": 15, "total_tokens": 29,
                "prompt_tokens_details": {"cached_tokens": 4}})
        );
        assert_eq!(
            (&last["id"], &last["service_tier"]),
            (&json!("msg"), &json!("standard"))
        );
        assert_eq!(chunks[8], Chunk::Done);
    }

    #[test]
    fn a_stream_that_just_ends_is_truncated() {
        let (chunks, ended) = run(&[json!({"type": "message_start", "message": {"id": "m"}})]);
        assert_eq!(ended, Ended::Truncated);
        assert_eq!(chunks.len(), 1);
    }

    #[test]
    fn a_stop_reason_makes_it_whole() {
        let stop = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}});
        let (chunks, ended) = run(&[stop]);
        assert_eq!(ended, Ended::Whole);
        assert_eq!(chunks.last(), Some(&Chunk::Done));
    }

    #[test]
    fn an_error_event_is_the_last_word() {
        let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}});
        let (chunks, ended) = run(&[error, json!({"type": "message_stop"})]);
        let expected = json!({"error": {"message": "busy", "type": "overloaded_error", "param": null, "code": "overloaded_error"}});
        assert_eq!(chunks, [Chunk::Error(expected)]);
        assert_eq!(ended, Ended::Whole);
    }
}
