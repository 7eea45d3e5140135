//! Configuration values read as leniently as Higress's plugins read them (gjson semantics, ai-proxy spec §1.1).
//!
//! A string field accepts a number or a bool, an integer field a numeric string, a list field a single scalar; a map
//! field that is no object is empty. Real configs rely on it, so nothing here reports an error.

use serde_json::{Map, Value};

/// One JSON object of configuration.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(Option<&'a Map<String, Value>>);

impl<'a> Fields<'a> {
    /// The members of `value`; none if it is no object.
    #[must_use]
    pub fn of(value: &'a Value) -> Self {
        Self(value.as_object())
    }

    /// The raw value. An explicit `null` counts as absent.
    #[must_use]
    pub fn get(self, name: &str) -> Option<&'a Value> {
        self.0?.get(name).filter(|value| !value.is_null())
    }

    /// Text; absent is empty.
    #[must_use]
    pub fn text(self, name: &str) -> String {
        self.get(name).map(text_of).unwrap_or_default()
    }

    /// Truth; absent is `default`.
    #[must_use]
    pub fn flag(self, name: &str, default: bool) -> bool {
        self.get(name).map_or(default, flag_of)
    }

    /// A number that must not be negative; absent, negative or no number is 0.
    #[must_use]
    pub fn count(self, name: &str) -> u64 {
        self.get(name).map_or(0, count_of)
    }

    /// A list of texts; a single scalar is a list of one.
    #[must_use]
    pub fn texts(self, name: &str) -> Vec<String> {
        match self.get(name) {
            None => Vec::new(),
            Some(Value::Array(items)) => items.iter().map(text_of).collect(),
            Some(single) => vec![text_of(single)],
        }
    }

    /// A list of values; a single one is a list of one.
    #[must_use]
    pub fn values(self, name: &str) -> Vec<&'a Value> {
        match self.get(name) {
            None => Vec::new(),
            Some(Value::Array(items)) => items.iter().collect(),
            Some(single) => vec![single],
        }
    }

    /// The members of an object, in file order; anything else is empty.
    pub fn entries(self, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.get(name).and_then(Value::as_object).into_iter().flatten()
    }

    /// A nested object.
    #[must_use]
    pub fn object(self, name: &str) -> Option<Fields<'a>> {
        self.get(name)
            .and_then(Value::as_object)
            .map(|members| Fields(Some(members)))
    }
}

/// Textual form: a string itself, `null` as nothing, anything else as its JSON.
#[must_use]
pub fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn flag_of(value: &Value) -> bool {
    match value {
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => matches!(text.to_ascii_lowercase().as_str(), "1" | "t" | "true"),
        _ => false,
    }
}

fn count_of(value: &Value) -> u64 {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| whole(number.as_f64()?)).unwrap_or(0),
        Value::String(text) => text.trim().parse().unwrap_or(0),
        Value::Bool(true) => 1,
        _ => 0,
    }
}

/// The whole part, as gjson cuts it.
fn whole(number: f64) -> Option<u64> {
    (0.0..9.0e15).contains(&number).then_some(number as u64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_bend() {
        let config =
            json!({"a": 1, "b": "12", "c": "true", "d": 0, "e": "sk-x", "f": [1, "2"], "g": null, "h": 7.9});
        let fields = Fields::of(&config);
        assert_eq!(fields.text("a"), "1");
        assert_eq!(fields.count("b"), 12);
        assert!(fields.flag("c", false));
        assert!(!fields.flag("d", true));
        assert!(fields.flag("g", true), "an explicit null is as good as absent");
        assert_eq!(fields.texts("e"), ["sk-x"]);
        assert_eq!(fields.texts("f"), ["1", "2"]);
        assert_eq!(fields.count("h"), 7);
        assert_eq!(fields.entries("e").count(), 0);
    }
}
