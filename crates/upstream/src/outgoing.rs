//! The request as it leaves: target form, `Host`, and a body that tells how far it has come.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Uri, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tollgate_base::clock::{self, Instant};
use tollgate_base::{Error, Retry};
use tollgate_body::{Body, Request};

/// A request's body.
pub(crate) enum Source {
    /// All of it.
    Whole(Bytes),
    /// It comes from somewhere.
    Stream(Outgoing),
}

/// How far a request body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upload {
    /// It is the client's turn.
    Awaited,
    /// A piece was handed to the connection at that time, and more is to come.
    Handed(Instant),
    /// The last piece was handed over at that time.
    Done(Instant),
}

/// Shared between the body, which the connection owns, and whoever waits for the answer.
#[derive(Debug)]
pub(crate) struct Progress {
    upload: Cell<Upload>,
    /// The body's own failure, kept whole: hyper would pass on its text only.
    failure: RefCell<Option<Error>>,
}

impl Progress {
    pub(crate) fn upload(&self) -> Upload {
        self.upload.get()
    }

    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.failure.borrow_mut().take()
    }

    fn done(&self) {
        if !matches!(self.upload.get(), Upload::Done(_)) {
            self.upload.set(Upload::Done(clock::now()));
        }
    }
}

/// A request body on its way into a connection.
pub(crate) struct Outgoing {
    body: Body,
    /// `None` when all bytes are there already.
    progress: Option<Rc<Progress>>,
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let Some(progress) = &self.progress else {
            return polled;
        };
        match polled {
            Poll::Pending => {
                progress.upload.set(Upload::Awaited);
                Poll::Pending
            }
            Poll::Ready(None) => {
                progress.done();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => {
                if self.body.is_end_stream() {
                    progress.done();
                } else {
                    progress.upload.set(Upload::Handed(clock::now()));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let told = Error::gateway(error.status(), "request_body_failed", "request body failed");
                progress.failure.replace(Some(error.with_retry(Retry::No)));
                Poll::Ready(Some(Err(told)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            progress.done();
        }
    }
}

/// A request ready for a connection that hyper drives.
pub(crate) type Sendable = http::Request<Outgoing>;

/// Gets a request ready: its length agrees with its body, and a body that is at hand is bytes from here. The second
/// part is there when it still has to come from somewhere; the body itself is then taken out.
pub(crate) fn prepare(request: &mut Request) -> (Source, Option<Rc<Progress>>) {
    // A document with edits is written here, once, and not each time somebody asks for its length.
    let source = match request.body().known_bytes() {
        Some(bytes) => {
            *request.body_mut() = Body::bytes(bytes.clone());
            (Source::Whole(bytes), None)
        }
        None => {
            let progress = Rc::new(Progress {
                upload: Cell::new(Upload::Awaited),
                failure: RefCell::default(),
            });
            let body = request.body_mut().take();
            let outgoing = Outgoing {
                body,
                progress: Some(Rc::clone(&progress)),
            };
            (Source::Stream(outgoing), Some(progress))
        }
    };
    let exact = match &source.0 {
        Source::Whole(bytes) => Some(bytes.len() as u64),
        Source::Stream(outgoing) => outgoing.size_hint().exact(),
    };
    agree_on_length(request.headers_mut(), exact);
    source
}

/// The request once more, as long as its body is at hand.
pub(crate) fn once_more(request: &Request) -> Option<Source> {
    request.body().known_bytes().map(Source::Whole)
}

/// A `content-length` that contradicts the body would frame the request wrongly: the body is right.
fn agree_on_length(headers: &mut HeaderMap, exact: Option<u64>) {
    let Some(exact) = exact else {
        return;
    };
    let Some(said) = headers.get(CONTENT_LENGTH) else {
        return;
    };
    let agrees = std::str::from_utf8(said.as_bytes())
        .ok()
        .and_then(|text| text.parse().ok())
        == Some(exact);
    if !agrees {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(exact));
    }
}

/// As hyper sends it.
pub(crate) fn sendable(request: &Request, source: Source) -> Sendable {
    let outgoing = match source {
        Source::Stream(outgoing) => outgoing,
        Source::Whole(bytes) => Outgoing {
            body: Body::bytes(bytes),
            progress: None,
        },
    };
    let mut sendable = http::Request::new(outgoing);
    *sendable.method_mut() = request.method().clone();
    *sendable.uri_mut() = request.uri().clone();
    *sendable.headers_mut() = request.headers().clone();
    sendable
}

/// HTTP/1.1: origin form, `Host` from the authority.
pub(crate) fn to_http1(request: &mut Sendable) {
    *request.version_mut() = Version::HTTP_11;
    if let Some(authority) = request.uri().authority() {
        let host = HeaderValue::from_str(authority.as_str());
        if let Ok(value) = host {
            request.headers_mut().insert(HOST, value);
        }
    }
    if request.method() == Method::CONNECT {
        return;
    }
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
}

/// HTTP/2: absolute form, no `Host`.
pub(crate) fn to_http2(request: &mut Sendable, tls: bool) {
    *request.version_mut() = Version::HTTP_2;
    let host = request.headers_mut().remove(HOST);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    if parts.authority.is_none() {
        parts.authority = host.and_then(|value| value.as_bytes().try_into().ok());
    }
    if request.method() != Method::CONNECT {
        parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
        if parts.path_and_query.is_none() {
            parts.path_and_query = Some(PathAndQuery::from_static("/"));
        }
    }
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
}
