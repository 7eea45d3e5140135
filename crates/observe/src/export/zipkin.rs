//! Spans as Zipkin's JSON v2 (`POST /api/v2/spans`).

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use serde_json::{Map, Value, json};

use super::{Accepted, Answer, Encoder, Failure, judge_http};
use crate::trace::{Finished, Kind, Parent, Span};

/// Writes a list of spans.
pub struct Zipkin {
    /// `localEndpoint.serviceName`.
    pub service: Arc<str>,
}

impl Encoder<Finished> for Zipkin {
    fn encode(&self, batch: &[Finished]) -> http::Request<Bytes> {
        let spans = batch
            .iter()
            .flat_map(|trace| trace.spans.iter().map(|span| self.span(trace, span)));
        let list = Value::Array(spans.collect());
        let mut request = http::Request::new(Bytes::from(list.to_string()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = http::Uri::from_static("/api/v2/spans");
        let kind = HeaderValue::from_static("application/json");
        request.headers_mut().insert(CONTENT_TYPE, kind);
        request
    }

    fn judge(&self, answer: &Answer) -> Result<Accepted, Failure> {
        judge_http(answer)
    }
}

impl Zipkin {
    fn span(&self, trace: &Finished, span: &Span) -> Value {
        let context = &trace.context;
        let parent = match (span.kind, &context.parent) {
            (Kind::Entry, Some(Parent::Span(parent))) => Some(parent.to_string()),
            (Kind::Entry, _) => None,
            (Kind::Attempt | Kind::CallOut, _) => Some(context.span.to_string()),
        };
        let tags: Map<String, Value> = span
            .attributes
            .iter()
            .map(|(name, value)| (name.to_owned(), Value::from(value.text())))
            .collect();
        let mut object = json!({
            "traceId": context.trace_text(),
            "id": span.id.to_string(),
            "name": span.name,
            "kind": if span.kind == Kind::Entry { "SERVER" } else { "CLIENT" },
            "timestamp": span.start / 1000,
            "duration": (span.end.saturating_sub(span.start) / 1000).max(1),
            "localEndpoint": { "serviceName": &*self.service },
            "tags": tags,
        });
        if let Some(parent) = parent {
            object["parentId"] = parent.into();
        }
        if let Ok(address) = span.peer.parse::<std::net::SocketAddr>() {
            let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
            object["remoteEndpoint"] = json!({ family: address.ip().to_string(), "port": address.port() });
        }
        object
    }
}
