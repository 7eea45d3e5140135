//! What one exchange's answer tells while it passes, and what becomes of it at settlement (plugins spec §1.5–1.7).
//!
//! Nothing here waits for the answer's end: events and frames are noted as they come, the log and the metrics are made
//! once, when the exchange is settled, whatever ended it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{Method, StatusCode};
use serde_json::{Map, Value};
use tollgate_base::clock;
use tollgate_body::{Body, Request, Response, SseDecoder, SseEvent, path};
use tollgate_llm::Api;
use tollgate_observe::{Ending, Record};
use tollgate_plugin::Exchange;

use super::attribute::{BuiltIn, ValueSource, header};
use super::config::{Config, SpanSource};
use super::estimate::Weight;
use super::inflate::Inflating;
use super::request::{body_value, bounded, header_text, spans};
use super::settlement;
use super::stream::StreamValues;
use super::whole::Whole;
use crate::token_usage::{self, Reading};

/// Events that are searched for the answer's id and model.
const NAMED_EVENTS: u32 = 8;

/// One exchange under observation; shared by the answer's body and the settlement.
#[derive(Debug)]
pub(super) struct Observation {
    pub(super) config: Arc<Config>,
    state: RefCell<State>,
}

/// What is known so far.
#[derive(Debug, Default)]
pub(super) struct State {
    /// `x-mse-consumer` of the request.
    pub(super) consumer: Option<String>,
    /// Text of the request.
    pub(super) asked: Weight,
    /// The request is one whose tokens may be estimated.
    pub(super) estimable: bool,
    pub(super) answer: Option<Answer>,
}

/// An answer that has begun.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) streamed: bool,
    /// Status 2xx.
    pub(super) is_good: bool,
    pub(super) reading: Reading,
    pub(super) chat_id: Option<String>,
    /// Text of the answer.
    pub(super) said: Weight,
    pub(super) values: StreamValues,
    pub(super) whole: Whole,
    events: u32,
}

impl Observation {
    /// Begins; whatever happens to the exchange, it is settled.
    pub(super) fn begin(config: &Arc<Config>, exchange: &Exchange) -> Rc<Self> {
        let observation = Rc::new(Self {
            config: config.clone(),
            state: RefCell::default(),
        });
        let settled = observation.clone();
        exchange
            .record
            .on_settle(move |record, ending| settled.settle(record, ending));
        observation
    }

    /// Notes what is known of the request.
    pub(super) fn asked(&self, request: &Request, consumer: Option<String>) {
        let mut state = self.state.borrow_mut();
        state.consumer = consumer;
        state.estimable =
            request.method() == Method::POST && Api::of_path(request.uri().path()).is_some_and(spends_tokens);
    }

    /// Notes how much text the request holds.
    pub(super) fn weighed(&self, weight: Weight) {
        self.state.borrow_mut().asked = weight;
    }

    /// Looks at the answer from now on.
    pub(super) fn answered(self: &Rc<Self>, record: &Rc<Record>, response: &mut Response) {
        let content_type = header_text(response.headers(), CONTENT_TYPE).to_owned();
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            || !self.config.wants_content_type(&content_type)
        {
            return;
        }
        let headers = response.headers();
        for attribute in self.config.attributes_of(ValueSource::ResponseHeader) {
            let value = header(headers, &attribute.value).map_or(Value::Null, Value::from);
            attribute.put(record, value, self.config.value_limit);
        }
        spans(&self.config, record, SpanSource::ResponseHeader, |name| {
            header(headers, name)
        });
        let streamed = is_event_stream(&content_type);
        let is_good = response.status().is_success();
        if is_good {
            record.usage.borrow_mut().begin(streamed);
        }
        self.state.borrow_mut().answer = Some(Answer {
            streamed,
            is_good,
            values: if streamed {
                StreamValues::new(&self.config)
            } else {
                StreamValues::default()
            },
            ..Answer::default()
        });
        let coding = header_text(headers, CONTENT_ENCODING).trim().to_owned();
        if !is_text(&content_type) {
            return;
        }
        let body = response.body_mut().take();
        *response.body_mut() = if coding.is_empty() || coding.eq_ignore_ascii_case("identity") {
            self.observe(record, body, streamed)
        } else if let Some(inflating) = Inflating::of(&coding) {
            self.observe_compressed(record, body, streamed, inflating)
        } else {
            body
        };
    }

    fn observe(self: &Rc<Self>, record: &Rc<Record>, body: Body, streamed: bool) -> Body {
        let (observation, notes) = (self.clone(), record.clone());
        if streamed {
            return body.observe_events(move |event| observation.event(&notes, event));
        }
        // Whole already, as after a translation: it stays what it is for the plugins further out.
        if let Some(whole) = body.known_bytes() {
            self.frame(&whole);
            return body;
        }
        body.observe_data(move |data| observation.frame(data))
    }

