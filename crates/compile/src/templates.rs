//! `${secret.<name>.<key>}` and `${secret.<namespace>/<name>.<key>}` in a plugin's config.
//!
//! The key may hold dots; without a namespace the system namespace is meant. What cannot be resolved stays as it is
//! written and is reported. No message repeats a value.

use std::borrow::Cow;

use serde_json::Value;
use tollgate_kinds::Objects;

use crate::Options;

/// The config with every reference replaced, and the references that lead nowhere.
pub(crate) fn render<'v>(
    value: &'v Value,
    objects: &Objects,
    options: &Options,
) -> (Cow<'v, Value>, Vec<String>) {
    if !has_reference(value) {
        return (Cow::Borrowed(value), Vec::new());
    }
    let mut rendered = value.clone();
    let mut missing = Vec::new();
    walk(&mut rendered, &mut |text| {
        replace(text, objects, options, &mut missing)
    });
    (Cow::Owned(rendered), missing)
}

fn has_reference(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains("${secret."),
        Value::Array(items) => items.iter().any(has_reference),
        Value::Object(fields) => fields.values().any(has_reference),
        _ => false,
    }
}

fn walk(value: &mut Value, change: &mut impl FnMut(&str) -> Option<String>) {
    match value {
        Value::String(text) => {
            if let Some(changed) = change(text) {
                *text = changed;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| walk(item, change)),
        Value::Object(fields) => fields.values_mut().for_each(|field| walk(field, change)),
        _ => {}
    }
}

fn replace(text: &str, objects: &Objects, options: &Options, missing: &mut Vec<String>) -> Option<String> {
    if !text.contains("${secret.") {
        return None;
    }
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${secret.") {
        let (before, reference) = rest.split_at(start);
        result.push_str(before);
        let Some(end) = reference.find('}') else {
            rest = reference;
            break;
        };
        let written = reference.get(..=end).unwrap_or(reference);
        match resolve(written, objects, options) {
            Some(value) => result.push_str(&value),
            None => {
                missing.push(written.to_owned());
                result.push_str(written);
            }
        }
        rest = reference.get(end + 1..).unwrap_or_default();
    }
    result.push_str(rest);
    Some(result)
}

fn resolve(written: &str, objects: &Objects, options: &Options) -> Option<String> {
    let inner = written.strip_prefix("${secret.")?.strip_suffix('}')?;
    let (namespace, rest) = inner
        .split_once('/')
        .unwrap_or((&options.system_namespace, inner));
    let (name, key) = rest.split_once('.')?;
    let secret = objects.secret(namespace, name)?;
    let value = secret.spec.data.get(key)?;
    value.expose_text().map(str::to_owned)
}
