//! Tool calls put together from the pieces of a stream, OpenAI's and Anthropic's (plugins spec §1.4).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tollgate_body::path;

/// Calls of one answer that are followed.
const CALL_LIMIT: usize = 256;

/// The calls so far.
#[derive(Debug, Default)]
pub(super) struct ToolCalls {
    calls: BTreeMap<u64, Call>,
    /// Bytes of arguments held.
    held: usize,
}

#[derive(Debug, Default)]
struct Call {
    id: String,
    kind: String,
    name: String,
    arguments: String,
}

impl ToolCalls {
    /// Takes one event in; arguments are kept up to `limit` bytes in all. True if it held a piece of a call.
    pub(super) fn event(&mut self, data: &[u8], limit: usize) -> bool {
        // Both, whatever comes out of the first.
        self.openai(data, limit) | self.anthropic(data, limit)
    }

    fn openai(&mut self, data: &[u8], limit: usize) -> bool {
        let Some(list) = path::get(data, "choices.0.delta.tool_calls") else {
            return false;
        };
        for piece in list.array() {
            let index = piece.get("index").map_or(0, |value| value.uint());
            let text = |at: &str| {
                piece
                    .get(at)
                    .map(|value| value.text().into_owned())
                    .unwrap_or_default()
            };
            let (id, kind, name) = (text("id"), text("type"), text("function.name"));
            let arguments = text("function.arguments");
            let Some(call) = self.call(index) else { return true };
            replace(&mut call.id, id);
            replace(&mut call.kind, kind);
            replace(&mut call.name, name);
            self.append(index, &arguments, limit);
        }
        true
    }

    fn anthropic(&mut self, data: &[u8], limit: usize) -> bool {
        let Some(kind) = path::get(data, "type") else {
            return false;
        };
        let text = |at: &str| {
            path::get(data, at)
                .map(|value| value.text().into_owned())
                .unwrap_or_default()
        };
        let index = path::get(data, "index").map_or(0, |value| value.uint());
        match &*kind.text() {
            "content_block_start" if text("content_block.type") == "tool_use" => {
                let input = path::get(data, "content_block.input")
                    .filter(|input| input.is_object() && input.entries().next().is_some());
                let Some(call) = self.call(index) else { return true };
                call.id = text("content_block.id");
                call.kind = "tool_use".to_owned();
                call.name = text("content_block.name");
                if let Some(seed) = input {
                    self.append(index, &seed.text(), limit);
                }
            }
            "content_block_delta" if self.calls.contains_key(&index) => {
                let piece = text("delta.partial_json");
                self.append(index, &piece, limit);
            }
            _ => return false,
        }
        true
    }

    fn call(&mut self, index: u64) -> Option<&mut Call> {
        if self.calls.len() >= CALL_LIMIT && !self.calls.contains_key(&index) {
            return None;
        }
        Some(self.calls.entry(index).or_default())
    }

    fn append(&mut self, index: u64, piece: &str, limit: usize) {
        if self.held + piece.len() > limit {
            return;
        }
        if let Some(call) = self.calls.get_mut(&index) {
            call.arguments.push_str(piece);
            self.held += piece.len();
        }
    }

    /// The list; `null` without calls.
    pub(super) fn finish(self) -> Value {
        if self.calls.is_empty() {
            return Value::Null;
        }
        self.calls
            .into_iter()
            .map(|(index, call)| {
                let mut entry = Map::new();
                if index > 0 {
                    entry.insert("index".into(), index.into());
                }
                entry.insert("id".into(), call.id.into());
                entry.insert("type".into(), call.kind.into());
                let function = json!({"name": call.name, "arguments": call.arguments});
                entry.insert("function".into(), function);
                Value::Object(entry)
            })
            .collect()
    }
}

fn replace(old: &mut String, new: String) {
    if !new.is_empty() {
        *old = new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assembled(events: &[&str]) -> Value {
        let mut calls = ToolCalls::default();
        for event in events {
            calls.event(event.as_bytes(), 1000);
        }
        calls.finish()
    }

    #[test]
    fn openai_pieces() {
        let calls = assembled(&[
            r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"id":"c1","type":"function","function":{"name":"f","arguments":""}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c0","function":{"name":"g","arguments":"{}"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"id":"","function":{"arguments":"{\"a\""}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"function":{"arguments":":1}"}}]}}]}"#,
        ]);
        assert_eq!(
            calls,
            json!([
                {"id": "c0", "type": "", "function": {"name": "g", "arguments": "{}"}},
                {"index": 1, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}},
            ])
        );
        assert_eq!(
            assembled(&[r#"{"choices":[{"delta":{"content":"x"}}]}"#]),
            Value::Null
        );
    }

    #[test]
    fn anthropic_pieces() {
        let start = |input: &str| {
            format!(
                r#"{{"type":"content_block_start","index":1,"content_block":{{"type":"tool_use","id":"t","name":"f","input":{input}}}}}"#
            )
        };
        let delta = r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"city\":1}"}}"#;
        let missing = r#"{"type":"content_block_delta","index":1,"delta":{}}"#;
        let calls = assembled(&[&start("{}"), missing, delta]);
        assert_eq!(calls[0]["function"]["arguments"], "{\"city\":1}");
        let seeded = assembled(&[&start("{\"a\":2}")]);
        assert_eq!(seeded[0]["function"]["arguments"], "{\"a\":2}");
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut calls = ToolCalls::default();
        for index in 0..10_000 {
            let event = format!(
                r#"{{"choices":[{{"delta":{{"tool_calls":[{{"index":{index},"function":{{"arguments":"{}"}}}}]}}}}]}}"#,
                "x".repeat(100)
            );
            calls.event(event.as_bytes(), 1000);
        }
        assert_eq!((calls.calls.len(), calls.held), (CALL_LIMIT, 1000));
    }
}
