//! `PathValue`: what a path led to, with gjson's lenient conversions.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use serde_json::Value;

use super::{escape, lex};

/// What kind of text a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// `null`
    Null,
    /// `false`
    False,
    /// A number, `nan` and `inf` included.
    Number,
    /// A string.
    String,
    /// `true`
    True,
    /// An object or array.
    Json,
}

/// A value as it is written; borrowed from the text unless a modifier or a query made it.
#[derive(Debug, Clone)]
pub struct PathValue<'a> {
    raw: Cow<'a, str>,
    kind: ValueKind,
    /// It is known for a string that has both its quotes and no escapes.
    is_plain: bool,
}

/// Two values are the same if they are written alike, whatever is known of them.
impl PartialEq for PathValue<'_> {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, &self.raw) == (other.kind, &other.raw)
    }
}

impl<'a> PathValue<'a> {
    pub(super) fn new(kind: ValueKind, raw: Cow<'a, str>) -> Self {
        Self {
            raw,
            kind,
            is_plain: false,
        }
    }

    /// The same; `is_plain` says that it is a string with both its quotes and without escapes.
    pub(super) fn known(self, is_plain: bool) -> Self {
        Self { is_plain, ..self }
    }

    pub(super) fn slice(kind: ValueKind, raw: &'a [u8]) -> Self {
        Self::new(kind, crate::to_text(raw))
    }

    /// The value a text begins with. Of an object or array everything up to the text's end is taken.
    pub(super) fn parse(text: Cow<'a, str>) -> Option<Self> {
        let bytes = text.as_bytes();
        let at = bytes.iter().position(|byte| *byte > b' ')?;
        let kind = lex::kind_at(bytes, at)?;
        let end = match kind {
            ValueKind::Json => bytes.len(),
            _ => lex::value_end(bytes, lex::Begin { at, kind }).unwrap_or(bytes.len()),
        };
        let raw = match text {
            Cow::Borrowed(all) => Cow::Borrowed(&all[at..end]),
            Cow::Owned(all) if at == 0 && end == all.len() => Cow::Owned(all),
            Cow::Owned(all) => Cow::Owned(all[at..end].to_owned()),
        };
        Some(Self::new(kind, raw))
    }

    /// A string as it is written, quotes included.
    #[must_use]
    pub fn string(quoted: &'a [u8]) -> Self {
        Self::slice(ValueKind::String, quoted)
    }

