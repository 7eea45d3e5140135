//! HTTP/2 connections: several requests each, a task each, dials shared by those who wait for one.

use std::cell::{Cell, OnceCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
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

use crate::dial::Dialed;
use crate::endpoint::{Counted, Lease};
use crate::failure::{self, DialFailure};
use crate::http1::{Broken, Driver, Waiting};
use crate::outgoing::{Outgoing, Sendable};

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

/// An open connection.
pub(crate) struct Http2 {
    sender: http2::SendRequest<Outgoing>,
    in_flight: Cell<usize>,
    /// What the other side allows (`SETTINGS_MAX_CONCURRENT_STREAMS`), as of its last frame.
    allowed: Rc<Cell<usize>>,
    idle_since: Cell<Instant>,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) tls: bool,
    _driver: Driver,
}

impl Http2 {
    /// Speaks HTTP/2 on a fresh stream.
    pub(crate) async fn open(dialed: Dialed, tls: bool, counted: Counted) -> Result<Rc<Self>, hyper::Error> {
        let (sender, mut connection) = http2::Builder::new(OnThisWorker)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(dialed.stream))
            .await?;
        let allowed = Rc::new(Cell::new(connection.current_max_send_streams()));
        let seen = Rc::clone(&allowed);
        let driver = tollgate_base::task::spawn_local("upstream http/2 connection", async move {
            let ended = poll_fn(|context| {
                let polled = Pin::new(&mut connection).poll(context);
                seen.set(connection.current_max_send_streams());
                polled
            })
            .await;
            if let Err(cause) = ended {
                tracing::debug!(cause = failure::chain(&cause), "upstream connection failed");
            }
            drop(counted);
        });
        Ok(Rc::new(Self {
            sender,
            in_flight: Cell::new(0),
            allowed,
            idle_since: Cell::new(clock::now()),
            peer: dialed.peer,
            local: dialed.local,
            tls,
            _driver: Driver::of(driver),
        }))
    }

    pub(crate) fn has_room(&self) -> bool {
        !self.sender.is_closed() && self.in_flight.get() < self.allowed.get()
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
#[derive(Default)]
pub(crate) struct Dialing {
    outcome: OnceCell<Result<(), DialFailure>>,
    done: Notify,
}

impl Dialing {
    /// Tells everybody; only the first word counts.
    pub(crate) fn finish(&self, outcome: Result<(), DialFailure>) {
        let _ = self.outcome.set(outcome);
        self.done.notify_waiters();
    }

    /// Waits for the end of the dial. Success means: look at the endpoint's connections again.
    pub(crate) async fn wait(&self) -> Result<(), DialFailure> {
        loop {
            let notified = self.done.notified();
            if let Some(outcome) = self.outcome.get() {
                return outcome.clone();
            }
            notified.await;
        }
    }
}
