//! What is wrong with a value, in the words of the validator that Higress uses (plugins spec §2.2).
//!
//! That one stops at the first failing keyword in an order of its own; here the first is picked among all faults. The
//! words reach clients and, in a repair, models.

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind as Fault;
use serde_json::Value;

/// Keywords in the order in which Higress's validator checks them.
const ORDER: [&str; 38] = [
    "$ref",
    "type",
    "const",
    "enum",
    "not",
    "allOf",
    "anyOf",
    "oneOf",
    "if",
    "then",
    "else",
    "minProperties",
    "maxProperties",
    "required",
    "properties",
    "propertyNames",
    "patternProperties",
    "additionalProperties",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "minItems",
    "maxItems",
    "uniqueItems",
    "prefixItems",
    "items",
    "additionalItems",
    "contains",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "contentEncoding",
    "contentMediaType",
    "minimum",
    "exclusiveMinimum",
    "maximum",
    "exclusiveMaximum",
];

/// The text for the first of `errors` of a value. `root`: the schema, where it is at hand.
pub(super) fn explain(
    errors: &[ValidationError<'_>],
    value: &Value,
    root: Option<&Value>,
    schema: &str,
) -> String {
    let mut lines = vec![format!("I[#] S[#] doesn't validate with {schema:?}")];
    first(errors, value, root, 1, &mut lines);
    lines.join("\n")
}

/// What an instance's type is called.
pub(super) fn type_name(instance: &Value) -> &'static str {
    match instance {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// What a reference into the same schema leads to.
pub(super) fn resolve<'r>(root: &'r Value, reference: &str) -> Option<&'r Value> {
    let pointer = reference.strip_prefix('#')?;
    let plain = percent_encoding::percent_decode_str(pointer).decode_utf8().ok()?;
    root.pointer(&plain)
}

