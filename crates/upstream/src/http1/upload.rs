//! The request on its way out: its head and what is at hand of its body in one write, the rest as it comes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Uri};
use http_body::{Body as HttpBody, Frame};
use tokio::io::AsyncWrite;
use tollgate_body::Request;
use tollgate_body::http1::{Misfit, Outbound, Output, room, write_field, write_number};

use crate::outgoing::{Outgoing, Source};
use crate::stream::Stream;

/// Why a request cannot go on.
pub(super) enum Stopped {
    /// The connection does not take it.
    Connection(io::Error),
    /// Its own body failed, or is not as long as it said.
    Body(&'static str),
}

impl From<Misfit> for Stopped {
    fn from(misfit: Misfit) -> Self {
        Stopped::Body(match misfit {
            Misfit::Longer => "request body is longer than its content-length",
            Misfit::Shorter => "request body is shorter than its content-length",
        })
    }
}

/// A request under way.
pub(super) struct Upload {
    output: Output,
    /// `None` once all of it has been taken.
    body: Option<Outgoing>,
    /// Something of it went out.
    pub(super) has_begun: bool,
}

impl Upload {
    pub(super) fn new(request: &Request, source: Source) -> Self {
        let (data, body, framing) = match source {
            Source::Whole(bytes) => (bytes, None, Outbound::Length(0)),
            Source::Stream(outgoing) => {
                let framing = framing(&outgoing, request.headers());
                (Bytes::new(), Some(outgoing), framing)
            }
        };
        // An empty body goes as its head says; one with bytes always says how many.
        let length = match framing {
            Outbound::Length(left) => Some(left + data.len() as u64).filter(|length| *length > 0),
            Outbound::Chunked | Outbound::UntilClose => None,
        };
        let head = head(request, length, framing == Outbound::Chunked);
        Self {
            output: Output::new(head, data, framing),
            body,
            has_begun: false,
        }
    }

    /// Ready once everything is written and flushed.
    pub(super) fn poll(
        &mut self,
        stream: &mut Stream,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Stopped>> {
        loop {
            while !self.output.is_empty() {
                ready!(self.output.poll_write(stream, context)).map_err(Stopped::Connection)?;
                self.has_begun = true;
            }
            let Some(body) = &mut self.body else {
                return Pin::new(stream).poll_flush(context).map_err(Stopped::Connection);
            };
            match Pin::new(body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => self.take(frame)?,
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(Stopped::Body("request body failed"))),
                Poll::Ready(None) => self.end(None)?,
                Poll::Pending => {
                    if let Poll::Ready(Err(cause)) = Pin::new(stream).poll_flush(context) {
                        return Poll::Ready(Err(Stopped::Connection(cause)));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<(), Stopped> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(other) => return self.end(other.into_trailers().ok().as_ref()),
        };
        let is_last = self.body.as_ref().is_none_or(HttpBody::is_end_stream);
        if is_last {
            self.body = None;
        }
        Ok(self.output.push(data, is_last)?)
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Stopped> {
        self.body = None;
        Ok(self.output.end(trailers)?)
    }
}

/// A body that knows its length says so; else the head's word is taken, if it is one.
fn framing(body: &Outgoing, headers: &HeaderMap) -> Outbound {
    let mut said = headers.get_all(CONTENT_LENGTH).iter();
    let promised = match (said.next(), said.next()) {
        (Some(value), None) => value.to_str().ok().and_then(|text| text.parse().ok()),
        _ => None,
    };
    let exact = body.size_hint().exact().or(promised);
    exact.map_or(Outbound::Chunked, Outbound::Length)
}
/// The head in origin form, `Host` made from the authority (RFC 9112 §3.2).
fn head(request: &Request, length: Option<u64>, is_chunked: bool) -> Vec<u8> {
    let (uri, headers) = (request.uri(), request.headers());
    let method = request.method().as_str();
    let target = target(uri, request.method());
    let authority = uri.authority().map(|authority| authority.as_str());
    let mut out = room();
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(host) = authority {
        write_field(&mut out, "host", host.as_bytes());
    }
    for (name, value) in headers {
        let is_ours = (name == HOST && authority.is_some())
            || name == TRANSFER_ENCODING
            || (name == CONTENT_LENGTH && (is_chunked || length.is_some()));
        if !is_ours {
            write_field(&mut out, name.as_str(), value.as_bytes());
        }
    }
    if is_chunked {
        write_field(&mut out, "transfer-encoding", b"chunked");
    } else if let Some(length) = length {
        out.extend_from_slice(b"content-length: ");
        write_number(&mut out, length);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn target<'a>(uri: &'a Uri, method: &Method) -> &'a str {
    if *method == Method::CONNECT
        && let Some(authority) = uri.authority()
    {
        return authority.as_str();
    }
    match uri.path_and_query().map_or("/", PathAndQuery::as_str) {
        "" => "/",
        path => path,
    }
}
