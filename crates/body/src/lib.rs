//! What travels through the chain: bodies that stream by default and are parsed at most once.
//!
//! A body is untouched bytes, an original with lazily parsed JSON and recorded edits, or a stream of SSE events.
//! Bodies that nobody asked for pass through whatever their size. Knows no plugin and no vendor.
#![forbid(unsafe_code)]

mod body;
pub mod coding;
mod events;
mod gather;
pub mod http1;
mod items;
mod json;
pub mod path;
mod sse;
mod tap;

pub use body::{Body, BoxedBody, Side, Source};
pub use events::{EventMap, EventStream, Events};
pub use items::Items;
pub use json::{JsonBodyError, JsonDocument, JsonError, PathError};
pub use sse::{DEFAULT_EVENT_LIMIT, Decoded, EVENT_LIMIT_NAME, SseDecoder, SseEvent};
pub use tap::Look;

/// A request on its way upstream.
pub type Request = http::Request<Body>;
/// An answer on its way to the client.
pub type Response = http::Response<Body>;

/// Text of bytes that nearly always are text; what is not is replaced.
#[inline]
#[must_use]
pub fn to_text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    // The check is far quicker than the search for what to replace.
    match simdutf8::basic::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}