fn first(
    errors: &[ValidationError<'_>],
    value: &Value,
    root: Option<&Value>,
    depth: usize,
    lines: &mut Vec<String>,
) {
    let Some(error) = errors.iter().min_by_key(|error| rank(error)) else {
        return;
    };
    let mut walk = Walk {
        root,
        node: root,
        instance: segments(error.instance_path().as_str()),
        inside: 0,
        pointer: String::new(),
        depth,
        lines,
    };
    walk.to(&segments(error.evaluation_path().as_str()));
    let text = match error.kind() {
        Fault::Required { .. } => missing(errors, error),
        Fault::FalseSchema if walk.pointer.ends_with("/additionalProperties") => {
            surplus(value.pointer(error.instance_path().as_str()))
        }
        _ => message(error),
    };
    walk.line(&text);
    let (root, depth) = (walk.root, walk.depth);
    if let Fault::AnyOf { context } | Fault::OneOfNotValid { context } = error.kind() {
        for branch in context {
            first(branch, value, root, depth + 1, lines);
        }
    }
}

/// The place of a fault in Higress's order.
fn rank(error: &ValidationError<'_>) -> Vec<usize> {
    let mut is_name = false;
    let path = segments(error.evaluation_path().as_str());
    path.into_iter()
        .map(|segment| {
            let named = std::mem::replace(&mut is_name, holds_names(segment));
            if named {
                is_name = false;
                return 0;
            }
            let place = ORDER.iter().position(|keyword| *keyword == segment);
            place.unwrap_or(match segment.parse::<usize>() {
                Ok(_) => 0,
                Err(_) => ORDER.len(),
            })
        })
        .collect()
}

/// Whether the segment behind this keyword is a name of the schema's author.
fn holds_names(keyword: &str) -> bool {
    matches!(
        keyword,
        "properties" | "patternProperties" | "dependencies" | "dependentSchemas" | "definitions" | "$defs"
    )
}

fn segments(pointer: &str) -> Vec<&str> {
    pointer.split('/').skip(1).collect()
}

/// The way from the schema's root to a failing keyword; every detour is a line.
struct Walk<'w, 'r> {
    root: Option<&'r Value>,
    node: Option<&'r Value>,
    /// The failing value's place.
    instance: Vec<&'w str>,
    /// How many of these have been passed.
    inside: usize,
    pointer: String,
    depth: usize,
    lines: &'w mut Vec<String>,
}

impl Walk<'_, '_> {
    fn to(&mut self, path: &[&str]) {
        let mut rest = path;
        while let Some((keyword, behind)) = rest.split_first() {
            rest = behind;
            if *keyword == "$ref" && !rest.is_empty() {
                self.follow();
                continue;
            }
            self.step(keyword);
            if rest.is_empty() {
                break;
            }
            match *keyword {
                "properties" | "patternProperties" => {
                    rest = self.named(rest);
                    self.inside += 1;
                }
                "dependencies" | "dependentSchemas" => rest = self.named(rest),
                "items" | "prefixItems" => {
                    self.inside += 1;
                    if self.node.is_some_and(Value::is_array) {
                        rest = self.named(rest);
                    }
                }
                "additionalProperties"
                | "additionalItems"
                | "contains"
                | "unevaluatedProperties"
                | "unevaluatedItems" => self.inside += 1,
                "allOf" => {
                    rest = self.named(rest);
                    if !rest.is_empty() {
                        self.line("allOf failed");
                        self.depth += 1;
                    }
                }
                "anyOf" | "oneOf" => rest = self.named(rest),
                "then" | "else" => {
                    self.line(&format!("if-{keyword} failed"));
                    self.depth += 1;
                }
                _ => {}
            }
        }
        self.inside = self.instance.len();
    }

    fn named<'p>(&mut self, rest: &'p [&'p str]) -> &'p [&'p str] {
        match rest.split_first() {
            Some((name, behind)) => {
                self.step(name);
                behind
            }
            None => rest,
        }
    }

    fn step(&mut self, segment: &str) {
        self.pointer.push('/');
        self.pointer.push_str(segment);
        let plain = segment.replace("~1", "/").replace("~0", "~");
        self.node = self.node.and_then(|node| match node {
            Value::Array(items) => items.get(plain.parse::<usize>().ok()?),
            other => other.get(&plain),
        });
    }

    fn follow(&mut self) {
        let reference = self
            .node
            .and_then(|node| node.get("$ref"))
            .and_then(Value::as_str);
        let target = reference.unwrap_or("#").to_owned();
        self.pointer.push_str("/$ref");
        self.line(&format!("doesn't validate with {target:?}"));
        self.depth += 1;
        self.node = self.root.and_then(|root| resolve(root, &target));
        let fragment = target.split_once('#').map_or("", |(_, fragment)| fragment);
        self.pointer = fragment.to_owned();
    }

    fn line(&mut self, text: &str) {
        let passed = self.instance.get(..self.inside).unwrap_or(&self.instance);
        let place = passed
            .iter()
            .fold(String::new(), |place, part| place + "/" + part);
        let indent = "  ".repeat(self.depth);
        self.lines
            .push(format!("{indent}I[#{place}] S[#{}] {text}", self.pointer));
    }
}

/// All that is missing from the same object, in one text.
fn missing(errors: &[ValidationError<'_>], error: &ValidationError<'_>) -> String {
    let names = errors.iter().filter_map(|other| match other.kind() {
        Fault::Required { property }
            if other.instance_path() == error.instance_path()
                && other.evaluation_path() == error.evaluation_path() =>
        {
            property.as_str().map(|name| format!("{name:?}"))
        }
        _ => None,
    });
    format!("missing properties: {}", names.collect::<Vec<_>>().join(", "))
}

/// An object that may have no members, and those it has.
fn surplus(object: Option<&Value>) -> String {
    let members = object.and_then(Value::as_object).into_iter().flatten();
    let names: Vec<String> = members.take(20).map(|(name, _)| format!("{name:?}")).collect();
    format!("additionalProperties {} not allowed", names.join(", "))
}

fn message(error: &ValidationError<'_>) -> String {
    let instance = error.instance();
    let length = || instance.as_str().map_or(0, |text| text.chars().count());
    let items = || instance.as_array().map_or(0, Vec::len);
    let members = || instance.as_object().map_or(0, serde_json::Map::len);
    match error.kind() {
        Fault::Custom { message, .. } => message.clone(),
        Fault::Type { kind } => {
            use jsonschema::error::TypeKind;
            let wanted = match kind {
                TypeKind::Single(name) => name.to_string(),
                TypeKind::Multiple(names) => {
                    // Meta-schemas name the object first; the set has lost it.
                    let mut all: Vec<String> = names.iter().map(|name| name.to_string()).collect();
                    all.sort_by_key(|name| name == "boolean");
                    all.join(" or ")
                }
            };
            format!("expected {wanted}, but got {}", type_name(instance))
        }
        Fault::Constant { expected_value } => format!("value must be {}", printed(expected_value)),
        Fault::Enum { options } => {
            let all: Vec<String> = options.as_array().into_iter().flatten().map(printed).collect();
            format!("value must be one of {}", all.join(", "))
        }
        Fault::Not { .. } => "not failed".to_owned(),
        Fault::AnyOf { .. } => "anyOf failed".to_owned(),
        Fault::OneOfNotValid { .. } => "oneOf failed".to_owned(),
        Fault::OneOfMultipleValid { context } => valid_twice(context),
        Fault::MinProperties { limit } => {
            format!(
                "minimum {limit} properties allowed, but found {} properties",
                members()
            )
        }
        Fault::MaxProperties { limit } => {
            format!(
                "maximum {limit} properties allowed, but found {} properties",
                members()
            )
        }
        Fault::AdditionalProperties { unexpected } => {
            let names: Vec<String> = unexpected.iter().map(|name| format!("{name:?}")).collect();
            format!("additionalProperties {} not allowed", names.join(", "))
        }
        Fault::MinItems { limit } => format!("minimum {limit} items allowed, but found {} items", items()),
        Fault::MaxItems { limit } => format!("maximum {limit} items allowed, but found {} items", items()),
        Fault::UniqueItems => equal_items(instance),
        Fault::AdditionalItems { limit } => {
            format!("only {limit} items are allowed, but found {} items", items())
        }
        Fault::Contains => "contains failed".to_owned(),
        Fault::MinLength { limit } => format!("length must be >= {limit}, but got {}", length()),
        Fault::MaxLength { limit } => format!("length must be <= {limit}, but got {}", length()),
        Fault::Pattern { pattern } => format!("does not match pattern {pattern:?}"),
        Fault::Format { format } => {
            format!("{} is not valid {format:?}", printed(instance))
        }
        Fault::Minimum { limit } => format!("must be >= {limit} but found {instance}"),
        Fault::ExclusiveMinimum { limit } => format!("must be > {limit} but found {instance}"),
        Fault::Maximum { limit } => format!("must be <= {limit} but found {instance}"),
        Fault::ExclusiveMaximum { limit } => format!("must be < {limit} but found {instance}"),
        Fault::MultipleOf { multiple_of } => format!("{instance} not multipleOf {multiple_of}"),
        Fault::FalseSchema => "always fail".to_owned(),
        _ => error.to_string(),
    }
}

/// A value as Go prints it: numbers are texts there.
fn printed(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Number(number) => format!("\"{number}\""),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

fn valid_twice(context: &[Vec<ValidationError<'_>>]) -> String {
    let valid = context.iter().enumerate().filter(|(_, faults)| faults.is_empty());
    let mut places = valid.map(|(index, _)| index);
    match (places.next(), places.next()) {
        (Some(one), Some(other)) => format!("valid against schemas at indexes {one} and {other}"),
        _ => "oneOf failed".to_owned(),
    }
}

fn equal_items(instance: &Value) -> String {
    let items = instance.as_array().map(Vec::as_slice).unwrap_or_default();
    // Bounded: the first pair is soon found, and long lists are not searched to their end.
    for (index, item) in items.iter().enumerate().take(1000) {
        if let Some(before) = items.iter().take(index).position(|other| other == item) {
            return format!("items at index {before} and {index} are equal");
        }
    }
    "items are not unique".to_owned()
}
