//! One client connection: speaks HTTP/1.1 or h2, hands requests to `request::handle`, and knows how idle it is.
//!
//! Idle and slow connections are found by one sweep per second and worker, so that a request arms no timer for them.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderValue;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::server::TlsStream;
use tollgate_base::clock::{self, Instant};
use tollgate_base::shutdown::Phase;
use tollgate_base::task;
use tollgate_observe::record::Connection;
use tollgate_snapshot::Settings;

use crate::listener::OpenConnection;
use crate::request;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// What is said to a client whose request head does not arrive in time (RFC 9110 §15.5.9).
const SLOW_HEAD: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// A client's connection as its requests see it.
pub(crate) struct Client {
    /// What log lines say of it.
    pub connection: Rc<Connection>,
    /// The peer's address, as forwarding headers show it.
    pub address: HeaderValue,
    /// Counts it until its last request, or the tunnel it became, is over.
    _open: OpenConnection,
    open_requests: Cell<u32>,
    pulse: Arc<Pulse>,
}

/// What the stream and the sweep know of a connection. Atomic only because an upgraded stream must be `Send`; it
/// never leaves its thread.
struct Pulse {
    accepted: Instant,
    activity: AtomicU8,
    /// Milliseconds from `accepted` to the last change of activity.
    since: AtomicU64,
    /// Milliseconds from `accepted` to when the client stopped taking bytes; [`FLOWING`] while it takes them.
    blocked: AtomicU64,
    order: AtomicU8,
    wake: Notify,
}

/// Waiting for a request.
const IDLE: u8 = 0;
/// Part of a request head has come.
const HEAD: u8 = 1;
/// Requests are under way.
const BUSY: u8 = 2;

const SERVE: u8 = 0;
/// Finish what is open, then close.
const DRAIN: u8 = 1;
/// Close now.
const CLOSE: u8 = 2;
/// Close now, telling an HTTP/1 client why.
const CLOSE_SLOW: u8 = 3;

/// Nothing waits to be written.
const FLOWING: u64 = u64::MAX;
/// How long an idle HTTP/2 client gets to answer that it has understood that its connection closes.
const GOODBYE: Duration = Duration::from_secs(5);

impl Client {
    fn new(connection: Connection, open: OpenConnection) -> Self {
        let address = connection.peer.ip().to_canonical().to_string();
        Self {
            // An address in text is always a valid value.
            address: HeaderValue::try_from(address).unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            connection: Rc::new(connection),
            _open: open,
            open_requests: Cell::new(0),
            pulse: Arc::new(Pulse::new()),
        }
    }

    /// A request has begun.
    pub(crate) fn request_begins(&self) {
        self.open_requests.set(self.open_requests.get() + 1);
        self.pulse.enter_busy();
    }

    /// A request's answer is over.
    pub(crate) fn request_ends(&self) {
        self.open_requests.set(self.open_requests.get().saturating_sub(1));
        if self.open_requests.get() == 0 {
            self.pulse.enter(IDLE);
        }
    }
}

impl Pulse {
    fn new() -> Self {
        Self {
            accepted: clock::now(),
            activity: AtomicU8::new(IDLE),
            since: AtomicU64::new(0),
            blocked: AtomicU64::new(FLOWING),
            order: AtomicU8::new(SERVE),
            wake: Notify::new(),
        }
    }

    /// A head came in time after all: nobody is turned away for it, nor for a later one.
    fn enter_busy(&self) {
        self.activity.store(BUSY, Ordering::Relaxed);
        if self.order.load(Ordering::Relaxed) == CLOSE_SLOW {
            self.order.store(SERVE, Ordering::Relaxed);
        }
    }

