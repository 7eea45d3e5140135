//! The answer on its way to the client (spec §3.3–3.5): untouched unless the dialects differ.
//!
//! Only a 200 of the vendor is translated; any other status keeps its body, whatever dialect it is in.

use std::rc::Rc;

use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body::Body as _;
use tollgate_base::{Error, Flag, Termination};
use tollgate_body::coding::{Decoded, Decoder};
use tollgate_body::{Body, EventMap, Events, Response, SseEvent};
use tollgate_llm::providers::Provider;
use tollgate_llm::providers::wire::Ended;
use tollgate_llm::translate::{AnswerFault, AnswerPlan, OutData, OutEvent, StreamTranslator};
use tollgate_observe::Record;
use tollgate_plugin::Exchange;

use super::request::Answerable;
use super::{BODY_LIMIT, BODY_LIMIT_NAME, reply};

/// What becomes of an answer.
pub(super) enum Treated {
    /// It goes on as it is now.
    Done(Response),
    /// It has to be read before it can be translated.
    Unread(Unread),
}

/// An answer that is translated as a whole.
pub(super) struct Unread {
    plan: AnswerPlan,
    response: Response,
}

/// Translates the answer where it has to be.
pub(super) fn respond(
    exchange: &Exchange,
    provider: &Provider,
    request: Answerable,
    response: Response,
) -> Treated {
    let Some(plan) = request.plan else {
        return Treated::Done(response);
    };
    if !request.from_upstream || response.status() != StatusCode::OK {
        return Treated::Done(response);
    }
    let streamed = is_event_stream(&response);
    let is_touched = match streamed {
        true => plan.touches_stream(provider),
        false => plan.touches_answer(provider),
    };
    if !is_touched {
        // Whether a stream ends as it should is seen where the answer leaves the gateway.
        return Treated::Done(response);
    }
    let response = without_coding(response);
    if let Some(coding) = response.headers().get(CONTENT_ENCODING) {
        let text = format!("failed to process response body: its content-encoding {coding:?} is not known");
        exchange.record.terminate(Termination::UpstreamError);
        return Treated::Done(reply::failed(exchange, "ai-proxy.proc_resp_body_failed", text));
    }
    match streamed {
        true => Treated::Done(translate_stream(exchange, provider, &plan, response)),
        false => Treated::Unread(Unread { plan, response }),
    }
}

/// The answer in plain bytes, though the vendor was asked for no coding; one that is not known stays.
fn without_coding(mut response: Response) -> Response {
    if response.body().is_end_stream() {
        return response;
    }
    let headers = response.headers_mut();
    let coding = headers
        .get(CONTENT_ENCODING)
        .and_then(|value| value.to_str().ok());
    let decoder = match coding.map(str::trim) {
        None => return response,
        Some(coding) if coding.eq_ignore_ascii_case("identity") => None,
        Some(coding) => match Decoder::of(coding) {
            None => return response,
            decoder => decoder,
        },
    };
    headers.remove(CONTENT_ENCODING);
    let Some(decoder) = decoder else {
        return response;
    };
    headers.remove(CONTENT_LENGTH);
    response.map(|body| Body::boxed(Decoded::new(body, decoder)))
}

fn is_event_stream(response: &Response) -> bool {
    response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}

impl Unread {
    /// The answer as the client understands it.
    pub(super) async fn translated(
        self,
        exchange: &Exchange,
        provider: &Provider,
    ) -> Result<Response, Error> {
        let Unread { plan, mut response } = self;
        let read = response.body_mut().buffer(BODY_LIMIT_NAME, BODY_LIMIT).await;
        let answer = read.map_err(|error| match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Error::upstream(
                StatusCode::BAD_GATEWAY,
                "response_payload_too_large",
                error.message().to_owned(),
            ),
            _ => error,
        })?;
        let fault = match plan.answer(provider, &answer) {
            Ok(None) => return Ok(response),
            Ok(Some(translated)) => {
                response.headers_mut().remove(CONTENT_LENGTH);
                *response.body_mut() = Body::bytes(translated);
                return Ok(response);
            }
            Err(fault) => fault,
        };
        exchange.record.terminate(Termination::UpstreamError);
        Ok(match fault {
            AnswerFault::Vendor(text) => {
                let text = format!("failed to process response body: {text}");
                reply::failed(exchange, "ai-proxy.proc_resp_body_failed", text)
            }
            AnswerFault::Client(text) => {
                let text = format!("failed to convert response to claude format: {text}");
                reply::failed(exchange, "ai-proxy.convert_resp_to_claude_failed", text)
            }
        })
    }
}

fn translate_stream(
    exchange: &Exchange,
    provider: &Provider,
    plan: &AnswerPlan,
    mut response: Response,
) -> Response {
    response.headers_mut().remove(CONTENT_LENGTH);
    let map = Translate {
        translator: plan.stream(provider),
        record: exchange.record.clone(),
        out: Vec::new(),
    };
    response.map(|body| Body::events(body.into_events().map_with(map)))
}

/// The translator as a step of an event stream.
struct Translate {
    translator: StreamTranslator,
    record: Rc<Record>,
    out: Vec<OutEvent>,
}

impl EventMap for Translate {
    fn event(&mut self, event: SseEvent) -> Result<Events, Error> {
        let Some(data) = event.data() else {
            // A comment keeps connections alive in every dialect; other fields belong to the vendor's.
            let is_comment =
                event.event().is_none() && event.id().is_none() && event.comments().next().is_some();
            return Ok(is_comment.then_some(event).into_iter().collect());
        };
        let name = event.event().unwrap_or_default();
        if self.translator.leaves_alone(&data) {
            return Ok(std::iter::once(event).collect());
        }
        self.translator.event(name, &data, &mut self.out);
        if self.translator.failed() {
            self.record.terminate(Termination::UpstreamError);
        }
        Ok(self.out.drain(..).map(sse).collect())
    }

    fn finish(&mut self) -> Result<Events, Error> {
        match self.translator.end(&mut self.out) {
            Ended::Whole => Ok(self.out.drain(..).map(sse).collect()),
            Ended::Truncated => Err(Error::upstream(
                StatusCode::BAD_GATEWAY,
                "upstream_cut",
                "upstream ended the answer before its end",
            )
            .with_flag(Flag::UpstreamCut)),
        }
    }
}

fn sse(event: OutEvent) -> SseEvent {
    match (event.name, event.data) {
        (Some(name), OutData::Json(value)) => SseEvent::named_json(name, value),
        (None, OutData::Json(value)) => SseEvent::from_json(value),
        (_, OutData::Done) => SseEvent::done(),
    }
}
