//! HTTP/2 connections: several requests each, a task each, dials shared by those who wait for one.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;
use tollgate_base::Error;
use tollgate_base::clock::{self, Instant};
use tollgate_body::Source;

use crate::dial::Dialed;
use crate::endpoint::{Counted, Lease};
use crate::failure::{self, DialFailure};
use crate::outgoing::{Outgoing, Sendable};
use crate::stream::{Arrival, Stream};
use crate::upgrade::Driver;
use crate::waiting::{Broken, Waiting};

/// Receive window of a stream, in bytes: what the upstream may send ahead of a slow client.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Receive window of a connection, in bytes.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Spawns hyper's own tasks on this worker.
#[derive(Clone, Copy)]
struct OnThisWorker;

impl<F> hyper::rt::Executor<F> for OnThisWorker
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        drop(tollgate_base::task::spawn_local("upstream http/2 stream", future));
    }
}

/// What hyper says of a connection whose other side has not yet said how many streams it allows.
const UNTOLD: usize = 1_000_003;

type Connection = http2::Connection<TokioIo<Stream>, Outgoing, OnThisWorker>;

/// An open connection.
pub(crate) struct Http2 {
    sender: http2::SendRequest<Outgoing>,
    in_flight: Cell<usize>,
    /// What the other side allows (`SETTINGS_MAX_CONCURRENT_STREAMS`), as far as known.
    allowed: Cell<usize>,
    idle_since: Cell<Instant>,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) tls: bool,
    /// Shared with the task that drives it; asked for what the other side allows. `None` once it has ended.
    connection: Rc<RefCell<Option<Connection>>>,
    arrival: Arc<Arrival>,
    _driver: Driver,
}

impl Http2 {
    /// Speaks HTTP/2 on a fresh stream.
    pub(crate) async fn open(
        mut dialed: Dialed,
        tls: bool,
        counted: Counted,
    ) -> Result<Rc<Self>, hyper::Error> {
        let arrival = dialed.stream.watch();
        let (sender, connection) = http2::Builder::new(OnThisWorker)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(UNTOLD)
            .handshake(TokioIo::new(dialed.stream))
            .await?;
        let connection = Rc::new(RefCell::new(Some(connection)));
        let driven = Rc::clone(&connection);
        let driver = tollgate_base::task::spawn_local("upstream http/2 connection", async move {
            poll_fn(|context| match driven.borrow_mut().as_mut() {
                Some(connection) => Pin::new(connection).poll(context).map(drop),
                None => Poll::Ready(()),
            })
            .await;
            // Frees what waits in it to be sent.
            let over = driven.take();
            drop((over, counted));
        });
        Ok(Rc::new(Self {
            sender,
            in_flight: Cell::new(0),
            allowed: Cell::new(UNTOLD),
            idle_since: Cell::new(clock::now()),
            peer: dialed.peer,
            local: dialed.local,
            tls,
            connection,
            arrival,
            _driver: Driver::of(driver),
        }))
    }

    /// How many streams the other side allows now; it may change its mind at any time.
    fn allowed(&self) -> usize {
        // Busy only when asked from within a request body that the connection is just polling.
        if let Ok(driven) = self.connection.try_borrow()
            && let Some(connection) = driven.as_ref()
        {
            self.allowed.set(connection.current_max_send_streams());
        }
        self.allowed.get()
    }

    /// Waits until the other side has said how many streams it allows; `false` when the connection ended before.
    pub(crate) async fn settled(&self) -> bool {
        poll_fn(|context| {
            self.arrival.register(context);
            if self.allowed() != UNTOLD {
                return Poll::Ready(true);
            }
            if self.arrival.over() {
                return Poll::Ready(false);
            }
            Poll::Pending
        })
        .await
    }

    /// Whether it ended on bytes that are not HTTP/2.
    pub(crate) fn spoke_otherwise(&self) -> bool {
        self.arrival.over() && self.arrival.something() && self.allowed() == UNTOLD
    }

    pub(crate) fn has_room(&self) -> bool {
        !self.sender.is_closed() && self.in_flight.get() < self.allowed()
    }

    /// Closed, or idle for too long.
    pub(crate) fn is_over(&self, now: Instant, idle_timeout: Duration) -> bool {
        let idle = self.in_flight.get() == 0;
        self.sender.is_closed()
            || idle && now.saturating_duration_since(self.idle_since.get()) >= idle_timeout
    }

    /// Sends one request and waits for the head of the answer.
    pub(crate) async fn exchange(
        &self,
        request: Sendable,
        waiting: &mut Waiting<'_>,
    ) -> Result<http::Response<Incoming>, Broken> {
        let mut sender = self.sender.clone();
        waiting.answer(sender.try_send_request(request)).await
    }
}

/// One of a connection's streams, until its end.
pub(crate) struct Slot(Rc<Http2>);

impl Slot {
    pub(crate) fn new(connection: Rc<Http2>) -> Self {
        connection.in_flight.set(connection.in_flight.get() + 1);
        Self(connection)
    }

    pub(crate) fn connection(&self) -> &Http2 {
        &self.0
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
        self.0.idle_since.set(clock::now());
    }
}

/// The body of an answer; dropping it early resets its stream.
pub(crate) struct StreamBody<S> {
    incoming: Incoming,
    /// What must live as long as the body; given up at its end.
    source: Option<(S, Lease)>,
}

impl<S> StreamBody<S> {
    pub(crate) fn new(incoming: Incoming, source: S, lease: Lease) -> Self {
        Self {
            incoming,
            source: Some((source, lease)),
        }
    }
}

impl<S: Unpin> Source for StreamBody<S> {}

impl<S: Unpin> HttpBody for StreamBody<S> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.source = None;
        }
        polled.map_err(|cause| failure::cut(&cause))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// A dial that several requests wait for.
///
/// The first of them gets the connection as soon as it is open; the others when it is known how many it can take.
#[derive(Default)]
pub(crate) struct Dialing {
    early: RefCell<Option<Slot>>,
    outcome: OnceCell<Result<(), DialFailure>>,
    news: Notify,
}

impl Dialing {
    /// Gives the open connection to whoever asks first.
    pub(crate) fn offer(&self, connection: &Rc<Http2>) {
        self.early.replace(Some(Slot::new(Rc::clone(connection))));
        self.news.notify_waiters();
    }

    /// Tells everybody; only the first word counts.
    pub(crate) fn finish(&self, outcome: Result<(), DialFailure>) {
        self.early.replace(None);
        let _ = self.outcome.set(outcome);
        self.news.notify_waiters();
    }

    /// Waits for the dial. `None` means: look at the endpoint's connections again.
    pub(crate) async fn wait(&self) -> Result<Option<Slot>, DialFailure> {
        loop {
            let news = self.news.notified();
            if let Some(slot) = self.early.take() {
                return Ok(Some(slot));
            }
            if let Some(outcome) = self.outcome.get() {
                return outcome.clone().map(|()| None);
            }
            news.await;
        }
    }
}
