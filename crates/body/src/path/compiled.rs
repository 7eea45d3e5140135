//! `Path`: a path that is read once, when a configuration is, and followed in many texts.
//!
//! Of a path that is made of keys and indexes alone, `@reverse` in front of an index among them, nothing is left to read:
//! the walk is that of `walk`, without the language. Any other path is kept as it is written.

use super::lex::{self, Begin};
use super::step::{self, Pick};
use super::value::{PathValue, ValueKind};
use super::{DEPTH_LIMIT, walk};
use crate::json::unescape;

/// A path, compiled. It finds what [`super::get`] finds.
#[derive(Debug, Clone)]
pub struct Path {
    written: Box<str>,
    /// `None`: it needs the whole language.
    steps: Option<Box<[Step]>>,
}

#[derive(Debug, Clone)]
struct Step {
    /// What an object makes of it; `None` for `@reverse` and an index.
    key: Option<Box<str>>,
    element: Element,
}

/// What an array makes of a step.
#[derive(Debug, Clone, Copy)]
enum Element {
    Nothing,
    Index(usize),
    /// 1 is the last.
    FromEnd(usize),
}

/// Where a walk came to.
enum Way {
    Found(Found),
    /// It leads nowhere so far; what follows begins here.
    Behind(usize),
    /// It leads nowhere, whatever follows.
    Nowhere,
    /// The value in front of `@reverse` is no array: only the language itself knows what comes out.
    Unclear,
}

/// Where a value lies.
struct Found {
    begin: Begin,
    end: usize,
    /// It is a string without escapes.
    is_plain: bool,
}

impl Found {
    fn in_bytes(self, text: &[u8]) -> Option<PathValue<'_>> {
        let raw = text.get(self.begin.at..self.end)?;
        Some(PathValue::slice(self.begin.kind, raw).known(self.is_plain))
    }

    fn in_text(self, text: &str) -> Option<PathValue<'_>> {
        let raw = text.get(self.begin.at..self.end)?;
        Some(PathValue::new(self.begin.kind, raw.into()).known(self.is_plain))
    }
}

impl Path {
    /// Reads a path.
    #[must_use]
    pub fn new(written: &str) -> Self {
        Self {
            written: written.into(),
            steps: steps(written),
        }
    }

    /// The path as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// Whether it is made of keys and indexes alone, so that it leads to the same place in all texts of a shape.
    #[must_use]
    pub fn is_simple(&self) -> bool {
        self.steps.is_some()
    }

    /// What it leads to in `json`, as [`super::get`] tells.
    #[must_use]
    pub fn get<'json>(&self, json: &'json [u8]) -> Option<PathValue<'json>> {
        let way = self
            .steps
            .as_deref()
            .map_or(Way::Unclear, |steps| start(json, steps));
        match way {
            Way::Found(found) => found.in_bytes(json),
            Way::Behind(_) | Way::Nowhere => None,
            Way::Unclear => walk::find(json, &self.written, 0).value,
        }
    }

    /// The same in a text that is known to be one: what is found is not checked again.
    #[must_use]
    pub fn get_in_text<'json>(&self, json: &'json str) -> Option<PathValue<'json>> {
        let way = self
            .steps
            .as_deref()
            .map_or(Way::Unclear, |steps| start(json.as_bytes(), steps));
        match way {
            Way::Found(found) => found.in_text(json),
            Way::Behind(_) | Way::Nowhere => None,
            Way::Unclear => walk::find(json.as_bytes(), &self.written, 0).value,
        }
    }

    /// The same, where an object of the text has been looked through already: `value` is what `key` first stands for in
    /// it. `None`: the text itself must be asked.
    #[must_use]
    pub fn get_in_member<'json>(&self, key: &str, value: &'json [u8]) -> Option<PathValue<'json>> {
        let (first, rest) = self.steps.as_deref()?.split_first()?;
        if first.key.as_deref() != Some(key) || !matches!(value.first(), Some(b'{' | b'[')) {
            return None;
        }
        match start(value, rest) {
            // What reaches the member's end is not closed: the text may go on.
            Way::Found(found) if found.end < value.len() => found.in_bytes(value),
            // A later twin of the key may lead somewhere.
            _ => None,
        }
    }

    /// The key that it begins with, if a text's outermost object may be asked for that by other means.
    pub(crate) fn first_key(&self) -> Option<&str> {
        self.steps.as_deref()?.first()?.key.as_deref()
    }

    /// Whether it is keys and indexes without `@reverse`, so that nothing comes out of a value that is not there.
    pub(crate) fn is_keys(&self) -> bool {
        let steps = self.steps.as_deref();
        steps.is_some_and(|steps| steps.iter().all(|step| step.key.is_some()))
    }

    /// Follows what is behind its first key in the value of that. `None`: the language itself must be asked.
    pub(crate) fn behind_first_key<'json>(&self, value: &'json str) -> Option<Option<PathValue<'json>>> {
        let rest = self.steps.as_deref()?.get(1..)?;
        if rest.is_empty() {
            return Some(super::get_whole(value));
        }
        if !value.starts_with(['{', '[']) {
            return None;
        }
        match start(value.as_bytes(), rest) {
            Way::Found(found) => Some(found.in_text(value)),
            Way::Behind(_) | Way::Nowhere => Some(None),
            Way::Unclear => None,
        }
    }
}

