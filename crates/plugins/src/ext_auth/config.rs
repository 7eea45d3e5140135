//! Which service is asked, what it is told, and what becomes of its answer (plugins spec §7).

use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::Value;
use tollgate_base::ConfigError;

use super::matcher::{Names, Requests};
use crate::callee::Callee;
use crate::framing::is_framing;
use crate::strict::Strict;
use crate::table::{Field, ParseContext, field};

/// In milliseconds.
const DEFAULT_TIMEOUT: i64 = 1000;
const DEFAULT_BODY_LIMIT: usize = 10 * 1024 * 1024;

/// One config.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) service: Service,
    pub(super) requests: Requests,
    /// Requests pass while the service fails.
    pub(super) failure_allows: bool,
    pub(super) failure_is_told: bool,
    pub(super) failure_status: StatusCode,
}

/// The service, and what goes to it and comes from it.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) callee: Callee,
    pub(super) target: Target,
    pub(super) timeout: Duration,
    /// Headers of the client that the service is told besides `Authorization`.
    pub(super) told: Option<Names>,
    pub(super) added: Vec<(HeaderName, HeaderValue)>,
    /// Bytes of the body that it is told at most; `None`: it is not told any.
    pub(super) body_limit: Option<usize>,
    /// Headers of its answer that the request goes on with.
    pub(super) to_upstream: Option<Names>,
    /// Headers of its answer that a refusal has; `None`: all.
    pub(super) to_client: Option<Names>,
}

/// How it is asked.
#[derive(Debug)]
pub(super) enum Target {
    /// With the request's own method, and its path behind this prefix.
    Behind(String),
    /// Always so; the request is described in headers.
    Fixed(Method, PathAndQuery),
}

impl Config {
    pub(super) fn parse(written: &Value, context: &ParseContext) -> Result<Self, ConfigError> {
        let fields = Strict::of(written)?;
        let service = fields.get("http_service");
        let service = service.ok_or_else(|| ConfigError::new("http_service", "is required"))?;
        Ok(Self {
            service: Service::parse(service, context).map_err(|fault| fault.within("http_service"))?,
            requests: Requests::parse(fields)?,
            failure_allows: fields.flag("failure_mode_allow")?.unwrap_or(false),
            failure_is_told: fields.flag("failure_mode_allow_header_add")?.unwrap_or(false),
            failure_status: match fields.integer("status_on_error")?.unwrap_or(0) {
                0 => StatusCode::FORBIDDEN,
                code => status(code)
                    .ok_or_else(|| ConfigError::new("status_on_error", "must be a status from 200 to 599"))?,
            },
        })
    }
}

fn status(code: i64) -> Option<StatusCode> {
    let code = u16::try_from(code)
        .ok()
        .filter(|code| (200..600).contains(code))?;
    StatusCode::from_u16(code).ok()
}

impl Service {
    fn parse(written: &Value, context: &ParseContext) -> Result<Self, ConfigError> {
        let fields = Strict::of(written)?;
        let is_forward = match fields.text("endpoint_mode")? {
            None | Some("" | "envoy") => false,
            Some("forward_auth") => true,
            Some(_) => return Err(ConfigError::new("endpoint_mode", "must be envoy or forward_auth")),
        };
        let endpoint = fields.get("endpoint");
        let endpoint = endpoint.ok_or_else(|| ConfigError::new("endpoint", "is required"))?;
        let within = |fault: ConfigError| fault.within("endpoint");
        let endpoint = Strict::of(endpoint).map_err(within)?;
        let callee = Callee::parse(endpoint).map_err(within)?;
        let target = target(endpoint, is_forward, context).map_err(within)?;
        let timeout = match fields.integer("timeout")?.unwrap_or(0) {
            0 => DEFAULT_TIMEOUT,
            milliseconds => milliseconds,
        };
        let timeout =
            u64::try_from(timeout).map_err(|_| ConfigError::new("timeout", "must not be negative"))?;
        let mut service = Self {
            callee,
            target,
            timeout: Duration::from_millis(timeout),
            told: None,
            added: Vec::new(),
            body_limit: None,
            to_upstream: None,
            to_client: None,
        };
        if let Some(request) = fields.get("authorization_request") {
            let read = service.read_request(request);
            read.map_err(|fault| fault.within("authorization_request"))?;
        }
        if let Some(response) = fields.get("authorization_response") {
            let read = service.read_response(response);
            read.map_err(|fault| fault.within("authorization_response"))?;
        }
        Ok(service)
    }

