//! A connected byte stream: TCP, bare or inside TLS, with its bytes counted.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tollgate_observe::metrics::ClusterMetrics;

/// What a connection reads from and writes to.
pub(crate) struct Stream {
    transport: Transport,
    metrics: Arc<ClusterMetrics>,
    arrival: Option<Arc<Arrival>>,
}

/// Tells when something arrives on a stream that somebody else reads.
#[derive(Debug, Default)]
pub(crate) struct Arrival {
    something: AtomicBool,
    over: AtomicBool,
    waker: AtomicWaker,
}

impl Arrival {
    /// Wakes the task at the next arrival and at the end.
    pub(crate) fn register(&self, context: &Context<'_>) {
        self.waker.register(context.waker());
    }

    /// Whether any byte came.
    pub(crate) fn something(&self) -> bool {
        self.something.load(Ordering::Relaxed)
    }

    /// Whether nothing more will come.
    pub(crate) fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn note(&self, flag: &AtomicBool) {
        flag.store(true, Ordering::Relaxed);
        self.waker.wake();
    }
}

/// What is below.
pub(crate) enum Transport {
    /// In the clear.
    Plain(TcpStream),
    /// TLS; boxed because it is large and a plain stream should not pay for it.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub(crate) fn new(transport: Transport, metrics: Arc<ClusterMetrics>) -> Self {
        Self {
            transport,
            metrics,
            arrival: None,
        }
    }

    pub(crate) fn watch(&mut self) -> Arc<Arrival> {
        Arc::clone(self.arrival.get_or_insert_default())
    }

    /// Whether a read would bring nothing now; then this task is woken once it would.
    pub(crate) fn is_dry(&self, context: &mut Context<'_>) -> bool {
        let tcp = match &self.transport {
            Transport::Plain(tcp) => tcp,
            // What is decrypted already waits for nobody.
            Transport::Tls(tls) if !tls.get_ref().1.wants_read() => return false,
            Transport::Tls(tls) => tls.get_ref().0,
        };
        tcp.poll_read_ready(context).is_pending()
    }

    fn sent(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = polled {
            self.metrics.sent_bytes.add(count as u64);
        }
        polled
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = match &mut this.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_read(context, buffer),
            Transport::Tls(tls) => Pin::new(tls).poll_read(context, buffer),
        };
        let count = buffer.filled().len() - before;
        if count > 0 {
            this.metrics.received_bytes.add(count as u64);
        }
        if let Some(arrival) = &this.arrival
            && count > 0
        {
            arrival.note(&arrival.something);
        }
        polled
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(arrival) = &self.arrival {
            arrival.note(&arrival.over);
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = match &mut this.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_write(context, bytes),
            Transport::Tls(tls) => Pin::new(tls).poll_write(context, bytes),
        };
        this.sent(polled)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_flush(context),
            Transport::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            Transport::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = match &mut this.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_write_vectored(context, slices),
            Transport::Tls(tls) => Pin::new(tls).poll_write_vectored(context, slices),
        };
        this.sent(polled)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(tcp) => tcp.is_write_vectored(),
            Transport::Tls(tls) => tls.is_write_vectored(),
        }
    }
}
