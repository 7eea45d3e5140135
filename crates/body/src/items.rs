//! `Items`: cuts a JSON array that grows while it arrives into its elements, each as soon as it is whole.
//!
//! Gemini streams such an array where it is not asked for events. The cuts depend on the bytes alone, never on the
//! frames; an element is copied only when it lies in several of them. Nothing is checked that finding an element's end
//! does not need, and an element beyond the limit passes unseen: what is kept is bounded, whatever comes.

use memchr::memchr2;

use crate::DEFAULT_EVENT_LIMIT;

/// Incremental reader of one array.
#[derive(Debug)]
pub struct Items {
    form: Form,
    /// Brackets that are open.
    depth: usize,
    in_string: bool,
    /// The last byte was a backslash in a string: the next one ends nothing.
    is_escaped: bool,
    /// What came of the current element in earlier frames.
    earlier: Vec<u8>,
    /// The current element is beyond the limit.
    is_too_long: bool,
    limit: usize,
}

/// What the text has turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Nothing but blanks so far.
    Unknown,
    Array,
    /// An object by itself: its own only element.
    Object,
    /// Neither: nothing of it is read.
    Other,
}

impl Form {
    /// Brackets that are open around an element.
    fn around(self) -> usize {
        usize::from(self == Self::Array)
    }
}

impl Default for Items {
    fn default() -> Self {
        Self::with_limit(DEFAULT_EVENT_LIMIT)
    }
}

