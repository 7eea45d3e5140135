//! Tokens estimated from the length of texts, for answers whose vendor reports none.
//!
//! The rule: one token for four ASCII characters, one for any other character. Counted are the strings of a request
//! or answer that a model reads or writes, told by their key; pictures, ids and names of roles are not.

use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use memchr::{memchr, memchr2};

/// What kind of event of the Responses API this is: its `type`, however the JSON is spaced; `None` for any other event.
fn kind_of_responses(data: &[u8]) -> Option<&[u8]> {
    static RESPONSES: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"response."));
    let is_kind = |before: &[u8]| {
        let name = before.trim_ascii_end().strip_suffix(b":");
        name.is_some_and(|name| name.trim_ascii_end().ends_with(b"\"type\""))
    };
    let mut from = 0;
    loop {
        let (before, string) = data.split_at(from + RESPONSES.find(data.get(from..)?)?);
        let inside = string.get(1..)?;
        if is_kind(before) {
            return inside.get(..string_length(inside));
        }
        from = before.len() + 1;
    }
}

/// Whether this is a key of strings that a model reads or writes, in any dialect.
fn is_text_key(key: &[u8]) -> bool {
    matches!(
        key,
        b"content"
            | b"text"
            | b"reasoning_content"
            | b"thinking"
            | b"arguments"
            | b"partial_json"
            | b"delta"
            | b"prompt"
            | b"input"
            | b"system"
            | b"instructions"
            | b"description"
    )
}

/// How much text there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Weight {
    ascii: u64,
    other: u64,
}

impl Weight {
    /// The text that the strings of `json` hold. Broken JSON gives what can be read of it.
    pub(crate) fn of_json(json: &[u8]) -> Self {
        Self::with_place(json).0
    }

    /// The same, and where the text lies, without its quotes, if it is one string.
    fn with_place(json: &[u8]) -> (Self, Option<Range<usize>>) {
        let mut weight = Self::default();
        let mut texts = Texts::None;
        each_text(json, |place| {
            weight.add(json.get(place.clone()).unwrap_or_default());
            texts.add(place);
        });
        (weight, texts.only())
    }

    /// The text of one stream event's data, and where it lies if it is one string. OpenAI's Responses API repeats at
    /// the end what it has sent in deltas: only the deltas count.
    pub(crate) fn of_event(data: &[u8]) -> (Self, Option<Range<usize>>) {
        if kind_of_responses(data).is_some_and(|kind| !kind.ends_with(b".delta")) {
            return Default::default();
        }
        Self::with_place(data)
    }

    /// Adds the inside of a string.
    pub(crate) fn add(&mut self, string: &[u8]) {
        // Continuation bytes are 10xxxxxx; an escape is about as long as it is many characters. Sums of a byte that
        // cannot overflow compile to vector instructions.
        for piece in string.chunks(255) {
            let (mut ascii, mut other) = (0_u8, 0_u8);
            for byte in piece {
                ascii += u8::from(*byte < 0x80);
                other += u8::from(*byte >= 0xc0);
            }
            self.ascii += u64::from(ascii);
            self.other += u64::from(other);
        }
    }

    /// Whether there is no text at all.
    pub(crate) fn is_empty(self) -> bool {
        self.ascii == 0 && self.other == 0
    }

    /// The estimate.
    pub(crate) fn tokens(self) -> u64 {
        self.ascii.div_ceil(4) + self.other
    }
}

impl std::ops::AddAssign for Weight {
    fn add_assign(&mut self, more: Self) {
        self.ascii += more.ascii;
        self.other += more.other;
    }
}

/// The strings that are texts.
enum Texts {
    None,
    One(Range<usize>),
    Several,
}

impl Texts {
    fn add(&mut self, place: Range<usize>) {
        *self = match self {
            Self::None => Self::One(place),
            Self::One(_) | Self::Several => Self::Several,
        };
    }

    fn only(self) -> Option<Range<usize>> {
        match self {
            Self::One(place) => Some(place),
            Self::None | Self::Several => None,
        }
    }
}

/// Shows where the texts in `json` lie, without their quotes. Broken JSON gives what can be read of it.
pub(super) fn each_text(json: &[u8], mut text: impl FnMut(Range<usize>)) {
    let mut is_text = false;
    each_string(json, |place, string, is_key| {
        if is_key {
            is_text = is_text_key(string);
        } else if is_text && !string.is_empty() {
            text(place);
        }
    });
}

/// How many members of this name `json` has, in any depth.
pub(super) fn members(json: &[u8], name: &[u8]) -> u64 {
    let mut found = 0;
    each_string(json, |_, string, is_key| {
        found += u64::from(is_key && string == name)
    });
    found
}

/// Shows each string in `json`: where it lies, what it is, and whether it is a member's name.
fn each_string<'j>(json: &'j [u8], mut show: impl FnMut(Range<usize>, &'j [u8], bool)) {
    let mut from = 0;
    while let Some(open) = json.get(from..).and_then(|rest| memchr(b'"', rest)) {
        let start = from + open + 1;
        let Some(inside) = json.get(start..) else { break };
        let (string, behind) = inside.split_at(string_length(inside));
        let end = start + string.len();
        from = end + 1;
        let after = behind.get(1..).unwrap_or_default();
        show(start..end, string, after.trim_ascii_start().starts_with(b":"));
    }
}

/// Bytes until the quote that ends a string, or all of them.
pub(super) fn string_length(inside: &[u8]) -> usize {
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
        let (weight, place) = Weight::of_event(delta.as_bytes());
        assert_eq!(weight.tokens(), 1);
        assert_eq!(&delta[place.unwrap()], "abcd");
        assert!(Weight::of_event(done.as_bytes()).0.is_empty());
        let spaced = r#"{"type" : "response.output_text.done", "text": "abcd"}"#;
        assert!(Weight::of_event(spaced.as_bytes()).0.is_empty());
        let spaced = r#"{"type": "response.output_text.delta", "delta": "abcd"}"#;
        assert_eq!(Weight::of_event(spaced.as_bytes()).0.tokens(), 1);
        // Neither a text nor another member is an event's kind.
        for chat in [
            r#"{"delta":{"content":"response.a"}}"#,
            r#"{"delta":{"content":"\"type\":\"response.a"}}"#,
        ] {
            assert!(!Weight::of_event(chat.as_bytes()).0.is_empty(), "{chat}");
        }
        let two = r#"{"delta":{"content":"a","reasoning_content":"b"}}"#;
        assert_eq!(Weight::of_event(two.as_bytes()).1, None);
    }
}
