//! HTTP/1.1 connections, driven by the request that uses them.
//!
//! There is no task per connection: the future that waits for the head and the body that is read afterwards poll the
//! connection themselves, which spares two task switches per frame. A connection goes back to its endpoint only when
//! the answer was read to its end; a body dropped earlier takes the connection, hence the upstream's work, with it.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use tokio::task::coop::unconstrained;
use tollgate_base::clock::{self, Instant};
use tollgate_base::{Error, Timer};
use tollgate_observe::record::Record;

use crate::alarm::Alarm;
use crate::dial::Dialed;
use crate::endpoint::{Counted, Lease};
use crate::failure;
use crate::gate::Gate;
use crate::outgoing::{Outgoing, Progress, Sendable, Upload};
use crate::stream::Stream;
use crate::timers::SendTimers;

/// Largest response head in bytes, to within a factor of two, and the most that is read ahead of a slow client.
const LARGEST_BUFFER: usize = 64 * 1024;

type Connection = http1::Connection<TokioIo<Stream>, Outgoing>;

/// An open connection.
pub(crate) struct Http1 {
    sender: http1::SendRequest<Outgoing>,
    /// `None` once it has ended.
    connection: Option<Connection>,
    gate: Gate,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    idle_since: Instant,
    counted: Counted,
}

/// Why there is no answer.
pub(crate) enum Broken {
    /// The connection was over before anything of the request went out; here it is back.
    Unsent(Box<Sendable>),
    /// It went wrong on the way.
    Exchange(hyper::Error),
    /// Our own timer, or the request's own body.
    Ours(Error),
}

impl Broken {
    pub(crate) fn into_error(self, record: Option<&Record>) -> Error {
        match self {
            Broken::Unsent(_) => failure::closed_unsent(record),
            Broken::Exchange(cause) => failure::broken(&cause, record),
            Broken::Ours(error) => error,
        }
    }
}

impl Http1 {
    /// Speaks HTTP/1.1 on a fresh stream.
    pub(crate) async fn open(dialed: Dialed, counted: Counted) -> Result<Box<Self>, hyper::Error> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(LARGEST_BUFFER);
        let (sender, connection) = builder.handshake(TokioIo::new(dialed.stream)).await?;
        Ok(Box::new(Self {
            sender,
            connection: Some(connection),
            gate: Gate::new(),
            peer: dialed.peer,
            local: dialed.local,
            idle_since: clock::now(),
            counted,
        }))
    }

    pub(crate) fn idle_since(&self) -> Instant {
        self.idle_since
    }

    /// Becomes idle.
    pub(crate) fn rest(&mut self, now: Instant) {
        self.idle_since = now;
    }

    /// Whether the connection is open and waits for a request. Nobody is woken for it afterwards.
    pub(crate) fn is_reusable(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.connection.is_some() && self.sender.is_ready()
    }

    /// Lets the connection read and write; drops it once it has ended, which also tells whoever waits on it.
    fn drive(&mut self, context: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && let Poll::Ready(ended) =
                Pin::new(connection).poll(&mut Context::from_waker(self.gate.waker(context)))
        {
            if let Err(cause) = ended {
                tracing::debug!(peer = %self.peer, cause = failure::chain(&cause), "upstream connection failed");
            }
            self.connection = None;
        }
    }

    /// Sends the request in `slot` and waits for the head of the answer.
    pub(crate) async fn exchange(
        &mut self,
        slot: &mut Option<Sendable>,
        waiting: &mut Waiting<'_>,
    ) -> Result<http::Response<Incoming>, Broken> {
        let Some(request) = slot.take() else {
            return Err(Broken::Ours(failure::closed_unsent(None)));
        };
        // Polled only right after the connection, which is what makes it ready: no waker needed, no budget either.
        let mut answer = pin!(unconstrained(self.sender.try_send_request(request)));
        let outcome = poll_fn(|context| {
            self.drive(context);
            if let Poll::Ready(answered) = answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return Poll::Ready(Ok(answered));
            }
            waiting.poll(context).map(Err)
        })
        .await;
        waiting.outcome(outcome)
    }

    /// Turns the connection over to a task of its own, which hands the stream on once the protocols are switched.
    pub(crate) fn into_upgradable(self) -> Option<(http1::SendRequest<Outgoing>, Driver)> {
        let connection = self.connection?.with_upgrades();
        let counted = self.counted;
        let task = tollgate_base::task::spawn_local("upgraded upstream connection", async move {
            if let Err(cause) = connection.await {
                tracing::debug!(cause = failure::chain(&cause), "upstream connection failed");
            }
            drop(counted);
        });
        Some((self.sender, Driver::of(task)))
    }
}

