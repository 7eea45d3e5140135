//! The key `tollgate-ledger` of the ConfigMap `higress-config`: how long the usage ledger keeps what, and where else its
//! rows go.
//!
//! Higress ignores the key. Retention is one section, each sink another: a wrong one is reported, its default is in
//! force or it is left out, and the others stay.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::ConfigMap;
use crate::diagnostic::Diagnostic;
use crate::embedded::Embedded;
use crate::mcp_bridge::MaskedText;

/// The key.
pub const KEY: &str = "tollgate-ledger";
const DAY: Duration = Duration::from_hours(24);
/// Shortest stretch of a month that budgets need.
const LEAST_DAYS: Duration = Duration::from_hours(24 * 32);

/// The ledger's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerConfig {
    /// Whether requests are entered; default true.
    pub enable: bool,
    /// How long the ledger keeps what.
    pub retention: LedgerRetention,
    /// Where else rows go.
    pub sinks: Vec<LedgerSink>,
}

/// How long the ledger keeps what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerRetention {
    /// One row a request; default 30 days.
    pub rows: Duration,
    /// Sums by hour; default 90 days.
    pub hours: Duration,
    /// Sums by day; default 730 days.
    pub days: Duration,
}

impl Default for LedgerRetention {
    fn default() -> Self {
        Self {
            rows: DAY * 30,
            hours: DAY * 90,
            days: DAY * 730,
        }
    }
}

/// One sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerSink {
    /// Name in metrics and messages; default the type and its number.
    pub name: String,
    /// Where rows go.
    pub target: SinkTarget,
}

/// Where rows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkTarget {
    /// A file that is appended to, a JSON object a line.
    File {
        /// Its path.
        path: String,
    },
    /// An endpoint that takes JSON objects, a line each, in the body of a POST (ClickHouse's `JSONEachRow`).
    Http {
        /// `http://` or `https://`.
        url: String,
        /// Further headers; values may be secret.
        headers: BTreeMap<String, MaskedText>,
    },
    /// An OpenTelemetry collector that takes logs over HTTP (OTLP/JSON).
    Otlp {
        /// `http://` or `https://`, `/v1/logs` included.
        url: String,
        /// Further headers; values may be secret.
        headers: BTreeMap<String, MaskedText>,
    },
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Head {
    enable: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RetentionLayout {
    rows: Option<String>,
    hours: Option<String>,
    days: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SinkLayout {
    name: String,
    #[serde(rename = "type")]
    sort: String,
    path: String,
    url: String,
    headers: BTreeMap<String, MaskedText>,
}

type Fault = (&'static str, String);

impl LedgerConfig {
    /// Reads the key; all defaults when it is missing.
    pub fn read(config_map: &ConfigMap) -> (Self, Vec<Diagnostic>) {
        let mut config = Self {
            enable: true,
            retention: LedgerRetention::default(),
            sinks: Vec::new(),
        };
        let Some(mut text) = Embedded::new(config_map, KEY) else {
            return (config, Vec::new());
        };
        let head: Head = text.section("").unwrap_or_default();
        config.enable = head.enable.unwrap_or(true);
        let retention: RetentionLayout = text.section("retention").unwrap_or_default();
        match retention.checked() {
            Ok(retention) => config.retention = retention,
            Err((field, message)) => {
                let message = format!("{message}; the whole section is ignored");
                text.report(&format!("retention.{field}"), &message);
            }
        }
        for (number, (place, sink)) in text.items::<SinkLayout>("sinks").into_iter().enumerate() {
            let taken: Vec<_> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
            match sink.checked(number, &taken) {
                Ok(sink) => config.sinks.push(sink),
                Err((field, message)) => {
                    let message = format!("{message}; the sink is left out");
                    text.report(&format!("{place}.{field}"), &message);
                }
            }
        }
        (config, text.diagnostics)
    }
}

impl RetentionLayout {
    fn checked(self) -> Result<LedgerRetention, Fault> {
        let defaults = LedgerRetention::default();
        let read = |field, text: Option<String>, default| match text {
            None => Ok(default),
            Some(text) => age(&text).ok_or_else(|| (field, "must be a time such as 12h or 30d".to_owned())),
        };
        let kept = LedgerRetention {
            rows: read("rows", self.rows, defaults.rows)?,
            hours: read("hours", self.hours, defaults.hours)?,
            days: read("days", self.days, defaults.days)?,
        };
        if kept.days < LEAST_DAYS {
            return Err(("days", "must be at least 32d: budgets are for a month".to_owned()));
        }
        if kept.rows > kept.hours {
            return Err(("hours", "must be at least as long as rows".to_owned()));
        }
        if kept.hours > kept.days {
            return Err(("days", "must be at least as long as hours".to_owned()));
        }
        Ok(kept)
    }
}

/// A whole number of hours (`12h`), days (`30d`) or weeks (`4w`), at least an hour.
fn age(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let hours = match unit {
        "h" => 1,
        "d" => 24,
        "w" => 24 * 7,
        _ => return None,
    };
    let hours = number.parse::<u64>().ok()?.checked_mul(hours)?;
    // A century: more is a slip of the pen.
    (1..=24 * 365 * 100)
        .contains(&hours)
        .then(|| Duration::from_hours(hours))
}

impl SinkLayout {
    fn checked(self, number: usize, taken: &[&str]) -> Result<LedgerSink, Fault> {
        let name = match self.name.as_str() {
            "" => format!("{}-{number}", self.sort),
            name => name.to_owned(),
        };
        let is_plain = |name: &str| {
            name.chars()
                .all(|character| character.is_ascii_alphanumeric() || "-_.".contains(character))
        };
        if name.len() > 64 || !is_plain(&name) {
            return Err((
                "name",
                "must be at most 64 letters, digits, `-`, `_` and `.`".to_owned(),
            ));
        }
        if taken.contains(&name.as_str()) {
            return Err(("name", format!("another sink is called {name}")));
        }
        let target = match self.sort.as_str() {
            "file" if self.path.is_empty() => return Err(("path", "missing".to_owned())),
            "file" => SinkTarget::File { path: self.path },
            "http" => SinkTarget::Http {
                url: url(self.url)?,
                headers: headers(self.headers)?,
            },
            "otlp" => SinkTarget::Otlp {
                url: url(self.url)?,
                headers: headers(self.headers)?,
            },
            _ => return Err(("type", "must be file, http or otlp".to_owned())),
        };
        Ok(LedgerSink { name, target })
    }
}

fn url(text: String) -> Result<String, Fault> {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let is_bad = |rest: &str| {
        rest.is_empty()
            || rest.starts_with(['/', '?'])
            || rest
                .chars()
                .any(|character| character.is_whitespace() || character.is_control())
    };
    match rest {
        Some(rest) if !is_bad(rest) => Ok(text),
        _ => Err(("url", "must be an http:// or https:// URL".to_owned())),
    }
}

fn headers(headers: BTreeMap<String, MaskedText>) -> Result<BTreeMap<String, MaskedText>, Fault> {
    let is_token = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let is_value = |value: &str| {
        value
            .bytes()
            .all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte))
    };
    match headers
        .iter()
        .find(|(name, value)| !is_token(name) || !is_value(value.expose()))
    {
        Some(_) => Err(("headers", "must be names and values of HTTP headers".to_owned())),
        None => Ok(headers),
    }
}
