//! Tokens counted with the vocabulary of the model that read or wrote a text, for answers whose vendor reports none.
//!
//! OpenAI's two vocabularies are published and in here; a model without a row is not counted, and its tokens are
//! estimated instead. Counting takes time that grows with the text: callers bound what they hand in. The tables take
//! tens of megabytes, so they are loaded for configurations that ask for them, and never on a worker.

use std::sync::Arc;

#[cfg(feature = "tokenizer")]
use bpe_openai::Tokenizer;

/// Which of OpenAI's vocabularies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    /// `cl100k_base`: GPT-3.5, GPT-4 and the embedding models.
    Cl100k,
    /// `o200k_base`: what came after them.
    O200k,
}

/// Beginnings of model names; the longest that fits counts. Facts of OpenAI's `tiktoken`.
const MODELS: [(&str, Encoding); 14] = [
    ("chatgpt-4o", Encoding::O200k),
    ("gpt-3.5", Encoding::Cl100k),
    ("gpt-35-turbo", Encoding::Cl100k),
    ("gpt-4", Encoding::Cl100k),
    ("gpt-4.1", Encoding::O200k),
    ("gpt-4.5", Encoding::O200k),
    ("gpt-4o", Encoding::O200k),
    ("gpt-5", Encoding::O200k),
    ("gpt-oss", Encoding::O200k),
    ("o1", Encoding::O200k),
    ("o3", Encoding::O200k),
    ("o4", Encoding::O200k),
    ("text-embedding-3", Encoding::Cl100k),
    ("text-embedding-ada-002", Encoding::Cl100k),
];

/// The vocabularies, loaded.
pub struct Vocabularies {
    #[cfg(feature = "tokenizer")]
    cl100k: &'static Tokenizer,
    #[cfg(feature = "tokenizer")]
    o200k: &'static Tokenizer,
}

impl std::fmt::Debug for Vocabularies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vocabularies").finish_non_exhaustive()
    }
}

impl Vocabularies {
    /// Loads them, which takes a good part of a second the first time; `None` in a build without the feature
    /// `tokenizer`.
    #[must_use]
    #[cfg(feature = "tokenizer")]
    pub fn load() -> Option<Arc<Self>> {
        Some(Arc::new(Self {
            cl100k: bpe_openai::cl100k_base(),
            o200k: bpe_openai::o200k_base(),
        }))
    }

    /// `None`: this build has no vocabularies.
    #[must_use]
    #[cfg(not(feature = "tokenizer"))]
    pub fn load() -> Option<Arc<Self>> {
        None
    }

    /// Whether texts of this model can be counted.
    #[must_use]
    pub fn knows(&self, model: &str) -> bool {
        encoding(model).is_some()
    }

    /// Tokens of a text, special ones of chat formats not among them; `None` for a model that is not known.
    #[must_use]
    pub fn count(&self, model: &str, text: &str) -> Option<u64> {
        let encoding = encoding(model)?;
        self.tokens(encoding, text)
    }

    #[cfg(feature = "tokenizer")]
    #[expect(
        clippy::unnecessary_wraps,
        reason = "without the feature there is nothing to count with"
    )]
    fn tokens(&self, encoding: Encoding, text: &str) -> Option<u64> {
        let vocabulary = match encoding {
            Encoding::Cl100k => self.cl100k,
            Encoding::O200k => self.o200k,
        };
        Some(u64::try_from(vocabulary.count(text)).unwrap_or(u64::MAX))
    }

    #[cfg(not(feature = "tokenizer"))]
    #[expect(clippy::unused_self, reason = "with the feature the vocabularies are in it")]
    fn tokens(&self, _: Encoding, _: &str) -> Option<u64> {
        None
    }
}

/// The vocabulary of a model by its name, as vendors, routers (`openai/gpt-4o`) and fine-tuning (`ft:gpt-4o:…`) spell it.
fn encoding(model: &str) -> Option<Encoding> {
    let name = model.rsplit_once('/').map_or(model, |(_, name)| name);
    let name = name.strip_prefix("ft:").unwrap_or(name);
    let fits = |row: &&(&str, Encoding)| {
        name.strip_prefix(row.0)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.', ':', '@']))
    };
    MODELS
        .iter()
        .filter(fits)
        .max_by_key(|row| row.0.len())
        .map(|row| row.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_by_their_names() {
        for (name, expected) in [
            ("gpt-4", Some(Encoding::Cl100k)),
            ("gpt-4-turbo", Some(Encoding::Cl100k)),
            ("gpt-4.1-mini", Some(Encoding::O200k)),
            ("gpt-4o-2024-08-06", Some(Encoding::O200k)),
            ("openai/gpt-5.1", Some(Encoding::O200k)),
            ("ft:gpt-3.5-turbo:acme::1", Some(Encoding::Cl100k)),
            ("o3", Some(Encoding::O200k)),
            ("text-embedding-3-small", Some(Encoding::Cl100k)),
            ("o100", None),
            ("gpt-40", None),
            ("qwen-max", None),
            ("claude-opus-4", None),
            ("", None),
        ] {
            assert_eq!(encoding(name), expected, "{name}");
        }
    }

    /// Counts that OpenAI's own `tiktoken` gives.
    #[cfg(feature = "tokenizer")]
    #[test]
    fn counts_are_tiktokens() {
        let vocabularies = Vocabularies::load().unwrap();
        for (model, text, tokens) in [
            ("gpt-4", "tiktoken is great!", 6),
            ("gpt-4o", "tiktoken is great!", 6),
            ("gpt-4", "antidisestablishmentarianism", 6),
            ("gpt-4", "お誕生日おめでとう", 9),
            ("gpt-4o", "お誕生日おめでとう", 8),
            ("gpt-4o", "", 0),
        ] {
            assert_eq!(vocabularies.count(model, text), Some(tokens), "{model}: {text}");
        }
        assert_eq!(vocabularies.count("qwen-max", "hello"), None);
    }
}
