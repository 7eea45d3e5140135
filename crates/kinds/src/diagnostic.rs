//! What is wrong with a document, in a form that people and machines can read.
//!
//! Every stage left of the snapshot reports with this one type: reading, parsing, compiling, discovery. An error
//! means that the object named (or the document, when it has no name yet) was refused and its last good version
//! stays; a warning means that it was accepted. A message never repeats a value of the document: values may be
//! secrets that were substituted a moment ago.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::position::Position;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Refused: the object is not in force.
    Error,
    /// Accepted, but probably not what was meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One finding. `Display` is the line of `tollgate check`
/// (`FILE:LINE: error: kind namespace/name: field: message`; parts that are unknown are left out), serde is its
/// `--json` form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// File, or another name of the source such as `kubernetes`.
    pub file: Arc<str>,
    /// Line in the file from 1; 0 when the source has no lines.
    pub line: u32,
    /// Column in the file from 1; 0 when unknown.
    pub column: u32,
    /// Kind as written, such as `WasmPlugin`; empty when unknown.
    pub kind: Box<str>,
    /// Namespace; empty when unknown or when the kind has none.
    pub namespace: Box<str>,
    /// Name; empty when unknown.
    pub name: Box<str>,
    /// Path of the field, such as `spec.matchRules[0].config`; empty when the object as a whole is meant.
    pub field: Box<str>,
    /// What is wrong, in one lower-case sentence without a full stop.
    pub message: Box<str>,
}

impl Diagnostic {
    /// An error at a place of a file, about no object in particular.
    pub fn error(file: &Arc<str>, position: Position, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: Arc::clone(file),
            line: position.line,
            column: position.column,
            kind: Box::default(),
            namespace: Box::default(),
            name: Box::default(),
            field: Box::default(),
            message: message.into().into_boxed_str(),
        }
    }

    /// A warning at a place of a file, about no object in particular.
    pub fn warning(file: &Arc<str>, position: Position, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(file, position, message)
        }
    }

    /// Names the object that is meant.
    #[must_use]
    pub fn about(mut self, kind: &str, namespace: &str, name: &str) -> Self {
        self.kind = kind.into();
        self.namespace = namespace.into();
        self.name = name.into();
        self
    }

    /// Names the field that is meant.
    #[must_use]
    pub fn at_field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into().into_boxed_str();
        self
    }

    /// Whether something was refused.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = String::with_capacity(self.file.len() + self.field.len() + self.message.len() + 64);
        line.push_str(&self.file);
        if self.line > 0 {
            line.push_str(&format!(":{}", self.line));
        }
        line.push_str(&format!(": {}", self.severity));
        match (
            self.kind.is_empty(),
            self.namespace.is_empty(),
            self.name.is_empty(),
        ) {
            (true, _, _) => {}
            (false, _, true) => line.push_str(&format!(": {}", self.kind)),
            (false, true, false) => line.push_str(&format!(": {} {}", self.kind, self.name)),
            (false, false, false) => {
                line.push_str(&format!(": {} {}/{}", self.kind, self.namespace, self.name))
            }
        }
        if !self.field.is_empty() {
            line.push_str(&format!(": {}", self.field));
        }
        line.push_str(&format!(": {}", self.message));
        // A name or a key may hold a line break or a terminal escape; one diagnostic stays one line.
        for character in line.chars() {
            match character.is_control() {
                true => write!(formatter, "{}", character.escape_default())?,
                false => write!(formatter, "{character}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Position {
        Position { line: 7, column: 3 }
    }

    #[test]
    fn prints_what_the_contract_says() {
        let file: Arc<str> = "conf/a.yaml".into();
        let diagnostic = Diagnostic::error(&file, place(), "expected a string, found a list")
            .about("WasmPlugin", "higress-system", "ai-proxy")
            .at_field("spec.url");
        assert_eq!(
            diagnostic.to_string(),
            "conf/a.yaml:7: error: WasmPlugin higress-system/ai-proxy: spec.url: expected a string, found a list"
        );
        let json = serde_json::to_value(&diagnostic).unwrap();
        assert_eq!(json["severity"], "error");
        assert_eq!(json["file"], "conf/a.yaml");
        assert_eq!(json["line"], 7);
    }

    #[test]
    fn leaves_out_what_is_unknown() {
        let file: Arc<str> = "kubernetes".into();
        let diagnostic = Diagnostic::warning(&file, Position::default(), "nothing to do");
        assert_eq!(diagnostic.to_string(), "kubernetes: warning: nothing to do");
        let cluster = diagnostic.about("IngressClass", "", "higress");
        assert_eq!(
            cluster.to_string(),
            "kubernetes: warning: IngressClass higress: nothing to do"
        );
    }

    #[test]
    fn stays_on_one_line() {
        let file: Arc<str> = "a.yaml".into();
        let diagnostic = Diagnostic::error(&file, place(), "x").about("Ingress", "n", "a\nb\u{1b}[31m");
        assert_eq!(
            diagnostic.to_string(),
            "a.yaml:7: error: Ingress n/a\\nb\\u{1b}[31m: x"
        );
    }
}
