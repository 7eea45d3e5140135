//! `EventStream`: a body as events, handed from plugin to plugin, and the way from bytes to events and back.
//!
//! Bytes are cut once and joined once. Joining takes what is ready and never waits for more. A source's error stays
//! an error item: what the client sees of it is not decided here.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http_body::{Body as HttpBody, Frame};
use smallvec::SmallVec;
use tollgate_base::Error;

use crate::{Body, SseDecoder, SseEvent};

/// A frame of joined events ends once it has this many bytes.
const JOINED_FRAME: usize = 64 * 1024;

/// What an event becomes: nothing, itself, or several.
pub type Events = SmallVec<[SseEvent; 1]>;

/// Events as they come, then the end: clean (`None`), or one error. Dropping it stops its source.
pub struct EventStream(Pin<Box<dyn Stream<Item = Result<SseEvent, Error>>>>);

/// Changes a stream, event by event; the state of a translation lives in the implementor.
pub trait EventMap {
    /// What becomes of one event.
    ///
    /// # Errors
    /// Ends the stream with that error.
    fn event(&mut self, event: SseEvent) -> Result<Events, Error>;

    /// What follows the last event of a source that ended cleanly; after an error it is not called.
    ///
    /// # Errors
    /// Ends the stream with that error.
    fn finish(&mut self) -> Result<Events, Error> {
        Ok(Events::new())
    }
}

impl EventStream {
    /// Events from any source; it ends at the source's end or first error.
    pub fn new(source: impl Stream<Item = Result<SseEvent, Error>> + 'static) -> Self {
        Self(Box::pin(source))
    }

    /// Events that are all known.
    pub fn of(events: impl IntoIterator<Item = SseEvent>) -> Self {
        let known: Vec<_> = events.into_iter().map(Ok).collect();
        Self::new(futures_util::stream::iter(known))
    }

    /// Runs every event through `map`.
    #[must_use]
    pub fn map_with(self, map: impl EventMap + 'static) -> Self {
        Self::new(Mapped {
            source: Some(self),
            map,
            ready: VecDeque::new(),
        })
    }

    /// Runs every event through `each`; `at_end` gives what follows after a clean end.
    #[must_use]
    pub fn map_events(
        self,
        each: impl FnMut(SseEvent) -> Events + 'static,
        at_end: impl FnMut() -> Events + 'static,
    ) -> Self {
        self.map_with(Closures { each, at_end })
    }

    /// Shows every event to `look`.
    #[must_use]
    pub fn inspect(self, mut look: impl FnMut(&SseEvent) + 'static) -> Self {
        self.map_events(
            move |event| {
                look(&event);
                smallvec::smallvec![event]
            },
            Events::new,
        )
    }
}

impl Stream for EventStream {
    type Item = Result<SseEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("EventStream")
    }
}

struct Closures<Each, AtEnd> {
    each: Each,
    at_end: AtEnd,
}

impl<Each, AtEnd> EventMap for Closures<Each, AtEnd>
where
    Each: FnMut(SseEvent) -> Events,
    AtEnd: FnMut() -> Events,
{
    fn event(&mut self, event: SseEvent) -> Result<Events, Error> {
        Ok((self.each)(event))
    }

    fn finish(&mut self) -> Result<Events, Error> {
        Ok((self.at_end)())
    }
}

struct Mapped<Map> {
    /// `None` once it has ended.
    source: Option<EventStream>,
    map: Map,
    ready: VecDeque<SseEvent>,
}

impl<Map: EventMap> Mapped<Map> {
    fn take_in(&mut self, outcome: Result<Events, Error>) -> Option<Result<SseEvent, Error>> {
        match outcome {
            Ok(events) => {
                let mut rest = events.into_iter();
                let first = rest.next();
                self.ready.extend(rest);
                first.map(Ok)
            }
            Err(error) => {
                self.source = None;
                Some(Err(error))
            }
        }
    }
}

// The source is boxed, and the map is never pinned.
impl<Map> Unpin for Mapped<Map> {}

impl<Map: EventMap> Stream for Mapped<Map> {
    type Item = Result<SseEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(event) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            let Some(source) = &mut this.source else {
                return Poll::Ready(None);
            };
            let outcome = match ready!(Pin::new(source).poll_next(context)) {
                Some(Ok(event)) => this.map.event(event),
                Some(Err(error)) => Err(error),
                None => {
                    this.source = None;
                    this.map.finish()
                }
            };
            if let Some(item) = this.take_in(outcome) {
                return Poll::Ready(Some(item));
            }
        }
    }
}

/// Cuts a byte body into events.
pub(crate) struct Cutter {
    /// `None` once it has ended.
    body: Option<Body>,
    decoder: SseDecoder,
}

impl Cutter {
    pub(crate) fn new(body: Body) -> Self {
        Self {
            body: Some(body),
            decoder: SseDecoder::new(),
        }
    }
}