    fn read_request(&mut self, written: &Value) -> Result<(), ConfigError> {
        let fields = Strict::of(written)?;
        self.told = Names::parse(fields, "allowed_headers")?;
        self.added = added(fields)?;
        let limit = match fields.integer("max_request_body_bytes")?.unwrap_or(0) {
            0 => DEFAULT_BODY_LIMIT,
            bytes => usize::try_from(bytes)
                .map_err(|_| ConfigError::new("max_request_body_bytes", "must not be negative"))?,
        };
        if fields.flag("with_request_body")?.unwrap_or(false) {
            let has_none = [Method::GET, Method::HEAD, Method::OPTIONS];
            if let Target::Fixed(method, _) = &self.target
                && has_none.contains(method)
            {
                let text = format!("cannot be true with request_method {method}");
                return Err(ConfigError::new("with_request_body", text));
            }
            self.body_limit = Some(limit);
        }
        Ok(())
    }

    fn read_response(&mut self, written: &Value) -> Result<(), ConfigError> {
        let fields = Strict::of(written)?;
        self.to_upstream = Names::parse(fields, "allowed_upstream_headers")?;
        self.to_client = Names::parse(fields, "allowed_client_headers")?;
        Ok(())
    }
}

fn target(endpoint: Strict<'_>, is_forward: bool, context: &ParseContext) -> Result<Target, ConfigError> {
    let ignored = |names: &[&str]| {
        for name in names.iter().filter(|name| endpoint.has(name)) {
            context.warn(
                ConfigError::new(*name, "does not count in this endpoint_mode")
                    .within("http_service.endpoint"),
            );
        }
    };
    if !is_forward {
        ignored(&["request_method", "path"]);
        let prefix = endpoint.text("path_prefix")?;
        let prefix =
            prefix.ok_or_else(|| ConfigError::new("path_prefix", "is required in the mode envoy"))?;
        if PathAndQuery::try_from(prefix).is_err() || prefix.contains(['?', '#']) {
            return Err(ConfigError::new("path_prefix", "is no path"));
        }
        return Ok(Target::Behind(prefix.to_owned()));
    }
    ignored(&["path_prefix"]);
    let method = match endpoint.text("request_method")?.unwrap_or_default() {
        "" => Method::GET,
        name => Method::from_bytes(name.to_ascii_uppercase().as_bytes())
            .map_err(|_| ConfigError::new("request_method", "is no method"))?,
    };
    let path = endpoint.text("path")?;
    let path = path.ok_or_else(|| ConfigError::new("path", "is required in the mode forward_auth"))?;
    let path = match PathAndQuery::try_from(path) {
        Ok(read) if path.starts_with('/') => read,
        _ => return Err(ConfigError::new("path", "is no path: it begins with /")),
    };
    Ok(Target::Fixed(method, path))
}

/// Headers for the service; a value may be any scalar.
fn added(fields: Strict<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, ConfigError> {
    let Some(written) = fields.get("headers_to_add") else {
        return Ok(Vec::new());
    };
    let members = written.as_object();
    let members = members.ok_or_else(|| ConfigError::new("headers_to_add", "must be an object"))?;
    let header = |(name, value): (&String, &Value)| {
        let wrong = |text: &str| ConfigError::new(format!("headers_to_add.{name}"), text);
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            _ => return Err(wrong("must be a text")),
        };
        let known = HeaderName::try_from(name).map_err(|_| wrong("is no name of a header"))?;
        if is_framing(&known) {
            return Err(wrong("cannot be set"));
        }
        let value = HeaderValue::from_bytes(text.as_bytes());
        Ok((known, value.map_err(|_| wrong("is no value of a header"))?))
    };
    members.iter().map(header).collect()
}

