//! The config (plugins spec §2.1). Higress never refuses one: what is wrong with it is told to every request.

use std::time::Duration;

use http::HeaderValue;
use jsonschema::Draft;
use serde_json::Value;
use tollgate_base::{ConfigError, Secret};
use tollgate_llm::lenient::Fields;

use super::schema::{self, Schema};
use crate::rounds::Budget;
use crate::table::{Field, ParseContext, field};

/// Annotation that sends the rounds through the rest of the chain.
pub(crate) const ANNOTATION: &str = "tollgate.dev/json-resp";
/// Depth up to which a schema is compiled, the root counted as 1.
const MAX_DEPTH: usize = 6;

/// One config.
pub(super) struct Config {
    pub(super) service: Option<Service>,
    pub(super) timeout: Duration,
    pub(super) max_retry: u64,
    pub(super) content_path: String,
    /// The schema as JSON for the repair's prompt; `null` without one.
    pub(super) schema_text: String,
    pub(super) schema: Option<Schema>,
    pub(super) disposition: bool,
    pub(super) budget: Budget,
    /// What every request gets instead.
    pub(super) reject: Option<Reject>,
}

/// The endpoint that is asked.
pub(super) struct Service {
    /// Names of the cluster to try, in order.
    pub(super) clusters: Vec<String>,
    pub(super) authority: String,
    pub(super) path: Option<String>,
    pub(super) authorization: Option<HeaderValue>,
}

/// A code and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reject {
    pub(super) code: u32,
    pub(super) message: String,
}

