//! One answer of a model under observation: its usage, model, id and times, noted in the exchange's record as it
//! passes (plugins spec §0.6, §1.5).
//!
//! Shared by `ai-proxy`, so that every answer it lets through is accounted for, and by plugins further out that want
//! more of the answer than that: whoever observes further out says so first, and the answer is read once. Nothing
//! here changes, delays or holds back a byte.

mod asked;
mod estimate;
mod form;
mod prose;
mod template;
mod whole;

use std::ops::Range;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use tollgate_base::clock;
use tollgate_body::path::{Path, PathValue};
use tollgate_body::{Request, Response};
use tollgate_llm::Api;
use tollgate_observe::Record;

pub(crate) use asked::Asked;
pub(crate) use estimate::Weight;
use form::Form;
pub(crate) use prose::Prose;
use template::Template;
use whole::Whole;

use crate::token_usage::{self, Outline, Reading};

/// Events that are searched for the answer's id and model.
const NAMED_EVENTS: u32 = 8;
/// Bytes of a plain answer that are kept to find its usage; of a longer one its two ends.
const KEPT_FOR_USAGE: usize = 1024 * 1024;
/// Longest name of a model, session or consumer that is kept.
const NAME_LIMIT: usize = 256;

/// A short name out of others' hands: nothing beyond the limit is kept.
pub(crate) fn bounded(mut name: String) -> String {
    name.truncate(name.floor_char_boundary(NAME_LIMIT));
    name
}

/// What a passing answer is shown to.
pub(crate) trait Observer {
    /// The data of an event of a streamed answer, or an element of one that is an array.
    fn event(&self, data: &[u8]);
    /// A piece of any other answer.
    fn frame(&self, data: &Bytes);
}

/// What is known of an answer so far.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Which of the exchange's answers it is.
    number: u32,
    form: Form,
    pub(crate) streamed: bool,
    /// Of a type that may be read.
    is_text: bool,
    /// Status 2xx.
    pub(crate) is_good: bool,
    pub(crate) reading: Reading,
    pub(crate) chat_id: Option<String>,
    /// Texts of the answer.
    said: Prose,
    whole: Whole,
    template: Template,
    events: u32,
}

/// How an answer is shown, as its head tells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    form: Form,
    is_text: bool,
}

/// What an answer that is no stream says.
pub(crate) struct Told {
    pub(crate) text: Bytes,
    /// Where the first `choices` of its outermost object stands: nearly everything that is asked for is in there.
    choices: Option<Range<usize>>,
}

impl Told {
    /// What a path leads to.
    pub(crate) fn find(&self, path: &Path) -> Option<PathValue<'_>> {
        let choices = self.choices.clone().and_then(|place| self.text.get(place));
        let found = choices.and_then(|choices| path.get_in_member("choices", choices));
        found.or_else(|| path.get(&self.text))
    }
}

/// How an event is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape<'d> {
    /// As any. Where its only text lies, without the quotes, if later events may be the [`Shape::Same`].
    Fresh(Option<Range<usize>>),
    /// As the last one, but for its text; given with its quotes.
    Same(&'d [u8]),
}

impl Watch {
    /// The watch over an answer that begins; an earlier one of the same exchange is forgotten.
    pub(crate) fn begin(record: &Record, response: &Response) -> Self {
        let content_type = content_type(response.headers());
        let is_good = response.status().is_success();
        let form = Form::of(record, content_type, is_good);
        let streamed = form != Form::Plain;
        let mut usage = record.usage.borrow_mut();
        if is_good {
            usage.begin(streamed);
        }
        Self {
            number: usage.answers,
            form,
            streamed,
            is_text: is_text(content_type),
            is_good,
            said: match streamed && is_good {
                true => Prose::of_stream(is_countable(record)),
                false => Prose::default(),
            },
            ..Self::default()
        }
    }

    /// What the answer is to whom it is shown.
    pub(crate) fn kind(&self) -> Kind {
        let (form, is_text) = (self.form, self.is_text);
        Kind { form, is_text }
    }

