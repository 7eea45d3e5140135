//! Token usage read from an answer or one of its events, in any dialect, where it lies (plugins spec §0.6).
//!
//! Shared by the plugins that count tokens. Figures are the vendor's own; nothing is parsed that a path does not go
//! through, and text that holds no usage costs one search.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde_json::Value;
use tollgate_body::path::{self, Member};
use tollgate_observe::usage::Tokens;

/// Where a model's name may stand: a member, and a member of that.
const MODEL_PATHS: [(Outer, &str); 5] = [
    (Outer::Model, ""),
    (Outer::Body, "model"),
    (Outer::Response, "model"),
    (Outer::Message, "model"),
    (Outer::ModelVersion, ""),
];
/// Where an answer's id may stand.
const ID_PATHS: [(Outer, &str); 4] = [
    (Outer::Id, ""),
    (Outer::Response, "id"),
    (Outer::ResponseId, ""),
    (Outer::Message, "id"),
];
const INPUT_DETAILS: [Name; 3] = [Name::PromptDetails, Name::InputDetails, Name::GeminiPromptDetails];
const OUTPUT_DETAILS: [Name; 3] = [
    Name::CompletionDetails,
    Name::OutputDetails,
    Name::GeminiCandidatesDetails,
];
/// Members of the usage that Higress shows among the details, by their own names or another.
const EXTRAS: &[(Name, Side, &str)] = &[
    (Name::GeminiCached, Side::Input, "cached_content_token_count"),
    (Name::GeminiToolUse, Side::Input, "tool_use_prompt_token_count"),
    (Name::CacheCreation, Side::Input, "cache_creation_input_tokens"),
    (Name::CacheRead, Side::Input, "cache_read_input_tokens"),
    (Name::GeminiThoughts, Side::Output, "thoughts_token_count"),
    (Name::GeneratedImages, Side::Output, "generated_images"),
];

/// Their bits.
const EXTRA_NAMES: u32 = Name::GeminiCached.bit()
    | Name::GeminiToolUse.bit()
    | Name::CacheCreation.bit()
    | Name::CacheRead.bit()
    | Name::GeminiThoughts.bit()
    | Name::GeneratedImages.bit();

/// Counts beside the sums, as the vendor names them; few, so that they are looked through.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Details(Vec<(Cow<'static, str>, i64)>);

/// Details that are kept; no vendor has as many.
const DETAIL_LIMIT: usize = 64;

/// Longest name of a detail that is kept.
const NAME_LIMIT: usize = 128;

impl Details {
    fn insert(&mut self, name: &[u8], count: i64) {
        let name = match usual_detail(name) {
            Some(usual) => Cow::Borrowed(usual),
            None => Cow::Owned(String::from_utf8_lossy(name).into_owned()),
        };
        if let Some((_, old)) = self.0.iter_mut().find(|(known, _)| *known == name) {
            *old = count;
        } else if self.0.len() < DETAIL_LIMIT {
            self.0.push((name, count));
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<i64> {
        self.0
            .iter()
            .find(|(known, _)| **known == *name)
            .map(|(_, count)| *count)
    }

    /// Takes out each name with its count; `None` if there are none.
    pub(crate) fn take_counts(&mut self) -> Option<Vec<(Cow<'static, str>, i64)>> {
        (!self.0.is_empty()).then(|| std::mem::take(&mut self.0))
    }

    /// As an object; `None` if there are none.
    pub(crate) fn to_object(&self) -> Option<Value> {
        let members = self
            .0
            .iter()
            .map(|(name, count)| (name.to_string(), Value::from(*count)));
        (!self.0.is_empty()).then(|| Value::Object(members.collect()))
    }
}

/// Details that nearly every answer has: their names need no memory.
fn usual_detail(name: &[u8]) -> Option<&'static str> {
    Some(match name {
        b"cached_tokens" => "cached_tokens",
        b"audio_tokens" => "audio_tokens",
        b"text_tokens" => "text_tokens",
        b"image_tokens" => "image_tokens",
        b"reasoning_tokens" => "reasoning_tokens",
        b"accepted_prediction_tokens" => "accepted_prediction_tokens",
        b"rejected_prediction_tokens" => "rejected_prediction_tokens",
        _ => return None,
    })
}

/// What has been read so far; a stream reports piecemeal.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Reading {
    /// The counts.
    pub(crate) tokens: Tokens,
    /// More must follow: only the opening event of an Anthropic stream has told anything, or only chunks of a Gemini
    /// stream that have no output yet.
    pub(crate) provisional: bool,
    /// Details of the input as the vendor names them.
    pub(crate) input_details: Details,
    /// Details of the output as the vendor names them.
    pub(crate) output_details: Details,
}