/// The steps of a path without anything special; `None` for any other.
fn steps(written: &str) -> Option<Box<[Step]>> {
    let mut all = Vec::new();
    let mut components = written.split('.');
    while let Some(component) = components.next() {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if component == "@reverse" {
            let index: u32 = step::number(components.next().filter(|digits| !digits.is_empty())?)?
                .try_into()
                .ok()?;
            all.push(Step {
                key: None,
                element: Element::FromEnd(usize::try_from(index).ok()?.checked_add(1)?),
            });
        } else if !component.is_empty() && component.bytes().all(is_plain) {
            let element = match step::pick_of(component) {
                Pick::Index(index) => Element::Index(index),
                Pick::FromEnd(back) => Element::FromEnd(back),
                _ => Element::Nothing,
            };
            all.push(Step {
                key: Some(component.into()),
                element,
            });
        } else {
            return None;
        }
    }
    (all.len() < DEPTH_LIMIT).then(|| all.into())
}

fn start(text: &[u8], steps: &[Step]) -> Way {
    let Some((step, rest)) = steps.split_first() else {
        return Way::Unclear;
    };
    if step.key.is_none() {
        let first = text.iter().position(|byte| !byte.is_ascii_whitespace());
        return match first.filter(|at| text.get(*at) == Some(&b'[')) {
            Some(at) => array(text, at + 1, step, rest),
            None => Way::Unclear,
        };
    }
    match memchr::memchr2(b'{', b'[', text) {
        Some(at) => enter(text, at, step, rest),
        None => Way::Nowhere,
    }
}

fn enter(text: &[u8], bracket: usize, step: &Step, rest: &[Step]) -> Way {
    match (text.get(bracket), &step.key) {
        (Some(b'['), _) => array(text, bracket + 1, step, rest),
        (_, Some(key)) => object(text, bracket + 1, key, rest),
        (_, None) => Way::Unclear,
    }
}

fn object(text: &[u8], from: usize, key: &str, rest: &[Step]) -> Way {
    let mut at = from;
    loop {
        let behind = text.get(at..).unwrap_or_default();
        let Some(length) = behind.iter().position(|byte| matches!(byte, b'"' | b'}')) else {
            return Way::Nowhere;
        };
        let quote = at + length;
        if text.get(quote) == Some(&b'}') {
            return Way::Behind(quote + 1);
        }
        let Some((key_end, is_escaped)) = lex::key_end(text, quote + 1) else {
            return Way::Nowhere;
        };
        let written = text.get(quote + 1..key_end - 1).unwrap_or_default();
        let is_meant = match is_escaped {
            false => written == key.as_bytes(),
            true => unescape(&crate::to_text(written)) == key,
        };
        let Some(begin) = lex::next_value(text, key_end) else {
            return Way::Nowhere;
        };
        at = match member(text, begin, is_meant, rest) {
            Way::Behind(behind) => behind,
            way => return way,
        };
    }
}

fn array(text: &[u8], from: usize, step: &Step, rest: &[Step]) -> Way {
    let (first, index) = match step.element {
        Element::Nothing => return Way::Behind(lex::count(text, from).1),
        Element::Index(index) => (from, index),
        Element::FromEnd(1) => match lex::last(text, from) {
            Ok(last) => (last, 0),
            Err(behind) => return Way::Behind(behind),
        },
        Element::FromEnd(back) => {
            let (count, behind) = lex::count(text, from);
            match count.and_then(|count| count.checked_sub(back)) {
                Some(index) => (from, index),
                None => return Way::Behind(behind),
            }
        }
    };
    let mut at = first;
    for position in 0.. {
        let begin = match lex::next_element(text, at) {
            Ok(begin) => begin,
            Err(behind) => return Way::Behind(behind),
        };
        at = match member(text, begin, position == index, rest) {
            Way::Behind(behind) => behind,
            way => return way,
        };
    }
    Way::Nowhere
}

/// Follows a member or an element if it is the one that is meant, and passes over it otherwise.
fn member(text: &[u8], begin: Begin, is_meant: bool, rest: &[Step]) -> Way {
    match (is_meant, rest.split_first()) {
        (true, Some((next, rest))) => inner(text, begin, next, rest),
        (true, None) => match lex::value_end_and_plain(text, begin) {
            Some((end, is_plain)) => Way::Found(Found { begin, end, is_plain }),
            None => Way::Nowhere,
        },
        (false, _) => lex::value_end(text, begin).map_or(Way::Nowhere, Way::Behind),
    }
}

