//! What OTLP's reports of spans and of log rows have in common: the two transports, the resource, the answer.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use prost::Message;

use super::otlp_messages::{AnyKind, AnyValue, ExportResponse, KeyValue, Resource, Scope};
use super::{Accepted, Answer, Failure, grpc, judge_http};
use crate::trace::{Attributes, Value};

/// How OTLP travels, and who speaks.
#[derive(Debug, Clone)]
pub struct Otlp {
    /// gRPC, else protobuf over HTTP.
    pub grpc: bool,
    /// `service.name`.
    pub service: Arc<str>,
    /// `service.instance.id`.
    pub instance: Arc<str>,
}

impl Otlp {
    pub(super) fn resource(&self) -> Option<Resource> {
        let mut attributes = Attributes::default();
        attributes.set("service.name", self.service.to_string());
        attributes.set("service.instance.id", self.instance.to_string());
        attributes.set("service.version", env!("CARGO_PKG_VERSION"));
        attributes.set("telemetry.sdk.name", "tollgate");
        attributes.set("telemetry.sdk.language", "rust");
        Some(Resource {
            attributes: pairs(&attributes),
        })
    }

    pub(super) fn request<M: Message>(
        &self,
        rpc: &'static str,
        path: &'static str,
        message: &M,
    ) -> http::Request<Bytes> {
        if self.grpc {
            return grpc::request(rpc, std::slice::from_ref(message));
        }
        let mut request = http::Request::new(Bytes::from(message.encode_to_vec()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = http::Uri::from_static(path);
        let kind = HeaderValue::from_static("application/x-protobuf");
        request.headers_mut().insert(CONTENT_TYPE, kind);
        request
    }

    pub(super) fn judge(&self, answer: &Answer) -> Result<Accepted, Failure> {
        let body = if self.grpc {
            grpc::judge(answer)?;
            grpc::message(answer).unwrap_or_default()
        } else {
            judge_http(answer)?;
            &answer.body
        };
        let said = ExportResponse::decode(body)
            .ok()
            .and_then(|said| said.partial_success);
        let refused = said.map_or(0, |partial| u64::try_from(partial.rejected).unwrap_or(0));
        Ok(Accepted { refused })
    }
}

pub(super) fn scope() -> Option<Scope> {
    Some(Scope {
        name: "tollgate".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

pub(super) fn any(value: &Value) -> AnyValue {
    let kind = match value {
        Value::Text(text) => AnyKind::Text(text.clone().into_owned()),
        Value::Number(number) => AnyKind::Number(*number),
        Value::Flag(flag) => AnyKind::Flag(*flag),
    };
    AnyValue { value: Some(kind) }
}

pub(super) fn pairs(attributes: &Attributes) -> Vec<KeyValue> {
    let pair = |(key, value): (&str, &Value)| KeyValue {
        key: key.to_owned(),
        value: Some(any(value)),
    };
    attributes.iter().map(pair).collect()
}
