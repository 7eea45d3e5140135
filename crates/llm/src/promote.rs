//! `promoteThinkingOnEmpty`: a model that only thought gives its thoughts as the answer (ai-proxy spec §10.4).
//!
//! Works on OpenAI's dialect. Unlike in Higress it applies to every vendor.

use serde_json::{Value, json};

/// In a buffered answer: reasoning moves into each choice's empty content. Returns whether anything moved.
pub fn promote(answer: &mut Value) -> bool {
    let mut moved = false;
    for choice in answer["choices"].as_array_mut().into_iter().flatten() {
        let Some(message) = choice["message"].as_object_mut() else {
            continue;
        };
        let blank = message
            .get("content")
            .is_none_or(|content| content.is_null() || content.as_str().is_some_and(is_blank));
        let thought = message.get("reasoning_content").and_then(Value::as_str);
        if !blank || thought.is_none_or(str::is_empty) {
            continue;
        }
        if let Some(reasoning) = message.shift_remove("reasoning_content") {
            message.insert("content".into(), reasoning);
            moved = true;
        }
    }
    moved
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// In a stream: reasoning is held back until content comes (and then dropped) or the answer ends without any.
#[derive(Debug, Default)]
pub struct PromoteStream {
    held: String,
    content_seen: bool,
}

impl PromoteStream {
    /// Strips a chunk. What it returns has to be sent in front of it.
    pub fn chunk(&mut self, chunk: &mut Value) -> Option<Value> {
        if self.content_seen {
            return None;
        }
        for choice in chunk["choices"].as_array_mut().into_iter().flatten() {
            let Some(delta) = choice["delta"].as_object_mut() else {
                continue;
            };
            if delta
                .get("content")
                .and_then(Value::as_str)
                .is_some_and(|text| !is_blank(text))
            {
                self.content_seen = true;
                return None;
            }
            let thought = delta
                .shift_remove("reasoning_content")
                .or_else(|| delta.shift_remove("reasoning"));
            if let Some(Value::String(text)) = thought {
                self.held.push_str(&text);
            }
        }
        let finishes = chunk["choices"][0]["finish_reason"]
            .as_str()
            .is_some_and(|reason| !reason.is_empty());
        if finishes { self.end() } else { None }
    }

    /// What has to be sent before the stream's end.
    pub fn end(&mut self) -> Option<Value> {
        if self.content_seen || self.held.is_empty() {
            return None;
        }
        self.content_seen = true;
        let content = std::mem::take(&mut self.held);
        Some(json!({
            "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": null, "logprobs": null}],
            "object": "chat.completion.chunk",
            "usage": null,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffered() {
        let answer = |message: Value| json!({"choices": [{"message": message}]});
        let mut empty = answer(json!({"content": " ", "reasoning_content": "r"}));
        assert!(promote(&mut empty));
        assert_eq!(empty, answer(json!({"content": "r"})));
        let mut missing = answer(json!({"reasoning_content": "r"}));
        assert!(promote(&mut missing));
        for mut kept in [
            answer(json!({"content": "c", "reasoning_content": "r"})),
            answer(json!({"content": ""})),
            json!({}),
        ] {
            assert!(!promote(&mut kept));
        }
    }

    fn delta(delta: Value, reason: Value) -> Value {
        json!({"choices": [{"delta": delta, "finish_reason": reason}]})
    }

    #[test]
    fn a_stream_without_content_gives_its_thoughts_before_the_end() {
        let mut stream = PromoteStream::default();
        let mut first = delta(json!({"reasoning_content": "a"}), Value::Null);
        assert_eq!(stream.chunk(&mut first), None);
        assert_eq!(first, delta(json!({}), Value::Null));
        stream.chunk(&mut delta(json!({"reasoning": "b"}), Value::Null));
        let promoted = stream.chunk(&mut delta(json!({}), "stop".into())).unwrap();
        assert_eq!(promoted["choices"][0]["delta"]["content"], "ab");
        assert_eq!(stream.end(), None);
    }

    #[test]
    fn a_stream_with_content_drops_them() {
        let mut stream = PromoteStream::default();
        stream.chunk(&mut delta(json!({"reasoning_content": "a"}), Value::Null));
        stream.chunk(&mut delta(json!({"content": "x"}), Value::Null));
        assert_eq!(stream.end(), None);
    }
}
