//! The texts of a request or an answer: how long they are, and they themselves where they may have to be counted.
//!
//! Counted are texts of models whose vocabulary is known, by a configuration that asks for it, up to a bound: counting
//! takes the worker's time, and a stream's text is kept while it passes. Everything else is estimated from its length.

use std::borrow::Cow;

use bytes::Bytes;
use tollgate_observe::Vocabularies;
use tollgate_observe::usage::Source;

use super::estimate::{Weight, each_text, members};

/// Longest JSON or text that is kept to be counted, in bytes.
const COUNTED_LIMIT: usize = 32 * 1024;
/// Tokens that OpenAI's chat format puts around a message, its role among them, and in front of the answer.
const MESSAGE: u64 = 4;
const PRIMING: u64 = 3;

/// Texts that passed.
#[derive(Debug, Default)]
pub(crate) struct Prose {
    weight: Weight,
    kept: Kept,
}

/// What is kept of them.
#[derive(Debug, Default)]
enum Kept {
    /// Nothing: they are estimated.
    #[default]
    Nothing,
    /// JSON with texts in it.
    Json(Bytes),
    /// The inside of one JSON string, in pieces.
    Stream(Vec<u8>),
}

impl Prose {
    /// Those of a whole request or answer; `countable`: the configuration asks for counts.
    pub(crate) fn of_json(json: &Bytes, countable: bool) -> Self {
        let kept = match countable {
            true => Kept::json(json.clone()),
            false => Kept::Nothing,
        };
        Self {
            weight: Weight::of_json(json),
            kept,
        }
    }

    /// Those of a stream that begins.
    pub(super) fn of_stream(countable: bool) -> Self {
        Self {
            weight: Weight::default(),
            kept: match countable {
                true => Kept::Stream(Vec::new()),
                false => Kept::Nothing,
            },
        }
    }

    /// The inside of a string.
    pub(super) fn text(&mut self, inside: &[u8]) {
        self.weight.add(inside);
        self.keep(inside);
    }

    /// An event's texts, weighed already.
    pub(super) fn event(&mut self, data: &[u8], weight: Weight) {
        self.weight += weight;
        if !weight.is_empty() && matches!(self.kept, Kept::Stream(_)) {
            each_text(data, |place| self.keep(data.get(place).unwrap_or_default()));
        }
    }

    fn keep(&mut self, inside: &[u8]) {
        let Kept::Stream(text) = &mut self.kept else {
            return;
        };
        if text.len() + inside.len() > COUNTED_LIMIT {
            self.kept = Kept::Nothing;
            return;
        }
        text.extend_from_slice(inside);
    }

    /// The model is one that nobody can count for: nothing more is kept.
    pub(super) fn give_up(&mut self) {
        self.kept = Kept::Nothing;
    }

    /// How many tokens they are, and how that is known.
    pub(super) fn tokens(&self, model: Option<&str>, vocabularies: Option<&Vocabularies>) -> (u64, Source) {
        let counted = vocabularies.and_then(|vocabularies| self.kept.count(model?, vocabularies));
        match counted {
            Some(tokens) => (tokens, Source::Counted),
            None => (self.weight.tokens(), Source::Estimated),
        }
    }
}

impl Kept {
    fn json(text: Bytes) -> Self {
        match text.len() {
            0..=COUNTED_LIMIT => Self::Json(text),
            _ => Self::Nothing,
        }
    }

    fn count(&self, model: &str, vocabularies: &Vocabularies) -> Option<u64> {
        let mut tokens = 0_u64;
        match self {
            Self::Nothing => return None,
            Self::Stream(text) => tokens = vocabularies.count(model, &unescaped(text)?)?,
            Self::Json(json) => {
                let mut failed = false;
                each_text(json, |place| {
                    let text = json.get(place).and_then(unescaped);
                    match text.and_then(|text| vocabularies.count(model, &text)) {
                        Some(more) => tokens += more,
                        None => failed = true,
                    }
                });
                if failed {
                    return None;
                }
                if members(json, b"messages") > 0 {
                    tokens += members(json, b"role") * MESSAGE + PRIMING;
                }
            }
        }
        Some(tokens)
    }
}

