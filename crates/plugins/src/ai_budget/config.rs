//! The config of `ai-budget`: who may spend how much.

use std::collections::HashMap;

use serde_json::Value;
use tollgate_base::{Amount, ConfigError};

use crate::table::{Field, ParseContext, field};

/// A config, compiled.
#[derive(Debug)]
pub(super) struct Config {
    by_consumer: HashMap<Box<str>, Budget>,
    /// For every other consumer.
    others: Option<Budget>,
}

/// One consumer's budget; `None`: no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    pub(super) day: Option<Amount>,
    pub(super) month: Option<Amount>,
}

impl Config {
    pub(super) fn parse(config: &Value, context: &ParseContext) -> Result<Self, ConfigError> {
        let list = config
            .get("budgets")
            .and_then(Value::as_array)
            .filter(|list| !list.is_empty())
            .ok_or_else(|| ConfigError::new("budgets", "must be a list with at least one entry"))?;
        let mut parsed = Self {
            by_consumer: HashMap::new(),
            others: None,
        };
        for (position, entry) in list.iter().enumerate() {
            let place = format!("budgets[{position}]");
            let budget = budget(entry).map_err(|fault| fault.within(&place))?;
            let name = entry.get("consumer").and_then(Value::as_str).unwrap_or_default();
            let is_new = match name {
                "" => {
                    let problem = "must be a consumer's name, or * for every other";
                    return Err(ConfigError::new("consumer", problem).within(&place));
                }
                "*" => parsed.others.is_none(),
                name => !parsed.by_consumer.contains_key(name),
            };
            if !is_new {
                let problem = format!("{name} has a budget already: the first counts");
                context.warn(ConfigError::new(place, problem));
            } else if name == "*" {
                parsed.others = Some(budget);
            } else {
                parsed.by_consumer.insert(name.into(), budget);
            }
        }
        Ok(parsed)
    }

    /// The budget of a consumer; nobody in particular has none.
    pub(super) fn budget(&self, consumer: &str) -> Option<&Budget> {
        if consumer.is_empty() {
            return None;
        }
        self.by_consumer.get(consumer).or(self.others.as_ref())
    }
}

fn budget(entry: &Value) -> Result<Budget, ConfigError> {
    let amount = |name: &str| {
        let text = match entry.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let amount = Amount::parse(&text)
            .ok_or_else(|| ConfigError::new(name, "must be an amount of money, 0 or more"));
        amount.map(Some)
    };
    let budget = Budget {
        day: amount("day")?,
        month: amount("month")?,
    };
    match budget {
        Budget {
            day: None,
            month: None,
        } => Err(ConfigError::new("", "day or month must be set")),
        budget => Ok(budget),
    }
}

/// Fields of the config.
pub(crate) const FIELDS: &[Field] = &[
    field("budgets", "list of objects", "Who may spend how much. Required."),
    field(
        "budgets[].consumer",
        "string",
        "A consumer's name, or * for each that has no entry of its own.",
    ),
    field(
        "budgets[].day",
        "number",
        "Money a day (UTC), in the price table's currency.",
    ),
    field(
        "budgets[].month",
        "number",
        "Money a month (UTC). Day, month or both.",
    ),
];
