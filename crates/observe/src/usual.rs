//! Names of attributes that most requests have: each has a place of its own in the `ai_log` and is written in one copy.

macro_rules! usual {
    ($($variant:ident $name:literal)*) => {
        /// An attribute that most requests have; in the order of their names.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Usual { $(#[doc = $name] $variant,)* }

        const ALL: &[Usual] = &[$(Usual::$variant),*];
        const NAMES: &[&str] = &[$($name),*];
        /// Each name as it is written behind another attribute.
        pub(crate) const WRITTEN: [&str; NAMES.len()] = [$(concat!(",\\\"", $name, "\\\":")),*];
    };
}

usual! {
    Answer "answer"
    Api "api"
    CachedTokens "cached_tokens"
    ChatId "chat_id"
    ChatRound "chat_round"
    Consumer "consumer"
    InputToken "input_token"
    InputTokenDetails "input_token_details"
    FirstTokenDuration "llm_first_token_duration"
    ServiceDuration "llm_service_duration"
    Model "model"
    OutputToken "output_token"
    OutputTokenDetails "output_token_details"
    Question "question"
    Reasoning "reasoning"
    ReasoningTokens "reasoning_tokens"
    ResponseType "response_type"
    SessionId "session_id"
    TotalToken "total_token"
    UsageSource "usage_source"
}

macro_rules! details {
    ($($name:literal)*) => {
        /// A count among the details of usage, as it is written behind another, if nearly every answer has it.
        pub(crate) fn written_detail(name: &str) -> Option<&'static str> {
            Some(match name {
                $($name => concat!(",\\\"", $name, "\\\":"),)*
                _ => return None,
            })
        }
    };
}

details! {
    "cached_tokens"
    "audio_tokens"
    "text_tokens"
    "image_tokens"
    "reasoning_tokens"
    "accepted_prediction_tokens"
    "rejected_prediction_tokens"
}

impl Usual {
    /// The one of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let place = NAMES.binary_search(&name).ok()?;
        ALL.get(place).copied()
    }

    /// Its place among all.
    #[inline]
    pub(crate) fn place(self) -> usize {
        self as usize
    }

    /// Its name.
    #[must_use]
    #[inline]
    pub fn name(self) -> &'static str {
        NAMES.get(self.place()).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_and_in_its_place() {
        assert!(NAMES.is_sorted());
        for (place, usual) in ALL.iter().enumerate() {
            assert_eq!((Usual::of(usual.name()), usual.place()), (Some(*usual), place));
        }
        assert_eq!(Usual::of("other"), None);
    }
}
