//! What two sides did with one request, and where it is not the same.

use serde_json::Value;

use super::http::Message;

/// What came of one request on one side.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) answer: Message,
    /// What the upstream saw.
    pub(super) forwarded: Vec<Message>,
}

/// Fields that say when, how or how far, and not what.
const INCIDENTAL: &[&str] = &[
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "transfer-encoding",
];

/// One line for each place where the outcomes differ.
pub(super) fn differences(native: &Outcome, wasm: &Outcome) -> Vec<String> {
    let mut found = messages("answer", &native.answer, &wasm.answer);
    if native.forwarded.len() != wasm.forwarded.len() {
        let counts = (native.forwarded.len(), wasm.forwarded.len());
        found.push(format!(
            "forwarded: built-in {} times, module {}",
            counts.0, counts.1
        ));
        return found;
    }
    for (left, right) in native.forwarded.iter().zip(&wasm.forwarded) {
        found.extend(messages("forwarded", left, right));
    }
    found
}

fn messages(what: &str, left: &Message, right: &Message) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |part: &str, left: String, right: String| {
        if left != right {
            found.push(format!("{what}, {part}: built-in {left}, module {right}"));
        }
    };
    note("first line", left.start.clone(), right.start.clone());
    for name in names(left, right) {
        note(&name, values(left, &name), values(right, &name));
    }
    if !same_body(&left.body, &right.body) {
        note("body", text(&left.body), text(&right.body));
    }
    found
}

fn names(left: &Message, right: &Message) -> Vec<String> {
    let all = left
        .fields
        .iter()
        .chain(&right.fields)
        .map(|(name, _)| name.clone());
    let mut names: Vec<String> = all
        .filter(|name| !INCIDENTAL.contains(&name.as_str()) && !name.starts_with("x-envoy-upstream"))
        .collect();
    names.sort();
    names.dedup();
    names
}

fn values(message: &Message, name: &str) -> String {
    let found = message.fields.iter().filter(|(known, _)| known == name);
    let values: Vec<&str> = found.map(|(_, value)| value.as_str()).collect();
    match values.is_empty() {
        true => "has none".to_owned(),
        false => format!("{:?}", values.join(", ")),
    }
}

/// Byte for byte, or the same JSON: the order of an object's fields says nothing.
fn same_body(left: &[u8], right: &[u8]) -> bool {
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
    left == right || json(left).is_some_and(|left| json(right) == Some(left))
}

fn text(body: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(start: &str, fields: &[(&str, &str)], body: &str) -> Message {
        let fields = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Message {
            start: start.to_owned(),
            fields: fields.collect(),
            body: body.as_bytes().to_vec(),
        }
    }

    fn compared(left: Message, right: Message) -> Vec<String> {
        let outcome = |answer| Outcome {
            answer,
            forwarded: Vec::new(),
        };
        differences(&outcome(left), &outcome(right))
    }

    #[test]
    fn what_is_incidental_is_no_difference() {
        let left = message(
            "HTTP/1.1 200 OK",
            &[("date", "now"), ("a", "1"), ("b", "2")],
            r#"{"x":1,"y":2}"#,
        );
        let right = message("HTTP/1.1 200 OK", &[("b", "2"), ("a", "1")], r#"{"y":2, "x":1}"#);
        assert_eq!(compared(left, right), [""; 0]);
    }

    #[test]
    fn every_place_that_differs_is_named() {
        let left = message("HTTP/1.1 200 OK", &[("a", "1")], "x");
        let right = message("HTTP/1.1 403 Forbidden", &[("a", "1"), ("a", "2")], "y");
        let expected = [
            "answer, first line: built-in HTTP/1.1 200 OK, module HTTP/1.1 403 Forbidden",
            r#"answer, a: built-in "1", module "1, 2""#,
            r#"answer, body: built-in "x", module "y""#,
        ];
        assert_eq!(compared(left, right), expected);
        let once = Outcome {
            forwarded: vec![Message::default()],
            ..Outcome::default()
        };
        assert_eq!(
            differences(&once, &Outcome::default()),
            ["forwarded: built-in 1 times, module 0"]
        );
    }
}
