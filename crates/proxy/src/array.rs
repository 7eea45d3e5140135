//! Whether a growing array, Gemini's stream where it was not asked for as events, is whole: it has been closed, or one of
//! its elements is an error. An array that merely stops looks like a clean end to whoever only reads frames.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use tollgate_body::{Items, path};

/// Longest element that is looked at; an error is short.
const ELEMENT_LIMIT: usize = 64 * 1024;

/// Looks for the end in the bytes that pass.
pub(crate) struct ArrayWatch {
    items: Items,
    failed: bool,
}

impl ArrayWatch {
    pub(crate) fn new() -> Self {
        Self {
            items: Items::with_limit(ELEMENT_LIMIT),
            failed: false,
        }
    }

    pub(crate) fn look(&mut self, bytes: &[u8]) {
        let failed = &mut self.failed;
        self.items.push(bytes, |item| *failed |= is_error(item));
    }

    /// Whether the answer said that it is over.
    pub(crate) fn seen(&self) -> bool {
        self.failed || self.items.is_whole()
    }

    /// Whether its end was an error.
    pub(crate) fn failed(&self) -> bool {
        self.failed
    }
}

fn is_error(item: &[u8]) -> bool {
    static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"error\""));
    // A search first: most elements have no such word, and need not be read.
    ERROR.find(item).is_some()
        && path::get(item, "error").is_some_and(|error| error.kind() != path::ValueKind::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(text: &str) -> (bool, bool) {
        let mut watch = ArrayWatch::new();
        for piece in text.as_bytes().chunks(5) {
            watch.look(piece);
        }
        (watch.seen(), watch.failed())
    }

    #[test]
    fn only_its_bracket_or_an_error_ends_it() {
        let element = r#"{"candidates":[{"content":{"parts":[{"text":"] \"error\": {}"}]}}]}"#;
        for (text, seen, failed) in [
            (format!("[{element}\n,\n{element}\n]\n"), true, false),
            (format!("[{element}\n,\n{element}\n"), false, false),
            (format!("[{element}\n,\n{{\"candidates\""), false, false),
            ("[".to_owned(), false, false),
            (String::new(), false, false),
            ("[]".to_owned(), true, false),
            (
                r#"[{"error":{"code":503,"status":"UNAVAILABLE"}}"#.to_owned(),
                true,
                true,
            ),
            (r#"[{"error":null,"a":{"error":1}}"#.to_owned(), false, false),
            // What is no array is not held against the vendor.
            (element.to_owned(), true, false),
            ("<html>".to_owned(), true, false),
        ] {
            assert_eq!(look(&text), (seen, failed), "{text}");
        }
    }
}
