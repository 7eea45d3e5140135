//! Request ids.

use http::HeaderValue;
use uuid::Uuid;

/// A fresh `x-request-id` (UUIDv4, as Higress generates it).
#[must_use]
pub fn request_id() -> HeaderValue {
    let mut buffer = Uuid::encode_buffer();
    let text = Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}
