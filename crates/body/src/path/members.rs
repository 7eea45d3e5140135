//! The members of an object, one after the other: for readers of several of them, who would else walk as often.

use std::borrow::Cow;

use super::lex::{self, Begin};
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
        is_over: false,
    }
}

/// See [`members`]: each key without its escapes, and its value as it is written.
#[derive(Debug, Clone)]
pub struct Members<'a> {
    text: &'a [u8],
    position: usize,
    /// The bracket that closes it is behind.
    is_over: bool,
}

/// A value that a walk stands in front of: it passes it or enters it, or it will look for the next key in there.
#[derive(Debug, Clone, Copy)]
pub struct Ahead(Begin);

impl<'a> Members<'a> {
    /// The next key; its value is still ahead.
    #[inline]
    pub fn next_key(&mut self) -> Option<(Cow<'a, [u8]>, Ahead)> {
        if self.is_over {
            return None;
        }
        let rest = self.text.get(self.position..)?;
        let quote = self.position
            + match rest {
                // As nearly everybody writes it.
                [b',', b'"', ..] => 1,
                _ => rest.iter().position(|byte| matches!(byte, b'"' | b'}'))?,
            };
        if self.text.get(quote) == Some(&b'}') {
            self.position = quote + 1;
            self.is_over = true;
            return None;
        }
        let (key_end, is_escaped) = lex::key_end(self.text, quote + 1)?;
        let behind_colon = key_end + usize::from(self.text.get(key_end) == Some(&b':'));
        let begin = lex::next_value(self.text, behind_colon)?;
        self.position = begin.at;
        let written = self.text.get(quote + 1..key_end - 1)?;
        let key = match is_escaped {
            false => Cow::Borrowed(written),
            true => Cow::Owned(unescape(&crate::to_text(written)).into_owned().into_bytes()),
        };
        Some((key, Ahead(begin)))
    }

    /// Goes on behind a value.
    #[inline]
    pub fn pass(&mut self, value: Ahead) -> Option<Member<'a>> {
        let passed = pass(self.text, value);
        self.position = passed.map_or(self.text.len(), |(_, end)| end);
        Some(passed?.0)
    }

    /// Shows the members of a value to `read`, and goes on behind it, wherever `read` stopped. One that is no object is
    /// passed.
    #[inline]
    pub fn enter<R>(&mut self, value: Ahead, read: impl FnOnce(&mut Members<'a>) -> R) -> Option<R> {
        match enter(self.text, value, read) {
            Some((read, end)) => {
                self.position = end;
                Some(read)
            }
            None => {
                self.pass(value);
                None
            }
        }
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, [u8]>, Member<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value) = self.next_key()?;
        Some((key, self.pass(value)?))
    }
}

/// The elements of an array, one after the other, to be passed or entered.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    text: &'a [u8],
    position: usize,
}

impl<'a> Elements<'a> {
    /// The next element, still ahead.
    pub fn next_element(&mut self) -> Option<Ahead> {
        let begin = lex::next_element(self.text, self.position).ok()?;
        self.position = begin.at;
        Some(Ahead(begin))
    }

    /// Goes on behind an element.
    pub fn pass(&mut self, value: Ahead) -> Option<Member<'a>> {
        let passed = pass(self.text, value);
        self.position = passed.map_or(self.text.len(), |(_, end)| end);
        Some(passed?.0)
    }

    /// Shows the members of an element to `read`, and goes on behind it. Gives the element as a whole, too. One that is
    /// no object is still ahead.
    pub fn enter<R>(
        &mut self,
        value: Ahead,
        read: impl FnOnce(&mut Members<'a>) -> R,
    ) -> Option<(R, Member<'a>)> {
        let (read, end) = enter(self.text, value, read)?;
        self.position = end;
        let raw = self.text.get(value.0.at..end)?;
        Some((read, Member::new(ValueKind::Json, raw, false)))
    }
}

#[inline]
fn pass(text: &[u8], Ahead(begin): Ahead) -> Option<(Member<'_>, usize)> {
    let (end, is_plain) = lex::value_end_and_plain(text, begin)?;
    let raw = text.get(begin.at..end)?;
    Some((Member::new(begin.kind, raw, is_plain), end))
}

/// `None`: the value is no object.
#[inline]
fn enter<'a, R>(
    text: &'a [u8],
    Ahead(begin): Ahead,
    read: impl FnOnce(&mut Members<'a>) -> R,
) -> Option<(R, usize)> {
    if text.get(begin.at) != Some(&b'{') {
        return None;
    }
    let mut inside = Members {
        text,
        position: begin.at + 1,
        is_over: false,
    };
    let read = read(&mut inside);
    while inside.next().is_some() {}
    let end = if inside.is_over {
        inside.position
    } else {
        text.len()
    };
    Some((read, end))
}

