//! Token usage read from an answer or one of its events, in any dialect, where it lies (plugins spec §0.6).
//!
//! Shared by the plugins that count tokens. Figures are the vendor's own; nothing is parsed that a path does not go
//! through, and text that holds no usage costs one search.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde_json::{Map, Value};
use tollgate_body::path::{self, Member, PathValue};
use tollgate_observe::usage::Tokens;

/// Where a model's name may stand.
const MODEL_PATHS: [&str; 5] = [
    "model",
    "body.model",
    "response.model",
    "message.model",
    "modelVersion",
];
/// Where an answer's id may stand.
const ID_PATHS: [&str; 4] = ["id", "response.id", "responseId", "message.id"];
/// Members of the usage that Higress shows among the details, by their own names or another.
const INPUT_EXTRAS: [(&str, &str); 4] = [
    ("cachedContentTokenCount", "cached_content_token_count"),
    ("toolUsePromptTokenCount", "tool_use_prompt_token_count"),
    ("cache_creation_input_tokens", "cache_creation_input_tokens"),
    ("cache_read_input_tokens", "cache_read_input_tokens"),
];
const OUTPUT_EXTRAS: [(&str, &str); 2] = [
    ("thoughtsTokenCount", "thoughts_token_count"),
    ("generated_images", "generated_images"),
];

/// What has been read so far; a stream reports piecemeal.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Reading {
    /// The counts.
    pub(crate) tokens: Tokens,
    /// More must follow: only the opening event of an Anthropic stream has told anything.
    pub(crate) provisional: bool,
    /// Details of the input as the vendor names them.
    pub(crate) input_details: Map<String, Value>,
    /// Details of the output as the vendor names them.
    pub(crate) output_details: Map<String, Value>,
}

