//! `@pretty` and `@ugly`: the same JSON with other white space.

use std::borrow::Cow;

use super::value::{PathValue, ValueKind};
use super::{DEPTH_LIMIT, lex};

/// Without white space between the values.
pub(super) fn ugly<'t>(text: &'t str, _: &str) -> Cow<'t, str> {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let (mut at, mut kept_from) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        let next = match byte {
            b'"' => lex::string_end(bytes, at + 1).unwrap_or(bytes.len()),
            _ => at + 1,
        };
        if *byte <= b' ' {
            out.push_str(&text[kept_from..at]);
            kept_from = next;
        }
        at = next;
    }
    out.push_str(&text[kept_from..]);
    Cow::Owned(out)
}

/// A member a line; an array in one line where that is short enough and holds no object. The argument may set
/// `indent`, `prefix`, `width` and `sortKeys`.
pub(super) fn pretty<'t>(text: &'t str, argument: &str) -> Cow<'t, str> {
    let mut layout = Layout {
        indent: "  ".to_owned(),
        prefix: String::new(),
        width: 80,
        sort_keys: false,
    };
    let options = PathValue::parse(Cow::Borrowed(argument));
    for (key, value) in options.iter().flat_map(PathValue::entries) {
        match key.as_ref().map(PathValue::text).as_deref() {
            Some("sortKeys") => layout.sort_keys = value.bool(),
            Some("indent") => layout.indent = white_space(&value.text()),
            Some("prefix") => layout.prefix = white_space(&value.text()),
            Some("width") => layout.width = value.int(),
            _ => {}
        }
    }
    let Some(value) = PathValue::parse(Cow::Borrowed(text)) else {
        return Cow::Borrowed("");
    };
    let mut page = Page {
        out: layout.prefix.clone(),
        line_start: 0,
        layout,
    };
    page.value(&value, 0);
    page.out.push('\n');
    Cow::Owned(page.out)
}

fn white_space(text: &str) -> String {
    text.chars()
        .filter(|character| " \t\n\r".contains(*character))
        .collect()
}

struct Layout {
    indent: String,
    prefix: String,
    /// Columns for an array in one line; 0 or less never puts one in a line.
    width: i64,
    sort_keys: bool,
}

struct Page {
    out: String,
    line_start: usize,
    layout: Layout,
}

impl Page {
    fn value(&mut self, value: &PathValue<'_>, depth: usize) {
        if value.kind() != ValueKind::Json || depth > DEPTH_LIMIT {
            self.out.push_str(value.raw());
            return;
        }
        let is_array = value.is_array();
        if is_array && self.layout.width > 0 {
            let used = i64::try_from(self.out.len() - self.line_start).unwrap_or(i64::MAX);
            let room = usize::try_from(self.layout.width.min(LONGEST_LINE) - used).unwrap_or(0);
            if room > 3
                && let Some(line) = one_line(value, room)
            {
                self.out.push_str(&line);
                return;
            }
        }
        self.out.push(if is_array { '[' } else { '{' });
        let mut members: Vec<_> = value.entries().collect();
        if self.layout.sort_keys && !is_array {
            members.sort_by_cached_key(|member| member.0.as_ref().map(|key| key.text().into_owned()));
        }
        for (index, (key, inner)) in members.iter().enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            // Columns count from the line end where one was put behind a comma of an object, as in the original.
            self.line_start = self.out.len() + usize::from(is_array && index > 0);
            self.out.push('\n');
            self.indent(depth + 1);
            if let Some(key) = key {
                self.out.push_str(key.raw());
                self.out.push_str(": ");
            }
            self.value(inner, depth + 1);
        }
        if !members.is_empty() {
            self.line_start = self.out.len();
            self.out.push('\n');
            self.indent(depth);
        }
        self.out.push(if is_array { ']' } else { '}' });
    }

    fn indent(&mut self, depth: usize) {
        self.out.push_str(&self.layout.prefix);
        for _ in 0..depth {
            self.out.push_str(&self.layout.indent);
        }
    }
}

/// Wider lines than this are not tried; it also bounds how deep [`one_line`] goes.
const LONGEST_LINE: i64 = 1000;

/// An array in one line of at most `room` bytes, if it holds no object.
fn one_line(array: &PathValue<'_>, room: usize) -> Option<String> {
    // It cannot be shorter than what is not white space; most arrays are seen to be too long here.
    let solid = array.raw().bytes().filter(|byte| *byte > b' ');
    if solid.take(room + 1).count() > room {
        return None;
    }
    let mut line = String::from("[");
    for (index, (_, element)) in array.entries().enumerate() {
        if index > 0 {
            line.push_str(", ");
        }
        if line.len() > room {
            return None;
        }
        match element.kind() {
            ValueKind::Json if element.is_object() => return None,
            ValueKind::Json => line.push_str(&one_line(&element, room - line.len())?),
            _ => line.push_str(element.raw()),
        }
    }
    line.push(']');
    (line.len() <= room).then_some(line)
}
