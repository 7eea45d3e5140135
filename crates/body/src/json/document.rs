//! `JsonDocument`: a JSON body as plugins share it, parsed at most once and written at most once.
//!
//! Nothing changed: the very bytes that came. Fields set or removed: a splice. The tree changed: written anew, with
//! keys in their order. Numbers beyond 64 bits keep their spelling only until the tree is changed.

use std::borrow::Cow;
use std::cell::OnceCell;

use bytes::Bytes;
use serde_json::Value;

use super::scan::{self, Kind, Limits};
use super::string::unescape;
use super::text::{Text, quoted};
use super::{JsonError, PathError, setter};
use crate::path::{self, Member, Path, PathValue};

/// A JSON text, its edits and its tree. At least one of text and tree is there; when both are, they say the same.
#[derive(Debug)]
pub struct JsonDocument {
    text: OnceCell<Text>,
    tree: OnceCell<Value>,
    /// What an edited text or a tree is written as, once somebody asked.
    written: OnceCell<Bytes>,
    changed: bool,
}

impl JsonDocument {
    /// Checks the whole text, which may be any JSON value; builds nothing.
    ///
    /// # Errors
    /// The place where it is not JSON, nests deeper than 127 or has more than 100,000 outermost members.
    pub fn parse(bytes: Bytes) -> Result<Self, JsonError> {
        Ok(Self {
            text: OnceCell::from(Text::parse(bytes, Limits::FOREIGN)?),
            tree: OnceCell::new(),
            written: OnceCell::new(),
            changed: false,
        })
    }

    /// A document that we made ourselves.
    #[must_use]
    pub fn from_value(value: Value) -> Self {
        Self {
            text: OnceCell::new(),
            tree: OnceCell::from(value),
            written: OnceCell::new(),
            changed: true,
        }
    }

