//! `SseEvent`: one event as its own bytes, read on demand.
//!
//! Reading never changes the bytes. A change makes a new event, and only what was asked for differs in it.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use memchr::memchr2;
use serde_json::Value;

use super::BYTE_ORDER_MARK;
use crate::path::{self, PathValue};
use crate::to_text;

/// One server-sent event, comment block or stray blank line.
#[derive(Clone)]
pub struct SseEvent {
    /// What the event was cut from, kept whole so that neighbours can be joined without a copy.
    frame: Bytes,
    start: usize,
    end: usize,
    /// Begins with a byte order mark.
    marked: bool,
    incomplete: bool,
    /// `None` inside: the data is not JSON.
    json: OnceCell<Option<Arc<Value>>>,
}

impl SseEvent {
    /// `data: …` and a blank line; data of several lines becomes several `data:` lines.
    pub fn from_data(data: impl AsRef<[u8]>) -> Self {
        let mut raw = BytesMut::with_capacity(data.as_ref().len() + 8);
        push_field(&mut raw, b"data", data.as_ref(), b"\n");
        Self::finished(raw)
    }

    /// `event: …`, `data: …` and a blank line.
    pub fn named(event: &str, data: impl AsRef<[u8]>) -> Self {
        let mut raw = BytesMut::with_capacity(event.len() + data.as_ref().len() + 16);
        push_field(&mut raw, b"event", event.as_bytes(), b"\n");
        push_field(&mut raw, b"data", data.as_ref(), b"\n");
        Self::finished(raw)
    }

    /// `data: <the value as JSON>`; the value stays at hand, so that nobody parses it again.
    #[must_use]
    pub fn from_json(value: Value) -> Self {
        Self::from_data(value.to_string()).holding(value)
    }

    /// `event: …` and `data: <the value as JSON>`.
    #[must_use]
    pub fn named_json(event: &str, value: Value) -> Self {
        Self::named(event, value.to_string()).holding(value)
    }

    /// `: …`: says nothing, keeps the connection alive.
    #[must_use]
    pub fn comment(text: &str) -> Self {
        let mut raw = BytesMut::with_capacity(text.len() + 4);
        push_field(&mut raw, b"", text.as_bytes(), b"\n");
        Self::finished(raw)
    }

    /// `data: [DONE]`, the end of an OpenAI stream.
    #[must_use]
    pub fn done() -> Self {
        Self::from_raw(Bytes::from_static(b"data: [DONE]\n\n"))
    }

    /// Bytes that are one event already, its blank line included.
    #[must_use]
    pub fn from_raw(raw: Bytes) -> Self {
        let end = raw.len();
        Self::cut_from(raw, 0, end, false)
    }

    pub(super) fn cut_from(frame: Bytes, start: usize, end: usize, marked: bool) -> Self {
        Self {
            frame,
            start,
            end,
            marked,
            incomplete: false,
            json: OnceCell::new(),
        }
    }

    pub(super) fn mark_incomplete(mut self, incomplete: bool) -> Self {
        self.incomplete = incomplete;
        self
    }

    fn finished(mut raw: BytesMut) -> Self {
        raw.extend_from_slice(b"\n");
        Self::from_raw(raw.freeze())
    }

    fn holding(mut self, value: Value) -> Self {
        self.json = OnceCell::from(Some(Arc::new(value)));
        self
    }

