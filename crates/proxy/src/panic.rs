//! A panic in a plugin costs its own request: it is caught around the chain and around each look at a body.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use http::StatusCode;
use http_body::{Body as HttpBody, Frame};
use tollgate_base::Error;
use tollgate_body::{Body, Response};

/// Runs the chain.
///
/// # Errors
/// The chain's own, or 500 for a panic.
pub(crate) fn caught<'a>(
    chain: impl Future<Output = Result<Response, Error>> + 'a,
) -> impl Future<Output = Result<Response, Error>> + 'a {
    // Not an async function: that would hold the chain twice, as its argument and as what it waits for.
    let outcome = AssertUnwindSafe(chain).catch_unwind();
    outcome.map(|outcome| outcome.unwrap_or_else(|_| Err(panicked())))
}

/// Asks a body for its next frame; after a panic it has none.
pub(crate) fn poll_caught(
    body: &mut Body,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
    let poll = AssertUnwindSafe(|| Pin::new(&mut *body).poll_frame(context));
    catch_unwind(poll).unwrap_or_else(|_| {
        *body = Body::empty();
        Poll::Ready(Some(Err(panicked())))
    })
}

fn panicked() -> Error {
    Error::gateway(
        StatusCode::INTERNAL_SERVER_ERROR,
        "plugin_panicked",
        "internal error",
    )
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;

    #[tokio::test]
    async fn a_body_that_panics_fails_and_is_over() {
        let mut asked = 0;
        let frames = futures_util::stream::poll_fn(move |_| {
            asked += 1;
            assert!(asked < 2, "the second look panics");
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        });
        let mut body = Body::boxed(StreamBody::new(frames));
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(
            poll_caught(&mut body, &mut context),
            Poll::Ready(Some(Ok(_)))
        ));
        let Poll::Ready(Some(Err(failure))) = poll_caught(&mut body, &mut context) else {
            panic!("not a failure");
        };
        assert_eq!(failure.reason(), "plugin_panicked");
        assert!(matches!(poll_caught(&mut body, &mut context), Poll::Ready(None)));
        let chain = caught(async { Err(Error::timeout(tollgate_base::Timer::Total)) });
        assert_eq!(
            chain.await.expect_err("failed").status(),
            StatusCode::GATEWAY_TIMEOUT
        );
    }
}
