//! What went wrong with a request: whose fault, whether another try is allowed, and a reason with few values.
//!
//! An `Error` becomes a reply in exactly one place (`proxy::reply`); an early answer of a plugin is not an error.

use std::borrow::Cow;

use http::StatusCode;

use crate::{Flag, Timer};

/// Whose fault a failure is; decides the level it is logged at and the metric it counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The client sent something that cannot be served, or went away.
    Client,
    /// We, or our configuration.
    Gateway,
    /// The upstream refused, broke or stalled.
    Upstream,
}

/// Whether the same request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Never: the answer has begun, or trying again cannot help.
    No,
    /// Nothing of the request reached an application: any method may be tried again.
    Unsent,
    /// The upstream may have acted on it: idempotent methods only.
    Idempotent,
}

/// A failed request. Cheap to move (one box).
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    fault: Fault,
    retry: Retry,
    status: StatusCode,
    /// Low-cardinality `response_code_details`, also a metric label.
    reason: Cow<'static, str>,
    /// Text for the client; never holds a secret or an internal address.
    message: Cow<'static, str>,
    flag: Option<Flag>,
    timer: Option<Timer>,
    /// For the log only.
    source: Option<String>,
}

impl Error {
    fn new(fault: Fault, status: StatusCode, reason: Cow<'static, str>, message: Cow<'static, str>) -> Self {
        let (flag, timer, source) = (None, None, None);
        Self(Box::new(Inner {
            fault,
            retry: Retry::No,
            status,
            reason,
            message,
            flag,
            timer,
            source,
        }))
    }

    /// The client's fault: `status` is a 4xx.
    pub fn client(status: StatusCode, reason: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Fault::Client, status, reason.into(), message.into())
    }

    /// Our own fault: usually 500.
    pub fn gateway(status: StatusCode, reason: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Fault::Gateway, status, reason.into(), message.into())
    }

    /// The upstream's fault: usually 502, 503 or 504.
    pub fn upstream(status: StatusCode, reason: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Fault::Upstream, status, reason.into(), message.into())
    }

    /// A timer ran out: 504, flag `UT`, and a text that names the timer.
    #[must_use]
    pub fn timeout(timer: Timer) -> Self {
        let message = format!("upstream request timeout: {}", timer.name());
        Self::new(
            Fault::Upstream,
            StatusCode::GATEWAY_TIMEOUT,
            timer.reason().into(),
            message.into(),
        )
        .with_flag(Flag::UpstreamTimeout)
        .with_timer(timer)
    }

    /// The client is gone: nobody will read a reply.
    #[must_use]
    pub fn client_gone() -> Self {
        let status = StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST);
        Self::client(status, "downstream_remote_disconnect", "client disconnected")
            .with_flag(Flag::DownstreamDisconnect)
    }

    /// A body ran over a named limit: 413 with the limit in the text.
    #[must_use]
    pub fn too_large(limit_name: &str, limit_bytes: usize) -> Self {
        let message = format!("payload too large: {limit_name} is {limit_bytes} bytes");
        Self::new(
            Fault::Client,
            StatusCode::PAYLOAD_TOO_LARGE,
            "request_payload_too_large".into(),
            message.into(),
        )
    }

    /// Allow another try.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// The access-log flag (`UF`, `UH`, …).
    #[must_use]
    pub fn with_flag(mut self, flag: Flag) -> Self {
        self.0.flag = Some(flag);
        self
    }

    /// The timer that ran out.
    #[must_use]
    pub fn with_timer(mut self, timer: Timer) -> Self {
        self.0.timer = Some(timer);
        self
    }

    /// Detail for our own log, never for the client.
    #[must_use]
    pub fn with_source(mut self, source: impl std::fmt::Display) -> Self {
        self.0.source = Some(source.to_string());
        self
    }

    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.0.fault
    }
    /// Whether another try is allowed.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.0.retry
    }
    /// Status of the reply.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }
    /// `response_code_details`: few values, safe as a metric label.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.0.reason
    }
    /// Text for the client.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }
    /// Access-log flag, if one applies.
    #[must_use]
    pub fn flag(&self) -> Option<Flag> {
        self.0.flag
    }
    /// The timer that ran out, if one did.
    #[must_use]
    pub fn timer(&self) -> Option<Timer> {
        self.0.timer
    }
    /// Detail for our own log.
    #[must_use]
    pub fn log_detail(&self) -> Option<&str> {
        self.0.source.as_deref()
    }
}
