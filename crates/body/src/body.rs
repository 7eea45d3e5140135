//! `Body`: one type for what the client sent, what the upstream answers and what we make ourselves.
//!
//! It implements `http_body::Body`; frames pass through without a copy. It never buffers unless asked, and then
//! only up to the limit given.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tollgate_base::{Error, Flag};

use crate::events::{Cutter, Joiner};
use crate::gather::Gathered;
use crate::tap::{DataLook, EventLook, Look, Tap, show_data};
use crate::{EventStream, JsonBodyError, JsonDocument, JsonError, SseEvent};

/// A body made by somebody else: a plugin's wrapper, a translator.
pub type BoxedBody = Pin<Box<dyn HttpBody<Data = Bytes, Error = Error>>>;

/// A body that can tell that nothing more is there for less than it costs to ask the whole chain for a frame in vain.
pub trait Source: HttpBody<Data = Bytes, Error = Error> {
    /// Whether a poll would find nothing; asked by the task that has just polled a frame. If so, it is woken once there
    /// is something, as after the poll. `false` says nothing.
    fn is_dry(&mut self, _context: &mut Context<'_>) -> bool {
        false
    }
}

/// Whose bytes a network body carries, hence whose fault a broken one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A request body.
    Client,
    /// A response body.
    Upstream,
}

/// The body of a request or response; dropping it stops its source.
#[derive(Default)]
pub struct Body(Inner);

#[derive(Default)]
enum Inner {
    #[default]
    Empty,
    Bytes(Bytes),
    Network(Incoming, Side),
    Boxed(BoxedBody),
    Source(Box<dyn Source + Unpin>),
    Events(Joiner),
    Json(Box<JsonDocument>),
}

impl Body {
    /// No bytes at all.
    #[must_use]
    pub fn empty() -> Self {
        Self(Inner::Empty)
    }

