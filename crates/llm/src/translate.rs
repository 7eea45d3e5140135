//! A vendor's answer on its way back to the client: vendor → OpenAI's dialect → the client's, buffered or streamed.
//!
//! [`AnswerPlan`] says which steps an answer needs; when it needs none, nobody looks at the bytes.

use serde_json::Value;

use crate::Api;
use crate::anthropic::{ClientEvent, ClientStream, answer_for_client};
use crate::promote::{PromoteStream, promote};
use crate::providers::Provider;
use crate::providers::edits::ChunkEdit;
use crate::providers::wire::{Chunk, Ended, VendorStream};

/// What has to be done to one answer.
#[derive(Debug, Clone)]
pub struct AnswerPlan {
    /// The API as the vendor sees it.
    pub api: Api,
    /// The model name that went to the vendor.
    pub model: String,
    /// The request offered tools.
    pub with_tools: bool,
    /// The client speaks Anthropic and the vendor does not.
    pub claude_client: bool,
    /// Bodies pass: `protocol: original`.
    pub original: bool,
}

/// Why a buffered answer could not be translated; each is a 500 of its own in Higress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerFault {
    /// `failed to process response body: …`
    Vendor(String),
    /// `failed to convert response to claude format: …`
    Client(String),
}

impl AnswerPlan {
    fn wire_translates(&self, provider: &Provider) -> bool {
        !self.original
            && provider
                .wire
                .as_ref()
                .is_some_and(|wire| wire.translates(self.api))
    }

    fn promotes(&self, provider: &Provider) -> bool {
        !self.original && provider.promote_thinking && self.api == Api::Chat
    }

    /// Whether a buffered answer is looked at.
    #[must_use]
    pub fn touches_answer(&self, provider: &Provider) -> bool {
        self.claude_client || self.promotes(provider) || self.wire_translates(provider)
    }

    /// Whether a stream is looked at.
    #[must_use]
    pub fn touches_stream(&self, provider: &Provider) -> bool {
        self.touches_answer(provider) || (!self.original && provider.row.chunk_edit.is_some())
    }

    /// Translates a buffered answer; `None` leaves its bytes as they are.
    ///
    /// # Errors
    /// What the answer is instead.
    pub fn answer(&self, provider: &Provider, answer: &[u8]) -> Result<Option<Vec<u8>>, AnswerFault> {
        let mut translated = match provider.wire.as_ref().filter(|_| self.wire_translates(provider)) {
            Some(wire) => Some(
                wire.answer(self.api, &self.model, answer)
                    .map_err(AnswerFault::Vendor)?,
            ),
            None => None,
        };
        if self.promotes(provider) {
            // What is no JSON is left for the next step, or the client, to judge.
            let parsed = translated.take().or_else(|| serde_json::from_slice(answer).ok());
            translated = parsed.map(|mut value| {
                promote(&mut value);
                value
            });
        }
        let in_openai = translated.map(|value| value.to_string().into_bytes());
        if !self.claude_client {
            return Ok(in_openai);
        }
        let for_client =
            answer_for_client(in_openai.as_deref().unwrap_or(answer)).map_err(AnswerFault::Client)?;
        Ok(Some(for_client.to_string().into_bytes()))
    }

    /// A translator for one stream.
    #[must_use]
    pub fn stream(&self, provider: &Provider) -> StreamTranslator {
        let wire = provider.wire.as_ref().filter(|_| self.wire_translates(provider));
        StreamTranslator {
            vendor: wire.map(|wire| wire.stream(self.api, &self.model, self.with_tools)),
            edit: provider.row.chunk_edit,
            promote: self.promotes(provider).then(PromoteStream::default),
            client: self.claude_client.then(ClientStream::new),
            failed: false,
        }
    }
}

/// One event for the client.
#[derive(Debug, Clone, PartialEq)]
pub struct OutEvent {
    /// `event:`, if the dialect names its events.
    pub name: Option<&'static str>,
    /// `data:`.
    pub data: OutData,
}

