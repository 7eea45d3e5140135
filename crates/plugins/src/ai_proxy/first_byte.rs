//! `firstByteTimeout`: how long a vendor may take to the first byte of its answer's body (spec §10.6).
//!
//! Higress sends a header that its Envoy understands; here the plugin holds the timer itself.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Sleep, sleep_until};
use tollgate_base::{Error, Timer, clock};
use tollgate_body::{Body, Request, Response};
use tollgate_plugin::{Exchange, Next};

/// Runs the rest of the chain; the answer's first byte has to come within `limit`.
pub(super) async fn send(
    exchange: &mut Exchange,
    request: Request,
    next: Next<'_>,
    limit: Option<Duration>,
) -> Result<Response, Error> {
    let Some(limit) = limit else {
        return next.run(exchange, request).await;
    };
    let deadline = clock::now() + limit;
    let answer = tokio::time::timeout_at(deadline, next.run(exchange, request));
    let response = answer.await.map_err(|_| Error::timeout(Timer::FirstEvent))??;
    Ok(response.map(|body| {
        if body.is_end_stream() || body.as_bytes().is_some() {
            return body;
        }
        Body::boxed(FirstByte {
            body,
            timer: Some(Box::pin(sleep_until(deadline))),
        })
    }))
}

/// A body whose first frame has a deadline.
struct FirstByte {
    body: Body,
    /// `None` once the first frame has come.
    timer: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for FirstByte {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.timer = None;
            return Poll::Ready(frame);
        }
        if let Some(timer) = &mut self.timer
            && timer.as_mut().poll(context).is_ready()
        {
            self.timer = None;
            self.body = Body::empty();
            return Poll::Ready(Some(Err(Error::timeout(Timer::FirstEvent))));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