/// The text that the inside of a JSON string stands for; `None` where it is none.
fn unescaped(inside: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(inside).ok()?;
    if !text.contains('\\') {
        return Some(Cow::Borrowed(text));
    }
    serde_json::from_str(&format!("\"{text}\"")).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    fn stream(pieces: &[&str]) -> Prose {
        let mut said = Prose::of_stream(true);
        for piece in pieces {
            said.text(piece.as_bytes());
        }
        said
    }

    #[test]
    fn what_a_known_model_said_is_counted_as_one_text() {
        let vocabularies = Vocabularies::load().unwrap();
        let tokens = |said: &Prose, model| said.tokens(model, Some(&vocabularies));
        // Pieces do not count: "tiktoken" comes in two.
        let said = stream(&["tik", "token is ", "great!"]);
        assert_eq!(tokens(&said, Some("gpt-4o")), (6, Source::Counted));
        let escaped = stream(&["\\u304a\\u8a95\\u751f\\u65e5", "おめでとう"]);
        assert_eq!(tokens(&escaped, Some("gpt-4o")), (8, Source::Counted));
        let event = r#"{"choices":[{"delta":{"content":"tiktoken is great!"}}]}"#;
        let mut said = Prose::of_stream(true);
        said.event(event.as_bytes(), Weight::of_event(event.as_bytes()).0);
        assert_eq!(tokens(&said, Some("gpt-4o")), (6, Source::Counted));
        assert_eq!(tokens(&said, Some("qwen-max")), (5, Source::Estimated));
        assert_eq!(tokens(&said, None), (5, Source::Estimated));
        assert_eq!(said.tokens(Some("gpt-4o"), None), (5, Source::Estimated));
        said.give_up();
        assert_eq!(tokens(&said, Some("gpt-4o")), (5, Source::Estimated));
    }

    #[test]
    fn messages_cost_what_is_around_them_too() {
        let vocabularies = Vocabularies::load().unwrap();
        let asked = |json: &str| {
            Prose::of_json(&Bytes::from(json.to_owned()), true).tokens(Some("gpt-4"), Some(&vocabularies))
        };
        let great = "tiktoken is great!";
        let chat = format!(
            r#"{{"messages":[{{"role":"system","content":"{great}"}},{{"role":"user","content":[{{"type":"text","text":"{great}"}}]}}]}}"#
        );
        assert_eq!(asked(&chat), (6 + 6 + 2 * 4 + 3, Source::Counted));
        assert_eq!(
            asked(&format!(r#"{{"input":["{great}","{great}"]}}"#)),
            (12, Source::Counted)
        );
    }

    #[test]
    fn nothing_long_or_broken_is_counted() {
        let vocabularies = Vocabularies::load().unwrap();
        let source = |said: &Prose| said.tokens(Some("gpt-4o"), Some(&vocabularies)).1;
        let piece = "a ".repeat(COUNTED_LIMIT / 4);
        assert_eq!(source(&stream(&[&piece, &piece])), Source::Counted);
        let long = stream(&[&piece, &piece, "a"]);
        assert_eq!(
            long.tokens(Some("gpt-4o"), Some(&vocabularies)),
            (8193, Source::Estimated)
        );
        let json = Bytes::from(format!(r#"{{"content":"{piece}{piece}"}}"#));
        assert_eq!(source(&Prose::of_json(&json, true)), Source::Estimated);
        assert_eq!(source(&stream(&["\\ud8", "\\q"])), Source::Estimated);
    }

    /// Texts of several kinds, their tokens in OpenAI's two vocabularies (GPT-4's, and that of everything since), and how
    /// many per cent of these an estimate may come to: what docs/plugins/ai-statistics.md promises.
    const SAMPLES: [(&str, [u64; 2], Range<u64>); 5] = [
        (ENGLISH, [91, 91], 60..141),
        (CHINESE, [128, 90], 60..141),
        (CODE, [100, 103], 60..141),
        (JSON, [112, 112], 60..141),
        (RUSSIAN, [77, 46], 100..401),
    ];
    const ENGLISH: &str = "The gateway sits between your applications and the models they talk to. It checks who is asking, picks a \
        vendor that is awake, and writes down what every answer has cost. When a stream breaks off in the middle, the client is \
        told so instead of being left with half a sentence, and the tokens that were spent are counted all the same. Nothing of \
        this needs a change in the application: it keeps its SDK, its prompts and its habits.";
    const CHINESE: &str = "网关位于应用和大模型之间。它检查是谁在提问，选择一个可用的供应商，并记录每个回答花费了多少。\
        如果流式回答在中途断开，客户端会得到明确的提示，而不是半句话；已经消耗的令牌照样计入账单。\
        应用程序不需要任何修改：它的开发包、提示词和使用习惯都保持原样。";
    const CODE: &str = "pub fn tokens(text: &str) -> u64 {\n    let (mut ascii, mut other) = (0_u64, 0_u64);\n    for character in \
        text.chars() {\n        match character.is_ascii() {\n            true => ascii += 1,\n            false => other += 1,\n        \
        }\n    }\n    ascii.div_ceil(4) + other\n}\n\n#[test]\nfn empty_texts_cost_nothing() {\n    assert_eq!(tokens(\"\"), 0);\n}\n";
    const JSON: &str = "{\n  \"city\": \"Hangzhou\",\n  \"forecast\": [\n    {\"date\": \"2026-11-29\", \"high\": 14.5, \"low\": \
        6, \"rain\": false},\n    {\"date\": \"2026-11-30\", \"high\": 11, \"low\": 4.25, \"rain\": true}\n  ],\n  \"source\": \
        {\"name\": \"weather-service\", \"request_id\": \"b3a1f8b0-7ff4-49d8\"}\n}";
    const RUSSIAN: &str = "Шлюз стоит между приложением и моделью: он проверяет, кто спрашивает, выбирает поставщика и записывает, \
        сколько стоил каждый ответ. Если поток обрывается, клиент узнаёт об этом сразу.";

    #[test]
    fn estimates_are_as_near_as_is_promised_and_counts_are_exact() {
        let vocabularies = Vocabularies::load().unwrap();
        for (text, known, promised) in SAMPLES {
            let body = Bytes::from(serde_json::json!({ "input": text }).to_string());
            let tokens =
                |countable, model| Prose::of_json(&body, countable).tokens(Some(model), Some(&vocabularies));
            for (model, known) in ["gpt-4", "gpt-4o"].into_iter().zip(known) {
                assert_eq!(tokens(true, model), (known, Source::Counted), "{model}: {text}");
                let (estimate, source) = tokens(false, model);
                assert_eq!(source, Source::Estimated);
                let percent = estimate * 100 / known;
                assert!(promised.contains(&percent), "{percent} % for {model}: {text}");
            }
        }
    }
}
