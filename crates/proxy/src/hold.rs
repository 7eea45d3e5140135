//! Holds an answer's head until its body has begun, so that a vendor that hangs in between can still be told as a 504.
//!
//! Only for routes with a first-event timer: everybody else gets the head as soon as it is there. Never looks into the
//! body.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tollgate_base::Error;
use tollgate_body::{Body, Response, Source};

/// Waits for the first frame of the body, or its end.
///
/// # Errors
/// Whatever the body failed with before its first frame.
pub(crate) async fn until_begun(response: Response) -> Result<Response, Error> {
    if response.body().is_end_stream() {
        return Ok(response);
    }
    let (head, mut rest) = response.into_parts();
    let body = match rest.frame().await.transpose()? {
        Some(first) => Body::source(Begun {
            first: Some(first),
            rest,
        }),
        None => Body::empty(),
    };
    Ok(Response::from_parts(head, body))
}

/// A body with its first frame taken out already.
struct Begun {
    first: Option<Frame<Bytes>>,
    rest: Body,
}

impl HttpBody for Begun {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(first))),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let held = self
            .first
            .as_ref()
            .and_then(Frame::data_ref)
            .map_or(0, Bytes::len);
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + held as u64);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + held as u64);
        }
        hint
    }
}

impl Source for Begun {
    fn is_dry(&mut self, context: &mut Context<'_>) -> bool {
        self.first.is_none() && self.rest.is_dry(context)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;

    fn response(frames: Vec<Result<Frame<Bytes>, Error>>) -> Response {
        Response::new(Body::boxed(StreamBody::new(futures_util::stream::iter(frames))))
    }

    fn data(text: &'static str) -> Result<Frame<Bytes>, Error> {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    #[tokio::test]
    async fn nothing_is_lost() {
        let begun = until_begun(response(vec![data("one "), data("two")]))
            .await
            .expect("begun");
        let body = begun.into_body().collect().await.expect("whole").to_bytes();
        assert_eq!(body, "one two");
        let empty = until_begun(response(Vec::new()))
            .await
            .expect("an end is a beginning too");
        assert!(empty.body().is_end_stream());
    }

    #[tokio::test]
    async fn a_failure_before_the_first_frame_is_the_answers() {
        let failed = until_begun(response(vec![Err(Error::timeout(
            tollgate_base::Timer::FirstEvent,
        ))]))
        .await;
        assert_eq!(
            failed.expect_err("failed").status(),
            http::StatusCode::GATEWAY_TIMEOUT
        );
        let later = vec![data("one"), Err(Error::timeout(tollgate_base::Timer::Silence))];
        let begun = until_begun(response(later)).await.expect("begun");
        assert!(begun.into_body().collect().await.is_err());
    }
}
