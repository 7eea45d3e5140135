//! The body of a request, read from the connection by whoever wants it.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tollgate_base::Error;
use tollgate_body::http1::Decoded;

use super::head::broken_body;
use super::wire::Wire;

/// A request's body; dropped before its end, it leaves the rest unread.
pub(crate) struct ClientBody {
    wire: Rc<Wire>,
    /// What was read and not yet asked for.
    read: Decoded,
    turn: u32,
    /// Nothing more comes behind `read`.
    is_over: bool,
}

impl ClientBody {
    /// `early` is what came together with the head.
    pub(super) fn new(wire: Rc<Wire>, early: Decoded, turn: u32) -> Self {
        let is_over = early.ended || early.broken.is_some();
        Self {
            wire,
            read: early,
            turn,
            is_over,
        }
    }

    fn take_read(&mut self) -> Option<Result<Frame<Bytes>, Error>> {
        if !self.read.data.is_empty() {
            return Some(Ok(Frame::data(std::mem::take(&mut self.read.data))));
        }
        if let Some(reason) = self.read.broken.take() {
            return Some(Err(broken_body(reason)));
        }
        let trailers = self.read.trailers.take()?;
        Some(Ok(Frame::trailers(*trailers)))
    }
}

impl HttpBody for ClientBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            if let Some(frame) = self.take_read() {
                return Poll::Ready(Some(frame));
            }
            if self.is_over {
                return Poll::Ready(None);
            }
            match ready!(self.wire.poll_body(self.turn, context)) {
                Ok(decoded) => {
                    self.is_over = decoded.ended || decoded.broken.is_some();
                    self.read = decoded;
                }
                Err(failure) => {
                    self.is_over = true;
                    return Poll::Ready(Some(Err(failure)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let read = &self.read;
        self.is_over && read.data.is_empty() && read.trailers.is_none() && read.broken.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let here = self.read.data.len() as u64;
        if self.is_over {
            return SizeHint::with_exact(here);
        }
        match self.wire.body_left() {
            Some(left) => SizeHint::with_exact(left + here),
            None => SizeHint::default(),
        }
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        if !self.is_over {
            self.wire.leave_body(self.turn);
        }
    }
}
