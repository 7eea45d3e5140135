//! Asking again: the conversation so far and the request that has the model repair its answer (plugins spec §2.3).

use bytes::Bytes;
use serde_json::{Map, Value, json};

/// Members of the client's request that a repair keeps, in the order in which Higress writes them.
const KEPT: [&str; 14] = [
    "max_tokens",
    "frequency_penalty",
    "n",
    "presence_penalty",
    "seed",
    "stream",
    "stream_options",
    "temperature",
    "top_p",
    "tools",
    "tool_choice",
    "user",
    "stop",
    "response_format",
];

/// What was said so far.
pub(super) struct History {
    request: Map<String, Value>,
    messages: Vec<Value>,
}

impl History {
    pub(super) fn new(body: &[u8]) -> Self {
        let request = match serde_json::from_slice(body) {
            Ok(Value::Object(members)) => members,
            _ => Map::new(),
        };
        Self {
            request,
            messages: Vec::new(),
        }
    }

    /// Notes the last message of a request and what the model's last choice said.
    pub(super) fn add(&mut self, asked: &[u8], answer: &[u8]) {
        let last = |body: &[u8], list: &str, message: &str| {
            let body: Value = serde_json::from_slice(body).ok()?;
            let entry = body.get(list)?.as_array()?.last()?.clone();
            let holder = if message.is_empty() {
                &entry
            } else {
                entry.get(message)?
            };
            Some(text_of(holder.get("content")?))
        };
        self.push("user", last(asked, "messages", "").unwrap_or_default());
        self.push("system", last(answer, "choices", "message").unwrap_or_default());
    }

    pub(super) fn add_fault(&mut self, fault: &str) {
        self.push("system", fault.to_owned());
    }

    fn push(&mut self, role: &str, text: String) {
        if !text.is_empty() {
            self.messages.push(json!({"role": role, "content": text}));
        }
    }

    /// The request that asks for a repair of `content`.
    pub(super) fn request(&self, schema: &str, content: &str) -> Bytes {
        let mut messages = self.messages.clone();
        let ask = format!(
            "Here is a JSON Schema:\n{schema}\nRewrite the following text as one JSON object that is valid against it. \
             Answer with the JSON object alone: no explanation, no code fence.\n\n{content}"
        );
        messages.push(json!({"role": "user", "content": ask}));
        let mut body = Map::new();
        let model = self.request.get("model").cloned();
        body.insert("model".to_owned(), model.unwrap_or_else(|| Value::from("")));
        body.insert("messages".to_owned(), Value::Array(messages));
        for name in KEPT {
            if let Some(value) = self.request.get(name).filter(|value| !is_zero(value)) {
                body.insert(name.to_owned(), value.clone());
            }
        }
        Value::Object(body).to_string().into()
    }
}

/// A message's text; of several parts those that are text.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part.get("text")?.as_str());
            texts.collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

/// What Go leaves out of an object.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(true) => false,
    }
}
