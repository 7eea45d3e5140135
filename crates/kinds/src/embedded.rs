//! YAML inside a ConfigMap's value: sections of configuration that are read on their own, each with its line.
//!
//! A section that is wrong is reported and left at its default; the others stay.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::ConfigMap;
use crate::diagnostic::Diagnostic;
use crate::lenient::Lenient;
use crate::position::{Position, Positions};
use crate::yaml;

/// The parsed text of one key of a ConfigMap.
pub(crate) struct Embedded<'c> {
    config_map: &'c ConfigMap,
    key: &'c str,
    value: Value,
    positions: Positions,
    /// What was wrong so far.
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl<'c> Embedded<'c> {
    /// Parses the text of `key`; nothing when the ConfigMap has no such key. Text that is no YAML mapping reads as an
    /// empty one, with an error.
    pub(crate) fn new(config_map: &'c ConfigMap, key: &'c str) -> Option<Self> {
        let text = config_map.spec.data.get(key)?;
        let start = config_map.position(&format!("data[{key}]")).line;
        // A text of several lines is a block scalar, which begins on the line after its key.
        let first_line = if text.contains('\n') { start + 1 } else { start };
        let mut embedded = Self {
            config_map,
            key,
            value: Value::Object(serde_json::Map::new()),
            positions: Positions::scalar(Position {
                line: start,
                column: 0,
            }),
            diagnostics: Vec::new(),
        };
        match yaml::parse(text, first_line).into_iter().next() {
            None => {}
            Some(Ok(parsed)) if parsed.value.is_object() => {
                embedded.value = parsed.value;
                embedded.positions = parsed.positions;
            }
            Some(Ok(parsed)) => embedded.report_at(parsed.positions.here(), "", "expected a mapping"),
            Some(Err(fault)) => embedded.report_at(fault.position, "", &fault.message),
        }
        Some(embedded)
    }

    /// Reads the section `field` (`""`: the whole text); `None` when it is missing or does not fit.
    pub(crate) fn section<T: DeserializeOwned>(&mut self, field: &str) -> Option<T> {
        let value = match field {
            "" => &self.value,
            field => self.value.get(field).filter(|value| !value.is_null())?,
        };
        let error = match serde_path_to_error::deserialize(Lenient(value)) {
            Ok(section) => return Some(section),
            Err(error) => error,
        };
        let inner = error.path().to_string();
        let path = match (field, inner.as_str()) {
            ("", inner) => inner.to_owned(),
            (field, ".") => field.to_owned(),
            (field, inner) => format!("{field}.{inner}"),
        };
        self.report(&path, &error.into_inner().to_string());
        None
    }

    /// Reads each item of the list `field` on its own, with its place: one that does not fit is reported and left out.
    pub(crate) fn items<T: DeserializeOwned>(&mut self, field: &str) -> Vec<(String, T)> {
        let items: Vec<Value> = self.section(field).unwrap_or_default();
        let mut fitting = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let place = format!("{field}[{index}]");
            match serde_path_to_error::deserialize(Lenient(item)) {
                Ok(item) => fitting.push((place, item)),
                Err(error) => {
                    let path = match error.path().to_string().as_str() {
                        "." => place,
                        inner => format!("{place}.{inner}"),
                    };
                    self.report(&path, &error.into_inner().to_string());
                }
            }
        }
        fitting
    }

    /// Adds an error about a field of the text.
    pub(crate) fn report(&mut self, path: &str, message: &str) {
        self.report_at(self.positions.find(path), path, message);
    }

    fn report_at(&mut self, position: Position, path: &str, message: &str) {
        let field = match path {
            "" => format!("data[{}]", self.key),
            path => format!("data[{}].{path}", self.key),
        };
        let diagnostic = self.config_map.error("", message).at_field(field);
        let known = self.config_map.origin.positions.here().line > 0;
        let (line, column) = if known {
            (position.line, position.column)
        } else {
            (0, 0)
        };
        self.diagnostics.push(Diagnostic {
            line,
            column,
            ..diagnostic
        });
    }
}