    /// For whoever wants an answer's usage alone: of one that is no stream no more is kept than that takes.
    pub(crate) fn for_usage(self) -> Self {
        Self {
            whole: Whole::with_limit(KEPT_FOR_USAGE),
            ..self
        }
    }

    /// Notes an event's data.
    pub(crate) fn event<'d>(&mut self, record: &Record, data: &'d [u8]) -> Shape<'d> {
        if let Some(text) = self.template.fill(data) {
            // The event that taught the template had a text: the first token has come.
            self.said.text(text);
            return Shape::Same(with_quotes(data, text));
        }
        self.events = self.events.saturating_add(1);
        let (weight, place) = Weight::of_event(data);
        self.said.event(data, weight);
        let is_plain = self.fresh(record, data, !weight.is_empty());
        let place = place.filter(|_| is_plain);
        let is_learnt = self.template.learn(data, place.clone());
        Shape::Fresh(place.filter(|_| is_learnt))
    }

    /// Notes what an event tells besides its text; true if events of its shape will tell nothing else.
    fn fresh(&mut self, record: &Record, data: &[u8], has_text: bool) -> bool {
        let mut usage = record.usage.borrow_mut();
        if usage.first_event.is_none() || (has_text && usage.first_token.is_none()) {
            let now = clock::now();
            usage.first_event.get_or_insert(now);
            if has_text {
                usage.first_token.get_or_insert(now);
            }
        }
        let is_current = self.is_current(&usage);
        let may_be_named = self.events <= NAMED_EVENTS;
        let (wants_id, wants_model) = (self.chat_id.is_none(), usage.model.is_none() && is_current);
        let may_tell = token_usage::may_tell(data);
        if !may_tell && !(may_be_named && (wants_id || wants_model)) {
            return true;
        }
        let mut outline = Outline::of(data);
        if may_be_named && wants_id {
            self.chat_id = outline.id().map(bounded);
        }
        if may_be_named && wants_model {
            usage.model = model(&outline);
            self.unless_countable(record, usage.model.as_deref());
        }
        if !may_tell || !self.reading.read(&mut outline) {
            return true;
        }
        if self.is_good && is_current && self.reading.tokens.total > 0 {
            usage.report(self.reading.tokens, self.reading.provisional);
            if let Some(name) = model(&outline) {
                usage.model = Some(name);
            }
        }
        false
    }

    /// Notes a piece of an answer that is no stream.
    pub(crate) fn frame(&mut self, data: &Bytes) {
        self.whole.push(data);
    }

    /// The answer is over: what it tells as a whole is noted; returns the text of one that is no stream.
    pub(crate) fn finish(&mut self, record: &Record) -> Told {
        let text = match self.streamed {
            true => Bytes::new(),
            false => self.whole.text(),
        };
        let mut outline = Outline::of(&text);
        let choices = outline.choices().map(|choices| place_in(&text, choices));
        if !self.streamed {
            self.chat_id = outline.id().map(bounded);
        }
        let mut usage = record.usage.borrow_mut();
        if self.is_good && self.is_current(&usage) {
            usage.answer_id = self.chat_id.as_deref().map(Into::into);
        }
        if self.streamed || !self.is_good || !self.is_current(&usage) {
            return Told { text, choices };
        }
        usage.model = model(&outline);
        let found = match self.whole.usage_at_end() {
            Some(end) => self.reading.update(&end),
            None => self.reading.read(&mut outline),
        };
        if found && self.reading.tokens.total > 0 {
            // One message has no opening event: what it says is the last word.
            usage.report(self.reading.tokens, false);
        } else {
            self.said = Prose::of_json(&text, is_countable(record));
        }
        Told { text, choices }
    }

    /// Nothing is kept to be counted for a model that nobody can count for.
    fn unless_countable(&mut self, record: &Record, model: Option<&str>) {
        if let (Some(vocabularies), Some(model)) = (record.vocabularies.get(), model)
            && !vocabularies.knows(model)
        {
            self.said.give_up();
        }
    }

    /// Whether it is an answer of the vendor that told no tokens, or not all of them.
    pub(crate) fn lacks_usage(&self, record: &Record) -> bool {
        let usage = record.usage.borrow();
        // What a plugin answered by itself cost no vendor's tokens.
        usage.is_open() && self.is_good && self.is_current(&usage) && record.attempts.get() > 0
    }

    /// Counts or estimates the tokens of an answer of the vendor that told none, or not all of them.
    pub(crate) fn supply(&self, record: &Record, asked: &Prose) {
        if !self.lacks_usage(record) {
            return;
        }
        let mut usage = record.usage.borrow_mut();
        let vocabularies = record.vocabularies.get().map(AsRef::as_ref);
        let (input, of_input) = asked.tokens(usage.model_name(), vocabularies);
        let (output, of_output) = self.said.tokens(usage.model_name(), vocabularies);
        usage.supply(input, output, of_input.max(of_output));
    }

    /// Whether what this answer tells is what the exchange cost: not an earlier one, nor one that a plugin made.
    fn is_current(&self, usage: &tollgate_observe::Usage) -> bool {
        usage.answers == self.number && !usage.is_closed()
    }
}

