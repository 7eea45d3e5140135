//! `Span`: one finished piece of work.

use std::borrow::Cow;

use super::attributes::Attributes;
use super::ids::SpanId;

/// What a span stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request itself.
    Entry,
    /// One attempt at an upstream.
    Attempt,
    /// A request that a plugin made.
    CallOut,
}

/// One finished piece of work.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// What it stands for.
    pub kind: Kind,
    /// Its id where ids are random.
    pub id: SpanId,
    /// Its number within the trace: 0 is the entry.
    pub number: i32,
    /// Name.
    pub name: Cow<'static, str>,
    /// Start, nanoseconds since 1970.
    pub start: u64,
    /// End, nanoseconds since 1970.
    pub end: u64,
    /// Whom it went to; empty for an entry.
    pub peer: String,
    /// Whether it failed.
    pub error: bool,
    /// Why, in words for people; may be empty.
    pub message: Cow<'static, str>,
    /// Attributes.
    pub attributes: Attributes,
}

impl Span {
    /// Bytes that it takes, about.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.name.len() + self.peer.len() + self.message.len() + self.attributes.size()
    }
}
