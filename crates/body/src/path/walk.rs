//! The walk along a path: from the outermost bracket inwards, reading no further than it must.
//!
//! It keeps gjson's ways with texts that are broken or say things twice: the first key that leads somewhere counts,
//! and what follows a value that was found is never looked at.

use std::borrow::Cow;

use super::lex::{self, Begin};
use super::query::Query;
use super::step::{ElementStep, KeyStep, Pick};
use super::value::{PathValue, ValueKind};
use super::{DEPTH_LIMIT, multi};

/// What a path led to.
#[derive(Debug, Default)]
pub(super) struct Found<'t> {
    pub(super) value: Option<PathValue<'t>>,
    /// Where it lies in the text, if it does.
    pub(super) at: Option<usize>,
    /// Where the elements lie that a value made by `#` was collected from.
    pub(super) collected: Option<Vec<Option<usize>>>,
}

impl<'t> Found<'t> {
    fn made(value: Option<PathValue<'t>>) -> Self {
        Self {
            value,
            at: None,
            collected: None,
        }
    }

    /// Counts the places from `start` bytes further in front.
    fn shift(&mut self, start: usize) {
        let places = self.collected.iter_mut().flatten();
        for place in places.chain([&mut self.at]).flatten() {
            *place += start;
        }
    }
}

/// Follows a path in `text`; `depth` counts the paths that this one lies in.
pub(super) fn find<'t>(text: &'t [u8], whole_path: &str, depth: usize) -> Found<'t> {
    if depth > DEPTH_LIMIT {
        return Found::default();
    }
    let path = match multi::make(text, whole_path, depth) {
        multi::Outcome::Made(value) => return Found::made(value),
        multi::Outcome::Steps(steps) => steps,
    };
    let mut walk = Walk {
        text,
        depth,
        level: 0,
        found: Found::default(),
        pipe: None,
    };
    if let Some(lines) = path.strip_prefix("..") {
        walk.array(0, lines);
    } else if let Some(at) = memchr::memchr2(b'{', b'[', text) {
        walk.enter(at, path);
    }
    match walk.pipe {
        Some(pipe) => Found::made(find_in(walk.found.value, pipe, depth + 1)),
        None => walk.found,
    }
}

/// Follows a path in a value that may be missing; it keeps borrowing from the text if it did.
pub(super) fn find_in<'t>(value: Option<PathValue<'t>>, path: &str, depth: usize) -> Option<PathValue<'t>> {
    match value.map_or(Cow::Borrowed(""), PathValue::into_raw) {
        Cow::Borrowed(text) => find(text.as_bytes(), path, depth).value,
        Cow::Owned(text) => find(text.as_bytes(), path, depth)
            .value
            .map(PathValue::into_owned),
    }
}

struct Walk<'t, 'p> {
    text: &'t [u8],
    depth: usize,
    /// Brackets entered so far.
    level: usize,
    found: Found<'t>,
    /// Where the value goes in the end.
    pipe: Option<&'p str>,
}

/// Where the walk stands, and whether it may stop.
type Step = (usize, bool);

impl<'t, 'p> Walk<'t, 'p> {
    fn enter(&mut self, bracket: usize, path: &'p str) -> Step {
        if self.level == DEPTH_LIMIT {
            return self.end();
        }
        self.level += 1;
        let step = match self.text[bracket] {
            b'{' => self.object(bracket + 1, path),
            _ => self.array(bracket + 1, path),
        };
        self.level -= 1;
        step
    }

    fn take(&mut self, begin: Begin, end: usize) {
        self.found.value = Some(PathValue::slice(begin.kind, &self.text[begin.at..end]));
        self.found.at = Some(begin.at);
        self.found.collected = None;
    }

    fn end(&self) -> Step {
        (self.text.len(), false)
    }

    fn object(&mut self, from: usize, path: &'p str) -> Step {
        let step = KeyStep::parse(path);
        if step.pipe.is_some() {
            self.pipe = step.pipe;
        }
        let mut at = from;
        loop {
            let rest = self.text.get(at..).unwrap_or_default();
            let Some(length) = rest.iter().position(|byte| matches!(byte, b'"' | b'}')) else {
                return self.end();
            };
            let quote = at + length;
            if self.text[quote] == b'}' {
                return (quote + 1, false);
            }
            let Some(key_end) = lex::string_end(self.text, quote + 1) else {
                return self.end();
            };
            let is_meant = step.matches(&self.text[quote + 1..key_end - 1]);
            let Some(begin) = lex::next_value(self.text, key_end) else {
                return self.end();
            };
            if let (true, ValueKind::Json, Some(rest)) = (is_meant, begin.kind, step.rest) {
                let (behind, is_found) = self.enter(begin.at, rest);
                if is_found {
                    return (behind, true);
                }
                at = behind;
                continue;
            }
            let Some(end) = lex::value_end(self.text, begin) else {
                return self.end();
            };
            if is_meant && step.rest.is_none() {
                self.take(begin, end);
                return (end, true);
            }
            at = end;
        }
    }

    fn array(&mut self, from: usize, path: &'p str) -> Step {
        let step = ElementStep::parse(path);
        if step.pipe.is_some() {
            self.pipe = step.pipe;
        }
        match &step.pick {
            Pick::Index(index) => self.element(from, *index, step.rest),
            Pick::FromEnd(1) => match lex::last(self.text, from) {
                Ok(last) => self.element(last, 0, step.rest),
                Err(behind) => (behind, false),
            },
            Pick::FromEnd(back) => {
                let (count, behind) = lex::count(self.text, from);
                match count.and_then(|count| count.checked_sub(*back)) {
                    Some(index) => self.element(from, index, step.rest),
                    None => (behind, false),
                }
            }
            Pick::Count => {
                let (Some(count), behind) = lex::count(self.text, from) else {
                    return self.end();
                };
                let raw = Cow::Owned(count.to_string());
                self.found = Found::made(Some(PathValue::new(ValueKind::Number, raw)));
                (behind, true)
            }
            Pick::Each(inner) => self.each(from, inner),
            Pick::Query(query) => self.query(from, query, step.rest),
            Pick::Nothing => (lex::count(self.text, from).1, false),
        }
    }

