//! What is refused, compiled to one automaton a source.

use std::collections::HashSet;

use bytes::Bytes;
use http::StatusCode;
use regex::bytes::{Regex, RegexBuilder, RegexSet};
use serde_json::Value;
use tollgate_base::ConfigError;
use tollgate_body::Request;
use tollgate_plugin::Exchange;

use crate::spellings;
use crate::strict::Strict;
use crate::table::{Field, field};
use crate::whole_match::whole_matches;

/// One config.
pub(super) struct Block {
    pub(super) code: StatusCode,
    pub(super) message: Bytes,
    is_case_sensitive: bool,
    urls: Option<Regex>,
    exact: HashSet<Vec<u8>>,
    patterns: Option<RegexSet>,
    headers: Option<Regex>,
    pub(super) bodies: Option<Regex>,
}

impl Block {
    pub(super) fn parse(config: &Value) -> Result<Self, ConfigError> {
        let fields = Strict::of(config)?;
        let is_case_sensitive = fields.flag("case_sensitive")?.unwrap_or(true);
        let mut bodies = texts(fields, "block_bodies")?;
        bodies.extend(texts(fields, "block_bodys")?);
        let exact = texts(fields, "block_exact_urls")?.into_iter();
        let block = Self {
            code: fields.status("blocked_code", StatusCode::FORBIDDEN)?,
            message: Bytes::from(fields.text("blocked_message")?.unwrap_or_default().to_owned()),
            is_case_sensitive,
            urls: any_of(&texts(fields, "block_urls")?, is_case_sensitive, "block_urls")?,
            exact: exact
                .map(|url| folded(url.as_bytes(), is_case_sensitive))
                .collect(),
            patterns: whole_matches(
                &texts(fields, "block_regexp_urls")?,
                is_case_sensitive,
                "block_regexp_urls",
            )?,
            headers: any_of(
                &texts(fields, "block_headers")?,
                is_case_sensitive,
                "block_headers",
            )?,
            bodies: any_of(&bodies, is_case_sensitive, "block_bodies")?,
        };
        if !block.looks_at_urls() && block.headers.is_none() && block.bodies.is_none() {
            let text = "nothing to block: one of block_urls, block_exact_urls, block_regexp_urls, block_headers and \
                        block_bodies is required";
            return Err(ConfigError::new("", text));
        }
        Ok(block)
    }

    fn looks_at_urls(&self) -> bool {
        self.urls.is_some() || self.patterns.is_some() || !self.exact.is_empty()
    }

    /// Whether the URL, as the client sent it or as it is now, is refused in any spelling.
    pub(super) fn url(&self, exchange: &Exchange, request: &Request) -> bool {
        if !self.looks_at_urls() {
            return false;
        }
        let original = exchange.record.original.path.as_str();
        let current = request
            .uri()
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str);
        spellings::any(current.as_bytes(), |url| self.spelling(url))
            || (original != current && spellings::any(original.as_bytes(), |url| self.spelling(url)))
    }

    fn spelling(&self, url: &[u8]) -> bool {
        let is = |automaton: &Option<Regex>| automaton.as_ref().is_some_and(|found| found.is_match(url));
        (!self.exact.is_empty() && self.exact.contains(&folded(url, self.is_case_sensitive)))
            || self.patterns.as_ref().is_some_and(|set| set.is_match(url))
            || is(&self.urls)
    }

    /// Whether a name or a value among the headers is refused; those that HTTP/2 writes with a colon count.
    pub(super) fn headers(&self, request: &Request) -> bool {
        let Some(wanted) = &self.headers else {
            return false;
        };
        let uri = request.uri();
        let pseudo = [
            (":method", request.method().as_str()),
            (
                ":path",
                uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str),
            ),
            (
                ":authority",
                uri.authority().map_or("", http::uri::Authority::as_str),
            ),
            (":scheme", uri.scheme_str().unwrap_or_default()),
        ];
        pseudo
            .iter()
            .any(|(name, value)| wanted.is_match(name.as_bytes()) || wanted.is_match(value.as_bytes()))
            || request.headers().iter().any(|(name, value)| {
                wanted.is_match(name.as_str().as_bytes()) || wanted.is_match(value.as_bytes())
            })
    }
}

/// The texts of a list; an empty one would block everything.
fn texts<'a>(fields: Strict<'a>, name: &str) -> Result<Vec<&'a str>, ConfigError> {
    let texts = fields.texts(name)?;
    match texts.iter().position(|text| text.is_empty()) {
        Some(index) => Err(ConfigError::new(format!("{name}[{index}]"), "must not be empty")),
        None => Ok(texts),
    }
}

fn folded(text: &[u8], is_case_sensitive: bool) -> Vec<u8> {
    match is_case_sensitive {
        true => text.to_vec(),
        false => text.to_ascii_lowercase(),
    }
}

/// Finds any of these texts.
fn any_of(texts: &[&str], is_case_sensitive: bool, field: &str) -> Result<Option<Regex>, ConfigError> {
    if texts.is_empty() {
        return Ok(None);
    }
    let escaped: Vec<String> = texts.iter().map(|text| regex::escape(text)).collect();
    RegexBuilder::new(&escaped.join("|"))
        .unicode(false)
        .case_insensitive(!is_case_sensitive)
        .build()
        .map(Some)
        .map_err(|_| ConfigError::new(field, "the texts are too long altogether"))
}

/// Fields of the config.
pub(crate) const FIELDS: &[Field] = &[
    field(
        "blocked_code",
        "integer",
        "Status of the refusal; 403 unless set.",
    ),
    field("blocked_message", "string", "Its text; empty unless set."),
    field(
        "case_sensitive",
        "boolean",
        "Whether ASCII letters are told apart by case; true unless set.",
    ),
    field("block_urls", "list of string", "Texts in the path and query."),
    field(
        "block_exact_urls",
        "list of string",
        "Whole paths with their query.",
    ),
    field(
        "block_regexp_urls",
        "list of string",
        "Expressions that match a whole path with its query.",
    ),
    field(
        "block_headers",
        "list of string",
        "Texts in the name or the value of a header.",
    ),
    field("block_bodies", "list of string", "Texts in the body."),
    field("block_bodys", "list of string", "The same, as Higress spells it."),
];
