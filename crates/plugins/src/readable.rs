//! Whether a request's body is one that plugins read, as Higress's SDK decides it.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, UPGRADE};
use http_body::Body as _;
use tollgate_body::Request;

/// Whether there is a body, neither binary nor compressed.
pub(crate) fn has_readable_body(request: &Request) -> bool {
    let headers = request.headers();
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_binary = kind.is_some_and(|kind| kind.contains("octet-stream") || kind.contains("grpc"));
    let is_encoded = headers
        .get(CONTENT_ENCODING)
        .is_some_and(|value| !value.is_empty());
    !is_binary && !is_encoded && !headers.contains_key(UPGRADE) && !request.body().is_end_stream()
}
