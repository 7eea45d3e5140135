//! The scanner: one pass that checks a text against the grammar (RFC 8259) and notes where the members of its
//! outermost object or array lie.
//!
//! It builds no values and does not recurse. Whether the text is UTF-8 was decided before.

use std::ops::Range;

use smallvec::SmallVec;

use super::JsonError;
use super::string::find_special;

/// Deeper nesting is refused; the same as `serde_json`'s.
pub(crate) const DEPTH_LIMIT: usize = 127;
/// More members than this in the outermost object or array of what a peer sent are refused.
pub(crate) const MEMBER_LIMIT: usize = 100_000;

/// How much a text may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) depth: usize,
    pub(crate) members: usize,
}

impl Limits {
    /// For what a peer sent.
    pub(crate) const FOREIGN: Self = Self {
        depth: DEPTH_LIMIT,
        members: MEMBER_LIMIT,
    };
    /// For what was checked before.
    pub(crate) const NONE: Self = Self {
        depth: usize::MAX,
        members: usize::MAX,
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    Scalar,
}

/// Where a member lies; the key (with its quotes) is empty in an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) key: Range<usize>,
    /// The key is written with escapes, so that it does not look like what it means.
    pub(crate) is_escaped: bool,
    pub(crate) value: Range<usize>,
}

/// What one pass found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) kind: Kind,
    /// The outermost value, white space around it left out.
    pub(crate) value: Range<usize>,
    pub(crate) spans: Vec<Span>,
}

/// Checks the whole text and finds its members.
pub(crate) fn index(text: &[u8], limits: Limits) -> Result<Index, JsonError> {
    let mut scanner = Scanner {
        text,
        position: 0,
        limits,
        escapes: 0,
    };
    scanner.space();
    let start = scanner.position;
    let mut spans = Vec::new();
    let kind = match scanner.peek() {
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::Array,
        _ => Kind::Scalar,
    };
    if kind == Kind::Scalar {
        scanner.value(0)?;
    } else {
        scanner.members(kind, &mut spans)?;
    }
    let end = scanner.position;
    scanner.space();
    if scanner.position < text.len() {
        return Err(scanner.error("unexpected text after the value"));
    }
    Ok(Index {
        kind,
        value: start..end,
        spans,
    })
}

/// Whether a text is JSON, however deep and wide.
pub(crate) fn is_valid(text: &str) -> bool {
    index(text.as_bytes(), Limits::NONE).is_ok()
}