impl Stream for Cutter {
    type Item = Result<SseEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(outcome) = this.decoder.next_event() {
                if outcome.is_err() {
                    this.body = None;
                }
                return Poll::Ready(Some(outcome));
            }
            let Some(body) = &mut this.body else {
                return Poll::Ready(None);
            };
            match ready!(Pin::new(body).poll_frame(context)) {
                // Trailers say nothing to a reader of events.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        this.decoder.push(data);
                    }
                }
                // Half an event in front of an error would swallow the error event that follows it.
                Some(Err(error)) => {
                    this.body = None;
                    this.decoder = SseDecoder::new();
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    this.body = None;
                    return Poll::Ready(this.decoder.finish().map(Ok));
                }
            }
        }
    }
}

/// Joins events into the frames of a body.
#[derive(Debug)]
pub(crate) struct Joiner {
    /// `None` once it has ended.
    source: Option<EventStream>,
    /// What came behind the events of the last frame, and ends the body.
    error: Option<Error>,
    /// The last poll has asked for more than it brought.
    is_dry: bool,
}

impl Joiner {
    pub(crate) fn new(source: EventStream) -> Self {
        Self {
            source: Some(source),
            error: None,
            is_dry: false,
        }
    }

    /// The events not yet joined.
    pub(crate) fn into_events(self) -> EventStream {
        match (self.source, self.error) {
            (Some(source), _) => source,
            (None, Some(error)) => EventStream::new(futures_util::stream::iter([Err(error)])),
            (None, None) => EventStream::of([]),
        }
    }

    pub(crate) fn is_end(&self) -> bool {
        self.source.is_none() && self.error.is_none()
    }

    /// See [`crate::Source::is_dry`].
    pub(crate) fn is_dry(&self) -> bool {
        self.is_dry
    }

    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut batch = Batch::default();
        self.is_dry = false;
        while batch.length() < JOINED_FRAME {
            let Some(source) = &mut self.source else { break };
            match Pin::new(source).poll_next(context) {
                Poll::Ready(Some(Ok(event))) => batch.add(event),
                Poll::Ready(Some(Err(error))) => {
                    self.error = Some(error);
                    self.source = None;
                }
                Poll::Ready(None) => self.source = None,
                Poll::Pending if batch.length() == 0 => return Poll::Pending,
                Poll::Pending => {
                    self.is_dry = true;
                    break;
                }
            }
        }
        Poll::Ready(match batch.into_bytes() {
            Some(bytes) => Some(Ok(Frame::data(bytes))),
            None => self.error.take().map(Err),
        })
    }
}

/// Events of one frame: a run of neighbours in the memory they came in, copied only when another kind follows.
#[derive(Default)]
struct Batch {
    copied: BytesMut,
    /// Where the run begins in its memory, and its last event.
    run: Option<(usize, SseEvent)>,
    run_length: usize,
}

impl Batch {
    fn length(&self) -> usize {
        self.copied.len() + self.run_length
    }

    fn add(&mut self, event: SseEvent) {
        let length = event.raw().len();
        if length == 0 {
            return;
        }
        if let Some((_, last)) = &mut self.run
            && last.touches(&event)
        {
            *last = event;
            self.run_length += length;
            return;
        }
        self.copy_run();
        self.run = Some((event.start(), event));
        self.run_length = length;
    }

    fn copy_run(&mut self) {
        if let Some((start, last)) = self.run.take() {
            self.copied.extend_from_slice(&last.bytes_since(start));
            self.run_length = 0;
        }
    }

