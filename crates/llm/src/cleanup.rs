//! Clean-up of a conversation before it is sent: `contextCleanupCommands`, `mergeConsecutiveMessages`, and the
//! `developer` role that most vendors do not know (ai-proxy spec §3.2 step 5d, §10.2–10.3).
//!
//! All edits happen on the messages as they are; a body in which nothing has to change keeps its bytes.

use serde_json::{Value, json};

use crate::openai;

/// Cuts the conversation at the last user message that is one of `commands`: it and all before it go, except system
/// messages. Returns whether one was found.
pub fn forget(messages: &mut Vec<Value>, commands: &[String]) -> bool {
    let is_command = |message: &Value| {
        message["role"] == "user" && commands.iter().any(|command| *command == openai::text(message))
    };
    let Some(last) = messages.iter().rposition(is_command) else {
        return false;
    };
    let mut position = 0;
    messages.retain(|message| {
        position += 1;
        position > last + 1 || message["role"] == "system"
    });
    true
}

/// Joins neighbours of the same role, user or assistant. Returns whether any were.
///
/// Messages that carry more than role and content (tool calls, a name) stay as they are; Higress loses those fields.
pub fn merge(messages: &mut Vec<Value>) -> bool {
    let mut merged: Vec<Value> = Vec::with_capacity(messages.len());
    let before = messages.len();
    for message in messages.drain(..) {
        match merged.last_mut() {
            Some(last) if may_merge(last, &message) => append(last, message),
            _ => merged.push(message),
        }
    }
    *messages = merged;
    messages.len() < before
}

fn may_merge(first: &Value, second: &Value) -> bool {
    let is_plain = |message: &Value| {
        message
            .as_object()
            .is_some_and(|members| members.keys().all(|name| name == "role" || name == "content"))
    };
    let role = &first["role"];
    (role == "user" || role == "assistant") && *role == second["role"] && is_plain(first) && is_plain(second)
}

fn append(first: &mut Value, second: Value) {
    if let (Value::String(left), Value::String(right)) = (&first["content"], &second["content"]) {
        first["content"] = format!("{left}\n\n{right}").into();
        return;
    }
    let mut parts = into_parts(first["content"].take());
    parts.extend(into_parts(second["content"].clone()));
    first["content"] = parts.into();
}

fn into_parts(content: Value) -> Vec<Value> {
    match content {
        Value::Array(parts) => parts,
        Value::String(text) => vec![json!({"type": "text", "text": text})],
        _ => Vec::new(),
    }
}

/// Positions of the messages whose role is `developer`.
pub fn developer_positions(messages: &[Value]) -> impl Iterator<Item = usize> {
    let each = messages.iter().enumerate();
    each.filter(|(_, message)| message["role"] == "developer")
        .map(|(position, _)| position)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(list: &[(&str, &str)]) -> Vec<Value> {
        list.iter()
            .map(|(role, content)| json!({"role": role, "content": content}))
            .collect()
    }

    #[test]
    fn the_last_command_counts() {
        let commands = ["/clear".to_owned(), "reset".to_owned()];
        let mut messages = conversation(&[
            ("system", "s1"),
            ("user", "reset"),
            ("tool", "t"),
            ("system", "s2"),
            ("user", "/clear"),
            ("assistant", "ok"),
            ("user", "go on"),
        ]);
        assert!(forget(&mut messages, &commands));
        let kept = [
            ("system", "s1"),
            ("system", "s2"),
            ("assistant", "ok"),
            ("user", "go on"),
        ];
        assert_eq!(messages, conversation(&kept));
        let mut last = conversation(&[("system", "s"), ("user", "a"), ("user", "/clear")]);
        assert!(forget(&mut last, &commands));
        assert_eq!(last, conversation(&[("system", "s")]));
        let mut partial = conversation(&[("user", "please /clear")]);
        assert!(!forget(&mut partial, &commands));
        let mut assistant = conversation(&[("assistant", "/clear")]);
        assert!(!forget(&mut assistant, &commands));
    }

    #[test]
    fn neighbours_are_joined() {
        let mut messages = conversation(&[
            ("system", "a"),
            ("system", "b"),
            ("user", "1"),
            ("user", "2"),
            ("user", "3"),
        ]);
        assert!(merge(&mut messages));
        assert_eq!(
            messages,
            conversation(&[("system", "a"), ("system", "b"), ("user", "1\n\n2\n\n3")])
        );
        let image = json!({"type": "image_url", "image_url": {"url": "u"}});
        let mut mixed = vec![
            json!({"role": "user", "content": "look"}),
            json!({"role": "user", "content": [image]}),
            json!({"role": "assistant", "content": "x", "tool_calls": []}),
            json!({"role": "assistant", "content": "y"}),
        ];
        assert!(merge(&mut mixed));
        assert_eq!(
            mixed[0]["content"],
            json!([{"type": "text", "text": "look"}, image])
        );
        assert_eq!(mixed.len(), 3, "a message with tool calls stays alone");
        assert!(!merge(&mut conversation(&[("user", "a"), ("assistant", "b")])));
    }
}
