//! The wanted shape: a JSON Schema, compiled once when the config is read, and what an answer does wrong with it.
//!
//! Nothing is fetched: a schema that leads elsewhere is refused. Types are checked here, because Higress's validator
//! takes a number for an integer only when it is written as one.

use std::net::Ipv4Addr;

use jsonschema::paths::Location;
use jsonschema::{Draft, Keyword, PatternOptions, ValidationError, Validator};
use serde_json::{Map, Value};

use super::explain;

/// Higress's name of the schema.
const NAME: &str = "defaultSchema";
/// Texts up to this length are searched for all that is wrong, so that the first in Higress's order can be told.
const THOROUGH: usize = 64 * 1024;

/// A compiled schema.
#[derive(Debug)]
pub(super) struct Schema {
    validator: Validator,
    root: Value,
}

impl Schema {
    /// Compiles for `draft`, unless the schema names another.
    pub(super) fn compile(root: &Value, draft: Draft) -> Result<Self, String> {
        let draft = named_draft(root)?.unwrap_or(draft);
        check_schema(root, draft)?;
        // Where a part has an id of its own, references in it are the compiler's to follow.
        let is_plain = !has_inner_id(root);
        if let Some(reference) = broken_reference(root, root).filter(|_| is_plain) {
            return Err(format!("invalid $ref {reference}"));
        }
        let built = jsonschema::options()
            .with_draft(draft)
            .should_validate_formats(true)
            .with_pattern_options(PatternOptions::regex())
            .with_keyword("type", type_keyword)
            .with_format("ip-address", |text: &str| text.parse::<Ipv4Addr>().is_ok())
            .build(root);
        let validator = built.map_err(|fault| failed(&fault.to_string()))?;
        Ok(Self {
            validator,
            root: root.clone(),
        })
    }

    /// Checks a value whose text has `length` bytes; the fault in Higress's words.
    pub(super) fn check(&self, instance: &Value, length: usize) -> Result<(), String> {
        if self.validator.is_valid(instance) {
            return Ok(());
        }
        let errors: Vec<_> = if length <= THOROUGH {
            self.validator.iter_errors(instance).collect()
        } else {
            self.validator.validate(instance).err().into_iter().collect()
        };
        Err(explain::explain(
            &errors,
            instance,
            Some(&self.root),
            "defaultSchema#",
        ))
    }
}

/// Depth as Higress counts it: the root is 1, every value in it one more.
pub(super) fn depth(root: &Value) -> usize {
    let mut deepest = 0;
    let mut open = vec![(root, 1)];
    while let Some((value, depth)) = open.pop() {
        deepest = deepest.max(depth);
        match value {
            Value::Object(members) => open.extend(members.values().map(|inner| (inner, depth + 1))),
            Value::Array(items) => open.extend(items.iter().map(|inner| (inner, depth + 1))),
            _ => {}
        }
    }
    deepest
}

fn failed(reason: &str) -> String {
    format!("json-schema \"{NAME}\" compilation failed. Reason:\n{reason}")
}

const DRAFTS: [(&str, Draft); 5] = [
    ("http://json-schema.org/draft-04/schema", Draft::Draft4),
    ("http://json-schema.org/draft-06/schema", Draft::Draft6),
    ("http://json-schema.org/draft-07/schema", Draft::Draft7),
    ("https://json-schema.org/draft/2019-09/schema", Draft::Draft201909),
    ("https://json-schema.org/draft/2020-12/schema", Draft::Draft202012),
];

/// The draft that `$schema` names.
fn named_draft(root: &Value) -> Result<Option<Draft>, String> {
    let Some(Value::String(uri)) = root.get("$schema") else {
        return Ok(None);
    };
    let wanted = uri.trim_end_matches('#');
    let found = DRAFTS.iter().find(|(known, _)| *known == wanted);
    match found {
        Some((_, draft)) => Ok(Some(*draft)),
        None => Err(failed(&format!("unsupported $schema {uri:?}"))),
    }
}