/// Fields of the config.
pub(crate) const FIELDS: &[Field] = &[
    field("http_service", "object", "The service that is asked. Required."),
    field(
        "http_service.endpoint_mode",
        "string",
        "envoy: asked with the request's method and path; forward_auth: always with the same. Default envoy.",
    ),
    field("http_service.endpoint", "object", "Where it is. Required."),
    field(
        "http_service.endpoint.service_name",
        "string",
        "Its service, such as auth.static or auth.default.svc.cluster.local. Required.",
    ),
    field(
        "http_service.endpoint.service_port",
        "integer",
        "Its port. Default 80.",
    ),
    field(
        "http_service.endpoint.service_host",
        "string",
        "The Host that it is asked for. Default: the service's name.",
    ),
    field(
        "http_service.endpoint.path_prefix",
        "string",
        "What stands in front of the request's path. Required in the mode envoy.",
    ),
    field(
        "http_service.endpoint.request_method",
        "string",
        "The method in the mode forward_auth. Default GET.",
    ),
    field(
        "http_service.endpoint.path",
        "string",
        "The path in the mode forward_auth. Required there.",
    ),
    field(
        "http_service.timeout",
        "integer",
        "Longest wait for its whole answer, in milliseconds. Default 1000.",
    ),
    field("http_service.authorization_request", "object", "What it is told."),
    field(
        "http_service.authorization_request.allowed_headers",
        "list of object",
        "Headers of the client that it is told: exact, prefix, suffix, contains or regex. Authorization always is.",
    ),
    field(
        "http_service.authorization_request.headers_to_add",
        "map of string",
        "Headers that it is told besides.",
    ),
    field(
        "http_service.authorization_request.with_request_body",
        "boolean",
        "Whether it is told the body. Default false.",
    ),
    field(
        "http_service.authorization_request.max_request_body_bytes",
        "integer",
        "Longest body then, in bytes; a longer one is refused with 413. Default 10485760.",
    ),
    field(
        "http_service.authorization_response",
        "object",
        "What is taken of its answer.",
    ),
    field(
        "http_service.authorization_response.allowed_upstream_headers",
        "list of object",
        "Headers of a 200 that replace the request's. Default: none.",
    ),
    field(
        "http_service.authorization_response.allowed_client_headers",
        "list of object",
        "Headers of a refusal that the client gets. Default: all.",
    ),
    field(
        "match_type",
        "string",
        "whitelist: the listed requests pass unasked; blacklist: only they are asked about. Default whitelist.",
    ),
    field(
        "match_list",
        "list of object",
        "Requests; an entry that names nothing means none.",
    ),
    field(
        "match_list[].match_rule_domain",
        "string",
        "Host, such as a.com or *.a.com. Default: any.",
    ),
    field(
        "match_list[].match_rule_method",
        "list of string",
        "Methods. Default: any.",
    ),
    field(
        "match_list[].match_rule_path",
        "string",
        "Path, without its query. Default: any.",
    ),
    field(
        "match_list[].match_rule_type",
        "string",
        "How the path is meant: exact, prefix, suffix, contains or regex.",
    ),
    field(
        "failure_mode_allow",
        "boolean",
        "Whether requests pass while the service fails or answers 5xx. Default false.",
    ),
    field(
        "failure_mode_allow_header_add",
        "boolean",
        "Whether x-envoy-auth-failure-mode-allowed: true says so to services behind. Default false.",
    ),
    field(
        "status_on_error",
        "integer",
        "Status of the refusal while the service fails. Default 403.",
    ),
];
