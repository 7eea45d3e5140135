//! The answer on its way to the client: its head and what is ready of its body in one write, the rest as it comes.
//!
//! What ends too early is never ended in good order: no last chunk, no missing bytes made up, a reset where the
//! connection's end would be the body's.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Response, StatusCode, Version, response};
use http_body::{Body as HttpBody, Frame};
use hyper::ext::ReasonPhrase;
use tollgate_base::Error;
use tollgate_body::Source;
use tollgate_body::http1::{Outbound, Output, digits, room, write_field, write_number};

use super::date;
use super::wire::Wire;
use crate::account::Delivery;

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// All of it was written.
    Whole,
    /// Its body failed; the connection must not look as if it had not.
    Cut,
    /// The client is gone.
    Gone,
}

/// What an answer needs to know of its request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    is_head: bool,
    pub(super) version: Version,
    /// The connection goes on afterwards.
    pub(super) persistent: bool,
}

impl Asked {
    /// What follows a refused `CONNECT` may be anything.
    pub(super) fn by(method: &Method, version: Version, persistent: bool) -> Self {
        Self {
            is_head: *method == Method::HEAD,
            version,
            persistent: persistent && *method != Method::CONNECT,
        }
    }
}

/// An answer under way.
pub(super) struct Answer {
    output: Output,
    /// Settles the exchange when it is dropped; `None` afterwards.
    body: Option<Delivery>,
    state: State,
    framing: Outbound,
    persistent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There is more of the body.
    Open,
    /// All of it has been taken.
    Taken,
    /// It failed.
    Failed,
}

impl Answer {
    pub(super) fn new(response: Response<Delivery>, asked: Asked) -> Self {
        let (head, body) = response.into_parts();
        let has_body = !asked.is_head && may_have_body(head.status);
        let framing = match has_body {
            true => framing(&head.headers, &body, asked.version),
            false => Outbound::Length(0),
        };
        let length = match framing {
            Outbound::Length(length) if has_body => Some(length),
            Outbound::Length(_) => bodiless_length(&head, &body, asked.is_head),
            Outbound::Chunked | Outbound::UntilClose => None,
        };
        let may_persist = asked.persistent && framing != Outbound::UntilClose;
        let (out, persistent) = write_head(&head, asked.version, framing, length, may_persist);
        Self {
            output: Output::new(out, Bytes::new(), framing),
            body: Some(body),
            state: if has_body { State::Open } else { State::Taken },
            framing,
            persistent,
        }
    }

    /// Whether the connection may go on behind it.
    pub(super) fn is_persistent(&self) -> bool {
        self.persistent
    }

    /// Whether a cut is told by a reset only.
    pub(super) fn ends_with_connection(&self) -> bool {
        self.framing == Outbound::UntilClose
    }

    /// Writes on until it is out, broken or pointless.
    pub(super) fn poll(&mut self, wire: &Wire, context: &mut Context<'_>) -> Poll<Ended> {
        loop {
            let is_waiting = self.gather(context);
            if self.state != State::Open && ready!(self.poll_settle(wire, context)).is_err() {
                return Poll::Ready(self.abandon());
            }
            if ready!(wire.poll_write(&mut self.output, context)).is_err() {
                return Poll::Ready(self.abandon());
            }
            let flushed = wire.poll_flush(context);
            if matches!(flushed, Poll::Ready(Err(_))) {
                return Poll::Ready(self.abandon());
            }
            match self.state {
                State::Failed => return Poll::Ready(Ended::Cut),
                State::Taken => return flushed.map(|_| Ended::Whole),
                State::Open if is_waiting => {
                    ready!(wire.poll_gone(context));
                    return Poll::Ready(Ended::Gone);
                }
                State::Open => {}
            }
        }
    }

    /// Whoever sees the end finds it accounted for: the last bytes go out behind the settlement. What is more than
    /// certainly fits into the socket goes out before, since the client may not take it.
    fn poll_settle(&mut self, wire: &Wire, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.body.is_some() {
            while !self.output.has_room() {
                ready!(wire.poll_write_some(&mut self.output, context))?;
            }
            self.body = None;
        }
        Poll::Ready(Ok(()))
    }

    fn abandon(&mut self) -> Ended {
        if let Some(body) = &mut self.body {
            body.abandon();
        }
        Ended::Gone
    }

