//! Looking at a body while it passes: events or frames are shown, never changed, delayed or held back.
//!
//! For whoever only counts. Frames leave as they came, whatever the looker makes of them; an event longer than the
//! decoder takes ends the looking, not the body.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tollgate_base::Error;

use crate::{Body, Source, SseDecoder, SseEvent};

/// What a passing frame is shown to.
pub trait Look {
    /// A frame of data.
    fn data(&mut self, data: &Bytes);
    /// The source ended cleanly; may be called more than once.
    fn end(&mut self);
    /// The source broke off: what was shown is not all of it.
    fn broken(&mut self) {}
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
            Poll::Ready(Some(Err(_))) => this.look.broken(),
            Poll::Pending => {}
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

impl<L: Look> Source for Tap<L> {
    fn is_dry(&mut self, context: &mut Context<'_>) -> bool {
        self.body.is_dry(context)
    }
}

/// Shows the data of events in passing frames.
pub(crate) struct EventLook<F> {
    /// `None` once there is nothing more to see.
    decoder: Option<SseDecoder>,
    show: F,
}

impl<F: FnMut(&[u8])> EventLook<F> {
    pub(crate) fn new(show: F) -> Self {
        Self {
            decoder: Some(SseDecoder::new()),
            show,
        }
    }
}

impl<F: FnMut(&[u8])> Look for EventLook<F> {
    fn data(&mut self, data: &Bytes) {
        let Some(decoder) = &mut self.decoder else { return };
        let mut rest = &data[..];
        loop {
            while let Some((event, behind)) = decoder.next_plain(rest) {
                (self.show)(event);
                rest = behind;
            }
            if rest.is_empty() {
                return;
            }
            match decoder.push(data.slice_ref(rest)).next() {
                Some(Ok(event)) => show_data(&event, &mut self.show),
                Some(Err(_)) => {
                    self.decoder = None;
                    return;
                }
                None => return,
            }
            // Those behind one that began in an earlier frame are plain again.
            rest = &rest[rest.len() - decoder.take_unread()..];
        }
    }

    fn end(&mut self) {
        if let Some(mut decoder) = self.decoder.take()
            && let Some(last) = decoder.finish()
        {
            show_data(&last, &mut self.show);
        }
    }
}

/// Shows an event that has data; a comment has none.
pub(crate) fn show_data(event: &SseEvent, show: &mut impl FnMut(&[u8])) {
    if let Some(data) = event.data_slice() {
        show(&data);
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
    use proptest::prelude::*;

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
        let watched = body.observe_events(move |data| {
            notes
                .borrow_mut()
                .push(String::from_utf8_lossy(data).into_owned());
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

    /// The data of the events in `input`, as the decoder alone has it.
    fn decoded(input: &[u8]) -> Vec<String> {
        let mut decoder = SseDecoder::new();
        let mut seen = Vec::new();
        let mut note = |data: &[u8]| seen.push(String::from_utf8_lossy(data).into_owned());
        let events: Vec<_> = decoder.push(Bytes::copy_from_slice(input)).flatten().collect();
        events
            .iter()
            .chain(&decoder.finish())
            .for_each(|event| show_data(event, &mut note));
        seen
    }

    proptest! {
        #[test]
        fn what_is_shown_does_not_depend_on_the_frames(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "data: x\n\n", "data: yy\r\n\r\n", "data: z\r\r", "data: two\ndata: lines\n\n", "\n", "\r", "\r\n", "data: ",
                    ": c\n\n", "event: e\n", "\u{feff}", "data: \n\n", "x",
                ]),
                0..30,
            ),
            size in 1_usize..40,
        ) {
            let input = pieces.concat().into_bytes();
            for size in [size, usize::MAX] {
                let mut seen = Vec::new();
                let mut look = EventLook::new(|data: &[u8]| seen.push(String::from_utf8_lossy(data).into_owned()));
                input.chunks(size).for_each(|frame| look.data(&Bytes::copy_from_slice(frame)));
                look.end();
                drop(look);
                prop_assert_eq!(seen, decoded(&input));
            }
        }
    }
}
