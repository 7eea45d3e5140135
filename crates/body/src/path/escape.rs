//! Strings as gjson reads and writes them.

use std::borrow::Cow;
use std::fmt::Write;

use crate::json::unescape;

/// What stands between the quotes of a string that may lack its end.
pub(super) fn content(raw: &str) -> Cow<'_, str> {
    if let Some(inner) = super::lex::plain_string(raw) {
        return Cow::Borrowed(inner);
    }
    let open = raw.strip_prefix('"').unwrap_or(raw);
    let is_closed = super::lex::string_end(raw.as_bytes(), 1) == Some(raw.len());
    let inner = if is_closed { &open[..open.len() - 1] } else { open };
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    // A bare control character ends the reading of a text that has escapes.
    let length = inner.bytes().position(|byte| byte < b' ').unwrap_or(inner.len());
    unescape(&inner[..length])
}

/// A string in quotes, with what is special in HTML escaped, as Go writes it.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let written = write!(out, "\\u{:04x}", u32::from(character));
                debug_assert!(written.is_ok(), "a String takes everything");
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