/// A connection's own task; the connection closes when this is dropped.
pub(crate) struct Driver(Option<tokio::task::JoinHandle<()>>);

impl Driver {
    pub(crate) fn of(task: tokio::task::JoinHandle<()>) -> Self {
        Self(Some(task))
    }

    /// Lets it run on: the stream now belongs to an upgraded protocol.
    pub(crate) fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// The wait for a response head: how far the upload is and which timer runs.
pub(crate) struct Waiting<'a> {
    pub(crate) timers: &'a SendTimers,
    pub(crate) progress: Option<Rc<Progress>>,
    pub(crate) alarm: Alarm,
    /// When the last byte of the request was handed over.
    pub(crate) sent: Option<Instant>,
    pub(crate) head_at: Option<Instant>,
}

impl<'a> Waiting<'a> {
    pub(crate) fn new(timers: &'a SendTimers, progress: Option<Rc<Progress>>) -> Self {
        Self {
            timers,
            progress,
            alarm: Alarm::default(),
            sent: None,
            head_at: None,
        }
    }

    /// Waits for the answer of a connection that has a task of its own.
    pub(crate) async fn answer(
        &mut self,
        answer: impl Future<Output = Result<http::Response<Incoming>, TrySendError<Sendable>>>,
    ) -> Result<http::Response<Incoming>, Broken> {
        let mut pinned = pin!(answer);
        let outcome = poll_fn(|context| {
            if let Poll::Ready(answered) = pinned.as_mut().poll(context) {
                return Poll::Ready(Ok(answered));
            }
            self.poll(context).map(Err)
        })
        .await;
        self.outcome(outcome)
    }

    /// Sorts out what came of an exchange.
    fn outcome(
        &mut self,
        outcome: Result<Result<http::Response<Incoming>, TrySendError<Sendable>>, Error>,
    ) -> Result<http::Response<Incoming>, Broken> {
        let mut refused = match outcome {
            Ok(Ok(response)) => {
                self.head_at = Some(clock::now());
                return Ok(response);
            }
            Ok(Err(refused)) => refused,
            Err(error) => return Err(Broken::Ours(error)),
        };
        let own_failure = self
            .progress
            .as_ref()
            .and_then(|progress| progress.take_failure());
        if let Some(error) = own_failure {
            return Err(Broken::Ours(error));
        }
        match refused.take_message() {
            Some(unsent) => Err(Broken::Unsent(Box::new(unsent))),
            None => Err(Broken::Exchange(refused.into_error())),
        }
    }

    /// Ready with the error of the timer that ran out.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Error> {
        let since = match self.progress.as_ref().map(|progress| progress.upload()) {
            Some(Upload::Awaited) => None,
            Some(Upload::Handed(at)) => Some(at),
            Some(Upload::Done(at)) => {
                self.sent = Some(at);
                Some(at)
            }
            None => Some(*self.sent.get_or_insert_with(clock::now)),
        };
        let head = since
            .zip(self.timers.response_head)
            .and_then(|(at, limit)| SendTimers::end_of(at, limit))
            .map(|at| (at, Timer::ResponseHead));
        let total = self.timers.total_deadline.map(|at| (at, Timer::Total));
        let Some((deadline, timer)) = earlier(head, total) else {
            return Poll::Pending;
        };
        self.alarm
            .poll_until(deadline, context)
            .map(|()| Error::timeout(timer))
    }
}