    /// All the bytes, known now.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        let all = bytes.into();
        if all.is_empty() {
            Self::empty()
        } else {
            Self(Inner::Bytes(all))
        }
    }

    /// A body as it comes off the network.
    #[must_use]
    pub fn network(incoming: Incoming, side: Side) -> Self {
        if incoming.is_end_stream() {
            Self::empty()
        } else {
            Self(Inner::Network(incoming, side))
        }
    }

    /// A body made elsewhere.
    pub fn boxed(body: impl HttpBody<Data = Bytes, Error = Error> + 'static) -> Self {
        Self(Inner::Boxed(Box::pin(body)))
    }

    /// A body made elsewhere that can tell when nothing more is there.
    pub fn source(source: impl Source + Unpin + 'static) -> Self {
        Self(Inner::Source(Box::new(source)))
    }

    /// A JSON document, written when it is sent.
    #[must_use]
    pub fn document(document: JsonDocument) -> Self {
        Self(Inner::Json(Box::new(document)))
    }

    /// The body as a JSON document: read in full, at most `limit` bytes, the first time; the same document, with its
    /// edits, every time after. The edits travel with the body.
    ///
    /// # Errors
    /// [`JsonBodyError::Unread`]: the source's error, or 413 naming `limit_name`. [`JsonBodyError::NotJson`]: the
    /// bytes stay in the body and can still be sent. With `?` both become a reply to the client (400 for the latter).
    pub async fn json(&mut self, limit_name: &str, limit: usize) -> Result<&mut JsonDocument, JsonBodyError> {
        if !matches!(self.0, Inner::Json(_)) {
            let bytes = self
                .buffer(limit_name, limit)
                .await
                .map_err(JsonBodyError::Unread)?;
            *self = Self::document(JsonDocument::parse(bytes).map_err(JsonBodyError::NotJson)?);
        }
        self.as_json_mut()
            .ok_or_else(|| JsonBodyError::NotJson(JsonError::new(0, "no document")))
    }

    /// The document, when somebody has already asked for it.
    #[must_use]
    pub fn as_json(&self) -> Option<&JsonDocument> {
        match &self.0 {
            Inner::Json(document) => Some(document),
            _ => None,
        }
    }

    fn as_json_mut(&mut self) -> Option<&mut JsonDocument> {
        match &mut self.0 {
            Inner::Json(document) => Some(document),
            _ => None,
        }
    }

    /// Server-sent events, joined into frames as they become ready.
    #[must_use]
    pub fn events(events: EventStream) -> Self {
        Self(Inner::Events(Joiner::new(events)))
    }

    /// The body as server-sent events: cut from its bytes, or as they are when it is events already.
    ///
    /// An error of the source is an item; so is an event over [`crate::DEFAULT_EVENT_LIMIT`]. Bytes that end inside an
    /// event are an event marked incomplete.
    #[must_use]
    pub fn into_events(self) -> EventStream {
        match self.0 {
            Inner::Events(joiner) => joiner.into_events(),
            other => EventStream::new(Cutter::new(Self(other))),
        }
    }

    /// Shows the data of every event of the body to `look` as it passes. Nothing is changed, delayed or held back: bytes
    /// leave in the frames they came in. An event over [`crate::DEFAULT_EVENT_LIMIT`] ends the looking, not the body; half an
    /// event in front of an error is not shown.
    #[must_use]
    pub fn observe_events(self, mut look: impl FnMut(&[u8]) + 'static) -> Self {
        match self.0 {
            Inner::Empty => self,
            Inner::Events(joiner) => {
                let show = move |event: &SseEvent| show_data(event, &mut look);
                Self::events(joiner.into_events().inspect(show))
            }
            other => Self::source(Tap::new(Self(other), EventLook::new(look))),
        }
    }

    /// Shows frames and how they end to `look`; an empty body only ends.
    #[must_use]
    pub fn observe(self, look: impl Look + 'static) -> Self {
        Self::source(Tap::new(self, look))
    }

    /// Shows every frame of data to `look` as it passes.
    #[must_use]
    pub fn observe_data(self, look: impl FnMut(&Bytes) + 'static) -> Self {
        match self.0 {
            Inner::Empty => self,
            other => Self::source(Tap::new(Self(other), DataLook(look))),
        }
    }

    /// Takes the body out, leaving an empty one.
    #[must_use]
    pub fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// A copy of what will be sent, when all of it is at hand: bytes, a document with its edits, or nothing at all.
    #[must_use]
    pub fn known_bytes(&self) -> Option<Bytes> {
        match &self.0 {
            Inner::Empty => Some(Bytes::new()),
            Inner::Bytes(bytes) => Some(bytes.clone()),
            Inner::Json(document) => Some(document.to_bytes()),
            _ => None,
        }
    }

    /// The bytes when they are all known already.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match &self.0 {
            Inner::Bytes(bytes) => Some(bytes),
            Inner::Json(document) => document.unchanged_bytes(),
            _ => None,
        }
    }

    /// Reads everything, at most `limit` bytes; afterwards the body holds the bytes and can still be sent.
    ///
    /// # Errors
    /// 413 naming `limit_name` when there is more, or the source's own error.
    pub async fn buffer(&mut self, limit_name: &str, limit: usize) -> Result<Bytes, Error> {
        let known = match &self.0 {
            Inner::Bytes(bytes) => Some(bytes.clone()),
            Inner::Json(document) => Some(document.to_bytes()),
            _ => None,
        };
        if let Some(bytes) = known {
            if bytes.len() > limit {
                return Err(Error::too_large(limit_name, limit));
            }
            return Ok(bytes);
        }
        if self.size_hint().lower() > limit as u64 {
            return Err(Error::too_large(limit_name, limit));
        }
        let whole = collect(&mut *self, limit_name, limit).await?;
        *self = Self::bytes(whole.clone());
        Ok(whole)
    }
}

async fn collect(body: &mut Body, limit_name: &str, limit: usize) -> Result<Bytes, Error> {
    let mut gathered = Gathered::default();
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
        let Ok(data) = frame?.into_data() else { continue };
        if gathered.len() + data.len() > limit {
            return Err(Error::too_large(limit_name, limit));
        }
        gathered.push(data);
    }
    Ok(gathered.whole())
}

