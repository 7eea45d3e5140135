//! The config (plugins spec §3.1): the model's service, the tools, the words of the prompt.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use serde_json::Value;
use tollgate_base::{ConfigError, Secret};
use tollgate_kinds::yaml;
use tollgate_llm::lenient::Fields;
use tollgate_plugin::cluster_name;

use super::openapi::{Document, Tool};
use super::prompt::Words;
use super::tool_call::escape;
use crate::rounds::Budget;
use crate::table::{Field, ParseContext, field};

/// Annotation that chooses how the model calls tools.
pub(crate) const ANNOTATION: &str = "tollgate.dev/agent";

/// One config.
pub(super) struct Config {
    pub(super) llm: Llm,
    pub(super) apis: Vec<Api>,
    pub(super) words: Words,
    /// The answer is turned into JSON of this schema; `null`: any JSON.
    pub(super) json: Option<Value>,
    /// The model's own function calling instead of ReAct.
    pub(super) native: bool,
}

/// The model's service, for every round but the first.
pub(super) struct Llm {
    /// `None`: the rest of the route's chain.
    pub(super) service: Option<Service>,
    pub(super) model: String,
    pub(super) max_iterations: u64,
    pub(super) time: Duration,
    pub(super) max_tokens: u64,
    pub(super) budget: Budget,
}

/// Where the model is asked.
pub(super) struct Service {
    pub(super) cluster: String,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
}

/// One API and its tools.
pub(super) struct Api {
    pub(super) cluster: String,
    pub(super) authority: HeaderValue,
    /// Path of the server.
    pub(super) base: String,
    pub(super) key: Option<Key>,
    /// The key as it could stand in an answer, to be masked there.
    pub(super) secrets: Vec<Secret>,
    pub(super) time: Duration,
    /// Bytes of an answer that the model gets to see.
    pub(super) answer_limit: usize,
    pub(super) tools: Vec<Tool>,
}

/// The credential of an API.
pub(super) enum Key {
    /// `name=value`, escaped.
    Query(Secret),
    /// `Authorization`.
    Header(HeaderValue),
}

impl Config {
    pub(super) fn parse(written: &Value, context: &ParseContext) -> Result<Self, ConfigError> {
        let fields = Fields::of(written);
        let native = match context.annotation(ANNOTATION) {
            None | Some("react") => false,
            Some("tools") => true,
            Some(other) => {
                let text = format!("{other:?} is not known: `tools` and `react` are");
                context.warn(ConfigError::new(
                    format!("metadata.annotations[{ANNOTATION}]"),
                    text,
                ));
                false
            }
        };
        let listed = fields
            .get("apis")
            .ok_or_else(|| ConfigError::new("", "apis is required"))?;
        let listed = listed.as_array().map(Vec::as_slice).unwrap_or_default();
        if listed.is_empty() {
            return Err(ConfigError::new("", "apis cannot be empty"));
        }
        let mut apis = Vec::new();
        for (index, api) in listed.iter().enumerate() {
            let place = format!("apis[{index}]");
            apis.push(Api::parse(Fields::of(api), &place, context).map_err(|fault| fault.within(&place))?);
        }
        let null = Value::Null;
        let llm = Fields::of(fields.get("llm").unwrap_or(&null));
        Ok(Self {
            llm: Llm::parse(llm).map_err(|fault| fault.within("llm"))?,
            apis,
            words: Words::parse(Fields::of(fields.get("promptTemplate").unwrap_or(&null))),
            json: json_answer(Fields::of(fields.get("jsonResp").unwrap_or(&null)))?,
            native,
        })
    }

    /// All tools with their APIs. Of the same name the last API's counts, in an API the first.
    pub(super) fn find(&self, name: &str) -> Option<(&Api, &Tool)> {
        self.apis.iter().rev().find_map(|api| {
            let tool = api.tools.iter().find(|tool| tool.name == name)?;
            Some((api, tool))
        })
    }
}

