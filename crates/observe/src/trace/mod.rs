//! Traces: one span a request, one an upstream attempt, one a call-out of a plugin.
//!
//! `begin` decides once whether a request is recorded; what is recorded lies in the [`Record`](crate::Record) until the
//! exchange is settled and its last open span has ended, and goes to the exporter as one [`Finished`] trace. While
//! tracing is off none of this exists.

mod active;
mod attributes;
mod context;
mod entry;
mod ids;
mod propagation;
mod span;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tollgate_base::Secret;

pub use active::{Finished, OpenSpan, Slot, Tracer};
pub use attributes::{Attributes, MAX_ATTRIBUTES, MAX_VALUE, Value};
pub use context::{Context, Parent, Segment};
pub use ids::{SpanId, TraceId};
pub use span::{Kind, Span};

/// Whose wire format spans take, and whose headers carry a trace on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wire {
    /// OTLP over gRPC; W3C headers.
    OtlpGrpc,
    /// OTLP as protobuf over HTTP; W3C headers.
    OtlpHttp,
    /// Zipkin's JSON v2 over HTTP; B3 headers.
    Zipkin,
    /// SkyWalking's segments over gRPC; `sw8`.
    SkyWalking,
}

impl Wire {
    /// Name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Wire::OtlpGrpc => "otlp_grpc",
            Wire::OtlpHttp => "otlp_http",
            Wire::Zipkin => "zipkin",
            Wire::SkyWalking => "skywalking",
        }
    }
}

/// What `tracing` of the ConfigMap says, without where to.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Wire format and headers.
    pub wire: Wire,
    /// Percent of the requests without a parent that are recorded, 0 to 100.
    pub sampling: f64,
    /// Time limit of one report.
    pub timeout: Duration,
    /// Name of this service (`higress-gateway.higress-system`).
    pub service: Arc<str>,
    /// SkyWalking's token, sent as `authentication`.
    pub token: Option<Secret>,
}
