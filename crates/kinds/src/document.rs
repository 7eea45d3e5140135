//! One document as it was found: which object it describes, its value, and where each field stands.
//!
//! Stands between the YAML reader and the typed kinds. It checks only what every Kubernetes object has: `apiVersion`,
//! `kind` and `metadata.name`. A `List` becomes its items here, so nobody behind this knows lists.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::diagnostic::{Diagnostic, Severity};
use crate::envsubst::name_of;
use crate::position::{Position, Positions};
use crate::yaml::Parsed;

/// An object of any kind, before its kind has looked at it.
#[derive(Clone, PartialEq)]
pub struct Document {
    /// File, or another name of the source.
    pub source: Arc<str>,
    /// `apiVersion`, such as `networking.k8s.io/v1`.
    pub api_version: String,
    /// `kind` as written.
    pub kind: String,
    /// `metadata.namespace`, when it is set and not empty.
    pub namespace: Option<String>,
    /// `metadata.name`.
    pub name: String,
    /// The whole object. May hold secrets.
    pub value: Value,
    /// Where each field stands.
    pub positions: Arc<Positions>,
}

/// Leaves the value out: it may hold secrets.
impl fmt::Debug for Document {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Document")
            .field("source", &self.source)
            .field("line", &self.position().line)
            .field("kind", &self.kind)
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Document {
    /// An object from an API server or another source without lines.
    pub fn from_value(value: Value, source: &Arc<str>) -> Result<Self, Diagnostic> {
        Self::new(value, Positions::default(), source)
    }

    fn new(value: Value, positions: Positions, source: &Arc<str>) -> Result<Self, Diagnostic> {
        let here = positions.here();
        let fields = value.as_object().ok_or_else(|| {
            Diagnostic::error(source, here, "the document is not a mapping, so it is no object")
        })?;
        let kind = text(fields, "kind");
        let metadata = fields.get("metadata").and_then(Value::as_object);
        let name = metadata
            .map(|metadata| text(metadata, "name"))
            .unwrap_or_default();
        let namespace = metadata
            .map(|metadata| text(metadata, "namespace"))
            .unwrap_or_default();
        let refused = |field: &str, message: &str| {
            let diagnostic = Diagnostic::error(source, positions.find(field), message);
            Err(diagnostic.about(&kind, &namespace, &name).at_field(field))
        };
        let api_version = text(fields, "apiVersion");
        if kind.is_empty() {
            return refused("kind", "missing, so this is no Kubernetes object");
        }
        if api_version.is_empty() {
            return refused("apiVersion", "missing");
        }
        if name.is_empty() && !is_list(&kind, fields) {
            return refused("metadata.name", "missing");
        }
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        Ok(Self {
            source: Arc::clone(source),
            api_version,
            kind,
            namespace,
            name,
            value,
            positions: Arc::new(positions),
        })
    }

    /// The objects of a parsed text: one, or the items of a list.
    pub fn from_parsed(parsed: Parsed, source: &Arc<str>) -> Vec<Result<Self, Diagnostic>> {
        let document = match Self::new(parsed.value, parsed.positions, source) {
            Ok(document) => document,
            Err(diagnostic) => return vec![Err(diagnostic)],
        };
        match document
            .value
            .as_object()
            .is_some_and(|fields| is_list(&document.kind, fields))
        {
            true => document.items(),
            false => vec![Ok(document)],
        }
    }

    fn items(mut self) -> Vec<Result<Self, Diagnostic>> {
        let items = self.value.get_mut("items").map(Value::take);
        let Some(Value::Array(items)) = items else {
            return Vec::new();
        };
        let item_kind = self.kind.trim_end_matches("List");
        let item = |(index, mut value): (usize, Value)| {
            let positions = self
                .positions
                .subtree(&format!("items[{index}]"))
                .cloned()
                .unwrap_or_default();
            // An API server's typed list (`IngressList`) says kind and version once, for all items.
            if let Some(fields) = value.as_object_mut().filter(|_| !item_kind.is_empty()) {
                fields.entry("kind").or_insert_with(|| item_kind.into());
                fields
                    .entry("apiVersion")
                    .or_insert_with(|| self.api_version.as_str().into());
            }
            Self::new(value, positions, &self.source)
        };
        items.into_iter().enumerate().map(item).collect()
    }

    /// Where the document begins.
    pub fn position(&self) -> Position {
        self.positions.here()
    }

    /// A finding about a field of this document (`""`: about the whole).
    pub fn diagnostic(&self, severity: Severity, field: &str, message: impl Into<String>) -> Diagnostic {
        let namespace = self.namespace.as_deref().unwrap_or_default();
        let diagnostic = Diagnostic::error(&self.source, self.positions.find(field), message)
            .about(&self.kind, namespace, &self.name)
            .at_field(field);
        Diagnostic {
            severity,
            ..diagnostic
        }
    }
}

fn is_list(kind: &str, fields: &Map<String, Value>) -> bool {
    kind.ends_with("List")
        && fields
            .get("items")
            .is_some_and(|items| items.is_array() || items.is_null())
}

/// A scalar as text; empty when it is missing or no scalar.
fn text(fields: &Map<String, Value>, key: &str) -> String {
    match fields.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => crate::yaml::number_as_go_prints(number),
        Some(Value::Bool(truth)) => truth.to_string(),
        _ => String::new(),
    }
}

