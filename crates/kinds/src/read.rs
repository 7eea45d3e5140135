//! From the bytes of a file to typed objects and diagnostics: the one call that a source makes.
//!
//! Nothing here stops at a fault. A document that cannot be used becomes an error that names it as well as it can,
//! and all others go on. No file is opened and no environment is read.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Severity};
use crate::document::{Document, guess_identity};
use crate::envsubst::{Lookup, envsubst};
use crate::kind_table::{Object, parse, warnings};
use crate::position::Position;
use crate::yaml::{self, Chunk, MAX_TEXT_BYTES};

/// How a text is read.
#[derive(Clone, Copy)]
pub struct ReadOptions<'a> {
    /// Namespace of documents that name none: the system namespace.
    pub default_namespace: &'a str,
    /// Values for `${NAME}`; `None` leaves the text alone.
    pub substitute: Option<&'a Lookup<'a>>,
}

/// What a text held.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// The objects that can be used, in file order.
    pub objects: Vec<Object>,
    /// What was refused (errors) or left out (warnings), in file order.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads every document of a file into typed objects.
pub fn read(bytes: &[u8], source: &Arc<str>, options: &ReadOptions<'_>) -> Reading {
    let (documents, diagnostics) = read_documents(bytes, source, options.substitute);
    let mut reading = Reading {
        objects: Vec::new(),
        diagnostics,
    };
    for document in &documents {
        match parse(document, options.default_namespace) {
            Ok(object) => {
                reading.objects.push(object);
                reading
                    .diagnostics
                    .extend(warnings(document, options.default_namespace));
            }
            Err(diagnostic) => reading.diagnostics.push(diagnostic),
        }
    }
    reading.diagnostics.sort_by_key(|diagnostic| diagnostic.line);
    reading
}

/// Reads every document of a file without looking at its kind.
pub fn read_documents(
    bytes: &[u8],
    source: &Arc<str>,
    substitute: Option<&Lookup<'_>>,
) -> (Vec<Document>, Vec<Diagnostic>) {
    let whole_file = Position { line: 1, column: 1 };
    if bytes.len() > MAX_TEXT_BYTES {
        let message = format!("the file is larger than {MAX_TEXT_BYTES} bytes");
        return (Vec::new(), vec![Diagnostic::error(source, whole_file, message)]);
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            let position = Position {
                line: u32::try_from(line).unwrap_or(u32::MAX),
                column: 0,
            };
            return (
                Vec::new(),
                vec![Diagnostic::error(source, position, "the file is not UTF-8 text")],
            );
        }
    };
    let mut reader = Reader {
        source,
        documents: Vec::new(),
        diagnostics: Vec::new(),
    };
    for chunk in yaml::chunks(text) {
        match substitute {
            Some(lookup) => reader.substituted_chunk(chunk, lookup),
            None => reader.chunk(chunk.text, chunk.first_line, &|line| line),
        }
    }
    (reader.documents, reader.diagnostics)
}

struct Reader<'s> {
    source: &'s Arc<str>,
    documents: Vec<Document>,
    diagnostics: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn substituted_chunk(&mut self, chunk: Chunk<'_>, lookup: &Lookup<'_>) {
        let result = envsubst(chunk.text, lookup);
        let mut refused = false;
        for unset in &result.unset {
            let position = Position {
                line: chunk.first_line - 1 + unset.line,
                column: 0,
            };
            let severity = if unset.in_comment {
                Severity::Warning
            } else {
                Severity::Error
            };
            refused |= severity == Severity::Error;
            let message = format!("the environment variable {} is not set", unset.name);
            let diagnostic = Diagnostic {
                severity,
                ..Diagnostic::error(self.source, position, message)
            };
            self.report_about_text(diagnostic, &result.text);
        }
        if !refused {
            let original = |line: u32| match line.checked_sub(chunk.first_line - 1) {
                Some(line) => chunk.first_line - 1 + result.original_line(line),
                None => line,
            };
            self.chunk(&result.text, chunk.first_line, &original);
        }
    }

    fn chunk(&mut self, text: &str, first_line: u32, original_line: &impl Fn(u32) -> u32) {
        for parsed in yaml::parse(text, first_line) {
            match parsed {
                Ok(mut parsed) => {
                    parsed.positions.map_lines(original_line);
                    for document in Document::from_parsed(parsed, self.source) {
                        match document {
                            Ok(document) => self.documents.push(document),
                            Err(diagnostic) => self.diagnostics.push(diagnostic),
                        }
                    }
                }
                Err(fault) => {
                    let line = original_line(fault.position.line);
                    let position = Position {
                        line,
                        ..fault.position
                    };
                    let diagnostic = Diagnostic::error(self.source, position, fault.message);
                    self.report_about_text(diagnostic, text);
                }
            }
        }
    }

    fn report_about_text(&mut self, diagnostic: Diagnostic, text: &str) {
        let (kind, namespace, name) = guess_identity(text);
        self.diagnostics.push(diagnostic.about(&kind, &namespace, &name));
    }
}
