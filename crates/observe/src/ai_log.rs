//! The request's `ai_log`: one object that every AI plugin adds to, written once, at settlement.
//!
//! As Higress leaves it in the filter state `wasm.ai_log`: compact JSON, keys sorted, `<`, `>` and `&` as `\u003c` and
//! so on, and the whole escaped once more for a place between quotes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

/// Full name of the filter state.
pub(crate) const FILTER_STATE: &str = "wasm.ai_log";

/// Attributes by name.
pub type AiLog = BTreeMap<Cow<'static, str>, Value>;

/// The text of the filter state, written in one go: a question and an answer may be long.
pub(crate) fn text(log: AiLog) -> String {
    let mut out = String::with_capacity(256);
    out.push('{');
    for (position, (key, mut value)) in log.into_iter().enumerate() {
        if position > 0 {
            out.push(',');
        }
        value.sort_all_objects();
        string(&key, &mut out);
        out.push(':');
        write_value(&value, &mut out);
    }
    out.push('}');
    out
}

/// What a text of the filter state says; `None` for any other text.
pub(crate) fn read(text: &str) -> Option<AiLog> {
    let inner: String = serde_json::from_str(&format!("\"{text}\"")).ok()?;
    let fields: serde_json::Map<String, Value> = serde_json::from_str(&inner).ok()?;
    let owned = fields.into_iter().map(|(key, value)| (Cow::Owned(key), value));
    Some(owned.collect())
}

fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => string(text, out),
        Value::Array(values) => {
            out.push('[');
            for (position, value) in values.iter().enumerate() {
                out.push_str(if position > 0 { "," } else { "" });
                write_value(value, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (position, (key, value)) in members.iter().enumerate() {
                out.push_str(if position > 0 { "," } else { "" });
                string(key, out);
                out.push(':');
                write_value(value, out);
            }
            out.push('}');
        }
        Value::Null => out.push_str("null"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => {
            let written = write!(out, "{number}");
            debug_assert!(written.is_ok(), "a String takes everything");
        }
    }
}

/// A JSON string, escaped once more.
fn string(text: &str, out: &mut String) {
    out.reserve(text.len() + 4);
    out.push_str("\\\"");
    let mut rest = text;
    loop {
        let (clean, tail) = rest.split_at(clean_length(rest.as_bytes()));
        out.push_str(clean);
        let mut characters = tail.chars();
        let Some(first) = characters.next() else { break };
        twice(first, out);
        rest = characters.as_str();
    }
    out.push_str("\\\"");
}

/// Bytes in front of the first that may be escaped; blocks without any are passed over as a whole.
fn clean_length(text: &[u8]) -> usize {
    let (blocks, _) = text.as_chunks::<16>();
    let is_clean = |block: &&[u8; 16]| {
        // Not a `bool`: only as a number the comparisons compile to vector instructions.
        let mut any = 0;
        for byte in *block {
            any |= u8::from(may_be_escaped(*byte));
        }
        any == 0
    };
    let passed = blocks.iter().take_while(is_clean).count() * 16;
    let rest = text.get(passed..).unwrap_or_default();
    let length = rest.iter().position(|byte| may_be_escaped(*byte));
    passed + length.unwrap_or(rest.len())
}

/// Controls, what JSON or Go's encoder escapes, and first bytes of the C1 controls and the Unicode line ends.
fn may_be_escaped(byte: u8) -> bool {
    (byte < 0x20)
        | (byte == b'"')
        | (byte == b'\\')
        | (byte == b'<')
        | (byte == b'>')
        | (byte == b'&')
        | (byte == 0x7f)
        | (byte == 0xc2)
        | (byte == 0xe2)
}

fn twice(character: char, out: &mut String) {
    let simple = match character {
        '"' => r#"\\\""#,
        '\\' => r"\\\\",
        '\n' => r"\\n",
        '\r' => r"\\r",
        '\t' => r"\\t",
        '\u{8}' => r"\\b",
        '\u{c}' => r"\\f",
        other => {
            let code = u32::from(other);
            let written = match other {
                '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => write!(out, r"\\u{code:04x}"),
                // JSON takes them as they are; a line of the log does not.
                '\u{7f}'..='\u{9f}' => write!(out, r"\u{code:04x}"),
                _ => out.write_char(other),
            };
            debug_assert!(written.is_ok(), "a String takes everything");
            return;
        }
    };
    out.push_str(simple);
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
        let again = read(&written).unwrap();
        assert_eq!(again["answer"], json!("<a & \"b\">\n"));
        assert_eq!(self::text(again), written);
        assert_eq!(read("not a log"), None);
    }

    proptest::proptest! {
        #[test]
        fn it_is_what_encoding_and_escaping_one_after_the_other_gives(text: String, marks in "[\\x00-\\x20\"\\\\<>&\u{7f}-\u{a1}\u{2026}-\u{202a}你]{0,40}") {
            for value in [text, marks] {
                let mut log = AiLog::new();
                log.insert("k".into(), json!([value, {"b": 1.5, "a": value}]));
                let mut encoded = json!({"k": [value, {"a": value, "b": 1.5}]}).to_string();
                for (character, code) in [('<', "3c"), ('>', "3e"), ('&', "26")] {
                    encoded = encoded.replace(character, &format!("\\u00{code}"));
                }
                encoded = encoded.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
                proptest::prop_assert_eq!(super::text(log), crate::access_log::escaped(&encoded));
            }
        }
    }
}
