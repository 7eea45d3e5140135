//! `mcpServer` in the key `higress` of `higress-config`: MCP servers that the gateway runs and routes that speak MCP.
//!
//! Its fields are snake_case, unlike everything around it.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mcp_bridge::MaskedText;

const MATCH_TYPES: [&str; 5] = ["exact", "prefix", "suffix", "contains", "regex"];
const UPSTREAM_TYPES: [&str; 4] = ["", "rest", "sse", "streamable"];

/// `mcpServer`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct McpServerConfig {
    /// Whether any of it is in force.
    pub enable: bool,
    /// Where sessions live.
    pub redis: Option<McpRedis>,
    /// Path suffix of event streams; empty means `/sse`.
    pub sse_path_suffix: String,
    /// Servers that the gateway runs.
    pub servers: Vec<McpServer>,
    /// Routes that speak MCP.
    pub match_list: Vec<McpMatch>,
    /// Whether users have servers of their own; needs redis.
    pub enable_user_level_server: bool,
    /// Calls of one user.
    pub rate_limit: Option<McpRateLimit>,
}

/// `redis`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct McpRedis {
    /// `host:port`.
    pub address: String,
    /// User; empty for none.
    pub username: String,
    /// Password as written.
    pub password: MaskedText,
    /// Where the password is instead.
    pub password_secret: Option<SecretKeyRef>,
    /// Number of the database.
    pub db: i32,
}

/// A key of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct SecretKeyRef {
    /// Namespace; empty means the system namespace.
    pub namespace: String,
    /// Name of the Secret.
    pub name: String,
    /// Key in it.
    pub key: String,
}

/// One entry of `servers`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct McpServer {
    /// Name.
    pub name: String,
    /// Path it is served on; event streams are at this path plus the suffix.
    pub path: String,
    /// Which of the known servers.
    #[serde(rename = "type")]
    pub server_type: String,
    /// Hosts; empty means all.
    pub domain_list: Vec<String>,
    /// What the server itself wants to know.
    pub config: Map<String, Value>,
}

/// One entry of `match_list`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct McpMatch {
    /// Host, possibly with wildcards.
    pub match_rule_domain: String,
    /// Path to compare with.
    pub match_rule_path: String,
    /// `exact`, `prefix`, `suffix`, `contains` or `regex`.
    pub match_rule_type: String,
    /// `rest` (also when empty), `sse` or `streamable`.
    pub upstream_type: String,
    /// Whether the path is rewritten (sse only).
    pub enable_path_rewrite: bool,
    /// What the path is rewritten to begin with.
    pub path_rewrite_prefix: String,
}

/// `rate_limit`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct McpRateLimit {
    /// Calls in a window.
    pub limit: i64,
    /// Seconds of a window.
    pub window: i64,
    /// Users without a limit.
    pub white_list: Vec<String>,
}

impl McpServerConfig {
    /// The first value out of range: its field and what is wrong.
    pub(crate) fn fault(&self) -> Option<(String, String)> {
        let missing = |field: &str| Some((field.to_owned(), "missing".to_owned()));
        match self
            .redis
            .as_ref()
            .and_then(|redis| redis.password_secret.as_ref())
        {
            Some(secret) if secret.name.is_empty() => return missing("redis.passwordSecret.name"),
            Some(secret) if secret.key.is_empty() => return missing("redis.passwordSecret.key"),
            _ => {}
        }
        if self.enable_user_level_server && self.redis.is_none() {
            return Some(("enable_user_level_server".to_owned(), "needs `redis`".to_owned()));
        }
        self.match_list.iter().enumerate().find_map(|(index, entry)| {
            let wrong =
                |field: &str, message: String| Some((format!("match_list[{index}].{field}"), message));
            if !MATCH_TYPES.contains(&entry.match_rule_type.as_str()) {
                return wrong(
                    "match_rule_type",
                    format!("must be one of {}", MATCH_TYPES.join(", ")),
                );
            }
            if !UPSTREAM_TYPES.contains(&entry.upstream_type.as_str()) {
                return wrong("upstream_type", "must be one of rest, sse, streamable".to_owned());
            }
            if entry.enable_path_rewrite && entry.upstream_type != "sse" {
                return wrong(
                    "enable_path_rewrite",
                    "paths are rewritten for the upstream type sse only".to_owned(),
                );
            }
            None
        })
    }
}
