//! A truncated answer never looks successful.
//!
//! Wraps `text/event-stream` answers: only whole events go out, and when the upstream fails in mid-stream the client
//! gets its dialect's error event instead of half an event, and no end marker. Other answers end in a reset.

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tollgate_base::{Error, Fault, Termination};
use tollgate_body::{Body, Response};
use tollgate_llm::dialect::{self, Dialect};
use tollgate_observe::Record;

use crate::reply;

/// Half an event is held back up to this size; a longer one is passed on in pieces.
const MAX_HELD_BACK: usize = 64 * 1024;

/// Guards a streamed answer.
pub(crate) fn guard(record: &Rc<Record>, response: &mut Response) {
    let headers = response.headers();
    let is_events = headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
    if !is_events || headers.contains_key(CONTENT_ENCODING) {
        return;
    }
    let Some(dialect) = reply::dialect_of(record) else {
        return;
    };
    let body = response.body_mut().take();
    *response.body_mut() = Body::boxed(Guarded {
        body: Some(body),
        record: record.clone(),
        dialect,
        held: BytesMut::new(),
        ready: VecDeque::new(),
    });
}

struct Guarded {
    /// `None` once the source has ended.
    body: Option<Body>,
    record: Rc<Record>,
    dialect: Dialect,
    /// The beginning of an event whose end has not come.
    held: BytesMut,
    ready: VecDeque<Frame<Bytes>>,
}

impl Guarded {
    /// Splits `data` behind the last whole event; keeps the rest.
    fn pass(&mut self, data: Bytes) -> Option<Bytes> {
        if self.held.is_empty() && ends_event(&data) {
            return Some(data);
        }
        self.held.extend_from_slice(&data);
        let whole = match last_event_end(&self.held) {
            Some(end) => end,
            None if self.held.len() > MAX_HELD_BACK => self.held.len(),
            None => return None,
        };
        Some(self.held.split_to(whole).freeze())
    }

    /// The source failed: say so, in a form that the client's SDK raises.
    fn fail(&mut self, failure: &Error) -> Frame<Bytes> {
        self.body = None;
        self.held.clear();
        note(&self.record, failure);
        Frame::data(dialect::stream_error_event(
            self.dialect,
            failure.message(),
            failure.reason(),
        ))
    }

    /// The source ended: what is held is not a whole event but all there is.
    fn end(&mut self) -> Option<Frame<Bytes>> {
        self.body = None;
        let rest = self.held.split().freeze();
        (!rest.is_empty()).then(|| Frame::data(rest))
    }
}

/// Notes a failure that came after the answer had begun.
pub(crate) fn note(record: &Record, failure: &Error) {
    if failure.timer().is_none() && failure.fault() == Fault::Upstream {
        record.terminate(Termination::UpstreamCut);
    }
    if failure.fault() == Fault::Client {
        record.terminate(Termination::ClientGone);
    }
    reply::note_failure(record, failure);
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(frame)));
            }
            let Some(body) = &mut self.body else {
                return Poll::Ready(None);
            };
            let outcome = ready!(Pin::new(body).poll_frame(context));
            match outcome {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        if let Some(whole) = self.pass(data) {
                            return Poll::Ready(Some(Ok(Frame::data(whole))));
                        }
                    }
                    Err(trailers) => self.ready.push_back(trailers),
                },
                Some(Err(failure)) => return Poll::Ready(Some(Ok(self.fail(&failure)))),
                None => return Poll::Ready(self.end().map(Ok)),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none() && self.ready.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Whether `data` ends with a blank line.
fn ends_event(data: &[u8]) -> bool {
    data.ends_with(b"\n\n") || data.ends_with(b"\r\n\r\n") || data.ends_with(b"\r\r")
}

/// Where the last whole event in `data` ends. A `\r\r` at the very end counts; its `\n` may follow as an empty rest.
fn last_event_end(data: &[u8]) -> Option<usize> {
    let mut end = data.len();
    while end > 0 {
        let at = memchr::memrchr2(b'\n', b'\r', &data[..end])?;
        if ends_event(&data[..=at]) {
            return Some(at + 1);
        }
        end = at;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_events_go_out_and_halves_stay() {
        assert_eq!(last_event_end(b"data: 1\n\ndata: 2"), Some(9));
        assert_eq!(last_event_end(b"data: 1\r\n\r\ndata"), Some(11));
        assert_eq!(last_event_end(b"data: 1\r\rdata: 2\r"), Some(9));
        assert_eq!(last_event_end(b"data: 1\n"), None);
        assert_eq!(last_event_end(b""), None);
    }
}
