//! The members of an object, one after the other: for readers of several of them, who would else walk as often.

use std::borrow::Cow;

use super::lex;
use super::value::{PathValue, ValueKind};
use crate::json::unescape;

/// The members of the object that `json` is, in their order and as leniently as [`super::get`] reads it; nothing if
/// it is none.
pub fn members(json: &[u8]) -> Members<'_> {
    let open = memchr::memchr2(b'{', b'[', json);
    let inside = open.filter(|at| json.get(*at) == Some(&b'{'));
    Members {
        text: json,
        position: inside.map_or(json.len(), |at| at + 1),
    }
}

/// See [`members`]: each key without its escapes, and its value as it is written.
#[derive(Debug, Clone)]
pub struct Members<'a> {
    text: &'a [u8],
    position: usize,
}

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, [u8]>, Member<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.text.get(self.position..)?;
        let quote = self.position + rest.iter().position(|byte| matches!(byte, b'"' | b'}'))?;
        if self.text.get(quote) == Some(&b'}') {
            self.position = self.text.len();
            return None;
        }
        let (key_end, is_escaped) = lex::key_end(self.text, quote + 1)?;
        let begin = lex::next_value(self.text, key_end)?;
        let end = lex::value_end(self.text, begin)?;
        self.position = end;
        let written = self.text.get(quote + 1..key_end - 1)?;
        let key = match is_escaped {
            false => Cow::Borrowed(written),
            true => Cow::Owned(unescape(&crate::to_text(written)).into_owned().into_bytes()),
        };
        let raw = self.text.get(begin.at..end)?;
        Some((
            key,
            Member {
                raw,
                kind: begin.kind,
            },
        ))
    }
}

/// A member's value where it lies.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    raw: &'a [u8],
    kind: ValueKind,
}

impl<'a> Member<'a> {
    /// As it is written.
    #[must_use]
    #[inline]
    pub fn raw(self) -> &'a [u8] {
        self.raw
    }

    /// Its members, if it is an object.
    #[must_use]
    pub fn members(self) -> Option<Members<'a>> {
        (self.raw.first() == Some(&b'{')).then(|| members(self.raw))
    }

    /// Its first element, if it is an array of any.
    #[must_use]
    pub fn first_element(self) -> Option<Self> {
        let inside = self.raw.strip_prefix(b"[")?;
        let begin = lex::next_value(inside, 0)?;
        let end = lex::value_end(inside, begin)?;
        let raw = inside.get(begin.at..end)?;
        Some(Self {
            raw,
            kind: begin.kind,
        })
    }

    /// What a path leads to in it.
    #[must_use]
    pub fn get(self, path: &str) -> Option<PathValue<'a>> {
        super::get(self.raw, path)
    }

    /// As [`PathValue::int`].
    #[must_use]
    #[inline]
    pub fn int(self) -> i64 {
        plain_digits(self.raw).unwrap_or_else(|| self.value().int())
    }

    /// As [`PathValue::uint`].
    #[must_use]
    #[inline]
    pub fn uint(self) -> u64 {
        u64::try_from(self.int()).unwrap_or(0)
    }

    /// As a value.
    #[must_use]
    pub fn value(self) -> PathValue<'a> {
        PathValue::slice(self.kind, self.raw)
    }
}

/// What most counts are: a few digits and nothing else.
#[inline]
fn plain_digits(raw: &[u8]) -> Option<i64> {
    // No number of as many digits is beyond 64 bits.
    if !(1..=18).contains(&raw.len()) {
        return None;
    }
    raw.iter().try_fold(0_i64, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + i64::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Vec<(String, String)> {
        let all = members(json.as_bytes());
        all.map(|(key, member)| {
            let key = String::from_utf8(key.into_owned()).unwrap();
            (key, member.value().raw().to_owned())
        })
        .collect()
    }

    #[test]
    fn each_member_is_what_a_path_leads_to() {
        let json = r#" {"a":1,"b\u0063" : {"x":[1,2]},"d":"e}\"","a":null} "}" "#;
        let all = read(json);
        let expected = [
            ("a", "1"),
            ("bc", r#"{"x":[1,2]}"#),
            ("d", r#""e}\"""#),
            ("a", "null"),
        ];
        assert_eq!(
            all.iter()
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .collect::<Vec<_>>(),
            expected
        );
        for (key, value) in all.get(..3).unwrap() {
            assert_eq!(crate::path::get(json, key).unwrap().raw(), value);
        }
        let nested = members(json.as_bytes()).nth(1).unwrap().1;
        assert_eq!(nested.members().unwrap().count(), 1);
        assert_eq!(nested.get("x.1").unwrap().raw(), "2");
        let list = nested.members().unwrap().next().unwrap().1;
        assert_eq!(list.first_element().unwrap().value().raw(), "1");
        assert!(nested.first_element().is_none());
        let counts = br#"{"a":0,"b":18446744073709551615,"c":-1,"d":"7","e":1e2,"f":123456789012345678}"#;
        for (key, member) in members(counts) {
            let value = member.value();
            assert_eq!(
                (member.int(), member.uint()),
                (value.int(), value.uint()),
                "{key:?}"
            );
        }
    }

    #[test]
    fn what_is_broken_is_read_as_far_as_it_goes() {
        for (json, count) in [
            ("", 0),
            ("[{\"a\":1}]", 0),
            ("nothing", 0),
            ("{", 0),
            ("{\"a\"", 0),
            ("{\"a\":1", 1),
            ("{\"a\":{\"b\":1", 1),
            ("{\"a\":\"", 0),
            ("data: {\"a\":1}", 1),
        ] {
            assert_eq!(read(json).len(), count, "{json}");
        }
    }
}
