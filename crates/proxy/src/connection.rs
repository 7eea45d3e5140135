//! One client connection: finds out whether it speaks HTTP/1.1 or h2, and has it served. HTTP/1.1 is spoken by
//! `http1`, h2 by hyper; both hand requests to `request::handle`.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use http::HeaderValue;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tollgate_base::shutdown::Phase;
use tollgate_base::task;
use tollgate_body::http1::poll_read;
use tollgate_observe::Record;
use tollgate_observe::record::Connection;
use tollgate_snapshot::Settings;

use crate::http1;
use crate::listener::OpenConnection;
use crate::metered::Arriving;
use crate::pulse::{Order, Pulse};
use crate::request;
use crate::stream::Stream;
use crate::tls::Authorities;
use crate::turn::Turns;
use crate::worker::Worker;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// What an h2 client says first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client's connection as its requests see it.
pub(crate) struct Client {
    /// What log lines say of it.
    pub connection: Rc<Connection>,
    /// The peer's address, as forwarding headers show it.
    pub address: HeaderValue,
    /// The authorities of which one vouched for it in its handshake.
    pub vouched: Option<Authorities>,
    /// What it is doing, and what it is told to do.
    pub pulse: Rc<Pulse>,
    /// Counts it until its last request, or the tunnel it became, is over.
    _open: OpenConnection,
}

impl Client {
    fn new(connection: Connection, vouched: Option<Authorities>, open: OpenConnection) -> Self {
        let address = connection.peer.ip().to_canonical().to_string();
        Self {
            // An address in text is always a valid value.
            address: HeaderValue::try_from(address).unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            connection: Rc::new(connection),
            vouched,
            pulse: Rc::new(Pulse::new()),
            _open: open,
        }
    }

    /// A request has begun.
    pub(crate) fn request_begins(&self, record: &Rc<Record>) {
        self.pulse.begin(record);
    }

