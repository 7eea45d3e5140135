//! Every way in which an attempt fails before its answer's body, and what the client, the log and a retry make of it.
//!
//! Texts follow Envoy's convention, which Higress's users and dashboards know; reasons are `response_code_details`.
//! Addresses, names and certificates never reach the client: they go to `record.upstream_failure`.

use std::error::Error as StdError;
use std::{fmt, io};

use http::StatusCode;
use tollgate_base::{Error, Flag, Retry, Timer};
use tollgate_observe::record::Record;

/// How an exchange went wrong on the wire.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It is not HTTP/1, or breaks its rules.
    Garbled(&'static str),
    /// The connection ended too early.
    Ended,
    /// Reading or writing failed.
    Io(io::Error),
    /// The request's own body failed.
    Upload(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Garbled(reason) | Fault::Upload(reason) => formatter.write_str(reason),
            Fault::Ended => formatter.write_str("connection closed before message completed"),
            Fault::Io(cause) => write!(formatter, "connection error: {cause}"),
        }
    }
}

impl std::error::Error for Fault {}

/// A connection that could not be made.
#[derive(Debug, Clone)]
pub(crate) enum DialFailure {
    /// No connection: the text says why.
    Failed(String),
    /// The connect timer ran out.
    TimedOut,
}

impl DialFailure {
    pub(crate) fn into_error(self, record: Option<&Record>) -> Error {
        match self {
            DialFailure::Failed(detail) => connection_failure(detail, record),
            DialFailure::TimedOut => {
                note(record, "connect timeout".to_owned());
                Error::timeout(Timer::Connect)
                    .with_flag(Flag::UpstreamConnectFailure)
                    .with_retry(Retry::Unsent)
            }
        }
    }
}

/// Refused, unreachable, not resolved, or TLS not trusted: 503 `UF`.
pub(crate) fn connection_failure(detail: String, record: Option<&Record>) -> Error {
    let error = before_headers(
        StatusCode::SERVICE_UNAVAILABLE,
        "upstream_reset_before_response_started{connection_failure}",
        "upstream connect error or disconnect/reset before headers. reset reason: connection failure",
    )
    .with_flag(Flag::UpstreamConnectFailure)
    .with_retry(Retry::Unsent)
    .with_source(&detail);
    note(record, detail);
    error
}

/// No endpoint to send to: 503 `UH`.
pub(crate) fn no_healthy_upstream() -> Error {
    before_headers(
        StatusCode::SERVICE_UNAVAILABLE,
        "no_healthy_upstream",
        "no healthy upstream",
    )
    .with_flag(Flag::NoHealthyUpstream)
    .with_retry(Retry::Unsent)
}

/// A circuit threshold is reached: 503 `UO`. Not tried again: that is what a threshold is for.
pub(crate) fn overflow(what: &'static str, limit: u32) -> Error {
    before_headers(
        StatusCode::SERVICE_UNAVAILABLE,
        "upstream_reset_before_response_started{overflow}",
        "upstream connect error or disconnect/reset before headers. reset reason: overflow",
    )
    .with_flag(Flag::UpstreamOverflow)
    .with_source(format_args!("{what} is {limit}"))
}

/// An exchange that broke before its response head.
pub(crate) fn broken(cause: &hyper::Error, record: Option<&Record>) -> Error {
    let detail = chain(cause);
    note(record, detail.clone());
    if cause.is_parse() || is_protocol_error(cause) {
        return protocol_error().with_source(detail);
    }
    if let Some(error) = stream_reset(cause) {
        return error.with_source(detail);
    }
    let retry = if cause.is_canceled() {
        Retry::Unsent
    } else {
        Retry::Idempotent
    };
    termination(retry).with_source(detail)
}

