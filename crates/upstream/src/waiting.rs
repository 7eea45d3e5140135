//! The wait for an answer's head: how far the upload is, which timer runs, and what may come instead of an answer.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tollgate_base::clock::{self, Instant};
use tollgate_base::{Error, Timer};
use tollgate_observe::record::Record;

use crate::alarm::Alarm;
use crate::failure;
use crate::failure::Fault;
use crate::outgoing::{Progress, Sendable, Upload};
use crate::timers::SendTimers;

/// Why there is no answer.
pub(crate) enum Broken {
    /// HTTP/2: the connection was over before anything of the request went out; here it is back.
    Unsent(Box<Sendable>),
    /// HTTP/1: the same.
    NothingSent,
    /// HTTP/1: the connection ended without a byte of an answer.
    Silent(Fault),
    /// HTTP/1: it went wrong on the way.
    Http1(Fault),
    /// It went wrong on the way.
    Exchange(hyper::Error),
    /// Our own timer, or the request's own body.
    Ours(Error),
}

impl Broken {
    pub(crate) fn into_error(self, record: Option<&Record>) -> Error {
        match self {
            Broken::Unsent(_) | Broken::NothingSent => failure::closed_unsent(record),
            Broken::Silent(fault) | Broken::Http1(fault) => failure::broken_http1(&fault, record),
            Broken::Exchange(cause) => failure::broken(&cause, record),
            Broken::Ours(error) => error,
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
        let mut refused = match outcome {
            Ok(Ok(response)) => {
                self.head_at = Some(clock::now());
                return Ok(response);
            }
            Ok(Err(refused)) => refused,
            Err(error) => return Err(Broken::Ours(error)),
        };
        if let Some(error) = self.own_failure() {
            return Err(Broken::Ours(error));
        }
        match refused.take_message() {
            Some(unsent) => Err(Broken::Unsent(Box::new(unsent))),
            None => Err(Broken::Exchange(refused.into_error())),
        }
    }

    /// What the request's own body failed with.
    pub(crate) fn own_failure(&self) -> Option<Error> {
        self.progress.as_ref()?.take_failure()
    }

    /// Ready with the error of the timer that ran out.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Error> {
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