    /// The bytes as they came, the blank line at their end included.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.frame[self.start..self.end]
    }

    /// The bytes to send; shares memory with the event.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.frame.slice(self.start..self.end)
    }

    /// Whether the stream ended before this event's blank line: a browser would drop it.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// The event's name; `None` when it has none, which means `message`.
    #[must_use]
    pub fn event(&self) -> Option<&str> {
        self.field("event")
    }

    /// The event's `id`.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.field("id")
    }

    /// The value of a field; of several the last, as the grammar has it. Not for `data`: see [`SseEvent::data`].
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.lines().filter(|line| line.name == name.as_bytes()).last();
        found.and_then(|line| std::str::from_utf8(line.value).ok())
    }

    /// Texts of the comment lines, without the colon and one space.
    pub fn comments(&self) -> impl Iterator<Item = &[u8]> {
        self.lines().filter(|line| line.is_comment).map(|line| line.value)
    }

    /// The data: its lines joined with LF, borrowed when there is one. `None` when no line is data, as in a comment
    /// block. Bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn data(&self) -> Option<Cow<'_, str>> {
        Some(match self.raw_data()? {
            Cow::Borrowed(data) => to_text(data),
            Cow::Owned(data) => Cow::Owned(to_text(&data).into_owned()),
        })
    }

    /// The data as bytes; shares memory with the event when it is one line.
    #[must_use]
    pub fn data_bytes(&self) -> Option<Bytes> {
        Some(match self.raw_data()? {
            Cow::Borrowed([]) => Bytes::new(),
            Cow::Borrowed(data) => self.frame.slice_ref(data),
            Cow::Owned(data) => data.into(),
        })
    }

    /// The data as bytes, borrowed when it is one line.
    #[must_use]
    pub fn data_slice(&self) -> Option<Cow<'_, [u8]>> {
        self.raw_data()
    }

    /// The data of an event that is nothing but one line of it, as most are.
    fn only_line(&self) -> Option<&[u8]> {
        let line = self.raw().strip_prefix(b"data: ").filter(|_| !self.marked)?;
        let length = memchr2(b'\n', b'\r', line)?;
        let (data, behind) = line.split_at(length);
        matches!(behind, b"\n\n" | b"\r\n\r\n" | b"\r\r").then_some(data)
    }

    fn raw_data(&self) -> Option<Cow<'_, [u8]>> {
        if let Some(data) = self.only_line() {
            return Some(Cow::Borrowed(data));
        }
        let mut found: Option<Cow<'_, [u8]>> = None;
        for line in self.lines().filter(|line| line.name == b"data") {
            found = Some(match found {
                None => Cow::Borrowed(line.value),
                Some(before) => {
                    let mut joined = before.into_owned();
                    joined.push(b'\n');
                    joined.extend_from_slice(line.value);
                    Cow::Owned(joined)
                }
            });
        }
        found
    }

    /// Whether the data is `[DONE]`.
    #[must_use]
    pub fn is_done(&self) -> bool {
        // Longer events are not even read.
        self.end - self.start < 256 && self.raw_data().is_some_and(|data| data.trim_ascii() == b"[DONE]")
    }

    /// The data as JSON, parsed at the first call; `None` when it is not JSON.
    #[must_use]
    pub fn json(&self) -> Option<&Value> {
        let parsed = self.json.get_or_init(|| {
            let value = serde_json::from_slice(&self.raw_data()?).ok()?;
            Some(Arc::new(value))
        });
        parsed.as_deref()
    }

    /// What a gjson path leads to in the data, read where it lies: nothing is parsed that the path does not go through.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<PathValue<'_>> {
        match self.raw_data()? {
            Cow::Borrowed(data) => path::get(data, path),
            Cow::Owned(data) => path::get(&data, path).map(PathValue::into_owned),
        }
    }

    /// The same event with other data: name, id, comments and line ends stay as they are.
    #[must_use]
    pub fn with_data(&self, data: impl AsRef<[u8]>) -> Self {
        let mut raw = BytesMut::with_capacity(self.raw().len() + data.as_ref().len());
        if self.marked {
            raw.extend_from_slice(BYTE_ORDER_MARK);
        }
        let mut written = false;
        for line in self.lines() {
            let ending = if line.ending.is_empty() {
                b"\n"
            } else {
                line.ending
            };
            let is_data = line.name == b"data";
            if !written && (is_data || line.is_blank()) {
                push_field(&mut raw, b"data", data.as_ref(), ending);
                written = true;
            }
            if !is_data {
                raw.extend_from_slice(line.whole);
            }
        }
        if !written {
            push_field(&mut raw, b"data", data.as_ref(), b"\n");
        }
        let mut changed = Self::from_raw(raw.freeze()).mark_incomplete(self.incomplete);
        changed.marked = self.marked;
        changed
    }

    /// The same event with other JSON; the value stays at hand.
    #[must_use]
    pub fn with_json(&self, value: Value) -> Self {
        self.with_data(value.to_string()).holding(value)
    }

    /// Whether `next` lies right behind this event in the same frame.
    pub(crate) fn touches(&self, next: &Self) -> bool {
        self.end == next.start && self.frame.as_ptr() == next.frame.as_ptr()
    }

    /// Where the event begins in its frame.
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// The frame's bytes from `start` to the end of this event.
    pub(crate) fn bytes_since(&self, start: usize) -> Bytes {
        self.frame.slice(start..self.end)
    }

    fn lines(&self) -> Lines<'_> {
        let raw = self.raw();
        Lines {
            rest: if self.marked {
                &raw[BYTE_ORDER_MARK.len()..]
            } else {
                raw
            },
        }
    }
}

