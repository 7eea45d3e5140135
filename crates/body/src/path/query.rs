//! Queries on arrays: `#(path op value)`, the first element that matches, and `#(…)#`, all of them.

use std::borrow::Cow;

use super::value::{PathValue, ValueKind, bool_of, float_of};
use super::{escape, pattern};

/// A query between its brackets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Query<'p> {
    /// What to look at in an element; empty is the element itself.
    pub(super) path: &'p str,
    /// Empty asks whether it exists.
    operator: &'p str,
    value: Cow<'p, str>,
    /// All elements, not only the first.
    pub(super) all: bool,
}

impl<'p> Query<'p> {
    /// Reads a query that begins with `#(` or `#[`; returns it with the position of its closing bracket.
    pub(super) fn parse(text: &'p str) -> Option<(Self, usize)> {
        let (comparison, end, has_escape) = delimit(text)?;
        let Some(start) = comparison else {
            let query = Self {
                path: trim(&text[2..end]),
                ..Self::default()
            };
            return Some((query, end));
        };
        let (operator, written) = split_operator(trim(&text[start..end]));
        let value = trim(written);
        let is_quoted = value.len() >= 2 && value.starts_with('"') && value.ends_with('"');
        let value = match is_quoted {
            true if has_escape => escape::content(value),
            true => Cow::Borrowed(&value[1..value.len() - 1]),
            false => Cow::Borrowed(value),
        };
        let query = Self {
            path: trim(&text[2..start]),
            operator,
            value,
            all: false,
        };
        Some((query, end))
    }

    /// Whether the value found in an element is what the query asks for.
    pub(super) fn matches(&self, found: Option<&PathValue<'_>>) -> bool {
        if let Some(word) = self.value.strip_prefix('~') {
            let is_so = match word {
                "*" => found.is_some(),
                "null" => found.is_none_or(|value| value.kind() == ValueKind::Null),
                "true" => found.is_some_and(is_trueish),
                "false" => found.is_none_or(is_falseish),
                _ => return false,
            };
            return self.operator.is_empty() || self.compare_bool(is_so, "true");
        }
        let Some(value) = found else {
            return false;
        };
        if self.operator.is_empty() {
            return true;
        }
        match value.kind() {
            ValueKind::String => self.compare_text(&value.text()),
            ValueKind::Number => self.compare_number(value.number()),
            ValueKind::True => self.compare_bool(true, &self.value),
            ValueKind::False => self.compare_bool(false, &self.value),
            ValueKind::Null | ValueKind::Json => false,
        }
    }

    fn compare_text(&self, text: &str) -> bool {
        let value: &str = &self.value;
        match self.operator {
            "=" => text == value,
            "!=" => text != value,
            "<" => text < value,
            "<=" => text <= value,
            ">" => text > value,
            ">=" => text >= value,
            "%" => pattern::matches(text, value),
            "!%" => !pattern::matches(text, value),
            _ => false,
        }
    }

    #[expect(clippy::float_cmp, reason = "the language compares exactly")]
    fn compare_number(&self, number: f64) -> bool {
        let value = float_of(&self.value);
        match self.operator {
            "=" => number == value,
            "!=" => number != value,
            "<" => number < value,
            "<=" => number <= value,
            ">" => number > value,
            ">=" => number >= value,
            _ => false,
        }
    }

    fn compare_bool(&self, found: bool, value: &str) -> bool {
        match (self.operator, found) {
            ("=", _) => value == if found { "true" } else { "false" },
            ("!=", _) => value != if found { "true" } else { "false" },
            (">", true) => value == "false",
            ("<", false) => value == "true",
            (">=", true) | ("<=", false) => true,
            _ => false,
        }
    }
}

/// Where the comparison begins, if there is one, where the closing bracket is, and whether a string has an escape.
fn delimit(text: &str) -> Option<(Option<usize>, usize, bool)> {
    let bytes = text.as_bytes();
    let (mut comparison, mut has_escape) = (None, false);
    let mut depth = 1;
    let mut at = 2;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'!' | b'=' | b'<' | b'>' | b'%' if depth == 1 && comparison.is_none() => comparison = Some(at),
            b'\\' => at += 1,
            b'[' | b'(' => depth += 1,
            b']' | b')' => {
                depth -= 1;
                if depth == 0 {
                    return Some((comparison, at, has_escape));
                }
            }
            b'"' => {
                let end = super::lex::string_end(bytes, at + 1)?;
                has_escape |= bytes[at..end].contains(&b'\\');
                at = end - 1;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

fn split_operator(comparison: &str) -> (&str, &str) {
    let length = match comparison.as_bytes() {
        [_] => 1,
        // One `=` says the same.
        [b'=', b'=', ..] => return ("=", &comparison[2..]),
        [b'!', b'=' | b'%', ..] | [b'<' | b'>', b'=', ..] => 2,
        [b'<' | b'>' | b'=' | b'%', ..] => 1,
        _ => 0,
    };
    comparison.split_at(length)
}

/// Spaces and control characters around a text.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(|character| character <= ' ')
}

fn is_trueish(value: &PathValue<'_>) -> bool {
    match value.kind() {
        ValueKind::True => true,
        ValueKind::String => bool_of(&value.text()) == Some(true),
        ValueKind::Number => value.number() != 0.0,
        _ => false,
    }
}

fn is_falseish(value: &PathValue<'_>) -> bool {
    match value.kind() {
        ValueKind::Null | ValueKind::False => true,
        ValueKind::String => bool_of(&value.text()) == Some(false),
        ValueKind::Number => value.number() == 0.0,
        _ => false,
    }
}