    /// The value as it is written.
    #[must_use]
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// The value as it is written, kept.
    #[must_use]
    pub fn into_raw(self) -> Cow<'a, str> {
        self.raw
    }

    /// What kind it is.
    #[must_use]
    pub fn kind(&self) -> ValueKind {
        self.kind
    }

    /// Whether it is an object.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.kind == ValueKind::Json && self.raw.starts_with('{')
    }

    /// Whether it is an array.
    #[must_use]
    pub fn is_array(&self) -> bool {
        self.kind == ValueKind::Json && self.raw.starts_with('[')
    }

    /// The text of a string, and how anything else is written; empty for `null`. Numbers other than plain integers
    /// are written without exponent.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match self.kind {
            ValueKind::Null => Cow::Borrowed(""),
            ValueKind::False => Cow::Borrowed("false"),
            ValueKind::True => Cow::Borrowed("true"),
            ValueKind::String if self.is_plain => Cow::Borrowed(&self.raw[1..self.raw.len() - 1]),
            ValueKind::String => escape::content(&self.raw),
            ValueKind::Json => Cow::Borrowed(&self.raw),
            ValueKind::Number => {
                let digits = self.raw.strip_prefix('-').unwrap_or(&self.raw);
                if digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Cow::Borrowed(&self.raw);
                }
                Cow::Owned(float_text(self.number()))
            }
        }
    }

    /// The text of a string without escapes as a part of `text`, which it was found in; `None` for any other value, and
    /// for one that lies elsewhere. It is UTF-8.
    #[must_use]
    pub fn part_of(&self, text: &Bytes) -> Option<Bytes> {
        let place = self.is_plain.then(|| self.place_in(text)).flatten()?;
        Some(text.slice(place.start + 1..place.end - 1))
    }

    /// Where it lies in `text`, quotes included; `None` for one that lies elsewhere.
    #[must_use]
    pub fn place_in(&self, text: &[u8]) -> Option<Range<usize>> {
        let raw = self.raw.as_bytes();
        let start = raw.as_ptr().addr().checked_sub(text.as_ptr().addr())?;
        let end = start.checked_add(raw.len())?;
        (end <= text.len()).then_some(start..end)
    }

    /// A number; of a string the number it spells; 1 for `true`; else 0.
    #[must_use]
    pub fn float(&self) -> f64 {
        match self.kind {
            ValueKind::True => 1.0,
            ValueKind::String => float_of(&self.text()),
            ValueKind::Number => self.number(),
            _ => 0.0,
        }
    }

    /// An integer, the fraction cut off; of a string only a plain integer counts. Beyond 64 bits the nearest.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the fraction is to be cut off")]
    pub fn int(&self) -> i64 {
        match self.kind {
            ValueKind::True => 1,
            ValueKind::String => integer_of(&self.text()).unwrap_or(0),
            ValueKind::Number => integer_of(&self.raw).unwrap_or_else(|| self.number() as i64),
            _ => 0,
        }
    }

    /// As [`PathValue::int`], 0 for what is negative.
    #[must_use]
    pub fn uint(&self) -> u64 {
        u64::try_from(self.int()).unwrap_or(0)
    }

    /// `true`, a number other than 0, or a string that says `true`, `t` or `1` in any case.
    #[must_use]
    pub fn bool(&self) -> bool {
        match self.kind {
            ValueKind::True => true,
            ValueKind::String => bool_of(&self.text()) == Some(true),
            ValueKind::Number => self.number() != 0.0,
            _ => false,
        }
    }

    pub(super) fn number(&self) -> f64 {
        float_of(&self.raw)
    }

    /// The value as a tree; `None` when it is not valid JSON.
    #[must_use]
    pub fn to_value(&self) -> Option<Value> {
        serde_json::from_str(&self.raw).ok()
    }

    /// What a further path leads to.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<PathValue<'_>> {
        super::get(self.raw.as_bytes(), path)
    }

    /// Elements of an array, or members of an object with their keys; anything else is its own only element.
    #[must_use]
    pub fn entries(&self) -> Entries<'_> {
        Entries::new(self)
    }

    /// Elements of an array; nothing for `null`; anything else, an object too, is its own only element.
    #[must_use]
    pub fn array(&self) -> Vec<PathValue<'_>> {
        if self.kind == ValueKind::Null {
            return Vec::new();
        }
        if self.is_array() {
            return self.entries().map(|(_, value)| value).collect();
        }
        vec![PathValue::new(self.kind, Cow::Borrowed(&self.raw))]
    }

    /// The same value, independent of the text.
    #[must_use]
    pub fn into_owned(self) -> PathValue<'static> {
        PathValue::new(self.kind, Cow::Owned(self.raw.into_owned()))
    }
}

/// Walks the members of a value, see [`PathValue::entries`]. The key is `None` in an array.
#[derive(Debug)]
pub struct Entries<'a> {
    text: &'a str,
    position: usize,
    is_object: bool,
    /// Of what is neither object nor array: itself.
    scalar: Option<PathValue<'a>>,
}

impl<'a> Entries<'a> {
    fn new(value: &'a PathValue<'_>) -> Self {
        let text: &'a str = &value.raw;
        let is_json = value.kind == ValueKind::Json;
        Self {
            text: if is_json { text } else { "" },
            position: 1,
            is_object: text.starts_with('{'),
            scalar: (!is_json).then(|| PathValue::new(value.kind, Cow::Borrowed(text))),
        }
    }

    fn take(&mut self, begin: lex::Begin) -> Option<PathValue<'a>> {
        let end = lex::value_end(self.text.as_bytes(), begin)?;
        self.position = end;
        Some(PathValue::new(
            begin.kind,
            Cow::Borrowed(&self.text[begin.at..end]),
        ))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = (Option<PathValue<'a>>, PathValue<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(only) = self.scalar.take() {
            return Some((None, only));
        }
        let bytes = self.text.as_bytes();
        let mut key = None;
        if self.is_object {
            let at = self.position + memchr::memchr(b'"', bytes.get(self.position..)?)?;
            key = Some(self.take(lex::Begin {
                at,
                kind: ValueKind::String,
            })?);
        }
        let value = self.take(lex::next_value(bytes, self.position)?)?;
        Some((key, value))
    }
}

/// Go's shortest form without exponent.
fn float_text(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    number.to_string()
}

pub(super) fn float_of(text: &str) -> f64 {
    text.parse().unwrap_or(0.0)
}

fn integer_of(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let beyond = if text.starts_with('-') { i64::MIN } else { i64::MAX };
    Some(text.parse().unwrap_or(beyond))
}

/// Go's `ParseBool` on lower case.
pub(super) fn bool_of(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "1" | "t" | "true" => Some(true),
        "0" | "f" | "false" => Some(false),
        _ => None,
    }
}
