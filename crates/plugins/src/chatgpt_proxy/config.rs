//! The config of `chatgpt-proxy`, and the documented fields.

use http::{HeaderValue, Uri};
use serde_json::Value;
use tollgate_base::ConfigError;
use tollgate_llm::lenient::Fields;

use crate::table::{Field, field};

const DEFAULT_URI: &str = "api.openai.com/v1/completions";

/// One config.
pub(super) struct Config {
    pub(super) model: String,
    pub(super) parameter: String,
    /// Path of the model service.
    pub(super) target: Uri,
    pub(super) host: HeaderValue,
    pub(super) authorization: HeaderValue,
    pub(super) human: String,
    pub(super) machine: String,
}

impl Config {
    pub(super) fn parse(config: &Value) -> Result<Self, ConfigError> {
        let fields = Fields::of(config);
        let or = |name: &str, default: &str| match fields.text(name) {
            text if text.is_empty() => default.to_owned(),
            text => text,
        };
        let key = fields.text("apiKey");
        if key.is_empty() {
            return Err(ConfigError::new("apiKey", "no apiKey found in config"));
        }
        let mut authorization = HeaderValue::try_from(format!("Bearer {key}"))
            .map_err(|_| ConfigError::new("apiKey", "cannot be sent in a header"))?;
        authorization.set_sensitive(true);
        let (target, host) = service(&or("chatgptUri", DEFAULT_URI))?;
        Ok(Self {
            model: or("model", "text-davinci-003"),
            parameter: or("promptParam", "prompt"),
            target,
            host,
            authorization,
            human: or("HumanId", &or("HumainId", "Human:")),
            machine: or("AIId", "AI:"),
        })
    }
}

/// Path and host of the service; the scheme may be missing.
fn service(written: &str) -> Result<(Uri, HeaderValue), ConfigError> {
    let wrong = |text: &str| ConfigError::new("chatgptUri", text);
    let without_scheme = written.split_once("://").map_or(written, |(_, rest)| rest);
    let (host, path) = match without_scheme.split_once('/') {
        Some((_, "")) | None => return Err(wrong("not found path in chatgptUri")),
        Some((host, path)) => (host, path),
    };
    if host.is_empty() {
        return Err(wrong("not found host in chatgptUri"));
    }
    let host = HeaderValue::from_str(host).map_err(|_| wrong("not found host in chatgptUri"))?;
    let target = Uri::try_from(format!("/{path}")).map_err(|_| wrong("not found path in chatgptUri"))?;
    Ok((target, host))
}

/// Fields of the config.
pub(crate) const FIELDS: &[Field] = &[
    field("apiKey", "string", "Key of the model service. Required."),
    field("model", "string", "Model; text-davinci-003 unless set."),
    field(
        "promptParam",
        "string",
        "Parameter of the URL that is the prompt; prompt unless set.",
    ),
    field(
        "chatgptUri",
        "string",
        "Host and path of the service, with or without a scheme; api.openai.com/v1/completions unless set.",
    ),
    field(
        "HumanId",
        "string",
        "Name of the human, at which the model stops; Human: unless set. HumainId is read too.",
    ),
    field(
        "AIId",
        "string",
        "Name of the model, at which it stops; AI: unless set.",
    ),
];
