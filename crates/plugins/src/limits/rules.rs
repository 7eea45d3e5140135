//! The rules of `cluster-key-rate-limit` and `ai-token-ratelimit`: which counter a request belongs to, and its limit
//! (plugins spec §4 of both).

use std::time::Duration;

use regex::Regex;
use serde_json::Value;
use tollgate_base::ConfigError;
use tollgate_body::Request;
use tollgate_llm::lenient::{Fields, text_of};
use tollgate_plugin::Exchange;

use super::source::{Matcher, Source};
use super::window::UNITS;
use crate::network::Network;
use crate::table::{Field, ParseContext, field};

/// How a plugin's rules are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wording {
    /// `query` or `token`: what is counted, the first word of the limits' fields.
    pub(crate) counted: &'static str,
    /// First part of the counters' keys.
    pub(crate) prefix: &'static str,
}

/// A limit: so much in so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) count: u64,
    /// Whole seconds.
    pub(crate) window: Duration,
}

/// All rules of a config.
#[derive(Debug)]
pub(crate) struct Rules {
    prefix: &'static str,
    name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// One counter for all requests.
    Global(Limit),
    Items(Vec<Item>),
}

/// One of `rule_items`.
#[derive(Debug)]
struct Item {
    /// Field that names the source, a part of the key.
    kind: &'static str,
    /// Header, parameter or cookie, a part of the key.
    name: String,
    source: Source,
    keys: Vec<(Matcher, Limit)>,
}

/// The counter of one request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) key: String,
    pub(crate) limit: Limit,
}

impl Rules {
    pub(crate) fn parse(
        config: &Value,
        wording: Wording,
        context: &ParseContext,
    ) -> Result<Self, ConfigError> {
        let fields = Fields::of(config);
        let name = config
            .get("rule_name")
            .ok_or_else(|| ConfigError::new("rule_name", "missing rule_name in config"))?;
        let kind = match (fields.get("global_threshold"), fields.get("rule_items")) {
            (None, None) => {
                let problem = "at least one of 'global_threshold' or 'rule_items' must be set";
                return Err(ConfigError::new("", problem));
            }
            (Some(_), Some(_)) => {
                let problem = "'global_threshold' and 'rule_items' cannot be set at the same time";
                return Err(ConfigError::new("", problem));
            }
            (Some(threshold), None) => {
                Kind::Global(global(threshold, wording).map_err(|fault| fault.within("global_threshold"))?)
            }
            (None, Some(items)) => Kind::Items(parse_items(items, wording, context)?),
        };
        Ok(Self {
            prefix: wording.prefix,
            name: text_of(name),
            kind,
        })
    }

    /// The counter that this request belongs to; `None` where nothing limits it.
    pub(crate) fn find(&self, exchange: &Exchange, request: &Request) -> Option<Hit> {
        let Self { prefix, name, .. } = self;
        match &self.kind {
            Kind::Global(limit) => Some(Hit {
                key: format!("{prefix}:{name}:global_threshold:{}", limit.window.as_secs()),
                limit: *limit,
            }),
            Kind::Items(items) => items.iter().find_map(|item| {
                let value = item.source.value(exchange, request)?;
                let (_, limit) = item.keys.iter().find(|(matcher, _)| matcher.matches(&value))?;
                let (kind, window, of) = (item.kind, limit.window.as_secs(), &item.name);
                Some(Hit {
                    key: format!("{prefix}:{name}:{kind}:{window}:{of}:{value}"),
                    limit: *limit,
                })
            }),
        }
    }
}

fn global(threshold: &Value, wording: Wording) -> Result<Limit, ConfigError> {
    let problem = |text: String| ConfigError::new("", format!("failed to parse global_threshold: {text}"));
    match limit(threshold, wording) {
        Ok(Some(limit)) => Ok(limit),
        Ok(None) => Err(problem(format!(
            "{} must be set for global_threshold",
            one_of(wording)
        ))),
        Err((field, written)) => {
            let text = format!("'{field}' must be a positive integer, got {written}");
            Err(problem(text))
        }
    }
}

