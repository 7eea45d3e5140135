//! What a model wants next, read from its text (plugins spec §3.5 step 2, §3.7): a JSON object in a fence, the same
//! anywhere in the text, or the lines of the first generation.
//!
//! A model's text is hostile: everything here is linear in its length.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The answer.
    Final(String),
    /// A tool's name and its arguments as text.
    Call(String, String),
    /// Nothing that can be read.
    Nothing,
}

const FENCE: &str = "```";
const FINAL: &str = "Final Answer";

/// Reads a model's text.
pub(super) fn read(content: &str) -> Step {
    let blob = fenced(content);
    let found = of_json(blob).or_else(|| of_pattern(blob));
    match found {
        Some((action, input)) if action == FINAL => Step::Final(input),
        Some((action, input)) => Step::Call(action, input),
        None => of_lines(content),
    }
}

/// What stands between the first and the last fence, without the name of a language; else everything.
fn fenced(content: &str) -> &str {
    let bounds = content.find(FENCE).zip(content.rfind(FENCE));
    let inside = bounds.and_then(|(start, end)| content.get(start + FENCE.len()..end));
    let Some(inside) = inside else {
        return content.trim();
    };
    let (first, rest) = inside.split_once('\n').unwrap_or(("", inside));
    let is_language = !first.trim().is_empty() && first.trim().chars().all(char::is_alphanumeric);
    if is_language { rest.trim() } else { inside.trim() }
}

fn of_json(blob: &str) -> Option<(String, String)> {
    let Ok(Value::Object(members)) = serde_json::from_str(blob) else {
        return None;
    };
    let (mut action, mut input) = (String::new(), String::new());
    for (key, value) in members {
        let text = match value {
            Value::String(text) => text,
            Value::Null => String::new(),
            other => other.to_string(),
        };
        if key.to_lowercase().contains("input") {
            input = text;
        } else {
            action = text;
        }
    }
    (!action.is_empty() && !input.is_empty()).then_some((action, input))
}

fn of_pattern(blob: &str) -> Option<(String, String)> {
    static BLOB: LazyLock<Option<Regex>> = LazyLock::new(|| {
        let pattern = r#"\{\s*"action":\s*"([^"]+)",\s*"action_input":\s*((?:\{[^}]+\})|"[^"]+")\s*\}"#;
        Regex::new(pattern).ok()
    });
    let found = BLOB.as_ref()?.captures(blob)?;
    Some((
        found.get(1)?.as_str().to_owned(),
        found.get(2)?.as_str().to_owned(),
    ))
}

/// `Action: name`, `Action Input: {…}` and `Final Answer: text`; the answer wins.
fn of_lines(content: &str) -> Step {
    if let Some((_, answer)) = content.split_once("Final Answer:") {
        return Step::Final(answer.to_owned());
    }
    let after = |label: &str| content.split_once(label).map(|(_, rest)| rest.trim_start());
    let name = after("Action:").and_then(|rest| rest.split(['.', '\n']).next());
    let input = after("Action Input:").and_then(|rest| rest.lines().next());
    match (name.map(str::trim), input.map(str::trim)) {
        (Some(name), Some(input)) if !name.is_empty() && !input.is_empty() => {
            Step::Call(name.to_owned(), input.to_owned())
        }
        _ => Step::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, input: &str) -> Step {
        Step::Call(name.to_owned(), input.to_owned())
    }

    #[test]
    fn every_form() {
        for (content, expected) in [
            (
                "Thought: x\nAction:\n```\n{\"action\": \"t\", \"action_input\": \"{\\\"a\\\": 1}\"}\n```",
                call("t", "{\"a\": 1}"),
            ),
            (
                "```json\n{\"action\":\"t\",\"action_input\":{\"a\":{\"b\":1}}}\n```",
                call("t", "{\"a\":{\"b\":1}}"),
            ),
            ("{\"action\":\"t\",\"Action_Input\":\"x\"}", call("t", "x")),
            (
                "well: {\"action\": \"t\",\n \"action_input\": {\"a\": 1}} ok",
                call("t", "{\"a\": 1}"),
            ),
            (
                "well: {\"action\": \"t\", \"action_input\": \"x\"} ok",
                call("t", "\"x\""),
            ),
            (
                "```\n{\"action\":\"Final Answer\",\"action_input\":\" done\"}\n```",
                Step::Final(" done".to_owned()),
            ),
            (
                "Thought: a\nAction: t\nAction Input: {\"a\":1}\n",
                call("t", "{\"a\":1}"),
            ),
            (
                "Action: t.\nAction Input: {}\nObservation: invented\nFinal Answer: yes\nmore",
                Step::Final(" yes\nmore".to_owned()),
            ),
            ("Action: t", Step::Nothing),
            ("hello", Step::Nothing),
            ("", Step::Nothing),
            ("```", Step::Nothing),
            ("``````", Step::Nothing),
            ("{\"action\":\"t\"}", Step::Nothing),
            ("{\"action\":null,\"action_input\":null}", Step::Nothing),
            ("[1]", Step::Nothing),
        ] {
            assert_eq!(read(content), expected, "{content}");
        }
    }

    #[test]
    fn hostile_texts_are_read_once_and_without_recursion() {
        let deep = "{\"a\":".repeat(100_000);
        assert_eq!(read(&deep), Step::Nothing);
        let many = "{\"action\": \"t\", \"action_input\": ".repeat(50_000);
        assert_eq!(read(&many), Step::Nothing);
        let fences = "```".repeat(100_000);
        assert_eq!(read(&fences), Step::Nothing);
    }
}
