//! gRPC over HTTP/2 as a client that sends everything at once: framing of messages, and what the status means.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderValue, Method};
use prost::Message;

use super::{Accepted, Answer, Failure};

/// Bytes before each message: no compression, then its length.
const PREFIX: usize = 5;

/// A request whose body is these messages in a row.
pub(super) fn request<M: Message>(path: &'static str, messages: &[M]) -> http::Request<Bytes> {
    let lengths: usize = messages
        .iter()
        .map(|message| PREFIX + message.encoded_len())
        .sum();
    let mut body = BytesMut::with_capacity(lengths);
    for message in messages {
        body.put_u8(0);
        body.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
        // There is room for it.
        let written = message.encode(&mut body);
        debug_assert!(written.is_ok());
    }
    let mut request = http::Request::new(body.freeze());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(path);
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    request
}

/// The first message of an answer.
pub(super) fn message(answer: &Answer) -> Option<&[u8]> {
    let length: [u8; 4] = answer.body.get(1..PREFIX)?.try_into().ok()?;
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    answer.body.get(PREFIX..PREFIX.checked_add(length)?)
}

/// What the status says; those that pass are OTLP's list.
pub(super) fn judge(answer: &Answer) -> Result<Accepted, Failure> {
    if answer.status != 200 {
        return Err(Failure::Passing(format!("HTTP status {}", answer.status)));
    }
    let find = |name: &str| answer.trailers.get(name).or_else(|| answer.headers.get(name));
    let text = |name: &str| {
        find(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let why = || format!("gRPC status {}: {}", text("grpc-status"), text("grpc-message"));
    match text("grpc-status").parse::<u32>() {
        Ok(0) => Ok(Accepted::default()),
        // Cancelled, deadline exceeded, resource exhausted, aborted, out of range, unavailable, data loss.
        Ok(1 | 4 | 8 | 10 | 11 | 14 | 15) => Err(Failure::Passing(why())),
        Ok(_) => Err(Failure::Final(why())),
        Err(_) => Err(Failure::Passing(
            "the answer ended without a gRPC status".to_owned(),
        )),
    }
}
