//! Token usage as vendors report it, from answers and stream events of each dialect.
//!
//! One neutral form; what is not reported stays zero. `input` always counts cached tokens in, as OpenAI does.

use serde_json::{Value, json};

/// What a vendor says it counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Prompt tokens, cached ones included.
    pub input: u64,
    /// Answer tokens, reasoning included.
    pub output: u64,
    /// The vendor's own total; the sum where it gives none.
    pub total: u64,
    /// Prompt tokens read from the vendor's cache.
    pub cached: u64,
    /// Prompt tokens written into the vendor's cache.
    pub cache_written: u64,
    /// Answer tokens spent on reasoning.
    pub reasoning: u64,
}

impl Usage {
    /// From an answer, or a stream event, in any dialect this build reads; `None` if it reports nothing.
    #[must_use]
    pub fn of(answer: &Value) -> Option<Self> {
        let usage = match answer.get("usage") {
            Some(found) if !found.is_null() => found,
            // `message_start` of Anthropic, `response.completed` of OpenAI Responses.
            _ => ["message", "response"]
                .into_iter()
                .filter_map(|outer| answer.get(outer)?.get("usage"))
                .find(|usage| !usage.is_null())?,
        };
        if usage.get("prompt_tokens").is_some() || usage.get("completion_tokens").is_some() {
            return Self::of_openai(usage);
        }
        if usage.get("input_tokens_details").is_some() || usage.get("total_tokens").is_some() {
            return Self::of_responses(usage);
        }
        Self::of_anthropic(usage)
    }

    /// From OpenAI's `usage` of chat, completions and embeddings.
    #[must_use]
    pub fn of_openai(usage: &Value) -> Option<Self> {
        let (input, output) = (count(usage, "prompt_tokens"), count(usage, "completion_tokens"));
        reported(usage).then(|| Self {
            input,
            output,
            total: usage["total_tokens"].as_u64().unwrap_or(input + output),
            cached: count(&usage["prompt_tokens_details"], "cached_tokens")
                .max(count(usage, "prompt_cache_hit_tokens")),
            cache_written: 0,
            reasoning: count(&usage["completion_tokens_details"], "reasoning_tokens"),
        })
    }

    /// From the `usage` of OpenAI Responses, which DashScope's native answers share.
    #[must_use]
    pub fn of_responses(usage: &Value) -> Option<Self> {
        let (input, output) = (count(usage, "input_tokens"), count(usage, "output_tokens"));
        reported(usage).then(|| Self {
            input,
            output,
            total: usage["total_tokens"].as_u64().unwrap_or(input + output),
            cached: count(&usage["input_tokens_details"], "cached_tokens")
                .max(count(&usage["prompt_tokens_details"], "cached_tokens")),
            cache_written: 0,
            reasoning: count(&usage["output_tokens_details"], "reasoning_tokens"),
        })
    }

    /// From Anthropic's `usage`, whose input count leaves the cached tokens out.
    #[must_use]
    pub fn of_anthropic(usage: &Value) -> Option<Self> {
        let cached = count(usage, "cache_read_input_tokens");
        let cache_written = count(usage, "cache_creation_input_tokens");
        let input = count(usage, "input_tokens") + cached + cache_written;
        let output = count(usage, "output_tokens");
        (input + output > 0).then_some(Self {
            input,
            output,
            total: input + output,
            cached,
            cache_written,
            reasoning: 0,
        })
    }

    /// OpenAI's form.
    #[must_use]
    pub fn to_openai(self) -> Value {
        let mut usage = json!({
            "prompt_tokens": self.input,
            "completion_tokens": self.output,
            "total_tokens": self.total,
        });
        if self.cached > 0 {
            usage["prompt_tokens_details"] = json!({"cached_tokens": self.cached});
        }
        if self.reasoning > 0 {
            usage["completion_tokens_details"] = json!({"reasoning_tokens": self.reasoning});
        }
        usage
    }

    /// Takes in a later report of the same answer: streams report piecemeal, and the later figure counts.
    pub fn update(&mut self, later: Usage) {
        let newer = |old: &mut u64, new: u64| {
            if new > 0 {
                *old = new;
            }
        };
        newer(&mut self.input, later.input);
        newer(&mut self.output, later.output);
        newer(&mut self.cached, later.cached);
        newer(&mut self.cache_written, later.cache_written);
        newer(&mut self.reasoning, later.reasoning);
        self.total = later.total.max(self.input + self.output);
    }
}

fn count(usage: &Value, name: &str) -> u64 {
    usage[name].as_u64().unwrap_or(0)
}

fn reported(usage: &Value) -> bool {
    usage.as_object().is_some_and(|members| !members.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dialect() {
        let openai = json!({"usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 2}}});
        let expected = Usage {
            input: 7,
            output: 3,
            total: 10,
            cached: 4,
            cache_written: 0,
            reasoning: 2,
        };
        assert_eq!(Usage::of(&openai), Some(expected));
        let anthropic = json!({"type": "message_start", "message": {"usage": {"input_tokens": 5, "output_tokens": 1,
            "cache_read_input_tokens": 2, "cache_creation_input_tokens": 3}}});
        let expected = Usage {
            input: 10,
            output: 1,
            total: 11,
            cached: 2,
            cache_written: 3,
            reasoning: 0,
        };
        assert_eq!(Usage::of(&anthropic), Some(expected));
        let responses =
            json!({"response": {"usage": {"input_tokens": 5, "output_tokens": 1, "total_tokens": 6}}});
        assert_eq!(Usage::of(&responses).map(|usage| usage.total), Some(6));
        let embeddings = json!({"usage": {"prompt_tokens": 5, "total_tokens": 5}});
        assert_eq!(
            Usage::of(&embeddings).map(|usage| (usage.input, usage.output)),
            Some((5, 0))
        );
        assert_eq!(Usage::of(&json!({"usage": null})), None);
        assert_eq!(Usage::of(&json!({"usage": {}})), None);
        assert_eq!(Usage::of(&json!({})), None);
    }

    #[test]
    fn later_reports_replace_earlier_ones() {
        let mut usage = Usage::of_anthropic(&json!({"input_tokens": 10, "output_tokens": 1})).unwrap();
        usage.update(Usage::of_anthropic(&json!({"output_tokens": 15})).unwrap());
        assert_eq!((usage.input, usage.output, usage.total), (10, 15, 25));
    }
}