impl Reading {
    /// Takes in the usage that `text`, a whole answer or an event's data, reports. False when it reports none.
    pub(crate) fn update(&mut self, text: &[u8]) -> bool {
        may_tell(text) && self.read(&mut Outline::of(text))
    }

    /// The same, of a text whose outline is there; it is read once.
    pub(crate) fn read(&mut self, outline: &mut Outline<'_>) -> bool {
        let Some(found) = Places::find(outline) else {
            return false;
        };
        let earlier = std::mem::take(&mut self.tokens);
        let latest = |side, before| found.count(side).filter(|count| *count > 0).unwrap_or(before);
        let input = latest(Side::Input, earlier.input);
        let output = latest(Side::Output, earlier.output);
        self.provisional = found.is_opening() || (output == 0 && found.lacks_output());
        self.add_details(&found);
        let of = |details: &Details, names: &[&str]| {
            let known = names.iter().find_map(|name| details.get(name));
            known.and_then(|count| u64::try_from(count).ok())
        };
        let anthropic_cached = of(&self.input_details, &["cache_read_input_tokens"]);
        let cached = anthropic_cached
            .or_else(|| {
                of(
                    &self.input_details,
                    &["cached_tokens", "cached_content_token_count"],
                )
            })
            .or_else(|| found.top.uint(Name::CacheHit))
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
        for (into, names) in [
            (&mut self.input_details, INPUT_DETAILS),
            (&mut self.output_details, OUTPUT_DETAILS),
        ] {
            let object = names.iter().find_map(|name| {
                let mut places = objects.iter();
                places.find_map(|place| place.get(*name)?.members())
            });
            let short = object
                .into_iter()
                .flatten()
                .filter(|(key, _)| key.len() <= NAME_LIMIT);
            for (key, value) in short.take(DETAIL_LIMIT) {
                into.insert(&key, value.int());
            }
        }
        let all = objects.into_iter().chain([&found.message]);
        for place in all.filter(|place| place.there & EXTRA_NAMES != 0) {
            for (name, details, shown) in EXTRAS {
                let Some(count) = place.get(*name).map(Member::int) else {
                    continue;
                };
                let into = match details {
                    Side::Input => &mut self.input_details,
                    Side::Output => &mut self.output_details,
                };
                if count > 0 {
                    into.insert(shown.as_bytes(), count);
                }
            }
        }
    }
}

/// Whether a text may hold usage: one search, where most hold none.
pub(crate) fn may_tell(text: &[u8]) -> bool {
    static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"usage"));
    USAGE.find(text).is_some()
}

#[derive(Clone, Copy)]
enum Side {
    Input,
    Output,
}

/// Members of an answer's outermost object that something is read of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outer {
    Id,
    Model,
    ModelVersion,
    ResponseId,
    Body,
    /// `usage`, also of a choice.
    Usage,
    /// Gemini's `usageMetadata`.
    UsageMetadata,
    /// Of OpenAI Responses.
    Response,
    /// Of Anthropic's `message_start`.
    Message,
    Choices,
}

impl Outer {
    const fn bit(self) -> u32 {
        1 << self as u32
    }