impl Items {
    /// Shows elements of at most `limit` bytes.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self {
            form: Form::Unknown,
            depth: 0,
            in_string: false,
            is_escaped: false,
            earlier: Vec::new(),
            is_too_long: false,
            limit,
        }
    }

    /// Takes the next bytes in and shows the elements that end in them. Objects and arrays alone are shown.
    pub fn push(&mut self, bytes: &[u8], mut show: impl FnMut(&[u8])) {
        let mut begun = 0;
        let mut at = 0;
        while let Some(place) = self.next_mark(bytes, at) {
            at = place + 1;
            match bytes.get(place) {
                Some(b'[' | b'{') => {
                    if self.depth == self.form.around() {
                        begun = place;
                    }
                    self.depth += 1;
                }
                Some(b']' | b'}') if self.depth > 0 => {
                    self.depth -= 1;
                    if self.depth == self.form.around() && !self.is_over() {
                        self.end(bytes.get(begun..at).unwrap_or_default(), &mut show);
                        begun = at;
                    }
                }
                _ => {}
            }
        }
        if self.is_within() {
            self.keep(bytes.get(begun..).unwrap_or_default());
        }
    }

    /// Whether the text is whole: its outermost bracket is closed, or it is nothing that is read here.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        match self.form {
            Form::Unknown => false,
            Form::Array | Form::Object => self.depth == 0,
            Form::Other => true,
        }
    }

    /// The array has been closed: what follows is none of its elements.
    fn is_over(&self) -> bool {
        self.form == Form::Array && self.depth == 0
    }

    fn is_within(&self) -> bool {
        self.depth > self.form.around()
    }

    /// The place of the next bracket from `from` on that is no part of a string.
    fn next_mark(&mut self, bytes: &[u8], from: usize) -> Option<usize> {
        let mut at = from;
        if self.form == Form::Unknown {
            at += bytes
                .get(at..)?
                .iter()
                .position(|byte| !byte.is_ascii_whitespace())?;
            self.form = match bytes.get(at)? {
                // Its own bracket is no element's.
                b'[' => {
                    self.depth = 1;
                    at += 1;
                    Form::Array
                }
                b'{' => Form::Object,
                _ => Form::Other,
            };
        }
        if self.form == Form::Other || self.is_over() {
            return None;
        }
        loop {
            if self.in_string {
                at = self.string_end(bytes, at)?;
            }
            let rest = bytes.get(at..)?;
            at += rest
                .iter()
                .position(|byte| matches!(byte, b'"' | b'[' | b']' | b'{' | b'}'))?;
            if bytes.get(at) != Some(&b'"') {
                return Some(at);
            }
            self.in_string = true;
            at += 1;
        }
    }

    /// The place behind the quote that ends the current string.
    fn string_end(&mut self, bytes: &[u8], from: usize) -> Option<usize> {
        let mut at = from;
        if self.is_escaped && at < bytes.len() {
            self.is_escaped = false;
            at += 1;
        }
        loop {
            at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
            if bytes.get(at) == Some(&b'"') {
                self.in_string = false;
                return Some(at + 1);
            }
            self.is_escaped = at + 1 == bytes.len();
            at += 2;
        }
    }

    /// An element ends with these bytes.
    fn end(&mut self, last: &[u8], show: &mut impl FnMut(&[u8])) {
        let length = self.earlier.len() + last.len();
        if std::mem::take(&mut self.is_too_long) || length > self.limit {
            self.earlier = Vec::new();
        } else if self.earlier.is_empty() {
            show(last);
        } else {
            self.earlier.extend_from_slice(last);
            show(&self.earlier);
            self.earlier.clear();
        }
    }

    /// These bytes are a part of the current element, and not its last.
    fn keep(&mut self, part: &[u8]) {
        if self.is_too_long || self.earlier.len() + part.len() > self.limit {
            self.is_too_long = true;
            self.earlier = Vec::new();
        } else {
            self.earlier.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The elements of a text in pieces of this size, and whether it is whole.
    fn read(text: &str, size: usize) -> (Vec<String>, bool) {
        let (mut items, mut shown) = (Items::default(), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            items.push(piece, |item| {
                shown.push(String::from_utf8(item.to_vec()).unwrap())
            });
        }
        (shown, items.is_whole())
    }

    #[test]
    fn elements_come_out_wherever_the_text_is_cut() {
        let text = "\r\n[{\n  \"a\": \"]}\\\"[{\\\\\"\n}\n,\r\n{\"b\":[{},[]]} , \"x]\" , 5,\n[1]\n]\n";
        let expected = ["{\n  \"a\": \"]}\\\"[{\\\\\"\n}", "{\"b\":[{},[]]}", "[1]"];
        for size in 1..=text.len() {
            let (shown, is_whole) = read(text, size);
            assert_eq!(shown, expected, "{size}");
            assert!(is_whole, "{size}");
        }
    }

    #[test]
    fn what_is_cut_is_not_whole() {
        let text = "[{\"a\":\"]\\\"\"},{\"b\":1}]";
        for end in 0..text.len() {
            assert!(!read(&text[..end], 3).1, "{end}");
        }
        // What follows the end changes nothing.
        for more in ["]", "}", "{\"c\":1}", "[", "\""] {
            let (shown, is_whole) = read(&format!("{text}{more}"), 4);
            assert_eq!((shown.len(), is_whole), (2, true), "{more}");
        }
    }

    #[test]
    fn an_object_is_its_own_element_and_nothing_else_is_read() {
        assert_eq!(read(" {\"a\":{}}\n", 2), (vec!["{\"a\":{}}".to_owned()], true));
        assert_eq!(read("{\"a\":{}", 2), (Vec::new(), false));
        for other in ["data: {\"a\":1}", "\"[{}]\"", "<html>[{}]</html>", "]"] {
            assert_eq!(read(other, 2), (Vec::new(), true), "{other}");
        }
        assert_eq!(read("[]", 1), (Vec::new(), true));
        assert_eq!(read("", 1), (Vec::new(), false));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (mut items, mut shown) = (Items::with_limit(10), Vec::new());
        for piece in [
            "[{\"a\":1}",
            ",{\"a\":",
            "1234567",
            "8901234567",
            "}",
            ",{\"b\"",
            ":2}",
            ",{\"a\":12345678}",
            ",{}]",
        ] {
            items.push(piece.as_bytes(), |item| {
                shown.push(String::from_utf8(item.to_vec()).unwrap());
            });
            assert!(items.earlier.capacity() <= 16, "{piece}");
        }
        assert_eq!(shown, ["{\"a\":1}", "{\"b\":2}", "{}"]);
        assert!(items.is_whole());
    }

    proptest! {
        #[test]
        fn elements_are_those_of_a_parser(
            values in prop::collection::vec(prop::collection::btree_map("[a\"\\\\\\[{]{0,3}", "[b\"\\\\\\]},]{0,9}", 0..3), 0..5),
            size in 1_usize..40,
            pretty in any::<bool>(),
        ) {
            let text = match pretty {
                true => serde_json::to_string_pretty(&values).unwrap(),
                false => serde_json::to_string(&values).unwrap(),
            };
            let (shown, is_whole) = read(&text, size);
            prop_assert!(is_whole);
            let read: Vec<std::collections::BTreeMap<String, String>> =
                shown.iter().map(|item| serde_json::from_str(item).unwrap()).collect();
            prop_assert_eq!(read, values);
        }
    }
}