    /// Takes frames while they are ready and there is room; whether the body has to be waited for.
    fn gather(&mut self, context: &mut Context<'_>) -> bool {
        while self.state == State::Open && self.output.has_room() {
            let Some(body) = &mut self.body else {
                return false;
            };
            match Pin::new(body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.take(frame);
                    if self.state == State::Open && self.is_dry(context) {
                        return true;
                    }
                }
                // The account has noted it.
                Poll::Ready(Some(Err(_))) => self.state = State::Failed,
                Poll::Ready(None) => self.end(None),
                Poll::Pending => return true,
            }
        }
        false
    }

    fn is_dry(&mut self, context: &mut Context<'_>) -> bool {
        self.body.as_mut().is_some_and(|body| body.is_dry(context))
    }

    fn take(&mut self, frame: Frame<Bytes>) {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(other) => return self.end(other.into_trailers().ok().as_ref()),
        };
        let is_last = self.body.as_ref().is_none_or(HttpBody::is_end_stream);
        let outcome = self.output.push(data, is_last);
        self.note(outcome.is_ok(), is_last);
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) {
        let outcome = self.output.end(trailers);
        self.note(outcome.is_ok(), true);
    }

    fn note(&mut self, is_as_announced: bool, is_last: bool) {
        if !is_as_announced {
            self.state = State::Failed;
            if let Some(body) = &mut self.body {
                body.fail(&Error::gateway(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "response_length_mismatch",
                    "the answer is not as long as its content-length",
                ));
            }
        } else if is_last {
            self.state = State::Taken;
        }
    }
}

fn may_have_body(status: StatusCode) -> bool {
    !status.is_informational() && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// A body that knows its length says so; else the head's word is taken, if it is one.
fn framing(headers: &HeaderMap, body: &Delivery, version: Version) -> Outbound {
    match body.size_hint().exact().or_else(|| said_length(headers)) {
        Some(length) => Outbound::Length(length),
        None if version == Version::HTTP_10 => Outbound::UntilClose,
        None => Outbound::Chunked,
    }
}

fn said_length(headers: &HeaderMap) -> Option<u64> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let length = digits(values.next()?.as_bytes())?;
    values.next().is_none().then_some(length)
}

/// What a head without a body says of the body that another request would get (RFC 9110 §8.6).
fn bodiless_length(head: &response::Parts, body: &Delivery, is_head: bool) -> Option<u64> {
    if !is_head && head.status != StatusCode::NOT_MODIFIED || head.status == StatusCode::NO_CONTENT {
        return None;
    }
    said_length(&head.headers).or_else(|| body.size_hint().exact().filter(|length| *length > 0))
}

/// The head, and whether the connection goes on behind it.
fn write_head(
    head: &response::Parts,
    version: Version,
    framing: Outbound,
    length: Option<u64>,
    mut persistent: bool,
) -> (Vec<u8>, bool) {
    let mut out = room();
    write_status(&mut out, head, version);
    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let mut is_dated = false;
    for (name, value) in &head.headers {
        if name == CONTENT_LENGTH || name == TRANSFER_ENCODING {
            continue;
        }
        if name == CONNECTION && !switches {
            let mut options = value.as_bytes().split(|byte| *byte == b',');
            persistent &= !options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"));
            continue;
        }
        is_dated |= name == DATE;
        write_field(&mut out, name.as_str(), value.as_bytes());
    }
    if framing == Outbound::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    } else if let Some(length) = length {
        out.extend_from_slice(b"content-length: ");
        write_number(&mut out, length);
        out.extend_from_slice(b"\r\n");
    }
    if !is_dated {
        date::with_now(|now| write_field(&mut out, "date", now));
    }
    match (persistent, version) {
        _ if switches => {}
        (true, Version::HTTP_10) => write_field(&mut out, "connection", b"keep-alive"),
        (true, _) => {}
        (false, _) => write_field(&mut out, "connection", b"close"),
    }
    out.extend_from_slice(b"\r\n");
    (out, persistent)
}

fn write_status(out: &mut Vec<u8>, head: &response::Parts, version: Version) {
    let start: &[u8] = match version {
        Version::HTTP_10 => b"HTTP/1.0 ",
        _ => b"HTTP/1.1 ",
    };
    out.extend_from_slice(start);
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    let reason = match head.extensions.get::<ReasonPhrase>() {
        Some(reason) => reason.as_bytes(),
        None => head.status.canonical_reason().unwrap_or_default().as_bytes(),
    };
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}
