//! Spans as OTLP.

use bytes::Bytes;

use super::otlp::{Otlp, pairs, scope};
use super::otlp_messages::{ResourceSpans, ScopeSpans, SpanMessage, Status, TraceRequest};
use super::{Accepted, Answer, Encoder, Failure};
use crate::trace::{Finished, Kind, Parent, Span};

const RPC: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const PATH: &str = "/v1/traces";
/// `IS_REMOTE` is known, and it is.
const HAS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// Writes `ExportTraceServiceRequest`.
pub struct OtlpTraces(pub Otlp);

impl Encoder<Finished> for OtlpTraces {
    fn encode(&self, batch: &[Finished]) -> http::Request<Bytes> {
        let spans = batch
            .iter()
            .flat_map(|trace| trace.spans.iter().map(|span| message(trace, span)));
        let message = TraceRequest {
            resource_spans: vec![ResourceSpans {
                resource: self.0.resource(),
                scope_spans: vec![ScopeSpans {
                    scope: scope(),
                    spans: spans.collect(),
                }],
            }],
        };
        self.0.request(RPC, PATH, &message)
    }

    fn judge(&self, answer: &Answer) -> Result<Accepted, Failure> {
        self.0.judge(answer)
    }
}

fn message(trace: &Finished, span: &Span) -> SpanMessage {
    let context = &trace.context;
    let (parent, remote) = match (span.kind, &context.parent) {
        (Kind::Entry, Some(Parent::Span(parent))) => (parent.bytes().to_vec(), IS_REMOTE),
        (Kind::Entry, _) => (Vec::new(), 0),
        (Kind::Attempt | Kind::CallOut, _) => (context.span.bytes().to_vec(), 0),
    };
    SpanMessage {
        trace_id: context.trace.bytes().to_vec(),
        span_id: span.id.bytes().to_vec(),
        parent_span_id: parent,
        name: span.name.clone().into_owned(),
        kind: if span.kind == Kind::Entry { 2 } else { 3 },
        start: span.start,
        end: span.end.max(span.start),
        attributes: pairs(&span.attributes),
        dropped_attributes: span.attributes.dropped,
        status: span.error.then(|| Status {
            message: span.message.clone().into_owned(),
            code: 2,
        }),
        flags: 1 | HAS_REMOTE | remote,
    }
}