    /// Whether the outermost value is an object. Where it is not, the getters find nothing.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.text().kind() == Kind::Object
    }

    /// Whether anything was set or removed, or the tree was lent out for changes.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// The keys of the object in order, escapes read; a key that stands twice comes twice.
    pub fn keys(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.text().keys().map(unescape)
    }

    /// All members in order, keys without their escapes; a key that stands twice comes twice, and counts as its last.
    pub fn members(&self) -> impl Iterator<Item = (Cow<'_, [u8]>, Member<'_>)> {
        self.text().members().map(|(key, value)| (key, Member::of(value)))
    }

    /// A member's value as it is written. Of members with the same key the last counts.
    #[must_use]
    pub fn raw(&self, key: &str) -> Option<&str> {
        self.text().raw(key)
    }

    /// The same as bytes, for a look at them alone: they are not made sure to be text once more.
    #[must_use]
    pub fn raw_bytes(&self, key: &str) -> Option<&[u8]> {
        self.text().raw_bytes(key)
    }

    /// Whether the object has the member, even as `null`.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.text().contains(key)
    }

    /// A member that is a string; borrowed unless it has escapes.
    #[must_use]
    pub fn get_str(&self, key: &str) -> Option<Cow<'_, str>> {
        let inner = self.raw(key)?.strip_prefix('"')?.strip_suffix('"')?;
        Some(unescape(inner))
    }

    /// A member that is `true` or `false`.
    #[must_use]
    pub fn get_bool(&self, key: &str) -> Option<bool> {
        match self.raw(key)? {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    /// A member that is an integer.
    #[must_use]
    pub fn get_i64(&self, key: &str) -> Option<i64> {
        self.raw(key)?.parse().ok()
    }

    /// A member that is a number.
    #[must_use]
    pub fn get_f64(&self, key: &str) -> Option<f64> {
        let raw = self.raw(key)?;
        // Rust would also read `inf`; JSON has no such word, so a first letter suffices to tell.
        raw.starts_with(|first: char| first == '-' || first.is_ascii_digit())
            .then(|| raw.parse().ok())?
    }

    /// What a gjson path leads to. The first key of a plain path counts as in [`JsonDocument::raw`]; for the rest
    /// gjson's own rule holds, the first of the same keys.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<PathValue<'_>> {
        // What is not plain begins with a byte that is not either, so that the cut is one between characters.
        let length = path
            .bytes()
            .position(|byte| !is_plain(byte))
            .unwrap_or(path.len());
        let (key, behind) = path.split_at(length);
        if self.is_object() && !key.is_empty() {
            match behind.strip_prefix('.') {
                None if behind.is_empty() => return path::get_whole(self.raw(key)?),
                // The start of another language than that of keys needs its surroundings.
                Some(rest) if !rest.starts_with(['.', '!']) => {
                    match self.raw(key) {
                        Some(inner) if inner.starts_with(['{', '[']) => return path::get(inner, rest),
                        // Keys alone lead nowhere from here; anything else may make a value out of nothing.
                        None if rest.bytes().all(|next| is_plain(next) || next == b'.') => return None,
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        path::get(self.as_str(), path)
    }

    /// What a compiled path leads to; it finds what [`JsonDocument::get`] finds.
    #[must_use]
    pub fn find(&self, path: &Path) -> Option<PathValue<'_>> {
        if let Some(key) = path.first_key().filter(|_| self.is_object()) {
            match self.raw(key) {
                Some(value) => {
                    if let Some(found) = path.behind_first_key(value) {
                        return found;
                    }
                }
                None if path.is_keys() => return None,
                None => {}
            }
        }
        self.get(path.as_str())
    }

    /// Writes JSON at an sjson path (`model`, `stream_options.include_usage`, `messages.-1`, `a\.b`); what is missing
    /// on the way is made.
    ///
    /// # Errors
    /// `json` is not JSON, the path is empty or not simple, or it goes through an array with a key.
    pub fn set_raw(&mut self, path: &str, json: impl Into<Bytes>) -> Result<(), PathError> {
        let value: Bytes = json.into();
        if let Err(error) = std::str::from_utf8(&value) {
            return Err(PathError::new(format!("value for {path}: {error}")));
        }
        if let Err(error) = scan::index(&value, Limits::NONE) {
            return Err(PathError::new(format!("value for {path}: {error}")));
        }
        self.edit_text(path, |text, steps| text.set(steps, value))
    }

    /// Writes a string.
    ///
    /// # Errors
    /// As [`JsonDocument::set_raw`], for the path.
    pub fn set_str(&mut self, path: &str, value: &str) -> Result<(), PathError> {
        let json = Bytes::from(quoted(value));
        self.edit_text(path, |text, steps| text.set(steps, json))
    }

    /// Writes a value.
    ///
    /// # Errors
    /// As [`JsonDocument::set_raw`], for the path.
    pub fn set(&mut self, path: &str, value: impl Into<Value>) -> Result<(), PathError> {
        let json = Bytes::from(value.into().to_string());
        self.edit_text(path, |text, steps| text.set(steps, json))
    }

    /// Removes what an sjson path leads to; `messages.-1` is the last element. False when it was not there.
    ///
    /// # Errors
    /// The path is empty or not simple.
    pub fn remove(&mut self, path: &str) -> Result<bool, PathError> {
        self.edit_text(path, |text, steps| text.remove(steps))
    }

    fn edit_text<T>(
        &mut self,
        path: &str,
        edit: impl FnOnce(&mut Text, &[setter::Step<'_>]) -> Result<T, PathError>,
    ) -> Result<T, PathError> {
        let Some(steps) = setter::parse(path)? else {
            return Err(PathError::new(format!("path {path} names no single place")));
        };
        self.text();
        let Some(text) = self.text.get_mut() else {
            return Err(PathError::new("document has no text"));
        };
        let outcome = edit(text, &steps)?;
        self.tree.take();
        self.written.take();
        self.changed = true;
        Ok(outcome)
    }

    /// The tree, built at the first call.
    ///
    /// # Errors
    /// A number that no double can hold, or half a surrogate pair in a string: valid JSON that has no tree.
    pub fn value(&self) -> Result<&Value, JsonError> {
        if self.tree.get().is_none() {
            let parsed = parse_tree(&self.to_bytes())?;
            // Nobody else can have set it since.
            drop(self.tree.set(parsed));
        }
        self.tree.get().ok_or_else(|| JsonError::new(0, "no value"))
    }

    /// The tree to change; afterwards the document is written anew from it, once.
    ///
    /// # Errors
    /// As [`JsonDocument::value`].
    pub fn value_mut(&mut self) -> Result<&mut Value, JsonError> {
        self.value()?;
        self.text.take();
        self.written.take();
        self.changed = true;
        self.tree.get_mut().ok_or_else(|| JsonError::new(0, "no value"))
    }

    /// The bytes to send: the original's own memory when nothing was changed, else written once until the next change.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        if let Some(original) = self.text.get().and_then(Text::unedited) {
            return original.clone();
        }
        self.written().clone()
    }

    /// The bytes to send.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.to_bytes()
    }

    /// The original bytes, as long as nothing was changed.
    #[must_use]
    pub fn unchanged_bytes(&self) -> Option<&Bytes> {
        self.text.get().filter(|_| !self.changed).and_then(Text::unedited)
    }

    /// The text as it would be sent now.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let bytes = match self.text.get().and_then(Text::unedited) {
            Some(original) => original,
            None => self.written(),
        };
        // It was checked when it was taken in.
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    fn written(&self) -> &Bytes {
        self.written
            .get_or_init(|| match (self.text.get(), self.tree.get()) {
                (Some(text), _) => text.to_bytes(),
                (None, tree) => Bytes::from(tree.unwrap_or(&Value::Null).to_string()),
            })
    }

    #[inline]
    fn text(&self) -> &Text {
        self.text
            .get_or_init(|| Text::parse(self.to_bytes(), Limits::NONE).unwrap_or_else(|_| Text::null()))
    }
}

/// What can stand in a path without meaning anything but itself.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

fn parse_tree(text: &[u8]) -> Result<Value, JsonError> {
    serde_json::from_slice(text).map_err(|error| {
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        let before: usize = lines.take(error.line().saturating_sub(1)).map(<[u8]>::len).sum();
        let message = if error.to_string().starts_with("number out of range") {
            "number out of range"
        } else {
            "string without a meaning"
        };
        JsonError::new(before + error.column(), message)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn document(text: &str) -> JsonDocument {
        JsonDocument::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    fn written(document: &JsonDocument) -> String {
        String::from_utf8(document.to_bytes().to_vec()).unwrap()
    }

    #[test]
    fn members_are_read_where_they_lie() {
        let read = document(
            r#"{"model":"qwen","e":"a\n\u00e9","stream":true,"n":-3,"f":1.5e1,"z":null,"k\u0065y":[1, 2],"":0}"#,
        );
        assert_eq!(read.get_str("model"), Some(Cow::Borrowed("qwen")));
        assert_eq!(read.get_str("e").as_deref(), Some("a\né"));
        assert_eq!(read.get_bool("stream"), Some(true));
        assert_eq!((read.get_i64("n"), read.get_f64("f")), (Some(-3), Some(15.0)));
        assert_eq!(
            (read.get_i64("f"), read.get_f64("model"), read.get_str("n")),
            (None, None, None)
        );
        assert_eq!(read.raw("key"), Some("[1, 2]"));
        assert!(read.contains("z") && read.contains("") && !read.contains("none"));
        assert_eq!(read.keys().last().as_deref(), Some(""));
        for other in ["[{\"model\":1}]", "\"model\"", "1"] {
            let read = document(other);
            assert_eq!(
                (read.is_object(), read.raw("model"), read.keys().count()),
                (false, None, 0)
            );
        }
    }

    #[test]
    fn untouched_bytes_leave_as_they_came() {
        let original = Bytes::from_static(b" { \"a\" : 1.50 , \"a\":12345678901234567890 }\n");
        let read = JsonDocument::parse(original.clone()).unwrap();
        assert_eq!(read.get_i64("a"), None);
        read.value().unwrap();
        assert!(!read.is_changed());
        assert_eq!(read.into_bytes().as_ptr(), original.as_ptr());
    }

    #[test]
    fn only_what_was_set_differs() {
        for (text, path, json, expected) in [
            (r#"{ "a" : 1 , "z":2 }"#, "a", "3", r#"{ "a" : 3 , "z":2 }"#),
            ("{ \"a\" : 1.50 }\n", "b", "[]", "{ \"a\" : 1.50 ,\"b\":[]}\n"),
            ("{ }", "b", "1", "{ \"b\":1}"),
            ("{}", "x.y", "1", r#"{"x":{"y":1}}"#),
            ("{}", "x.2", "1", r#"{"x":[null,null,1]}"#),
            ("{}", "x.:0", "1", r#"{"x":{"0":1}}"#),
            ("{}", "x.-1.y", "1", r#"{"x":[{"y":1}]}"#),
            (r#"{"a":[1, 2]}"#, "a.-1", "3", r#"{"a":[1, 2,3]}"#),
            (r#"{"a":[1, 2]}"#, "a.1", "3", r#"{"a":[1, 3]}"#),
            (r#"{"a":[1, 2]}"#, "a.3", "4", r#"{"a":[1, 2,null,4]}"#),
            (
                r#"{"a":[ {"b": 1 } ]}"#,
                "a.0.b",
                "{\"c\": 2}",
                r#"{"a":[ {"b": {"c": 2} } ]}"#,
            ),
            (r#"{"a":"text"}"#, "a.b", "1", r#"{"a":{"b":1}}"#),
            (r#"{"a.b":1}"#, r"a\.b", "2", r#"{"a.b":2}"#),
            ("7", "model", "\"\"", r#"{"model":""}"#),
            ("[]", "0", "1", "[1]"),
            (r#"{"k\u0065y":1}"#, "key", "2", r#"{"k\u0065y":2}"#),
        ] {
            let mut edited = document(text);
            edited.set_raw(path, json.to_owned()).unwrap();
            assert_eq!(written(&edited), expected, "{path} in {text}");
        }
    }

    #[test]
    fn edits_add_up() {
        let mut edited = document(r#"{"a":1, "b":2, "c":3}"#);
        edited.set_str("model", "a\"b").unwrap();
        edited.set("b", json!({"x": [1.5]})).unwrap();
        edited.set("b.x.0", 2).unwrap();
        assert_eq!(edited.raw("b"), Some(r#"{"x":[2]}"#));
        assert_eq!(edited.get_str("model").as_deref(), Some("a\"b"));
        assert!(edited.remove("a").unwrap());
        assert!(!edited.contains("a"));
        edited.set("a", true).unwrap();
        assert!(edited.remove("model").unwrap());
        assert_eq!(written(&edited), r#"{"b":{"x":[2]}, "c":3,"a":true}"#);
        assert_eq!(
            edited.value().unwrap(),
            &json!({"b": {"x": [2]}, "c": 3, "a": true})
        );
    }

    #[test]
    fn what_is_removed_takes_its_comma_along() {
        for (text, path, expected) in [
            (r#"{"a":1, "b":2 ,"c":3}"#, "a", r#"{"b":2 ,"c":3}"#),
            (r#"{"a":1, "b":2 ,"c":3}"#, "b", r#"{"a":1 ,"c":3}"#),
            (r#"{"a":1, "b":2 ,"c":3}"#, "c", r#"{"a":1, "b":2}"#),
            (r#"{"a":1}"#, "a", "{}"),
            (r#"{"a":[1,2,3]}"#, "a.1", r#"{"a":[1,3]}"#),
            (r#"{"a":[1,2,3]}"#, "a.-1", r#"{"a":[1,2]}"#),
            (r#"{"a":{"b":1}}"#, "a.b", r#"{"a":{}}"#),
        ] {
            let mut edited = document(text);
            assert!(edited.remove(path).unwrap());
            assert_eq!(written(&edited), expected, "{path} in {text}");
        }
        let mut edited = document(r#"{"a":[]}"#);
        for path in ["b", "a.0", "a.-1", "a.b.c"] {
            assert!(!edited.remove(path).unwrap(), "{path}");
        }
        assert_eq!(written(&edited), r#"{"a":[]}"#);
    }

    #[test]
    fn of_a_key_that_stands_twice_the_last_counts_and_a_change_leaves_one() {
        let text = r#"{"model":"a","x":1,"mod\u0065l":"b"}"#;
        let mut edited = document(text);
        assert_eq!(edited.get_str("model").as_deref(), Some("b"));
        assert_eq!(edited.value().unwrap()["model"], "b");
        assert_eq!(written(&edited), text);
        edited.set_str("model", "c").unwrap();
        assert_eq!(written(&edited), r#"{"x":1,"mod\u0065l":"c"}"#);
        let mut removed = document(text);
        removed.remove("model").unwrap();
        assert_eq!(written(&removed), r#"{"x":1}"#);
    }

    #[test]
    fn paths_are_followed_in_what_was_edited() {
        let mut edited =
            document(r#"{"model":"a","messages":[{"role":"user"}],"a.b":1,"s":"{\"x\":1}","model":"b"}"#);
        for (path, expected) in [
            ("model", Some("b")),
            ("messages.0.role", Some("user")),
            ("messages.-1.role", Some("user")),
            ("messages.#", Some("1")),
            ("messages.@reverse.0.role", Some("user")),
            ("messages.{\"n\":#}", Some(r#"{"n":1}"#)),
            ("{messages.#}", Some(r#"{"_":1}"#)),
            (r"a\.b", Some("1")),
            ("s.x", None),
            ("s.@fromstr.x", Some("1")),
            ("s|@fromstr|x", Some("1")),
            ("none", None),
            ("none.x", None),
            ("none.@keys", Some("[]")),
            ("m*l", Some("a")),
            ("messages.!true", None),
            ("messages...0", None),
            ("", None),
        ] {
            assert_eq!(
                edited.get(path).map(|value| value.text().into_owned()).as_deref(),
                expected,
                "{path}"
            );
            assert_eq!(edited.find(&Path::new(path)), edited.get(path), "{path}");
        }
        edited.set("messages.0.role", "system").unwrap();
        assert_eq!(edited.get("messages.0.role").unwrap().text(), "system");
        assert_eq!(edited.get("@this.messages.0.role").unwrap().text(), "system");
        edited.value_mut().unwrap()["model"] = json!("c");
        assert_eq!(edited.get("mode?").unwrap().text(), "c");
        assert_eq!(document("[[1,2]]").get("0.1").unwrap().int(), 2);
    }

    #[test]
    fn a_changed_tree_is_written_anew_and_can_be_edited_further() {
        let mut edited = document(r#"{ "b":1, "a":{"é":2.0} }"#);
        edited.value_mut().unwrap()["b"] = json!("x");
        assert_eq!(edited.get_str("b").as_deref(), Some("x"));
        edited.set("c", 1).unwrap();
        edited.value_mut().unwrap()["c"] = json!(2);
        assert_eq!(written(&edited), r#"{"b":"x","a":{"é":2.0},"c":2}"#);
        assert_eq!(written(&JsonDocument::from_value(json!([1]))), "[1]");
    }

    #[test]
    fn bad_edits_are_refused_and_change_nothing() {
        let mut edited = document(r#"{"a":[1]}"#);
        for (path, json) in [
            ("", "1"),
            ("a.#.b", "1"),
            ("a.x", "1"),
            ("a.10002", "1"),
            ("b.10001", "1"),
            ("b", "{"),
            ("b", "1 2"),
            ("b", ""),
        ] {
            assert!(edited.set_raw(path, json).is_err(), "{path} = {json}");
        }
        assert!(edited.set_raw("b", &b"\"\xff\""[..]).is_err());
        assert!(edited.remove("").is_err());
        let error = edited.set("a.x", 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot set array element for non-numeric key 'x'"
        );
        assert!(!edited.is_changed());
        assert_eq!(written(&edited), r#"{"a":[1]}"#);
    }

    #[test]
    fn what_has_no_tree_says_where() {
        let large = document("{\"a\":1,\n\"b\":1e999}");
        assert_eq!(large.get_f64("b"), Some(f64::INFINITY));
        let error = large.value().unwrap_err();
        assert_eq!(error.message(), "number out of range");
        assert!((13..=18).contains(&error.offset()), "{error}");
        assert!(document(r#""\ud800""#).value().is_err());
        assert_eq!(
            JsonDocument::parse(Bytes::from_static(b"{\"a\":\"\xff\"}")).unwrap_err(),
            JsonError::new(6, "invalid UTF-8")
        );
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_the_bytes(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(read) = JsonDocument::parse(Bytes::from(bytes.clone())) {
                prop_assert_eq!(read.into_bytes(), bytes);
            }
        }

        #[test]
        fn editing_text_does_what_editing_the_tree_would(
            keys in prop::collection::vec("[abc]", 0..5),
            edits in prop::collection::vec(("[abcd]", any::<Option<u8>>()), 0..6),
            space in "[ \n]{0,2}",
        ) {
            let members: Vec<_> = keys.iter().enumerate().map(|(i, key)| format!("{space}\"{key}\"{space}:{i}{space}")).collect();
            let mut edited = document(&format!("{{{space}{}}}{space}", members.join(",")));
            let mut expected: serde_json::Map<_, _> = keys.iter().cloned().zip((0..).map(|i: i32| json!(i))).collect();
            for (key, value) in edits {
                match value {
                    Some(number) => {
                        edited.set(&key, number).unwrap();
                        expected.insert(key, json!(number));
                    }
                    None => {
                        let was_there = expected.remove(&key).is_some();
                        prop_assert_eq!(edited.remove(&key).unwrap(), was_there);
                    }
                }
            }
            let text = written(&edited);
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), Value::Object(expected), "{}", text);
        }
    }
}
