//! The key `tollgate-usage` of the ConfigMap `higress-config`: how tokens are known where the vendor tells none.
//!
//! Higress ignores the key. A wrong value is reported, and tokens are estimated.

use serde::Deserialize;

use crate::ConfigMap;
use crate::diagnostic::Diagnostic;
use crate::embedded::Embedded;

/// The key.
pub const KEY: &str = "tollgate-usage";

/// The settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UsageConfig {
    /// `tokenizer: openai`: tokens of OpenAI's models are counted; default: all are estimated.
    pub openai_tokenizer: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Layout {
    tokenizer: Option<String>,
}

impl UsageConfig {
    /// Reads the key; the default when it is missing.
    pub fn read(config_map: &ConfigMap) -> (Self, Vec<Diagnostic>) {
        let mut config = Self::default();
        let Some(mut text) = Embedded::new(config_map, KEY) else {
            return (config, Vec::new());
        };
        let layout: Layout = text.section("").unwrap_or_default();
        match layout.tokenizer.as_deref() {
            Some("openai") => config.openai_tokenizer = true,
            None | Some("none") => {}
            Some(_) => text.report("tokenizer", "must be openai or none; tokens are estimated"),
        }
        (config, text.diagnostics)
    }
}