/// A member's value where it lies.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    raw: &'a [u8],
    kind: ValueKind,
    /// It is known for a string that has both its quotes and no escapes.
    is_plain: bool,
}

impl<'a> Member<'a> {
    #[inline]
    fn new(kind: ValueKind, raw: &'a [u8], is_plain: bool) -> Self {
        Self { raw, kind, is_plain }
    }

    /// The value that begins where `raw` begins and is all of it.
    pub(crate) fn of(raw: &'a [u8]) -> Self {
        Self::new(lex::kind_at(raw, 0).unwrap_or(ValueKind::Null), raw, false)
    }

    /// As it is written.
    #[must_use]
    #[inline]
    pub fn raw(self) -> &'a [u8] {
        self.raw
    }

    /// What kind it is.
    #[must_use]
    #[inline]
    pub fn kind(self) -> ValueKind {
        self.kind
    }

    /// What stands between the quotes, where it is a string that is known to have no escapes.
    #[must_use]
    #[inline]
    pub fn plain(self) -> Option<&'a [u8]> {
        let end = self.raw.len().checked_sub(1).filter(|_| self.is_plain)?;
        self.raw.get(1..end)
    }

    /// Its members, if it is an object.
    #[must_use]
    pub fn members(self) -> Option<Members<'a>> {
        (self.raw.first() == Some(&b'{')).then_some(Members {
            text: self.raw,
            position: 1,
            is_over: false,
        })
    }

    /// Its elements, if it is an array.
    #[must_use]
    pub fn elements(self) -> Option<Elements<'a>> {
        (self.raw.first() == Some(&b'[')).then_some(Elements {
            text: self.raw,
            position: 1,
        })
    }

    /// Its first element, if it is an array of any.
    #[must_use]
    pub fn first_element(self) -> Option<Self> {
        let mut elements = self.elements()?;
        let first = elements.next_element()?;
        elements.pass(first)
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
        PathValue::slice(self.kind, self.raw).known(self.is_plain)
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
    fn what_is_entered_is_left_wherever_the_reader_stopped() {
        let json = br#"{"a":{"b":{"c":"}"},"d":[{}]},"e":7,"f":[{"g":1,"h":2}, 3,"i"],"j":null}"#;
        for count in 0..4 {
            let mut all = members(json);
            let (_, a) = all.next_key().unwrap();
            let read = all.enter(a, |inner| inner.take(count).count());
            assert_eq!(read, Some(count.min(2)));
            let (key, e) = all.next_key().unwrap();
            assert_eq!((&*key, all.enter(e, |_| ())), (&b"e"[..], None));
            let (key, f) = all.next().unwrap();
            assert_eq!(&*key, b"f");
            let mut elements = f.elements().unwrap();
            let first = elements.next_element().unwrap();
            let (read, whole) = elements.enter(first, |inner| inner.take(count).count()).unwrap();
            assert_eq!((read, whole.raw()), (count.min(2), &br#"{"g":1,"h":2}"#[..]));
            let second = elements.next_element().unwrap();
            assert!(elements.enter(second, |_| ()).is_none());
            assert_eq!(elements.pass(second).unwrap().raw(), b"3");
            let third = elements.next_element().unwrap();
            assert_eq!(elements.pass(third).unwrap().plain(), Some(&b"i"[..]));
            assert!(elements.next_element().is_none());
            assert_eq!(all.map(|(key, _)| key.into_owned()).collect::<Vec<_>>(), [b"j"]);
        }
        for broken in ["{\"a\":{\"b\":1", "{\"a\":{", "{\"a\":{\"b\":\""] {
            let mut all = members(broken.as_bytes());
            let (_, a) = all.next_key().unwrap();
            assert!(all.enter(a, |_| ()).is_some(), "{broken}");
            assert!(all.next_key().is_none(), "{broken}");
        }
    }

    #[test]
    fn strings_without_escapes_are_known() {
        let all: Vec<_> = members(br#"{"a":"x y","b":"x\"","c":1,"d":""}"#).collect();
        let plain = all.iter().map(|(_, member)| member.plain()).collect::<Vec<_>>();
        assert_eq!(plain, [Some(&b"x y"[..]), None, None, Some(&b""[..])]);
        let texts = all.iter().map(|(_, member)| member.value().text().into_owned());
        assert_eq!(texts.collect::<Vec<_>>(), ["x y", "x\"", "1", ""]);
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
