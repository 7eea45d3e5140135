//! The config of `ai-quota`, and what a path asks for.

use serde_json::Value;
use tollgate_base::ConfigError;
use tollgate_llm::lenient::Fields;

use crate::limits::backing::{self, Backing};
use crate::table::{Field, ParseContext, field, joined};

const CHAT: &str = "/v1/chat/completions";

/// A config, compiled.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) admin_consumer: String,
    admin_path: String,
    key_prefix: String,
    pub(super) backing: Backing,
    pub(super) allows_without_store: bool,
}

/// What a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Chat,
    Admin(Operation),
    Other,
}

/// What an administrator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Query,
    Refresh,
    Delta,
}

impl Config {
    pub(super) fn parse(config: &Value, context: &ParseContext) -> Result<Self, ConfigError> {
        let fields = Fields::of(config);
        let text = |name: &str, default: &str| match fields.text(name) {
            empty if empty.is_empty() => default.to_owned(),
            text => text,
        };
        let admin_consumer = fields.text("admin_consumer");
        if admin_consumer.is_empty() {
            let problem = "missing admin_consumer in config";
            return Err(ConfigError::new("admin_consumer", problem));
        }
        Ok(Self {
            admin_consumer,
            admin_path: text("admin_path", "/quota"),
            key_prefix: text("redis_key_prefix", "chat_quota:"),
            backing: Backing::parse(config, false, context)?,
            allows_without_store: fields.text("on_store_failure") == "allow",
        })
    }

    /// What a path asks for: the ends are tried in this order.
    pub(super) fn purpose(&self, path: &str) -> Purpose {
        let admin = |end: &str| {
            let rest = path.strip_suffix(end)?.strip_suffix(self.admin_path.as_str())?;
            rest.ends_with(CHAT).then_some(())
        };
        if admin("/refresh").is_some() {
            Purpose::Admin(Operation::Refresh)
        } else if admin("/delta").is_some() {
            Purpose::Admin(Operation::Delta)
        } else if admin("").is_some() {
            Purpose::Admin(Operation::Query)
        } else if path.ends_with(CHAT) {
            Purpose::Chat
        } else {
            Purpose::Other
        }
    }

    /// The key of a consumer's quota.
    pub(super) fn key(&self, consumer: &str) -> String {
        format!("{}{consumer}", self.key_prefix)
    }
}

/// Fields of the config.
pub(crate) static FIELDS: [Field; 11] = joined(&[
    &[
        field(
            "admin_consumer",
            "string",
            "Consumer that may ask for and change quotas. Required.",
        ),
        field(
            "admin_path",
            "string",
            "What follows /v1/chat/completions in its paths. Default /quota.",
        ),
        field(
            "redis_key_prefix",
            "string",
            "What comes before the consumer in a quota's key. Default chat_quota:",
        ),
    ],
    &backing::FIELDS,
]);
