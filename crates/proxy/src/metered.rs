//! Counts a client's body bytes as they are read, wherever the body ends up.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tollgate_base::Error;
use tollgate_body::{Body, Side};
use tollgate_observe::Record;

/// The client's body, counted into the record.
pub(crate) fn client_body(incoming: Incoming, record: &Rc<Record>) -> Body {
    if incoming.is_end_stream() {
        return Body::empty();
    }
    Body::boxed(Metered {
        body: Body::network(incoming, Side::Client),
        record: record.clone(),
    })
}

struct Metered {
    body: Body,
    record: Rc<Record>,
}

impl HttpBody for Metered {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let outcome = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &outcome
            && let Some(data) = frame.data_ref()
        {
            self.record
                .bytes_received
                .set(self.record.bytes_received.get() + data.len() as u64);
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