/// `one of 'token_per_second', 'token_per_minute', 'token_per_hour', or 'token_per_day'`.
fn one_of(wording: Wording) -> String {
    let counted = wording.counted;
    format!(
        "one of '{counted}_per_second', '{counted}_per_minute', '{counted}_per_hour', or '{counted}_per_day'"
    )
}

/// The limit of an entry; `None` where it has none, else the field that is wrong and what it says.
fn limit(entry: &Value, wording: Wording) -> Result<Option<Limit>, (String, String)> {
    let fields = Fields::of(entry);
    for (unit, seconds) in UNITS {
        let field = format!("{}_per_{unit}", wording.counted);
        let Some(written) = fields.get(&field) else {
            continue;
        };
        return match fields.count(&field) {
            0 => Err((field, text_of(written))),
            count => Ok(Some(Limit {
                count,
                window: Duration::from_secs(seconds),
            })),
        };
    }
    Ok(None)
}

fn parse_items(items: &Value, wording: Wording, context: &ParseContext) -> Result<Vec<Item>, ConfigError> {
    let list = items
        .as_array()
        .filter(|list| !list.is_empty())
        .ok_or_else(|| ConfigError::new("rule_items", "config rule_items cannot be empty"))?;
    let mut parsed: Vec<Item> = Vec::with_capacity(list.len());
    for (position, entry) in list.iter().enumerate() {
        let place = format!("rule_items[{position}]");
        let item = item(entry, wording).map_err(|fault| ConfigError {
            message: format!("failed to parse rule_item in rule_items: {}", fault.message),
            field: fault.within(&place).field,
        })?;
        let repeated = parsed
            .iter()
            .any(|other| other.kind == item.kind && other.name == item.name);
        if repeated {
            let problem = format!("{} {:?} is there twice", item.kind, item.name);
            context.warn(ConfigError::new(place, problem));
        }
        parsed.push(item);
    }
    Ok(parsed)
}

/// Fields that name a source, in the order in which they are read; of several the last counts.
const KINDS: [&str; 9] = [
    "limit_by_header",
    "limit_by_param",
    "limit_by_cookie",
    "limit_by_per_header",
    "limit_by_per_param",
    "limit_by_per_cookie",
    "limit_by_consumer",
    "limit_by_per_consumer",
    "limit_by_per_ip",
];

fn item(entry: &Value, wording: Wording) -> Result<Item, ConfigError> {
    let fields = Fields::of(entry);
    let is_there = |kind: &&str| match *kind {
        "limit_by_consumer" | "limit_by_per_consumer" => entry.get(*kind).is_some(),
        other => !fields.text(other).is_empty(),
    };
    let Some(kind) = KINDS.into_iter().rfind(|kind| is_there(kind)) else {
        let problem = "only one of 'limit_by_header' and 'limit_by_param' and 'limit_by_consumer' and \
            'limit_by_cookie' and 'limit_by_per_header' and 'limit_by_per_param' and 'limit_by_per_consumer' and \
            'limit_by_per_cookie' and 'limit_by_per_ip' can be set";
        return Err(ConfigError::new("", problem));
    };
    let (source, name) = source(kind, fields.text(kind)).map_err(|fault| fault.within(kind))?;
    let keys = match fields.get("limit_keys") {
        None => return Err(ConfigError::new("limit_keys", "missing limit_keys in config")),
        Some(Value::Array(keys)) if !keys.is_empty() => keys,
        Some(_) => {
            return Err(ConfigError::new(
                "limit_keys",
                "config limit_keys cannot be empty",
            ));
        }
    };
    let keys = keys.iter().enumerate().map(|(position, entry)| {
        let place = format!("limit_keys[{position}]");
        limit_key(kind, entry, wording).map_err(|fault| fault.within(&place))
    });
    Ok(Item {
        kind,
        name,
        source,
        keys: keys.collect::<Result<_, _>>()?,
    })
}

