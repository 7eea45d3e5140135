//! Answers that plugins give themselves: status, headers, text, and the `response_code_details` of Higress's plugin.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};
use tollgate_body::{Body, Response};
use tollgate_plugin::Exchange;

/// An answer without going upstream. A text is `text/plain`; blanks in `details` are logged as `_`.
pub(crate) fn answer(
    exchange: &Exchange,
    status: StatusCode,
    details: impl Into<Cow<'static, str>>,
    text: impl Into<Bytes>,
) -> Response {
    let details: Cow<'static, str> = details.into();
    if !details.is_empty() {
        *exchange.record.details.borrow_mut() = match details.contains(' ') {
            true => details.replace(' ', "_").into(),
            false => details,
        };
    }
    let body = Body::bytes(text);
    let has_text = body.as_bytes().is_some();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if has_text {
        let plain = HeaderValue::from_static("text/plain");
        response.headers_mut().insert(CONTENT_TYPE, plain);
    }
    response
}

/// The same answer with one more header; left out where `value` cannot be one.
pub(crate) fn with_header(mut response: Response, name: HeaderName, value: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}
