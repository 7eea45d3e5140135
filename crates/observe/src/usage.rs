//! `Usage`: what one answer cost in tokens and how long its model took, filled while the answer passes.
//!
//! It lives in the [`Record`](crate::Record), so that it is whole however the exchange ends: whoever observes the
//! answer writes each report as it comes, and settlement reads what is there. One exchange, one usage.

use tollgate_base::clock::Instant;

/// Where the token counts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The vendor's own report.
    Provider,
    /// Counted by the model's vocabulary.
    Counted,
    /// Estimated from the length of the texts.
    Estimated,
}

impl Source {
    /// Every source, in the order of `index`.
    pub(crate) const ALL: [Source; 3] = [Source::Provider, Source::Counted, Source::Estimated];

    /// The value in log, metric and ledger.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Source::Provider => "provider",
            Source::Counted => "counted",
            Source::Estimated => "estimated",
        }
    }

    pub(crate) fn index(self) -> usize {
        match self {
            Source::Provider => 0,
            Source::Counted => 1,
            Source::Estimated => 2,
        }
    }
}

/// Token counts as one report gives them; the vendor's own figures, unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// Prompt tokens. OpenAI counts cached ones in, Anthropic does not.
    pub input: u64,
    /// Answer tokens, reasoning included.
    pub output: u64,
    /// The vendor's total; where it gives none, the sum of input, output and what Anthropic cached.
    pub total: u64,
    /// Prompt tokens read from the vendor's cache.
    pub cached: u64,
    /// Prompt tokens written into the vendor's cache.
    pub cache_written: u64,
    /// Answer tokens spent on reasoning.
    pub reasoning: u64,
}

/// What is known of one exchange's use of a model.
#[derive(Debug, Default)]
pub struct Usage {
    /// The counts; all 0 while `source` is `None`.
    pub tokens: Tokens,
    /// Where they come from; `None`: there are none.
    pub source: Option<Source>,
    /// More reports must follow before the counts are the vendor's last word (Anthropic's `message_start`).
    pub provisional: bool,
    /// Model that the client asked for.
    pub model_requested: Option<Box<str>>,
    /// Model that the vendor says answered.
    pub model: Option<Box<str>>,
    /// The answer is a stream of events.
    pub streamed: bool,
    /// An answer of a model has begun: status 2xx.
    pub answered: bool,
    /// The first event of a streamed answer came.
    pub first_event: Option<Instant>,
    /// The first content of a streamed answer came: not a role, a ping or an empty delta.
    pub first_token: Option<Instant>,
    /// Settlement has put the counts into the metrics.
    pub counted: bool,
    /// Somebody in front of the vendor's adapter reads the answer: it is not read again further in.
    pub watched: bool,
    /// Answers that have begun; the last one is what the exchange cost.
    pub answers: u32,
}

impl Usage {
    /// A new answer begins: what an earlier attempt of the same exchange left is forgotten, except what was asked.
    pub fn begin(&mut self, streamed: bool) {
        let asked = self.model_requested.take();
        *self = Self {
            model_requested: asked,
            streamed,
            answered: true,
            counted: self.counted,
            watched: self.watched,
            answers: self.answers.saturating_add(1),
            ..Self::default()
        };
    }

    /// A report of the vendor: it replaces earlier ones, it is never added to them.
    pub fn report(&mut self, tokens: Tokens, provisional: bool) {
        self.tokens = tokens;
        self.source = Some(Source::Provider);
        self.provisional = provisional;
    }

    /// Counts of our own, where the vendor's are missing or not its last word: what it said of the input stays.
    pub fn estimate(&mut self, input: u64, output: u64) {
        if self.source.is_some() && !self.provisional {
            return;
        }
        let tokens = &mut self.tokens;
        if tokens.input == 0 {
            tokens.input = input;
        }
        tokens.output = tokens.output.max(output);
        tokens.total = tokens.input + tokens.output + tokens.cached + tokens.cache_written;
        self.source = Some(Source::Estimated);
        self.provisional = false;
    }

    /// The model that answered, as far as known.
    #[must_use]
    pub fn model_name(&self) -> Option<&str> {
        self.model.as_deref().or(self.model_requested.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_replace_each_other_and_estimates_never_replace_a_last_word() {
        let mut usage = Usage::default();
        let tokens = |input, output| Tokens {
            input,
            output,
            total: input + output,
            ..Tokens::default()
        };
        usage.report(tokens(10, 1), true);
        usage.report(tokens(10, 20), false);
        usage.estimate(99, 99);
        assert_eq!(
            (usage.tokens, usage.source),
            (tokens(10, 20), Some(Source::Provider))
        );
        usage.begin(true);
        assert_eq!((usage.tokens, usage.source), (Tokens::default(), None));
        usage.report(tokens(10, 1), true);
        usage.estimate(99, 7);
        assert_eq!(
            (usage.tokens, usage.source),
            (tokens(10, 7), Some(Source::Estimated))
        );
    }
}
