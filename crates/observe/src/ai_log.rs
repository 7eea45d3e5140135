//! The request's `ai_log`: one object that every AI plugin adds to, written once, into its log line.
//!
//! As Higress leaves it in the filter state `wasm.ai_log`: compact JSON, keys sorted, `<`, `>` and `&` as `\u003c` and
//! so on, and the whole escaped once more for a place between quotes.

use std::borrow::Cow;
use std::io::Write;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Number, Value};
use tollgate_body::to_text;

use crate::usual::{Usual, WRITTEN, written_detail};

/// Room for as many attributes as most requests have.
const USUAL: usize = 16;

/// Full name of the filter state.
pub(crate) const FILTER_STATE: &str = "wasm.ai_log";

/// Attributes by their names.
#[derive(Debug, Clone, Default)]
pub struct AiLog {
    /// Those with a place of their own, as they came.
    usual: Vec<Field>,
    /// Where the one of each place stands among them, counted from 1; 0: there is none.
    places: [u8; WRITTEN.len()],
    /// All others, in the order of their names.
    others: Vec<(AttributeName, Field)>,
}

/// An attribute's name; most are words of ours, or of a configuration that many requests share.
#[derive(Debug, Clone)]
pub enum AttributeName {
    /// One that most requests have.
    Usual(Usual),
    /// Another of ours.
    Word(&'static str),
    /// One of a configuration.
    Shared(Arc<str>),
    /// Any other.
    Own(Box<str>),
}

impl AttributeName {
    fn of(name: &str, other: impl FnOnce() -> Self) -> Self {
        Usual::of(name).map_or_else(other, Self::Usual)
    }
}

impl Deref for AttributeName {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Usual(usual) => usual.name(),
            Self::Word(name) => name,
            Self::Shared(name) => name,
            Self::Own(name) => name,
        }
    }
}

impl From<Usual> for AttributeName {
    #[inline]
    fn from(usual: Usual) -> Self {
        Self::Usual(usual)
    }
}

impl From<&'static str> for AttributeName {
    fn from(name: &'static str) -> Self {
        Self::of(name, || Self::Word(name))
    }
}

impl From<Arc<str>> for AttributeName {
    fn from(name: Arc<str>) -> Self {
        Self::of(&name, || Self::Shared(name.clone()))
    }
}

impl From<String> for AttributeName {
    fn from(name: String) -> Self {
        Self::of(&name, || Self::Own(name.as_str().into()))
    }
}

/// The value of an attribute.
#[derive(Debug, Clone)]
enum Field {
    Null,
    Text(Cow<'static, str>),
    /// A text that lies in a body, which it keeps.
    Part(Bytes),
    Number(Number),
    /// An object of numbers, in the order of their names.
    Counts(Vec<(Cow<'static, str>, i64)>),
    /// In it all objects are in order.
    Other(Box<Value>),
}

impl From<Value> for Field {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::String(text) => Self::Text(text.into()),
            Value::Number(number) => Self::Number(number),
            mut other => {
                other.sort_all_objects();
                Self::Other(Box::new(other))
            }
        }
    }
}

impl AiLog {
    /// Sets an attribute, replacing an earlier one of the same name.
    pub fn insert(&mut self, name: impl Into<AttributeName>, value: Value) {
        self.put(name.into(), value.into());
    }

    /// Sets one that is a text.
    pub fn insert_text(&mut self, name: impl Into<AttributeName>, text: Cow<'static, str>) {
        self.put(name.into(), Field::Text(text));
    }

    /// Sets one that is a text and lies in a body, which is kept until [`AiLog::let_go`] or the end.
    pub fn insert_part(&mut self, name: impl Into<AttributeName>, text: Bytes) {
        self.put(name.into(), Field::Part(text));
    }

    /// Lets the bodies go that texts lie in.
    pub fn let_go(&mut self) {
        let others = self.others.iter_mut().map(|(_, field)| field);
        for field in self.usual.iter_mut().chain(others) {
            if let Field::Part(text) = field {
                *field = Field::Text(to_text(text).into_owned().into());
            }
        }
    }

    /// Sets one that is a count.
    pub fn insert_count(&mut self, name: impl Into<AttributeName>, count: u64) {
        self.put(name.into(), Field::Number(count.into()));
    }

