//! The head of a request: what it asks for, and how its body is framed. Refuses what two readers could take for two
//! different requests (RFC 9112 §3, §6.3 and §11.2).

use std::mem::MaybeUninit;

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version, request};
use tollgate_body::http1::{Chunked, Framing, MOST_FIELDS, digits, has_option, header_map, parse_failure};

/// Fields that requests get on their way: an id, forwarding headers, a credential.
const ADDED: usize = 5;

/// A head that is whole.
pub(super) struct Head {
    pub(super) parts: request::Parts,
    pub(super) framing: Framing,
    /// The client wants to go on with this connection.
    pub(super) persistent: bool,
    /// The client waits for a word before it sends its body.
    pub(super) expects: bool,
}

/// Why there is no request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// As Envoy names it.
    pub(super) details: &'static str,
    pub(super) message: &'static str,
    /// The request line, where it could be read.
    pub(super) known: Option<Known>,
}

/// What a refused head says in its first line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) method: Method,
    /// As it came, whatever it is.
    pub(super) target: Box<str>,
}

/// Breaks the grammar.
const CODEC_ERROR: &str = "http1.codec_error";

/// 400 for a head that breaks the rules.
fn malformed(message: &'static str) -> Refusal {
    refused(StatusCode::BAD_REQUEST, CODEC_ERROR, message)
}

fn refused(status: StatusCode, details: &'static str, message: &'static str) -> Refusal {
    Refusal {
        status,
        details,
        message,
        known: None,
    }
}

/// A head that did not come in time.
pub(super) fn too_slow() -> Refusal {
    refused(
        StatusCode::REQUEST_TIMEOUT,
        "request_header_timeout",
        "request header timeout",
    )
}

/// A head over the limit.
pub(super) fn too_large() -> Refusal {
    refused(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "http1.headers_too_large",
        "request headers are too large",
    )
}

/// A body that breaks its framing.
pub(super) fn broken_body(message: &'static str) -> tollgate_base::Error {
    tollgate_base::Error::client(StatusCode::BAD_REQUEST, CODEC_ERROR, message)
        .with_flag(tollgate_base::Flag::DownstreamProtocolError)
}

/// The head at the beginning of `input` with its length; `None` while its end has not come.
pub(super) fn parse(input: &[u8], limit: usize) -> Result<Option<(Head, usize)>, Refusal> {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let outcome = parsed.parse_with_uninit_headers(input, &mut fields);
    let length = match outcome {
        Ok(httparse::Status::Complete(length)) if length > limit => return Err(too_large()),
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if input.len() > limit => return Err(too_large()),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(cause) => return Err(grammar(cause, &parsed)),
    };
    match understand(&parsed, input, length) {
        Ok(head) => Ok(Some((head, length))),
        Err(refusal) => Err(Refusal {
            known: known(&parsed),
            ..refusal
        }),
    }
}

fn grammar(cause: httparse::Error, parsed: &httparse::Request<'_, '_>) -> Refusal {
    let refusal = match cause {
        httparse::Error::TooManyHeaders => refused(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "http1.too_many_headers",
            "too many request headers",
        ),
        other => malformed(parse_failure(other)),
    };
    Refusal {
        known: known(parsed),
        ..refusal
    }
}

fn known(parsed: &httparse::Request<'_, '_>) -> Option<Known> {
    Some(Known {
        method: Method::from_bytes(parsed.method?.as_bytes()).ok()?,
        target: parsed.path?.into(),
    })
}

fn understand(parsed: &httparse::Request<'_, '_>, input: &[u8], length: usize) -> Result<Head, Refusal> {
    let method = parsed.method.unwrap_or_default().as_bytes();
    let method = Method::from_bytes(method).map_err(|_| malformed("invalid HTTP method parsed"))?;
    let uri = uri(&method, parsed.path.unwrap_or_default())?;
    let version = match parsed.version {
        Some(0) => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    let headers = header_map(parsed.headers, input, length, ADDED).map_err(malformed)?;
    let framing = framing(version, &headers)?;
    let persistent = is_persistent(version, &headers);
    let expects = version == Version::HTTP_11
        && !framing.is_nothing()
        && has_option(&headers, &EXPECT, b"100-continue");
    let (mut parts, ()) = Request::new(()).into_parts();
    (parts.method, parts.uri, parts.version, parts.headers) = (method, uri, version, headers);
    Ok(Head {
        parts,
        framing,
        persistent,
        expects,
    })
}

/// The target in one of its four forms (RFC 9112 §3.2).
fn uri(method: &Method, target: &str) -> Result<Uri, Refusal> {
    let has_form = match method {
        &Method::CONNECT => !target.starts_with('/'),
        _ => target.starts_with('/') || target == "*" || target.contains("://"),
    };
    let invalid = || {
        refused(
            StatusCode::BAD_REQUEST,
            "http1.invalid_url",
            "invalid request target",
        )
    };
    if !has_form {
        return Err(invalid());
    }
    Uri::try_from(target).map_err(|_| match target.len() >= usize::from(u16::MAX) {
        true => refused(
            StatusCode::URI_TOO_LONG,
            "http1.invalid_url",
            "request target is too long",
        ),
        false => invalid(),
    })
}

fn framing(version: Version, headers: &HeaderMap) -> Result<Framing, Refusal> {
    let coding = headers.contains_key(TRANSFER_ENCODING);
    let length = said_length(headers)?;
    match (coding, length) {
        (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
        (true, Some(_)) => Err(refused(
            StatusCode::BAD_REQUEST,
            "http1.content_length_and_chunked_not_allowed",
            "both content-length and transfer-encoding",
        )),
        (true, None) if version == Version::HTTP_10 => {
            Err(malformed("transfer-encoding in an HTTP/1.0 request"))
        }
        (true, None) => chunked(headers),
    }
}

/// Chunked, and nothing else: a coding in front of it could not be passed on.
fn chunked(headers: &HeaderMap) -> Result<Framing, Refusal> {
    let invalid = |status| {
        refused(
            status,
            "http1.invalid_transfer_encoding",
            "unsupported transfer-encoding",
        )
    };
    let values = headers.get_all(TRANSFER_ENCODING).iter();
    let members = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let is_chunked = |member: &[u8]| member.trim_ascii().eq_ignore_ascii_case(b"chunked");
    let mut last_is_chunked = false;
    let (mut count, mut chunks) = (0_u32, 0_u32);
    for member in members {
        last_is_chunked = is_chunked(member);
        count += 1;
        chunks += u32::from(last_is_chunked);
    }
    match (count, chunks, last_is_chunked) {
        (1, 1, true) => Ok(Framing::Chunked(Chunked::default())),
        // Its end could be found, its content not (RFC 9112 §6.1).
        (_, 1, true) => Err(invalid(StatusCode::NOT_IMPLEMENTED)),
        _ => Err(invalid(StatusCode::BAD_REQUEST)),
    }
}

/// The length, said once: a client that says it twice is not trusted, even where both agree.
fn said_length(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(malformed("more than one content-length"));
    }
    match digits(value.as_bytes()) {
        Some(length) => Ok(Some(length)),
        None => Err(malformed("invalid content-length")),
    }
}

fn is_persistent(version: Version, headers: &HeaderMap) -> bool {
    if !headers.contains_key(CONNECTION) {
        return version == Version::HTTP_11;
    }
    let says = |option: &[u8]| has_option(headers, &CONNECTION, option);
    !says(b"close") && (version == Version::HTTP_11 || says(b"keep-alive"))
}
