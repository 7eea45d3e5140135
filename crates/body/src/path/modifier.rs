//! Modifiers: `@name:argument` makes another text of a whole value.

use std::borrow::Cow;
use std::collections::HashMap;

use super::value::{PathValue, ValueKind};
use super::{DEPTH_LIMIT, escape, pretty, walk};
use crate::json::is_valid;

/// What a modifier makes of a text, given its argument.
pub(super) type Modifier = for<'t> fn(&'t str, &str) -> Cow<'t, str>;

const MODIFIERS: &[(&str, Modifier)] = &[
    ("this", |text, _| Cow::Borrowed(text)),
    ("valid", |text, _| {
        Cow::Borrowed(if is_valid(text) { text } else { "" })
    }),
    ("pretty", pretty::pretty),
    ("ugly", pretty::ugly),
    ("reverse", reverse),
    ("flatten", |text, argument| {
        flatten(text, option(argument, "deep"), 0)
    }),
    ("join", join),
    ("keys", keys),
    ("values", values),
    ("tostr", |text, _| Cow::Owned(escape::quoted(text))),
    ("fromstr", from_string),
    ("group", group),
    ("dig", dig),
];

/// The modifier of that name.
pub(super) fn find(name: &str) -> Option<Modifier> {
    let row = MODIFIERS.iter().find(|row| row.0 == name)?;
    Some(row.1)
}

fn parse(text: &str) -> Option<PathValue<'_>> {
    PathValue::parse(Cow::Borrowed(text))
}

/// Whether a JSON argument sets an option.
fn option(argument: &str, name: &str) -> bool {
    let Some(options) = parse(argument) else {
        return false;
    };
    let mut chosen = false;
    for (key, value) in options.entries() {
        if key.is_some_and(|key| key.text() == name) {
            chosen = value.bool();
        }
    }
    chosen
}

fn reverse<'t>(text: &'t str, _: &str) -> Cow<'t, str> {
    let Some(value) = parse(text).filter(|value| value.kind() == ValueKind::Json) else {
        return Cow::Borrowed(text);
    };
    let mut parts: Vec<_> = value
        .entries()
        .map(|(key, value)| match key {
            Some(key) => format!("{}:{}", key.raw(), value.raw()),
            None => value.raw().to_owned(),
        })
        .collect();
    parts.reverse();
    Cow::Owned(if value.is_array() {
        format!("[{}]", parts.join(","))
    } else {
        format!("{{{}}}", parts.join(","))
    })
}

fn flatten(text: &str, deep: bool, depth: usize) -> Cow<'_, str> {
    let Some(value) = parse(text).filter(PathValue::is_array) else {
        return Cow::Borrowed(text);
    };
    let mut parts = Vec::new();
    for (_, element) in value.entries() {
        let raw = element.raw();
        let part = if !element.is_array() {
            raw.to_owned()
        } else if deep && depth < DEPTH_LIMIT {
            unwrap(&flatten(raw, deep, depth + 1)).to_owned()
        } else {
            unwrap(raw).to_owned()
        };
        if !part.trim().is_empty() {
            parts.push(part.trim().to_owned());
        }
    }
    Cow::Owned(format!("[{}]", parts.join(",")))
}

/// What stands between the outermost brackets.
fn unwrap(text: &str) -> &str {
    let trimmed = super::query::trim(text);
    if trimmed.len() >= 2 && trimmed.starts_with(['[', '{']) {
        let mut inner = trimmed.chars();
        inner.next();
        inner.next_back();
        return inner.as_str();
    }
    trimmed
}

fn join<'t>(text: &'t str, argument: &str) -> Cow<'t, str> {
    let Some(value) = parse(text).filter(PathValue::is_array) else {
        return Cow::Borrowed(text);
    };
    let elements = value.array();
    let objects = elements.iter().filter(|element| element.is_object());
    if option(argument, "preserve") {
        let parts: Vec<_> = objects.map(|object| unwrap(object.raw())).collect();
        return Cow::Owned(format!("{{{}}}", parts.join(",")));
    }
    let mut members: Vec<(String, String)> = Vec::new();
    let mut positions: HashMap<String, usize> = HashMap::new();
    for (key, value) in objects.flat_map(PathValue::entries) {
        let Some(key) = key else { continue };
        let position = *positions.entry(key.text().into_owned()).or_insert_with(|| {
            members.push((key.raw().to_owned(), String::new()));
            members.len() - 1
        });
        value.raw().clone_into(&mut members[position].1);
    }
    let parts: Vec<_> = members
        .iter()
        .map(|(key, value)| format!("{key}:{value}"))
        .collect();
    Cow::Owned(format!("{{{}}}", parts.join(",")))
}

fn keys<'t>(text: &'t str, _: &str) -> Cow<'t, str> {
    let value = parse(text);
    let parts: Vec<_> = value
        .iter()
        .flat_map(PathValue::entries)
        .map(|(key, _)| key.map_or_else(|| "null".to_owned(), |key| key.raw().to_owned()))
        .collect();
    Cow::Owned(format!("[{}]", parts.join(",")))
}

fn values<'t>(text: &'t str, _: &str) -> Cow<'t, str> {
    let value = parse(text);
    if value.as_ref().is_some_and(PathValue::is_array) {
        return Cow::Borrowed(text);
    }
    let parts: Vec<_> = value
        .iter()
        .flat_map(PathValue::entries)
        .map(|(_, value)| value.into_raw())
        .collect();
    Cow::Owned(format!("[{}]", parts.join(",")))
}

fn from_string<'t>(text: &'t str, _: &str) -> Cow<'t, str> {
    if !is_valid(text) {
        return Cow::Borrowed("");
    }
    Cow::Owned(parse(text).map_or_else(String::new, |value| value.text().into_owned()))
}

/// `{"a":[1,2],"b":[3,4]}` → `[{"a":1,"b":3},{"a":2,"b":4}]`
fn group<'t>(text: &'t str, _: &str) -> Cow<'t, str> {
    let Some(value) = parse(text).filter(PathValue::is_object) else {
        return Cow::Borrowed("");
    };
    let mut groups: Vec<Vec<String>> = Vec::new();
    for (key, column) in value.entries() {
        let Some(key) = key.filter(|_| column.is_array()) else {
            continue;
        };
        for (row, (_, cell)) in column.entries().enumerate() {
            if row == groups.len() {
                groups.push(Vec::new());
            }
            groups[row].push(format!("{}:{}", key.raw(), cell.raw()));
        }
    }
    let rows: Vec<_> = groups
        .iter()
        .map(|row| format!("{{{}}}", row.join(",")))
        .collect();
    Cow::Owned(format!("[{}]", rows.join(",")))
}

/// Everything of that path at any depth, outer before inner.
fn dig<'t>(text: &'t str, path: &str) -> Cow<'t, str> {
    let mut found = Vec::new();
    if let Some(value) = parse(text) {
        dig_into(&value, path, 0, &mut found);
    }
    Cow::Owned(format!("[{}]", found.join(",")))
}

fn dig_into(value: &PathValue<'_>, path: &str, depth: usize, found: &mut Vec<String>) {
    if let Some(hit) = walk::find(value.raw().as_bytes(), path, depth).value {
        found.push(hit.into_raw().into_owned());
    }
    if value.kind() == ValueKind::Json && depth < DEPTH_LIMIT {
        for (_, inner) in value.entries() {
            dig_into(&inner, path, depth + 1, found);
        }
    }
}
