//! Answers whose bytes pass as they are while a copy is read beside them for the end that they must say: event streams that
//! are compressed, and arrays that grow, compressed or not.
//!
//! Called by `truncation`. No error event fits between such bytes, so an answer that ends too soon ends in a reset.
//! What is not of the coding that it names, or longer than is read, passes unseen: it is not held against the vendor.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_LENGTH;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tollgate_base::{Error, Termination};
use tollgate_body::coding::Unpacked;
use tollgate_body::{Body, Response, Source};
use tollgate_observe::Record;

use crate::array::ArrayWatch;
use crate::terminal::Watch;
use crate::truncation::{WholeEvents, look, unsaid};

/// The end that an answer must say, and how it is looked for.
pub(crate) enum End {
    /// In an event.
    Event(WholeEvents, Watch),
    /// By closing its array.
    Bracket(ArrayWatch),
}

impl End {
    /// Of a stream of events.
    pub(crate) fn in_events(watch: Watch) -> Self {
        Self::Event(WholeEvents::default(), watch)
    }

    fn read(&mut self, plain: Bytes, record: &Record) {
        match self {
            Self::Event(events, watch) => {
                if let Some(whole) = events.pass(plain) {
                    look(watch, record, &whole);
                }
            }
            Self::Bracket(watch) => {
                watch.look(&plain);
                if watch.failed() {
                    record.terminate(Termination::UpstreamError);
                }
            }
        }
    }

    /// Nothing more comes.
    fn finish(&mut self, record: &Record) {
        if let Self::Event(events, watch) = self {
            look(watch, record, &events.rest());
        }
    }

    fn seen(&self) -> bool {
        match self {
            Self::Event(_, watch) => watch.seen(),
            Self::Bracket(watch) => watch.seen(),
        }
    }
}

/// Guards an answer of this coding; one that cannot be read, or whose end is not known, stays as it is.
pub(crate) fn guard(coding: Option<&HeaderValue>, record: &Rc<Record>, end: End, response: &mut Response) {
    let unpacked = coding.map(|coding| coding.to_str().ok().and_then(Unpacked::of));
    if end.seen() || matches!(unpacked, Some(None)) {
        return;
    }
    let reading = Reading {
        unpacked: unpacked.flatten(),
        end,
    };
    // A body that has kept its promise would not be asked for its end.
    response.headers_mut().remove(CONTENT_LENGTH);
    let body = response.body_mut().take();
    *response.body_mut() = Body::source(Beside {
        body,
        record: record.clone(),
        reading: Some(reading),
    });
}

struct Beside {
    body: Body,
    record: Rc<Record>,
    /// `None` once the answer has said that it is over, or cannot be read.
    reading: Option<Reading>,
}

/// The copy.
struct Reading {
    /// `None`: what passes is the text itself.
    unpacked: Option<Unpacked>,
    end: End,
}

impl Reading {
    /// Whether there is something left to look for.
    fn read(&mut self, data: &Bytes, record: &Record) -> bool {
        let end = &mut self.end;
        match &mut self.unpacked {
            Some(unpacked) => unpacked.frame(data, |plain| end.read(plain, record)),
            None => end.read(data.clone(), record),
        }
        let is_readable = self.unpacked.as_ref().is_none_or(Unpacked::is_readable);
        is_readable && !self.end.seen()
    }

    /// Whether the answer says that it is over with its last bytes.
    fn ends_well(mut self, record: &Record) -> bool {
        self.end.finish(record);
        self.end.seen()
    }
}

impl Beside {
    fn read(&mut self, data: &Bytes) {
        let record = &self.record;
        self.reading.take_if(|reading| !reading.read(data, record));
    }

    /// The source has ended.
    fn end(&mut self) -> Option<Error> {
        let reading = self.reading.take()?;
        (!reading.ends_well(&self.record)).then(unsaid)
    }
}

impl HttpBody for Beside {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = ready!(Pin::new(&mut self.body).poll_frame(context));
        match polled.as_ref().map(|frame| frame.as_ref().map(Frame::data_ref)) {
            Some(Ok(Some(data))) => self.read(data),
            Some(Err(_)) => {}
            // Nothing but the end comes behind trailers.
            Some(Ok(None)) | None => {
                if let Some(failure) = self.end() {
                    return Poll::Ready(Some(Err(failure)));
                }
            }
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.reading.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Source for Beside {
    fn is_dry(&mut self, context: &mut Context<'_>) -> bool {
        self.body.is_dry(context)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};
    use tollgate_llm::Api;
    use tollgate_testkit::codings::compressed;

    use super::*;
    use crate::truncation::tests::record;

    const WHOLE: &str = "data: {\"a\":1}\r\n\r\ndata: [DONE]\n\n";

    /// What passes of these bytes in pieces of this size, and how it ends.
    async fn through(coding: &str, bytes: &[u8], size: usize) -> (Vec<u8>, Option<Error>) {
        let pieces: Vec<_> = bytes
            .chunks(size)
            .map(|piece| Ok::<_, Error>(Frame::data(Bytes::copy_from_slice(piece))))
            .collect();
        let source = StreamBody::new(futures_util::stream::iter(pieces));
        let mut response = Response::new(Body::boxed(source));
        let coding = HeaderValue::from_str(coding).expect("a value");
        let end = End::in_events(Watch::over(Some(Api::Chat)));
        guard(Some(&coding), &Rc::new(record()), end, &mut response);
        let mut body = response.into_body();
        let mut passed = Vec::new();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => passed.extend_from_slice(&frame.into_data().expect("data")),
                Err(failure) => return (passed, Some(failure)),
            }
        }
        (passed, None)
    }

    #[tokio::test]
    async fn a_whole_answer_passes_byte_for_byte() {
        for (coding, bytes) in compressed(WHOLE.as_bytes()) {
            for size in [1, 7, 10_000] {
                let (passed, failure) = through(coding, &bytes, size).await;
                assert!(
                    passed == bytes && failure.is_none(),
                    "{coding} {size}: {failure:?}"
                );
            }
        }
    }

    #[tokio::test]
    async fn one_that_never_says_it_is_over_or_is_cut_off_fails_at_its_end() {
        let unsaid = "data: {\"a\":1}\n\n";
        for (coding, bytes) in compressed(unsaid.as_bytes()) {
            let half = &bytes[..bytes.len() / 2];
            for bytes in [&*bytes, half, b""] {
                let (passed, failure) = through(coding, bytes, 9).await;
                let reason = failure.as_ref().map(Error::reason);
                assert_eq!((&*passed, reason), (bytes, Some("upstream_cut")), "{coding}");
            }
        }
    }

    #[test]
    fn its_end_is_asked_for_although_its_length_was_known() {
        for (coding, is_guarded) in [("gzip", true), ("compress", false)] {
            let mut response = Response::new(Body::bytes("12345"));
            response.headers_mut().insert(CONTENT_LENGTH, 5.into());
            let value = HeaderValue::from_static(coding);
            let end = End::in_events(Watch::over(Some(Api::Chat)));
            guard(Some(&value), &Rc::new(record()), end, &mut response);
            let is_promised = response.headers().contains_key(CONTENT_LENGTH);
            let is_known = response.body().size_hint().exact().is_some();
            assert_eq!((is_promised, is_known), (!is_guarded, !is_guarded), "{coding}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_passes() {
        for (coding, bytes) in [("gzip", "no gzip at all"), ("compress", "anything")] {
            let (passed, failure) = through(coding, bytes.as_bytes(), 5).await;
            assert!(
                passed == bytes.as_bytes() && failure.is_none(),
                "{coding}: {failure:?}"
            );
        }
    }
}
