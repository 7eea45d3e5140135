//! What pages of other origins may do, compiled (plugins spec §8).

use http::header::ACCESS_CONTROL_REQUEST_HEADERS;
use http::{HeaderMap, HeaderValue};
use serde_json::Value;
use tollgate_base::ConfigError;

use super::origin::{Origins, patterns};
use crate::strict::Strict;
use crate::table::{Field, ParseContext, field};

const METHODS: &str = "GET, PUT, POST, DELETE, PATCH, OPTIONS";
const ALL_METHODS: &str = "GET, PUT, POST, DELETE, PATCH, OPTIONS, HEAD, TRACE, CONNECT";
const HEADERS: &str = "DNT,X-CustomHeader,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Authorization";
const MAX_AGE_SECONDS: i64 = 86400;
const ANY: &str = "*";

/// One config.
#[derive(Debug)]
pub(super) struct Cors {
    pub(super) origins: Origins,
    pub(super) methods: Names,
    pub(super) headers: Names,
    pub(super) expose: Option<HeaderValue>,
    pub(super) credentials: bool,
    pub(super) max_age: HeaderValue,
}

/// Methods or headers that may be used.
#[derive(Debug)]
pub(super) struct Names {
    any: bool,
    /// In lower case.
    names: Vec<String>,
    /// As preflights are told.
    pub(super) header: HeaderValue,
}

impl Cors {
    pub(super) fn parse(config: &Value, context: &ParseContext) -> Result<Self, ConfigError> {
        let fields = Strict::of(config)?;
        let exact = items(fields, "allow_origins")?;
        let written = items(fields, "allow_origin_patterns")?;
        let mut credentials = fields.flag("allow_credentials")?.unwrap_or(false);
        if credentials && exact.contains(&ANY) {
            credentials = false;
            let text = "cannot be true next to the origin *, and is taken for false: name origins, or use \
                        allow_origin_patterns";
            context.warn(ConfigError::new("allow_credentials", text));
        }
        let any = exact.contains(&ANY)
            || written.contains(&ANY)
            || (exact.is_empty() && written.is_empty() && !credentials);
        if exact.is_empty() && written.is_empty() && credentials {
            let text = "no origin may ask: allow_credentials needs allow_origins or allow_origin_patterns";
            context.warn(ConfigError::new("allow_origins", text));
        }
        let folded = |origin: &&str| origin.trim_end_matches('/').to_ascii_lowercase();
        let expose = items(fields, "expose_headers")?;
        Ok(Self {
            origins: Origins {
                any,
                exact: exact.iter().map(folded).collect(),
                patterns: patterns(&written)?,
            },
            methods: Names::parse(fields, "allow_methods", METHODS, ALL_METHODS)?,
            headers: Names::parse(fields, "allow_headers", HEADERS, ANY)?,
            expose: match expose.is_empty() {
                true => None,
                false => Some(header(&or_any(&expose).join(","), "expose_headers")?),
            },
            credentials,
            max_age: HeaderValue::from(match fields.integer("max_age")? {
                Some(seconds @ 1..) => seconds,
                _ => MAX_AGE_SECONDS,
            }),
        })
    }
}

impl Names {
    /// The list `field`; `default` where it is absent or empty, `all` where it holds `*`.
    fn parse(fields: Strict<'_>, field: &str, default: &str, all: &str) -> Result<Self, ConfigError> {
        let written = items(fields, field)?;
        let any = written.contains(&ANY);
        let told = match (any, written.is_empty()) {
            (true, _) => all.to_owned(),
            (false, true) => default.to_owned(),
            // Methods are written in capitals; headers stay as they are.
            (false, false) if field == "allow_methods" => written.join(",").to_ascii_uppercase(),
            (false, false) => written.join(","),
        };
        Ok(Self {
            any,
            names: told
                .split(',')
                .map(|name| name.trim().to_ascii_lowercase())
                .collect(),
            header: header(&told, field)?,
        })
    }

    pub(super) fn has_name(&self, name: &str) -> bool {
        self.any || self.names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    pub(super) fn has(&self, name: &HeaderValue) -> bool {
        name.to_str().is_ok_and(|name| self.has_name(name.trim()))
    }

    /// Whether all headers are in the list that a preflight asks for.
    pub(super) fn has_all(&self, request: &HeaderMap) -> bool {
        let mut lists = request.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter();
        self.any
            || lists.all(|list| {
                let asked = list.to_str().unwrap_or("?").split(',').map(str::trim);
                asked
                    .filter(|name| !name.is_empty())
                    .all(|name| self.has_name(name))
            })
    }

    /// What a preflight that asks for `asked` is told.
    pub(super) fn answer<'a>(&'a self, asked: Option<&'a HeaderValue>) -> &'a HeaderValue {
        match asked {
            Some(asked) if self.any && !asked.is_empty() => asked,
            _ => &self.header,
        }
    }
}

/// The texts of a list, trimmed, without empty ones.
fn items<'a>(fields: Strict<'a>, name: &str) -> Result<Vec<&'a str>, ConfigError> {
    let texts = fields.texts(name)?.into_iter().map(str::trim);
    Ok(texts.filter(|text| !text.is_empty()).collect())
}

fn or_any<'a>(items: &[&'a str]) -> Vec<&'a str> {
    match items.contains(&ANY) {
        true => vec![ANY],
        false => items.to_vec(),
    }
}

fn header(text: &str, field: &str) -> Result<HeaderValue, ConfigError> {
    let value = HeaderValue::from_str(text).ok();
    value
        .filter(|_| text.is_ascii())
        .ok_or_else(|| ConfigError::new(field, "holds characters that no header can carry"))
}

/// Fields of the config.
pub(crate) const FIELDS: &[Field] = &[
    field(
        "allow_origins",
        "list of string",
        "Origins that may ask, such as https://a.com:8443, or *; * where neither this nor patterns nor credentials are set.",
    ),
    field(
        "allow_origin_patterns",
        "list of string",
        "The same with * for any text and :[8080,9090] or :[*] for ports.",
    ),
    field(
        "allow_methods",
        "list of string",
        "Methods, or * for all; GET, PUT, POST, DELETE, PATCH and OPTIONS unless set.",
    ),
    field(
        "allow_headers",
        "list of string",
        "Headers that a request may carry, or *; the usual ones unless set.",
    ),
    field(
        "expose_headers",
        "list of string",
        "Headers of an answer that a page may read, or *.",
    ),
    field(
        "allow_credentials",
        "boolean",
        "Whether cookies and Authorization may be sent along; false unless set, and next to the origin *.",
    ),
    field(
        "max_age",
        "integer",
        "How long a browser may remember a preflight's answer, in seconds; 86400 unless set.",
    ),
];