    fn observe_compressed(
        self: &Rc<Self>,
        record: &Rc<Record>,
        body: Body,
        streamed: bool,
        mut inflating: Inflating,
    ) -> Body {
        let (observation, notes) = (self.clone(), record.clone());
        let mut decoder = SseDecoder::new();
        body.observe_data(move |data| {
            inflating.frame(data, |plain| {
                if !streamed {
                    observation.frame(&plain);
                    return;
                }
                for event in decoder.push(plain).flatten() {
                    observation.event(&notes, &event);
                }
            });
        })
    }

    fn event(&self, record: &Record, event: &SseEvent) {
        let Some(data) = event.data_bytes() else { return };
        let mut state = self.state.borrow_mut();
        if let Some(answer) = &mut state.answer {
            answer.event(&self.config, record, &data);
        }
    }

    fn frame(&self, data: &Bytes) {
        if let Some(answer) = &mut self.state.borrow_mut().answer {
            answer.whole.push(data);
        }
    }

    fn settle(&self, record: &Record, ending: &Ending<'_>) {
        let mut state = self.state.take();
        if let Some(answer) = &mut state.answer {
            answer.finish(&self.config, record);
        }
        settlement::settle(&self.config, record, ending, state);
    }
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

fn is_event_stream(content_type: &str) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    let start = content_type.as_bytes().get(..EVENTS.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(EVENTS))
}

fn is_text(content_type: &str) -> bool {
    let others = ["octet-stream", "grpc", "image/", "audio/", "video/"];
    !others.iter().any(|part| content_type.contains(part))
}

impl Answer {
    fn event(&mut self, config: &Config, record: &Record, data: &[u8]) {
        self.events = self.events.saturating_add(1);
        let mut usage = record.usage.borrow_mut();
        let weight = Weight::of_event(data);
        let has_text = !weight.is_empty();
        self.said += weight;
        if usage.first_event.is_none() || (has_text && usage.first_token.is_none()) {
            let now = clock::now();
            usage.first_event.get_or_insert(now);
            if has_text {
                usage.first_token.get_or_insert(now);
            }
        }
        if self.events <= NAMED_EVENTS {
            if self.chat_id.is_none() {
                self.chat_id = token_usage::id_of(data).map(bounded);
            }
            if usage.model.is_none() {
                usage.model = model(data);
            }
        }
        let reads_usage = self.is_good && !config.without_usage;
        if reads_usage && self.reading.update(data) && self.reading.tokens.total > 0 {
            usage.report(self.reading.tokens, self.reading.provisional);
            if let Some(name) = model(data) {
                usage.model = Some(name);
            }
        }
        drop(usage);
        self.values.event(config, data);
    }

    /// The answer is over: reads a plain one, and records what was to be taken from it.
    fn finish(&mut self, config: &Config, record: &Record) {
        if self.streamed {
            let values = std::mem::take(&mut self.values);
            for (position, value) in values.finish() {
                let Some(attribute) = config.attributes.get(position) else {
                    continue;
                };
                let value = self.detail(attribute.built_in).unwrap_or(value);
                attribute.put(record, value, config.value_limit);
            }
            return;
        }
        let text = self.whole.text();
        self.read_whole(config, record, &text);
        for attribute in config.attributes_of(ValueSource::ResponseBody) {
            let value = self
                .detail(attribute.built_in)
                .unwrap_or_else(|| body_value(attribute, |at| path::get(&text, at)));
            attribute.put(record, value, config.value_limit);
        }
    }

    fn read_whole(&mut self, config: &Config, record: &Record, text: &[u8]) {
        self.chat_id = token_usage::id_of(text).map(bounded);
        if !self.is_good {
            return;
        }
        let mut usage = record.usage.borrow_mut();
        usage.model = model(text);
        if config.without_usage {
            return;
        }
        let found = match self.whole.usage_at_end() {
            Some(end) => self.reading.update(&end),
            None => self.reading.update(text),
        };
        if found && self.reading.tokens.total > 0 {
            // One message has no opening event: what it says is the last word.
            usage.report(self.reading.tokens, false);
        } else {
            self.said = Weight::of_json(text);
        }
    }

    /// The value of a built-in that comes from usage alone.
    fn detail(&self, built_in: Option<BuiltIn>) -> Option<Value> {
        let count =
            |details: &Map<String, Value>, name: &str| details.get(name).cloned().unwrap_or(Value::Null);
        let text = |details: &Map<String, Value>| {
            if details.is_empty() {
                return Value::Null;
            }
            let mut sorted = Value::Object(details.clone());
            sorted.sort_all_objects();
            Value::String(sorted.to_string())
        };
        let reading = &self.reading;
        Some(match built_in? {
            BuiltIn::ReasoningTokens => count(&reading.output_details, "reasoning_tokens"),
            BuiltIn::CachedTokens => count(&reading.input_details, "cached_tokens"),
            BuiltIn::InputTokenDetails => text(&reading.input_details),
            BuiltIn::OutputTokenDetails => text(&reading.output_details),
            _ => return None,
        })
    }
}

fn model(text: &[u8]) -> Option<Box<str>> {
    token_usage::model_of(text).map(|name| bounded(name).into_boxed_str())
}
