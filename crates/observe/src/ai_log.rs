//! The request's `ai_log`: one object that every AI plugin adds to, written once, at settlement.
//!
//! As Higress leaves it in the filter state `wasm.ai_log`: compact JSON, keys sorted, `<`, `>` and `&` as `\u003c` and
//! so on, and the whole escaped once more for a place between quotes.

use std::borrow::Cow;
use std::fmt::Write;

use serde_json::{Number, Value};

/// Full name of the filter state.
pub(crate) const FILTER_STATE: &str = "wasm.ai_log";
/// Attributes that there is room for at once; a usual request has about as many.
const USUAL: usize = 16;

/// Attributes by name; few, so that they are looked through.
#[derive(Debug, Clone, Default)]
pub struct AiLog(Vec<(Cow<'static, str>, Field)>);

/// The value of an attribute. Small, since most requests have a dozen of them.
#[derive(Debug, Clone)]
enum Field {
    Null,
    Text(String),
    Number(Number),
    /// An object of numbers.
    Counts(Vec<(Cow<'static, str>, i64)>),
    Other(Box<Value>),
}

impl From<Value> for Field {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::String(text) => Self::Text(text),
            Value::Number(number) => Self::Number(number),
            other => Self::Other(Box::new(other)),
        }
    }
}

impl AiLog {
    /// Sets an attribute, replacing an earlier one of the same name.
    pub fn insert(&mut self, name: Cow<'static, str>, value: Value) {
        self.put(name, value.into());
    }

    /// Sets one that is an object of counts, each name once.
    pub fn insert_counts(&mut self, name: &'static str, counts: Vec<(Cow<'static, str>, i64)>) {
        self.put(name.into(), Field::Counts(counts));
    }

    fn put(&mut self, name: Cow<'static, str>, field: Field) {
        if let Some(known) = self.0.iter_mut().find(|known| known.0 == name) {
            known.1 = field;
            return;
        }
        if self.0.capacity() == 0 {
            self.0.reserve_exact(USUAL);
        }
        self.0.push((name, field));
    }

    fn get(&self, name: &str) -> Option<&Field> {
        let found = self.0.iter().find(|known| known.0 == name);
        found.map(|known| &known.1)
    }

    /// The text of an attribute; `None` if there is none or it is none.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Field::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number of an attribute; `None` if there is none or it is none.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<&Number> {
        match self.get(name)? {
            Field::Number(number) => Some(number),
            _ => None,
        }
    }

    /// Whether there is an attribute of this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn texts(&self) -> usize {
        let lengths = self.0.iter().map(|(_, field)| match field {
            Field::Text(text) => text.len(),
            _ => 0,
        });
        lengths.sum()
    }
}

/// The text of the filter state, written in one go: a question and an answer may be long.
pub(crate) fn text(mut log: AiLog) -> String {
    let names = log.0.len() * 40;
    let mut out = String::with_capacity(names + log.texts() * 9 / 8);
    log.0.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    out.push('{');
    for (position, (key, field)) in log.0.iter_mut().enumerate() {
        if position > 0 {
            out.push(',');
        }
        string(key, &mut out);
        out.push(':');
        match field {
            Field::Null => out.push_str("null"),
            Field::Text(text) => string(text, &mut out),
            Field::Number(number) => write_number(number, &mut out),
            Field::Counts(counts) => write_counts(counts, &mut out),
            Field::Other(value) => {
                value.sort_all_objects();
                write_value(value, &mut out);
            }
        }
    }
    out.push('}');
    out
}

/// What a text of the filter state says; `None` for any other text.
pub(crate) fn read(text: &str) -> Option<AiLog> {
    let inner: String = serde_json::from_str(&format!("\"{text}\"")).ok()?;
    let fields: serde_json::Map<String, Value> = serde_json::from_str(&inner).ok()?;
    let owned = fields
        .into_iter()
        .map(|(key, value)| (Cow::Owned(key), value.into()));
    Some(AiLog(owned.collect()))
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
        Value::Number(number) => write_number(number, out),
    }
}

fn write_number(number: &Number, out: &mut String) {
    if let Some(whole) = number.as_u64() {
        out.push_str(itoa::Buffer::new().format(whole));
        return;
    }
    let written = write!(out, "{number}");
    debug_assert!(written.is_ok(), "a String takes everything");
}

fn write_counts(counts: &mut [(Cow<'static, str>, i64)], out: &mut String) {
    counts.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    out.push('{');
    for (position, (name, count)) in counts.iter().enumerate() {
        out.push_str(if position > 0 { "," } else { "" });
        string(name, out);
        out.push(':');
        out.push_str(itoa::Buffer::new().format(*count));
    }
    out.push('}');
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
    let large = clean_blocks::<64>(text);
    let rest = text.get(large..).unwrap_or_default();
    let passed = large + clean_blocks::<16>(rest);
    let rest = text.get(passed..).unwrap_or_default();
    let is_marked = |byte: &u8| ESCAPED.get(usize::from(*byte)) == Some(&true);
    let length = rest.iter().position(is_marked);
    passed + length.unwrap_or(rest.len())
}

/// Bytes of the blocks at the start that need no escape.
#[inline]
fn clean_blocks<const SIZE: usize>(text: &[u8]) -> usize {
    let (blocks, _) = text.as_chunks::<SIZE>();
    let is_clean = |block: &&[u8; SIZE]| {
        // Not a `bool`: only as a number the comparisons compile to vector instructions.
        let mut any = 0;
        for byte in *block {
            any |= u8::from(may_be_escaped(*byte));
        }
        any == 0
    };
    blocks.iter().take_while(is_clean).count() * SIZE
}

/// Controls, what JSON or Go's encoder escapes, and first bytes of the C1 controls and the Unicode line ends. Bytes that
/// differ in one bit are looked for together. Within its callers, or nothing of them becomes vector instructions.
#[inline]
const fn may_be_escaped(byte: u8) -> bool {
    (byte < 0x20)
        // `"` and `&`, `<` and `>`.
        | (byte & !0x04 == 0x22)
        | (byte & !0x02 == 0x3c)
        | (byte == b'\\')
        | (byte == 0x7f)
        | (byte & !0x20 == 0xc2)
}

/// [`may_be_escaped`] of every byte, for the few that no block holds.
static ESCAPED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = may_be_escaped(byte as u8);
        byte += 1;
    }
    table
};

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
        let mut log = AiLog::default();
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
        assert_eq!(again.text("answer"), Some("<a & \"b\">\n"));
        assert_eq!(self::text(again), written);
        assert!(read("not a log").is_none());
    }

    #[test]
    fn a_name_is_there_once_and_counts_are_an_object() {
        let mut log = AiLog::default();
        log.insert("b".into(), json!("old"));
        log.insert("b".into(), json!(-1));
        log.insert_counts("a", vec![("z".into(), 2), ("<".into(), -3)]);
        assert_eq!((log.text("b"), log.number("b")), (None, Some(&(-1).into())));
        assert!(log.contains("a") && !log.contains("c"));
        assert_eq!(text(log), r#"{\"a\":{\"\\u003c\":-3,\"z\":2},\"b\":-1}"#);
    }

    proptest::proptest! {
        #[test]
        fn it_is_what_encoding_and_escaping_one_after_the_other_gives(text: String, marks in "[\\x00-\\x20\"\\\\<>&\u{7f}-\u{a1}\u{2026}-\u{202a}你]{0,40}") {
            for value in [text, marks] {
                let mut log = AiLog::default();
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
