//! The config of `ai-statistics` in its three generations (plugins spec §1.1, §1.2), and the documented fields.

use std::sync::Arc;

use serde_json::{Map, Value};
use tollgate_base::{ConfigError, headers};
use tollgate_body::path::Path;
use tollgate_llm::lenient::Fields;

use super::attribute::{Attribute, BuiltIn, Places, Rule, ValueSource};
use super::settlement;
use crate::table::{Field, ParseContext, field};

/// Bytes of a value that are kept unless the config says otherwise.
const DEFAULT_VALUE_LIMIT: usize = 32_000;
const FULL_PRESET_VALUE_LIMIT: usize = 10_485_760;
const LIGHT_PRESET_VALUE_LIMIT: usize = 4_000;
/// Beyond this a limit is none.
const MAX_VALUE_LIMIT: u64 = 100 * 1024 * 1024;
/// Paths that the presets look at. Higress leaves the last one out and so counts nothing of the Responses API.
const PRESET_SUFFIXES: [&str; 3] = ["/completions", "/messages", "/responses"];

/// A config, compiled.
#[derive(Debug)]
pub(super) struct Config {
    /// What is recorded.
    pub(super) attributes: Vec<Attribute>,
    /// Some of them take the place of what the vendor's usage gives.
    pub(super) overrides_usage: bool,
    /// Usage and all its metrics are left alone.
    pub(super) without_usage: bool,
    /// Bytes of a value that are kept.
    pub(super) value_limit: usize,
    /// Path ends that are looked at; empty: all.
    path_suffixes: Vec<String>,
    /// Parts of content types that are looked at; empty: all.
    content_types: Vec<String>,
    /// Header with the session's id.
    pub(super) session_header: Option<String>,
    /// The oldest form; also has the older metrics, tags and filter states.
    pub(super) first_generation: Option<FirstGeneration>,
}

/// What only the oldest form has.
#[derive(Debug)]
pub(super) struct FirstGeneration {
    pub(super) spans: Vec<Span>,
}

/// One entry of `tracing_span`.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) key: String,
    pub(super) source: SpanSource,
    pub(super) value: String,
    /// The value as a path.
    pub(super) path: Path,
}

/// Where a `tracing_span` entry takes its value from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SpanSource {
    Property,
    RequestHeader,
    RequestBody,
    ResponseHeader,
}

impl Config {
    /// Compiles a config; `None` is one that switches the plugin off.
    pub(super) fn parse(config: &Value, context: &ParseContext) -> Result<Option<Self>, ConfigError> {
        if !config.is_object() && !config.is_null() {
            return Err(ConfigError::new("", "must be an object"));
        }
        let fields = Fields::of(config);
        let oldest = ["enable", "tracing_span", "tracing_label"];
        let first_generation = if oldest.iter().any(|name| fields.get(name).is_some()) {
            if !fields.flag("enable", false) {
                // Without `enable` the first generation does nothing; who writes only the spans surely wants them.
                if fields.get("enable").is_some() {
                    return Ok(None);
                }
                context.warn(ConfigError::new("enable", "missing: taken as true"));
            }
            Some(first_generation(fields, context))
        } else {
            None
        };
        let preset = Preset::of(fields);
        let attributes = match preset {
            Preset::None => attributes(fields, context)?,
            Preset::Full => Attribute::full_preset(),
            Preset::Light => Attribute::light_preset(),
        };
        Ok(Some(Self {
            overrides_usage: settlement::take_its_place(&attributes),
            attributes,
            without_usage: fields.flag("disable_openai_usage", false),
            value_limit: value_limit(fields, preset)?,
            path_suffixes: match fields.get("enable_path_suffixes") {
                None if preset != Preset::None => PRESET_SUFFIXES.map(str::to_owned).to_vec(),
                _ => all_or(fields.texts("enable_path_suffixes")),
            },
            content_types: all_or(fields.texts("enable_content_types")),
            session_header: session_header(fields)?,
            first_generation,
        }))
    }

    /// Whether requests for this path, without its query, are looked at.
    pub(super) fn wants_path(&self, path: &str) -> bool {
        self.path_suffixes.is_empty()
            || self
                .path_suffixes
                .iter()
                .any(|suffix| path.ends_with(suffix.as_str()))
    }

