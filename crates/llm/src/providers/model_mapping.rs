//! `modelMapping`: the model name that a vendor sees (ai-proxy spec §1.4).
//!
//! Order: exact key, longest prefix (`gpt-4*`), regular expressions (`~…`) in file order, `*`. Higress tries prefixes
//! and expressions in the random order of a Go map; here the order is fixed.

use regex::Regex;
use tollgate_base::ConfigError;

use crate::lenient::{Fields, text_of};

/// A compiled mapping; the empty one changes nothing.
#[derive(Debug, Clone, Default)]
pub struct ModelMapping {
    exact: Vec<(Box<str>, Box<str>)>,
    /// Longest first.
    prefixes: Vec<(Box<str>, Box<str>)>,
    expressions: Vec<(Regex, Box<str>)>,
    fallback: Option<Box<str>>,
}

impl ModelMapping {
    /// Reads the `modelMapping` of a provider.
    ///
    /// # Errors
    /// A key `~…` that is no regular expression; Higress finds that out with the first request only.
    pub fn parse(provider: Fields<'_>) -> Result<Self, ConfigError> {
        let mut mapping = Self::default();
        for (key, value) in provider.entries("modelMapping") {
            let target: Box<str> = text_of(value).into();
            if key == "*" {
                mapping.fallback = Some(target);
            } else if let Some(pattern) = key.strip_prefix('~') {
                // Higress strips a trailing star from every key before it looks for the tilde.
                let pattern = pattern.strip_suffix('*').unwrap_or(pattern);
                let expression = Regex::new(pattern).map_err(|cause| {
                    let text = format!("invalid regular expression {key:?}: {}", last_line(&cause));
                    ConfigError::new("modelMapping", text)
                })?;
                mapping.expressions.push((expression, target));
            } else if let Some(prefix) = key.strip_suffix('*') {
                mapping.prefixes.push((prefix.into(), target));
            } else {
                mapping.exact.push((key.as_str().into(), target));
            }
        }
        mapping
            .prefixes
            .sort_by_key(|entry| std::cmp::Reverse(entry.0.len()));
        Ok(mapping)
    }

    /// Whether every model keeps its name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty()
            && self.prefixes.is_empty()
            && self.expressions.is_empty()
            && self.fallback.is_none()
    }

    /// The vendor's name for `model` (which may be empty); `None` when it keeps its name.
    #[must_use]
    pub fn map(&self, model: &str) -> Option<String> {
        let target = self.find(model)?;
        (!target.is_empty() && target != model).then_some(target)
    }

    /// Names that may be asked for: every whole one, and what `*` stands for, since it keeps its name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let whole = self.exact.iter().map(|(name, _)| &**name);
        let fallback = self.fallback.as_deref().filter(|name| !name.is_empty());
        whole.chain(fallback)
    }

    fn find(&self, model: &str) -> Option<String> {
        if let Some(entry) = self.exact.iter().find(|entry| *entry.0 == *model) {
            return Some(entry.1.to_string());
        }
        if let Some(entry) = self.prefixes.iter().find(|entry| model.starts_with(&*entry.0)) {
            return Some(entry.1.to_string());
        }
        if let Some(entry) = self.expressions.iter().find(|entry| entry.0.is_match(model)) {
            return Some(entry.0.replace_all(model, &*entry.1).into_owned());
        }
        self.fallback.as_ref().map(|target| target.to_string())
    }
}

fn last_line(cause: &regex::Error) -> String {
    let text = cause.to_string();
    text.lines().last().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn mapped(mapping: Value, model: &str) -> Option<String> {
        let config = json!({"modelMapping": mapping});
        ModelMapping::parse(Fields::of(&config)).unwrap().map(model)
    }

    #[test]
    fn exact_before_longest_prefix_before_expression_before_star() {
        let mapping =
            json!({"*": "any", "g*": "short", "gpt-4*": "long", "~^gp": "regex", "gpt-4o": "exact"});
        assert_eq!(mapped(mapping.clone(), "gpt-4o").as_deref(), Some("exact"));
        assert_eq!(mapped(mapping.clone(), "gpt-4-turbo").as_deref(), Some("long"));
        assert_eq!(mapped(mapping.clone(), "gemma").as_deref(), Some("short"));
        assert_eq!(mapped(mapping.clone(), "claude").as_deref(), Some("any"));
        assert_eq!(mapped(mapping, "").as_deref(), Some("any"));
    }

    #[test]
    fn an_empty_target_keeps_the_model() {
        assert_eq!(mapped(json!({"a": "", "*": "x"}), "a"), None);
        assert_eq!(mapped(json!({"a*": "", "*": "x"}), "ab"), None);
        assert_eq!(mapped(json!({"*": ""}), "m"), None);
        assert_eq!(mapped(json!({}), "m"), None);
    }

    #[test]
    fn expressions_replace_every_match() {
        let openrouter = json!({"~gpt(.*)": "openai/gpt$1"});
        assert_eq!(mapped(openrouter, "gpt-4").as_deref(), Some("openai/gpt-4"));
        assert_eq!(mapped(json!({"~4": "5"}), "gpt-4-4").as_deref(), Some("gpt-5-5"));
        assert_eq!(mapped(json!({"~(a)": "${1}x"}), "a").as_deref(), Some("ax"));
        assert_eq!(mapped(json!({"~(a)b": "$1suffix"}), "abc").as_deref(), Some("c"));
        assert_eq!(
            mapped(json!({"~.*": "x"}), "abc").as_deref(),
            Some("xxx"),
            "loses its star"
        );
        assert_eq!(mapped(json!({"~zzz": "x"}), "abc"), None);
    }

    #[test]
    fn a_bad_expression_is_refused() {
        let config = json!({"modelMapping": {"~(": "x"}});
        let fault = ModelMapping::parse(Fields::of(&config)).unwrap_err();
        assert_eq!(fault.field, "modelMapping");
        assert!(
            fault.message.contains("invalid regular expression \"~(\""),
            "{fault}"
        );
    }
}
