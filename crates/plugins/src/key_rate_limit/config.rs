//! The config of `key-rate-limit`, and which bucket a request takes from.

use std::collections::HashMap;
use std::time::Duration;

use http::HeaderName;
use serde_json::Value;
use tollgate_base::{ConfigError, clock};
use tollgate_body::Request;

use super::bucket::Bucket;
use crate::limits::window::UNITS;
use crate::table::{Field, ParseContext, field};

/// A config, compiled; it holds the buckets.
#[derive(Debug)]
pub(super) struct Config {
    source: Source,
    /// By key; an absent value has the empty key.
    buckets: HashMap<Box<[u8]>, Bucket>,
}

/// Where a request's key comes from.
#[derive(Debug)]
enum Source {
    Header(HeaderName),
    /// The query's raw value, percent signs and all.
    Parameter(String),
}

impl Config {
    pub(super) fn parse(config: &Value, context: &ParseContext) -> Result<Self, ConfigError> {
        let text = |name: &str| match config.get(name) {
            None | Some(Value::Null) => Ok(""),
            Some(Value::String(text)) => Ok(text.as_str()),
            Some(_) => Err(ConfigError::new(name, "must be a string")),
        };
        let source = match (text("limit_by_header")?, text("limit_by_param")?) {
            ("", "") => {
                let problem = "one of limit_by_header and limit_by_param must be set";
                return Err(ConfigError::new("", problem));
            }
            (header, "") => {
                let name = header.parse();
                let problem = |_| ConfigError::new("limit_by_header", "is no header name");
                Source::Header(name.map_err(problem)?)
            }
            ("", parameter) => Source::Parameter(parameter.to_owned()),
            _ => {
                let problem = "cannot be set together with limit_by_param";
                return Err(ConfigError::new("limit_by_header", problem));
            }
        };
        let keys = config.get("limit_keys").and_then(Value::as_array);
        let keys = keys
            .filter(|keys| !keys.is_empty())
            .ok_or_else(|| ConfigError::new("limit_keys", "must be a list with at least one entry"))?;
        let mut buckets = HashMap::with_capacity(keys.len());
        for (position, entry) in keys.iter().enumerate() {
            let place = format!("limit_keys[{position}]");
            let (key, bucket) = bucket(entry).map_err(|fault| fault.within(&place))?;
            if buckets.contains_key(key) {
                context.warn(ConfigError::new(
                    place,
                    "the key is there twice: the first counts",
                ));
                continue;
            }
            buckets.insert(key.into(), bucket);
        }
        Ok(Self { source, buckets })
    }

    /// The bucket that limits this request; `None` when nothing does.
    pub(super) fn bucket(&self, request: &Request) -> Option<&Bucket> {
        match &self.source {
            Source::Header(name) => {
                let mut values = request.headers().get_all(name).iter();
                let first = values.next().map_or(&[][..], |value| value.as_bytes());
                match values.next() {
                    None => self.buckets.get(first),
                    // As the proxy of Higress shows a repeated header.
                    Some(second) => {
                        let all = [first, second.as_bytes()].into_iter();
                        let all: Vec<_> = all.chain(values.map(|value| value.as_bytes())).collect();
                        self.buckets.get(all.join(&b","[..]).as_slice())
                    }
                }
            }
            Source::Parameter(name) => {
                let pairs = request.uri().query().unwrap_or_default().split('&');
                let found = pairs
                    .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                    .find(|(key, _)| key == name);
                self.buckets.get(found.map_or("", |(_, value)| value).as_bytes())
            }
        }
    }
}

fn bucket(entry: &Value) -> Result<(&[u8], Bucket), ConfigError> {
    let Some(key) = entry.get("key").and_then(Value::as_str) else {
        return Err(ConfigError::new("key", "must be a string"));
    };
    for (name, seconds) in UNITS {
        let field = format!("query_per_{name}");
        let Some(written) = entry.get(&field).filter(|value| !value.is_null()) else {
            continue;
        };
        let capacity = written
            .as_u64()
            .ok_or_else(|| ConfigError::new(&field, "must be a number of requests, 0 or more"))?;
        let period = Duration::from_secs(seconds);
        return Ok((key.as_bytes(), Bucket::new(capacity, period, clock::now())));
    }
    let problem = "one of query_per_second, query_per_minute, query_per_hour and query_per_day must be set";
    Err(ConfigError::new("", problem))
}

/// Fields of the config.
pub(crate) const FIELDS: &[Field] = &[
    field(
        "limit_by_header",
        "string",
        "Header that holds the key; x-mse-consumer limits by consumer. This or limit_by_param.",
    ),
    field(
        "limit_by_param",
        "string",
        "Query parameter that holds the key, compared as written in the URL.",
    ),
    field(
        "limit_keys",
        "list of objects",
        "The keys that are limited; all others are not. Required.",
    ),
    field(
        "limit_keys[].key",
        "string",
        "The value. The empty one means: header or parameter absent or empty.",
    ),
    field(
        "limit_keys[].query_per_second",
        "integer",
        "Requests a second; 0 lets none in. Of several units the shortest counts.",
    ),
    field("limit_keys[].query_per_minute", "integer", "Requests a minute."),
    field("limit_keys[].query_per_hour", "integer", "Requests an hour."),
    field("limit_keys[].query_per_day", "integer", "Requests a day."),
];
