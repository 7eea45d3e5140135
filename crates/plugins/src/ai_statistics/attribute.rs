//! Attributes: what a config wants recorded, where its value comes from, and where it goes (plugins spec §1.3).

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::header::AsHeaderName;
use http::{HeaderMap, HeaderName};
use serde_json::{Number, Value};
use tollgate_body::path::{Path, PathValue, ValueKind};
use tollgate_body::to_text;
use tollgate_observe::access_log::escaped;
use tollgate_observe::conversation::LAST_CONTENT;
use tollgate_observe::{AttributeName, Record};

use super::text::shortened;

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueSource {
    Fixed,
    RequestHeader,
    RequestBody,
    ResponseHeader,
    ResponseBody,
    ResponseStreamingBody,
    /// A name that is no source.
    Unknown,
}

impl ValueSource {
    pub(super) fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            "fixed_value" => Self::Fixed,
            "request_header" => Self::RequestHeader,
            "request_body" => Self::RequestBody,
            "response_header" => Self::ResponseHeader,
            "response_body" => Self::ResponseBody,
            "response_streaming_body" => Self::ResponseStreamingBody,
            _ => return None,
        })
    }
}

/// What a stream's events make of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    First,
    Replace,
    Append,
}

/// Keys that need no source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BuiltIn {
    Question,
    System,
    Answer,
    Reasoning,
    ToolCalls,
    ReasoningTokens,
    CachedTokens,
    InputTokenDetails,
    OutputTokenDetails,
}

impl BuiltIn {
    pub(super) fn of_key(key: &str) -> Option<Self> {
        Some(match key {
            "question" => Self::Question,
            "system" => Self::System,
            "answer" => Self::Answer,
            "reasoning" => Self::Reasoning,
            "tool_calls" => Self::ToolCalls,
            "reasoning_tokens" => Self::ReasoningTokens,
            "cached_tokens" => Self::CachedTokens,
            "input_token_details" => Self::InputTokenDetails,
            "output_token_details" => Self::OutputTokenDetails,
            _ => return None,
        })
    }

    /// Whether a value comes from `source` where the config names none.
    fn reads(self, source: ValueSource) -> bool {
        match self {
            Self::Question | Self::System => source == ValueSource::RequestBody,
            _ => matches!(
                source,
                ValueSource::ResponseBody | ValueSource::ResponseStreamingBody
            ),
        }
    }

    /// Paths in a request body or a whole answer, the first that gives something.
    fn body_paths(self) -> &'static [&'static str] {
        match self {
            Self::Question => &[LAST_CONTENT],
            Self::System => &["system"],
            Self::Answer => &["choices.0.message.content", "content.0.text"],
            Self::Reasoning => &["choices.0.message.reasoning_content"],
            Self::ToolCalls => &["choices.0.message.tool_calls"],
            _ => &[],
        }
    }

    /// Paths in an event of a stream.
    fn event_paths(self) -> &'static [&'static str] {
        match self {
            Self::Answer => &["choices.0.delta.content", "delta.text"],
            Self::Reasoning => &["choices.0.delta.reasoning_content"],
            _ => &[],
        }
    }
}

/// Where an attribute's value lies in JSON, if it comes from there.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The config's own path.
    pub(super) own: Option<Path>,
    /// Those of its built-in in a request or a whole answer, the first that gives something.
    pub(super) of_body: Vec<Path>,
    /// Those in an event of a stream.
    pub(super) of_event: Vec<Path>,
}

impl Places {
    pub(super) fn of(built_in: Option<BuiltIn>, value: &str) -> Self {
        // Where the config's own path gives nothing, the same path gives nothing again.
        let all = |paths: &[&str]| {
            let others = paths.iter().filter(|path| **path != value);
            others.map(|path| Path::new(path)).collect()
        };
        Self {
            own: (!value.is_empty()).then(|| Path::new(value)),
            of_body: all(built_in.map_or(&[], BuiltIn::body_paths)),
            of_event: all(built_in.map_or(&[], BuiltIn::event_paths)),
        }
    }
}

/// One attribute of a config.
#[derive(Debug)]
pub(super) struct Attribute {
    pub(super) key: Arc<str>,
    /// The key as the log knows it.
    pub(super) name: AttributeName,
    pub(super) built_in: Option<BuiltIn>,
    /// `None`: where its built-in says.
    pub(super) source: Option<ValueSource>,
    /// The value or a header's name; may be empty for a built-in.
    pub(super) value: String,
    /// The value as a header's name, if it can be one.
    pub(super) header: Option<HeaderName>,
    pub(super) places: Places,
    pub(super) default_value: String,
    pub(super) rule: Option<Rule>,
    pub(super) to_log: bool,
    pub(super) to_span: bool,
    pub(super) span_key: Option<String>,
    pub(super) separate: bool,
}

