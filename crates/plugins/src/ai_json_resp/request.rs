//! The client's request, and the plugin's own made from it (plugins spec §2.3).

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde_json::Value;
use tollgate_body::{Body, Request};

use super::config::Config;
use crate::framing::remove_framing;

/// Marks the plugin's own calls, should they come back through this gateway.
const OWN: HeaderName = HeaderName::from_static("x-higress-ai-json-resp");
/// Credentials of this gateway's clients: no other service's business.
const CREDENTIALS: [HeaderName; 7] = [
    AUTHORIZATION,
    COOKIE,
    HeaderName::from_static("proxy-authorization"),
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-authorization"),
    HeaderName::from_static("x-hi-original-auth"),
    HeaderName::from_static("x-mse-consumer"),
];

/// Whether the request is one that the plugin made itself.
pub(super) fn is_own(request: &Request) -> bool {
    let marked = request.headers().get(OWN).and_then(|value| value.to_str().ok());
    marked.is_some_and(|text| matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True"))
}

/// What Higress does to a request that passes: the client's credential goes, the configured one comes.
pub(super) fn remove_credentials(config: &Config, request: &mut Request) {
    let Some(service) = &config.service else { return };
    let headers = request.headers_mut();
    headers.remove(AUTHORIZATION);
    if let Some(value) = &service.authorization {
        headers.insert(AUTHORIZATION, value.clone());
    }
}

/// The body of a round through the chain: an answer in one piece.
pub(super) fn without_stream(body: &Bytes) -> Bytes {
    let Ok(mut document) = tollgate_body::JsonDocument::parse(body.clone()) else {
        return body.clone();
    };
    if document.get_bool("stream") != Some(true) {
        return body.clone();
    }
    let written = document.set("stream", Value::Bool(false)).is_ok();
    drop(document.remove("stream_options"));
    if written {
        document.to_bytes()
    } else {
        body.clone()
    }
}

/// What all of one exchange's calls have in common.
pub(super) struct Template<'c> {
    uri: Uri,
    headers: HeaderMap,
    authority: Option<&'c str>,
}

impl<'c> Template<'c> {
    pub(super) fn new(config: &'c Config, request: &Request) -> Self {
        let mut headers = request.headers().clone();
        remove_framing(&mut headers);
        for name in [HOST, CONTENT_ENCODING, ACCEPT_ENCODING] {
            headers.remove(name);
        }
        let Some(service) = &config.service else {
            if let Some(host) = request.headers().get(HOST) {
                headers.insert(HOST, host.clone());
            }
            return Self {
                uri: request.uri().clone(),
                headers,
                authority: None,
            };
        };
        for name in CREDENTIALS {
            headers.remove(name);
        }
        headers.insert(OWN, HeaderValue::from_static("true"));
        if let Some(value) = &service.authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        let own = service
            .path
            .as_deref()
            .and_then(|path| PathAndQuery::try_from(path).ok());
        let path = own.or_else(|| request.uri().path_and_query().cloned());
        let mut parts = http::uri::Parts::default();
        parts.path_and_query = path.or_else(|| Some(PathAndQuery::from_static("/v1/chat/completions")));
        Self {
            uri: Uri::from_parts(parts).unwrap_or_default(),
            headers,
            authority: Some(&service.authority),
        }
    }

    pub(super) fn request(&self, body: Bytes) -> Request {
        let mut request = Request::new(Body::bytes(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let headers = request.headers_mut();
        if let Some(host) = self.authority.and_then(|name| HeaderValue::from_str(name).ok()) {
            headers.insert(HOST, host);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request
    }
}
