//! Texts that users and clusters write: documents on their way to a snapshot, and the format of the access log.

use std::sync::Arc;

use tollgate_compile::Options;
use tollgate_kinds::{Objects, ReadOptions};
use tollgate_observe::Format;

/// A file of documents, read and compiled. What is wrong with it is a diagnostic with a place.
pub(crate) fn documents(input: &[u8]) {
    let source: Arc<str> = "fuzz.yaml".into();
    let options = ReadOptions {
        default_namespace: "higress-system",
        substitute: None,
    };
    let reading = tollgate_kinds::read(input, &source, &options);
    let mut objects = Objects::new();
    for object in reading.objects {
        // Written twice is a diagnostic too.
        drop(objects.insert(object));
    }
    let (snapshot, diagnostics) = tollgate_compile::compile(&objects, &Options::default());
    drop(snapshot);
    for diagnostic in reading.diagnostics.iter().chain(&diagnostics) {
        assert!(!diagnostic.to_string().is_empty());
    }
}

/// `accessLogFormat`.
pub(crate) fn log_format(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input)
        && let Err(fault) = Format::parse(text)
    {
        assert!(!fault.to_string().is_empty());
    }
}
