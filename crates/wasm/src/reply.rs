//! Answers of a module's own making, and the one for a module that must not be skipped and is gone.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use tollgate_base::Termination;
use tollgate_body::{Body, Response};
use tollgate_observe::Record;

use crate::head::Head;
use crate::limits::Room;
use crate::plugin::status;
use crate::stream::LocalReply;

/// The answer that a module asked for: the gateway's own, also where an upstream's answer was there already.
pub(crate) fn local(record: &Record, room: Room, is_grpc: bool, reply: LocalReply) -> Response {
    record.terminate(Termination::Refused);
    let details = match reply.details.as_str() {
        "" => "direct_response",
        told => told,
    };
    record.details.replace(details.to_owned().into());
    let mut head = Head::Plain(HeaderMap::new());
    for (name, value) in &reply.headers {
        head.add(room, name, value);
    }
    let headers = std::mem::take(head.fields_mut());
    match is_grpc {
        true => grpc(headers, &reply),
        false => plain(headers, reply),
    }
}

fn plain(mut headers: HeaderMap, reply: LocalReply) -> Response {
    if !reply.body.is_empty() {
        headers
            .entry(CONTENT_TYPE)
            .or_insert(HeaderValue::from_static("text/plain"));
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(reply.body.len()));
    let mut response = Response::new(Body::bytes(reply.body));
    *response.status_mut() = status(reply.status);
    *response.headers_mut() = headers;
    response
}

/// For a gRPC client: trailers only, the body's text as the message.
fn grpc(mut headers: HeaderMap, reply: &LocalReply) -> Response {
    let code = reply.grpc_status.unwrap_or(match reply.status {
        200 => 0,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    });
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(code));
    let text: String = reply.body.iter().map(|byte| escaped(*byte)).collect();
    if let Ok(message) = HeaderValue::from_str(&text)
        && !text.is_empty()
    {
        headers.insert("grpc-message", message);
    }
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = headers;
    response
}

fn escaped(byte: u8) -> String {
    match byte {
        b'%' | 0..=0x1f | 0x7f.. => format!("%{byte:02X}"),
        _ => char::from(byte).to_string(),
    }
}

/// 503 without a body.
pub(crate) fn failed(record: &Record) -> Response {
    record.terminate(Termination::Refused);
    record.details.replace("wasm_fail_stream".into());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}