    /// Sets one that is an object of counts, each name once.
    pub fn insert_counts(
        &mut self,
        name: impl Into<AttributeName>,
        mut counts: Vec<(Cow<'static, str>, i64)>,
    ) {
        counts.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        self.put(name.into(), Field::Counts(counts));
    }

    #[inline]
    fn put(&mut self, name: AttributeName, field: Field) {
        match name {
            AttributeName::Usual(usual) => self.put_usual(usual, field),
            other => self.put_other(other, field),
        }
    }

    fn put_other(&mut self, name: AttributeName, field: Field) {
        match self.others.binary_search_by(|known| (*known.0).cmp(&*name)) {
            Ok(known) => {
                if let Some(known) = self.others.get_mut(known) {
                    known.1 = field;
                }
            }
            Err(place) => self.others.insert(place, (name, field)),
        }
    }

    fn put_usual(&mut self, usual: Usual, field: Field) {
        if self.usual.is_empty() {
            self.usual.reserve(USUAL);
        }
        let Some(place) = self.places.get_mut(usual.place()) else {
            return;
        };
        match self.usual.get_mut(usize::from(*place).wrapping_sub(1)) {
            Some(known) => *known = field,
            None => {
                self.usual.push(field);
                // There are no more than there are places.
                *place = u8::try_from(self.usual.len()).unwrap_or_default();
            }
        }
    }

    /// The attribute of a place.
    fn at(&self, place: u8) -> Option<&Field> {
        self.usual.get(usize::from(place).wrapping_sub(1))
    }

    fn get(&self, name: &str) -> Option<&Field> {
        match Usual::of(name) {
            Some(usual) => self.at(*self.places.get(usual.place())?),
            None => {
                let found = self.others.binary_search_by(|known| (*known.0).cmp(name));
                Some(&self.others.get(found.ok()?)?.1)
            }
        }
    }

    /// The text of an attribute; `None` if there is none or it is none.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Field::Text(text) => Some(text),
            Field::Part(text) => str::from_utf8(text).ok(),
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
        self.usual.is_empty() && self.others.is_empty()
    }

    /// Appends the text of the filter state.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let mut others = self.others.as_slice();
        for (place, written) in self.places.iter().zip(WRITTEN) {
            let Some(field) = self.at(*place) else { continue };
            while let Some(((name, other), rest)) = others.split_first()
                && **name < *name_in(written)
            {
                key(&mut false, name, out);
                other.write(out);
                others = rest;
            }
            out.extend_from_slice(written.as_bytes());
            field.write(out);
        }
        for (name, other) in others {
            key(&mut false, name, out);
            other.write(out);
        }
        // In front of the first there is a bracket instead of a comma.
        match out.get_mut(start) {
            Some(comma) => *comma = b'{',
            None => out.push(b'{'),
        }
        out.push(b'}');
    }

    /// The text of the filter state.
    pub(crate) fn to_text(&self) -> String {
        let mut out = Vec::new();
        self.write(&mut out);
        // It is made of texts; the fallback only avoids a panic.
        String::from_utf8(out).unwrap_or_default()
    }
}

impl Field {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Text(text) => string(text, out),
            Self::Part(text) => string(&to_text(text), out),
            Self::Number(number) => write_number(number, out),
            Self::Counts(counts) => write_counts(counts, out),
            Self::Other(value) => write_value(value, out),
        }
    }
}

/// The name in what stands between two attributes.
fn name_in(written: &str) -> &str {
    let before = written.strip_prefix(",\\\"").unwrap_or(written);
    before.strip_suffix("\\\":").unwrap_or(before)
}

/// What a text of the filter state says; `None` for any other text.
pub(crate) fn read(text: &str) -> Option<AiLog> {
    let inner: String = serde_json::from_str(&format!("\"{text}\"")).ok()?;
    let fields: serde_json::Map<String, Value> = serde_json::from_str(&inner).ok()?;
    let mut log = AiLog::default();
    for (key, value) in fields {
        log.insert(key, value);
    }
    Some(log)
}

fn write_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::String(text) => string(text, out),
        Value::Array(values) => {
            out.push(b'[');
            for (position, value) in values.iter().enumerate() {
                out.extend_from_slice(if position > 0 { b"," } else { b"" });
                write_value(value, out);
            }
            out.push(b']');
        }
        Value::Object(members) => {
            out.push(b'{');
            let mut is_first = true;
            for (name, value) in members {
                key(&mut is_first, name, out);
                write_value(value, out);
            }
            out.push(b'}');
        }
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(truth) => out.extend_from_slice(if *truth { b"true" } else { b"false" }),
        Value::Number(number) => write_number(number, out),
    }
}

fn write_number(number: &Number, out: &mut Vec<u8>) {
    if let Some(whole) = number.as_i64() {
        return write_whole(whole, out);
    }
    let written = write!(out, "{number}");
    debug_assert!(written.is_ok(), "a vector takes everything");
}

