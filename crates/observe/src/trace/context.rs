//! `Context`: where a request stands in its trace, and whether it is recorded.

use std::borrow::Cow;

use http::HeaderMap;

use super::ids::{SpanId, TraceId};
use super::{Settings, Wire, propagation};

/// Whom a request says it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parent {
    /// A span of the same trace.
    Span(SpanId),
    /// A span of another SkyWalking segment.
    Segment(Box<Segment>),
}

/// The parent that an `sw8` header names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Segment {
    /// Trace id, in the sender's own form.
    pub trace: String,
    /// Segment id.
    pub id: String,
    /// Number of the span in it.
    pub span: i32,
    /// The sender's service.
    pub service: String,
    /// The sender's instance.
    pub instance: String,
    /// What the sender was serving.
    pub endpoint: String,
    /// The address that the sender used for us.
    pub address: String,
}

/// A request's place in its trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: TraceId,
    /// The request's own span.
    pub span: SpanId,
    /// SkyWalking's segment of this request.
    pub segment: TraceId,
    /// Who sent it.
    pub parent: Option<Parent>,
    /// The trace id came with 64 bits.
    pub short: bool,
    /// It came as one `b3` header, which must not go on with the old parent.
    pub single_b3: bool,
    /// Whether spans of this request are recorded.
    pub sampled: bool,
}

/// What the headers of a request say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Incoming {
    pub(crate) trace: Option<TraceId>,
    pub(crate) parent: Option<Parent>,
    pub(crate) short: bool,
    pub(crate) single_b3: bool,
    /// The sender's decision, if it made one.
    pub(crate) sampled: Option<bool>,
}

impl Context {
    /// Joins the trace of the headers, or begins one. The sender's decision counts; without one, chance decides.
    #[must_use]
    pub fn join(settings: &Settings, headers: &mut HeaderMap) -> Self {
        let incoming = propagation::extract(settings.wire, headers);
        let by_chance = || fastrand::f64() * 100.0 < settings.sampling;
        Self {
            trace: incoming.trace.unwrap_or_else(TraceId::random),
            span: SpanId::random(),
            segment: TraceId::random(),
            parent: incoming.parent,
            short: incoming.short,
            single_b3: incoming.single_b3,
            sampled: incoming.sampled.unwrap_or_else(by_chance),
        }
    }

    /// The trace id as the log and the backend show it.
    #[must_use]
    pub fn trace_text(&self) -> Cow<'_, str> {
        match &self.parent {
            Some(Parent::Segment(segment)) => Cow::Borrowed(&segment.trace),
            _ if self.short => format!("{:016x}", u128::from_be_bytes(self.trace.bytes())).into(),
            _ => self.trace.to_string().into(),
        }
    }

    /// Id of the request's own span, for the log.
    #[must_use]
    pub fn span_text(&self, wire: Wire) -> String {
        match wire {
            Wire::SkyWalking => format!("{}.0", self.segment),
            Wire::OtlpGrpc | Wire::OtlpHttp | Wire::Zipkin => self.span.to_string(),
        }
    }
}
