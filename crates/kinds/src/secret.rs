//! Secret (v1): bytes by key, never printed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::document::Document;
use crate::mcp_bridge::MaskedText;
use crate::resource::{Body, Resource, read};

/// A Secret.
pub type Secret = Resource<SecretData>;

/// Content of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecretData {
    /// `kubernetes.io/tls`, `kubernetes.io/dockerconfigjson`, `Opaque` …; empty when not written.
    pub secret_type: String,
    /// Decoded values by key; `stringData` wins over `data`.
    pub data: BTreeMap<String, SecretValue>,
}

/// A value that must not be printed; cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Arc<[u8]>);

impl SecretValue {
    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text, when they are UTF-8.
    pub fn expose_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "*** ({} bytes)", self.0.len())
    }
}

impl SecretData {
    /// The value of the first of `keys` that is there; Higress accepts several names for one thing.
    pub fn first(&self, keys: &[&str]) -> Option<&SecretValue> {
        keys.iter().find_map(|key| self.data.get(*key))
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SecretLayout {
    #[serde(rename = "type")]
    secret_type: String,
    data: BTreeMap<String, MaskedText>,
    string_data: BTreeMap<String, MaskedText>,
}

pub(crate) fn parse(document: &Document, namespace: Option<&str>) -> Result<Secret, Diagnostic> {
    let written: Resource<SecretLayout> = read(document, "Secret", namespace, Body::TopLevel)?;
    let mut data = BTreeMap::new();
    for (key, encoded) in &written.spec.data {
        // Go's decoder skips line breaks.
        let compact: String = encoded
            .expose()
            .chars()
            .filter(|character| !matches!(character, '\r' | '\n'))
            .collect();
        let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(compact) else {
            return Err(written.error(
                &format!("data[{key}]"),
                "is not base64; plain text goes to `stringData`",
            ));
        };
        data.insert(key.clone(), SecretValue(bytes.into()));
    }
    written.try_map(|layout| {
        for (key, text) in layout.string_data {
            data.insert(key, SecretValue(text.expose().as_bytes().into()));
        }
        Ok(SecretData {
            secret_type: layout.secret_type,
            data,
        })
    })
}
