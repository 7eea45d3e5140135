//! YAML as kubectl and Higress read it: text in, `serde_json::Value` and the place of every field out.
//!
//! A file is cut at its document markers first, so a syntax error is confined to the document it stands in. Plain
//! scalars are resolved as Go's `sigs.k8s.io/yaml` does (YAML 1.1 booleans, octal numbers, merge keys), because the
//! same text must mean the same here and in a cluster; `testdata/yaml.json` holds the comparison. Nothing in here
//! knows a kind.

mod compose;
mod json;
mod scalar;
mod split;

use std::sync::Arc;

use serde_json::Value;

use crate::diagnostic::Diagnostic;
use crate::position::{Position, Positions};

pub use scalar::number_as_go_prints;
pub use split::{Chunk, chunks};

/// Largest text of one file, in bytes. A Kubernetes object is at most 1.5 MiB; this leaves room for thousands.
pub const MAX_TEXT_BYTES: usize = 64 * 1024 * 1024;
/// Most values (mappings, lists and scalars, aliases expanded) of one document.
pub const MAX_DOCUMENT_NODES: usize = 500_000;
/// Most bytes of scalars of one document, aliases expanded.
pub const MAX_DOCUMENT_BYTES: usize = 64 * 1024 * 1024;
/// Deepest nesting of one document.
pub const MAX_DOCUMENT_DEPTH: usize = 100;

/// One document: its value and where each field stands.
#[derive(Clone, PartialEq)]
pub struct Parsed {
    /// The content, mappings in file order.
    pub value: Value,
    /// The place of every field of `value`, in lines of the whole file.
    pub positions: Positions,
}

/// A text that could not be read: where and why. It never quotes the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Place in the file.
    pub position: Position,
    /// What is wrong.
    pub message: String,
}

impl Fault {
    fn new(position: Position, message: impl Into<String>) -> Self {
        Self {
            position,
            message: message.into(),
        }
    }
}

/// Reads every document of a file. A document that is broken becomes an error and leaves the others alone; documents
/// without content are left out.
pub fn documents(text: &str, source: &Arc<str>) -> Vec<Result<Parsed, Diagnostic>> {
    if text.len() > MAX_TEXT_BYTES {
        let message = format!("the file is larger than {MAX_TEXT_BYTES} bytes");
        return vec![Err(Diagnostic::error(
            source,
            Position { line: 1, column: 1 },
            message,
        ))];
    }
    chunks(text)
        .iter()
        .flat_map(|chunk| parse(chunk.text, chunk.first_line))
        .map(|parsed| parsed.map_err(|fault| Diagnostic::error(source, fault.position, fault.message)))
        .collect()
}

/// Reads the documents of one chunk whose text begins at `first_line` of its file. Text that begins like a JSON
/// object and is valid JSON is read as JSON, which is stricter about numbers and knows surrogate pairs.
pub fn parse(text: &str, first_line: u32) -> Vec<Result<Parsed, Fault>> {
    if text.trim_start().starts_with(['{', '['])
        && let Some(parsed) = json::parse(text, first_line)
    {
        return parsed;
    }
    compose::parse(text, first_line)
}

#[cfg(test)]
mod tests;
