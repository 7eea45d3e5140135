//! The only place that invents a status and a body: every error becomes an answer here, in the client's dialect.

use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use tollgate_base::headers::X_REQUEST_ID;
use tollgate_base::{Error, Fault, Flag, Termination};
use tollgate_body::{Body, Response};
use tollgate_llm::dialect::{self, Dialect};
use tollgate_observe::Record;

use crate::grpc;

/// Turns the chain's outcome into the answer to the client, and notes how it came about. `is_grpc`: how the client
/// reads a failure.
pub(crate) fn finish(record: &Record, is_grpc: bool, outcome: Result<Response, Error>) -> Response {
    let mut response = match outcome {
        Ok(response) => {
            note_success(record);
            response
        }
        Err(failure) => {
            note_failure(record, &failure);
            match is_grpc {
                true => grpc::refusal(&failure),
                false => answer(record, &failure),
            }
        }
    };
    // An upstream's HTTP/1.0 or h2 is none of the client's business: with 1.0, the end of the body would be the
    // connection's, and a cut one would look whole.
    *response.version_mut() = http::Version::HTTP_11;
    response
        .headers_mut()
        .insert(X_REQUEST_ID, record.request_id.clone());
    response
}

fn note_success(record: &Record) {
    if record.timings.response_head.get().is_some() {
        set_details(record, "via_upstream");
    } else {
        // Nobody upstream was asked: a plugin or a policy answered.
        set_details(record, "direct_response");
        record.terminate(Termination::Refused);
    }
}

fn set_details(record: &Record, details: &'static str) {
    let mut current = record.details.borrow_mut();
    if current.is_empty() {
        *current = details.into();
    }
}

/// Flags, details and termination of a failed request; also used when a body fails later.
pub(crate) fn note_failure(record: &Record, failure: &Error) {
    if let Some(flag) = failure.flag() {
        record.flag(flag);
    }
    *record.details.borrow_mut() = failure.reason().to_owned().into();
    record.terminate(match (failure.timer(), failure.fault()) {
        (Some(timer), _) => Termination::Timeout(timer),
        _ if failure.flag() == Some(Flag::DownstreamDisconnect) => Termination::ClientGone,
        (None, Fault::Upstream) => Termination::UpstreamError,
        (None, _) => Termination::Refused,
    });
    if let (Fault::Gateway, Some(detail)) = (failure.fault(), failure.log_detail()) {
        tracing::warn!(reason = failure.reason(), detail, "request failed");
    }
}

fn answer(record: &Record, failure: &Error) -> Response {
    let path = record.original.path.path();
    let (content_type, text) = match Dialect::of_path(path) {
        // Routing failures keep the plain form that Higress gives them.
        Some(dialect) if !failure.message().is_empty() => {
            let body = dialect::error_body(
                dialect,
                failure.status(),
                failure.message(),
                Some(failure.reason()),
            );
            ("application/json", body)
        }
        _ => ("text/plain", failure.message().to_owned().into()),
    };
    let mut response = Response::new(Body::bytes(text));
    *response.status_mut() = failure.status();
    if !failure.message().is_empty() {
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    if matches!(
        failure.status(),
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::BAD_REQUEST | StatusCode::REQUEST_TIMEOUT
    ) {
        // What is left of the request body is not worth reading.
        response
            .headers_mut()
            .insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
