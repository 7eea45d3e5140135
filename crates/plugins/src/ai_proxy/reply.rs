//! Answers that ai-proxy gives itself: Higress's plain-text 500s, and 400s in the client's dialect (spec §5.3, §13).

use std::borrow::Cow;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use tollgate_base::Termination;
use tollgate_body::{Body, Response};
use tollgate_llm::dialect::{Dialect, error_body};
use tollgate_llm::openai::RequestFault;
use tollgate_plugin::Exchange;

/// Higress's answer to a request or answer it cannot process: status 500, plain text.
pub(super) fn failed(exchange: &Exchange, details: &'static str, text: String) -> Response {
    let plain = HeaderValue::from_static("text/plain");
    local(
        exchange,
        details,
        StatusCode::INTERNAL_SERVER_ERROR,
        plain,
        Body::bytes(text),
    )
}

/// The answer to a request body that cannot be sent.
pub(super) fn refused(exchange: &Exchange, dialect: Dialect, fault: &RequestFault) -> Response {
    let text = format!("failed to process request body: {}", fault.text());
    let details = "ai-proxy.proc_req_body_failed";
    exchange.record.terminate(Termination::Refused);
    match fault {
        RequestFault::Refused(_) => failed(exchange, details, text),
        RequestFault::BadRequest(_) => {
            let status = StatusCode::BAD_REQUEST;
            let body = error_body(dialect, status, &text, Some("invalid_request_body"));
            let json = HeaderValue::from_static("application/json");
            local(exchange, details, status, json, Body::bytes(body))
        }
    }
}

/// The answer to a conversation whose context file could not be had.
pub(super) fn no_context(exchange: &Exchange, cause: &str) -> Response {
    exchange.record.terminate(Termination::Refused);
    let text = format!("failed to load context file: {cause}");
    failed(exchange, "ai-proxy.load_ctx_failed", text)
}

fn local(
    exchange: &Exchange,
    details: &'static str,
    status: StatusCode,
    content_type: HeaderValue,
    body: Body,
) -> Response {
    *exchange.record.details.borrow_mut() = Cow::Borrowed(details);
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
