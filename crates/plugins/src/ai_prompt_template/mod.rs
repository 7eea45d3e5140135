//! `ai-prompt-template`: a request that names a template and its values becomes the filled template (plugins spec §11).
//!
//! Values are data: they fill the place of a placeholder and cannot change the JSON around it.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tollgate_base::{ConfigError, Error};
use tollgate_body::path::{PathValue, ValueKind};
use tollgate_body::{Body, JsonBodyError, Request, Response};
use tollgate_llm::lenient::Fields;
use tollgate_plugin::{Exchange, Next, Plugin};

use crate::table::{Field, ParseContext};

/// Name and size of the limit on requests that are read.
const BODY_LIMIT_NAME: &str = "ai-prompt-template body limit";
const BODY_LIMIT: usize = 100 * 1024 * 1024;
/// Header that leaves a request as it is.
const SWITCH: &str = "template-enable";

/// Fields of the config.
pub(crate) const FIELDS: &[Field] = &[
    Field {
        name: "templates",
        kind: "list of object",
        doc: "Templates by name; of the same name the last counts.",
    },
    Field {
        name: "templates[].name",
        kind: "string",
        doc: "Name that a request's template field gives.",
    },
    Field {
        name: "templates[].template",
        kind: "object",
        doc: "The request body, {{key}} in it stands for the request's properties.key.",
    },
];

/// Compiles one config; a rule stands alone.
pub(crate) fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    _: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    let fields = Fields::of(rule.or(global).unwrap_or(&Value::Null));
    let mut templates = HashMap::new();
    for written in fields.values("templates") {
        let entry = Fields::of(written);
        let text = match entry.get("template") {
            Some(Value::String(text)) => text.clone(),
            Some(template) => template.to_string(),
            None => String::new(),
        };
        templates.insert(entry.text("name"), Template::parse(&text));
    }
    Ok(Arc::new(AiPromptTemplate { templates }))
}

/// A text with places to fill.
struct Template(Vec<Part>);

enum Part {
    Text(String),
    /// `{{key}}`; whether it stands inside a JSON string.
    Place {
        key: String,
        in_string: bool,
    },
}

impl Template {
    fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let (mut rest, mut in_string) = (text, false);
        while let Some((before, behind)) = rest.split_once("{{") {
            in_string = ends_in_string(before, in_string);
            let Some((key, after)) = behind.split_once("}}") else {
                break;
            };
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Place {
                key: key.to_owned(),
                in_string,
            });
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Self(parts)
    }

    fn fill(&self, properties: &PathValue<'_>) -> String {
        let values: HashMap<String, PathValue<'_>> = properties
            .entries()
            .filter_map(|(key, value)| Some((key?.text().into_owned(), value)))
            .collect();
        let mut filled = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Place { key, in_string } => match values.get(key) {
                    Some(value) => filled.push_str(&written(value, *in_string)),
                    None => filled.push_str(&format!("{{{{{key}}}}}")),
                },
            }
        }
        filled
    }
}

/// Whether a JSON text that begins inside (or outside) of a string ends inside of one.
fn ends_in_string(text: &str, begins: bool) -> bool {
    let (mut in_string, mut is_escaped) = (begins, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            _ => {}
        }
    }
    in_string
}

/// A value as it may stand in the template.
fn written(value: &PathValue<'_>, in_string: bool) -> String {
    let text = value.text();
    let quoted = Value::from(text.as_ref()).to_string();
    if in_string {
        let inside = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        return inside.unwrap_or_default().to_owned();
    }
    // A text where a value must stand: one that is a value itself, else a string.
    let is_value = value.kind() != ValueKind::String || crate::go_json::check(text.as_bytes()).is_ok();
    if is_value { text.into_owned() } else { quoted }
}

/// The plugin with one config.
struct AiPromptTemplate {
    templates: HashMap<String, Template>,
}

#[async_trait(?Send)]
impl Plugin for AiPromptTemplate {
    async fn call(
        &self,
        exchange: &mut Exchange,
        mut request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        let is_off = request
            .headers()
            .get(SWITCH)
            .is_some_and(|value| value == "false");
        if is_off || self.templates.is_empty() || http_body::Body::is_end_stream(request.body()) {
            return next.run(exchange, request).await;
        }
        exchange.buffer_limit = exchange.buffer_limit.max(BODY_LIMIT);
        let filled = match request.body_mut().json(BODY_LIMIT_NAME, BODY_LIMIT).await {
            Ok(document) => match (document.get("template"), document.get("properties")) {
                (Some(name), Some(properties)) => {
                    let found = self.templates.get(name.text().as_ref());
                    if found.is_none() {
                        crate::rounds::count(exchange, "ai-prompt-template", "unknown_template");
                    }
                    found.map(|template| template.fill(&properties))
                }
                _ => None,
            },
            Err(JsonBodyError::NotJson(_)) => None,
            Err(JsonBodyError::Unread(failure)) => return Err(failure),
        };
        if let Some(text) = filled {
            request.headers_mut().remove(http::header::CONTENT_LENGTH);
            *request.body_mut() = Body::bytes(text);
        }
        next.run(exchange, request).await
    }
}