    fn of(key: &[u8]) -> Option<Self> {
        Some(match key {
            b"id" => Self::Id,
            b"model" => Self::Model,
            b"modelVersion" => Self::ModelVersion,
            b"responseId" => Self::ResponseId,
            b"body" => Self::Body,
            b"usage" => Self::Usage,
            b"usageMetadata" => Self::UsageMetadata,
            b"response" => Self::Response,
            b"message" => Self::Message,
            b"choices" => Self::Choices,
            _ => return None,
        })
    }
}

/// What an answer or event says outermost, found in one walk for all who ask.
pub(crate) struct Outline<'t> {
    /// Which of them are there, a bit each: most are asked for and are not.
    there: u32,
    found: Vec<(Outer, Member<'t>)>,
    /// The first `usage`, read on the way.
    usage: Members<'t>,
}

impl<'t> Outline<'t> {
    pub(crate) fn of(text: &'t [u8]) -> Self {
        let mut outline = Self {
            there: 0,
            found: Vec::with_capacity(6),
            usage: Members::default(),
        };
        let mut members = path::members(text);
        while let Some((key, value)) = members.next_key()
            && outline.found.len() < MEMBER_LIMIT
        {
            let name = Outer::of(&key);
            if name == Some(Outer::Usage) && outline.there & Outer::Usage.bit() == 0 {
                outline.there |= Outer::Usage.bit();
                outline.usage = members.enter(value, Members::read).unwrap_or_default();
                continue;
            }
            let Some(value) = members.pass(value) else { break };
            if let Some(name) = name {
                outline.there |= name.bit();
                outline.found.push((name, value));
            }
        }
        outline
    }

    /// `choices`, as it is written.
    pub(crate) fn choices(&self) -> Option<&'t [u8]> {
        self.first(Outer::Choices).map(Member::raw)
    }

    fn all(&self, name: Outer) -> impl Iterator<Item = Member<'t>> {
        let looked_through: &[_] = match self.there & name.bit() {
            0 => &[],
            _ => self.found.as_slice(),
        };
        let named = looked_through.iter().filter(move |(known, _)| *known == name);
        named.map(|(_, value)| *value)
    }

    /// Of a name that is there twice the first counts.
    fn first(&self, name: Outer) -> Option<Member<'t>> {
        self.all(name).next()
    }

    /// The id that it carries.
    pub(crate) fn id(&self) -> Option<String> {
        self.first_text(&ID_PATHS)
    }

    /// The model that it names.
    pub(crate) fn model(&self) -> Option<String> {
        self.first_text(&MODEL_PATHS)
    }

    fn first_text(&self, paths: &[(Outer, &str)]) -> Option<String> {
        let found = paths.iter().find_map(|(outer, inner)| match *inner {
            "" => self.first(*outer).map(Member::value),
            inner => self.all(*outer).find_map(|member| member.get(inner)),
        })?;
        Some(found.text().into_owned()).filter(|name| !name.is_empty())
    }
}

/// Members of usage that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    PromptTokens,
    CompletionTokens,
    InputTokens,
    OutputTokens,
    TotalTokens,
    CacheHit,
    PromptDetails,
    CompletionDetails,
    InputDetails,
    OutputDetails,
    CacheCreation,
    CacheRead,
    GeneratedImages,
    GeminiPrompt,
    GeminiCandidates,
    GeminiTotal,
    GeminiCached,
    GeminiToolUse,
    GeminiThoughts,
    GeminiPromptDetails,
    GeminiCandidatesDetails,
}

impl Name {
    const fn bit(self) -> u32 {
        1 << self as u32
    }

