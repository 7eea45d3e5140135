//! The key `tollgate-prices` of the ConfigMap `higress-config`: what a million tokens of a model cost.
//!
//! Higress ignores the key. Each row is read on its own: a wrong one is reported and left out, its model then has no
//! price, or the one of a shorter pattern.

use std::collections::HashMap;

use serde::Deserialize;
use tollgate_base::Amount;

use crate::ConfigMap;
use crate::diagnostic::Diagnostic;
use crate::embedded::Embedded;

/// The key.
pub const KEY: &str = "tollgate-prices";
/// Currency of a table that names none.
const DEFAULT_CURRENCY: &str = "USD";
/// Longest name of a currency or a model.
const LONGEST: usize = 256;

/// Prices by model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceTable {
    /// Currency of all rows; default `USD`.
    pub currency: String,
    /// Rows, no two with the same pattern.
    pub models: Vec<PricedModel>,
}

/// One row; amounts are for a million tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PricedModel {
    /// A model's name, or the beginning of names followed by `*`.
    pub model: String,
    /// Prompt tokens.
    pub input: Amount,
    /// Answer tokens; default 0, as for embeddings.
    pub output: Amount,
    /// Prompt tokens read from the vendor's cache; default as `input`.
    pub cached: Option<Amount>,
    /// `cacheWritten`: prompt tokens written into the vendor's cache; default as `input`.
    pub cache_written: Option<Amount>,
    /// Answer tokens spent on reasoning; default as `output`.
    pub reasoning: Option<Amount>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct RowLayout {
    model: String,
    currency: String,
    input: Option<String>,
    output: Option<String>,
    cached: Option<String>,
    cache_written: Option<String>,
    reasoning: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Head {
    currency: Option<String>,
}

impl PriceTable {
    /// Reads the key; an empty table when it is missing.
    pub fn read(config_map: &ConfigMap) -> (Self, Vec<Diagnostic>) {
        let mut table = Self {
            currency: DEFAULT_CURRENCY.to_owned(),
            models: Vec::new(),
        };
        let Some(mut text) = Embedded::new(config_map, KEY) else {
            return (table, Vec::new());
        };
        let head: Head = text.section("").unwrap_or_default();
        match head.currency {
            Some(name) if is_name(&name) => table.currency = name,
            Some(_) => text.report("currency", "must be a short name such as USD; USD is used"),
            None => {}
        }
        let mut seen: HashMap<String, String> = HashMap::new();
        for (place, row) in text.items::<RowLayout>("models") {
            match row.checked(&table.currency) {
                Ok(row) => {
                    if let Some(first) = seen.get(&row.model) {
                        let message = format!("{first} is for the same model; this row is ignored");
                        text.report(&format!("{place}.model"), &message);
                        continue;
                    }
                    seen.insert(row.model.clone(), place);
                    table.models.push(row);
                }
                Err((field, message)) => {
                    let message = format!("{message}; the row is ignored");
                    text.report(&format!("{place}.{field}"), &message);
                }
            }
        }
        (table, text.diagnostics)
    }
}

fn is_name(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len()) && text.chars().all(|character| !character.is_control())
}

impl RowLayout {
    fn checked(self, currency: &str) -> Result<PricedModel, (&'static str, String)> {
        if !is_name(&self.model) {
            return Err((
                "model",
                "must name a model, or the beginning of names and `*`".to_owned(),
            ));
        }
        let stars = self.model.matches('*').count();
        if stars > 1 || (stars == 1 && !self.model.ends_with('*')) {
            return Err(("model", "`*` may stand at the end only".to_owned()));
        }
        if !self.currency.is_empty() && self.currency != currency {
            let message = format!("a table has one currency, and this one's is {currency}");
            return Err(("currency", message));
        }
        let input = amount("input", self.input.as_deref())?;
        Ok(PricedModel {
            input: input.ok_or_else(|| ("input", "missing".to_owned()))?,
            output: amount("output", self.output.as_deref())?.unwrap_or_default(),
            cached: amount("cached", self.cached.as_deref())?,
            cache_written: amount("cacheWritten", self.cache_written.as_deref())?,
            reasoning: amount("reasoning", self.reasoning.as_deref())?,
            model: self.model,
        })
    }
}

fn amount(field: &'static str, text: Option<&str>) -> Result<Option<Amount>, (&'static str, String)> {
    let read = |text| {
        Amount::parse(text).ok_or_else(|| {
            let message =
                "must be an amount for a million tokens: a decimal number from 0, at most 9 decimal places";
            (field, message.to_owned())
        })
    };
    text.map(read).transpose()
}