    fn age(&self) -> u64 {
        u64::try_from(self.accepted.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn enter(&self, activity: u8) {
        self.since.store(self.age(), Ordering::Relaxed);
        self.activity.store(activity, Ordering::Relaxed);
    }

    /// Notes whether the client took bytes; looks at the clock only when that changes.
    fn wrote<T>(&self, outcome: &Poll<T>) {
        let was_blocked = self.blocked.load(Ordering::Relaxed) != FLOWING;
        if outcome.is_pending() != was_blocked {
            let blocked = if was_blocked { FLOWING } else { self.age() };
            self.blocked.store(blocked, Ordering::Relaxed);
        }
    }

    fn bytes_came(&self) {
        if self.activity.load(Ordering::Relaxed) == IDLE {
            self.enter(HEAD);
        }
    }

    fn order(&self, order: u8) {
        if self.order.swap(order, Ordering::Relaxed) != order {
            self.wake.notify_one();
        }
    }

    fn sweep(&self, now: Instant, settings: &Settings) {
        let age = now.saturating_duration_since(self.accepted);
        let waited = age.saturating_sub(Duration::from_millis(self.since.load(Ordering::Relaxed)));
        let blocked = age.saturating_sub(Duration::from_millis(self.blocked.load(Ordering::Relaxed)));
        let idle = settings.downstream_idle;
        let over = |time: Duration, limit: Duration| !limit.is_zero() && time >= limit;
        match self.activity.load(Ordering::Relaxed) {
            _ if over(blocked, idle) => self.order(CLOSE),
            IDLE if over(waited, idle) && waited >= idle + GOODBYE => self.order(CLOSE),
            IDLE if over(waited, idle) => self.order(DRAIN),
            HEAD if over(waited, settings.request_head_timeout) => self.order(CLOSE_SLOW),
            _ => {}
        }
    }

    fn ordered(&self) -> u8 {
        self.order.load(Ordering::Relaxed)
    }
}

/// All client connections of a worker.
#[derive(Default)]
pub(crate) struct Clients(RefCell<Vec<Weak<Pulse>>>);

impl Clients {
    fn add(&self, client: &Rc<Client>) {
        self.0.borrow_mut().push(Arc::downgrade(&client.pulse));
    }

    /// Closes what has been idle or slow for too long, forgets what is gone.
    pub(crate) fn sweep(&self, settings: &Settings) {
        let now = clock::now();
        self.0.borrow_mut().retain(|weak| match weak.upgrade() {
            Some(pulse) => {
                pulse.sweep(now, settings);
                true
            }
            None => false,
        });
    }

    /// Tells every connection to finish what is open.
    pub(crate) fn drain(&self) {
        for pulse in self.0.borrow().iter().filter_map(Weak::upgrade) {
            pulse.order(DRAIN);
        }
    }
}

/// The two kinds of client streams.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Serves a connection to its end.
pub(crate) async fn serve(open: OpenConnection, stream: Stream, peer: SocketAddr, local: SocketAddr) {
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
    let client = Rc::new(Client::new(connection, open));
    worker.clients.add(&client);
    if worker.shutdown.phase() != Phase::Running {
        // Its handshake was under way when the others were told.
        client.pulse.order(DRAIN);
    }

    let builder = http_builder(&worker.live.load().settings);
    let io = TokioIo::new(Watched {
        stream,
        pulse: client.pulse.clone(),
        protocol: Protocol::Unknown(0),
    });
    let (service_worker, service_client) = (worker.clone(), client.clone());
    // Boxed: hyper keeps the room of a request's future for as long as the connection lives.
    let service = service_fn(move |incoming| {
        Box::pin(request::handle(
            service_worker.clone(),
            service_client.clone(),
            incoming,
        ))
    });
    let mut serving = Box::pin(builder.serve_connection_with_upgrades(io, service));
    loop {
        tokio::select! {
            outcome = serving.as_mut() => {
                if let Err(cause) = outcome {
                    tracing::debug!(peer = %peer, error = %cause, "client connection ended");
                }
                return;
            }
            () = client.pulse.wake.notified() => {
                // An order to close is carried out by the stream itself, on its next read; see `Watched`.
                if client.pulse.order.load(Ordering::Relaxed) == DRAIN {
                    serving.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

fn http_builder(settings: &Settings) -> auto::Builder<LocalExecutor> {
    let mut builder = auto::Builder::new(LocalExecutor);
    builder
        .http1()
        .header_read_timeout(None)
        .max_buf_size(settings.max_request_head.max(8 * 1024));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.http2_max_streams)
        .initial_stream_window_size(settings.http2_stream_window)
        .initial_connection_window_size(settings.http2_connection_window)
        .max_header_list_size(u32::try_from(settings.max_request_head).unwrap_or(u32::MAX));
    builder
}

/// Runs h2 streams on the worker's own thread.
#[derive(Debug, Clone, Copy)]
struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        drop(task::spawn_local("h2 stream", future));
    }
}

/// A client's stream that notes when bytes come and ends when its connection is told to close.
struct Watched {
    stream: Stream,
    pulse: Arc<Pulse>,
    protocol: Protocol,
}

/// What the client's first bytes said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// So many bytes, and all of them those of an h2 preface.
    Unknown(usize),
    Http1,
    /// Its idle connections carry pings: bytes that come are no request head.
    Http2,
}

impl Protocol {
    /// What is known once `came` has come.
    fn after(self, came: &[u8]) -> Self {
        const PREFACE: &[u8] = b"PRI";
        let Self::Unknown(seen) = self else { return self };
        let expected = PREFACE.get(seen..).unwrap_or_default();
        let compared = expected.len().min(came.len());
        if came.get(..compared) != expected.get(..compared) {
            return Self::Http1;
        }
        match seen + compared {
            whole if whole == PREFACE.len() => Self::Http2,
            part => Self::Unknown(part),
        }
    }
}

impl Watched {
    fn stream(&mut self) -> Pin<&mut (dyn ReadWrite + Unpin)> {
        match &mut self.stream {
            Stream::Plain(tcp) => Pin::new(tcp),
            Stream::Tls(tls) => Pin::new(tls.as_mut()),
        }
    }
}

trait ReadWrite: AsyncRead + AsyncWrite {}
impl<T: AsyncRead + AsyncWrite> ReadWrite for T {}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.pulse.ordered() {
            CLOSE => return Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            CLOSE_SLOW => {
                // One try: a client that does not read its 408 either is not waited for.
                let said = self.stream().poll_write(context, SLOW_HEAD);
                let flushed = self.stream().poll_flush(context);
                tracing::debug!(
                    told = said.is_ready() && flushed.is_ready(),
                    "request head timed out"
                );
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            _ => {}
        }
        let before = buffer.filled().len();
        let outcome = self.stream().poll_read(context, buffer);
        let came = buffer.filled().get(before..).unwrap_or_default();
        if !came.is_empty() {
            let known = self.protocol.after(came);
            match known {
                Protocol::Http2 if self.protocol != known => self.pulse.enter(IDLE),
                Protocol::Http2 => {}
                Protocol::Unknown(_) | Protocol::Http1 => self.pulse.bytes_came(),
            }
            self.protocol = known;
        }
        outcome
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.pulse.ordered() == CLOSE {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let outcome = self.stream().poll_write(context, data);
        self.pulse.wrote(&outcome);
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.pulse.ordered() == CLOSE {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let outcome = self.stream().poll_write_vectored(context, slices);
        self.pulse.wrote(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(tcp) => tcp.is_write_vectored(),
            Stream::Tls(tls) => tls.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered_after(pulse: &Pulse, seconds: u64) -> u8 {
        let now = pulse.accepted + Duration::from_secs(seconds);
        pulse.sweep(now, &Settings::default());
        pulse.ordered()
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_asked_to_go_and_then_closed() {
        let pulse = Pulse::new();
        assert_eq!(ordered_after(&pulse, 179), SERVE);
        assert_eq!(ordered_after(&pulse, 180), DRAIN);
        assert_eq!(ordered_after(&pulse, 184), DRAIN);
        assert_eq!(ordered_after(&pulse, 185), CLOSE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_head_is_closed_unless_it_came_after_all() {
        let pulse = Pulse::new();
        pulse.bytes_came();
        assert_eq!(ordered_after(&pulse, 9), SERVE);
        assert_eq!(ordered_after(&pulse, 10), CLOSE_SLOW);
        pulse.enter_busy();
        assert_eq!(pulse.ordered(), SERVE);
        assert_eq!(ordered_after(&pulse, 10_000), SERVE);
        // The next head has its own time.
        tokio::time::advance(Duration::from_secs(20)).await;
        pulse.enter(IDLE);
        pulse.bytes_came();
        assert_eq!(ordered_after(&pulse, 29), SERVE);
        assert_eq!(ordered_after(&pulse, 30), CLOSE_SLOW);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_closed_one_that_is_slow_is_not() {
        let pulse = Pulse::new();
        pulse.enter_busy();
        pulse.wrote(&Poll::<()>::Pending);
        assert_eq!(ordered_after(&pulse, 179), SERVE);
        tokio::time::advance(Duration::from_secs(100)).await;
        pulse.wrote(&Poll::Ready(()));
        pulse.wrote(&Poll::<()>::Pending);
        assert_eq!(ordered_after(&pulse, 279), SERVE);
        assert_eq!(ordered_after(&pulse, 280), CLOSE);
    }

    #[test]
    fn a_preface_in_pieces_is_h2_and_nothing_else_is() {
        let unknown = Protocol::Unknown(0);
        assert_eq!(
            unknown.after(b"P").after(b"R").after(b"I * HTTP/2.0"),
            Protocol::Http2
        );
        assert_eq!(unknown.after(b"PRI * HTTP/2.0"), Protocol::Http2);
        assert_eq!(unknown.after(b"P").after(b"OST / HTTP/1.1"), Protocol::Http1);
        assert_eq!(unknown.after(b"GET / HTTP/1.1"), Protocol::Http1);
        assert_eq!(Protocol::Http1.after(b"PRI"), Protocol::Http1);
    }
}