fn write_counts(counts: &[(Cow<'static, str>, i64)], out: &mut Vec<u8>) {
    out.push(b'{');
    let mut is_first = true;
    for (name, count) in counts {
        match written_detail(name) {
            Some(written) => {
                let comma = usize::from(std::mem::take(&mut is_first));
                out.extend_from_slice(written.as_bytes().get(comma..).unwrap_or_default());
            }
            None => key(&mut is_first, name, out),
        }
        write_whole(*count, out);
    }
    out.push(b'}');
}

fn write_whole(number: i64, out: &mut Vec<u8>) {
    // Most details of usage are 0.
    match u8::try_from(number) {
        Ok(digit @ 0..=9) => out.push(b'0' + digit),
        _ => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
    }
}

/// A member's name with what stands before and behind it.
fn key(is_first: &mut bool, name: &str, out: &mut Vec<u8>) {
    let comma = usize::from(std::mem::take(is_first));
    let bytes = name.as_bytes();
    let is_marked = |byte: &u8| ESCAPED.get(usize::from(*byte)) == Some(&true);
    // Nearly all names are a short word: with what is around them they are one copy.
    let mut buffer = [0; 48];
    if let Some(word) = buffer.get_mut(..bytes.len() + 6)
        && !bytes.iter().fold(false, |any, byte| any | is_marked(byte))
    {
        if let Some(place) = word.get_mut(3..bytes.len() + 3) {
            place.copy_from_slice(bytes);
        }
        if let Some(around) = word.first_chunk_mut() {
            *around = *b",\\\"";
        }
        if let Some(around) = word.last_chunk_mut() {
            *around = *b"\\\":";
        }
        out.extend_from_slice(word.get(comma..).unwrap_or_default());
        return;
    }
    out.extend_from_slice(if comma == 0 { b"," } else { b"" });
    string(name, out);
    out.push(b':');
}

/// A JSON string, escaped once more.
fn string(text: &str, out: &mut Vec<u8>) {
    // In one go: a question and an answer may be long.
    out.reserve(text.len() + text.len() / 8 + 4);
    quote(out);
    let mut rest = text;
    loop {
        let (clean, tail) = rest.split_at(clean_length(rest.as_bytes()));
        out.extend_from_slice(clean.as_bytes());
        let mut characters = tail.chars();
        let Some(first) = characters.next() else { break };
        twice(first, out);
        rest = characters.as_str();
    }
    quote(out);
}

/// Byte by byte: a call that copies two costs more.
#[inline]
fn quote(out: &mut Vec<u8>) {
    out.push(b'\\');
    out.push(b'"');
}

/// Bytes in front of the first that may be escaped; blocks without any are passed over as a whole, those of ASCII
/// alone more quickly.
fn clean_length(text: &[u8]) -> usize {
    let mut passed = clean_blocks::<64>(text, may_be_escaped_or_foreign);
    let behind = |passed: usize| text.get(passed..).unwrap_or_default();
    passed += clean_blocks::<64>(behind(passed), may_be_escaped);
    passed += clean_blocks::<32>(behind(passed), may_be_escaped);
    let rest = behind(passed);
    let is_marked = |byte: &u8| ESCAPED.get(usize::from(*byte)) == Some(&true);
    let length = rest.iter().position(is_marked);
    passed + length.unwrap_or(rest.len())
}

/// Bytes of the blocks at the start that need no escape. Shorter ones than of 32 bytes do not compile to vector
/// instructions of bytes.
#[inline]
fn clean_blocks<const SIZE: usize>(text: &[u8], is_marked: impl Fn(u8) -> bool) -> usize {
    let (blocks, _) = text.as_chunks::<SIZE>();
    let is_clean = |block: &&[u8; SIZE]| {
        // Not a `bool`: only as a number the comparisons compile to vector instructions.
        let mut any = 0;
        for byte in *block {
            any |= u8::from(is_marked(*byte));
        }
        any == 0
    };
    blocks.iter().take_while(is_clean).count() * SIZE
}

/// [`may_be_escaped`], and whatever is not ASCII, `^`, `|` and `~`: fewer comparisons.
#[inline]
const fn may_be_escaped_or_foreign(byte: u8) -> bool {
    // One more than 0x7e is the least signed number there is.
    (byte.wrapping_add(1).cast_signed() <= 0x20)
        | (byte & !0x04 == 0x22)
        // `<`, `>` and the backslash differ in these bits alone.
        | (byte & !0x62 == 0x1c)
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

fn twice(character: char, out: &mut Vec<u8>) {
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
                _ => {
                    out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                    Ok(())
                }
            };
            debug_assert!(written.is_ok(), "a vector takes everything");
            return;
        }
    };
    out.extend_from_slice(simple.as_bytes());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_written_as_go_writes_it_and_stands_between_quotes() {
        let mut log = AiLog::default();
        log.insert("model", json!("qwen"));
        log.insert("answer", json!("<a & \"b\">\n"));
        log.insert("details", json!({"z": 1, "a": [null, 2.5]}));
        let written = log.to_text();
        assert_eq!(
            written,
            r#"{\"answer\":\"\\u003ca \\u0026 \\\"b\\\"\\u003e\\n\",\"details\":{\"a\":[null,2.5],\"z\":1},\"model\":\"qwen\"}"#
        );
        let line: Value = serde_json::from_str(&format!("{{\"ai_log\":\"{written}\"}}")).unwrap();
        let inner: Value = serde_json::from_str(line["ai_log"].as_str().unwrap()).unwrap();
        assert_eq!(inner["answer"], "<a & \"b\">\n");
        let again = read(&written).unwrap();
        assert_eq!(again.text("answer"), Some("<a & \"b\">\n"));
        assert_eq!(again.to_text(), written);
        assert!(read("not a log").is_none());
    }

    #[test]
    fn a_name_is_there_once_and_counts_are_an_object() {
        let mut log = AiLog::default();
        log.insert("b", json!("old"));
        log.insert("b", json!(-1));
        log.insert_counts("a", vec![("z".into(), 2), ("<".into(), -3)]);
        assert_eq!((log.text("b"), log.number("b")), (None, Some(&(-1).into())));
        assert!(log.contains("a") && !log.contains("c") && !log.contains("model"));
        assert_eq!(log.to_text(), r#"{\"a\":{\"\\u003c\":-3,\"z\":2},\"b\":-1}"#);
    }

    #[test]
    fn a_part_of_a_body_is_a_text_and_the_body_can_be_let_go() {
        let body = Bytes::from("<question> and more".to_owned());
        let mut log = AiLog::default();
        log.insert_part("question", body.slice(..10));
        log.insert_part("mine", body.slice(11..14));
        assert_eq!(
            (log.text("question"), log.text("mine")),
            (Some("<question>"), Some("and"))
        );
        let written = log.to_text();
        assert_eq!(
            written,
            r#"{\"mine\":\"and\",\"question\":\"\\u003cquestion\\u003e\"}"#
        );
        assert!(!body.is_unique());
        log.let_go();
        assert!(body.is_unique());
        assert_eq!(log.to_text(), written);
    }

    #[test]
    fn the_quick_look_misses_nothing() {
        for byte in 0..=u8::MAX {
            assert!(!may_be_escaped(byte) || may_be_escaped_or_foreign(byte), "{byte}");
        }
    }

    #[test]
    fn usual_names_and_others_are_in_order() {
        let mut log = AiLog::default();
        for name in [
            "zeta",
            "model",
            "a",
            "output_token",
            "mode",
            "modem",
            "api",
            "n\"",
            "z",
        ] {
            log.insert_count(name.to_owned(), 1);
        }
        log.insert("api", json!(null));
        let mut names: Vec<_> = log.to_text().split(',').map(str::to_owned).collect();
        assert_eq!(names.remove(1), r#"\"api\":null"#);
        let in_order = [
            "a",
            "mode",
            "model",
            "modem",
            r#"n\\\""#,
            "output_token",
            "z",
            "zeta",
        ];
        let expected = in_order.map(|name| format!(r#"\"{name}\":1"#)).join(",");
        assert_eq!(names.join(","), format!("{{{expected}}}"));
        assert_eq!(AiLog::default().to_text(), "{}");
    }

    proptest::proptest! {
        #[test]
        fn it_is_what_encoding_and_escaping_one_after_the_other_gives(text: String, marks in "[\\x00-\\x20\"\\\\<>&\u{7f}-\u{a1}\u{2026}-\u{202a}你]{0,40}") {
            for value in [text, marks] {
                let mut log = AiLog::default();
                log.insert("k", json!([value, {"b": 1.5, "a": value}]));
                let mut encoded = json!({"k": [value, {"a": value, "b": 1.5}]}).to_string();
                for (character, code) in [('<', "3c"), ('>', "3e"), ('&', "26")] {
                    encoded = encoded.replace(character, &format!("\\u00{code}"));
                }
                encoded = encoded.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
                proptest::prop_assert_eq!(log.to_text(), crate::access_log::escaped(&encoded));
            }
        }
    }
}
