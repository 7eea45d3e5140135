//! Which agents are let in and kept out, one automaton a list.

use bytes::Bytes;
use http::StatusCode;
use regex::bytes::RegexSet;
use serde_json::Value;
use tollgate_base::ConfigError;

use super::crawlers;
use crate::strict::Strict;
use crate::table::{Field, field};
use crate::whole_match::whole_matches;

/// One config.
pub(super) struct Agents {
    allow: Option<RegexSet>,
    deny: Option<RegexSet>,
    crawlers: &'static RegexSet,
    pub(super) code: StatusCode,
    pub(super) message: Bytes,
}

impl Agents {
    pub(super) fn parse(config: &Value) -> Result<Self, ConfigError> {
        let fields = Strict::of(config)?;
        Ok(Self {
            allow: whole_matches(&fields.texts("allow")?, true, "allow")?,
            deny: whole_matches(&fields.texts("deny")?, true, "deny")?,
            crawlers: crawlers::known()?,
            code: fields.status("blocked_code", StatusCode::FORBIDDEN)?,
            message: Bytes::from(fields.text("blocked_message")?.unwrap_or_default().to_owned()),
        })
    }

    /// Whether a `User-Agent` is kept out; empty where the request has none.
    pub(super) fn is_blocked(&self, agent: &[u8]) -> bool {
        let is = |list: &Option<RegexSet>| list.as_ref().is_some_and(|set| set.is_match(agent));
        !is(&self.allow) && (is(&self.deny) || self.crawlers.is_match(agent))
    }
}

/// Fields of the config.
pub(crate) const FIELDS: &[Field] = &[
    field(
        "allow",
        "list of string",
        "Expressions; who matches one as a whole comes in, known crawler or not.",
    ),
    field(
        "deny",
        "list of string",
        "Expressions; who matches one as a whole is kept out, besides the known crawlers.",
    ),
    field(
        "blocked_code",
        "integer",
        "Status of the refusal; 403 unless set.",
    ),
    field("blocked_message", "string", "Its text; empty unless set."),
];