impl fmt::Debug for Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match &self.0 {
            Inner::Empty => "Body(empty)",
            Inner::Bytes(bytes) => return write!(formatter, "Body({} bytes)", bytes.len()),
            Inner::Network(..) => "Body(network)",
            Inner::Boxed(_) | Inner::Source(_) => "Body(boxed)",
            Inner::Events(_) => "Body(events)",
            Inner::Json(_) => "Body(json)",
        })
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.0 {
            Inner::Empty => Poll::Ready(None),
            Inner::Bytes(bytes) => {
                let all = std::mem::take(bytes);
                self.0 = Inner::Empty;
                Poll::Ready(Some(Ok(Frame::data(all))))
            }
            Inner::Network(incoming, side) => {
                let whose = *side;
                Pin::new(incoming)
                    .poll_frame(context)
                    .map_err(|cause| network_error(whose, &cause))
            }
            Inner::Boxed(body) => body.as_mut().poll_frame(context),
            Inner::Source(source) => Pin::new(source).poll_frame(context),
            Inner::Events(joiner) => joiner.poll_frame(context),
            Inner::Json(document) => {
                let all = document.to_bytes();
                self.0 = Inner::Empty;
                Poll::Ready(Some(Ok(Frame::data(all))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty => true,
            Inner::Bytes(_) | Inner::Json(_) => false,
            Inner::Network(incoming, _) => incoming.is_end_stream(),
            Inner::Boxed(body) => body.is_end_stream(),
            Inner::Source(source) => source.is_end_stream(),
            Inner::Events(joiner) => joiner.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Network(incoming, _) => incoming.size_hint(),
            Inner::Boxed(body) => body.size_hint(),
            Inner::Source(source) => source.size_hint(),
            Inner::Events(_) => SizeHint::default(),
            Inner::Json(document) => SizeHint::with_exact(document.to_bytes().len() as u64),
        }
    }
}

impl Source for Body {
    fn is_dry(&mut self, context: &mut Context<'_>) -> bool {
        match &mut self.0 {
            Inner::Source(source) => source.is_dry(context),
            Inner::Events(joiner) => joiner.is_dry(),
            _ => false,
        }
    }
}

fn network_error(side: Side, cause: &hyper::Error) -> Error {
    match side {
        Side::Client => Error::client_gone().with_source(cause),
        Side::Upstream => Error::upstream(
            StatusCode::BAD_GATEWAY,
            "upstream_cut",
            "upstream ended the answer before its end",
        )
        .with_flag(Flag::UpstreamCut)
        .with_source(cause),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn frames(parts: &[&'static str]) -> Body {
        let all: Vec<_> = parts
            .iter()
            .map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes()))))
            .collect();
        Body::boxed(StreamBody::new(futures_util::stream::iter(all)))
    }

    async fn sent(body: Body) -> Bytes {
        body.collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn a_second_reader_gets_the_same_document_and_its_edits_are_sent() {
        let mut body = frames(&["{\"model\":", "\"a\", \"n\":1.0}"]);
        let document = body.json("test", 100).await.unwrap();
        document.set_str("model", "b").unwrap();
        let tree: *const _ = document.value().unwrap();
        let again = body.json("test", 1).await.unwrap();
        assert_eq!(again.get_str("model").as_deref(), Some("b"));
        assert!(std::ptr::eq(tree, again.value().unwrap()));
        assert_eq!(body.size_hint().exact(), Some(22));
        assert_eq!(
            body.buffer("test", 100).await.unwrap(),
            "{\"model\":\"b\", \"n\":1.0}"[..].to_owned()
        );
        assert!(body.as_json().is_some());
        assert_eq!(sent(body).await, "{\"model\":\"b\", \"n\":1.0}");
    }

    #[tokio::test]
    async fn a_document_that_was_only_read_is_sent_from_the_memory_it_came_in() {
        let original = Bytes::from_static(b"{\"a\" : 1}");
        let mut body = Body::bytes(original.clone());
        body.json("test", 100).await.unwrap();
        assert_eq!(body.as_bytes().unwrap().as_ptr(), original.as_ptr());
        assert_eq!(sent(body).await.as_ptr(), original.as_ptr());
    }

    #[tokio::test]
    async fn what_is_not_json_can_still_be_sent() {
        let mut body = frames(&["not ", "json"]);
        let error = body.json("test", 100).await.unwrap_err();
        assert!(matches!(error, JsonBodyError::NotJson(cause) if cause.offset() == 1));
        let reply = Error::from(error);
        assert_eq!(reply.status(), StatusCode::BAD_REQUEST);
        assert_eq!(
            reply.message(),
            "body is not valid JSON: expected a value at byte 1"
        );
        assert_eq!(sent(body).await, "not json");
        assert!(matches!(
            Body::empty().json("test", 9).await,
            Err(JsonBodyError::NotJson(_))
        ));
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_by_name() {
        let mut body = frames(&["[1,2,", "3,4]"]);
        let error = Error::from(body.json("request_body_limit", 8).await.unwrap_err());
        assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert!(error.message().contains("request_body_limit is 8 bytes"));
        let mut known = Body::bytes("[1,2,3,4]");
        assert!(matches!(
            known.json("test", 8).await,
            Err(JsonBodyError::Unread(_))
        ));
    }
}
