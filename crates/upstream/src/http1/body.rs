//! The body of an answer, with the connection that it comes from.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tollgate_base::Error;
use tollgate_body::Source;
use tollgate_body::http1::{Decoded, Framing};

use super::Http1;
use crate::endpoint::Lease;
use crate::failure;
use crate::failure::Fault;

/// An answer's body; dropped before its end, it takes its connection along.
pub(crate) struct Http1Body {
    framing: Framing,
    /// What was read and not yet asked for.
    read: Decoded,
    fault: Option<Fault>,
    /// `None` once the body is over.
    source: Option<(Box<Http1>, Lease)>,
}

impl Http1Body {
    /// `read` is what came together with the head.
    pub(super) fn new(framing: Framing, read: Decoded, connection: Box<Http1>, lease: Lease) -> Self {
        let mut body = Self {
            framing,
            read: Decoded::default(),
            fault: None,
            source: Some((connection, lease)),
        };
        body.accept(read);
        body
    }

    /// Reads what is there already. A whole body of known length that came with its head comes out as bytes.
    pub(crate) fn settle(mut self) -> Result<Self, Bytes> {
        if !matches!(self.framing, Framing::Length(_)) {
            return Ok(self);
        }
        if self.read.data.is_empty() && !self.read.ended {
            let _ = self.poll_read(&mut Context::from_waker(Waker::noop()));
        }
        match self.read.ended {
            true => Err(std::mem::take(&mut self.read.data)),
            false => Ok(self),
        }
    }

    /// Reads once more; ready when there is something to tell.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while let Some((connection, _)) = &mut self.source {
            match ready!(connection.poll_body(&mut self.framing, context)) {
                Ok(decoded) => self.accept(decoded),
                Err(fault) => {
                    self.source = None;
                    self.fault = Some(fault);
                }
            }
            if !self.read.data.is_empty() {
                break;
            }
        }
        Poll::Ready(())
    }

    fn accept(&mut self, decoded: Decoded) {
        self.read = decoded;
        if let Some(reason) = self.read.broken {
            self.source = None;
            self.fault = Some(Fault::Garbled(reason));
        } else if self.read.ended
            && let Some((mut connection, lease)) = self.source.take()
        {
            // The answer is complete: the connection is free again.
            if self.read.excess > 0 {
                connection.spoil();
            }
            lease.endpoint().put_back(connection);
        }
    }

    fn take_read(&mut self) -> Option<Result<Frame<Bytes>, Error>> {
        if !self.read.data.is_empty() {
            return Some(Ok(Frame::data(std::mem::take(&mut self.read.data))));
        }
        if let Some(fault) = self.fault.take() {
            return Some(Err(failure::cut(&fault)));
        }
        let trailers = self.read.trailers.take()?;
        Some(Ok(Frame::trailers(*trailers)))
    }
}

impl HttpBody for Http1Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut frame = self.take_read();
        if frame.is_none() {
            ready!(self.poll_read(context));
            frame = self.take_read();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let read = &self.read;
        self.source.is_none() && self.fault.is_none() && read.data.is_empty() && read.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::Length(left) => SizeHint::with_exact(left + self.read.data.len() as u64),
            Framing::Chunked(_) | Framing::UntilClose => SizeHint::default(),
        }
    }
}

impl Source for Http1Body {
    fn is_dry(&mut self, context: &mut Context<'_>) -> bool {
        let is_taken = self.read.data.is_empty() && self.read.trailers.is_none();
        is_taken
            && self
                .source
                .as_mut()
                .is_some_and(|(connection, _)| connection.is_dry(context))
    }
}

impl Drop for Http1Body {
    fn drop(&mut self) {
        // A reader that stops at the last event has not seen the end of the framing; it may be there already.
        if self.source.is_some() && self.read.data.is_empty() {
            let _ = self.poll_read(&mut Context::from_waker(Waker::noop()));
        }
    }
}
