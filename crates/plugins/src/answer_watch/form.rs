//! How an answer is put together, and so how it is read while it passes: whole, as events, or as a growing array.
//!
//! Called by `observe`. A compressed answer is read beside the bytes that pass; whatever the form, nothing is held back.

use bytes::Bytes;
use tollgate_body::coding::Unpacked;
use tollgate_body::{Body, Items, Look, SseDecoder, SseEvent};
use tollgate_llm::Api;
use tollgate_observe::Record;

use super::Observer;

/// How an answer is put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Form {
    /// One text.
    #[default]
    Plain,
    /// Server-sent events.
    Events,
    /// A JSON array that grows by an element at a time.
    Items,
}

impl Form {
    /// As the head tells, and what was asked for. An error is one text, whatever it was asked for as.
    pub(super) fn of(record: &Record, content_type: &str, is_good: bool) -> Self {
        if begins_with(content_type, "text/event-stream") {
            return Self::Events;
        }
        let may_grow = is_good && begins_with(content_type, "application/json");
        match may_grow && Api::streams_an_array(record.original.path.path()) {
            true => Self::Items,
            false => Self::Plain,
        }
    }
}

fn begins_with(content_type: &str, name: &str) -> bool {
    let start = content_type.as_bytes().get(..name.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
}

/// The body, shown to `observer` from now on; one of a coding that nobody reads passes unseen.
pub(super) fn show(body: Body, form: Form, coding: &str, observer: impl Observer + 'static) -> Body {
    if coding.is_empty() || coding.eq_ignore_ascii_case("identity") {
        return show_plain(body, form, observer);
    }
    match Unpacked::of(coding) {
        Some(unpacked) => body.observe(Packed {
            unpacked,
            reader: Reader::of(form),
            observer,
        }),
        None => body,
    }
}

fn show_plain(body: Body, form: Form, observer: impl Observer + 'static) -> Body {
    if form == Form::Events {
        return body.observe_events(move |data| observer.event(data));
    }
    let mut reader = Reader::of(form);
    // Whole already, as after a translation: it stays what it is for the plugins further out.
    if let Some(whole) = body.known_bytes() {
        reader.read(&whole, &observer);
        return body;
    }
    body.observe_data(move |data| reader.read(data, &observer))
}

/// Shows what comes out of a compressed answer.
struct Packed<O> {
    unpacked: Unpacked,
    reader: Reader,
    observer: O,
}

impl<O: Observer> Look for Packed<O> {
    fn data(&mut self, data: &Bytes) {
        let (reader, observer) = (&mut self.reader, &self.observer);
        self.unpacked.frame(data, |plain| reader.read(&plain, observer));
    }

    fn end(&mut self) {
        // Where unpacking stopped half-way, so did the event.
        if self.unpacked.is_readable() {
            self.reader.end(&self.observer);
        }
    }
}

/// Cuts plain bytes into what an observer is shown.
enum Reader {
    Plain,
    /// `None` once there is nothing more to see.
    Events(Option<SseDecoder>),
    Items(Items),
}

impl Reader {
    fn of(form: Form) -> Self {
        match form {
            Form::Plain => Self::Plain,
            Form::Events => Self::Events(Some(SseDecoder::new())),
            Form::Items => Self::Items(Items::default()),
        }
    }

    fn read(&mut self, plain: &Bytes, observer: &impl Observer) {
        match self {
            Self::Plain => observer.frame(plain),
            Self::Items(items) => items.push(plain, |item| observer.event(item)),
            Self::Events(decoder) => {
                let Some(open) = decoder else { return };
                let mut is_over = false;
                for event in open.push(plain.clone()) {
                    match event {
                        Ok(event) => show_event(&event, observer),
                        Err(_) => is_over = true,
                    }
                }
                if is_over {
                    *decoder = None;
                }
            }
        }
    }

    /// The answer ended; its last event may lack its blank line.
    fn end(&mut self, observer: &impl Observer) {
        if let Self::Events(decoder) = self
            && let Some(mut decoder) = decoder.take()
            && let Some(last) = decoder.finish()
        {
            show_event(&last, observer);
        }
    }
}

fn show_event(event: &SseEvent, observer: &impl Observer) {
    if let Some(data) = event.data_slice() {
        observer.event(&data);
    }
}
