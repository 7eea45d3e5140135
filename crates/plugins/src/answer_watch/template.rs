//! What the events of a stream have in common: everything but one text.
//!
//! A vendor writes the same JSON around each piece of its answer. An event that equals the last one up to and behind
//! that text needs no reading: what was found in the last one, and where, holds for it too.

use std::ops::Range;

use memchr::{memchr, memchr3};
use serde::de::IgnoredAny;

use super::estimate::string_length;

/// Longest event that is remembered.
const LENGTH_LIMIT: usize = 4096;
/// Events in a row that may differ before nothing more is remembered of this stream.
const PATIENCE: u8 = 16;

/// The last event that was read, without its text.
#[derive(Debug, Default)]
pub(super) struct Template {
    /// Up to the text's opening quote; empty while there is no template.
    before: Vec<u8>,
    /// From its closing quote on.
    after: Vec<u8>,
    /// Events that differed since one fitted.
    misses: u8,
}

impl Template {
    /// The text of an event that fits, without its quotes and as it is written.
    pub(super) fn fill<'d>(&mut self, data: &'d [u8]) -> Option<&'d [u8]> {
        if self.before.is_empty() {
            return None;
        }
        let text = data.strip_prefix(self.before.as_slice())?;
        let length = text.len().checked_sub(self.after.len())?;
        let (inside, behind) = text.split_at(length);
        // Data of several lines is not one string.
        let is_string = || string_length(text) == length && memchr(b'\n', inside).is_none();
        let is_plain = memchr3(b'"', b'\\', b'\n', inside).is_none();
        if behind != self.after.as_slice() || !(is_plain || is_string()) {
            return None;
        }
        self.misses = 0;
        Some(inside)
    }

    /// Remembers an event whose only text lies at `place`; it must be JSON, so that strings are where they seem to be.
    /// True if it was remembered.
    pub(super) fn learn(&mut self, data: &[u8], place: Option<Range<usize>>) -> bool {
        self.before.clear();
        let Some(place) = place.filter(|_| data.len() <= LENGTH_LIMIT && self.misses < PATIENCE) else {
            return false;
        };
        self.misses += 1;
        let (Some(before), Some(after)) = (data.get(..place.start), data.get(place.end..)) else {
            return false;
        };
        if serde_json::from_slice::<IgnoredAny>(data).is_err() {
            return false;
        }
        self.before.extend_from_slice(before);
        self.after.clear();
        self.after.extend_from_slice(after);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learnt(data: &str, text: &str) -> Template {
        let mut template = Template::default();
        let start = data.find(text).unwrap();
        assert!(template.learn(data.as_bytes(), Some(start..start + text.len())));
        template
    }

    #[test]
    fn only_the_text_may_differ() {
        let mut template = learnt(r#"{"id":"1","content":"abc","end":null}"#, "abc");
        let mut fill = |data: &'static str| {
            let text = template.fill(data.as_bytes());
            text.map(|text| std::str::from_utf8(text).unwrap())
        };
        assert_eq!(fill(r#"{"id":"1","content":"你好","end":null}"#), Some("你好"));
        assert_eq!(fill(r#"{"id":"1","content":"","end":null}"#), Some(""));
        let escaped = r#"{"id":"1","content":"a\"b\\","end":null}"#;
        assert_eq!(fill(escaped), Some(r#"a\"b\\"#));
        for other in [
            r#"{"id":"2","content":"abc","end":null}"#,
            r#"{"id":"1","content":"abc","end":"stop"}"#,
            r#"{"id":"1","content":null,"end":null}"#,
            r#"{"id":"1","content":"abc","x":"y","end":null}"#,
            // The quote that seems to end the text is part of it.
            r#"{"id":"1","content":"abc\","end":null}"#,
            "{\"id\":\"1\",\"content\":\"a\nb\",\"end\":null}",
            r#"{"id":"1","content":""#,
            "",
        ] {
            assert_eq!(fill(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_no_json_is_not_remembered() {
        let mut template = Template::default();
        assert!(!template.learn(br#"{"content":"abc""#, Some(12..15)));
        assert_eq!(template.fill(br#"{"content":"abc""#), None);
        assert!(!template.learn(br#"{"content":"abc"}"#, None));
    }

    #[test]
    fn a_stream_whose_events_all_differ_is_given_up() {
        let mut template = Template::default();
        for number in 0..100_u8 {
            let data = format!("{{\"n\":{number},\"content\":\"abc\"}}");
            let start = data.find("abc").unwrap();
            let remembered = template.learn(data.as_bytes(), Some(start..start + 3));
            assert_eq!(remembered, number < PATIENCE);
        }
    }
}
