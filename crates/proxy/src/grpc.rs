//! Refusals as gRPC clients read them: status 200 and a `grpc-status` of the gateway's own, without a body.
//!
//! The numbers are those that Envoy gives for an HTTP status.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tollgate_base::Error;
use tollgate_body::{Body, Response};

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// What may not stand in `grpc-message` as it is.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// Whether these are the headers of a gRPC call (not gRPC-Web, which is HTTP as usual).
pub(crate) fn is_call(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type
        .and_then(|name| name.strip_prefix(GRPC.as_bytes()))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The answer for a failure.
pub(crate) fn refusal(failure: &Error) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    headers.insert(GRPC_STATUS, HeaderValue::from(code(failure.status())));
    let message = utf8_percent_encode(failure.message(), ESCAPED).to_string();
    if let Ok(value) = HeaderValue::try_from(message)
        && !value.is_empty()
    {
        headers.insert(GRPC_MESSAGE, value);
    }
    response
}

fn code(status: StatusCode) -> u16 {
    const UNKNOWN: u16 = 2;
    const PERMISSION_DENIED: u16 = 7;
    const UNIMPLEMENTED: u16 = 12;
    const INTERNAL: u16 = 13;
    const UNAVAILABLE: u16 = 14;
    const UNAUTHENTICATED: u16 = 16;
    match status.as_u16() {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502..=504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_known_by_their_type() {
        for (content_type, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc; x=y", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            assert_eq!(is_call(&headers), expected, "{content_type}");
        }
        assert!(!is_call(&HeaderMap::new()));
    }

    #[test]
    fn messages_are_escaped() {
        let failure = Error::client(StatusCode::FORBIDDEN, "x", "100% né\n");
        let response = refusal(&failure);
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "7");
        assert_eq!(response.headers()["grpc-message"], "100%25 n%C3%A9%0A");
    }
}