    fn of(key: &[u8]) -> Option<Self> {
        Some(match key {
            b"prompt_tokens" => Self::PromptTokens,
            b"completion_tokens" => Self::CompletionTokens,
            b"input_tokens" => Self::InputTokens,
            b"output_tokens" => Self::OutputTokens,
            b"total_tokens" => Self::TotalTokens,
            b"prompt_cache_hit_tokens" => Self::CacheHit,
            b"prompt_tokens_details" => Self::PromptDetails,
            b"completion_tokens_details" => Self::CompletionDetails,
            b"input_tokens_details" => Self::InputDetails,
            b"output_tokens_details" => Self::OutputDetails,
            b"cache_creation_input_tokens" => Self::CacheCreation,
            b"cache_read_input_tokens" => Self::CacheRead,
            b"generated_images" => Self::GeneratedImages,
            b"promptTokenCount" => Self::GeminiPrompt,
            b"candidatesTokenCount" => Self::GeminiCandidates,
            b"totalTokenCount" => Self::GeminiTotal,
            b"cachedContentTokenCount" => Self::GeminiCached,
            b"toolUsePromptTokenCount" => Self::GeminiToolUse,
            b"thoughtsTokenCount" => Self::GeminiThoughts,
            b"promptTokensDetails" => Self::GeminiPromptDetails,
            b"candidatesTokensDetails" => Self::GeminiCandidatesDetails,
            _ => return None,
        })
    }
}

/// An object of usage, read in one walk.
#[derive(Default)]
struct Members<'t> {
    is_there: bool,
    /// Which of them are there, a bit each: most are asked for and are not.
    there: u32,
    /// Few, so that they are looked through.
    named: Vec<(Name, Member<'t>)>,
}

/// Members that are looked at; no vendor has as many.
const MEMBER_LIMIT: usize = 256;

impl<'t> Members<'t> {
    fn of(value: Member<'t>) -> Self {
        value
            .members()
            .map_or_else(Self::default, |mut all| Self::read(&mut all))
    }

    fn read(all: &mut path::Members<'t>) -> Self {
        let mut members = Self {
            is_there: true,
            there: 0,
            named: Vec::with_capacity(6),
        };
        for (key, member) in all.take(MEMBER_LIMIT) {
            if let Some(name) = Name::of(&key) {
                members.there |= name.bit();
                members.named.push((name, member));
            }
        }
        members
    }

    fn below(outer: Member<'t>) -> Self {
        let Some(mut all) = outer.members() else {
            return Self::default();
        };
        while let Some((key, value)) = all.next_key() {
            if *key == *b"usage" {
                return all.enter(value, Self::read).unwrap_or_default();
            }
            all.pass(value);
        }
        Self::default()
    }

    /// Of a name that is there twice the first counts.
    fn get(&self, name: Name) -> Option<Member<'t>> {
        if self.there & name.bit() == 0 {
            return None;
        }
        let found = self.named.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| *value)
    }

    fn uint(&self, name: Name) -> Option<u64> {
        self.get(name).map(Member::uint)
    }
}

/// The usage objects of a text.
#[derive(Default)]
struct Places<'t> {
    /// `usage`, also of a choice
    top: Members<'t>,
    /// `response.usage`, of OpenAI Responses.
    response: Members<'t>,
    /// `usageMetadata`, of Gemini.
    gemini: Members<'t>,
    /// `message.usage`, of Anthropic's `message_start`.
    message: Members<'t>,
}

