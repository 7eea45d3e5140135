//! Looking at a body while it passes: events or frames are shown, never changed, delayed or held back.
//!
//! For whoever only counts. Frames leave as they came, whatever the looker makes of them; an event longer than the
//! decoder takes ends the looking, not the body.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tollgate_base::Error;

use crate::{Body, SseDecoder, SseEvent};

/// What a passing frame is shown to.
pub(crate) trait Look {
    /// A frame of data.
    fn data(&mut self, data: &Bytes);
    /// The source ended cleanly; may be called more than once.
    fn end(&mut self);
}

/// A body and who looks at it.
pub(crate) struct Tap<L> {
    body: Body,
    look: L,
}

impl<L: Look> Tap<L> {
    pub(crate) fn new(body: Body, look: L) -> Self {
        Self { body, look }
    }
}

// The body is boxed where it must not move, and the looker is never pinned.
impl<L> Unpin for Tap<L> {}

impl<L: Look> HttpBody for Tap<L> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let outcome = Pin::new(&mut this.body).poll_frame(context);
        match &outcome {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    this.look.data(data);
                }
                // Nobody asks again for a body that has told it is over.
                if this.body.is_end_stream() {
                    this.look.end();
                }
            }
            Poll::Ready(None) => this.look.end(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        outcome
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Cuts events out of passing frames.
pub(crate) struct EventLook<F> {
    /// `None` once there is nothing more to see.
    decoder: Option<SseDecoder>,
    show: F,
}

impl<F: FnMut(&SseEvent)> EventLook<F> {
    pub(crate) fn new(show: F) -> Self {
        Self {
            decoder: Some(SseDecoder::new()),
            show,
        }
    }
}

impl<F: FnMut(&SseEvent)> Look for EventLook<F> {
    fn data(&mut self, data: &Bytes) {
        let Some(decoder) = &mut self.decoder else { return };
        let mut failed = false;
        for outcome in decoder.push(data.clone()) {
            match outcome {
                Ok(event) => (self.show)(&event),
                Err(_) => failed = true,
            }
        }
        if failed {
            self.decoder = None;
        }
    }

    fn end(&mut self) {
        if let Some(mut decoder) = self.decoder.take()
            && let Some(last) = decoder.finish()
        {
            (self.show)(&last);
        }
    }
}

/// Shows frames as they are.
pub(crate) struct DataLook<F>(pub(crate) F);

impl<F: FnMut(&Bytes)> Look for DataLook<F> {
    fn data(&mut self, data: &Bytes) {
        (self.0)(data);
    }

    fn end(&mut self) {}
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use http::StatusCode;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;
    use crate::EventStream;

    fn byte_body(parts: &[Result<&'static str, ()>]) -> Body {
        let frames: Vec<_> = parts
            .iter()
            .map(|part| match part {
                Ok(text) => Ok(Frame::data(Bytes::from_static(text.as_bytes()))),
                Err(()) => Err(Error::upstream(StatusCode::BAD_GATEWAY, "upstream_cut", "cut")),
            })
            .collect();
        Body::boxed(StreamBody::new(futures_util::stream::iter(frames)))
    }

    type Seen = Rc<RefCell<Vec<String>>>;

    fn watched(body: Body) -> (Body, Seen) {
        let seen = Seen::default();
        let notes = seen.clone();
        let watched = body.observe_events(move |event| {
            notes
                .borrow_mut()
                .push(event.data().unwrap_or_default().into_owned());
        });
        (watched, seen)
    }

    #[tokio::test]
    async fn events_are_seen_and_frames_leave_as_they_came() {
        let (mut body, seen) = watched(byte_body(&[Ok("data: 1\n\nda"), Ok("ta: 2\n"), Ok("\ndata: 3")]));
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!((first.as_ref(), seen.borrow().len()), (&b"data: 1\n\nda"[..], 1));
        let rest = body.collect().await.unwrap().to_bytes();
        assert_eq!(rest, "ta: 2\n\ndata: 3");
        assert_eq!(*seen.borrow(), ["1", "2", "3"]);
    }

    #[tokio::test]
    async fn half_an_event_before_a_cut_is_not_shown() {
        let (mut body, seen) = watched(byte_body(&[Ok("data: 1\n\ndata: 2"), Err(())]));
        assert!(body.frame().await.unwrap().is_ok());
        assert!(body.frame().await.unwrap().is_err());
        drop(body);
        assert_eq!(*seen.borrow(), ["1"]);
    }

    #[tokio::test]
    async fn a_body_of_events_is_not_cut_again() {
        let events = [SseEvent::from_data("1"), SseEvent::from_data("2")];
        let (body, seen) = watched(Body::events(EventStream::of(events)));
        assert!(matches!(format!("{body:?}").as_str(), "Body(events)"));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "data: 1\n\ndata: 2\n\n");
        assert_eq!(*seen.borrow(), ["1", "2"]);
    }

    #[tokio::test]
    async fn an_event_beyond_the_limit_passes_unseen() {
        let huge = "x".repeat(crate::DEFAULT_EVENT_LIMIT + 1);
        let text: &'static str = Box::leak(format!("data: {huge}\n\n").into_boxed_str());
        let (body, seen) = watched(byte_body(&[Ok("data: 1\n\n"), Ok(text), Ok("data: 2\n\n")]));
        let sent = body.collect().await.unwrap().to_bytes();
        assert_eq!(sent.len(), text.len() + 18);
        assert_eq!(*seen.borrow(), ["1"]);
    }

    #[tokio::test]
    async fn frames_are_seen_with_the_known_length_kept() {
        let seen = Rc::new(RefCell::new(0));
        let count = seen.clone();
        let body = Body::bytes("abc").observe_data(move |data| *count.borrow_mut() += data.len());
        assert_eq!(body.size_hint().exact(), Some(3));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
        assert_eq!(*seen.borrow(), 3);
    }
}
