//! `customSettings`: values that the gateway puts into a client's body before anything else (ai-proxy spec §1.5).

use crate::lenient::Fields;

/// One setting that survived parsing; invalid ones are dropped silently, as in Higress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomSetting {
    /// sjson path in the body.
    pub path: Box<str>,
    /// JSON text of the value.
    pub value: Box<str>,
    /// Whether a value that the client sent is replaced.
    pub overwrite: bool,
}

/// Column of [`NAMES`] by target protocol.
const TARGETS: [&str; 8] = [
    "openai", "baidu", "spark", "qwen", "gemini", "hunyuan", "claude", "minimax",
];

/// General name → the target's own name; empty where it has none.
const NAMES: [(&str, [&str; 8]); 5] = [
    (
        "max_tokens",
        [
            "max_tokens",
            "max_output_tokens",
            "max_tokens",
            "max_tokens",
            "maxOutputTokens",
            "",
            "max_tokens",
            "tokens_to_generate",
        ],
    ),
    (
        "temperature",
        [
            "temperature",
            "temperature",
            "temperature",
            "temperature",
            "temperature",
            "Temperature",
            "temperature",
            "temperature",
        ],
    ),
    (
        "top_p",
        ["top_p", "top_p", "", "top_p", "topP", "TopP", "top_p", "top_p"],
    ),
    ("top_k", ["", "", "top_k", "", "topK", "", "top_k", ""]),
    ("seed", ["seed", "", "", "seed", "", "", "", ""]),
];

/// Reads a provider's settings. `target` is `openai`, or the provider's type under `protocol: original`.
#[must_use]
pub fn parse(provider: Fields<'_>, target: &str) -> Vec<CustomSetting> {
    provider
        .values("customSettings")
        .into_iter()
        .filter_map(|entry| parse_one(Fields::of(entry), target))
        .collect()
}

fn parse_one(entry: Fields<'_>, target: &str) -> Option<CustomSetting> {
    let name = entry.text("name");
    if name.is_empty() {
        return None;
    }
    let own_name = if entry.text("mode") == "raw" {
        name
    } else {
        let column = TARGETS.iter().position(|known| *known == target)?;
        let row = NAMES.iter().find(|row| row.0 == name)?;
        row.1[column].to_owned()
    };
    if own_name.is_empty() {
        return None;
    }
    let path = match target {
        "qwen" => format!("parameters.{own_name}"),
        "gemini" => format!("generation_config.{own_name}"),
        _ => own_name,
    };
    Some(CustomSetting {
        path: path.into(),
        value: entry
            .get("value")
            .map_or_else(|| "null".to_owned(), ToString::to_string)
            .into(),
        overwrite: entry.flag("overwrite", true),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(target: &str) -> Vec<String> {
        let config = json!({"customSettings": [
            {"name": "max_tokens", "value": 7}, {"name": "top_k", "value": 3}, {"name": "", "value": 1},
            {"name": "unknown", "value": 1}, {"name": "foo.bar", "value": true, "mode": "raw"}, "no object",
        ]});
        let settings = parse(Fields::of(&config), target);
        settings
            .iter()
            .map(|setting| format!("{}={}", setting.path, setting.value))
            .collect()
    }

    #[test]
    fn names_follow_the_target() {
        assert_eq!(paths("openai"), ["max_tokens=7", "foo.bar=true"]);
        assert_eq!(
            paths("qwen"),
            ["parameters.max_tokens=7", "parameters.foo.bar=true"]
        );
        assert_eq!(
            paths("gemini"),
            [
                "generation_config.maxOutputTokens=7",
                "generation_config.topK=3",
                "generation_config.foo.bar=true"
            ]
        );
        assert_eq!(paths("hunyuan"), ["foo.bar=true"]);
        assert_eq!(paths("minimax"), ["tokens_to_generate=7", "foo.bar=true"]);
        assert_eq!(
            paths("deepseek"),
            ["foo.bar=true"],
            "a type without a column takes raw settings only"
        );
    }

    #[test]
    fn overwrite_is_the_default() {
        let config = json!({"customSettings": {"name": "seed", "value": "x", "overwrite": "false"}});
        let settings = parse(Fields::of(&config), "openai");
        assert!(!settings[0].overwrite);
        assert_eq!(&*settings[0].value, "\"x\"");
    }
}