fn source(kind: &str, name: String) -> Result<(Source, String), ConfigError> {
    let header = |name: &str| {
        name.parse()
            .map_err(|_| ConfigError::new("", format!("{name:?} is no header name")))
    };
    let source = match kind {
        "limit_by_header" | "limit_by_per_header" => Source::Header(header(&name)?),
        "limit_by_param" | "limit_by_per_param" => Source::Parameter(name.clone()),
        "limit_by_cookie" | "limit_by_per_cookie" => Source::Cookie(name.clone()),
        "limit_by_per_ip" => match name.strip_prefix("from-header-") {
            Some("") => {
                let problem = "limit_by_per_ip parse error: empty after 'from-header-'";
                return Err(ConfigError::new("", problem));
            }
            Some(of) => Source::HeaderAddress(header(of)?),
            None if name == "from-remote-addr" => Source::PeerAddress,
            None => {
                let problem = "the 'limit_by_per_ip' restriction must start with 'from-header-' or be exactly \
                    'from-remote-addr'";
                return Err(ConfigError::new("", problem));
            }
        },
        _ => return Ok((Source::Consumer, "x-mse-consumer".to_owned())),
    };
    Ok((source, name))
}

fn limit_key(kind: &str, entry: &Value, wording: Wording) -> Result<(Matcher, Limit), ConfigError> {
    let key = Fields::of(entry).text("key");
    if key.is_empty() {
        return Err(ConfigError::new("key", "limit_keys key is required"));
    }
    let limit = match limit(entry, wording) {
        Ok(Some(limit)) => limit,
        Ok(None) => {
            let problem = format!("{} must be set for key: {key}", one_of(wording));
            return Err(ConfigError::new("", problem));
        }
        Err((field, written)) => {
            let problem = format!("'{field}' must be a positive integer for key '{key}', got {written}");
            return Err(ConfigError::new(field, problem));
        }
    };
    let wrong = |problem: String| ConfigError::new("key", problem);
    let matcher = match kind {
        "limit_by_per_ip" => {
            let problem = || {
                wrong(format!(
                    "failed to parse IPNet for key '{key}': invalid IP[{key}]"
                ))
            };
            Matcher::Network(Network::parse(&key).ok_or_else(problem)?)
        }
        kind if !kind.starts_with("limit_by_per_") => Matcher::Exact(key),
        _ if key == "*" => Matcher::Any,
        kind => {
            let pattern = key.strip_prefix("regexp:").ok_or_else(|| {
                wrong(format!(
                    "the '{kind}' restriction must start with 'regexp:' or be exactly '*'"
                ))
            })?;
            let regex = Regex::new(pattern)
                .map_err(|cause| wrong(format!("failed to compile regex for key '{key}': {cause}")))?;
            Matcher::Pattern(regex, key)
        }
    };
    Ok((matcher, limit))
}

/// The fields that this reads besides the limits' own.
pub(crate) const FIELDS: [Field; 14] = [
    field(
        "rule_name",
        "string",
        "Part of every counter's key: rules of one name and kind share counters. Required.",
    ),
    field(
        "global_threshold",
        "object",
        "One limit for all requests. This or rule_items.",
    ),
    field(
        "rule_items",
        "list of objects",
        "Limits by a request's values; the first that fits counts.",
    ),
    field(
        "rule_items[].limit_by_header",
        "string",
        "Header whose value is compared with the keys.",
    ),
    field(
        "rule_items[].limit_by_param",
        "string",
        "Query parameter, percent-decoded.",
    ),
    field("rule_items[].limit_by_cookie", "string", "Cookie."),
    field(
        "rule_items[].limit_by_consumer",
        "string",
        "Consumer that an authentication plugin found; the value is ignored.",
    ),
    field(
        "rule_items[].limit_by_per_header",
        "string",
        "Header; each value has a counter of its own.",
    ),
    field(
        "rule_items[].limit_by_per_param",
        "string",
        "Query parameter; each value has a counter of its own.",
    ),
    field(
        "rule_items[].limit_by_per_cookie",
        "string",
        "Cookie; each value has a counter of its own.",
    ),
    field(
        "rule_items[].limit_by_per_consumer",
        "string",
        "Consumer; each has a counter of its own.",
    ),
    field(
        "rule_items[].limit_by_per_ip",
        "string",
        "from-remote-addr or from-header-NAME; each address has a counter of its own.",
    ),
    field(
        "rule_items[].limit_keys",
        "list of objects",
        "Values and their limits, tried in order. Required.",
    ),
    field(
        "rule_items[].limit_keys[].key",
        "string",
        "Exact text; for per_ kinds * or regexp:EXPRESSION; for addresses an address or a network.",
    ),
];
