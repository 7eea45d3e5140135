//! The time limits of one attempt, as the proxy hands them over.

use std::time::Duration;

use tollgate_base::clock::Instant;

/// Time limits of one [`send`](crate::Upstreams::send); `None` is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendTimers {
    /// Name look-up, TCP and TLS set-up together. Default 10 s, Higress's connect timeout.
    pub connect: Option<Duration>,
    /// From the last byte of the request that the upstream took to the response head; not running while the client
    /// still owes its body.
    pub response_head: Option<Duration>,
    /// Response head to the first frame of its body.
    pub first_event: Option<Duration>,
    /// Longest wait for a further frame. Time in which the client does not read is not counted.
    pub silence: Option<Duration>,
    /// When the whole answer must be over, body included.
    pub total_deadline: Option<Instant>,
}

impl Default for SendTimers {
    fn default() -> Self {
        Self {
            connect: Some(Duration::from_secs(10)),
            response_head: None,
            first_event: None,
            silence: None,
            total_deadline: None,
        }
    }
}

impl SendTimers {
    /// When `limit` from `since` is over; a limit beyond what the clock can count is none.
    pub(crate) fn end_of(since: Instant, limit: Duration) -> Option<Instant> {
        since.checked_add(limit)
    }

    /// Whether the body needs watching.
    pub(crate) fn watch_body(&self) -> bool {
        self.first_event.is_some() || self.silence.is_some() || self.total_deadline.is_some()
    }
}
