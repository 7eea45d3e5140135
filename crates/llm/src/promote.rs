//! `promoteThinkingOnEmpty`: a model that only thought gives its thoughts as the answer (ai-proxy spec §10.4).
//!
//! Works on OpenAI's dialect. Unlike in Higress it applies to every vendor.

use serde_json::{Map, Value, json};

/// In a buffered answer: reasoning moves into each choice's empty content. Returns whether anything moved.
pub fn promote(answer: &mut Value) -> bool {
    let mut moved = false;
    for message in parts(answer, "message") {
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

/// The object `name` of each choice that has one. Looked up, not indexed: a vendor may answer with anything.
fn parts<'a>(answer: &'a mut Value, name: &'static str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    let choices = answer.get_mut("choices").and_then(Value::as_array_mut);
    let each = choices.into_iter().flatten();
    each.filter_map(move |choice| choice.get_mut(name)?.as_object_mut())
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
        for delta in parts(chunk, "delta") {
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
            json!(0),
            json!([{"choices": []}]),
            json!({"choices": 1}),
            json!({"choices": [1, {"message": 1}, {}]}),
        ] {
            let before = kept.clone();
            assert!(!promote(&mut kept));
            assert_eq!(kept, before);
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
    fn chunks_that_are_none_stay_as_they_are() {
        let mut stream = PromoteStream::default();
        for mut chunk in [
            json!(0),
            json!("a"),
            json!({}),
            json!({"choices": [1, {"delta": 1}, {}]}),
        ] {
            let before = chunk.clone();
            assert_eq!(stream.chunk(&mut chunk), None);
            assert_eq!(chunk, before);
        }
    }

    #[test]
    fn a_stream_with_content_drops_them() {
        let mut stream = PromoteStream::default();
        stream.chunk(&mut delta(json!({"reasoning_content": "a"}), Value::Null));
        stream.chunk(&mut delta(json!({"content": "x"}), Value::Null));
        assert_eq!(stream.end(), None);
    }
}