/// The earlier of two deadlines; of two equal ones the first, which is the narrower.
pub(crate) fn earlier(
    one: Option<(Instant, Timer)>,
    other: Option<(Instant, Timer)>,
) -> Option<(Instant, Timer)> {
    match (one, other) {
        (Some(first), Some(second)) if second.0 < first.0 => Some(second),
        (None, second) => second,
        (first, _) => first,
    }
}

/// The body of an answer, with the connection that it comes from.
pub(crate) struct Http1Body {
    incoming: Incoming,
    /// What came together with the head.
    early: Option<Result<Frame<Bytes>, Error>>,
    /// `None` once the body is over.
    source: Option<(Box<Http1>, Lease)>,
}

impl Http1Body {
    pub(crate) fn new(incoming: Incoming, connection: Box<Http1>, lease: Lease) -> Self {
        Self {
            incoming,
            early: None,
            source: Some((connection, lease)),
        }
    }

    /// Reads what is there already. A whole body of known length that came with its head comes out as bytes.
    pub(crate) fn settle(mut self) -> Result<Self, Bytes> {
        if self.incoming.size_hint().exact().is_none() {
            return Ok(self);
        }
        match self.poll_connection(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => {
                if self.source.is_none()
                    && let Some(data) = frame.data_ref()
                {
                    return Err(data.clone());
                }
                self.early = Some(Ok(frame));
            }
            Poll::Ready(Some(Err(cause))) => self.early = Some(Err(failure::cut(&cause))),
            // Comes back at the next poll: nothing was taken out.
            Poll::Ready(None) | Poll::Pending => {}
        }
        Ok(self)
    }

    fn poll_connection(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut polled = self.take_frame();
        if polled.is_pending()
            && let Some((connection, _)) = &mut self.source
        {
            connection.drive(context);
            polled = self.take_frame();
        }
        match &polled {
            Poll::Ready(None) => self.finish(),
            Poll::Ready(Some(Ok(_))) if self.incoming.is_end_stream() => self.finish(),
            Poll::Ready(Some(Err(_))) => self.source = None,
            _ => {}
        }
        polled
    }

    /// What the connection has read so far. Nobody is woken: whoever reads a frame asks for the next.
    fn take_frame(&mut self) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let incoming = Pin::new(&mut self.incoming);
        let unwoken = &mut Context::from_waker(Waker::noop());
        match &self.source {
            Some((connection, _)) => connection.gate.quietly(|| incoming.poll_frame(unwoken)),
            None => incoming.poll_frame(unwoken),
        }
    }

    /// The answer is complete: the connection is free again.
    fn finish(&mut self) {
        if let Some((connection, lease)) = self.source.take() {
            lease.endpoint().put_back(connection);
        }
    }
}

impl HttpBody for Http1Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(early) = self.early.take() {
            return Poll::Ready(Some(early));
        }
        self.poll_connection(context)
            .map_err(|cause| failure::cut(&cause))
    }

    fn is_end_stream(&self) -> bool {
        self.early.is_none() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.incoming.size_hint();
        let ahead = self
            .early
            .as_ref()
            .and_then(|early| early.as_ref().ok()?.data_ref())
            .map_or(0, |data| data.len() as u64);
        rest.exact()
            .map_or(rest, |exact| SizeHint::with_exact(exact + ahead))
    }
}

impl Drop for Http1Body {
    fn drop(&mut self) {
        // A reader that stops at the last event has not seen the end of the framing; it may be there already.
        if self.source.is_some() && self.early.is_none() {
            let _ = self.poll_connection(&mut Context::from_waker(Waker::noop()));
        }
    }
}
