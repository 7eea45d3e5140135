//! Paths that make a value: `{name:path,…}`, `[path,…]`, `!literal`, `@modifier:argument`.

use std::borrow::Cow;

use super::value::{PathValue, ValueKind};
use super::walk::{find, find_in};
use super::{escape, lex, modifier};
use crate::json::is_valid;

/// What a path turned out to be.
pub(super) enum Outcome<'t, 'p> {
    /// One that makes a value, and what it made.
    Made(Option<PathValue<'t>>),
    /// Steps to walk.
    Steps(&'p str),
}

/// Makes what the path says, if it is of this kind.
pub(super) fn make<'t, 'p>(text: &'t [u8], path: &'p str, depth: usize) -> Outcome<'t, 'p> {
    if path.len() < 2 {
        return Outcome::Steps(path);
    }
    if let Some(path) = from_end(text, path) {
        return Outcome::Made(find(text, &path, depth + 1).value);
    }
    let made = match path.as_bytes()[0] {
        b'@' => modify(text, path).map(|(made, behind)| go_on(made, behind, depth)),
        b'!' => {
            split_literal(path).map(|(literal, behind)| go_on(Cow::Owned(literal.to_owned()), behind, depth))
        }
        kind @ (b'{' | b'[') => {
            // A bracket that is never closed leaves nothing of the path.
            let Some((parts, behind)) = split_parts(path) else {
                return Outcome::Steps("");
            };
            if !behind.is_empty() && !behind.starts_with(['|', '.']) {
                return Outcome::Steps(behind);
            }
            let value = PathValue::new(ValueKind::Json, Cow::Owned(join(text, kind, &parts, depth)));
            Some(match behind.get(1..) {
                Some(rest) => find_in(Some(value), rest, depth + 1),
                None => Some(value),
            })
        }
        _ => None,
    };
    made.map_or(Outcome::Steps(path), Outcome::Made)
}

/// `@reverse.0.x` of an array as `-1.x`: the last question is read so with every request, and the array may be long.
fn from_end(text: &[u8], path: &str) -> Option<String> {
    let behind = path.strip_prefix("@reverse.")?;
    let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
    let (index, rest) = behind.split_at(digits);
    let is_plain = rest.is_empty() || rest.starts_with('.');
    if !is_plain || !text.trim_ascii_start().starts_with(b"[") {
        return None;
    }
    let index: u32 = index.parse().ok()?;
    let back = (u64::from(index) + 1).to_string();
    Some(["-", &back, rest].concat())
}

fn modify<'t, 'p>(text: &'t [u8], path: &'p str) -> Option<(Cow<'t, str>, &'p str)> {
    let (name, argument, behind) = split_modifier(path);
    let change = modifier::find(name)?;
    let made = match crate::to_text(text) {
        Cow::Borrowed(text) => change(text, argument),
        Cow::Owned(text) => Cow::Owned(change(&text, argument).into_owned()),
    };
    Some((made, behind))
}

/// The rest of the path in what was made, or that itself.
fn go_on<'t>(made: Cow<'t, str>, behind: &str, depth: usize) -> Option<PathValue<'t>> {
    if behind.starts_with(['|', '.']) {
        let value = PathValue::new(ValueKind::Json, made);
        return find_in(Some(value), &behind[1..], depth + 1);
    }
    PathValue::parse(made)
}

/// Name, argument and the rest of `@name:argument|rest`.
fn split_modifier(path: &str) -> (&str, &str, &str) {
    let text = &path[1..];
    let Some(at) = text.find([':', '|', '.']) else {
        return (text, "", "");
    };
    let (name, behind) = text.split_at(at);
    let Some(argument) = behind.strip_prefix(':') else {
        return (name, "", behind);
    };
    let bytes = argument.as_bytes();
    let end = match bytes.first() {
        Some(b'{' | b'[' | b'"') => squash_end(bytes, 0),
        _ => {
            let mut position = 0;
            loop {
                match bytes.get(position) {
                    None | Some(b'|') => break position,
                    Some(b'{' | b'[' | b'"' | b'(') => position = squash_end(bytes, position),
                    Some(_) => position += 1,
                }
            }
        }
    };
    (name, &argument[..end], &argument[end..])
}

