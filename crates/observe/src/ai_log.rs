//! The request's `ai_log`: one object that every AI plugin adds to, written once, at settlement.
//!
//! As Higress leaves it in the filter state `wasm.ai_log`: compact JSON, keys sorted, `<`, `>` and `&` as `\u003c` and
//! so on, and the whole escaped once more for a place between quotes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use crate::access_log::escaped;

/// Full name of the filter state.
pub(crate) const FILTER_STATE: &str = "wasm.ai_log";

/// Attributes by name.
pub type AiLog = BTreeMap<Cow<'static, str>, Value>;

/// The text of the filter state.
pub(crate) fn text(log: AiLog) -> String {
    let mut json = String::from("{");
    for (key, mut value) in log {
        if json.len() > 1 {
            json.push(',');
        }
        value.sort_all_objects();
        json.push_str(&Value::from(key.as_ref()).to_string());
        json.push(':');
        json.push_str(&value.to_string());
    }
    json.push('}');
    escaped(&without_markup(json))
}

/// In JSON these characters stand in strings only.
fn without_markup(json: String) -> String {
    let is_markup = |character: char| matches!(character, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
    if !json.contains(is_markup) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + 32);
    for character in json.chars() {
        match character {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_written_as_go_writes_it_and_stands_between_quotes() {
        let mut log = AiLog::new();
        log.insert("model".into(), json!("qwen"));
        log.insert("answer".into(), json!("<a & \"b\">\n"));
        log.insert("details".into(), json!({"z": 1, "a": [null, 2.5]}));
        let written = text(log);
        assert_eq!(
            written,
            r#"{\"answer\":\"\\u003ca \\u0026 \\\"b\\\"\\u003e\\n\",\"details\":{\"a\":[null,2.5],\"z\":1},\"model\":\"qwen\"}"#
        );
        let line: Value = serde_json::from_str(&format!("{{\"ai_log\":\"{written}\"}}")).unwrap();
        let inner: Value = serde_json::from_str(line["ai_log"].as_str().unwrap()).unwrap();
        assert_eq!(inner["answer"], "<a & \"b\">\n");
    }
}