impl Llm {
    fn parse(fields: Fields<'_>) -> Result<Self, ConfigError> {
        let name = fields.text("serviceName");
        let default = Budget::default();
        let path = fields.text("path");
        let service = match name.is_empty() {
            true => None,
            false => Some(Service {
                cluster: cluster_name(&name, port(fields).unwrap_or(443)),
                path: if path.starts_with('/') {
                    path
                } else {
                    format!("/{path}")
                },
                headers: headers(fields)?,
            }),
        };
        Ok(Self {
            service,
            model: fields.text("model"),
            max_iterations: or(fields, "maxIterations", 15),
            time: Duration::from_millis(or(fields, "maxExecutionTime", 50_000)),
            max_tokens: or(fields, "maxTokens", 1000),
            budget: Budget {
                time: Duration::from_millis(or(fields, "maxTotalTime", millis(default.time))),
                tokens: or(fields, "maxTotalTokens", default.tokens),
            },
        })
    }
}

fn headers(fields: Fields<'_>) -> Result<HeaderMap, ConfigError> {
    let mut headers = HeaderMap::new();
    let value = |field: &str, text: String| {
        HeaderValue::try_from(text)
            .map_err(|_| ConfigError::new(field, "holds characters that no header can hold"))
    };
    headers.insert(http::header::HOST, value("domain", fields.text("domain"))?);
    let mut key = value("apiKey", format!("Bearer {}", fields.text("apiKey")))?;
    key.set_sensitive(true);
    headers.insert(http::header::AUTHORIZATION, key);
    Ok(headers)
}

impl Api {
    fn parse(fields: Fields<'_>, place: &str, context: &ParseContext) -> Result<Self, ConfigError> {
        let null = Value::Null;
        let provider = Fields::of(fields.get("apiProvider").unwrap_or(&null));
        let required = |name: &str| {
            let fault = || ConfigError::new("apiProvider", format!("apiProvider {name} is required"));
            Some(provider.text(name))
                .filter(|text| !text.is_empty())
                .ok_or_else(fault)
        };
        let name = required("serviceName")?;
        let port = port(provider)
            .ok_or_else(|| ConfigError::new("apiProvider", "apiProvider servicePort is required"))?;
        let domain = required("domain")?;
        let text = fields.text("api");
        if text.is_empty() {
            return Err(ConfigError::new("api", "api is required"));
        }
        let document = Document::parse(&text).map_err(|fault| fault.within("api"))?;
        for warning in document.warnings {
            context.warn(warning.within(&format!("{place}.api")));
        }
        let authority = HeaderValue::try_from(document.authority.unwrap_or(domain))
            .map_err(|_| ConfigError::new("api", "servers[0].url has no usable host"))?;
        let (key, secrets) = key(Fields::of(provider.get("apiKey").unwrap_or(&null)))?;
        Ok(Self {
            cluster: cluster_name(&name, port),
            authority,
            base: document.base,
            key,
            secrets,
            time: Duration::from_millis(or(provider, "maxExecutionTime", 50_000)),
            answer_limit: usize::try_from(or(provider, "maxResponseSize", 64 * 1024)).unwrap_or(usize::MAX),
            tools: document.tools,
        })
    }
}

fn key(fields: Fields<'_>) -> Result<(Option<Key>, Vec<Secret>), ConfigError> {
    let (name, value) = (fields.text("name"), fields.text("value"));
    if name.is_empty() {
        return Ok((None, Vec::new()));
    }
    let mut secrets = vec![Secret::new(escape(&value)), Secret::new(value.clone())];
    secrets.retain(|secret| secret.expose().len() >= 4);
    let key = match fields.text("in").as_str() {
        "query" => Some(Key::Query(Secret::new(format!(
            "{}={}",
            escape(&name),
            escape(&value)
        )))),
        "header" => {
            let mut header = HeaderValue::try_from(format!("{name} {value}")).map_err(|_| {
                ConfigError::new("apiProvider.apiKey", "holds characters that no header can hold")
            })?;
            header.set_sensitive(true);
            Some(Key::Header(header))
        }
        _ => None,
    };
    Ok((key, secrets))
}

