//! What tokens cost: the price table of one configuration.
//!
//! No floating point: a rate is an amount a million tokens, and a
//! request's cost is rounded once, at its end. Reads no YAML; `compile` fills the table.

use std::collections::HashMap;
use std::sync::Arc;

pub use tollgate_base::Amount;

use crate::usage::Tokens;

/// Tokens that a rate is given for.
const PER: u128 = 1_000_000;

/// Rates of one model, each for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// Prompt tokens.
    pub input: Amount,
    /// Answer tokens.
    pub output: Amount,
    /// Prompt tokens read from the vendor's cache; `None`: as input.
    pub cached: Option<Amount>,
    /// Prompt tokens written into the vendor's cache; `None`: as input.
    pub cache_written: Option<Amount>,
    /// Answer tokens spent on reasoning; `None`: as output.
    pub reasoning: Option<Amount>,
}

impl Rates {
    /// What these tokens cost, rounded half up to a billionth.
    #[must_use]
    pub fn cost(&self, tokens: &Tokens) -> Amount {
        let split = Split::of(tokens);
        let parts = [
            (split.input, self.input),
            (split.cached, self.cached.unwrap_or(self.input)),
            (split.cache_written, self.cache_written.unwrap_or(self.input)),
            (split.output, self.output),
            (split.reasoning, self.reasoning.unwrap_or(self.output)),
        ];
        let all = parts.iter().fold(0_u128, |sum, (count, rate)| {
            sum.saturating_add(u128::from(*count) * u128::from(rate.0))
        });
        let rounded = all.saturating_add(PER / 2) / PER;
        let most = u64::try_from(i64::MAX).unwrap_or(u64::MAX);
        Amount(u64::try_from(rounded).unwrap_or(most).min(most))
    }
}

/// Tokens by what they are billed as; each token is in one part only.
#[derive(Debug, PartialEq, Eq)]
struct Split {
    input: u64,
    cached: u64,
    cache_written: u64,
    output: u64,
    reasoning: u64,
}

impl Split {
    /// The vendor's total tells whether its counts of input and output have their parts in them: OpenAI's have,
    /// Anthropic's input is without what its cache did, Gemini's output without its reasoning.
    fn of(tokens: &Tokens) -> Self {
        let more = tokens
            .total
            .saturating_sub(tokens.input.saturating_add(tokens.output));
        let of_cache = tokens.cached.saturating_add(tokens.cache_written);
        let cache_apart = of_cache > 0 && more >= of_cache;
        let more = if cache_apart { more - of_cache } else { more };
        let reasoning_apart = tokens.reasoning > 0 && more >= tokens.reasoning;
        let input = match cache_apart {
            true => tokens.input,
            false => tokens.input.saturating_sub(of_cache),
        };
        let output = match reasoning_apart {
            true => tokens.output,
            false => tokens.output.saturating_sub(tokens.reasoning),
        };
        Self {
            input,
            cached: tokens.cached,
            cache_written: tokens.cache_written,
            output,
            reasoning: tokens.reasoning,
        }
    }
}

/// The price table of one configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prices {
    /// The currency of every amount (`USD`).
    pub currency: Arc<str>,
    exact: HashMap<Box<str>, Rates>,
    /// `qwen-*` without its star, longest first.
    prefixes: Vec<(Box<str>, Rates)>,
}

impl Prices {
    /// A table without rows.
    #[must_use]
    pub fn new(currency: impl Into<Arc<str>>) -> Self {
        Self {
            currency: currency.into(),
            ..Self::default()
        }
    }

    /// Adds a row: a model's name, or the beginning of names followed by `*`. The last of two equal patterns counts.
    pub fn insert(&mut self, pattern: &str, rates: Rates) {
        let Some(prefix) = pattern.strip_suffix('*') else {
            self.exact.insert(pattern.into(), rates);
            return;
        };
        self.prefixes.retain(|(known, _)| &**known != prefix);
        let place = self
            .prefixes
            .partition_point(|(known, _)| known.len() >= prefix.len());
        self.prefixes.insert(place, (prefix.into(), rates));
    }