    fn element(&mut self, from: usize, index: usize, rest: Option<&'p str>) -> Step {
        let mut at = from;
        for position in 0.. {
            let begin = match lex::next_element(self.text, at) {
                Ok(begin) => begin,
                Err(behind) => return (behind, false),
            };
            if let (true, ValueKind::Json, Some(inner)) = (position == index, begin.kind, rest) {
                let (behind, is_found) = self.enter(begin.at, inner);
                if is_found {
                    return (behind, true);
                }
                at = behind;
                continue;
            }
            let Some(end) = lex::value_end(self.text, begin) else {
                return self.end();
            };
            if position == index && rest.is_none() {
                self.take(begin, end);
                return (end, true);
            }
            at = end;
        }
        self.end()
    }

    /// `#.path`: an array of what the path leads to in each element.
    fn each(&mut self, from: usize, path: &'p str) -> Step {
        let (inner, pipe) = split_pipe(path);
        let mut out = String::from("[");
        let mut places = Vec::new();
        let mut at = from;
        let behind = loop {
            let begin = match lex::next_element(self.text, at) {
                Ok(begin) => begin,
                Err(behind) => break behind,
            };
            let Some(end) = lex::value_end(self.text, begin) else {
                return self.end();
            };
            let found = find(&self.text[begin.at..end], inner, self.depth + 1);
            if let Some(value) = found.value {
                if !places.is_empty() {
                    out.push(',');
                }
                out.push_str(value.raw());
                places.push(found.at.map(|inside| begin.at + inside));
            }
            at = end;
        };
        if pipe.is_some() {
            self.pipe = pipe;
        }
        out.push(']');
        self.found = Found {
            value: Some(PathValue::new(ValueKind::Json, Cow::Owned(out))),
            at: None,
            collected: Some(places),
        };
        (behind, true)
    }

    fn query(&mut self, from: usize, query: &Query<'p>, rest: Option<&'p str>) -> Step {
        let (inner, pipe) = rest.map_or((None, None), |path| {
            let (left, right) = split_pipe(path);
            (Some(left), right)
        });
        let mut out = String::from("[");
        let mut places = Vec::new();
        let mut at = from;
        let behind = loop {
            let begin = match lex::next_element(self.text, at) {
                Ok(begin) => begin,
                Err(behind) => break behind,
            };
            let Some(end) = lex::value_end(self.text, begin) else {
                return self.end();
            };
            at = end;
            if !self.is_wanted(begin, end, query) {
                continue;
            }
            if pipe.is_some() {
                self.pipe = pipe;
            }
            let mut picked = match inner {
                Some(path) => find(&self.text[begin.at..end], path, self.depth + 1),
                None => Found {
                    value: Some(PathValue::slice(begin.kind, &self.text[begin.at..end])),
                    at: Some(0),
                    collected: None,
                },
            };
            picked.shift(begin.at);
            if !query.all {
                self.found = picked;
                return (end, true);
            }
            if let Some(value) = picked.value {
                if !places.is_empty() {
                    out.push(',');
                }
                out.push_str(value.raw());
                places.push(picked.at);
            }
        };
        if query.all && self.found.value.is_none() {
            out.push(']');
            self.found = Found {
                value: Some(PathValue::new(ValueKind::Json, Cow::Owned(out))),
                at: None,
                collected: (!places.is_empty()).then_some(places),
            };
        }
        (behind, false)
    }

    fn is_wanted(&self, begin: Begin, end: usize, query: &Query<'_>) -> bool {
        let element = &self.text[begin.at..end];
        if begin.kind == ValueKind::Json {
            let found = find(element, query.path, self.depth + 1);
            return query.matches(found.value.as_ref());
        }
        query.path.is_empty() && query.matches(Some(&PathValue::slice(begin.kind, element)))
    }
}

/// Parts a path at the pipe that works on all that was collected, not on each element.
fn split_pipe(path: &str) -> (&str, Option<&str>) {
    let bytes = path.as_bytes();
    if !bytes.contains(&b'|') {
        return (path, None);
    }
    if bytes[0] == b'{' {
        let end = lex::nested_end(bytes, 0);
        let pipe = path[end..].strip_prefix('|');
        return if pipe.is_some() {
            (&path[..end], pipe)
        } else {
            (path, None)
        };
    }
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            b'.' if bytes.get(at + 1) == Some(&b'#') => {
                at += 2;
                if let Some(open @ (b'[' | b'(')) = bytes.get(at) {
                    at = query_end(bytes, at, *open);
                }
            }
            b'|' => return (&path[..at], Some(&path[at + 1..])),
            _ => {}
        }
        at += 1;
    }
    (path, None)
}

/// The position of the bracket that closes a query.
fn query_end(bytes: &[u8], from: usize, open: u8) -> usize {
    let close = if open == b'[' { b']' } else { b')' };
    let mut depth = 1;
    let mut at = from + 1;
    while let Some(byte) = bytes.get(at) {
        if *byte == b'\\' {
            at += 1;
        } else if *byte == open {
            depth += 1;
        } else if *byte == close {
            depth -= 1;
            if depth == 0 {
                return at;
            }
        } else if *byte == b'"' {
            at = lex::string_end(bytes, at + 1).unwrap_or(bytes.len()) - 1;
        }
        at += 1;
    }
    at
}
