//! Spans of what a request sends on: upstream attempts and call-outs of plugins. Nothing is done while tracing is off.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tollgate_base::Error;
use tollgate_body::{Body, Request, Response, Source};
use tollgate_observe::trace::{Kind, OpenSpan, Slot};

/// Opens a span for a request that is about to be sent, and has its headers say so.
pub(crate) fn open(trace: &Slot, kind: Kind, cluster: &str, request: &mut Request) -> Option<OpenSpan> {
    let uri = request.uri();
    let host = || request.headers().get(http::header::HOST)?.to_str().ok();
    let authority = uri.authority().map(|authority| authority.as_str()).or_else(host);
    let mut span = trace.open(kind, cluster, authority.unwrap_or_default())?;
    if span.is_recorded() {
        span.set("http.method", request.method().as_str().to_owned());
        span.set("http.request.method", request.method().as_str().to_owned());
        span.set("server.address", uri.host().unwrap_or_default().to_owned());
        span.set("url.path", uri.path().to_owned());
    }
    span.inject(request.headers_mut());
    Some(span)
}

/// Ends the span with the answer: at once if it is whole or a failure, else with its body.
pub(crate) fn close(span: Option<OpenSpan>, outcome: Result<Response, Error>) -> Result<Response, Error> {
    let Some(mut span) = span.filter(OpenSpan::is_recorded) else {
        return outcome;
    };
    match outcome {
        Err(failure) => {
            span.failed(&failure);
            Err(failure)
        }
        Ok(response) => {
            span.answered(response.status().as_u16());
            if response.body().known_bytes().is_some() {
                return Ok(response);
            }
            Ok(response.map(|inner| {
                Body::source(Traced {
                    inner,
                    span: Some(span),
                })
            }))
        }
    }
}

/// A body that ends a span.
struct Traced {
    inner: Body,
    span: Option<OpenSpan>,
}

impl HttpBody for Traced {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        match &polled {
            Poll::Ready(None) => drop(self.span.take()),
            Poll::Ready(Some(Err(failure))) => {
                if let Some(mut span) = self.span.take() {
                    span.failed(failure);
                }
            }
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Source for Traced {
    fn is_dry(&mut self, context: &mut Context<'_>) -> bool {
        self.inner.is_dry(context)
    }
}