/// Shows the answer to `observer` from now on.
pub(crate) fn observe(response: &mut Response, kind: Kind, observer: impl Observer + 'static) {
    let Kind { form, is_text } = kind;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS || !is_text {
        return;
    }
    let coding = header_text(response.headers(), CONTENT_ENCODING)
        .trim()
        .to_owned();
    let body = response.body_mut().take();
    *response.body_mut() = form::show(body, form, &coding, observer);
}

/// Whether the tokens of the answer to `request` may be estimated.
pub(crate) fn is_estimable(request: &Request) -> bool {
    request.method() == Method::POST && Api::alike(request.uri().path()).is_some_and(spends_tokens)
}

/// Whether the configuration asks for counts where the vendor tells none.
pub(crate) fn is_countable(record: &Record) -> bool {
    record.vocabularies.get().is_some()
}

/// APIs whose answers cost tokens even where the vendor does not say how many.
fn spends_tokens(api: Api) -> bool {
    matches!(
        api,
        Api::Chat
            | Api::Completions
            | Api::Embeddings
            | Api::Responses
            | Api::AnthropicMessages
            | Api::AnthropicComplete
            | Api::GeminiGenerate
            | Api::GeminiStreamGenerate
    )
}

/// A header as text; empty where it is missing or none.
pub(crate) fn header_text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// The `content-type`.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    header_text(headers, CONTENT_TYPE)
}

/// A string's inside with the quotes around it.
fn with_quotes<'d>(data: &'d [u8], inside: &[u8]) -> &'d [u8] {
    let place = place_in(data, inside);
    data.get(place.start - 1..=place.end).unwrap_or_default()
}

/// Where a part of a text lies in it.
fn place_in(text: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr() - text.as_ptr().addr();
    start..start + part.len()
}

fn is_text(content_type: &str) -> bool {
    // What nearly every answer is needs no search.
    if content_type == "application/json" || content_type.starts_with("application/json;") {
        return true;
    }
    let others = ["octet-stream", "grpc", "image/", "audio/", "video/"];
    !others.iter().any(|part| content_type.contains(part))
}

fn model(outline: &Outline<'_>) -> Option<Box<str>> {
    outline.model().map(|name| bounded(name).into_boxed_str())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The shapes of a stream's events, as a watch tells them.
    pub(crate) fn shapes<'d>(events: &[&'d [u8]]) -> Vec<Shape<'d>> {
        let mut template = Template::default();
        let mut watched = |data: &'d [u8]| match template.fill(data) {
            Some(text) => Shape::Same(with_quotes(data, text)),
            None => {
                let place = Weight::of_event(data).1;
                let is_learnt = template.learn(data, place.clone());
                Shape::Fresh(place.filter(|_| is_learnt))
            }
        };
        events.iter().map(|data| watched(data)).collect()
    }
}