fn squash_end(bytes: &[u8], from: usize) -> usize {
    if bytes[from] == b'"' {
        return lex::string_end(bytes, from + 1).unwrap_or(bytes.len());
    }
    lex::nested_end(bytes, from)
}

/// Literal and the rest of `!literal|rest`. What begins like a string or number ends where a bracket closes, as it
/// does in a multipath, not at a pipe.
fn split_literal(path: &str) -> Option<(&str, &str)> {
    let text = &path[1..];
    if let Some(b'{' | b'[' | b'"' | b'+' | b'-' | b'0'..=b'9') = text.as_bytes().first() {
        return Some(text.split_at(lex::nested_end(text.as_bytes(), 0)));
    }
    let (word, behind) = text.split_at(text.find(['|', '.']).unwrap_or(text.len()));
    let is_known = ["true", "false", "null", "nan", "inf"]
        .iter()
        .any(|known| word.eq_ignore_ascii_case(known));
    is_known.then_some((word, behind))
}

/// A path in a multipath, and its name if it was given one.
struct Part<'p> {
    name: Option<&'p str>,
    path: &'p str,
}

/// The parts between the brackets, and what stands behind them.
fn split_parts(path: &str) -> Option<(Vec<Part<'_>>, &str)> {
    let bytes = path.as_bytes();
    let mut parts = Vec::new();
    let (mut depth, mut start, mut colon, mut in_modifier) = (1, 1, None, false);
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            b'@' if matches!(bytes[at - 1], b'.' | b'|') => in_modifier = true,
            b':' if !in_modifier && colon.is_none() && depth == 1 => colon = Some(at),
            b'"' => at = lex::string_end(bytes, at + 1).unwrap_or(bytes.len()) - 1,
            b'[' | b'(' | b'{' => depth += 1,
            b']' | b')' | b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (*byte == b',' && depth == 1) {
            parts.push(Part {
                name: colon.map(|colon| &path[start..colon]),
                path: &path[colon.map_or(start, |colon| colon + 1)..at],
            });
            (start, colon, in_modifier) = (at + 1, None, false);
        }
        if depth == 0 {
            return Some((parts, &path[at + 1..]));
        }
        at += 1;
    }
    None
}

fn join(text: &[u8], kind: u8, parts: &[Part<'_>], depth: usize) -> String {
    let mut out = String::new();
    for part in parts {
        let Some(value) = find(text, part.path, depth + 1).value else {
            continue;
        };
        if !out.is_empty() {
            out.push(',');
        }
        if kind == b'{' {
            out.push_str(&part.quoted_name());
            out.push(':');
        }
        out.push_str(value.raw());
    }
    if kind == b'{' {
        format!("{{{out}}}")
    } else {
        format!("[{out}]")
    }
}

impl Part<'_> {
    fn quoted_name(&self) -> String {
        match self.name {
            Some(name) if name.starts_with('"') && is_valid(name) => name.to_owned(),
            Some(name) if !name.is_empty() => escape::quoted(name),
            _ => {
                let last = last_component(self.path);
                let is_simple = |character: char| character >= ' ' && !"[]{}()#|!".contains(character);
                escape::quoted(if last.chars().all(is_simple) { last } else { "_" })
            }
        }
    }
}

/// What stands behind the last dot or pipe that is not escaped.
fn last_component(path: &str) -> &str {
    let bytes = path.as_bytes();
    let is_cut = |at: &usize| matches!(bytes[*at], b'.' | b'|') && (*at == 0 || bytes[*at - 1] != b'\\');
    (0..bytes.len())
        .rev()
        .find(is_cut)
        .map_or(path, |cut| &path[cut + 1..])
}
