//! What reads bytes of strangers, as functions that a fuzzer drives: one row of [`TARGETS`] each.
//!
//! A target panics when something that must always hold does not. Its kept inputs lie in `corpus/NAME` and are replayed
//! by `cargo test`; `make fuzz TARGET=NAME` looks for new ones. Nothing that is shipped depends on this crate.

mod bytes_in_pieces;
mod dialects;
mod documents;
mod json;
mod requests;

/// What a fuzzer drives.
pub struct Target {
    /// Its folder in `corpus/`.
    pub name: &'static str,
    /// Takes any bytes at all.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target {
        name: "event_stream",
        run: bytes_in_pieces::event_stream,
    },
    Target {
        name: "chunked_body",
        run: bytes_in_pieces::chunked_body,
    },
    Target {
        name: "json_path",
        run: json::path,
    },
    Target {
        name: "json_document",
        run: json::document,
    },
    Target {
        name: "dialects",
        run: dialects::answers,
    },
    Target {
        name: "requests",
        run: requests::bodies,
    },
    Target {
        name: "documents",
        run: documents::documents,
    },
    Target {
        name: "log_format",
        run: documents::log_format,
    },
];

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
