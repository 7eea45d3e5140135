//! Header fields as bytes: read into a map that shares one copy of the head, and written.
//!
//! Decides nothing about a message but what the syntax says (RFC 9110 §5, RFC 9112 §5).

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Most header fields of a head.
pub const MOST_FIELDS: usize = 100;

/// The fields that `httparse` found in the first `length` bytes of `input`. All values share one copy of them.
///
/// # Errors
/// For what is no field after all.
pub fn header_map(
    fields: &[httparse::Header<'_>],
    input: &[u8],
    length: usize,
) -> Result<HeaderMap, &'static str> {
    let invalid = "invalid HTTP header parsed";
    let shared = Bytes::copy_from_slice(input.get(..length).unwrap_or(input));
    let begin = input.as_ptr() as usize;
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| invalid)?;
        let value = if field.value.is_empty() {
            HeaderValue::from_static("")
        } else {
            let from = field.value.as_ptr() as usize - begin;
            let piece = shared.slice(from..from + field.value.len());
            HeaderValue::from_maybe_shared(piece).map_err(|_| invalid)?
        };
        headers.append(name, value);
    }
    Ok(headers)
}

/// What `httparse` does not like, in words with few values.
#[must_use]
pub fn parse_failure(cause: httparse::Error) -> &'static str {
    match cause {
        httparse::Error::HeaderName | httparse::Error::HeaderValue => "invalid HTTP header parsed",
        httparse::Error::Status => "invalid HTTP status-code parsed",
        httparse::Error::TooManyHeaders => "message head has too many headers",
        httparse::Error::Version => "invalid HTTP version parsed",
        httparse::Error::NewLine | httparse::Error::Token => "invalid HTTP head parsed",
    }
}

/// Whether a list such as `connection` holds this option, in whatever case.
#[must_use]
pub fn has_option(headers: &HeaderMap, name: &HeaderName, option: &[u8]) -> bool {
    let values = headers.get_all(name).iter();
    let mut members = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    members.any(|member| member.trim_ascii().eq_ignore_ascii_case(option))
}

/// A number of digits only: no sign, no blanks.
#[must_use]
pub fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// Whether a field may stand behind a message; what frames or routes it has no place there (RFC 9110 §6.5.1).
#[must_use]
pub fn may_trail(name: &HeaderName) -> bool {
    ![CONTENT_LENGTH, TRANSFER_ENCODING, HOST, TRAILER, CONNECTION].contains(name)
}

/// Writes one field line.
pub fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
