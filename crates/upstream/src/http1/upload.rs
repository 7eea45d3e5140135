//! The request on its way out: its head and what is at hand of its body in one write, the rest as it comes.

use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Uri};
use http_body::{Body as HttpBody, Frame};
use tokio::io::AsyncWrite;
use tollgate_body::Request;

use super::decoder::may_trail;
use crate::outgoing::Outgoing;
use crate::stream::Stream;

/// Ends a chunk.
const CHUNK_END: &[u8] = b"\r\n";
/// Ends the last chunk and the body.
const LAST_END: &[u8] = b"\r\n0\r\n\r\n";

/// A request's body.
pub(crate) enum Source {
    /// All of it.
    Whole(Bytes),
    /// It comes from somewhere.
    Stream(Outgoing),
}

/// How a request's body tells its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
}

/// Why a request cannot go on.
pub(super) enum Stopped {
    /// The connection does not take it.
    Connection(io::Error),
    /// Its own body failed, or is not as long as it said.
    Body(&'static str),
}

/// A request under way.
pub(super) struct Upload {
    /// The head, then the size line of each chunk.
    before: Vec<u8>,
    written: usize,
    data: Bytes,
    behind: &'static [u8],
    /// `None` once all of it has been taken.
    body: Option<Outgoing>,
    framing: Framing,
    /// Something of it went out.
    pub(super) has_begun: bool,
}

impl Upload {
    pub(super) fn new(request: &Request, source: Source) -> Self {
        let (data, body, framing) = match source {
            Source::Whole(bytes) => (bytes, None, Framing::Length(0)),
            Source::Stream(outgoing) => {
                let framing = framing(&outgoing, request.headers());
                (Bytes::new(), Some(outgoing), framing)
            }
        };
        // An empty body goes as its head says; one with bytes always says how many.
        let length = match framing {
            Framing::Chunked => None,
            Framing::Length(left) => Some(left + data.len() as u64).filter(|length| *length > 0),
        };
        Self {
            before: head(request, length, framing == Framing::Chunked),
            written: 0,
            data,
            behind: b"",
            body,
            framing,
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
            while self.has_output() {
                ready!(self.poll_write(stream, context)).map_err(Stopped::Connection)?;
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

    fn has_output(&self) -> bool {
        self.written < self.before.len() || !self.data.is_empty() || !self.behind.is_empty()
    }

    fn poll_write(&mut self, stream: &mut Stream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let before = self.before.get(self.written..).unwrap_or_default();
        let slices = [
            IoSlice::new(before),
            IoSlice::new(&self.data),
            IoSlice::new(self.behind),
        ];
        let mut count = ready!(Pin::new(stream).poll_write_vectored(context, &slices))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.has_begun = true;
        let of_before = count.min(before.len());
        self.written += of_before;
        count -= of_before;
        let of_data = count.min(self.data.len());
        self.data.advance(of_data);
        count -= of_data;
        self.behind = self.behind.get(count..).unwrap_or_default();
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<(), Stopped> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(other) => return self.end(other.into_trailers().ok()),
        };
        let is_last = self.body.as_ref().is_none_or(HttpBody::is_end_stream);
        self.before.clear();
        self.written = 0;
        match &mut self.framing {
            Framing::Length(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or(Stopped::Body("request body is longer than its content-length"))?;
                self.data = data;
            }
            Framing::Chunked if data.is_empty() => {}
            Framing::Chunked => {
                // Writing into memory does not fail.
                let _ = write!(self.before, "{:x}\r\n", data.len());
                self.data = data;
                if is_last {
                    self.behind = LAST_END;
                    self.body = None;
                    return Ok(());
                }
                self.behind = CHUNK_END;
            }
        }
        match is_last {
            true => self.end(None),
            false => Ok(()),
        }
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Stopped> {
        self.body = None;
        match self.framing {
            Framing::Length(0) => Ok(()),
            Framing::Length(_) => Err(Stopped::Body("request body is shorter than its content-length")),
            Framing::Chunked => {
                self.before.clear();
                self.written = 0;
                self.before.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.iter().flatten().filter(|(name, _)| may_trail(name)) {
                    write_field(&mut self.before, name.as_str(), value.as_bytes());
                }
                self.before.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }
}

/// A body that knows its length says so; else the head's word is taken, if it is one.
fn framing(body: &Outgoing, headers: &HeaderMap) -> Framing {
    let mut said = headers.get_all(CONTENT_LENGTH).iter();
    let promised = match (said.next(), said.next()) {
        (Some(value), None) => value.to_str().ok().and_then(|text| text.parse().ok()),
        _ => None,
    };
    let exact = body.size_hint().exact().or(promised);
    exact.map_or(Framing::Chunked, Framing::Length)
}

/// The head in origin form, `Host` made from the authority (RFC 9112 §3.2).
fn head(request: &Request, length: Option<u64>, is_chunked: bool) -> Vec<u8> {
    let (uri, headers) = (request.uri(), request.headers());
    let method = request.method().as_str();
    let target = target(uri, request.method());
    let authority = uri.authority().map(|authority| authority.as_str());
    let fields: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    let size = method.len() + target.len() + authority.map_or(0, str::len) + fields + 80;
    let mut out = Vec::with_capacity(size);
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
        // Writing into memory does not fail.
        let _ = write!(out, "content-length: {length}\r\n");
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

fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
