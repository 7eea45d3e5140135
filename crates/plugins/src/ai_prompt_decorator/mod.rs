//! `ai-prompt-decorator`: messages in front of and behind a conversation, and replacements in all of them (plugins
//! spec §10).
//!
//! Only `messages` changes; a message that no rule touches keeps its bytes.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use regex::Regex;
use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_base::{ConfigError, Error};
use tollgate_body::{JsonBodyError, JsonDocument, Request, Response, path};
use tollgate_observe::Record;
use tollgate_plugin::{Exchange, Next, Plugin};

use crate::table::{Field, ParseContext};

/// Name and size of the limit on requests that are read.
const BODY_LIMIT_NAME: &str = "ai-prompt-decorator body limit";
const BODY_LIMIT: usize = 100 * 1024 * 1024;
/// Variables of a message, and the property that each one stands for.
const VARIABLES: [(&str, &str); 4] = [
    ("${geo-country}", "wasm.geo-country"),
    ("${geo-province}", "wasm.geo-province"),
    ("${geo-city}", "wasm.geo-city"),
    ("${geo-isp}", "wasm.geo-isp"),
];

/// Fields of the config.
pub(crate) const FIELDS: &[Field] = &[
    Field {
        name: "prepend",
        kind: "list of object",
        doc: "role and content of messages in front of the conversation. ${geo-country}, ${geo-province}, ${geo-city} and ${geo-isp} in them are replaced by what geo-ip found.",
    },
    Field {
        name: "append",
        kind: "list of object",
        doc: "The same behind it.",
    },
    Field {
        name: "replace",
        kind: "list of object",
        doc: "pattern, replacement, regex (false), on_role (every role): replacements in all messages whose content is text, in order.",
    },
];

/// Compiles one config; a rule stands alone.
pub(crate) fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    _: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    let written = rule
        .or(global)
        .filter(|config| !config.is_null())
        .cloned()
        .unwrap_or_else(|| json!({}));
    let config: Written =
        serde_json::from_value(written).map_err(|fault| ConfigError::new("", fault.to_string()))?;
    let rules = config.replace.unwrap_or_default().into_iter().enumerate();
    Ok(Arc::new(AiPromptDecorator {
        prepend: config.prepend.unwrap_or_default(),
        append: config.append.unwrap_or_default(),
        rules: rules
            .map(|(index, rule)| Rule::parse(index, rule))
            .collect::<Result<_, _>>()?,
    }))
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Written {
    prepend: Option<Vec<Message>>,
    append: Option<Vec<Message>>,
    replace: Option<Vec<WrittenRule>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Message {
    role: String,
    content: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WrittenRule {
    on_role: String,
    pattern: String,
    replacement: String,
    regex: bool,
}

/// One replacement.
struct Rule {
    role: String,
    pattern: Pattern,
    replacement: String,
}

enum Pattern {
    Text(String),
    Expression(Regex),
}

impl Rule {
    fn parse(index: usize, written: WrittenRule) -> Result<Self, ConfigError> {
        let field = format!("replace[{index}].pattern");
        if written.pattern.is_empty() {
            return Err(ConfigError::new(field, "must not be empty"));
        }
        let pattern = match written.regex {
            false => Pattern::Text(written.pattern),
            true => {
                let compiled = Regex::new(&written.pattern);
                let fault =
                    |fault: regex::Error| ConfigError::new(field, format!("is not a valid regex: {fault}"));
                Pattern::Expression(compiled.map_err(fault)?)
            }
        };
        Ok(Self {
            role: written.on_role,
            pattern,
            replacement: written.replacement,
        })
    }

    fn apply<'t>(&self, role: &str, text: Cow<'t, str>) -> Cow<'t, str> {
        if !self.role.is_empty() && self.role != role {
            return text;
        }
        let replaced = match &self.pattern {
            Pattern::Text(pattern) if text.contains(pattern.as_str()) => {
                text.replace(pattern.as_str(), &self.replacement)
            }
            Pattern::Text(_) => return text,
            Pattern::Expression(expression) => match expression.replace_all(&text, self.replacement.as_str())
            {
                Cow::Borrowed(_) => return text,
                Cow::Owned(replaced) => replaced,
            },
        };
        Cow::Owned(replaced)
    }
}

/// The plugin with one config.
struct AiPromptDecorator {
    prepend: Vec<Message>,
    append: Vec<Message>,
    rules: Vec<Rule>,
}

#[async_trait(?Send)]
impl Plugin for AiPromptDecorator {
    async fn call(
        &self,
        exchange: &mut Exchange,
        mut request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        let is_idle = self.prepend.is_empty() && self.append.is_empty() && self.rules.is_empty();
        if is_idle || http_body::Body::is_end_stream(request.body()) {
            return next.run(exchange, request).await;
        }
        exchange.buffer_limit = exchange.buffer_limit.max(BODY_LIMIT);
        match request.body_mut().json(BODY_LIMIT_NAME, BODY_LIMIT).await {
            Ok(document) => {
                if let Some(messages) = self.decorated(&exchange.record, document)
                    && let Err(fault) = document.set_raw("messages", messages)
                {
                    tracing::debug!(%fault, "ai-prompt-decorator: messages stay as they are");
                }
                request.headers_mut().remove(http::header::CONTENT_LENGTH);
            }
            Err(JsonBodyError::NotJson(_)) => {}
            Err(JsonBodyError::Unread(failure)) => return Err(failure),
        }
        next.run(exchange, request).await
    }
}

impl AiPromptDecorator {
    /// The new list; `None`: there is none to change, or a variable has no value.
    fn decorated(&self, record: &Record, document: &JsonDocument) -> Option<String> {
        let messages = document.get("messages").filter(path::PathValue::is_array)?;
        let mut list = Vec::new();
        for message in &self.prepend {
            list.push(self.own(record, message)?);
        }
        for message in messages.array() {
            list.push(self.theirs(message.raw()));
        }
        for message in &self.append {
            list.push(self.own(record, message)?);
        }
        Some(format!("[{}]", list.join(",")))
    }

    fn own(&self, record: &Record, message: &Message) -> Option<String> {
        let mut text = Cow::Borrowed(message.content.as_str());
        for (variable, property) in VARIABLES {
            if text.contains(variable) {
                let state = record.filter_state.borrow();
                let Some((_, value)) = state.iter().find(|entry| entry.0 == property) else {
                    tracing::debug!(
                        property,
                        "ai-prompt-decorator: not known, the prompt stays as it is"
                    );
                    return None;
                };
                text = Cow::Owned(text.replace(variable, value));
            }
        }
        let text = self.replaced(&message.role, text);
        Some(json!({"role": message.role, "content": text}).to_string())
    }

    /// A message of the client: changed only where its content is text.
    fn theirs(&self, raw: &str) -> String {
        let content = path::get(raw, "content").filter(|content| content.kind() == path::ValueKind::String);
        let Some(content) = content.filter(|_| !self.rules.is_empty()) else {
            return raw.to_owned();
        };
        let role = path::get(raw, "role")
            .map(|role| role.text().into_owned())
            .unwrap_or_default();
        let before = content.text();
        match self.replaced(&role, Cow::Borrowed(&before)) {
            Cow::Borrowed(_) => raw.to_owned(),
            Cow::Owned(after) => path::set_str(raw, "content", &after).unwrap_or_else(|_| raw.to_owned()),
        }
    }

    fn replaced<'t>(&self, role: &str, text: Cow<'t, str>) -> Cow<'t, str> {
        self.rules.iter().fold(text, |text, rule| rule.apply(role, text))
    }
}
