//! Traces as SkyWalking's segments (`TraceSegmentReportService.collect`): one segment a request.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use tollgate_base::Secret;

use super::skywalking_messages::{KeyStringValuePair, SegmentObject, SegmentReference, SpanObject};
use super::{Accepted, Answer, Encoder, Failure, grpc};
use crate::trace::{Finished, Kind, Parent, Span};

const RPC: &str = "/skywalking.v3.TraceSegmentReportService/collect";
const AUTHENTICATION: HeaderName = HeaderName::from_static("authentication");
const HTTP_LAYER: i32 = 3;
/// Envoy's number in SkyWalking's table of components, so that its UI shows a proxy.
const ENVOY: i32 = 6000;

/// Writes a stream of `SegmentObject`.
pub struct SkyWalking {
    /// Service.
    pub service: Arc<str>,
    /// Instance.
    pub instance: Arc<str>,
    /// Sent as `authentication`.
    pub token: Option<Secret>,
}

impl Encoder<Finished> for SkyWalking {
    fn encode(&self, batch: &[Finished]) -> http::Request<Bytes> {
        let segments: Vec<_> = batch.iter().map(|trace| self.segment(trace)).collect();
        let mut request = grpc::request(RPC, &segments);
        let token = self
            .token
            .as_ref()
            .and_then(|token| HeaderValue::from_str(token.expose()).ok());
        if let Some(mut value) = token {
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHENTICATION, value);
        }
        request
    }

    fn judge(&self, answer: &Answer) -> Result<Accepted, Failure> {
        grpc::judge(answer)
    }
}

impl SkyWalking {
    fn segment(&self, trace: &Finished) -> SegmentObject {
        let mut spans: Vec<_> = trace.spans.iter().map(|span| object(trace, span)).collect();
        spans.sort_by_key(|span| span.span_id);
        SegmentObject {
            trace_id: trace.context.trace_text().into_owned(),
            segment_id: trace.context.segment.to_string(),
            spans,
            service: self.service.to_string(),
            service_instance: self.instance.to_string(),
            is_size_limited: trace.is_partial,
        }
    }
}

fn object(trace: &Finished, span: &Span) -> SpanObject {
    let is_entry = span.kind == Kind::Entry;
    let references = match &trace.context.parent {
        Some(Parent::Segment(parent)) if is_entry => vec![SegmentReference {
            kind: 0,
            trace_id: parent.trace.clone(),
            parent_segment_id: parent.id.clone(),
            parent_span_id: parent.span,
            parent_service: parent.service.clone(),
            parent_instance: parent.instance.clone(),
            parent_endpoint: parent.endpoint.clone(),
            address_at_peer: parent.address.clone(),
        }],
        _ => Vec::new(),
    };
    let tags = span.attributes.iter().map(|(key, value)| KeyStringValuePair {
        key: key.to_owned(),
        value: value.text().into_owned(),
    });
    SpanObject {
        span_id: span.number,
        parent_span_id: if is_entry { -1 } else { 0 },
        start: milliseconds(span.start),
        end: milliseconds(span.end.max(span.start)),
        references,
        operation: span.name.clone().into_owned(),
        peer: span.peer.clone(),
        kind: i32::from(!is_entry),
        layer: HTTP_LAYER,
        component: ENVOY,
        is_error: span.error,
        tags: tags.collect(),
    }
}

fn milliseconds(nanoseconds: u64) -> i64 {
    i64::try_from(nanoseconds / 1_000_000).unwrap_or(i64::MAX)
}
