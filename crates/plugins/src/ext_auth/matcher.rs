//! Texts that a config describes: names of headers, paths, and the requests of `match_list` (plugins spec §7).

use http::{HeaderName, Method};
use regex::Regex;
use serde_json::Value;
use tollgate_base::ConfigError;
use tollgate_body::Request;
use tollgate_plugin::Exchange;

use crate::spellings;
use crate::strict::Strict;

const KINDS: [&str; 5] = ["exact", "prefix", "suffix", "contains", "regex"];

/// One description.
#[derive(Debug)]
enum Matcher {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    /// Anywhere in the text.
    Regex(Regex),
}

impl Matcher {
    /// `kind` is one of [`KINDS`].
    fn new(kind: &str, text: &str) -> Result<Self, ConfigError> {
        let owned = text.to_owned();
        Ok(match kind {
            "exact" => Self::Exact(owned),
            "prefix" => Self::Prefix(owned),
            "suffix" => Self::Suffix(owned),
            "contains" => Self::Contains(owned),
            _ => Self::Regex(regex(text)?),
        })
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(whole) => text == whole,
            Self::Prefix(part) => text.starts_with(part),
            Self::Suffix(part) => text.ends_with(part),
            Self::Contains(part) => text.contains(part),
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

fn regex(text: &str) -> Result<Regex, ConfigError> {
    Regex::new(text).map_err(|fault| ConfigError::new("", format!("is no regular expression: {fault}")))
}

/// Names of headers, without case.
#[derive(Debug)]
pub(super) struct Names(Vec<Matcher>);

impl Names {
    /// The list in this field; `None` where it is absent.
    pub(super) fn parse(fields: Strict<'_>, field: &str) -> Result<Option<Self>, ConfigError> {
        if !fields.has(field) {
            return Ok(None);
        }
        let mut names = Vec::new();
        for (index, written) in fields.list(field)?.iter().enumerate() {
            let name = name(written).map_err(|fault| fault.within(&format!("{field}[{index}]")))?;
            names.push(name);
        }
        Ok(Some(Self(names)))
    }

    pub(super) fn contains(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|matcher| matcher.matches(name.as_str()))
    }
}

fn name(written: &Value) -> Result<Matcher, ConfigError> {
    let fields = Strict::of(written)?;
    let mut kinds = KINDS.into_iter().filter(|kind| fields.has(kind));
    let (Some(kind), None) = (kinds.next(), kinds.next()) else {
        let text = format!("must have one of {}", KINDS.join(", "));
        return Err(ConfigError::new("", text));
    };
    let text = fields.required(kind)?;
    match kind {
        "regex" => Matcher::new(kind, &format!("(?i){text}")),
        _ => Matcher::new(kind, &text.to_ascii_lowercase()),
    }
    .map_err(|fault| fault.within(kind))
}

/// Which requests are asked about.
#[derive(Debug)]
pub(super) struct Requests {
    /// The listed ones pass unasked; else the listed ones alone are asked about.
    listed_pass: bool,
    rules: Vec<Rule>,
}

/// One entry of the list; what it does not name may be anything.
#[derive(Debug)]
struct Rule {
    /// With the client's port, if the rule has one.
    domain: Option<(Regex, bool)>,
    methods: Vec<String>,
    path: Option<Matcher>,
}

impl Requests {
    pub(super) fn parse(fields: Strict<'_>) -> Result<Self, ConfigError> {
        let listed_pass = match fields.text("match_type")? {
            None | Some("" | "whitelist") => true,
            Some("blacklist") => false,
            Some(_) => return Err(ConfigError::new("match_type", "must be whitelist or blacklist")),
        };
        let mut rules = Vec::new();
        for (index, written) in fields.list("match_list")?.iter().enumerate() {
            let rule = Rule::parse(written).map_err(|fault| fault.within(&format!("match_list[{index}]")))?;
            rules.push(rule);
        }
        Ok(Self { listed_pass, rules })
    }

    /// Whether the service is asked about this request. A path is looked at in every spelling in which a server might
    /// read it: a request passes unasked only if none of them has to be asked about.
    pub(super) fn contain(&self, exchange: &Exchange, request: &Request) -> bool {
        let rules: Vec<&Rule> = self
            .rules
            .iter()
            .filter(|rule| rule.is_for(exchange, request.method()))
            .collect();
        if rules.is_empty() {
            return self.listed_pass;
        }
        spellings::any(request.uri().path().as_bytes(), |spelling| {
            let path = String::from_utf8_lossy(spelling);
            let is_listed = rules
                .iter()
                .any(|rule| rule.path.as_ref().is_none_or(|matcher| matcher.matches(&path)));
            is_listed != self.listed_pass
        })
    }
}

impl Rule {
    fn parse(written: &Value) -> Result<Self, ConfigError> {
        let fields = Strict::of(written)?;
        let domain = fields
            .text("match_rule_domain")?
            .filter(|domain| !domain.is_empty());
        let kind = fields.text("match_rule_type")?.unwrap_or_default();
        let path = fields.text("match_rule_path")?.unwrap_or_default();
        let path = match (kind, path) {
            ("", "") => None,
            ("", _) => return Err(ConfigError::new("match_rule_type", "is required next to a path")),
            (_, "") => return Err(ConfigError::new("match_rule_path", "is required next to a type")),
            (kind, path) if KINDS.contains(&kind) => {
                Some(Matcher::new(kind, path).map_err(|fault| fault.within("match_rule_path"))?)
            }
            _ => {
                let text = format!("must be one of {}", KINDS.join(", "));
                return Err(ConfigError::new("match_rule_type", text));
            }
        };
        let methods = fields.texts("match_rule_method")?;
        Ok(Self {
            domain: domain.map(domain_pattern).transpose()?,
            methods: methods.into_iter().map(str::to_owned).collect(),
            path,
        })
    }

    /// Whether domain and method are meant. A rule that names nothing means nobody.
    fn is_for(&self, exchange: &Exchange, method: &Method) -> bool {
        if self.domain.is_none() && self.methods.is_empty() && self.path.is_none() {
            return false;
        }
        let is_domain = self.domain.as_ref().is_none_or(|(pattern, with_port)| {
            pattern.is_match(match with_port {
                true => &exchange.record.original.authority,
                false => &exchange.host,
            })
        });
        let mut methods = self.methods.iter();
        is_domain
            && (self.methods.is_empty() || methods.any(|known| known.eq_ignore_ascii_case(method.as_str())))
    }
}

/// A host in which `*` stands for anything, and whether it has a port.
fn domain_pattern(domain: &str) -> Result<(Regex, bool), ConfigError> {
    let escaped = regex::escape(domain).replace(r"\*", ".*");
    let pattern = regex(&format!("(?i)^{escaped}$")).map_err(|fault| fault.within("match_rule_domain"))?;
    Ok((pattern, domain.contains(':')))
}