/// The same over HTTP/1, where the exchange was our own work.
pub(crate) fn broken_http1(fault: &Fault, record: Option<&Record>) -> Error {
    let detail = fault.to_string();
    note(record, detail.clone());
    let error = match fault {
        Fault::Garbled(_) => protocol_error(),
        Fault::Ended | Fault::Io(_) => termination(Retry::Idempotent),
        Fault::Upload(_) => termination(Retry::No),
    };
    error.with_source(detail)
}

/// Bytes that are not HTTP/2 where HTTP/2 is configured.
pub(crate) fn not_http2(record: Option<&Record>) -> Error {
    let detail = "the upstream does not speak HTTP/2";
    note(record, detail.to_owned());
    protocol_error().with_source(detail)
}

fn protocol_error() -> Error {
    before_headers(
        StatusCode::BAD_GATEWAY,
        "upstream_reset_before_response_started{protocol_error}",
        "upstream connect error or disconnect/reset before headers. reset reason: protocol error",
    )
    .with_flag(Flag::UpstreamProtocolError)
}

/// The connection was over before anything of the request went out, twice.
pub(crate) fn closed_unsent(record: Option<&Record>) -> Error {
    let detail = "the connection was closed before the request went out";
    note(record, detail.to_owned());
    termination(Retry::Unsent).with_source(detail)
}

fn termination(retry: Retry) -> Error {
    before_headers(
        StatusCode::SERVICE_UNAVAILABLE,
        "upstream_reset_before_response_started{connection_termination}",
        "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
    )
    .with_flag(Flag::UpstreamCut)
    .with_retry(retry)
}

/// The answer's body ended before its end: what `tollgate_body` says of a network body.
pub(crate) fn cut(cause: &(dyn StdError + 'static)) -> Error {
    Error::upstream(
        StatusCode::BAD_GATEWAY,
        "upstream_cut",
        "upstream ended the answer before its end",
    )
    .with_flag(Flag::UpstreamCut)
    .with_source(chain(cause))
}

/// HTTP/2: the stream was reset, or the connection is going away without having looked at it.
fn stream_reset(cause: &hyper::Error) -> Option<Error> {
    let h2 = find::<h2::Error>(cause)?;
    let unprocessed = h2.reason() == Some(h2::Reason::REFUSED_STREAM) || (h2.is_go_away() && h2.is_remote());
    if !unprocessed && !h2.is_reset() {
        return None;
    }
    let error = before_headers(
        StatusCode::SERVICE_UNAVAILABLE,
        "upstream_reset_before_response_started{remote_reset}",
        "upstream connect error or disconnect/reset before headers. reset reason: remote reset",
    );
    Some(error.with_flag(Flag::UpstreamReset).with_retry(if unprocessed {
        Retry::Unsent
    } else {
        Retry::Idempotent
    }))
}

/// Bytes that are not HTTP: h2 found out itself, or h1 got something it had not asked for.
fn is_protocol_error(cause: &hyper::Error) -> bool {
    find::<h2::Error>(cause).is_some_and(|h2| {
        h2.is_library() && matches!(h2.reason(), Some(reason) if reason != h2::Reason::NO_ERROR)
    })
}

/// Whether a connection that had been idle may simply have been closed by the other side in the meantime.
pub(crate) fn looks_stale(fault: &Fault) -> bool {
    match fault {
        Fault::Ended => true,
        Fault::Io(cause) => is_disconnect(cause),
        Fault::Garbled(_) | Fault::Upload(_) => false,
    }
}

fn is_disconnect(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof
    )
}

fn before_headers(status: StatusCode, reason: &'static str, text: &'static str) -> Error {
    Error::upstream(status, reason, text)
}

fn note(record: Option<&Record>, detail: String) {
    if let Some(record) = record {
        record.upstream_failure.replace(Some(detail));
    }
}

/// The first error of type `T` in the chain of causes.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref::<T>() {
            return Some(found);
        }
        next = current.source();
    }
    None
}

/// An error with its causes in one line.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(current) = next {
        let part = current.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = current.source();
    }
    text
}