    /// Whether answers of this type are looked at.
    pub(super) fn wants_content_type<'h>(&self, content_type: impl FnOnce() -> &'h str) -> bool {
        if self.content_types.is_empty() {
            return true;
        }
        let content_type = content_type();
        let mut wanted = self.content_types.iter();
        wanted.any(|part| content_type.contains(part.as_str()))
    }

    /// The attributes that take their value from `source`.
    pub(super) fn attributes_of(&self, source: ValueSource) -> impl Iterator<Item = &Attribute> {
        self.attributes
            .iter()
            .filter(move |attribute| attribute.reads(source))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Preset {
    None,
    Light,
    Full,
}

impl Preset {
    fn of(fields: Fields<'_>) -> Self {
        if fields.flag("use_default_attributes", false) {
            Self::Full
        } else if fields.flag("use_default_response_attributes", false) {
            Self::Light
        } else {
            Self::None
        }
    }
}

/// `*` among the values means that all are wanted.
fn all_or(values: Vec<String>) -> Vec<String> {
    if values.iter().any(|value| value == "*") {
        return Vec::new();
    }
    values
}

fn session_header(fields: Fields<'_>) -> Result<Option<String>, ConfigError> {
    const FIELD: &str = "session_id_header";
    let name = fields.text(FIELD);
    if headers::is_credential(&name) {
        return Err(ConfigError::new(
            FIELD,
            "carries credentials, which are never recorded",
        ));
    }
    Ok(Some(name).filter(|name| !name.is_empty()))
}

fn value_limit(fields: Fields<'_>, preset: Preset) -> Result<usize, ConfigError> {
    let Some(written) = fields.get("value_length_limit") else {
        return Ok(match preset {
            Preset::None => DEFAULT_VALUE_LIMIT,
            Preset::Full => FULL_PRESET_VALUE_LIMIT,
            Preset::Light => LIGHT_PRESET_VALUE_LIMIT,
        });
    };
    let limit = match written {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    limit
        .filter(|limit| *limit <= MAX_VALUE_LIMIT)
        .and_then(|limit| usize::try_from(limit).ok())
        .ok_or_else(|| {
            ConfigError::new(
                "value_length_limit",
                format!("must be a number of bytes from 0 to {MAX_VALUE_LIMIT}"),
            )
        })
}

fn attributes(fields: Fields<'_>, context: &ParseContext) -> Result<Vec<Attribute>, ConfigError> {
    let list = match fields.get("attributes") {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(ConfigError::new("attributes", "must be a list")),
    };
    let parsed = list.iter().enumerate().map(|(position, entry)| {
        let place = format!("attributes[{position}]");
        attribute(entry, context, &place).map_err(|fault| fault.within(&place))
    });
    parsed.collect()
}

fn attribute(entry: &Value, context: &ParseContext, place: &str) -> Result<Attribute, ConfigError> {
    let members = entry
        .as_object()
        .ok_or_else(|| ConfigError::new("", "must be an object"))?;
    let rule = match text(members, "rule")?.as_str() {
        "" => None,
        "first" => Some(Rule::First),
        "replace" => Some(Rule::Replace),
        "append" => Some(Rule::Append),
        _ => {
            let problem = "value of rule must be one of [nil, first, replace, append]";
            return Err(ConfigError::new("rule", problem));
        }
    };
    let key = text(members, "key")?;
    if key.is_empty() {
        context.warn(ConfigError::new("key", "missing").within(place));
    }
    let source = match text(members, "value_source")?.as_str() {
        "" => None,
        name => {
            let known = ValueSource::of_name(name);
            if known.is_none() {
                let problem = format!("{name:?} is no source: the attribute is never set");
                context.warn(ConfigError::new("value_source", problem).within(place));
            }
            Some(known.unwrap_or(ValueSource::Unknown))
        }
    };
    let built_in = BuiltIn::of_key(&key);
    let key = Arc::<str>::from(key);
    if source.is_none() && built_in.is_none() {
        let problem = "missing: the attribute is never set";
        context.warn(ConfigError::new("value_source", problem).within(place));
    }
    if source == Some(ValueSource::ResponseStreamingBody) && rule.is_none() && built_in.is_none() {
        let problem = "missing: nothing is taken from streams";
        context.warn(ConfigError::new("rule", problem).within(place));
    }
    let value = text(members, "value")?;
    Ok(Attribute {
        built_in,
        source,
        places: Places::of(built_in, &value),
        header: value.parse().ok(),
        value,
        default_value: text(members, "default_value")?,
        rule,
        to_log: flag(members, "apply_to_log")?,
        to_span: flag(members, "apply_to_span")?,
        span_key: Some(text(members, "trace_span_key")?).filter(|name| !name.is_empty()),
        separate: flag(members, "as_separate_log_field")?,
        name: key.clone().into(),
        key,
    })
}

fn text(members: &Map<String, Value>, name: &str) -> Result<String, ConfigError> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(ConfigError::new(name, "must be a string")),
    }
}

