//! A compressed event stream: its bytes pass as they are, and a copy is read beside them for the end that it must say.
//!
//! Called by `truncation`. No error event fits between compressed bytes, so an answer that ends too soon ends in a reset.
//! What is not of the coding that it names, or longer than is read, passes unseen: it is not held against the vendor.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_LENGTH;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tollgate_base::Error;
use tollgate_body::coding::Unpacked;
use tollgate_body::{Body, Response, Source};
use tollgate_observe::Record;

use crate::terminal::Watch;
use crate::truncation::{WholeEvents, look, unsaid};

/// Guards an answer of this coding; one that cannot be read, or whose end is not known, stays as it is.
pub(crate) fn guard(coding: &HeaderValue, record: &Rc<Record>, watch: Watch, response: &mut Response) {
    if let Ok(coding) = coding.to_str()
        && !watch.seen()
        && let Some(unpacked) = Unpacked::of(coding)
    {
        let reading = Reading {
            unpacked,
            events: WholeEvents::default(),
            watch,
        };
        // A body that has kept its promise would not be asked for its end.
        response.headers_mut().remove(CONTENT_LENGTH);
        let body = response.body_mut().take();
        *response.body_mut() = Body::source(Encoded {
            body,
            record: record.clone(),
            reading: Some(reading),
        });
    }
}

struct Encoded {
    body: Body,
    record: Rc<Record>,
    /// `None` once the answer has said that it is over, or cannot be read.
    reading: Option<Reading>,
}

/// The copy.
struct Reading {
    unpacked: Unpacked,
    events: WholeEvents,
    watch: Watch,
}

impl Reading {
    /// Whether there is something left to look for.
    fn read(&mut self, data: &[u8], record: &Record) -> bool {
        self.unpacked.frame(data, |plain| {
            if let Some(whole) = self.events.pass(plain) {
                look(&mut self.watch, record, &whole);
            }
        });
        self.unpacked.is_readable() && !self.watch.seen()
    }

    /// Whether the answer says that it is over with its last bytes.
    fn ends_well(mut self, record: &Record) -> bool {
        look(&mut self.watch, record, &self.events.rest());
        self.watch.seen()
    }
}

impl Encoded {
    fn read(&mut self, data: &[u8]) {
        let record = &self.record;
        self.reading.take_if(|reading| !reading.read(data, record));
    }

    /// The source has ended.
    fn end(&mut self) -> Option<Error> {
        let reading = self.reading.take()?;
        (!reading.ends_well(&self.record)).then(unsaid)
    }
}

impl HttpBody for Encoded {
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

impl Source for Encoded {
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
        guard(
            &coding,
            &Rc::new(record()),
            Watch::over(Some(Api::Chat)),
            &mut response,
        );
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
            let watch = Watch::over(Some(Api::Chat));
            guard(&value, &Rc::new(record()), watch, &mut response);
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
