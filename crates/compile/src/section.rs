//! Reads one section of a YAML text inside a ConfigMap: typed fields with ranges, and a message for each that does
//! not fit. Numbers may be written as text, as Helm does.

use serde_json::{Map, Value};

/// A mapping inside a ConfigMap's text, and where it is.
pub(crate) struct Section<'a> {
    fields: &'a Map<String, Value>,
    path: String,
}

/// What is wrong, starting with the path of the field.
pub(crate) type Fault = String;

impl<'a> Section<'a> {
    /// The whole text.
    pub(crate) fn root(value: &'a Value) -> Result<Self, Fault> {
        match value {
            Value::Object(fields) => Ok(Self {
                fields,
                path: String::new(),
            }),
            _ => Err("expected a mapping".to_owned()),
        }
    }

    /// The mapping `name`; `None` when it is absent or null.
    pub(crate) fn section(&self, name: &str) -> Result<Option<Section<'a>>, Fault> {
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Section {
                fields,
                path: self.at(name),
            })),
            Some(_) => Err(format!("{}: expected a mapping", self.at(name))),
        }
    }

    /// The mappings of the list `name`; empty when it is absent.
    pub(crate) fn list(&self, name: &str) -> Result<Vec<Section<'a>>, Fault> {
        let items = match self.fields.get(name) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(items)) => items,
            Some(_) => return Err(format!("{}: expected a list", self.at(name))),
        };
        let section = |(index, item): (usize, &'a Value)| match item {
            Value::Object(fields) => Ok(Section {
                fields,
                path: format!("{}[{index}]", self.at(name)),
            }),
            _ => Err(format!("{}[{index}]: expected a mapping", self.at(name))),
        };
        items.iter().enumerate().map(section).collect()
    }

    /// A whole number within `range`.
    pub(crate) fn number(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, Fault> {
        let number = match self.fields.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(_) => None,
        };
        match number.filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(format!(
                "{}: expected a whole number from {} to {}",
                self.at(name),
                range.start(),
                range.end()
            )),
        }
    }

    /// A boolean.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, Fault> {
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(format!("{}: expected true or false", self.at(name))),
        }
    }

    /// A text.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&'a str>, Fault> {
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("{}: expected a string", self.at(name))),
        }
    }

    /// A list of texts; empty when absent.
    pub(crate) fn texts(&self, name: &str) -> Result<Vec<&'a str>, Fault> {
        let fault = || format!("{}: expected a list of strings", self.at(name));
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(items)) => items.iter().map(|item| item.as_str().ok_or_else(fault)).collect(),
            Some(_) => Err(fault()),
        }
    }

    /// The path of a field.
    pub(crate) fn at(&self, name: &str) -> String {
        match self.path.is_empty() {
            true => name.to_owned(),
            false => format!("{}.{name}", self.path),
        }
    }
}