/// Checks the schema itself.
fn check_schema(root: &Value, draft: Draft) -> Result<(), String> {
    let (validator, uri) = match draft {
        Draft::Draft4 => (
            jsonschema::draft4::meta::validator(),
            "http://json-schema.org/draft-04/schema#",
        ),
        Draft::Draft6 => (
            jsonschema::draft6::meta::validator(),
            "http://json-schema.org/draft-06/schema#",
        ),
        Draft::Draft201909 => (
            jsonschema::draft201909::meta::validator(),
            "https://json-schema.org/draft/2019-09/schema",
        ),
        Draft::Draft202012 => (
            jsonschema::draft202012::meta::validator(),
            "https://json-schema.org/draft/2020-12/schema",
        ),
        _ => (
            jsonschema::draft7::meta::validator(),
            "http://json-schema.org/draft-07/schema#",
        ),
    };
    let errors: Vec<_> = validator.iter_errors(root).collect();
    if errors.is_empty() {
        return Ok(());
    }
    Err(failed(&explain::explain(&errors, root, None, uri)))
}

/// The first reference that leads out of the schema or to nothing in it.
fn broken_reference<'s>(value: &'s Value, root: &Value) -> Option<&'s str> {
    let nested: Vec<&Value> = match value {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref")
                && !leads_somewhere(reference, root)
            {
                return Some(reference);
            }
            let data = |key: &String| matches!(key.as_str(), "const" | "enum" | "default" | "examples");
            let kept = members.iter().filter(|(key, _)| !data(key));
            kept.map(|(_, inner)| inner).collect()
        }
        Value::Array(items) => items.iter().collect(),
        _ => return None,
    };
    nested.into_iter().find_map(|inner| broken_reference(inner, root))
}

/// Whether a part of the schema is a document of its own.
fn has_inner_id(root: &Value) -> bool {
    let inner: Vec<&Value> = match root {
        Value::Object(members) => members.values().collect(),
        Value::Array(items) => items.iter().collect(),
        _ => return false,
    };
    inner.into_iter().any(|part| {
        let has_id = ["$id", "id"]
            .iter()
            .any(|key| part.get(*key).is_some_and(Value::is_string));
        has_id || has_inner_id(part)
    })
}

/// Anchors and ids of the schema's own are left to the compiler.
fn leads_somewhere(reference: &str, root: &Value) -> bool {
    if reference.contains("://") {
        let uri = reference.split('#').next().unwrap_or_default();
        let is_known = DRAFTS.iter().any(|(known, _)| *known == uri);
        return is_known || has_id(root, uri);
    }
    match reference.strip_prefix("#/") {
        Some(_) => explain::resolve(root, reference).is_some(),
        None => true,
    }
}

fn has_id(value: &Value, uri: &str) -> bool {
    match value {
        Value::Object(members) => {
            let is_it = ["$id", "id"].iter().any(|key| {
                let id = members.get(*key).and_then(Value::as_str);
                id.is_some_and(|id| uri.ends_with(id.trim_end_matches('#')))
            });
            is_it || members.values().any(|inner| has_id(inner, uri))
        }
        Value::Array(items) => items.iter().any(|inner| has_id(inner, uri)),
        _ => false,
    }
}

/// `type` as Higress's validator checks it.
struct Type(Vec<String>);

fn type_keyword<'a>(
    _: &'a Map<String, Value>,
    value: &'a Value,
    _: Location,
) -> Result<Box<dyn for<'i> Keyword<'i>>, ValidationError<'a>> {
    let names = match value {
        Value::Array(names) => names
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        other => other.as_str().map(str::to_owned).into_iter().collect(),
    };
    Ok(Box::new(Type(names)))
}

impl<'i> Keyword<'i> for Type {
    fn validate(&self, instance: &'i Value) -> Result<(), ValidationError<'i>> {
        if self.is_valid(instance) {
            return Ok(());
        }
        let (wanted, got) = (self.0.join(" or "), explain::type_name(instance));
        Err(ValidationError::custom(format!(
            "expected {wanted}, but got {got}"
        )))
    }

    fn is_valid(&self, instance: &'i Value) -> bool {
        let name = explain::type_name(instance);
        self.0
            .iter()
            .any(|wanted| wanted == name || (wanted == "integer" && is_integer(instance)))
    }
}

/// Written without fraction and exponent. What no 64 bits hold has lost how it was written.
fn is_integer(instance: &Value) -> bool {
    let Value::Number(number) = instance else {
        return false;
    };
    let is_beyond = |float: f64| float.fract() == 0.0 && float.abs() >= 9_223_372_036_854_775_808.0;
    number.is_i64() || number.is_u64() || number.as_f64().is_some_and(is_beyond)
}
