//! A client's connection that another protocol has taken over.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::wire::Wire;
use crate::pulse::Order;

/// The client's side of an upgrade, which comes once the client has been told of it.
pub(crate) type Takeover = oneshot::Receiver<Tunnel>;

/// A client's bytes, both ways.
pub(crate) struct Tunnel {
    wire: Rc<Wire>,
    /// What came ahead of the upgrade.
    rest: Vec<u8>,
}

impl Tunnel {
    pub(super) fn new(wire: Rc<Wire>) -> Self {
        let rest = wire.take_rest();
        Self { wire, rest }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.wire.pulse().poll_order(context) == Order::Close {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if !self.rest.is_empty() {
            let count = self.rest.len().min(buffer.remaining());
            buffer.put_slice(&self.rest[..count]);
            self.rest.drain(..count);
            if self.rest.is_empty() {
                self.rest = Vec::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut *self.wire.stream().borrow_mut()).poll_read(context, buffer)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let pulse = self.wire.pulse();
        if pulse.poll_order(context) == Order::Close {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let written = Pin::new(&mut *self.wire.stream().borrow_mut()).poll_write(context, data);
        pulse.wrote(&written);
        Poll::Ready(ready!(written))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.wire.stream().borrow_mut()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.wire.stream().borrow_mut()).poll_shutdown(context)
    }
}