    /// A request's answer is over.
    pub(crate) fn request_ends(&self, record: &Rc<Record>) {
        self.pulse.end(record);
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve(
    open: OpenConnection,
    mut stream: Stream,
    vouched: Option<Authorities>,
    peer: SocketAddr,
    local: SocketAddr,
) {
    let worker = open.worker.clone();
    let (tls, server_name) = match &stream {
        Stream::Plain(_) => (false, None),
        Stream::Tls(tls) => (true, tls.get_ref().1.server_name().map(Into::into)),
    };
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let connection = Connection {
        id,
        peer,
        local,
        server_name,
        tls,
    };
    let client = Rc::new(Client::new(connection, vouched, open));
    worker.clients.add(&client.pulse);
    if worker.shutdown.phase() != Phase::Running {
        // Its handshake was under way when the others were told.
        client.pulse.order(Order::Drain);
    }
    let mut first = Vec::new();
    match poll_fn(|context| poll_protocol(&mut stream, &client.pulse, &mut first, context)).await {
        Protocol::Http1 => http1::serve(&worker, &client, stream, first).await,
        Protocol::Http2 => Box::pin(serve_http2(worker, client, stream, first)).await,
        Protocol::Silence => {}
    }
}

/// What a client's first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
    /// There are none.
    Silence,
}

/// What is known once these bytes have come; `None`: they are the beginning of an h2 preface.
fn protocol(first: &[u8]) -> Option<Protocol> {
    let compared = first.len().min(PREFACE.len());
    match first.get(..compared) == PREFACE.get(..compared) {
        false => Some(Protocol::Http1),
        true if compared == PREFACE.len() => Some(Protocol::Http2),
        true => None,
    }
}

/// Reads into `first` until it is clear what the client speaks.
fn poll_protocol(
    stream: &mut Stream,
    pulse: &Pulse,
    first: &mut Vec<u8>,
    context: &mut Context<'_>,
) -> Poll<Protocol> {
    loop {
        if let Some(known) = protocol(first) {
            return Poll::Ready(known);
        }
        if pulse.poll_order(context) != Order::Serve {
            // It is told in HTTP/1, which is what half a preface is as well.
            return Poll::Ready(Protocol::Http1);
        }
        match ready!(poll_read(stream, context, |input| first.extend_from_slice(input))) {
            Ok(Some(())) => pulse.bytes_came(),
            Ok(None) | Err(_) => return Poll::Ready(Protocol::Silence),
        }
    }
}

async fn serve_http2(worker: Rc<Worker>, client: Rc<Client>, stream: Stream, first: Vec<u8>) {
    let pulse = client.pulse.clone();
    // Its idle connections carry pings: bytes that come are no request head.
    pulse.enter_idle();
    let builder = http2_builder(&worker.live.load().settings, worker.turns);
    let io = TokioIo::new(Watched {
        stream,
        pulse: pulse.clone(),
        first,
    });
    let peer = client.connection.peer;
    // Boxed: hyper keeps the room of a request's future for as long as the stream lives.
    let service = service_fn(move |incoming: http::Request<Incoming>| {
        let arriving = incoming.map(Arriving::Http2);
        let handling = request::handle(worker.clone(), &client, arriving, None);
        Box::pin(async move { Ok::<_, Infallible>(handling.await) })
    });
    let mut serving = Box::pin(builder.serve_connection(io, service));
    let mut is_told = false;
    let outcome = poll_fn(|context| {
        // An order to close is carried out by the stream itself, on its next read; see `Watched`.
        if pulse.poll_order(context) == Order::Drain && !is_told {
            is_told = true;
            serving.as_mut().graceful_shutdown();
        }
        serving.as_mut().poll(context)
    })
    .await;
    if let Err(cause) = outcome {
        tracing::debug!(peer = %peer, error = %cause, "client connection ended");
    }
}

fn http2_builder(settings: &Settings, turns: Turns) -> http2::Builder<LocalExecutor> {
    let mut builder = http2::Builder::new(LocalExecutor(turns));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.http2_max_streams)
        .initial_stream_window_size(settings.http2_stream_window)
        .initial_connection_window_size(settings.http2_connection_window)
        // What is too large by less than that is refused where it is accounted for; see `normalise`.
        .max_header_list_size(u32::try_from(settings.max_request_head.saturating_mul(2)).unwrap_or(u32::MAX));
    builder
}

/// Runs h2 streams on the worker's own thread.
#[derive(Clone)]
struct LocalExecutor(Turns);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        drop(task::spawn_local("h2 stream", self.0.seat(future)));
    }
}

/// A client's stream that ends when its connection is told to close.
struct Watched {
    stream: Stream,
    pulse: Rc<Pulse>,
    /// What was read of it before it was known for what it is.
    first: Vec<u8>,
}

impl Watched {
    fn check(&self) -> io::Result<()> {
        match self.pulse.ordered() {
            Order::Close | Order::CloseSlow => Err(io::ErrorKind::TimedOut.into()),
            Order::Serve | Order::Drain => Ok(()),
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        if !self.first.is_empty() {
            let count = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first[..count]);
            self.first.drain(..count);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        let outcome = Pin::new(&mut self.stream).poll_write(context, data);
        self.pulse.wrote(&outcome);
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.pulse.wrote(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preface_is_h2_and_nothing_else_is() {
        for length in 0..PREFACE.len() {
            assert_eq!(protocol(&PREFACE[..length]), None, "{length}");
            let mut other = PREFACE[..length].to_vec();
            other.push(b'?');
            assert_eq!(protocol(&other), Some(Protocol::Http1), "{length}");
        }
        assert_eq!(protocol(&[PREFACE, b"\0\0\0"].concat()), Some(Protocol::Http2));
        assert_eq!(protocol(b"GET / HTTP/1.1"), Some(Protocol::Http1));
    }
}