impl fmt::Debug for SseEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tuple = formatter.debug_tuple("SseEvent");
        tuple.field(&String::from_utf8_lossy(self.raw()));
        if self.incomplete {
            tuple.field(&"incomplete");
        }
        tuple.finish()
    }
}

/// Same bytes, same end.
impl PartialEq for SseEvent {
    fn eq(&self, other: &Self) -> bool {
        self.raw() == other.raw() && self.incomplete == other.incomplete
    }
}

fn push_field(raw: &mut BytesMut, name: &[u8], value: &[u8], ending: &[u8]) {
    let mut rest = value;
    loop {
        let length = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        for part in [name, b": ", &rest[..length], ending] {
            raw.extend_from_slice(part);
        }
        if length == rest.len() {
            return;
        }
        let is_pair = rest[length..].starts_with(b"\r\n");
        rest = &rest[length + 1 + usize::from(is_pair)..];
    }
}

struct Line<'a> {
    name: &'a [u8],
    value: &'a [u8],
    is_comment: bool,
    ending: &'a [u8],
    /// All of it, its ending included.
    whole: &'a [u8],
}

impl Line<'_> {
    fn is_blank(&self) -> bool {
        self.whole.len() == self.ending.len()
    }
}

struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let length = match self.rest[0] {
            b'\n' | b'\r' => 0,
            _ => memchr2(b'\n', b'\r', self.rest).unwrap_or(self.rest.len()),
        };
        let ending_length = match &self.rest[length..] {
            [] => 0,
            [b'\r', b'\n', ..] => 2,
            _ => 1,
        };
        let (whole, behind) = self.rest.split_at(length + ending_length);
        self.rest = behind;
        let (text, ending) = whole.split_at(length);
        // The colon is near the start, if there is one.
        let (name, value) = match text.iter().position(|byte| *byte == b':') {
            Some(colon) => (&text[..colon], &text[colon + 1..]),
            None => (text, &text[text.len()..]),
        };
        Some(Line {
            name,
            value: value.strip_prefix(b" ").unwrap_or(value),
            is_comment: text.starts_with(b":"),
            ending,
            whole,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(raw: &'static str) -> SseEvent {
        SseEvent::from_raw(Bytes::from_static(raw.as_bytes()))
    }

    #[test]
    fn fields_follow_the_grammar() {
        let read = event("event: a\nevent:b\nid: 7\ndata:  x\ndata\ndata:y\n: c\nfoo: 1\n\n");
        assert_eq!(read.event(), Some("b"));
        assert_eq!(read.id(), Some("7"));
        assert_eq!(read.data().as_deref(), Some(" x\n\ny"));
        assert_eq!(read.comments().collect::<Vec<_>>(), [b"c"]);
        assert_eq!(read.field("foo"), Some("1"));
        assert_eq!(
            event("data: a\r\ndata: b\rdata: c\n\n").data().as_deref(),
            Some("a\nb\nc")
        );
    }

    #[test]
    fn one_line_of_data_is_borrowed() {
        let read = event("event: e\ndata: {\"a\":1}\n\n");
        assert!(matches!(read.data(), Some(Cow::Borrowed("{\"a\":1}"))));
        assert_eq!(read.data_bytes().unwrap().as_ptr(), read.raw()[15..].as_ptr());
        assert_eq!(event("data:\n\n").data_bytes().unwrap(), "");
    }

    #[test]
    fn a_comment_has_no_data() {
        for raw in [": keep-alive\n\n", "\n", ":\n\n", "event: x\n\n"] {
            assert_eq!(event(raw).data(), None, "{raw:?}");
            assert_eq!(event(raw).json(), None);
            assert!(!event(raw).is_done());
        }
    }

    #[test]
    fn done_is_done_with_any_spelling_of_the_line() {
        assert!(SseEvent::done().is_done());
        assert!(event("data:[DONE]\r\n\r\n").is_done());
        assert!(event(": x\ndata: [DONE] \n\n").is_done());
        assert!(!event("data: \"[DONE]\"\n\n").is_done());
    }

    #[test]
    fn json_is_parsed_once_or_not_at_all() {
        let read = event("data: {\"a\":[1]}\n\n");
        assert_eq!(read.json(), Some(&json!({"a": [1]})));
        assert!(std::ptr::eq(read.json().unwrap(), read.json().unwrap()));
        assert_eq!(event("data: {\"a\":\n\n").json(), None);
        assert_eq!(
            event("data: {\"a\":\ndata: 1}\n\n").json(),
            Some(&json!({"a": 1}))
        );
    }

    #[test]
    fn scalars_are_read_without_a_tree() {
        let read = event("data: {\"choices\":[{\"delta\":{\"content\":\"a\\n\"}}]}\n\n");
        let content = read.get("choices.0.delta.content").unwrap();
        assert_eq!(content.text(), "a\n");
        assert!(matches!(content.into_raw(), Cow::Borrowed(_)));
        assert_eq!(read.get("usage.total_tokens"), None);
        assert_eq!(event("data: {\"a\":\ndata: 7}\n\n").get("a").unwrap().int(), 7);
        assert_eq!(event(": {\"a\":1}\n\n").get("a"), None);
        assert!(read.json.get().is_none());
    }

    #[test]
    fn made_events_read_as_they_were_made() {
        assert_eq!(SseEvent::from_data("x").raw(), b"data: x\n\n");
        assert_eq!(
            SseEvent::from_data("a\nb\r\nc\rd").raw(),
            b"data: a\ndata: b\ndata: c\ndata: d\n\n"
        );
        assert_eq!(SseEvent::named("stop", "{}").raw(), b"event: stop\ndata: {}\n\n");
        assert_eq!(SseEvent::comment("ping").raw(), b": ping\n\n");
        let made = SseEvent::from_json(json!({"b": 1, "a": "\n"}));
        assert_eq!(made.raw(), b"data: {\"b\":1,\"a\":\"\\n\"}\n\n");
        assert_eq!(made.json().unwrap()["a"], "\n");
    }

    #[test]
    fn other_data_leaves_the_rest_alone() {
        let read = event(": c\r\nid: 1\r\ndata: a\r\ndata: b\r\nevent: e\r\n\r\n");
        assert_eq!(
            read.with_data("x\ny").raw(),
            b": c\r\nid: 1\r\ndata: x\r\ndata: y\r\nevent: e\r\n\r\n"
        );
        assert_eq!(event("id: 1\n\n").with_data("x").raw(), b"id: 1\ndata: x\n\n");
        let cut = event("data: a").mark_incomplete(true).with_json(json!(1));
        assert_eq!((cut.raw(), cut.is_incomplete()), (&b"data: 1\n"[..], true));
    }

    #[test]
    fn bytes_that_are_not_text_are_replaced_in_data_only() {
        let read = SseEvent::from_raw(Bytes::from_static(b"data: \xff\n\n"));
        assert_eq!(read.data().as_deref(), Some("\u{fffd}"));
        assert_eq!(read.raw(), b"data: \xff\n\n");
    }
}
