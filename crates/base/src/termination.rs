//! How an exchange ended: the one answer that access log, metrics and usage ledger share.

/// The five independent timers of an upstream request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Timer {
    /// TCP and TLS set-up.
    Connect,
    /// Request sent to response head.
    ResponseHead,
    /// Response head to the first event or byte of its body.
    FirstEvent,
    /// Silence between two events or body frames.
    Silence,
    /// The whole answer, from the request's arrival; retries count in.
    Total,
}

impl Timer {
    /// Name in texts and in `timeout_<name>`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Timer::Connect => "connect",
            Timer::ResponseHead => "response_head",
            Timer::FirstEvent => "first_event",
            Timer::Silence => "silence",
            Timer::Total => "total",
        }
    }

    pub(crate) fn reason(self) -> &'static str {
        match self {
            Timer::Connect => "upstream_connect_timeout",
            Timer::ResponseHead => "upstream_response_head_timeout",
            Timer::FirstEvent => "upstream_first_event_timeout",
            Timer::Silence => "upstream_silence_timeout",
            Timer::Total => "upstream_response_timeout",
        }
    }
}

/// How an exchange ended. Exactly one per request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Termination {
    /// The whole answer was delivered (a vendor's own error status is a whole answer too).
    Completed,
    /// The client went away first.
    ClientGone,
    /// The upstream's answer ended before its end.
    UpstreamCut,
    /// The upstream could not be reached or broke its protocol before an answer began, or sent an error inside a stream.
    UpstreamError,
    /// One of our timers ran out.
    Timeout(Timer),
    /// We answered ourselves: no route, a plugin's refusal, a limit.
    Refused,
    /// The gateway stopped before the end.
    Shutdown,
}

impl Termination {
    /// The value in log, metric and ledger.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Termination::Completed => "completed",
            Termination::ClientGone => "client_gone",
            Termination::UpstreamCut => "upstream_cut",
            Termination::UpstreamError => "upstream_error",
            Termination::Timeout(Timer::Connect) => "timeout_connect",
            Termination::Timeout(Timer::ResponseHead) => "timeout_response_head",
            Termination::Timeout(Timer::FirstEvent) => "timeout_first_event",
            Termination::Timeout(Timer::Silence) => "timeout_silence",
            Termination::Timeout(Timer::Total) => "timeout_total",
            Termination::Refused => "refused",
            Termination::Shutdown => "shutdown",
        }
    }
}