/// Data of an event.
#[derive(Debug, Clone, PartialEq)]
pub enum OutData {
    /// JSON.
    Json(Value),
    /// `[DONE]`.
    Done,
}

/// Translates one stream, event by event.
pub struct StreamTranslator {
    vendor: Option<Box<dyn VendorStream>>,
    edit: Option<ChunkEdit>,
    promote: Option<PromoteStream>,
    client: Option<ClientStream>,
    failed: bool,
}

impl std::fmt::Debug for StreamTranslator {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("StreamTranslator")
    }
}

impl StreamTranslator {
    /// One event of the vendor. Comments (no data) give nothing.
    pub fn event(&mut self, name: &str, data: &str, out: &mut Vec<OutEvent>) {
        if data.is_empty() {
            return;
        }
        let mut chunks = Vec::new();
        match &mut self.vendor {
            Some(vendor) => vendor.event(name, data, &mut chunks),
            None => chunks.extend(openai_chunk(data)),
        }
        self.forward(chunks, out);
    }

    /// The vendor's stream ended without a transport error.
    pub fn end(&mut self, out: &mut Vec<OutEvent>) -> Ended {
        let mut chunks = Vec::new();
        let vendor = self.vendor.as_mut().map(|vendor| vendor.end(&mut chunks));
        self.forward(chunks, out);
        if vendor == Some(Ended::Truncated) {
            return Ended::Truncated;
        }
        let mut events = Vec::new();
        let client = self.client.as_mut().map(|client| client.end(&mut events));
        out.extend(events.into_iter().map(named));
        client.unwrap_or(Ended::Whole)
    }

    /// Whether an event with this data is passed on as it is.
    #[must_use]
    pub fn leaves_alone(&self, data: &str) -> bool {
        self.vendor.is_none()
            && self.promote.is_none()
            && self.client.is_none()
            && self.edit.is_none_or(|edit| !data.contains(edit.marker))
    }

    /// Whether the vendor reported an error inside the stream.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.failed
    }

    fn forward(&mut self, chunks: Vec<Chunk>, out: &mut Vec<OutEvent>) {
        for mut chunk in chunks {
            let promoted = match &mut chunk {
                Chunk::Json(value) => {
                    if let Some(edit) = self.edit {
                        (edit.apply)(value);
                    }
                    self.promote.as_mut().and_then(|promote| promote.chunk(value))
                }
                Chunk::Done => self.promote.as_mut().and_then(PromoteStream::end),
                Chunk::Error(_) => {
                    self.failed = true;
                    None
                }
            };
            if let Some(value) = promoted {
                self.write(Chunk::Json(value), out);
            }
            self.write(chunk, out);
        }
    }

    fn write(&mut self, chunk: Chunk, out: &mut Vec<OutEvent>) {
        if let Some(client) = &mut self.client {
            let mut events = Vec::new();
            client.chunk(&chunk, &mut events);
            out.extend(events.into_iter().map(named));
            return;
        }
        let data = match chunk {
            Chunk::Json(value) | Chunk::Error(value) => OutData::Json(value),
            Chunk::Done => OutData::Done,
        };
        out.push(OutEvent { name: None, data });
    }
}

fn named(event: ClientEvent) -> OutEvent {
    OutEvent {
        name: Some(event.name),
        data: OutData::Json(event.data),
    }
}

/// A chunk of a vendor that speaks OpenAI; what is no JSON is dropped.
fn openai_chunk(data: &str) -> Option<Chunk> {
    if data.trim() == "[DONE]" {
        return Some(Chunk::Done);
    }
    let value: Value = serde_json::from_str(data).ok()?;
    Some(if value.get("error").is_some_and(|error| !error.is_null()) {
        Chunk::Error(value)
    } else {
        Chunk::Json(value)
    })
}
