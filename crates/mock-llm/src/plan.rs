//! What one request wants to go wrong, after its faults are read: the type between the menu and those who act.

use std::time::Duration;

use http::StatusCode;

use crate::connection::Ending;

/// What a fault changes in the answer's making.
#[derive(Clone, Debug, Default)]
pub(crate) struct AnswerWishes {
    /// The length of the text in tokens.
    pub(crate) length: Option<usize>,
    pub(crate) reasoning: bool,
    pub(crate) call_tools: bool,
    /// A text with characters of several bytes, whatever the question's language.
    pub(crate) chinese: bool,
    pub(crate) cached: usize,
}

/// What happens instead of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    Reset,
    Close,
    BlackHole,
}

/// How `retry-after` is spelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RetryAfter {
    Seconds(u64),
    Milliseconds(u64),
    Date(u64),
}

/// An error answer in the shape of the path's dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StatusFault {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Vec<RetryAfter>,
}

/// A deformed whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deform {
    Html,
    Empty,
    ErrorWith200,
    ContentType,
    Garbage,
    LengthShort,
    LengthLong,
    CutBody(usize),
}

/// A `content-encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Encoding {
    /// As `content-encoding` says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// Where a stall happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Head,
    First,
    Between(usize),
}

/// Where inside the stream it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    AfterEvent,
    InCharacter,
    InField(usize),
    InArguments,
}

/// How a cut looks to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutAs {
    /// The connection ends, as a FIN or a reset.
    Connection(Ending),
    /// Over h2 the stream is reset; over HTTP/1.1 the connection closes without the last chunk.
    Stream,
    /// The body ends as if it were whole.
    End,
}

/// A cut after `after` content events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) after: usize,
    pub(crate) place: Place,
    pub(crate) cut_as: CutAs,
}

/// Where a stream reports its usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum UsageMode {
    /// As the vendor does: at the end, if asked for.
    #[default]
    AsAsked,
    Absent,
    Null,
    /// A running total on every event.
    Cumulative,
    /// Each event's own tokens on that event.
    PerEvent,
    AfterDone,
    /// Inside the choice, as one vendor does.
    InChoice,
}

/// How events are spread over packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Packing {
    #[default]
    EventPerFrame,
    /// Frames of this many bytes, whatever they cut.
    Bytes(usize),
    /// This many events in a frame.
    Events(usize),
}

/// What happens to a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StreamPlan {
    pub(crate) line_end: Option<&'static str>,
    pub(crate) packing: Packing,
    pub(crate) cut: Option<Cut>,
    /// An error event after so many content events, with the status that it carries.
    pub(crate) error_event: Option<(usize, StatusCode)>,
    pub(crate) malformed: Option<usize>,
    /// How often the terminal event is sent.
    pub(crate) done: Option<usize>,
    pub(crate) usage: UsageMode,
    pub(crate) unknown_events: bool,
    pub(crate) big_event: Option<usize>,
    pub(crate) keep_alive_only: Option<Duration>,
    pub(crate) keep_alive_between: bool,
    pub(crate) trailers: bool,
    /// A GOAWAY frame after so many content events; `true`: with an error code and the connection's end.
    pub(crate) goaway: Option<(usize, bool)>,
    pub(crate) byte_order_mark: bool,
}

/// Everything that one request asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) answer: AnswerWishes,
    pub(crate) pace: Option<Duration>,
    pub(crate) no_answer: Option<NoAnswer>,
    pub(crate) status: Option<StatusFault>,
    pub(crate) deform: Option<Deform>,
    pub(crate) encoding: Option<Encoding>,
    pub(crate) stall: Option<(Phase, Duration)>,
    pub(crate) write_limit: usize,
    pub(crate) without_close_notify: bool,
    /// Act before a byte of the request's body is read.
    pub(crate) unread: bool,
    pub(crate) stream: StreamPlan,
}
