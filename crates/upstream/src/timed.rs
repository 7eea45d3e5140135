//! `TimedBody`: the timers of an answer's body. It never delays a frame.
//!
//! What is timed is our waiting for the upstream: a client that does not read stops no clock of its own here. Each
//! wait costs one look at the clock; the timer itself is touched only when it fires.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tollgate_base::clock::{self, Instant};
use tollgate_base::{Error, Timer};
use tollgate_body::Source;
use tollgate_observe::metrics::ClusterMetrics;

use crate::alarm::Alarm;
use crate::timers::SendTimers;
use crate::waiting::earlier;

/// A body under its timers; a timer that runs out drops the inner body at once.
pub(crate) struct TimedBody<B> {
    /// `None` after an end of any kind.
    inner: Option<B>,
    alarm: Alarm,
    /// The limit of the present wait and its name.
    limit: Option<(Duration, Timer)>,
    silence: Option<Duration>,
    total: Option<Instant>,
    /// When the present wait began; `None` while frames come without one.
    waiting_since: Option<Instant>,
    metrics: Arc<ClusterMetrics>,
}

impl<B> TimedBody<B> {
    /// `head_at` is when the response head came; `alarm` is the one that watched over it.
    pub(crate) fn new(
        inner: B,
        timers: &SendTimers,
        head_at: Instant,
        alarm: Alarm,
        metrics: Arc<ClusterMetrics>,
    ) -> Self {
        Self {
            inner: Some(inner),
            alarm,
            limit: timers.first_event.map(|limit| (limit, Timer::FirstEvent)),
            silence: timers.silence,
            total: timers.total_deadline,
            waiting_since: Some(head_at),
            metrics,
        }
    }

    fn poll_timers(&mut self, context: &mut Context<'_>) -> Poll<Timer> {
        let wait = match self.limit {
            Some((limit, timer)) => {
                let since = *self.waiting_since.get_or_insert_with(clock::now);
                SendTimers::end_of(since, limit).map(|at| (at, timer))
            }
            None => None,
        };
        let total = self.total.map(|at| (at, Timer::Total));
        let Some((deadline, timer)) = earlier(wait, total) else {
            return Poll::Pending;
        };
        self.alarm.poll_until(deadline, context).map(|()| timer)
    }
}

impl<B: Source + Unpin> Source for TimedBody<B> {
    fn is_dry(&mut self, context: &mut Context<'_>) -> bool {
        let is_dry = self.inner.as_mut().is_some_and(|inner| inner.is_dry(context));
        is_dry && self.poll_timers(context).is_pending()
    }
}

impl<B> HttpBody for TimedBody<B>
where
    B: HttpBody<Data = Bytes, Error = Error> + Unpin,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        let expired = match Pin::new(inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                // An upstream that is always faster than the client never lets us wait.
                let over = this.total.is_some_and(|at| clock::now() >= at);
                if !over {
                    this.limit = this.silence.map(|limit| (limit, Timer::Silence));
                    this.waiting_since = None;
                    return Poll::Ready(Some(Ok(frame)));
                }
                Timer::Total
            }
            Poll::Ready(ended) => {
                this.inner = None;
                return Poll::Ready(ended);
            }
            Poll::Pending => match this.poll_timers(context) {
                Poll::Ready(timer) => timer,
                Poll::Pending => return Poll::Pending,
            },
        };
        this.inner = None;
        this.metrics.timed_out(expired);
        Poll::Ready(Some(Err(Error::timeout(expired))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}