    fn into_bytes(mut self) -> Option<Bytes> {
        if self.copied.is_empty() {
            return self.run.map(|(start, last)| last.bytes_since(start));
        }
        self.copy_run();
        Some(self.copied.freeze())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use futures_util::StreamExt;
    use http::StatusCode;
    use http_body_util::{BodyExt, StreamBody};
    use smallvec::smallvec;

    use super::*;

    type Item = Option<Result<&'static str, ()>>;

    /// A byte body of these frames; `None` is a moment without any.
    fn byte_body(items: Vec<Item>) -> Body {
        let frames = futures_util::stream::iter(items)
            .then(|item| async move {
                match item {
                    None => {
                        tokio::task::yield_now().await;
                        None
                    }
                    Some(Ok(text)) => Some(Ok(Frame::data(Bytes::from_static(text.as_bytes())))),
                    Some(Err(())) => Some(Err(cut())),
                }
            })
            .filter_map(std::future::ready);
        Body::boxed(StreamBody::new(frames))
    }

    fn cut() -> Error {
        Error::upstream(StatusCode::BAD_GATEWAY, "upstream_cut", "cut")
    }

    async fn frames(mut body: Body) -> Vec<Result<String, String>> {
        let mut all = Vec::new();
        while let Some(frame) = body.frame().await {
            all.push(match frame {
                Ok(frame) => Ok(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()),
                Err(error) => Err(error.reason().to_owned()),
            });
        }
        assert!(body.is_end_stream());
        all
    }

    fn text(part: &str) -> Result<String, String> {
        Ok(part.to_owned())
    }

    #[tokio::test]
    async fn events_that_are_ready_share_a_frame_and_nothing_waits() {
        let body = byte_body(vec![
            Some(Ok("data: 1\n\ndata: 2\n\nda")),
            Some(Ok("ta: 3\n\n")),
            None,
            Some(Ok("data: 4\n\ndata: 5")),
        ]);
        assert_eq!(
            frames(Body::events(body.into_events())).await,
            [
                text("data: 1\n\ndata: 2\n\ndata: 3\n\n"),
                text("data: 4\n\ndata: 5")
            ]
        );
    }

    #[tokio::test]
    async fn neighbours_leave_in_the_memory_they_came_in() {
        let frame = Bytes::from_static(b"data: 1\n\ndata: 2\n\ndata: 3\n\n");
        let start = frame.as_ptr();
        let dropped = Body::bytes(frame.clone()).into_events().map_events(
            |event| {
                if event.data().as_deref() == Some("1") {
                    smallvec![]
                } else {
                    smallvec![event]
                }
            },
            Events::new,
        );
        let joined = Body::events(dropped)
            .frame()
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap();
        assert_eq!(joined, "data: 2\n\ndata: 3\n\n");
        assert_eq!(joined.as_ptr() as usize, start as usize + 9);
    }

    #[tokio::test]
    async fn a_joined_frame_does_not_grow_without_end() {
        let big: &'static str = format!("data: {}\n\n", "x".repeat(1000)).leak();
        let body = byte_body(vec![Some(Ok(big)); 200]);
        let all = frames(Body::events(body.into_events())).await;
        assert!(all.len() > 3);
        assert!(
            all.iter()
                .all(|frame| frame.as_ref().unwrap().len() < JOINED_FRAME + big.len())
        );
    }

    #[tokio::test]
    async fn an_error_follows_the_whole_events_in_front_of_it() {
        let items = vec![Some(Ok("data: 1\n\ndata: 2")), Some(Err(()))];
        assert_eq!(
            frames(Body::events(byte_body(items.clone()).into_events())).await,
            [text("data: 1\n\n"), Err("upstream_cut".to_owned())]
        );
        // Handed over between the two, the error is still there.
        let mut body = Body::events(byte_body(items).into_events());
        body.frame().await.unwrap().unwrap();
        assert_eq!(
            frames(Body::events(body.into_events())).await,
            [Err("upstream_cut".to_owned())]
        );
    }

    #[tokio::test]
    async fn an_events_body_is_handed_over_uncut() {
        let event = SseEvent::from_json(serde_json::json!({"a": 1}));
        let parsed: *const _ = event.json().unwrap();
        let mut again = Body::events(EventStream::of([event])).into_events();
        let same = again.next().await.unwrap().unwrap();
        assert!(std::ptr::eq(parsed, same.json().unwrap()));
    }

    #[tokio::test]
    async fn one_event_may_become_none_or_many_and_the_end_may_add_some() {
        let source = Body::bytes("data: 0\n\ndata: 1\n\ndata: 3\n\n").into_events();
        let mapped = source.map_events(
            |event| {
                let count = event.data().unwrap().parse().unwrap();
                (0..count).map(|_| event.clone()).collect()
            },
            || smallvec![SseEvent::done()],
        );
        assert_eq!(
            frames(Body::events(mapped)).await,
            [text(
                "data: 1\n\ndata: 3\n\ndata: 3\n\ndata: 3\n\ndata: [DONE]\n\n"
            )]
        );
    }

    #[tokio::test]
    async fn after_an_error_nothing_is_added() {
        struct Refuse;
        impl EventMap for Refuse {
            fn event(&mut self, event: SseEvent) -> Result<Events, Error> {
                if event.is_done() {
                    Err(cut())
                } else {
                    Ok(smallvec![event])
                }
            }
            fn finish(&mut self) -> Result<Events, Error> {
                Ok(smallvec![SseEvent::comment("end")])
            }
        }
        let whole = Body::bytes("data: 1\n\n").into_events().map_with(Refuse);
        assert_eq!(frames(Body::events(whole)).await, [text("data: 1\n\n: end\n\n")]);
        for body in [
            byte_body(vec![Some(Ok("data: 1\n\n")), Some(Err(()))]),
            byte_body(vec![Some(Ok("data: 1\n\ndata: [DONE]\n\ndata: 2\n\n"))]),
        ] {
            let broken = body.into_events().map_with(Refuse);
            assert_eq!(
                frames(Body::events(broken)).await,
                [text("data: 1\n\n"), Err("upstream_cut".to_owned())]
            );
        }
    }

    #[tokio::test]
    async fn inspecting_changes_nothing() {
        let seen = Rc::new(Cell::new(0));
        let counter = seen.clone();
        let source = Body::bytes(": a\r\n\r\ndata: 1\r\rdata: 2").into_events();
        let body = Body::events(source.inspect(move |_| counter.set(counter.get() + 1)));
        assert_eq!(frames(body).await, [text(": a\r\n\r\ndata: 1\r\rdata: 2")]);
        assert_eq!(seen.get(), 3);
    }
}
