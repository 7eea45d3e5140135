//! What all typed objects have in common: where they came from, their metadata, their key.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::diagnostic::{Diagnostic, Severity};
use crate::document::{Document, name_fault};
use crate::lenient::{self, Lenient};
use crate::position::{Position, Positions};

/// A whole last-applied object sits in this annotation, secrets included; nobody reads it here.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A typed object: origin, metadata and what its kind says.
#[derive(Clone, PartialEq)]
pub struct Resource<T> {
    /// Where it came from.
    pub origin: Origin,
    /// Name, namespace, labels and annotations.
    pub metadata: ObjectMeta,
    /// The kind's own fields: `spec`, or the top level for kinds without one.
    pub spec: T,
}

/// Says which object it is and not what is in it: a plugin's config holds API keys.
impl<T> fmt::Debug for Resource<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.origin.positions.here().line;
        write!(formatter, "{} ({}:{line})", self.key(), self.origin.source)
    }
}

/// The place an object came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// File, or another name of the source such as `kubernetes`.
    pub source: Arc<str>,
    /// Kind as in the table.
    pub kind: &'static str,
    /// Where each field stands; empty for sources without lines.
    pub positions: Arc<Positions>,
}

/// `metadata`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectMeta {
    /// Unique in its kind and namespace.
    pub name: String,
    /// The namespace in force: the written one, else the default of the source; empty for kinds without namespaces.
    pub namespace: String,
    /// Labels; numbers and booleans printed as Go does.
    pub labels: BTreeMap<String, String>,
    /// Annotations; numbers and booleans printed as Go does.
    pub annotations: BTreeMap<String, String>,
    /// RFC 3339, as an API server writes it (UTC, so text order is time order).
    pub creation_timestamp: Option<String>,
    /// Version for optimistic locking, of sources that have one.
    pub resource_version: Option<String>,
}

/// What makes an object unique.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Kind as in the table.
    pub kind: &'static str,
    /// Namespace; empty for kinds without namespaces.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.is_empty() {
            true => write!(formatter, "{} {}", self.kind, self.name),
            false => write!(formatter, "{} {}/{}", self.kind, self.namespace, self.name),
        }
    }
}

impl<T> Resource<T> {
    /// The unique key.
    pub fn key(&self) -> ObjectKey {
        ObjectKey {
            kind: self.origin.kind,
            namespace: self.metadata.namespace.clone(),
            name: self.metadata.name.clone(),
        }
    }

    /// Where a field such as `spec.matchRules[0].config` stands; the nearest existing parent when it is missing.
    pub fn position(&self, field: &str) -> Position {
        self.origin.positions.find(field)
    }

    /// An error about a field (`""`: about the object).
    pub fn error(&self, field: &str, message: impl Into<String>) -> Diagnostic {
        self.origin
            .diagnostic(&self.metadata, Severity::Error, field, message.into())
    }

    /// A warning about a field (`""`: about the object).
    pub fn warning(&self, field: &str, message: impl Into<String>) -> Diagnostic {
        self.origin
            .diagnostic(&self.metadata, Severity::Warning, field, message.into())
    }

    /// The order in which Higress looks at objects: creation time, then name, then namespace. Objects from files have
    /// no creation time and come first.
    pub fn creation_order(&self) -> (Option<&str>, &str, &str) {
        let metadata = &self.metadata;
        (
            metadata.creation_timestamp.as_deref(),
            &metadata.name,
            &metadata.namespace,
        )
    }

    /// The same object with other own fields.
    pub(crate) fn try_map<U, E>(self, map: impl FnOnce(T) -> Result<U, E>) -> Result<Resource<U>, E> {
        Ok(Resource {
            origin: self.origin,
            metadata: self.metadata,
            spec: map(self.spec)?,
        })
    }
}

impl Origin {
    /// A finding about an object with this origin.
    pub(crate) fn diagnostic(
        &self,
        metadata: &ObjectMeta,
        severity: Severity,
        field: &str,
        message: String,
    ) -> Diagnostic {
        let diagnostic = Diagnostic::error(&self.source, self.positions.find(field), message)
            .about(self.kind, &metadata.namespace, &metadata.name)
            .at_field(field);
        Diagnostic {
            severity,
            ..diagnostic
        }
    }
}

/// Which part of a document a kind's struct describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// The field `spec`.
    Spec,
    /// The top level, as for a ConfigMap.
    TopLevel,
}

/// Reads metadata and body of a document. `namespace` is the default for documents without one, or nothing for a kind
/// without namespaces.
pub(crate) fn read<T: DeserializeOwned + Default>(
    document: &Document,
    kind: &'static str,
    namespace: Option<&str>,
    body: Body,
) -> Result<Resource<T>, Diagnostic> {
    let named = |diagnostic: Diagnostic| {
        let namespace = namespace.map(|default| document.namespace.as_deref().unwrap_or(default));
        diagnostic.about(kind, namespace.unwrap_or_default(), &document.name)
    };
    let mut metadata: ObjectMeta = typed(document, "metadata").map_err(named)?;
    metadata.annotations.remove(LAST_APPLIED);
    match namespace {
        Some(default) if metadata.namespace.is_empty() => default.clone_into(&mut metadata.namespace),
        Some(_) => {}
        None => metadata.namespace.clear(),
    }
    let origin = Origin {
        source: Arc::clone(&document.source),
        kind,
        positions: Arc::clone(&document.positions),
    };
    let refuse = |field: &str, fault: &str| {
        Err(origin.diagnostic(&metadata, Severity::Error, field, fault.to_owned()))
    };
    if let Some(fault) = name_fault(&metadata.name) {
        return refuse("metadata.name", fault);
    }
    if namespace.is_some()
        && let Some(fault) = name_fault(&metadata.namespace)
    {
        return refuse("metadata.namespace", fault);
    }
    let spec = match body {
        Body::Spec => typed(document, "spec"),
        Body::TopLevel => typed(document, ""),
    };
    Ok(Resource {
        origin,
        metadata,
        spec: spec.map_err(named)?,
    })
}

/// Warnings about fields of `spec` that a kind does not have. Only for kinds whose struct lists all of them.
pub(crate) fn unknown_fields<T: DeserializeOwned>(document: &Document) -> Vec<Diagnostic> {
    let Some(spec) = document.value.get("spec").filter(|spec| !spec.is_null()) else {
        return vec![document.diagnostic(Severity::Warning, "spec", "missing, so the object says nothing")];
    };
    let warning = |path: String| {
        let message = "there is no such field, so it has no effect";
        document.diagnostic(Severity::Warning, &format!("spec.{path}"), message)
    };
    lenient::unknown_fields::<T>(spec)
        .into_iter()
        .map(warning)
        .collect()
}

fn typed<T: DeserializeOwned + Default>(document: &Document, field: &str) -> Result<T, Diagnostic> {
    let value = match field {
        "" => &document.value,
        field => match document.value.get(field) {
            None | Some(serde_json::Value::Null) => return Ok(T::default()),
            Some(value) => value,
        },
    };
    serde_path_to_error::deserialize(Lenient(value)).map_err(|error| {
        let inner = error.path().to_string();
        let path = match (field, inner.as_str()) {
            ("", inner) => inner.to_owned(),
            (field, ".") => field.to_owned(),
            (field, inner) if inner.starts_with('[') => format!("{field}{inner}"),
            (field, inner) => format!("{field}.{inner}"),
        };
        document.diagnostic(Severity::Error, &path, error.into_inner().to_string())
    })
}