impl Reject {
    pub(super) fn new(code: u32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl Config {
    pub(super) fn parse(written: &Value, context: &ParseContext) -> Result<Self, ConfigError> {
        let fields = Fields::of(written);
        let through_chain = match context.annotation(ANNOTATION) {
            None => false,
            Some("chain") => true,
            Some(other) => {
                let text = format!("{other:?} is not known: only `chain` is");
                context.warn(ConfigError::new(
                    format!("metadata.annotations[{ANNOTATION}]"),
                    text,
                ));
                false
            }
        };
        let (domain, path) = endpoint(fields);
        let mut reject = None;
        if domain.is_empty() && !through_chain {
            reject = Some(Reject::new(1001, "service domain is empty"));
        }
        let (schema, fault) = schema_of(fields, context);
        let name = fields.text("serviceName");
        let key = Secret::new(fields.text("apiKey"));
        let authorization = bearer(&key).map_err(|fault| fault.within("apiKey"))?;
        let service = (!name.is_empty() && !through_chain).then(|| Service {
            clusters: clusters(&name, port(fields)),
            authority: domain,
            path: (!path.is_empty()).then_some(path),
            authorization,
        });
        let or = |name: &str, default: u64| Some(fields.count(name)).filter(|n| *n > 0).unwrap_or(default);
        let content_path = Some(fields.text("contentPath")).filter(|path| !path.is_empty());
        let default = Budget::default();
        Ok(Self {
            service,
            timeout: Duration::from_millis(or("serviceTimeout", 50_000)),
            max_retry: or("maxRetry", 3),
            content_path: content_path.unwrap_or_else(|| "choices.0.message.content".to_owned()),
            schema_text: fields
                .get("jsonSchema")
                .filter(|schema| schema.is_object())
                .map_or_else(|| "null".to_owned(), Value::to_string),
            schema,
            disposition: fields.flag("enableContentDisposition", true),
            budget: Budget {
                time: default.time,
                tokens: or("maxTotalTokens", default.tokens),
            },
            reject: fault.or(reject),
        })
    }
}

/// Domain and path; those of `serviceUrl` fill what is not set.
fn endpoint(fields: Fields<'_>) -> (String, String) {
    let url = fields.text("serviceUrl");
    let bare = url.strip_prefix("http://").unwrap_or(&url);
    let bare = bare.strip_prefix("https://").unwrap_or(bare);
    let (host, rest) = bare.split_at(bare.find('/').unwrap_or(bare.len()));
    let filled = |name: &str, default: &str| {
        let own = fields.text(name);
        if own.is_empty() { default.to_owned() } else { own }
    };
    (filled("serviceDomain", host), filled("servicePath", rest))
}

fn port(fields: Fields<'_>) -> u16 {
    let written = u16::try_from(fields.count("servicePort")).unwrap_or(0);
    if written == 0 { 443 } else { written }
}

/// Higress always adds `.dns`; a name that has a registry's suffix already is meant as it is.
fn clusters(name: &str, port: u16) -> Vec<String> {
    let suffixes = [
        ".dns",
        ".static",
        ".nacos",
        ".consul",
        ".eureka",
        ".zookeeper",
        ".cluster.local",
    ];
    let cluster = |service: &str| tollgate_plugin::cluster_name(service, port);
    if suffixes.iter().any(|suffix| name.ends_with(suffix)) {
        return vec![cluster(name)];
    }
    vec![
        cluster(&format!("{name}.dns")),
        cluster(&format!("{name}.static")),
        cluster(name),
    ]
}

/// `Authorization` for a key; none for an empty one.
fn bearer(key: &Secret) -> Result<Option<HeaderValue>, ConfigError> {
    if key.expose().is_empty() {
        return Ok(None);
    }
    let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose()))
        .map_err(|_| ConfigError::new("", "holds characters that no header can hold"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// The compiled schema, or what is wrong with it. A schema that is too deep is only shown to the model.
fn schema_of(fields: Fields<'_>, context: &ParseContext) -> (Option<Schema>, Option<Reject>) {
    let Some(written) = fields.get("jsonSchema") else {
        return (None, None);
    };
    let null = Value::Null;
    let root = if written.is_object() { written } else { &null };
    let depth = schema::depth(root);
    let limit = usize::try_from(fields.count("jsonSchemaMaxDepth")).unwrap_or(0);
    let limit = if limit == 0 { MAX_DEPTH } else { limit.min(64) };
    if depth > limit {
        if fields.flag("rejectOnDepthExceeded", false) {
            let text = format!("Json Schema depth exceeded: {depth}");
            return (None, Some(Reject::new(1001, text)));
        }
        let text = format!("nested {depth} deep, more than {limit}: answers are not checked against it");
        context.warn(ConfigError::new("jsonSchema", text));
        return (None, None);
    }
    let draft = if fields.flag("enableSwagger", false) && !fields.flag("enableOas3", false) {
        Draft::Draft4
    } else {
        Draft::Draft7
    };
    match Schema::compile(root, draft) {
        Ok(schema) => (Some(schema), None),
        Err(fault) => {
            let reject = Reject::new(1002, format!("Json Schema compile failed: {fault}"));
            context.warn(ConfigError::new("jsonSchema", reject.message.clone()));
            (None, Some(reject))
        }
    }
}

/// Fields of the config.
pub(crate) const FIELDS: &[Field] = &[
    field(
        "serviceName",
        "string",
        "Service that is asked, with or without its registry's suffix; empty: the rest of the route's chain.",
    ),
    field(
        "serviceDomain",
        "string",
        "Host that the service is asked for. Default: that of serviceUrl.",
    ),
    field("servicePort", "integer", "Port of the service. Default 443."),
    field(
        "servicePath",
        "string",
        "Path that is asked. Default: that of serviceUrl, else the client's.",
    ),
    field(
        "serviceUrl",
        "string",
        "Domain and path in one; fills what is not set.",
    ),
    field(
        "serviceTimeout",
        "integer",
        "Milliseconds for each call. Default 50000.",
    ),
    field(
        "apiKey",
        "string",
        "Bearer token for the service; the client's own never goes there.",
    ),
    field("maxRetry", "integer", "Repairs after the first call. Default 3."),
    field(
        "contentPath",
        "string",
        "gjson path of the text in the service's answer. Default choices.0.message.content.",
    ),
    field(
        "jsonSchema",
        "object",
        "JSON Schema of the wanted answer; absent: any JSON object.",
    ),
    field(
        "enableSwagger",
        "boolean",
        "Draft 4 where the schema names no $schema. Default false.",
    ),
    field(
        "enableOas3",
        "boolean",
        "Draft 7 where the schema names no $schema. The default anyway.",
    ),
    field(
        "enableContentDisposition",
        "boolean",
        "Answers carry content-disposition: attachment. Default true.",
    ),
    field(
        "jsonSchemaMaxDepth",
        "integer",
        "Depth up to which a schema is checked against. Default 6.",
    ),
    field(
        "rejectOnDepthExceeded",
        "boolean",
        "Whether requests are refused when the schema is deeper. Default false.",
    ),
    field(
        "maxTotalTokens",
        "integer",
        "Tokens that all calls for one request may cost; then no further repair is tried. Default 200000.",
    ),
];
