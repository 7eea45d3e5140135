//! A client's body as it is read: its bytes are counted, and a client that stops sending is not waited for.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep_until};
use tollgate_base::clock::{self, Instant};
use tollgate_base::{Error, Flag};
use tollgate_body::{Body, Side};
use tollgate_observe::Record;

use crate::http1::ClientBody;

/// A request's body as it comes off its connection.
pub(crate) enum Arriving {
    /// All of it is here.
    Whole(Bytes),
    /// It is read from an HTTP/1 connection.
    Http1(ClientBody),
    /// It is a stream of an HTTP/2 connection.
    Http2(Incoming),
}

/// The client's body, counted into the record; `patience` is the longest silence before an answer has begun, zero is
/// for ever.
pub(crate) fn client_body(arriving: Arriving, record: &Rc<Record>, patience: Duration) -> Body {
    match arriving {
        Arriving::Whole(bytes) => {
            record.bytes_received.set(bytes.len() as u64);
            Body::bytes(bytes)
        }
        Arriving::Http1(body) => Body::boxed(metered(body, record.clone(), patience)),
        Arriving::Http2(incoming) if incoming.is_end_stream() => Body::empty(),
        Arriving::Http2(incoming) => {
            let body = Body::network(incoming, Side::Client);
            Body::boxed(metered(body, record.clone(), patience))
        }
    }
}

fn metered<B>(body: B, record: Rc<Record>, patience: Duration) -> Metered<B> {
    Metered {
        body: Some(body),
        record,
        patience,
        waiting_since: None,
        alarm: None,
    }
}

struct Metered<B> {
    /// `None` once it is given up.
    body: Option<B>,
    record: Rc<Record>,
    patience: Duration,
    waiting_since: Option<Instant>,
    /// Made at the first wait and moved only when it fires.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<B> Metered<B> {
    /// Ready when the client has been silent for too long.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.patience.is_zero() {
            return Poll::Pending;
        }
        let deadline = *self.waiting_since.get_or_insert_with(clock::now) + self.patience;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        loop {
            ready!(alarm.as_mut().poll(context));
            // Once an answer is under way, either side may be silent for as long as the other talks.
            let is_answered = self.record.status.get() != 0;
            if clock::now() >= deadline && !is_answered {
                return Poll::Ready(());
            }
            let next = if is_answered {
                clock::now() + self.patience
            } else {
                deadline
            };
            alarm.as_mut().reset(next);
        }
    }
}

impl<B: HttpBody<Data = Bytes, Error = Error> + Unpin> HttpBody for Metered<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let Poll::Ready(outcome) = Pin::new(body).poll_frame(context) else {
            ready!(self.poll_patience(context));
            self.body = None;
            return Poll::Ready(Some(Err(Error::client(
                StatusCode::REQUEST_TIMEOUT,
                "request_body_timeout",
                "request body timeout",
            )
            .with_flag(Flag::StreamIdle))));
        };
        self.waiting_since = None;
        if let Some(Ok(frame)) = &outcome
            && let Some(data) = frame.data_ref()
        {
            self.record
                .bytes_received
                .set(self.record.bytes_received.get() + data.len() as u64);
        }
        Poll::Ready(outcome)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn waiting(record: &Rc<Record>) -> Metered<Body> {
        let never = StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, Error>>());
        metered(Body::boxed(never), record.clone(), Duration::from_secs(180))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_sending_is_told_after_its_time() {
        let started = clock::now();
        let record = Rc::new(crate::truncation::tests::record());
        let failure = waiting(&record).frame().await.expect("an end").expect_err("late");
        assert_eq!(failure.status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(started.elapsed().as_secs(), 180);
    }

    #[tokio::test(start_paused = true)]
    async fn it_may_be_silent_once_the_answer_has_begun() {
        let record = Rc::new(crate::truncation::tests::record());
        record.status.set(200);
        let mut body = waiting(&record);
        let silence = tokio::time::timeout(Duration::from_secs(10_000), body.frame());
        assert!(silence.await.is_err());
    }
}