/// What is wrong with an object name (Kubernetes: a lower-case DNS name of at most 253 characters).
pub(crate) fn name_fault(name: &str) -> Option<&'static str> {
    if name
        .match_indices("${")
        .any(|(start, _)| name_of(&name[start..]).is_some())
    {
        return Some("holds a `${NAME}` that was not replaced; `--envsubst` replaces it");
    }
    let label_is_valid = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    let valid = name.len() <= 253 && name.split('.').all(label_is_valid);
    (!valid).then_some("is not a Kubernetes name: lower-case letters, digits, `-` and `.`, at most 253")
}

/// Which object a text that cannot be parsed probably describes, so that its last good version can be told.
pub(crate) fn guess_identity(text: &str) -> (String, String, String) {
    let (mut kind, mut namespace, mut name) = (String::new(), String::new(), String::new());
    let mut metadata_indent = None;
    let mut in_metadata = false;
    for line in text.lines() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        let Some((key, value)) = trimmed.split_once(':') else {
            continue;
        };
        let value = value
            .split(" #")
            .next()
            .unwrap_or_default()
            .trim()
            .trim_matches(['"', '\'']);
        if indent == 0 {
            in_metadata = key == "metadata";
            metadata_indent = None;
            if key == "kind" && kind.is_empty() {
                value.clone_into(&mut kind);
            }
        } else if in_metadata && !trimmed.starts_with('#') && *metadata_indent.get_or_insert(indent) == indent
        {
            match key {
                "name" if name.is_empty() => value.clone_into(&mut name),
                "namespace" if namespace.is_empty() => value.clone_into(&mut namespace),
                _ => {}
            }
        }
    }
    if !kind.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        kind.clear();
    }
    (kind, namespace, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_kubernetes_does() {
        for name in ["qwen", "ai-proxy.internal", "a", "1x", "foo-1.0.0"] {
            assert_eq!(name_fault(name), None, "{name}");
        }
        for name in ["", "Qwen", "a_b", "-a", "a-", "a..b", "a b", "通义"] {
            assert!(
                name_fault(name).is_some_and(|fault| fault.starts_with("is not")),
                "{name}"
            );
        }
        assert!(name_fault("x-${LLM}").is_some_and(|fault| fault.contains("--envsubst")));
        assert!(name_fault(&"a".repeat(254)).is_some());
    }

    #[test]
    fn the_object_of_a_broken_text_is_guessed_from_its_lines() {
        let text = "apiVersion: v1\nkind: \"Ingress\" # x\nmetadata:\n  annotations:\n    name: no\n  name: qwen\n  \
                    namespace: ns\nspec:\n  name: other\n   bad: [\n";
        let guessed = guess_identity(text);
        assert_eq!(
            guessed,
            ("Ingress".to_owned(), "ns".to_owned(), "qwen".to_owned())
        );
        assert_eq!(guess_identity("{{{"), <(String, String, String)>::default());
    }
}
