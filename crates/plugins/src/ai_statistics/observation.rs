//! What one exchange's answer tells while it passes, and what becomes of it at settlement (plugins spec §1.5–1.7).
//!
//! Nothing here waits for the answer's end: events and frames are noted as they come, the log and the metrics are made
//! once, when the exchange is settled, whatever ended it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use tollgate_body::{Request, Response};
use tollgate_observe::{Ending, Record};
use tollgate_plugin::Exchange;

use super::attribute::{BuiltIn, Found, ValueSource, header};
use super::config::{Config, SpanSource};
use super::request::{body_value, spans};
use super::settlement;
use super::stream::StreamValues;
use crate::answer_watch::{self, Asked, Observer, Watch};
use crate::token_usage::Details;

/// One exchange under observation; shared by the answer's body and the settlement.
#[derive(Debug)]
pub(super) struct Observation {
    pub(super) config: Arc<Config>,
    state: RefCell<State>,
}

/// What is known so far.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Texts of the request.
    pub(super) asked: Asked,
    /// The request is one whose tokens may be estimated.
    pub(super) estimable: bool,
    pub(super) answer: Option<Box<Answer>>,
}

/// An answer that has begun.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) watch: Watch,
    /// Of a type that the config wants.
    pub(super) wanted: bool,
    pub(super) values: StreamValues,
}

impl Observation {
    /// Begins; whatever happens to the exchange, it is settled.
    pub(super) fn begin(config: &Arc<Config>, exchange: &Exchange) -> Rc<Self> {
        let observation = Rc::new(Self {
            config: config.clone(),
            state: RefCell::default(),
        });
        let settled = observation.clone();
        let record = &exchange.record;
        record.on_settle(move |record, ending| settled.settle(record, ending));
        record.usage.borrow_mut().watched = true;
        observation
    }

    /// Notes what is known of the request.
    pub(super) fn asked(&self, request: &Request) {
        self.state.borrow_mut().estimable = answer_watch::is_estimable(request);
    }

    /// Notes the request's texts.
    pub(super) fn read(&self, texts: Asked) {
        self.state.borrow_mut().asked = texts;
    }

    /// Looks at the answer from now on. One whose type the config leaves alone is looked at for its usage alone.
    pub(super) fn answered(self: &Rc<Self>, record: &Rc<Record>, response: &mut Response) {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        let content_type = || answer_watch::content_type(response.headers());
        let wanted = self.config.wants_content_type(content_type);
        if wanted {
            self.note_head(record, response.headers());
        }
        let watch = Watch::begin(record, response);
        let (streamed, kind) = (watch.streamed, watch.kind());
        let mut state = self.state.borrow_mut();
        if streamed {
            state.asked.weigh();
            record.ai_log.borrow_mut().let_go();
        }
        let values = match streamed && wanted {
            true => StreamValues::new(&self.config),
            false => StreamValues::default(),
        };
        state.answer = Some(Box::new(Answer {
            watch,
            wanted,
            values,
        }));
        drop(state);
        let passing = Passing {
            observation: self.clone(),
            record: record.clone(),
        };
        answer_watch::observe(response, kind, passing);
    }

    fn note_head(&self, record: &Record, headers: &HeaderMap) {
        for attribute in self.config.attributes_of(ValueSource::ResponseHeader) {
            attribute.put(
                record,
                attribute.in_headers(record, headers),
                self.config.value_limit,
            );
        }
        spans(&self.config, record, SpanSource::ResponseHeader, |span| {
            header(record, headers, span.value.as_str())
        });
    }

    fn settle(&self, record: &Record, ending: &Ending<'_>) {
        let state = &mut *self.state.borrow_mut();
        if let Some(answer) = &mut state.answer {
            answer.finish(&self.config, record);
        }
        settlement::settle(&self.config, record, ending, state);
    }
}

/// The answer's way past the observation.
struct Passing {
    observation: Rc<Observation>,
    record: Rc<Record>,
}

impl Observer for Passing {
    fn event(&self, data: &[u8]) {
        if let Some(answer) = &mut self.observation.state.borrow_mut().answer {
            let shape = answer.watch.event(&self.record, data);
            answer.values.event(&self.observation.config, data, &shape);
        }
    }

    fn frame(&self, data: &Bytes) {
        if let Some(answer) = &mut self.observation.state.borrow_mut().answer {
            answer.watch.frame(data);
        }
    }
}

impl Answer {
    /// The answer is over: reads a plain one, and records what was to be taken from it.
    fn finish(&mut self, config: &Config, record: &Record) {
        let told = self.watch.finish(record);
        if !self.wanted {
            return;
        }
        if self.watch.streamed {
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
        for attribute in config.attributes_of(ValueSource::ResponseBody) {
            let value = match self.detail(attribute.built_in) {
                Some(detail) => Found::Value(detail),
                None => body_value(attribute, &told.text, |at| told.find(at)),
            };
            attribute.put_found(record, value, config.value_limit);
        }
    }

    /// The value of a built-in that comes from usage alone.
    fn detail(&self, built_in: Option<BuiltIn>) -> Option<Value> {
        let count = |details: &Details, name: &str| details.get(name).map_or(Value::Null, Value::from);
        let text = |details: &Details| match details.to_object() {
            Some(mut object) => {
                object.sort_all_objects();
                Value::String(object.to_string())
            }
            None => Value::Null,
        };
        let reading = &self.watch.reading;
        Some(match built_in? {
            BuiltIn::ReasoningTokens => count(&reading.output_details, "reasoning_tokens"),
            BuiltIn::CachedTokens => count(&reading.input_details, "cached_tokens"),
            BuiltIn::InputTokenDetails => text(&reading.input_details),
            BuiltIn::OutputTokenDetails => text(&reading.output_details),
            _ => return None,
        })
    }
}