fn flag(members: &Map<String, Value>, name: &str) -> Result<bool, ConfigError> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(truth)) => Ok(*truth),
        Some(_) => Err(ConfigError::new(name, "must be true or false")),
    }
}

/// Higress's first documentation misspells the list's name and a source; both spellings are read.
fn first_generation(fields: Fields<'_>, context: &ParseContext) -> FirstGeneration {
    let mut spans = Vec::new();
    for list in ["tracing_span", "tracing_label"] {
        for (position, entry) in fields.values(list).into_iter().enumerate() {
            let span = Fields::of(entry);
            let source = match span.text("value_source").as_str() {
                "property" => SpanSource::Property,
                "request_header" | "requeset_header" => SpanSource::RequestHeader,
                "request_body" => SpanSource::RequestBody,
                "response_header" => SpanSource::ResponseHeader,
                other => {
                    let place = format!("{list}[{position}].value_source");
                    let problem = format!("{other:?} is no source: the entry is ignored");
                    context.warn(ConfigError::new(place, problem));
                    continue;
                }
            };
            spans.push(Span {
                key: span.text("key"),
                source,
                path: Path::new(&span.text("value")),
                value: span.text("value"),
            });
        }
    }
    FirstGeneration { spans }
}

/// Fields of the config.
pub(crate) const FIELDS: &[Field] = &[
    field(
        "attributes",
        "list of objects",
        "What is recorded in log and span besides usage. Ignored with a preset.",
    ),
    field(
        "attributes[].key",
        "string",
        "Name of the attribute; some names are built in and need no source.",
    ),
    field(
        "attributes[].value_source",
        "string",
        "fixed_value, request_header, request_body, response_header, response_body or response_streaming_body.",
    ),
    field(
        "attributes[].value",
        "string",
        "The value itself, a header's name or a gjson path.",
    ),
    field(
        "attributes[].default_value",
        "string",
        "Used where nothing is found.",
    ),
    field(
        "attributes[].rule",
        "string",
        "For streams: first, replace (the last) or append. The built-in answer appends by default.",
    ),
    field(
        "attributes[].apply_to_log",
        "boolean",
        "Into ai_log. Default false.",
    ),
    field(
        "attributes[].apply_to_span",
        "boolean",
        "A tag of the span. Default false.",
    ),
    field(
        "attributes[].trace_span_key",
        "string",
        "Name of the tag, if not the key.",
    ),
    field(
        "attributes[].as_separate_log_field",
        "boolean",
        "A filter state of its own, wasm.KEY, instead of a member of ai_log. Default false.",
    ),
    field(
        "use_default_attributes",
        "boolean",
        "The full set: messages, question, system, answer, reasoning, tool_calls and token details.",
    ),
    field(
        "use_default_response_attributes",
        "boolean",
        "The light set: token details only.",
    ),
    field(
        "disable_openai_usage",
        "boolean",
        "No usage and none of its metrics. Default false.",
    ),
    field(
        "value_length_limit",
        "integer",
        "Bytes of a value that are kept. Default 32000; 10485760 and 4000 with the full and the light set.",
    ),
    field(
        "enable_path_suffixes",
        "list of strings",
        "Path ends that are looked at; * is all. Default all; with a set /completions, /messages, /responses.",
    ),
    field(
        "enable_content_types",
        "list of strings",
        "Parts of answer content types that are looked at; * is all. Default all.",
    ),
    field(
        "session_id_header",
        "string",
        "Header with the session's id. Some well-known ones are looked at anyway.",
    ),
    field(
        "enable",
        "boolean",
        "First form of this config: false switches the plugin off.",
    ),
    field(
        "tracing_span",
        "list of objects",
        "First form: tags of the span. tracing_label is read too.",
    ),
    field("tracing_span[].key", "string", "Name of the tag."),
    field(
        "tracing_span[].value_source",
        "string",
        "property, request_header, request_body or response_header.",
    ),
    field(
        "tracing_span[].value",
        "string",
        "A property's or header's name or a gjson path.",
    ),
];
