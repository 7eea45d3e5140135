//! The head of an answer: what it says, and how its body will be framed. Refuses what two readers could take for two
//! different messages (RFC 9112 §6.3 and §11.2).

use std::mem::MaybeUninit;

use bytes::BytesMut;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Response, StatusCode, Version, response};
use hyper::ext::ReasonPhrase;
use tollgate_body::http1::{Chunked, Framing, MOST_FIELDS, digits, has_option, header_map, parse_failure};

/// Most bytes of an answer's head.
const LARGEST_HEAD: usize = 64 * 1024;
/// Most interim answers (1xx) before the real one.
const MOST_INTERIM: u32 = 64;

/// Fields that answers get on their way: the request's id, what a plugin says.
const ADDED: usize = 2;

/// A head that is whole.
pub(super) struct Head {
    pub(super) parts: response::Parts,
    pub(super) framing: Framing,
    /// The connection may be used again.
    pub(super) persistent: bool,
}

/// Collects a head from reads, leaving what comes behind it.
#[derive(Default)]
pub(super) struct HeadReader {
    /// A head whose end has not come.
    partial: BytesMut,
    interim: u32,
}

impl HeadReader {
    /// Whether part of a head, or an interim one, has come.
    pub(super) fn has_begun(&self) -> bool {
        self.interim > 0 || !self.partial.is_empty()
    }

    /// The head, once it is whole; `input` then holds what follows it.
    pub(super) fn take(
        &mut self,
        method: &Method,
        input: &mut BytesMut,
    ) -> Result<Option<Head>, &'static str> {
        let ends_a_line = memchr::memchr(b'\n', input).is_some();
        if !self.partial.is_empty() {
            self.partial.extend_from_slice(input);
            input.clear();
            // A head ends with a line; others need not be looked at again for each byte.
            if ends_a_line {
                std::mem::swap(&mut self.partial, input);
            }
        }
        while !input.is_empty() {
            let Some((head, length)) = parse(method, input)? else {
                break;
            };
            drop(input.split_to(length));
            let is_interim =
                head.parts.status.is_informational() && head.parts.status != StatusCode::SWITCHING_PROTOCOLS;
            if !is_interim {
                return Ok(Some(head));
            }
            self.interim += 1;
            if self.interim > MOST_INTERIM {
                return Err("too many interim answers");
            }
        }
        self.partial.extend_from_slice(input);
        if self.partial.len() > LARGEST_HEAD {
            return Err("message head is too large");
        }
        Ok(None)
    }
}

fn parse(method: &Method, input: &[u8]) -> Result<Option<(Head, usize)>, &'static str> {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let outcome =
        httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, input, &mut fields);
    let length = match outcome {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(cause) => return Err(parse_failure(cause)),
    };
    if length > LARGEST_HEAD {
        return Err("message head is too large");
    }
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or("invalid HTTP status-code parsed")?;
    let version = match parsed.version {
        Some(0) => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    let headers = header_map(parsed.headers, input, length, ADDED)?;
    let framing = framing(method, status, version, &headers)?;
    let persistent = is_persistent(version, &headers)
        && status != StatusCode::SWITCHING_PROTOCOLS
        && !matches!(framing, Framing::UntilClose);
    let (mut parts, ()) = Response::new(()).into_parts();
    (parts.status, parts.version, parts.headers) = (status, version, headers);
    if let Some(reason) = parsed.reason
        && status.canonical_reason() != Some(reason)
        && let Ok(phrase) = ReasonPhrase::try_from(reason.as_bytes())
    {
        parts.extensions.insert(phrase);
    }
    if parts.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some()
        && let Some(first) = parts.headers.get(CONTENT_LENGTH).cloned()
    {
        // They say the same, as was just seen.
        parts.headers.insert(CONTENT_LENGTH, first);
    }
    let head = Head {
        parts,
        framing,
        persistent,
    };
    Ok(Some((head, length)))
}

fn framing(
    method: &Method,
    status: StatusCode,
    version: Version,
    headers: &HeaderMap,
) -> Result<Framing, &'static str> {
    let length = said_length(headers)?;
    let coding = headers.get(TRANSFER_ENCODING);
    if coding.is_some() && length.is_some() {
        return Err("both content-length and transfer-encoding");
    }
    if coding.is_some() && version == Version::HTTP_10 {
        return Err("transfer-encoding in an HTTP/1.0 answer");
    }
    let has_none = *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if has_none {
        return Ok(Framing::Length(0));
    }
    match coding {
        Some(value) => {
            let is_only = headers.get_all(TRANSFER_ENCODING).iter().nth(1).is_none();
            match is_only && value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
                true => Ok(Framing::Chunked(Chunked::default())),
                false => Err("unsupported transfer-encoding"),
            }
        }
        None => Ok(length.map_or(Framing::UntilClose, Framing::Length)),
    }
}

/// The length, where all fields and all members of their lists agree on it.
fn said_length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut known = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        for member in value.as_bytes().split(|byte| *byte == b',') {
            let length = digits(member.trim_ascii()).ok_or("invalid content-length parsed")?;
            if known.is_some_and(|earlier| earlier != length) {
                return Err("contradicting content-length");
            }
            known = Some(length);
        }
    }
    Ok(known)
}

fn is_persistent(version: Version, headers: &HeaderMap) -> bool {
    let says = |option: &[u8]| has_option(headers, &CONNECTION, option);
    if version == Version::HTTP_11 {
        !says(b"close")
    } else {
        says(b"keep-alive") && !says(b"close")
    }
}
