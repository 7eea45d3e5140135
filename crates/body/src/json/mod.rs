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
pub(crate) use scan::is_valid;
pub(crate) use setter::parse as parse_setter_path;
pub(crate) use string::unescape;
pub(crate) use text::{remove_in_text, set_in_text};