    /// Rates of a model: of its own row, else of the longest beginning that fits.
    #[must_use]
    pub fn rates(&self, model: &str) -> Option<&Rates> {
        self.exact.get(model).or_else(|| {
            let found = self
                .prefixes
                .iter()
                .find(|(prefix, _)| model.starts_with(&**prefix));
            found.map(|(_, rates)| rates)
        })
    }

    /// What tokens of a model cost; `None` for a model without a price.
    #[must_use]
    pub fn cost(&self, model: &str, tokens: &Tokens) -> Option<Amount> {
        Some(self.rates(model)?.cost(tokens))
    }

    /// Whether nothing has a price.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(text: &str) -> Amount {
        Amount::parse(text).unwrap()
    }

    #[test]
    fn every_token_is_billed_once_whatever_the_vendor_counts_in() {
        let tokens = |input, output, total, cached, cache_written, reasoning| Tokens {
            input,
            output,
            total,
            cached,
            cache_written,
            reasoning,
        };
        let split = |parts: [u64; 5]| Split {
            input: parts[0],
            cached: parts[1],
            cache_written: parts[2],
            output: parts[3],
            reasoning: parts[4],
        };
        for (counts, parts) in [
            // OpenAI: parts are inside.
            (tokens(100, 50, 150, 80, 0, 25), [20, 80, 0, 25, 25]),
            // Anthropic: the cache is outside.
            (tokens(10, 20, 37, 5, 2, 0), [10, 5, 2, 20, 0]),
            // Gemini: reasoning is outside, the cache inside.
            (tokens(4, 6, 15, 0, 0, 5), [4, 0, 0, 6, 5]),
            (tokens(4, 6, 10, 0, 0, 0), [4, 0, 0, 6, 0]),
            // Nonsense costs something and breaks nothing.
            (tokens(1, 1, 2, 9, 0, 9), [0, 9, 0, 0, 9]),
        ] {
            assert_eq!(Split::of(&counts), split(parts), "{counts:?}");
        }
    }

    #[test]
    fn a_cost_is_rounded_once_and_cannot_overflow() {
        let rates = Rates {
            input: amount("2.5"),
            output: amount("10"),
            cached: Some(amount("1.25")),
            cache_written: None,
            reasoning: None,
        };
        let tokens = Tokens {
            input: 100,
            output: 50,
            total: 150,
            cached: 80,
            cache_written: 0,
            reasoning: 25,
        };
        // 20 × 2.5 + 80 × 1.25 + 50 × 10 = 650 millionths.
        assert_eq!(rates.cost(&tokens).to_string(), "0.00065");
        let tiny = Rates {
            input: Amount(1),
            ..Rates::default()
        };
        let input = |count| Tokens {
            input: count,
            total: count,
            ..Tokens::default()
        };
        assert_eq!(tiny.cost(&input(499_999)), Amount(0));
        assert_eq!(tiny.cost(&input(500_000)), Amount(1));
        let huge = Rates {
            input: Amount(u64::MAX),
            ..Rates::default()
        };
        assert_eq!(huge.cost(&input(u64::MAX)), Amount(i64::MAX.unsigned_abs()));
    }

    #[test]
    fn the_own_row_wins_then_the_longest_beginning() {
        let rates = |input| Rates {
            input: Amount(input),
            ..Rates::default()
        };
        let mut prices = Prices::new("USD");
        for (pattern, input) in [
            ("*", 1),
            ("qwen-*", 2),
            ("qwen-max*", 3),
            ("qwen-max", 4),
            ("qwen-*", 5),
        ] {
            prices.insert(pattern, rates(input));
        }
        for (model, input) in [
            ("gpt", 1),
            ("qwen-plus", 5),
            ("qwen-max-1", 3),
            ("qwen-max", 4),
            ("", 1),
        ] {
            assert_eq!(prices.rates(model), Some(&rates(input)), "{model}");
        }
        assert!(Prices::new("USD").is_empty());
        assert_eq!(Prices::default().cost("gpt", &Tokens::default()), None);
    }
}