/// Goes on in a value; one that nothing lies in is passed over.
fn inner(text: &[u8], begin: Begin, step: &Step, rest: &[Step]) -> Way {
    if step.key.is_none() {
        if text.get(begin.at) != Some(&b'[') {
            return Way::Unclear;
        }
        // What `@reverse` is given it has for itself: neither a later twin of the key counts nor what follows.
        let end = lex::value_end(text, begin).unwrap_or(text.len());
        return match array(text.get(..end).unwrap_or(text), begin.at + 1, step, rest) {
            Way::Behind(_) => Way::Nowhere,
            way => way,
        };
    }
    if begin.kind == ValueKind::Json {
        return enter(text, begin.at, step, rest);
    }
    lex::value_end(text, begin).map_or(Way::Nowhere, Way::Behind)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn assert_same(json: &[u8], path: &str) {
        let (compiled, expected) = (Path::new(path), super::super::get(json, path));
        assert_eq!(
            compiled.get(json),
            expected,
            "{path} in {}",
            String::from_utf8_lossy(json)
        );
        if let Ok(text) = std::str::from_utf8(json) {
            assert_eq!(compiled.get_in_text(text), expected, "{path} in {text}");
        }
    }

    #[test]
    fn keys_and_indexes_are_compiled_and_nothing_else_is() {
        for path in [
            "a",
            "a.b.0",
            "messages.@reverse.0.content",
            "@reverse.1",
            "a.-1.x-y_z",
            "0",
        ] {
            assert!(Path::new(path).is_simple(), "{path}");
        }
        for path in [
            "",
            ".",
            "a.",
            "a..b",
            "a.#",
            "a.@reverse",
            "a.@reverse.x",
            "a|b",
            "a*",
            r"a\.b",
            "@this.a",
            "a.{b}",
            "é",
        ] {
            assert!(!Path::new(path).is_simple(), "{path}");
        }
    }

    #[test]
    fn it_finds_what_the_language_finds() {
        let texts = [
            r#"{"a":{"x":1},"a":{"b":[{"c":"é\n"},{"c":2},3]},"0":"zero","-1":"minus"}"#,
            r#"{"a":1,"a":{"b":2}}"#,
            r#"{"\u0061":{"b":[1,[2,3]]}}"#,
            r#" [{"a":1},{"a":{"b":[5]}},"x"] "#,
            r#"{"a":"[1,2]","b":[]}"#,
            r#"{"a":{"b":[{"c":1},{"c":[]}"#,
            r#"{"a":{"b":[1,2)],"c":3},"a":{"c":4}}"#,
            r#""{"#,
            "",
            r#"{"a":[[1,2],{"b":[3]}],"b":"open"#,
        ];
        let paths = [
            "a",
            "a.b",
            "a.b.0",
            "a.b.1",
            "a.b.-1",
            "a.b.-2",
            "a.b.0.c",
            "a.b.-1.c",
            "a.x",
            "0",
            "-1",
            "0.a",
            "1.a.b.0",
            "2",
            "-1.x",
            "a.@reverse.0",
            "a.b.@reverse.0",
            "a.b.@reverse.1.c",
            "@reverse.0",
            "@reverse.1.a.b",
            "a.@reverse.0.b.@reverse.0",
            "b.@reverse.0",
            "a.0.1",
            "a.1.b",
            "a.c",
            "x.@reverse.0",
            "a.b.1.-1",
            "0.-0",
        ];
        for (text, path) in texts.iter().flat_map(|text| paths.map(|path| (text, path))) {
            assert_same(text.as_bytes(), path);
        }
        assert_same(b"{\"a\":\"\xff\"}", "a");
    }

    #[test]
    fn what_lies_in_a_member_that_is_known_is_found_in_there() {
        let value = br#"[{"message":{"content":"x"}},{"message":1}]"#;
        let path = Path::new("choices.0.message.content");
        let found = path.get_in_member("choices", value).unwrap();
        assert_eq!((found.raw(), &*found.text()), ("\"x\"", "x"));
        for (path, value) in [
            ("choices.1.message.content", &value[..]),
            ("choices.0.x", value),
            ("choices", value),
            ("other.0.message.content", value),
            ("choices.#", value),
            ("choices.0.message", br#"[{"message":{"a":1"#),
            ("choices.a", br#""{"a":1}""#),
        ] {
            assert_eq!(Path::new(path).get_in_member("choices", value), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn it_finds_the_same_in_whatever_text(
            pieces in prop::collection::vec(prop::sample::select(vec![
                "{", "}", "[", "]", ",", "\"a\":", "\"b\":", "\"0\":", "\"x\"", "\"\\\"\"", "1", "-2", "null", "true", " ", "(", ")", "\"", "é",
            ]), 0..24),
            path in prop::collection::vec(prop::sample::select(vec!["a", "b", "0", "1", "-1", "@reverse.0", "@reverse.1"]), 1..5),
        ) {
            assert_same(pieces.concat().as_bytes(), &path.join("."));
        }
    }
}