/// The schema of JSON answers; Higress's page writes it as text.
fn json_answer(fields: Fields<'_>) -> Result<Option<Value>, ConfigError> {
    if !fields.flag("enable", false) {
        return Ok(None);
    }
    let schema = match fields.get("jsonSchema") {
        Some(Value::String(text)) => match yaml::parse(text, 1).into_iter().next() {
            Some(Ok(parsed)) => parsed.value,
            Some(Err(fault)) => return Err(ConfigError::new("jsonResp.jsonSchema", fault.message)),
            None => Value::Null,
        },
        Some(other) => other.clone(),
        None => Value::Null,
    };
    Ok(Some(schema))
}

fn port(fields: Fields<'_>) -> Option<u16> {
    u16::try_from(fields.count("servicePort"))
        .ok()
        .filter(|port| *port > 0)
}

fn or(fields: Fields<'_>, name: &str, default: u64) -> u64 {
    Some(fields.count(name))
        .filter(|count| *count > 0)
        .unwrap_or(default)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Fields of the config.
pub(crate) const FIELDS: &[Field] = &[
    field(
        "llm.serviceName",
        "string",
        "Service of the model for all rounds but the first, with its registry's suffix; empty: the rest of the route's chain.",
    ),
    field("llm.servicePort", "integer", "Its port. Default 443."),
    field("llm.domain", "string", "Host that it is asked for."),
    field("llm.path", "string", "Path of its chat completions."),
    field("llm.apiKey", "string", "Its bearer token."),
    field(
        "llm.model",
        "string",
        "Its model; empty, through the chain: the client's.",
    ),
    field(
        "llm.maxIterations",
        "integer",
        "Tool calls for one request. Default 15.",
    ),
    field(
        "llm.maxExecutionTime",
        "integer",
        "Milliseconds for each call of the model. Default 50000.",
    ),
    field(
        "llm.maxTokens",
        "integer",
        "max_tokens of each call of the model. Default 1000.",
    ),
    field(
        "llm.maxTotalTime",
        "integer",
        "Milliseconds for all rounds together. Default 300000.",
    ),
    field(
        "llm.maxTotalTokens",
        "integer",
        "Tokens that all rounds together may cost. Default 200000.",
    ),
    field("apis", "list of object", "The tools. Required."),
    field(
        "apis[].apiProvider.serviceName",
        "string",
        "Service of the API, with its registry's suffix. Required.",
    ),
    field("apis[].apiProvider.servicePort", "integer", "Its port. Required."),
    field(
        "apis[].apiProvider.domain",
        "string",
        "Its host, where the document's server names none. Required.",
    ),
    field(
        "apis[].apiProvider.apiKey",
        "object",
        "in (query or header), name, value: credential of the API; in a header the name is the scheme (Bearer).",
    ),
    field(
        "apis[].apiProvider.maxExecutionTime",
        "integer",
        "Milliseconds for each call. Default 50000.",
    ),
    field(
        "apis[].apiProvider.maxResponseSize",
        "integer",
        "Bytes of an answer that the model gets to see; the rest is cut. Default 65536.",
    ),
    field(
        "apis[].api",
        "string",
        "OpenAPI document as YAML; operations with get and post are tools. Required.",
    ),
    field("promptTemplate.language", "string", "EN (default) or CH."),
    field(
        "promptTemplate.enTemplate",
        "object",
        "question, thought1, observation, thought2: words of the English prompt.",
    ),
    field(
        "promptTemplate.chTemplate",
        "object",
        "The same for the Chinese one.",
    ),
    field(
        "jsonResp",
        "object",
        "enable (false), jsonSchema: the answer is turned into JSON by one more call of the model.",
    ),
    field("returnResponseTemplate", "string", "Accepted; never needed."),
];
