//! Tokens estimated from the length of texts, for answers whose vendor reports none.
//!
//! The rule: one token for four ASCII characters, one for any other character. Counted are the strings of a request
//! or answer that a model reads or writes, told by their key; pictures, ids and names of roles are not.

use memchr::{memchr, memchr2};

/// Keys of strings that a model reads or writes, in every dialect.
const TEXT_KEYS: [&[u8]; 12] = [
    b"content",
    b"text",
    b"reasoning_content",
    b"thinking",
    b"arguments",
    b"partial_json",
    b"delta",
    b"prompt",
    b"input",
    b"system",
    b"instructions",
    b"description",
];

/// How much text there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Weight {
    ascii: u64,
    other: u64,
}

impl Weight {
    /// The text that the strings of `json` hold. Broken JSON gives what can be read of it.
    pub(super) fn of_json(json: &[u8]) -> Self {
        let mut weight = Self::default();
        let mut is_text = false;
        let mut rest = json;
        while let Some(open) = memchr(b'"', rest) {
            let Some(inside) = rest.get(open + 1..) else { break };
            let length = string_length(inside);
            let (string, behind) = inside.split_at(length);
            rest = behind.get(1..).unwrap_or_default();
            if rest.trim_ascii_start().starts_with(b":") {
                is_text = TEXT_KEYS.contains(&string);
            } else if is_text {
                weight.add(string);
            }
        }
        weight
    }

    /// The text of one stream event's data. OpenAI's Responses API repeats at the end what it has sent in deltas:
    /// only the deltas count.
    pub(super) fn of_event(data: &[u8]) -> Self {
        if let Some(at) = memchr::memmem::find(data, b"\"type\":\"response.") {
            let name = data.get(at + 8..).unwrap_or_default();
            let name = name.get(..string_length(name)).unwrap_or_default();
            if !name.ends_with(b".delta") {
                return Self::default();
            }
        }
        Self::of_json(data)
    }

    fn add(&mut self, string: &[u8]) {
        // Continuation bytes are 10xxxxxx; an escape is about as long as it is many characters.
        let other = string.iter().filter(|byte| **byte >= 0xc0).count() as u64;
        let ascii = string.iter().filter(|byte| **byte < 0x80).count() as u64;
        self.other += other;
        self.ascii += ascii;
    }

    /// Whether there is no text at all.
    pub(super) fn is_empty(self) -> bool {
        self.ascii == 0 && self.other == 0
    }

    /// The estimate.
    pub(super) fn tokens(self) -> u64 {
        self.ascii.div_ceil(4) + self.other
    }
}

impl std::ops::AddAssign for Weight {
    fn add_assign(&mut self, more: Self) {
        self.ascii += more.ascii;
        self.other += more.other;
    }
}

/// Bytes until the quote that ends a string, or all of them.
fn string_length(inside: &[u8]) -> usize {
    let mut at = 0;
    while let Some(found) = inside.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        if inside.get(at + found) == Some(&b'"') {
            return at + found;
        }
        at += found + 2;
    }
    inside.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_texts_count() {
        let tokens = |json: &str| Weight::of_json(json.as_bytes()).tokens();
        assert_eq!(tokens(r#"{"choices":[{"delta":{"content":"你好"}}]}"#), 2);
        assert_eq!(tokens(r#"{"delta":{"type":"text_delta","text":"abcd efg"}}"#), 2);
        assert_eq!(tokens(r#"{"delta":{"role":"assistant","content":""}}"#), 0);
        assert_eq!(tokens(r#"{"type":"ping"}"#), 0);
        assert_eq!(tokens(r#"{"input" : ["abcd", "efgh"], "model":"m"}"#), 2);
        assert_eq!(
            tokens(
                r#"{"content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAAAAAAAAAA"}},{"type":"text","text":"ab\"c"}]}"#
            ),
            2
        );
        for broken in [r#"{"content":"abc"#, r#"{"content":"abc\"#, "\"", "", "\\"] {
            assert!(tokens(broken) <= 1, "{broken}");
        }
    }

    #[test]
    fn of_the_responses_api_only_deltas_count() {
        let delta = r#"{"type":"response.output_text.delta","delta":"abcd"}"#;
        let done = r#"{"type":"response.output_text.done","text":"abcd"}"#;
        assert_eq!(Weight::of_event(delta.as_bytes()).tokens(), 1);
        assert!(Weight::of_event(done.as_bytes()).is_empty());
    }
}
