//! `Usage`: what one answer cost in tokens and how long its model took, filled while the answer passes.
//!
//! It lives in the [`Record`](crate::Record), so that it is whole however the exchange ends: whoever observes the
//! answer writes each report as it comes, and settlement reads what is there. One exchange, one usage.

use tollgate_base::clock::Instant;

/// Where the token counts come from. The later in this list, the less certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

impl std::ops::AddAssign for Tokens {
    fn add_assign(&mut self, more: Self) {
        let sums = [
            (&mut self.input, more.input),
            (&mut self.output, more.output),
            (&mut self.total, more.total),
            (&mut self.cached, more.cached),
            (&mut self.cache_written, more.cache_written),
            (&mut self.reasoning, more.reasoning),
        ];
        for (sum, amount) in sums {
            *sum = sum.saturating_add(amount);
        }
    }
}

/// What is known of one exchange's use of a model.
#[derive(Debug, Default)]
pub struct Usage {
    /// The counts, those of all rounds together; all 0 while `source` is `None`.
    pub tokens: Tokens,
    /// What rounds besides the passing answer have cost; part of `tokens`.
    rounds: Rounds,
    /// Where they come from; `None`: there are none.
    pub source: Option<Source>,
    /// More reports must follow before the counts are the vendor's last word (Anthropic's `message_start`,
    /// Gemini's chunks without an output).
    pub provisional: bool,
    /// Model that the client asked for.
    pub model_requested: Option<Box<str>>,
    /// Model that the vendor says answered.
    pub model: Option<Box<str>>,
    /// The vendor's id of the answer.
    pub answer_id: Option<Box<str>>,
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

/// Requests that a plugin made of its own, to repair an answer or to use a tool.
#[derive(Debug, Default)]
struct Rounds {
    tokens: Tokens,
    /// `None`: there were none.
    source: Option<Source>,
    /// The model that answered them.
    model: Option<Box<str>>,
    /// The passing answer is made by the plugin: all that was spent is in here, and nothing it says is a report.
    closed: bool,
}

impl Usage {
    /// A new answer begins: what an earlier attempt of the same exchange left is forgotten, except what was asked and
    /// what rounds have cost.
    pub fn begin(&mut self, streamed: bool) {
        let asked = self.model_requested.take();
        let rounds = std::mem::take(&mut self.rounds);
        *self = Self {
            tokens: rounds.tokens,
            source: rounds.source,
            model: rounds.model.clone(),
            rounds,
            model_requested: asked,
            streamed,
            answered: true,
            counted: self.counted,
            watched: self.watched,
            answers: self.answers.saturating_add(1),
            ..Self::default()
        };
    }

    /// A report of the vendor on the passing answer: it replaces earlier ones, it is never added to them.
    pub fn report(&mut self, tokens: Tokens, provisional: bool) {
        if self.rounds.closed {
            return;
        }
        self.tokens = self.rounds.tokens;
        self.tokens += tokens;
        // One estimated part makes the sum an estimate.
        self.source = self.rounds.source.max(Some(Source::Provider));
        self.provisional = provisional;
    }

    /// What a round of a plugin has cost: added to the other rounds, whatever the passing answer will report. What
    /// somebody further in has read of the round's answer is the same cost, and forgotten.
    pub fn spend(&mut self, tokens: Tokens, source: Source, model: Option<Box<str>>) {
        self.rounds.tokens += tokens;
        self.rounds.source = self.rounds.source.max(Some(source));
        self.tokens = self.rounds.tokens;
        self.source = self.rounds.source;
        self.provisional = false;
        if let Some(name) = model {
            self.rounds.model.get_or_insert_with(|| name.clone());
            self.model.get_or_insert(name);
        }
        self.answered = true;
    }

    /// Says that the answer which passes is a plugin's own: what it cost has been spent, its text reports nothing.
    pub fn close(&mut self) {
        self.rounds.closed = true;
    }

    /// Whether a plugin made the answer, and its cost is known.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.rounds.closed
    }

    /// Whether the vendor's counts are missing or not its last word.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let is_told = self.source.is_some() && self.tokens != self.rounds.tokens;
        !self.rounds.closed && (!is_told || self.provisional)
    }

    /// Counts of our own, from `source`, where the vendor's are missing or not its last word: what it said of the
    /// input stays.
    pub fn supply(&mut self, input: u64, output: u64, source: Source) {
        if !self.is_open() {
            return;
        }
        let rounds = self.rounds.tokens;
        let told = self.tokens;
        let tokens = &mut self.tokens;
        if tokens.input == rounds.input {
            tokens.input = tokens.input.saturating_add(input);
        }
        tokens.output = tokens.output.max(rounds.output.saturating_add(output));
        // What else a total counts (thoughts, a cache) the vendor has told.
        let more = (tokens.input - told.input).saturating_add(tokens.output - told.output);
        tokens.total = tokens.total.saturating_add(more);
        self.source = self.rounds.source.max(Some(source));
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
        usage.supply(99, 99, Source::Estimated);
        assert_eq!(
            (usage.tokens, usage.source),
            (tokens(10, 20), Some(Source::Provider))
        );
        usage.begin(true);
        assert_eq!((usage.tokens, usage.source), (Tokens::default(), None));
        usage.report(tokens(10, 1), true);
        usage.supply(99, 7, Source::Estimated);
        assert_eq!(
            (usage.tokens, usage.source),
            (tokens(10, 7), Some(Source::Estimated))
        );
    }

    #[test]
    fn rounds_add_up_whatever_the_passing_answer_reports() {
        let tokens = |input, output| Tokens {
            input,
            output,
            total: input + output,
            ..Tokens::default()
        };
        let mut usage = Usage::default();
        usage.spend(tokens(10, 1), Source::Provider, Some("m".into()));
        usage.begin(false);
        assert_eq!((usage.tokens, usage.model.as_deref()), (tokens(10, 1), Some("m")));
        usage.report(tokens(5, 5), true);
        usage.report(tokens(5, 9), false);
        assert_eq!(
            (usage.tokens, usage.source),
            (tokens(15, 10), Some(Source::Provider))
        );
        // The answer that was reported turns out to be a round.
        usage.spend(tokens(5, 9), Source::Estimated, None);
        assert_eq!(
            (usage.tokens, usage.source),
            (tokens(15, 10), Some(Source::Estimated))
        );

        let mut unreported = Usage::default();
        unreported.spend(tokens(10, 1), Source::Provider, None);
        unreported.begin(false);
        unreported.supply(7, 3, Source::Estimated);
        assert_eq!(
            (unreported.tokens, unreported.source),
            (tokens(17, 4), Some(Source::Estimated))
        );

        let mut closed = Usage::default();
        closed.spend(tokens(10, 1), Source::Provider, None);
        closed.close();
        closed.begin(false);
        closed.report(tokens(999, 999), false);
        closed.supply(999, 999, Source::Estimated);
        assert_eq!(
            (closed.tokens, closed.source),
            (tokens(10, 1), Some(Source::Provider))
        );
        assert!(closed.is_closed());
    }
}
