//! What the client gets: the JSON, or a code with its text (plugins spec §2.2).

use std::borrow::Cow;

use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde_json::Value;
use tollgate_base::Termination;
use tollgate_body::{Body, Response};
use tollgate_plugin::Exchange;

use super::config::Reject;

/// The wanted JSON.
pub(super) fn json(disposition: bool, json: String) -> Response {
    let mut response = Response::new(Body::bytes(json));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if disposition {
        let value = HeaderValue::from_static("attachment; filename=\"response.json\"");
        headers.insert(CONTENT_DISPOSITION, value);
    }
    response
}

/// The config cannot be worked with.
pub(super) fn rejected(exchange: &Exchange, reject: &Reject) -> Response {
    exchange.record.terminate(Termination::Refused);
    answer(exchange, reject)
}

/// The model or its service failed.
pub(super) fn failed(exchange: &Exchange, reject: &Reject) -> Response {
    exchange.record.terminate(Termination::UpstreamError);
    answer(exchange, reject)
}

fn answer(exchange: &Exchange, reject: &Reject) -> Response {
    let short = reject.message.split(':').next().unwrap_or_default();
    *exchange.record.details.borrow_mut() = Cow::Owned(format!("ai-json-resp.{}", short.replace(' ', "_")));
    let message = html_safe(&Value::from(reject.message.as_str()).to_string());
    let body = format!("{{\"Code\":{},\"Msg\":{message}}}", reject.code);
    let mut response = Response::new(Body::bytes(body));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    let plain = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

/// JSON as Go writes it: what HTML could mistake is escaped.
fn html_safe(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                safe.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            other => safe.push(other),
        }
    }
    safe
}