impl Attribute {
    fn logged(key: &str) -> Self {
        let built_in = BuiltIn::of_key(key);
        let key = Arc::<str>::from(key);
        Self {
            name: key.clone().into(),
            key,
            built_in,
            source: None,
            value: String::new(),
            header: None,
            places: Places::of(built_in, ""),
            default_value: String::new(),
            rule: None,
            to_log: true,
            to_span: false,
            span_key: None,
            separate: false,
        }
    }

    /// `use_default_attributes`
    pub(super) fn full_preset() -> Vec<Self> {
        let messages = Self {
            source: Some(ValueSource::RequestBody),
            places: Places::of(None, "messages"),
            ..Self::logged("messages")
        };
        let built_in = ["question", "system", "answer", "reasoning", "tool_calls"].map(Self::logged);
        let mut all = vec![messages];
        all.extend(built_in);
        all.extend(Self::light_preset());
        all
    }

    /// `use_default_response_attributes`
    pub(super) fn light_preset() -> Vec<Self> {
        [
            "reasoning_tokens",
            "cached_tokens",
            "input_token_details",
            "output_token_details",
        ]
        .map(Self::logged)
        .into()
    }

    /// Whether its value comes from `source`.
    pub(super) fn reads(&self, source: ValueSource) -> bool {
        match (self.source, self.built_in) {
            (Some(own), _) => own == source,
            (None, Some(built_in)) => built_in.reads(source),
            (None, None) => false,
        }
    }

    /// The value of the header that it names.
    pub(super) fn in_headers(&self, record: &Record, headers: &HeaderMap) -> Value {
        let name = self.header.as_ref();
        let value = name.and_then(|name| header(record, headers, name));
        value.map_or(Value::Null, Value::from)
    }

    /// Records what was found in a body: a text that goes into the log as it is stays where it lies.
    pub(super) fn put_found(&self, record: &Record, found: Found, limit: usize) {
        match found {
            Found::Part(text) if self.to_log && !self.to_span && !self.separate && text.len() <= limit => {
                record.set_ai_log_part(self.name.clone(), text);
            }
            Found::Part(text) => self.put(record, to_text(&text).into(), limit),
            Found::Value(value) => self.put(record, value, limit),
        }
    }

    /// Records a value: the default where there is none, shortened where it is too long.
    pub(super) fn put(&self, record: &Record, found: Value, limit: usize) {
        let value = if is_nothing(&found) && !self.default_value.is_empty() {
            Value::from(self.default_value.as_str())
        } else {
            found
        };
        if self.to_span {
            let text = text_of(&value);
            if !text.is_empty() {
                let name = self
                    .span_key
                    .clone()
                    .unwrap_or_else(|| self.key.as_ref().to_owned());
                record.set_span_tag(name, text.into_owned());
            }
        }
        if !self.to_log {
            return;
        }
        if self.separate {
            let text = text_of(&value);
            let kept = shortened(&text, limit).unwrap_or_else(|| text.into_owned());
            record.set_filter_state(format!("wasm.{}", self.key), escaped(&kept));
            return;
        }
        let is_long = match &value {
            Value::String(text) => text.len() > limit,
            Value::Array(_) | Value::Object(_) => true,
            _ => false,
        };
        let kept = is_long.then(|| shortened(&text_of(&value), limit)).flatten();
        record.set_ai_log(self.name.clone(), kept.map_or(value, Value::from));
    }
}

/// What was found in a body.
#[derive(Debug)]
pub(super) enum Found {
    Value(Value),
    /// A text without escapes, not empty, as a part of the body.
    Part(Bytes),
}

impl Found {
    /// What a path led to in `body`.
    pub(super) fn of(found: &PathValue<'_>, body: &Bytes) -> Self {
        match found.part_of(body).filter(|text| !text.is_empty()) {
            Some(text) => Self::Part(text),
            None => Self::Value(typed(found)),
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Self::Value(value) if is_nothing(value))
    }
}

/// Nothing was found: null or an empty text.
pub(super) fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// A value as text: a string itself, nothing for null, JSON for anything else.
pub(super) fn text_of(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => Cow::Borrowed(""),
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

/// A value that a path led to, with its type; what is broken stays a text.
pub(super) fn typed(found: &PathValue<'_>) -> Value {
    match found.kind() {
        ValueKind::Null => Value::Null,
        ValueKind::True => Value::Bool(true),
        ValueKind::False => Value::Bool(false),
        ValueKind::String => Value::String(found.text().into_owned()),
        ValueKind::Number => number(found).map_or(Value::Null, Value::Number),
        ValueKind::Json => found
            .to_value()
            .unwrap_or_else(|| Value::String(found.raw().to_owned())),
    }
}

fn number(found: &PathValue<'_>) -> Option<Number> {
    let plain: Option<Number> = found.raw().parse().ok();
    plain.or_else(|| Number::from_f64(found.float()))
}

/// A header's value; credentials are masked.
pub(super) fn header<N>(record: &Record, headers: &HeaderMap, name: N) -> Option<String>
where
    N: AsHeaderName + AsRef<str> + Copy,
{
    let value = headers.get(name)?;
    if record.hides(name.as_ref(), value) {
        return Some("***".to_owned());
    }
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}
