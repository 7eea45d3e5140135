//! JSON that is read where it lies and changed by splices: one document for all plugins that look at a body.
//!
//! `scan` checks a text and finds its members, `text` records edits on it, `document` is what plugins see. What
//! nobody touched stays as it was written, byte for byte.

mod document;
mod error;
mod scan;
mod setter;
mod string;
mod text;

pub use document::JsonDocument;
pub use error::{JsonBodyError, JsonError, PathError};