impl<'t> Places<'t> {
    fn find(outline: &mut Outline<'t>) -> Option<Self> {
        let top = std::mem::take(&mut outline.usage);
        let of =
            |name, read: fn(Member<'t>) -> Members<'t>| outline.first(name).map(read).unwrap_or_default();
        let mut found = Self {
            top,
            response: of(Outer::Response, Members::below),
            gemini: of(Outer::UsageMetadata, Members::of),
            message: of(Outer::Message, Members::below),
        };
        if !found.top.is_there {
            // Moonshot and others put a stream's usage into its last choice.
            let first = outline.first(Outer::Choices).and_then(Member::first_element);
            found.top = first.map(Members::below).unwrap_or_default();
        }
        let places = [&found.top, &found.response, &found.gemini, &found.message];
        places.iter().any(|place| place.is_there).then_some(found)
    }

    fn is_opening(&self) -> bool {
        self.message.is_there && !self.top.is_there
    }

    /// Gemini counts the prompt in every chunk, and the answer at its end.
    fn lacks_output(&self) -> bool {
        self.gemini.is_there && self.gemini.get(Name::GeminiCandidates).is_none()
    }

    /// The first of Higress's paths that is there.
    fn count(&self, side: Side) -> Option<u64> {
        let (openai, anthropic, gemini) = match side {
            Side::Input => (Name::PromptTokens, Name::InputTokens, Name::GeminiPrompt),
            Side::Output => (Name::CompletionTokens, Name::OutputTokens, Name::GeminiCandidates),
        };
        let places = [
            (&self.top, openai),
            (&self.top, anthropic),
            (&self.response, anthropic),
            (&self.gemini, gemini),
            (&self.message, anthropic),
        ];
        places.into_iter().find_map(|(place, name)| place.uint(name))
    }

    fn total(&self) -> Option<u64> {
        let places = [
            (&self.top, Name::TotalTokens),
            (&self.response, Name::TotalTokens),
            (&self.gemini, Name::GeminiTotal),
        ];
        let told = places.into_iter().find_map(|(place, name)| place.uint(name));
        told.filter(|total| *total > 0)
    }
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
        assert_eq!(
            openai.input_details.to_object().unwrap(),
            json!({"cached_tokens": 80})
        );
        assert_eq!(
            openai.output_details.to_object().unwrap(),
            json!({"reasoning_tokens": 25})
        );
        let gemini = read(&[
            r#"{"usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":6,"thoughtsTokenCount":5,"totalTokenCount":15}}"#,
        ]);
        assert_eq!(counts(&gemini), (4, 6, 15));
        assert_eq!(
            gemini.output_details.to_object().unwrap(),
            json!({"thoughts_token_count": 5})
        );
        let anthropic =
            read(&[r#"{"usage":{"input_tokens":10,"output_tokens":20,"cache_read_input_tokens":5}}"#]);
        assert_eq!(counts(&anthropic), (10, 20, 35));
        assert_eq!(
            anthropic.input_details.to_object().unwrap(),
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
    fn gemini_tells_its_output_at_last() {
        let first = r#"{"usageMetadata":{"promptTokenCount":9,"thoughtsTokenCount":3,"totalTokenCount":12}}"#;
        let last =
            r#"{"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":5,"totalTokenCount":17}}"#;
        let opening = read(&[first]);
        assert_eq!((counts(&opening), opening.provisional), ((9, 0, 12), true));
        for texts in [&[first, last][..], &[first, last, first][..]] {
            let whole = read(texts);
            assert_eq!((whole.tokens.output, whole.provisional), (5, false));
        }
        let openai = read(&[r#"{"usage":{"prompt_tokens":5,"total_tokens":5}}"#]);
        assert!(!openai.provisional, "embeddings have no output");
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
            let outline = Outline::of(text.as_bytes());
            assert_eq!(outline.model().as_deref(), Some("m"), "{text}");
            assert_eq!(outline.id().as_deref(), Some("i"), "{text}");
        }
        // Of a member that is there twice the first that leads somewhere counts; a null leads somewhere.
        let twice = Outline::of(br#"{"response":1,"response":{"model":"m"},"id":null,"responseId":"i"}"#);
        assert_eq!((twice.model().as_deref(), twice.id()), (Some("m"), None));
        assert_eq!(Outline::of(b"{}").model(), None);
        let name = |path| model_of_path(path).map(Cow::into_owned);
        assert_eq!(
            name("/v1beta/models/gemini-2.5:streamGenerateContent").as_deref(),
            Some("gemini-2.5")
        );
        assert_eq!(name("/v1/chat/completions"), None);
    }
}