impl Reading {
    /// Takes in the usage that `text`, a whole answer or an event's data, reports. False when it reports none.
    pub(crate) fn update(&mut self, text: &[u8]) -> bool {
        static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"usage"));
        if USAGE.find(text).is_none() {
            return false;
        }
        let Some(found) = Places::find(text) else {
            return false;
        };
        self.provisional = found.is_opening();
        let earlier = std::mem::take(&mut self.tokens);
        let latest = |side, before| found.count(side).filter(|count| *count > 0).unwrap_or(before);
        let input = latest(Side::Input, earlier.input);
        let output = latest(Side::Output, earlier.output);
        self.add_details(&found);
        let of = |details: &Map<String, Value>, names: &[&str]| {
            let known = names.iter().find_map(|name| details.get(*name));
            known.and_then(Value::as_u64)
        };
        let anthropic_cached = of(&self.input_details, &["cache_read_input_tokens"]);
        let cached = anthropic_cached
            .or_else(|| {
                of(
                    &self.input_details,
                    &["cached_tokens", "cached_content_token_count"],
                )
            })
            .or_else(|| found.own("prompt_cache_hit_tokens"))
            .unwrap_or(earlier.cached);
        let cache_written =
            of(&self.input_details, &["cache_creation_input_tokens"]).unwrap_or(earlier.cache_written);
        let reasoning = of(
            &self.output_details,
            &["reasoning_tokens", "thoughts_token_count"],
        )
        .unwrap_or(earlier.reasoning);
        let beside = anthropic_cached.unwrap_or(0) + cache_written;
        self.tokens = Tokens {
            input,
            output,
            total: found
                .total()
                .unwrap_or(input.saturating_add(output).saturating_add(beside)),
            cached,
            cache_written,
            reasoning,
        };
        true
    }

    fn add_details(&mut self, found: &Places<'_>) {
        let objects = [&found.top, &found.response, &found.gemini];
        let details = [
            (
                &mut self.input_details,
                [
                    "prompt_tokens_details",
                    "input_tokens_details",
                    "promptTokensDetails",
                ],
                INPUT_EXTRAS.as_slice(),
            ),
            (
                &mut self.output_details,
                [
                    "completion_tokens_details",
                    "output_tokens_details",
                    "candidatesTokensDetails",
                ],
                OUTPUT_EXTRAS.as_slice(),
            ),
        ];
        for (into, names, extras) in details {
            let object = names.iter().find_map(|name| {
                let mut places = objects.iter().filter_map(|place| place.as_ref());
                places.find_map(|place| place.get(name).filter(|value| value.is_object()))
            });
            for (key, value) in object.into_iter().flat_map(PathValue::entries) {
                if let Some(name) = key {
                    into.insert(name.text().into_owned(), value.int().into());
                }
            }
            let all = objects.into_iter().chain([&found.message]).flatten();
            for place in all {
                for (from, to) in extras {
                    let value = place.get(from).filter(|value| value.int() > 0);
                    into.extend(value.map(|value| ((*to).to_owned(), Value::from(value.int()))));
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Side {
    Input,
    Output,
}

/// The members of an object of usage, read once.
struct Members<'t>(Vec<(Cow<'t, str>, PathValue<'t>)>);

/// Members that are looked at; no vendor has as many.
const MEMBER_LIMIT: usize = 64;

impl<'t> Members<'t> {
    fn of(value: Member<'t>) -> Option<Self> {
        value.members().map(Self::collect)
    }

    fn made(value: PathValue<'t>) -> Option<Self> {
        match value.into_raw() {
            Cow::Borrowed(raw) if raw.starts_with('{') => Some(Self::collect(path::members(raw.as_bytes()))),
            _ => None,
        }
    }

    fn collect(all: path::Members<'t>) -> Self {
        let all = all.take(MEMBER_LIMIT);
        Self(all.map(|(key, member)| (key, member.value())).collect())
    }

    fn below(outer: Member<'t>) -> Option<Self> {
        let mut all = outer.members()?;
        all.find(|(key, _)| key == "usage")
            .and_then(|(_, usage)| Self::of(usage))
    }

    /// The first member of this name.
    fn get(&self, name: &str) -> Option<&PathValue<'t>> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

/// The usage objects of a text.
#[derive(Default)]
struct Places<'t> {
    /// `usage`, also of a choice
    top: Option<Members<'t>>,
    /// `response.usage`, of OpenAI Responses.
    response: Option<Members<'t>>,
    /// `usageMetadata`, of Gemini.
    gemini: Option<Members<'t>>,
    /// `message.usage`, of Anthropic's `message_start`.
    message: Option<Members<'t>>,
}

impl<'t> Places<'t> {
    fn find(text: &'t [u8]) -> Option<Self> {
        let mut found = Self::default();
        let mut choices = None;
        let mut seen = 0_u8;
        for (key, value) in path::members(text) {
            let (bit, place) = match &*key {
                "usage" => (1, &mut found.top),
                "usageMetadata" => (2, &mut found.gemini),
                "response" => (4, &mut found.response),
                "message" => (8, &mut found.message),
                "choices" => {
                    choices.get_or_insert(value);
                    continue;
                }
                _ => continue,
            };
            // Of a name that is there twice the first counts.
            if seen & bit == 0 {
                seen |= bit;
                *place = if bit <= 2 {
                    Members::of(value)
                } else {
                    Members::below(value)
                };
            }
        }
        if found.top.is_none() {
            // Moonshot and others put a stream's usage into its last choice.
            let usage = choices.and_then(|choices| choices.get("0.usage"));
            found.top = usage.and_then(Members::made);
        }
        let any = found.top.is_some()
            || found.response.is_some()
            || found.gemini.is_some()
            || found.message.is_some();
        any.then_some(found)
    }

    fn is_opening(&self) -> bool {
        self.message.is_some() && self.top.is_none()
    }

    /// The first of Higress's paths that is there.
    fn count(&self, side: Side) -> Option<u64> {
        let (openai, anthropic, gemini) = match side {
            Side::Input => ("prompt_tokens", "input_tokens", "promptTokenCount"),
            Side::Output => ("completion_tokens", "output_tokens", "candidatesTokenCount"),
        };
        let places = [
            (&self.top, openai),
            (&self.top, anthropic),
            (&self.response, anthropic),
            (&self.gemini, gemini),
            (&self.message, anthropic),
        ];
        places
            .into_iter()
            .find_map(|(place, name)| place.as_ref()?.get(name).map(|value| value.uint()))
    }

    fn total(&self) -> Option<u64> {
        let places = [
            (&self.top, "total_tokens"),
            (&self.response, "total_tokens"),
            (&self.gemini, "totalTokenCount"),
        ];
        let told = places
            .into_iter()
            .find_map(|(place, name)| place.as_ref()?.get(name).map(|value| value.uint()));
        told.filter(|total| *total > 0)
    }

    fn own(&self, name: &str) -> Option<u64> {
        self.top.as_ref()?.get(name).map(|value| value.uint())
    }
}

/// The model that an answer or event names.
pub(crate) fn model_of(text: &[u8]) -> Option<String> {
    first_text(text, &MODEL_PATHS)
}

/// The id that an answer or event carries.
pub(crate) fn id_of(text: &[u8]) -> Option<String> {
    first_text(text, &ID_PATHS)
}

fn first_text(text: &[u8], paths: &[&str]) -> Option<String> {
    let found = paths.iter().find_map(|at| path::get(text, at))?;
    Some(found.text().into_owned()).filter(|name| !name.is_empty())
}

/// The model that Gemini's paths name: `…/models/NAME:generateContent`.
pub(crate) fn model_of_path(path: &str) -> Option<Cow<'_, str>> {
    let stem = path
        .strip_suffix(":generateContent")
        .or_else(|| path.strip_suffix(":streamGenerateContent"))?;
    let (_, name) = stem.rsplit_once("/models/")?;
    (!name.is_empty() && !name.contains('/')).then_some(Cow::Borrowed(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(texts: &[&str]) -> Reading {
        let mut reading = Reading::default();
        for text in texts {
            assert!(reading.update(text.as_bytes()), "{text}");
        }
        reading
    }

    fn counts(reading: &Reading) -> (u64, u64, u64) {
        (reading.tokens.input, reading.tokens.output, reading.tokens.total)
    }

    #[test]
    fn each_dialect() {
        let openai = read(&[
            r#"{"usage":{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,"completion_tokens_details":{"reasoning_tokens":25},"prompt_tokens_details":{"cached_tokens":80}}}"#,
        ]);
        assert_eq!(counts(&openai), (100, 50, 150));
        assert_eq!((openai.tokens.cached, openai.tokens.reasoning), (80, 25));
        assert_eq!(Value::from(openai.input_details), json!({"cached_tokens": 80}));
        assert_eq!(
            Value::from(openai.output_details),
            json!({"reasoning_tokens": 25})
        );
        let gemini = read(&[
            r#"{"usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":6,"thoughtsTokenCount":5,"totalTokenCount":15}}"#,
        ]);
        assert_eq!(counts(&gemini), (4, 6, 15));
        assert_eq!(
            Value::from(gemini.output_details),
            json!({"thoughts_token_count": 5})
        );
        let anthropic =
            read(&[r#"{"usage":{"input_tokens":10,"output_tokens":20,"cache_read_input_tokens":5}}"#]);
        assert_eq!(counts(&anthropic), (10, 20, 35));
        assert_eq!(
            Value::from(anthropic.input_details),
            json!({"cache_read_input_tokens": 5})
        );
        let responses = read(&[
            r#"{"type":"response.completed","response":{"usage":{"input_tokens":3,"output_tokens":4,"total_tokens":7}}}"#,
        ]);
        assert_eq!(counts(&responses), (3, 4, 7));
        let embeddings = read(&[r#"{"usage":{"prompt_tokens":5,"total_tokens":5}}"#]);
        assert_eq!(counts(&embeddings), (5, 0, 5));
        let deepseek = read(&[
            r#"{"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6,"prompt_cache_hit_tokens":2}}"#,
        ]);
        assert_eq!(deepseek.tokens.cached, 2);
    }

    #[test]
    fn a_stream_tells_piecemeal_and_the_last_word_counts() {
        let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":10,"output_tokens":1,"cache_read_input_tokens":7}}}"#;
        let opening = read(&[start]);
        assert_eq!((counts(&opening), opening.provisional), ((10, 1, 18), true));
        let delta = r#"{"type":"message_delta","usage":{"output_tokens":20}}"#;
        let whole = read(&[start, delta]);
        assert_eq!((counts(&whole), whole.provisional), ((10, 20, 37), false));
        let repeated = read(&[
            r#"{"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}"#,
            r#"{"usage":{"prompt_tokens":5,"completion_tokens":8,"total_tokens":13}}"#,
        ]);
        assert_eq!(counts(&repeated), (5, 8, 13));
    }

    #[test]
    fn what_is_no_usage_changes_nothing() {
        let mut reading = Reading::default();
        for text in [
            r#"{"usage":null}"#,
            r#"{"choices":[{"delta":{"content":"the \"usage\" is {}"}}]}"#,
            r#"{"usage":7}"#,
            "[DONE]",
            "",
            r#"{"a":"usage"}"#,
        ] {
            assert!(!reading.update(text.as_bytes()), "{text}");
        }
        assert_eq!(reading, Reading::default());
        let mut hostile = Reading::default();
        assert!(hostile.update(
            br#"{"usage":{"prompt_tokens":-5,"completion_tokens":1e300,"total_tokens":"x"}}"#.as_slice()
        ));
        assert_eq!(hostile.tokens.input, 0);
    }

    #[test]
    fn models_and_ids() {
        for text in [
            r#"{"model":"m","id":"i"}"#,
            r#"{"body":{"model":"m"},"response":{"id":"i"}}"#,
            r#"{"response":{"model":"m","id":"i"}}"#,
            r#"{"message":{"model":"m","id":"i"}}"#,
            r#"{"modelVersion":"m","responseId":"i"}"#,
        ] {
            assert_eq!(model_of(text.as_bytes()).as_deref(), Some("m"), "{text}");
            assert_eq!(id_of(text.as_bytes()).as_deref(), Some("i"), "{text}");
        }
        assert_eq!(model_of(b"{}"), None);
        let name = |path| model_of_path(path).map(Cow::into_owned);
        assert_eq!(
            name("/v1beta/models/gemini-2.5:streamGenerateContent").as_deref(),
            Some("gemini-2.5")
        );
        assert_eq!(name("/v1/chat/completions"), None);
    }
}
