//! The two layers between hyper and the socket that make byte-level faults possible.
//!
//! `Socket` lies directly on TCP: it limits how much one write carries and turns a drop into a reset.
//! `Scripted` lies above TLS: when everything written so far has been flushed it adds raw bytes (a GOAWAY
//! frame, bytes beyond the declared length) and ends the connection without a farewell.
//! A request's handler steers both through the `Control` of its connection. Neither knows HTTP.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// How a scripted end of a connection looks to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// A FIN after the last written byte, no TLS `close_notify`, no last chunk.
    Close,
    /// A TCP reset.
    Reset,
}

#[derive(Default)]
struct Wishes {
    inject: Bytes,
    inject_at_shutdown: Bytes,
    silent_shutdown: bool,
    ending: Option<Ending>,
}

/// What a handler may ask of its own connection.
#[derive(Default)]
pub(crate) struct Control {
    wishes: Mutex<Wishes>,
    wanted: Notify,
    /// Bytes that one write to the socket carries at most; 0 means no limit.
    write_limit: AtomicUsize,
}

impl Control {
    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection once all that was written before has reached the socket.
    pub(crate) fn end(&self, ending: Ending) {
        self.wishes().ending = Some(ending);
        self.wanted.notify_one();
    }

    /// Adds raw bytes behind all that was written before.
    pub(crate) fn inject(&self, raw: Bytes) {
        self.wishes().inject = raw;
        self.wanted.notify_one();
    }

    /// Adds raw bytes just before the connection's orderly end.
    pub(crate) fn inject_at_shutdown(&self, raw: Bytes) {
        self.wishes().inject_at_shutdown = raw;
    }

    /// The connection's orderly end will leave out what TLS says for farewell.
    pub(crate) fn shut_down_silently(&self) {
        self.wishes().silent_shutdown = true;
    }

    /// From now on no write to the socket carries more than `limit` bytes.
    pub(crate) fn limit_writes(&self, limit: usize) {
        self.write_limit.store(limit, Ordering::Relaxed);
    }

    /// Waits until a handler wants something that needs the connection to be polled.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    pub(crate) fn ending(&self) -> Option<Ending> {
        self.wishes().ending
    }
}

fn scripted_end() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "the script ends this connection",
    )
}

/// TCP with a limit on the size of a write and a choice of how a drop looks.
pub(crate) struct Socket {
    stream: TcpStream,
    control: std::sync::Arc<Control>,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, control: std::sync::Arc<Control>) -> Self {
        Self { stream, control }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.control.ending() == Some(Ending::Reset)
            && let Err(error) = self.stream.set_zero_linger()
        {
            tracing::debug!(%error, "cannot turn the close into a reset");
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let limit = self.control.write_limit.load(Ordering::Relaxed);
        let allowed = if limit == 0 {
            bytes.len()
        } else {
            bytes.len().min(limit)
        };
        Pin::new(&mut self.stream).poll_write(context, &bytes[..allowed])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.control.write_limit.load(Ordering::Relaxed) == 0 {
            return Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        }
        let first = slices.iter().find(|slice| !slice.is_empty());
        self.poll_write(context, first.map_or(&[][..], |slice| slice))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A stream that carries out the wishes of its `Control` at the points where nothing is left unwritten.
pub(crate) struct Scripted<S> {
    stream: S,
    control: std::sync::Arc<Control>,
    injecting: Bytes,
}

impl<S: AsyncWrite + Unpin> Scripted<S> {
    pub(crate) fn new(stream: S, control: std::sync::Arc<Control>) -> Self {
        Self {
            stream,
            control,
            injecting: Bytes::new(),
        }
    }

    fn poll_inject(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.injecting.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.injecting))?;
            self.injecting.advance(written);
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Scripted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Scripted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.injecting.is_empty() {
            ready!(self.poll_inject(context))?;
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.injecting.is_empty() {
            ready!(self.poll_inject(context))?;
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        if self.injecting.is_empty() {
            let wanted = std::mem::take(&mut self.control.wishes().inject);
            self.injecting = wanted;
        }
        ready!(self.poll_inject(context))?;
        match self.control.ending() {
            Some(_) => Poll::Ready(Err(scripted_end())),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.injecting.is_empty() {
            let wanted = std::mem::take(&mut self.control.wishes().inject_at_shutdown);
            self.injecting = wanted;
        }
        ready!(self.poll_inject(context))?;
        if self.control.ending().is_some() || self.control.wishes().silent_shutdown {
            return Poll::Ready(Err(scripted_end()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::sync::Arc;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_limited_socket_takes_few_bytes_a_write() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let control = Arc::new(Control::default());
        let mut socket = Socket::new(stream, Arc::clone(&control));
        let slices = [IoSlice::new(b""), IoSlice::new(b"abcde"), IoSlice::new(b"fgh")];
        assert_eq!(socket.write(b"abcdefgh").await.unwrap(), 8);
        assert_eq!(socket.write_vectored(&slices).await.unwrap(), 8);
        control.limit_writes(3);
        assert_eq!(socket.write(b"abcdefgh").await.unwrap(), 3);
        assert_eq!(socket.write_vectored(&slices).await.unwrap(), 3);
    }
}
