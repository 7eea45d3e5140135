//! Header fields as bytes: read into a map that shares one copy of the head, and written.
//!
//! Decides nothing about a message but what the syntax says (RFC 9110 §5, RFC 9112 §5).

use bytes::Bytes;
use http::header::{self, CONNECTION, CONTENT_LENGTH, HOST, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};
use tollgate_base::headers;

/// Most header fields of a head.
pub const MOST_FIELDS: usize = 100;

/// The fields that `httparse` found in the first `length` bytes of `input`. All values share one copy of them. `room` is
/// for fields that will be added: a map that grows is filled anew.
///
/// # Errors
/// For what is no field after all.
pub fn header_map(
    fields: &[httparse::Header<'_>],
    input: &[u8],
    length: usize,
    room: usize,
) -> Result<HeaderMap, &'static str> {
    let invalid = "invalid HTTP header parsed";
    let shared = Bytes::copy_from_slice(input.get(..length).unwrap_or(input));
    let begin = input.as_ptr() as usize;
    let mut headers = HeaderMap::with_capacity(fields.len() + room);
    for field in fields {
        let text = field.name.as_bytes();
        let name = match common(text) {
            Some(known) => known,
            None => HeaderName::from_bytes(text).map_err(|_| invalid)?,
        };
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

/// Names that nearly every head has, at a fraction of what it costs to look a name up among all that there are. Only a
/// shortcut: the name is the same either way.
#[inline]
pub(super) fn common(name: &[u8]) -> Option<HeaderName> {
    let first = name.first()? | 0x20;
    let (text, titled, known): (&[u8], &[u8], HeaderName) = match (name.len(), first) {
        (4, b'd') => (b"date", b"Date", header::DATE),
        (4, b'h') => (b"host", b"Host", HOST),
        (6, b'a') => (b"accept", b"Accept", header::ACCEPT),
        (6, b's') => (b"server", b"Server", header::SERVER),
        (10, b'c') => (b"connection", b"Connection", CONNECTION),
        (10, b'u') => (b"user-agent", b"User-Agent", header::USER_AGENT),
        (12, b'c') => (b"content-type", b"Content-Type", header::CONTENT_TYPE),
        (12, b'x') => (b"x-request-id", b"X-Request-Id", headers::X_REQUEST_ID),
        (13, b'a') => (b"authorization", b"Authorization", header::AUTHORIZATION),
        (13, b'c') => (b"cache-control", b"Cache-Control", header::CACHE_CONTROL),
        (14, b'c') => (b"content-length", b"Content-Length", CONTENT_LENGTH),
        (15, b'a') => (b"accept-encoding", b"Accept-Encoding", header::ACCEPT_ENCODING),
        (15, b'x') => (b"x-forwarded-for", b"X-Forwarded-For", headers::X_FORWARDED_FOR),
        (17, b't') => (b"transfer-encoding", b"Transfer-Encoding", TRANSFER_ENCODING),
        (17, b'x') => (
            b"x-forwarded-proto",
            b"X-Forwarded-Proto",
            headers::X_FORWARDED_PROTO,
        ),
        _ => return None,
    };
    // As nearly everybody writes them; the rest is compared letter by letter.
    let is_it = name == text || name == titled || name.eq_ignore_ascii_case(text);
    is_it.then_some(known)
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

/// Writes a number in digits.
pub fn write_number(out: &mut Vec<u8>, mut number: u64) {
    // As many as the largest has.
    let mut digits = [0; 20];
    let mut from = digits.len();
    loop {
        from -= 1;
        digits[from] = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[from..]);
}

/// Writes one field line.
#[inline]
pub fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    // Byte by byte: two are stored for less than a copy is called for.
    out.push(b':');
    out.push(b' ');
    out.extend_from_slice(value);
    out.push(b'\r');
    out.push(b'\n');
}
