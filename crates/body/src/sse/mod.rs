//! Server-sent events, byte for byte: a decoder that cuts a stream into events and the event itself.
//!
//! Grammar: WHATWG "Server-sent events". An event keeps its own bytes, comments and line ends included, so the
//! events of a stream joined again are the stream; what an untouched event costs is finding its end.

mod decoder;
mod event;

pub use decoder::{DEFAULT_EVENT_LIMIT, Decoded, EVENT_LIMIT_NAME, SseDecoder};
pub use event::SseEvent;

/// Sent by some servers at the start of a stream, and no part of the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