struct Scanner<'a> {
    text: &'a [u8],
    position: usize,
    limits: Limits,
    /// Escapes seen so far.
    escapes: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.position).copied()
    }

    fn error(&self, message: &'static str) -> JsonError {
        let known = if self.position < self.text.len() {
            message
        } else {
            "unexpected end of JSON"
        };
        JsonError::new(self.position.min(self.text.len()), known)
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.position += 1;
        }
    }

    /// The outermost object or array, from its bracket.
    fn members(&mut self, kind: Kind, spans: &mut Vec<Span>) -> Result<(), JsonError> {
        let (closing, expected) = closing(kind);
        self.position += 1;
        self.space();
        if self.peek() == Some(closing) {
            self.position += 1;
            return Ok(());
        }
        loop {
            self.space();
            let (key_start, escapes) = (self.position, self.escapes);
            let mut key_end = key_start;
            if kind == Kind::Object {
                key_end = self.key()?;
                self.space();
            }
            let is_escaped = self.escapes > escapes;
            let start = self.position;
            self.value(1)?;
            if spans.len() == self.limits.members {
                return Err(self.error("too many members"));
            }
            spans.push(Span {
                key: key_start..key_end,
                is_escaped,
                value: start..self.position,
            });
            self.space();
            match self.peek() {
                Some(b',') => self.position += 1,
                Some(byte) if byte == closing => {
                    self.position += 1;
                    return Ok(());
                }
                _ => return Err(self.error(expected)),
            }
        }
    }

    /// A value of any kind that stands `depth` brackets deep; leaves the position behind it.
    fn value(&mut self, depth: usize) -> Result<(), JsonError> {
        let mut open: SmallVec<[Kind; 32]> = SmallVec::new();
        loop {
            self.space();
            let begun = match self.peek() {
                Some(b'"') => {
                    self.string()?;
                    None
                }
                Some(b'{') => Some(Kind::Object),
                Some(b'[') => Some(Kind::Array),
                Some(b'-' | b'0'..=b'9') => {
                    self.number()?;
                    None
                }
                Some(b't') => self.literal(b"true")?,
                Some(b'f') => self.literal(b"false")?,
                Some(b'n') => self.literal(b"null")?,
                _ => return Err(self.error("expected a value")),
            };
            if let Some(kind) = begun {
                if depth + open.len() >= self.limits.depth {
                    return Err(self.error("nested too deep"));
                }
                self.position += 1;
                self.space();
                if self.peek() == Some(closing(kind).0) {
                    self.position += 1;
                } else {
                    open.push(kind);
                    if kind == Kind::Object {
                        self.key()?;
                    }
                    continue;
                }
            }
            if !self.close(&mut open)? {
                return Ok(());
            }
        }
    }

    /// Behind a value: closes what ends here. False when nothing is open any more, true when a value follows.
    fn close(&mut self, open: &mut SmallVec<[Kind; 32]>) -> Result<bool, JsonError> {
        while let Some(kind) = open.last().copied() {
            self.space();
            let (closing, expected) = closing(kind);
            match self.peek() {
                Some(b',') => {
                    self.position += 1;
                    if kind == Kind::Object {
                        self.space();
                        self.key()?;
                    }
                    return Ok(true);
                }
                Some(byte) if byte == closing => {
                    self.position += 1;
                    open.pop();
                }
                _ => return Err(self.error(expected)),
            }
        }
        Ok(false)
    }

    /// A key and its colon; returns where the key ends.
    fn key(&mut self) -> Result<usize, JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.error("expected a key in quotes"));
        }
        self.string()?;
        let end = self.position;
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.error("expected ':'"));
        }
        self.position += 1;
        Ok(end)
    }

    fn string(&mut self) -> Result<(), JsonError> {
        self.position += 1;
        loop {
            let Some(length) = find_special(&self.text[self.position..]) else {
                self.position = self.text.len();
                return Err(self.error("unexpected end of JSON"));
            };
            self.position += length;
            match self.text[self.position] {
                b'"' => {
                    self.position += 1;
                    return Ok(());
                }
                b'\\' => self.escape()?,
                _ => return Err(self.error("control character in a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        self.escapes += 1;
        self.position += 1;
        let hex_digits = match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 0,
            Some(b'u') => 4,
            _ => return Err(self.error("unknown escape in a string")),
        };
        self.position += 1;
        for _ in 0..hex_digits {
            if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                return Err(self.error("expected a hexadecimal digit"));
            }
            self.position += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonError> {
        self.skip_one(b"-");
        if !self.skip_one(b"0") {
            self.digits()?;
        }
        if self.skip_one(b".") {
            self.digits()?;
        }
        if self.skip_one(b"eE") {
            self.skip_one(b"+-");
            self.digits()?;
        }
        Ok(())
    }

    fn skip_one(&mut self, any_of: &[u8]) -> bool {
        let present = self.peek().is_some_and(|byte| any_of.contains(&byte));
        self.position += usize::from(present);
        present
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.position;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.position += 1;
        }
        if self.position == start {
            return Err(self.error("expected a digit"));
        }
        Ok(())
    }

    fn literal(&mut self, word: &[u8]) -> Result<Option<Kind>, JsonError> {
        for expected in word {
            if self.peek() != Some(*expected) {
                return Err(self.error("expected a value"));
            }
            self.position += 1;
        }
        Ok(None)
    }
}

fn closing(kind: Kind) -> (u8, &'static str) {
    match kind {
        Kind::Array => (b']', "expected ',' or ']'"),
        Kind::Object | Kind::Scalar => (b'}', "expected ',' or '}'"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str) -> Result<Index, JsonError> {
        index(text.as_bytes(), Limits::FOREIGN)
    }

    #[test]
    fn members_are_found_where_they_lie() {
        let text = r#" { "a" : [1, {"b":2}] , "c":"x\"}" } "#;
        let found = check(text).unwrap();
        let parts: Vec<_> = found
            .spans
            .iter()
            .map(|span| (&text[span.key.clone()], &text[span.value.clone()]))
            .collect();
        assert_eq!(parts, [(r#""a""#, r#"[1, {"b":2}]"#), (r#""c""#, r#""x\"}""#)]);
        assert_eq!(&text[found.value], text.trim());
        assert_eq!(check("[1, 2]").unwrap().spans.len(), 2);
        assert_eq!(check(" 1.5e3 ").unwrap().kind, Kind::Scalar);
    }

    #[test]
    fn errors_name_the_place() {
        for (text, offset, message) in [
            ("", 0, "unexpected end of JSON"),
            ("not json", 1, "expected a value"),
            ("{\"a\":}", 5, "expected a value"),
            ("{\"a\" 1}", 5, "expected ':'"),
            ("{a:1}", 1, "expected a key in quotes"),
            ("{\"a\":1,}", 7, "expected a key in quotes"),
            ("{\"a\":[1,]}", 8, "expected a value"),
            ("{\"a\":[1}", 7, "expected ',' or ']'"),
            ("{\"a\":1]", 6, "expected ',' or '}'"),
            ("{\"a\":1", 6, "unexpected end of JSON"),
            ("{\"a\":\"x", 7, "unexpected end of JSON"),
            ("{} x", 3, "unexpected text after the value"),
            ("\"\n\"", 1, "control character in a string"),
            ("\"\\x\"", 2, "unknown escape in a string"),
            ("\"\\u12g4\"", 5, "expected a hexadecimal digit"),
            ("01", 1, "unexpected text after the value"),
            ("[-]", 2, "expected a digit"),
            ("[1.]", 3, "expected a digit"),
            ("\u{feff}{}", 0, "expected a value"),
        ] {
            assert_eq!(check(text), Err(JsonError::new(offset, message)), "{text:?}");
        }
    }

    #[test]
    fn depth_and_members_are_limited() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(check(&nested(DEPTH_LIMIT)).is_ok());
        assert!(serde_json::from_str::<serde_json::Value>(&nested(DEPTH_LIMIT)).is_ok());
        assert_eq!(
            check(&nested(DEPTH_LIMIT + 1)).unwrap_err().message(),
            "nested too deep"
        );
        assert_eq!(
            check(&"[".repeat(1_000_000)).unwrap_err().message(),
            "nested too deep"
        );
        let wide = |members: usize| format!("[{}0]", "0,".repeat(members - 1));
        assert!(check(&wide(MEMBER_LIMIT)).is_ok());
        assert_eq!(
            check(&wide(MEMBER_LIMIT + 1)).unwrap_err().message(),
            "too many members"
        );
    }

    fn json_like() -> impl Strategy<Value = String> {
        let parts = vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"a\"",
            "\"\\u00e9\"",
            "\"",
            "\\",
            "1",
            "-0.5e1",
            "0",
            "true",
            "null",
            " ",
            "é",
            "e",
        ];
        prop::collection::vec(prop::sample::select(parts), 0..14).prop_map(|chosen| chosen.concat())
    }

    proptest! {
        #[test]
        fn it_takes_what_serde_takes(text in json_like()) {
            let reference = serde_json::from_str::<&serde_json::value::RawValue>(&text);
            prop_assert_eq!(check(&text).is_ok(), reference.is_ok(), "{}", text);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = index(&bytes, Limits::FOREIGN);
        }
    }
}
